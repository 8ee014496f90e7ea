// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/client"
)

// as is a person's own CLI: logged in, and with a registered key for decisions.
func (d *demo) as(ctx context.Context, person string) (*app, error) {
	p := *d.app
	p.context, p.out, p.err = person, &bytes.Buffer{}, &bytes.Buffer{}
	err := p.createKey(ctx)
	if exitCode(err) == ExitLogin {
		if err = p.loginAsPerson(ctx, d.people); err == nil {
			err = p.createKey(ctx)
		}
	}
	return &p, err
}

// command shows a command and runs it as the person of p would. It returns what that prints; code is what it has to end with.
func (d *demo) command(ctx context.Context, p *app, code int, args ...string) (string, error) {
	run := *p
	var out, said bytes.Buffer
	run.out, run.err = &out, &said
	for _, flag := range [][2]string{{"--ca-file", p.caFile}, {"--api", p.api}, {"--context", p.context}} {
		if flag[1] != "" {
			args = append(flag[:], args...)
		}
	}
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = arg
		if strings.Contains(arg, " ") {
			shown[i] = "'" + arg + "'"
		}
	}
	fprintln(d.out, d.style(d.out).faint("   $ kaphera "+strings.Join(shown, " ")))
	got := run.run(ctx, args)
	if got != code {
		return "", fail(ExitFailed, "type it yourself", "it ended with exit code %d, not %d: %s", got, code, strings.TrimSpace(out.String()+said.String()))
	}
	return out.String() + said.String(), nil
}

// negotiateHeld negotiates under a use case whose gates stand before FINALIZED; decide is called once the counterparty's connector holds it.
func (d *demo) negotiateHeld(ctx context.Context, o negotiateOptions, decide func(held client.Negotiation) error) (client.Negotiation, error) {
	w, err := d.startNegotiation(ctx, d.c, o)
	if err != nil {
		return client.Negotiation{}, err
	}
	n, err := w.until(ctx, func(n client.Negotiation) bool { return n.State == "VERIFIED" || ended(n) })
	if err == nil && !ended(n) {
		err = decide(n)
	}
	if err != nil {
		return n, err
	}
	if n, err = w.until(ctx, ended); err != nil {
		return n, err
	}
	return n, outcome(n, o.participant)
}

// decide has a person find a negotiation among what waits for them, and decide.
func (d *demo) decide(ctx context.Context, p *app, verdict string, n client.Negotiation, comment string) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	var about client.Approval
	err = d.until(ctx, "a decision to make for "+p.context, func(ctx context.Context) (bool, string, error) {
		about, err = findApproval(ctx, c, n.CounterpartyPid, "")
		if exitCode(err) == ExitNotFound {
			return false, err.Error(), nil
		}
		return err == nil, "", err
	})
	if err != nil {
		return err
	}
	d.tell("%s sees: %s", p.context, about.Gate.Words)
	for _, v := range about.Verdicts {
		d.tell("%s %s", map[bool]string{true: "met:    ", false: "not met:"}[v.Satisfied], v.Sentence)
	}
	_, err = d.command(ctx, p, ExitOK, "approvals", verdict, about.Negotiation, "--yes", "--offer", about.OfferHash, "--comment", comment)
	return err
}

const (
	recallDocument = "block-notification-gh-4711"
	recallAsset    = "recall-" + recallDocument
)

// recall: quality data for a recall, under an agreement that takes effect when a person of each company has approved it.
func (d *demo) recall(ctx context.Context) error {
	if err := d.learnNames(ctx, d.c, d.supplier); err != nil {
		return err
	}
	if err := d.next(ctx, "%s offers quality data for a recall; a person of each company has to approve an agreement about it", d.supplier); err != nil {
		return err
	}
	var approvers []*app
	for _, person := range d.approvers {
		p, err := d.as(ctx, person)
		if err != nil {
			return err
		}
		approvers = append(approvers, p)
	}
	notification, err := json.Marshal(map[string]any{
		"header":  map[string]string{"messageId": "urn:uuid:" + uuid.NewString(), "sentDateTime": d.now().UTC().Format(time.RFC3339), "version": "3.0.0"},
		"content": map[string]any{"information": "Porosity at the bearing seat of lot 2026-31", "severity": "MAJOR", "listOfAffectedItems": []string{"urn:uuid:" + uuid.NewString(), "urn:uuid:" + uuid.NewString()}},
	})
	if err != nil {
		return fmt.Errorf("notification: %w", err)
	}
	if err := d.b.put(ctx, recallDocument, notification); err != nil {
		return err
	}
	if err := d.putDocumentAsset(ctx, d.supplier, recallAsset, "Block notification for gearbox housing GH-4711", recallDocument); err != nil {
		return err
	}
	if _, err := createOffer(ctx, d.c, d.supplier, client.OfferCreate{Asset: recallAsset, UseCase: d.useCase}); err != nil {
		return err
	}
	d.tell("%s have registered keys; the offer pins them.", strings.Join(d.approvers, " and "))
	n, err := d.negotiateHeld(ctx, negotiateOptions{participant: d.consumer, with: d.supplier, useCase: d.useCase, asset: recallAsset, timeout: d.patience}, func(held client.Negotiation) error {
		if err := d.next(ctx, "It waits for both companies"); err != nil {
			return err
		}
		for _, p := range approvers {
			if err := d.decide(ctx, p, "approve", held, "for the recall of lot 2026-31"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t, err := d.transfer(ctx, d.c, transferOptions{participant: d.consumer, agreement: n.AgreementID, timeout: d.patience})
	if err != nil {
		return err
	}
	got, _, err := d.c.Data(ctx, d.consumer, t.ID, "")
	if err != nil {
		return err
	}
	if !bytes.Equal(got, notification) {
		return fail(ExitFailed, "look at the data address of asset "+recallAsset, "what arrived is not the notification that was put in: %s", got)
	}
	d.tell("Agreement %s. %s has the notification: %d bytes, as %s put them in.", n.AgreementID, d.consumer, len(got), d.supplier)
	return nil
}
