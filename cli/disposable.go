// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"
	"time"

	"github.com/kaphera/kaphera/client"
)

// until asks every poll until done says so, or patience is over; what names what was waited for, and done says how far it is.
func (a *app) until(ctx context.Context, patience time.Duration, what string, done func(context.Context) (bool, string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	state := ""
	for {
		ok, now, err := done(ctx)
		if ctx.Err() == nil && (err != nil || ok) {
			return err
		}
		state = first(now, state)
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == context.Canceled { //nolint:errorlint // the cause itself
				return ctx.Err()
			}
			return fail(ExitFailed, "kaphera status", "%s is not there after %s: %s", what, patience, strings.TrimSpace(first(state, "nothing was heard")))
		case <-time.After(a.poll):
		}
	}
}

// takesPart waits until a participant is active. Active needs the profile's credentials only; all others that it was granted have to have
// arrived too.
func (a *app) takesPart(ctx context.Context, c *client.API, patience time.Duration, name string) error {
	return a.until(ctx, patience, "participant "+name, func(ctx context.Context) (bool, string, error) {
		r, err := c.GetParticipantWithResponse(ctx, name)
		if err != nil {
			return false, "", err
		}
		met, state := 0, ""
		for _, c := range r.JSON200.Status.Conditions {
			switch {
			case c.Type != "Active" && c.Type != "CredentialsHeld":
			case c.Status == "True":
				met++
			default:
				state = c.Message
			}
		}
		return met == 2, state, nil
	})
}

// removeParticipant removes a participant, if it is there, and waits until it is gone.
func (a *app) removeParticipant(ctx context.Context, c *client.API, patience time.Duration, name string) error {
	_, err := c.DeleteParticipantWithResponse(ctx, name, &client.DeleteParticipantParams{Force: true})
	if client.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.until(ctx, patience, "the removal of "+name, func(ctx context.Context) (bool, string, error) {
		_, err := c.GetParticipantWithResponse(ctx, name)
		if client.IsNotFound(err) {
			return true, "", nil
		}
		return false, "it is still being removed", err
	})
}

// removeOrganization removes an organization, if it is there.
func removeOrganization(ctx context.Context, c *client.API, name string) error {
	_, err := c.DeleteOrganizationWithResponse(ctx, name, &client.DeleteOrganizationParams{Force: true})
	if client.IsNotFound(err) {
		return nil
	}
	return err
}
