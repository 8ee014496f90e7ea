// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/client"
)

const (
	revisedUseCase   = "digital-product-passport"
	passportDocument = "passport-gh-4711"
	passportAsset    = "dpp-" + passportDocument
	// newTerm is what the authority adds, and the pilot's supplier meets.
	newTerm = `{"leftOperand":"https://w3id.org/kaphera/policy/DataQualityAttestationAge","operator":"lt","rightOperand":"P12M"}`
)

// revise: a use case is changed, which counts once it is signed off, for new negotiations; the agreement from before keeps its data.
func (d *demo) revise(ctx context.Context) (err error) {
	d.useCase = revisedUseCase
	if err := d.learnNames(ctx, d.c, d.supplier); err != nil {
		return err
	}
	authority, err := d.as(ctx, d.authority)
	if err != nil {
		return err
	}
	u, err := d.c.GetUseCaseWithResponse(ctx, d.useCase)
	if err != nil {
		return err
	}
	before, first := u.JSON200.Spec, u.JSON200.Status.InForce
	if first.SignedBy == "" || first.Number != u.JSON200.Status.Revision.Number {
		return fail(ExitFailed, "make demo has its newest revision signed off", "use case %s has no signed revision in force, or a newer one waits", d.useCase)
	}
	after := before
	if after.ContractPolicy, err = withConstraint(before.ContractPolicy, newTerm); err != nil {
		return fail(ExitFailed, "apply the pilot workspace again (make demo does)", "the contract policy of %s cannot be tightened: %s", d.useCase, err)
	}

	if err := d.next(ctx, "%s offers a product passport under %s, whose revision %d the authority has signed off", d.supplier, d.useCase, first.Number); err != nil {
		return err
	}
	passport, err := json.Marshal(map[string]any{"digitalProductPassportId": "urn:uuid:" + uuid.NewString(), "product": "Gearbox housing GH-4711", "issuedAt": d.now().UTC().Format(time.RFC3339)})
	if err != nil {
		return fmt.Errorf("passport: %w", err)
	}
	if err := d.b.put(ctx, passportDocument, passport); err != nil {
		return err
	}
	if err := d.putDocumentAsset(ctx, d.supplier, passportAsset, "Passport of gearbox housing GH-4711", passportDocument); err != nil {
		return err
	}
	if _, err := createOffer(ctx, d.c, d.supplier, client.OfferCreate{Asset: passportAsset, UseCase: d.useCase}); err != nil {
		return err
	}
	find := negotiateOptions{participant: d.consumer, with: d.supplier, useCase: d.useCase, asset: passportAsset, timeout: d.patience}
	standing, err := findOffer(ctx, d.c, find)
	if err != nil {
		return err
	}
	d.tell("Revision %d, signed off by %s: %s", first.Number, first.SignedBy, first.Hash)

	if err := d.next(ctx, "%s tightens the terms; before anybody signs, the old ones govern", d.authority); err != nil {
		return err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.patience)
		defer cancel()
		err = errors.Join(err, d.putBack(cleaning, authority, before))
	}()
	changed, err := d.change(ctx, authority, after)
	if err != nil {
		return err
	}
	second := changed.Revision
	if err := d.commandTold(ctx, authority, "usecase", "diff", d.useCase); err != nil {
		return err
	}
	kept, err := d.agreeUnder(ctx, find, first)
	if err != nil {
		return err
	}

	if err := d.next(ctx, "%s reads revision %d and signs it off; from then on it governs", d.authority, second.Number); err != nil {
		return err
	}
	if err := d.commandTold(ctx, authority, signOffArgs(d.useCase, second)...); err != nil {
		return err
	}
	err = d.until(ctx, "an offer of "+d.supplier+" under the new terms", func(ctx context.Context) (bool, string, error) {
		now, err := findOffer(ctx, d.c, find)
		return err == nil && now.OfferID != standing.OfferID, "the offer is still the one before", err
	})
	if err != nil {
		return err
	}
	if _, err := d.agreeUnder(ctx, find, second); err != nil {
		return err
	}

	if err := d.next(ctx, "The agreement from before keeps its terms, and its data"); err != nil {
		return err
	}
	t, err := d.transfer(ctx, d.c, transferOptions{participant: d.consumer, agreement: kept, timeout: d.patience})
	if err != nil {
		return err
	}
	got, _, err := d.c.Data(ctx, d.consumer, t.ID, "")
	if err != nil {
		return err
	}
	if !bytes.Equal(got, passport) {
		return fail(ExitFailed, "look at the data address of asset "+passportAsset, "what arrived is not the passport that was put in: %s", got)
	}
	d.tell("%s Under agreement %s %s has the passport: %d bytes.", d.style(d.out).good("Kept."), kept, d.consumer, len(got))
	return nil
}

