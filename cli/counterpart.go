// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/dcp"
)

func (a *app) cellCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cell", Short: "Check, install, back up and try out where connectors run"}
	cmd.AddCommand(a.cellCheckCommand(), a.cellPermissionsCommand(), a.cellInstallCommand(), a.cellUninstallCommand(), a.cellRotateCommand(), a.cellBackupCommand(), a.cellRestoreCommand(), a.counterpartCommand())
	return cmd
}

// counterpartAsset is data that every participant has, and that shows whose it is: its DID document.
const counterpartAsset = "did-document"

// CounterpartReport is what a cell's try-out came to.
type CounterpartReport struct {
	Cell        string            `json:"cell"`
	Counterpart string            `json:"counterpart"` // its cell
	Passed      bool              `json:"passed"`
	Steps       []CounterpartStep `json:"steps"`
}

// CounterpartStep is one of them.
type CounterpartStep struct {
	Name     string  `json:"name"`               // setup, offer, negotiation, transfer, data or removal
	Consumer string  `json:"consumer,omitempty"` // cell of whoever consumes
	Result   string  `json:"result"`             // passed, failed or skipped
	Seconds  float64 `json:"seconds"`
	Detail   string  `json:"detail,omitempty"`
	Remedy   string  `json:"remedy,omitempty"`
}

func (a *app) counterpartCommand() *cobra.Command {
	var profile, on string
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "counterpart CELL --profile PROFILE", Short: "Negotiate and exchange data with a disposable counterpart, in both directions", Args: cobra.ExactArgs(1),
		Long: "Makes a participant on the cell and a counterpart on another one (or on the same, with --on), with the credentials that the profile requires.\n" +
			"Each offers its DID document; the other finds it in the catalog, negotiates, starts a transfer and fetches it. What was made is removed again.\n" +
			"Reports each step with its time; when one fails, what was seen and what to do. Exit code 0 when all passed, 1 when one did not.",
		Example: "  kaphera cell counterpart tier1 --profile automotive\n  kaphera cell counterpart shared --profile automotive --on shared -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.counterpart(cmd.Context(), c, args[0], on, profile, patience)
		},
	}
	f := cmd.Flags()
	f.StringVar(&profile, "profile", "", "dataspace profile under which they negotiate")
	f.StringVar(&on, "on", "", "cell of the counterpart (default: a shared cell, another one where there is one)")
	f.DurationVar(&patience, "timeout", 3*time.Minute, "how long to wait for each of: a participant, a negotiation, a transfer, a removal")
	_ = cmd.MarkFlagRequired("profile") // the flag exists
	return cmd
}

// tryOut is a try-out under way.
type tryOut struct {
	*pair
	report CounterpartReport
}

func (a *app) counterpart(ctx context.Context, c *client.API, cell, on, profile string, patience time.Duration) error {
	here, there, err := twoCells(ctx, c, cell, on)
	if err != nil {
		return err
	}
	p, err := c.GetDataspaceProfileWithResponse(ctx, profile)
	if err != nil {
		return err
	}
	id := a.newID()
	t := &tryOut{
		pair:   &pair{app: a, c: c, profile: profile, patience: patience, name: "counterpart-" + id[:min(8, len(id))]},
		report: CounterpartReport{Cell: here.Name, Counterpart: there.Name, Passed: true},
	}
	t.provider = side{name: t.name + "-here", cell: here.Name, organization: here.Spec.Organization, number: "BPNLCOUNTERPART1"}
	t.consumer = side{name: t.name + "-there", cell: there.Name, organization: there.Spec.Organization, number: "BPNLCOUNTERPART2"}
	for _, s := range []*side{&t.provider, &t.consumer} {
		if s.holds, err = required(p.JSON200.Spec, s.number); err != nil {
			return err
		}
	}
	useCase := client.UseCaseSpec{Title: "Try-out of a cell", Description: "Made by kaphera cell counterpart, which removes it.", AssetType: "urn:kaphera:did-document",
		ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}
	err = t.step(ctx, "setup", "", func() (string, error) {
		return t.provider.name + " and " + t.consumer.name, t.set(ctx, useCase)
	})
	unset := err != nil
	for range 2 {
		err = errors.Join(err, t.exchange(ctx, unset))
		t.provider, t.consumer = t.consumer, t.provider
	}
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
	defer cancel()
	err = errors.Join(err, t.step(cleaning, "removal", "", func() (string, error) { return t.name, t.remove(cleaning) }))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if done, structure := a.structured(t.report); done && structure != nil {
		return structure
	}
	if err != nil {
		return fail(ExitFailed, "see the steps above; a cell's state: kaphera describe cell "+here.Name, "cell %s and the counterpart on cell %s do not get on", here.Name, there.Name)
	}
	if a.output == "table" || a.output == "wide" {
		fprintf(a.out, "Cell %s negotiates and exchanges data with a counterpart on cell %s, in both directions.\n", here.Name, there.Name)
	}
	return nil
}

