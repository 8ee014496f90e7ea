// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

type negotiateOptions struct {
	participant, with, useCase, offer, asset, profile, purpose string
	timeout                                                    time.Duration
}

func (a *app) negotiateCommand() *cobra.Command {
	var o negotiateOptions
	cmd := &cobra.Command{
		Use: "negotiate PARTICIPANT --with PARTNER (--use-case NAME | --offer ID)", Short: "Negotiate a contract, and watch each step", Args: cobra.ExactArgs(1),
		Long:    "Finds the offer in the partner's catalog, starts a negotiation, and prints each state as it happens, with the credentials\nthat were checked. When a policy says no: the constraint, the value seen and what to do; exit code 3.",
		Example: "  kaphera negotiate oem --with supplier --use-case carbon-footprint",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			o.participant = args[0]
			n, err := a.negotiate(cmd.Context(), c, o)
			if err != nil {
				return err
			}
			if done, err := a.structured(n); done {
				return err
			}
			fprintf(a.out, "Agreement %s\nNext: kaphera transfer %s --agreement %s --fetch\n", n.AgreementID, o.participant, n.AgreementID)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.with, "with", "", "partner: name of a participant, or a DID")
	f.StringVar(&o.useCase, "use-case", "", "negotiate the offer under this use case")
	f.StringVar(&o.offer, "offer", "", "negotiate this offer of the partner's catalog")
	f.StringVar(&o.asset, "asset", "", "only the offer of this asset")
	f.StringVar(&o.profile, "profile", "", "the participant's dataspace profile (default: that of the use case, or else the first that both take part in)")
	f.StringVar(&o.purpose, "purpose", "", "purpose of use, which the offer must be for (default: whichever it is for)")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "stop watching after this time; the negotiation goes on")
	_ = cmd.MarkFlagRequired("with") // the flag exists
	cmd.MarkFlagsOneRequired("use-case", "offer")
	return cmd
}

// negotiate returns the concluded negotiation. One that ended otherwise is an error, told in words already.
func (a *app) negotiate(ctx context.Context, c *client.API, o negotiateOptions) (client.Negotiation, error) {
	offer, profile := o.offer, o.profile
	if offer == "" || o.asset != "" {
		item, err := findOffer(ctx, c, o)
		if err != nil {
			return client.Negotiation{}, err
		}
		offer, profile = item.OfferID, item.Profile
		a.say("Found in the catalog: %s (asset %s)", title(item.Properties), item.AssetID)
		for _, s := range item.Sentences {
			a.say("  - %s", s)
		}
	}
	started, err := c.StartNegotiationWithResponse(ctx, o.participant, client.NegotiationStart{Counterparty: o.with, OfferID: offer, Profile: profile, ID: a.newID(), Purpose: o.purpose})
	if err != nil {
		return client.Negotiation{}, err
	}
	watching, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := a.learnNames(ctx, c, o.participant); err != nil {
		return client.Negotiation{}, err
	}
	n, err := a.follow(watching, c, o.participant, started.JSON201.ID)
	if watching.Err() != nil && ctx.Err() == nil {
		return n, fail(ExitFailed, "kaphera describe negotiation "+started.JSON201.ID+" --participant "+o.participant,
			"the negotiation is still under way after %s, in state %s%s", o.timeout, n.State, prefixed("; it waits for ", a.waiting(n)))
	}
	if err != nil {
		return n, err
	}
	return n, outcome(n, o.participant)
}

// waiting says what a negotiation waits for, and when the next attempt is made.
func (a *app) waiting(n client.Negotiation) string {
	if n.Waiting == "" || n.Retry.Next.IsZero() {
		return n.Waiting
	}
	return fmt.Sprintf("%s (%d attempts so far; the next at %s)", strings.ReplaceAll(n.Waiting, n.Counterparty, a.party(n.Counterparty)), n.Retry.Attempts, n.Retry.Next.In(a.zone).Format("15:04:05 MST"))
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// say prints a line for people; scripts that asked for JSON or YAML get none.
func (a *app) say(format string, args ...any) {
	if a.output == "table" || a.output == "wide" {
		fprintf(a.out, format+"\n", args...)
	}
}

func findOffer(ctx context.Context, c *client.API, o negotiateOptions) (client.CatalogItem, error) {
	r, err := c.GetCatalogWithResponse(ctx, o.participant, &client.GetCatalogParams{Counterparty: o.with, UseCase: o.useCase, Profile: o.profile})
	if err != nil {
		return client.CatalogItem{}, err
	}
	var found []client.CatalogItem
	for _, i := range r.JSON200.Items {
		if (o.asset == "" || i.AssetID == o.asset) && (o.offer == "" || i.OfferID == o.offer) {
			found = append(found, i)
		}
	}
	what := "offer under use case " + o.useCase
	if o.useCase == "" {
		what = "offer " + o.offer
	}
	switch len(found) {
	case 0:
		return client.CatalogItem{}, fail(ExitNotFound, "check the name; if it is right, the provider sees what is withheld, and why: kaphera get offers --participant "+o.with, "%s shows %s no %s", o.with, o.participant, what)
	case 1:
		return found[0], nil
	}
	ids := ""
	for _, i := range found {
		ids += fmt.Sprintf("\n  %s (asset %s)", i.OfferID, i.AssetID)
	}
	return client.CatalogItem{}, usage("%s has %d offers that fit; choose one with --offer or --asset:%s", o.with, len(found), ids)
}

// follow prints a negotiation's steps, and the checks that they rested on, as they happen.
func (a *app) follow(ctx context.Context, c *client.API, participant, id string) (client.Negotiation, error) {
	var last client.Negotiation
	events, traces, attempts := 0, 0, int64(0)
	err := c.WatchNegotiation(ctx, participant, id, func(n client.Negotiation) error {
		last = n
		if a.output == "json" || a.output == "yaml" {
			return nil
		}
		for ; events < len(n.History); events++ {
			for ; traces < len(n.Traces) && !n.Traces[traces].At.After(n.History[events].At); traces++ {
				a.printTrace(a.out, n.Traces[traces])
			}
			a.printEvent(n.History[events])
		}
		for ; traces < len(n.Traces); traces++ {
			a.printTrace(a.out, n.Traces[traces])
		}
		if n.Retry.Attempts > attempts {
			fprintln(a.out, a.style(a.out).faint("    waits for "+a.waiting(n)))
		}
		attempts = n.Retry.Attempts
		return nil
	})
	return last, err
}

// outcome turns an ended negotiation into success or an error with its reason.
func outcome(n client.Negotiation, participant string) error {
	if n.State == "FINALIZED" {
		return nil
	}
	code := ExitFailed
	next := "kaphera describe negotiation " + n.ID + " --participant " + participant
	if n.Reason.Code == "policy-denied" {
		code = ExitRefused
	}
	for _, t := range n.Traces {
		for _, c := range t.Checks {
			if !t.Allowed && !c.Satisfied {
				code = ExitRefused
				next = first(c.Remedy, next)
			}
		}
	}
	by := "the counterparty"
	if n.Reason.By == "own" {
		by = participant + "'s own connector"
	}
	return fail(code, next, "no agreement: %s said no: %s", by, first(n.Reason.Message, "no reason was given"))
}