// withConstraint adds a constraint to a policy's only permission, unless it is there.
func withConstraint(policy json.RawMessage, constraint string) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	var permissions []map[string]json.RawMessage
	var constraints []json.RawMessage
	if err := json.Unmarshal(policy, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["permission"], &permissions); err != nil || len(permissions) != 1 {
		return nil, fmt.Errorf("it has no permission, or several: %s", policy)
	}
	if err := json.Unmarshal(permissions[0]["constraint"], &constraints); err != nil || len(constraints) != 1 {
		return nil, fmt.Errorf("its constraints are not the pilot's: %s", policy)
	}
	var err error
	if permissions[0]["constraint"], err = json.Marshal(append(constraints, json.RawMessage(constraint))); err != nil {
		return nil, err
	}
	if all["permission"], err = json.Marshal(permissions); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// change has a person change what the use case demands, and waits for the revision that this makes.
func (d *demo) change(ctx context.Context, p *app, spec client.UseCaseSpec) (now client.UseCaseStatus, err error) {
	c, err := p.client()
	if err != nil {
		return now, err
	}
	if _, err := c.PutUseCaseWithResponse(ctx, d.useCase, &client.PutUseCaseParams{Force: true}, client.UseCase{Spec: spec}); err != nil {
		return now, err
	}
	return now, d.until(ctx, "a revision of "+d.useCase, func(ctx context.Context) (bool, string, error) {
		u, err := c.GetUseCaseWithResponse(ctx, d.useCase)
		if err != nil {
			return false, "", err
		}
		now = u.JSON200.Status
		return now.ObservedGeneration == u.JSON200.Generation, "the change was not looked at yet", nil
	})
}

// putBack has the use case demand what it did, which takes a revision and a signature too.
func (d *demo) putBack(ctx context.Context, p *app, spec client.UseCaseSpec) error {
	now, err := d.change(ctx, p, spec)
	if err != nil || now.Revision.Number == now.InForce.Number {
		return err
	}
	d.tell("The use case is put back; that is revision %d, signed off in the same way.", now.Revision.Number)
	_, err = d.command(ctx, p, ExitOK, signOffArgs(d.useCase, now.Revision)...)
	return err
}

func signOffArgs(useCase string, r client.RevisionStatus) []string {
	return []string{"usecase", "sign-off", useCase, "--revision", strconv.FormatInt(r.Number, 10), "--hash", r.Hash, "--yes"}
}

// commandTold shows a command, runs it, and shows what it says.
func (d *demo) commandTold(ctx context.Context, p *app, args ...string) error {
	said, err := d.command(ctx, p, ExitOK, args...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(said) {
		d.tell("%s", strings.TrimSpace(line))
	}
	return nil
}

// agreeUnder negotiates, and finds the agreement to be under a revision, as the provider has it.
func (d *demo) agreeUnder(ctx context.Context, o negotiateOptions, r client.RevisionStatus) (agreement string, err error) {
	n, err := d.negotiate(ctx, d.c, o)
	if err != nil {
		return "", err
	}
	a, err := d.c.GetAgreementWithResponse(ctx, d.supplier, n.AgreementID)
	if err != nil {
		return "", err
	}
	if got := a.JSON200.UseCaseRevision; got.Number != r.Number || got.Hash != r.Hash {
		return "", fail(ExitFailed, "kaphera usecase revisions "+d.useCase, "agreement %s is under revision %d, not under revision %d", n.AgreementID, got.Number, r.Number)
	}
	d.tell("Agreement %s is under revision %d.", n.AgreementID, r.Number)
	return n.AgreementID, nil
}
