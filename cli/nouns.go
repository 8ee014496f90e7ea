// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kaphera/kaphera/client"
)

// noun is a kind of thing that get and describe know.
type noun struct {
	name     string   // plural, as typed
	aliases  []string // further spellings
	columns  []string
	ofParty  bool // belongs to a participant: needs --participant
	named    bool // shows parties, by name where they have one here
	list     func(ctx context.Context, c *client.API, participant string) ([]item, error)
	get      func(ctx context.Context, c *client.API, participant, name string) (item, error)
	describe func(a *app, v any) // beyond the generic form; may be nil
}

// item is one thing: what the API says, and its cells in a table.
type item struct {
	value any
	cells []string
}

func items[T any](values []T, cells func(T) []string) []item {
	out := make([]item, len(values))
	for i, v := range values {
		out[i] = item{v, cells(v)}
	}
	return out
}

// one makes an item of a call's answer.
func one[T any](v *T, err error, cells func(T) []string) (item, error) {
	if err != nil {
		return item{}, err
	}
	return item{*v, cells(*v)}, nil
}

// pages reads all pages of a list.
func pages[T any](page func(after string) (values []T, next string, err error)) ([]T, error) {
	var out []T
	after := ""
	for {
		values, next, err := page(after)
		if err != nil {
			return nil, err
		}
		out = append(out, values...)
		if next == "" || next == after {
			return out, nil
		}
		after = next
	}
}

const pageSize = 200

func ready(conditions []client.Condition) string {
	for _, c := range conditions {
		if c.Type == "Ready" {
			return c.Status
		}
	}
	return "Unknown"
}

func (a *app) nouns() []noun {
	return []noun{a.participantNoun(), a.cellNoun(), a.organizationNoun(), a.profileNoun(), a.useCaseNoun(), a.platformNoun(),
		a.assetNoun(), a.offerNoun(), a.negotiationNoun(), a.agreementNoun(), a.transferNoun()}
}

func (a *app) findNoun(word string) (noun, error) {
	word = strings.ToLower(word)
	for _, n := range a.nouns() {
		if word == n.name || slices.Contains(n.aliases, word) {
			return n, nil
		}
	}
	return noun{}, usage("%q is not a kind of thing: use one of %s", word, strings.Join(a.nounNames(), ", "))
}

func (a *app) nounNames() []string {
	var out []string
	for _, n := range a.nouns() {
		out = append(out, n.name)
	}
	return out
}

