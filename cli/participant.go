// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) participantCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "participant", Short: "Move a participant to another cell", Args: cobra.NoArgs}
	cmd.AddCommand(a.participantMoveCommand())
	return cmd
}

// participantMove is what kaphera participant move was called with.
type participantMove struct {
	to      string
	wait    bool
	timeout time.Duration
	force   bool
}

func (a *app) participantMoveCommand() *cobra.Command {
	var m participantMove
	cmd := &cobra.Command{
		Use: "move NAME --to CELL", Short: "Move a participant to another cell, with its identity and its history", Args: cobra.ExactArgs(1),
		Long: "The participant keeps its DID and addresses, its keys and credentials, what it agreed on, what is under way and its audit trail. While it is moved,\n" +
			"for a minute or so, counterparties are told to try again. Both cells are of type shared or dedicated and host its organization. Said again it goes on\n" +
			"watching; naming the cell that it comes from gives the move up, as long as nothing runs in the other one.",
		Example: "  kaphera participant move supplier --to tier1 --wait",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.moveParticipant(cmd.Context(), args[0], m) },
	}
	f := cmd.Flags()
	f.StringVar(&m.to, "to", "", "cell to move it to")
	f.BoolVar(&m.wait, "wait", false, "wait until it works there")
	f.DurationVar(&m.timeout, "timeout", 15*time.Minute, "how long to wait")
	f.BoolVar(&m.force, "force", false, "move what Terraform manages: its next plan will show the difference")
	_ = cmd.MarkFlagRequired("to") // the flag exists
	return cmd
}

func (a *app) moveParticipant(ctx context.Context, name string, m participantMove) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.GetParticipantWithResponse(ctx, name)
	if err != nil {
		return err
	}
	p := *r.JSON200
	if p.Spec.Cell != m.to {
		if p, err = placeIn(ctx, c, r.Body, m); err != nil {
			return err
		}
	}
	if m.wait {
		if p, err = a.arrival(ctx, c, p, m); err != nil {
			return err
		}
	}
	if done, err := a.structured(p); done {
		return err
	}
	if arrived(p, m.to) {
		a.say("Participant %s runs in cell %s, as %s.", name, m.to, p.Status.DID)
	} else {
		a.say("Participant %s is being moved to cell %s. Next: kaphera participant move %s --to %s --wait", name, m.to, name, m.to)
	}
	return nil
}

// placeIn writes a participant as it was read, with another cell. What this program does not know of its spec stays as it is.
func placeIn(ctx context.Context, c *client.API, read []byte, m participantMove) (p client.Participant, err error) {
	var d document
	var spec map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(read, &d), json.Unmarshal(d.Spec, &spec)); err != nil {
		return p, fmt.Errorf("read the participant: %w", err)
	}
	cell, err := json.Marshal(m.to)
	if err != nil {
		return p, fmt.Errorf("encode the cell's name: %w", err)
	}
	spec["cell"] = cell
	if d.Spec, err = json.Marshal(spec); err != nil {
		return p, fmt.Errorf("encode the participant: %w", err)
	}
	body, err := json.Marshal(d)
	if err != nil {
		return p, fmt.Errorf("encode the participant: %w", err)
	}
	resp, err := c.Objects("participants").Put(ctx, d.Name, client.Write{Force: m.force}, bytes.NewReader(body))
	if err != nil {
		return p, err
	}
	return p, errors.Join(json.NewDecoder(resp.Body).Decode(&p), resp.Body.Close())
}

// moving is the condition that says how far a move is, as far as it is about what is wanted now.
func moving(p client.Participant) (client.Condition, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == "Moving" {
			return c, c.ObservedGeneration == p.Generation
		}
	}
	return client.Condition{}, false
}

func arrived(p client.Participant, cell string) bool {
	_, seen := moving(p)
	return seen && p.Spec.Cell == cell && p.Status.Cell == cell && p.Status.Move.Phase == ""
}

// arrival follows a move until it has ended, printing its steps.
func (a *app) arrival(ctx context.Context, c *client.API, p client.Participant, m participantMove) (client.Participant, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.timeout, errEnough)
	defer cancel()
	last := ""
	for {
		now, seen := moving(p)
		if seen && now.Message != last {
			last = now.Message
			a.say("%s", last)
		}
		switch {
		case arrived(p, m.to):
			return p, nil
		case p.Spec.Cell != m.to:
			return p, fail(ExitFailed, "kaphera describe participant "+p.Name, "somebody has placed participant %s in cell %s meanwhile", p.Name, p.Spec.Cell)
		case seen && now.Status != "True" && now.Reason != "Waiting":
			return p, fail(ExitFailed, fmt.Sprintf("mend that, or take it back: kaphera participant move %s --to %s", p.Name, p.Status.Cell), "participant %s is not moved: %s", p.Name, now.Message)
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errEnough) {
				return p, fail(ExitFailed, fmt.Sprintf("it goes on; look again with kaphera participant move %s --to %s --wait", p.Name, m.to), "participant %s has not arrived in cell %s after %s%s", p.Name, m.to, m.timeout, prefixed(": ", last))
			}
			return p, ctx.Err()
		case <-time.After(a.poll):
		}
		r, err := c.GetParticipantWithResponse(ctx, p.Name)
		switch {
		case err == nil:
			p = *r.JSON200
		case client.AsError(err) == nil || exitCode(err) != ExitUnreachable:
			if ctx.Err() == nil {
				return p, err
			}
		}
	}
}
