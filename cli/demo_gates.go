// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"strings"

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

// command shows a command and runs it as the person of p would, with what it prints; the code is what it has to end with.
func (d *demo) command(ctx context.Context, p *app, code int, args ...string) (string, error) {
	run := *p
	var out, said bytes.Buffer
	run.out, run.err = &out, &said
	if p.context != "" {
		args = append([]string{"--context", p.context}, args...)
	}
	fprintln(d.out, d.style(d.out).faint("   $ kaphera "+strings.Join(args, " ")))
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