// twoCells returns the cell and that of the counterpart.
func twoCells(ctx context.Context, c *client.API, cell, on string) (here, there client.Cell, err error) {
	r, err := c.GetCellWithResponse(ctx, cell)
	if err != nil {
		return here, there, err
	}
	here = *r.JSON200
	if on == cell {
		return here, here, nil
	}
	if on != "" {
		if r, err = c.GetCellWithResponse(ctx, on); err != nil {
			return here, there, err
		}
		return here, *r.JSON200, nil
	}
	all, err := c.ListCellsWithResponse(ctx, &client.ListCellsParams{Limit: pageSize})
	if err != nil {
		return here, there, err
	}
	for _, other := range all.JSON200.Items {
		if other.Spec.Type != "shared" || there.Name != "" && there.Name != cell {
			continue
		}
		there = other
	}
	if there.Name == "" {
		return here, there, fail(ExitUsage, "name one with --on, also this one: --on "+cell, "there is no shared cell for the counterpart")
	}
	return here, there, nil
}

// required are the credentials that a profile demands of everybody, with each claim that an issuer of it demands.
func required(p client.DataspaceProfileSpec, number string) (out []client.HolderCredential, err error) {
	for _, kind := range p.RequiredCredentials {
		claims := map[string]string{"holderIdentifier": number}
		for _, issuer := range p.Issuers {
			for _, c := range issuer.CredentialTypes {
				if c.Type != kind {
					continue
				}
				for _, claim := range c.RequiredClaims {
					claims[claim] = first(claims[claim], "try-out of a cell")
				}
			}
		}
		raw, err := json.Marshal(claims)
		if err != nil {
			return nil, err
		}
		out = append(out, client.HolderCredential{Type: kind, Claims: raw})
	}
	return out, nil
}

// exchange lets the provider offer its DID document, and the consumer negotiate and fetch it. What rests on a step that failed is skipped.
func (t *tryOut) exchange(ctx context.Context, skip bool) (err error) {
	var agreement, transfer, did string
	for _, s := range []struct {
		name string
		do   func() (string, error)
	}{
		{"offer", func() (string, error) {
			p, err := t.c.GetParticipantWithResponse(ctx, t.provider.name)
			if err != nil {
				return "", err
			}
			did = p.JSON200.Status.DID
			document, err := dcp.WebURL(did, false)
			if err != nil {
				return "", err
			}
			if err := t.putAsset(ctx, client.Asset{ID: counterpartAsset, Properties: map[string]any{"name": "DID document of " + t.provider.name, "contenttype": "application/json"},
				DataAddress: map[string]string{"type": "HttpData", "baseUrl": document}}); err != nil {
				return "", err
			}
			o, err := createOffer(ctx, t.c, t.provider.name, client.OfferCreate{Asset: counterpartAsset, UseCase: t.name})
			return o.ID, err
		}},
		{"negotiation", func() (string, error) {
			n, err := t.negotiate(ctx, t.c, negotiateOptions{participant: t.consumer.name, with: t.provider.name, asset: counterpartAsset, timeout: t.patience})
			agreement = n.AgreementID
			return "agreement " + agreement, err
		}},
		{"transfer", func() (string, error) {
			s, err := t.transfer(ctx, t.c, transferOptions{participant: t.consumer.name, agreement: agreement, timeout: t.patience})
			transfer = s.ID
			return "transfer " + transfer, err
		}},
		{"data", func() (string, error) {
			body, _, err := t.c.Data(ctx, t.consumer.name, transfer, "")
			if err != nil {
				return "", err
			}
			var document struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(body, &document); err != nil || document.ID != did {
				return "", fail(ExitFailed, "look at what answers at the provider's host name", "what arrived, %d bytes, is not the DID document of %s", len(body), did)
			}
			return fmt.Sprintf("%d bytes", len(body)), nil
		}},
	} {
		if skip || err != nil {
			t.tell(CounterpartStep{Name: s.name, Consumer: t.consumer.cell, Result: "skipped", Detail: "a step before it failed"})
			continue
		}
		err = t.step(ctx, s.name, t.consumer.cell, s.do)
	}
	return err
}

// step does one and reports it.
func (t *tryOut) step(ctx context.Context, name, consumer string, do func() (string, error)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	start := t.now()
	detail, err := do()
	s := CounterpartStep{Name: name, Consumer: consumer, Result: "passed", Seconds: t.now().Sub(start).Seconds(), Detail: detail}
	if err != nil {
		s.Result, s.Detail, s.Remedy = "failed", strings.TrimSpace(err.Error()), advice(err)
	}
	t.tell(s)
	return err
}

func (t *tryOut) tell(s CounterpartStep) {
	t.report.Steps = append(t.report.Steps, s)
	t.report.Passed = t.report.Passed && s.Result == "passed"
	if t.output != "table" && t.output != "wide" {
		return
	}
	style := t.style(t.out)
	words := map[string]string{"passed": style.good("passed "), "failed": style.bad("failed "), "skipped": style.faint("skipped")}
	what := s.Name + prefixed(", consumer on ", s.Consumer)
	fprintf(t.out, "%s  %-32s  %5.1f s  %s\n", words[s.Result], what, s.Seconds, s.Detail)
	if s.Remedy != "" {
		fprintf(t.out, "         %s%s\n", style.faint("next: "), s.Remedy)
	}
}
