// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
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
	w, err := a.startNegotiation(ctx, c, o)
	if err != nil {
		return client.Negotiation{}, err
	}
	n, err := w.until(ctx, ended)
	if err != nil {
		return n, err
	}
	return n, outcome(n, o.participant)
}

// startNegotiation finds the offer and asks for it.
func (a *app) startNegotiation(ctx context.Context, c *client.API, o negotiateOptions) (*watched, error) {
	offer, profile := o.offer, o.profile
	if offer == "" || o.asset != "" {
		item, err := findOffer(ctx, c, o)
		if err != nil {
			return nil, err
		}
		offer, profile = item.OfferID, item.Profile
		a.say("Found in the catalog: %s (asset %s)", title(item.Properties), item.AssetID)
		for _, s := range item.Sentences {
			a.say("  - %s", s)
		}
	}
	started, err := c.StartNegotiationWithResponse(ctx, o.participant, client.NegotiationStart{Counterparty: o.with, OfferID: offer, Profile: profile, ID: a.newID(), Purpose: o.purpose})
	if err != nil {
		return nil, err
	}
	return &watched{app: a, c: c, participant: o.participant, id: started.JSON201.ID, last: *started.JSON201, timeout: o.timeout}, a.learnNames(ctx, c, o.participant)
}

// watched is a negotiation that is followed, and how much of it has been printed.
type watched struct {
	*app
	c               *client.API
	participant, id string
	last            client.Negotiation // as it was last told
	timeout         time.Duration
	events, traces  int
	attempts        int64
}

var errEnough = errors.New("seen what was waited for")

func ended(n client.Negotiation) bool { return n.State == "FINALIZED" || n.State == "TERMINATED" }

// until follows the negotiation until done, printing its steps, and the checks that they rested on, as they happen.
func (w *watched) until(ctx context.Context, done func(client.Negotiation) bool) (client.Negotiation, error) {
	watching, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	err := w.c.WatchNegotiation(watching, w.participant, w.id, func(now client.Negotiation) error {
		w.last = now
		w.print(now)
		if done(now) {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return w.last, nil
	case watching.Err() != nil && ctx.Err() == nil:
		return w.last, fail(ExitFailed, "kaphera describe negotiation "+w.id+" --participant "+w.participant,
			"the negotiation is still under way after %s, in state %s%s", w.timeout, w.last.State, prefixed("; it waits for ", w.waiting(w.last)))
	}
	return w.last, err
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

func (w *watched) print(n client.Negotiation) {
	if w.output == "json" || w.output == "yaml" {
		return
	}
	for ; w.events < len(n.History); w.events++ {
		for ; w.traces < len(n.Traces) && !n.Traces[w.traces].At.After(n.History[w.events].At); w.traces++ {
			w.printTrace(w.out, n.Traces[w.traces])
		}
		w.printEvent(n.History[w.events])
	}
	for ; w.traces < len(n.Traces); w.traces++ {
		w.printTrace(w.out, n.Traces[w.traces])
	}
	if n.Retry.Attempts > w.attempts {
		fprintln(w.out, w.style(w.out).faint("    waits for "+w.waiting(n)))
	}
	w.attempts = n.Retry.Attempts
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