func (a *app) cellNoun() noun {
	cells := func(c client.Cell) []string {
		return []string{c.Name, c.Spec.Type, orDash(c.Spec.Organization), c.Spec.Hostname, c.Spec.OperatingParty, ready(c.Status.Conditions), a.when(c.Status.LastHeard)}
	}
	return noun{
		name: "cells", aliases: []string{"cell"}, columns: []string{"NAME", "TYPE", "ORGANIZATION", "HOST", "OPERATED BY", "READY", "LAST HEARD"},
		list: func(ctx context.Context, c *client.API, _ string) ([]item, error) {
			all, err := pages(func(after string) ([]client.Cell, string, error) {
				r, err := c.ListCellsWithResponse(ctx, &client.ListCellsParams{After: after, Limit: pageSize})
				if err != nil {
					return nil, "", err
				}
				return r.JSON200.Items, r.JSON200.Next, nil
			})
			return items(all, cells), err
		},
		get: func(ctx context.Context, c *client.API, _, name string) (item, error) {
			r, err := c.GetCellWithResponse(ctx, name)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func (a *app) organizationNoun() noun {
	cells := func(o client.Organization) []string {
		return []string{o.Name, o.Spec.DisplayName, orDash(o.Spec.ContactEmail), o.ManagedBy}
	}
	return noun{
		name: "organizations", aliases: []string{"organization", "org", "orgs"}, columns: []string{"NAME", "DISPLAY NAME", "CONTACT", "MANAGED BY"},
		list: func(ctx context.Context, c *client.API, _ string) ([]item, error) {
			all, err := pages(func(after string) ([]client.Organization, string, error) {
				r, err := c.ListOrganizationsWithResponse(ctx, &client.ListOrganizationsParams{After: after, Limit: pageSize})
				if err != nil {
					return nil, "", err
				}
				return r.JSON200.Items, r.JSON200.Next, nil
			})
			return items(all, cells), err
		},
		get: func(ctx context.Context, c *client.API, _, name string) (item, error) {
			r, err := c.GetOrganizationWithResponse(ctx, name)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func (a *app) profileNoun() noun {
	cells := func(p client.DataspaceProfile) []string {
		return []string{p.Name, p.Spec.Protocol, strings.Join(p.Spec.RequiredCredentials, ","), fmt.Sprint(len(p.Spec.Operands)), ready(p.Status.Conditions), p.ManagedBy}
	}
	return noun{
		name: "dataspace-profiles", aliases: []string{"dataspace-profile", "profile", "profiles"}, columns: []string{"NAME", "PROTOCOL", "REQUIRES", "OPERANDS", "READY", "MANAGED BY"},
		list: func(ctx context.Context, c *client.API, _ string) ([]item, error) {
			all, err := pages(func(after string) ([]client.DataspaceProfile, string, error) {
				r, err := c.ListDataspaceProfilesWithResponse(ctx, &client.ListDataspaceProfilesParams{After: after, Limit: pageSize})
				if err != nil {
					return nil, "", err
				}
				return r.JSON200.Items, r.JSON200.Next, nil
			})
			return items(all, cells), err
		},
		get: func(ctx context.Context, c *client.API, _, name string) (item, error) {
			r, err := c.GetDataspaceProfileWithResponse(ctx, name)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func (a *app) useCaseNoun() noun {
	cells := func(u client.UseCase) []string {
		revision, inForce := "-", "-"
		if n := u.Status.Revision.Number; n > 0 {
			revision = strconv.FormatInt(n, 10)
		}
		if n := u.Status.InForce.Number; n > 0 {
			inForce = strconv.FormatInt(n, 10)
		}
		return []string{u.Name, u.Spec.Title, u.Spec.Profile, ready(u.Status.Conditions), revision, inForce, u.ManagedBy}
	}
	return noun{
		name: "use-cases", aliases: []string{"use-case", "usecase", "usecases"}, columns: []string{"NAME", "TITLE", "PROFILE", "READY", "REVISION", "IN FORCE", "MANAGED BY"},
		list: func(ctx context.Context, c *client.API, _ string) ([]item, error) {
			all, err := pages(func(after string) ([]client.UseCase, string, error) {
				r, err := c.ListUseCasesWithResponse(ctx, &client.ListUseCasesParams{After: after, Limit: pageSize})
				if err != nil {
					return nil, "", err
				}
				return r.JSON200.Items, r.JSON200.Next, nil
			})
			return items(all, cells), err
		},
		get: func(ctx context.Context, c *client.API, _, name string) (item, error) {
			r, err := c.GetUseCaseWithResponse(ctx, name)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func (a *app) platformNoun() noun {
	cells := func(p client.Platform) []string {
		return []string{p.Name, p.Spec.Domain, ready(p.Status.Conditions), orDash(p.Status.ConsoleURL)}
	}
	return noun{
		name: "platforms", aliases: []string{"platform"}, columns: []string{"NAME", "DOMAIN", "READY", "CONSOLE"},
		list: func(ctx context.Context, c *client.API, _ string) ([]item, error) {
			r, err := c.ListPlatformsWithResponse(ctx, &client.ListPlatformsParams{})
			if err != nil {
				return nil, err
			}
			return items(r.JSON200.Items, cells), nil
		},
		get: func(ctx context.Context, c *client.API, _, name string) (item, error) {
			r, err := c.GetPlatformWithResponse(ctx, name)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func (a *app) participantNoun() noun {
	cells := func(p client.Participant) []string {
		cell := first(p.Status.Cell, p.Spec.Cell)
		if cell != p.Spec.Cell {
			cell += " → " + p.Spec.Cell
		}
		return []string{p.Name, p.Spec.Organization, cell, ready(p.Status.Conditions), orDash(p.Status.DID), p.ManagedBy}
	}
	return noun{
		name: "participants", aliases: []string{"participant"}, columns: []string{"NAME", "ORGANIZATION", "CELL", "READY", "DID", "MANAGED BY"},
		list: func(ctx context.Context, c *client.API, _ string) ([]item, error) {
			all, err := pages(func(after string) ([]client.Participant, string, error) {
				r, err := c.ListParticipantsWithResponse(ctx, &client.ListParticipantsParams{After: after, Limit: pageSize})
				if err != nil {
					return nil, "", err
				}
				return r.JSON200.Items, r.JSON200.Next, nil
			})
			return items(all, cells), err
		},
		get: func(ctx context.Context, c *client.API, _, name string) (item, error) {
			r, err := c.GetParticipantWithResponse(ctx, name)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}
