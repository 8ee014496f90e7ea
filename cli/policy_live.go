// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kaphera/kaphera/client"
)

// pair is a disposable provider and consumer on real cells.
type pair struct {
	*app
	c                  *client.API
	profile            string
	patience           time.Duration
	name               string // of the use case; what else is made starts with it
	provider, consumer side
}

// side is one of them.
type side struct {
	name, cell, number string
	organization       string // whose cell it is; empty: one is made
	holds              []client.HolderCredential
}

func (s side) of() string { return first(s.organization, s.name) }

// liveAsset is an asset that nobody fetches: its backend does not exist.
const liveAsset = "policy-test"

// live negotiates a policy between two participants made for it, and removes them.
func (a *app) live(ctx context.Context, p policyFile, f policyFlags, in situation) (err error) {
	if p.access || f.profile == "" {
		return usage("--live negotiates a contract policy under a profile of the platform: give --profile, and no --access-policy")
	}
	parties, err := a.readParties(in.credentials)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	id := a.newID()
	l := &pair{app: a, c: c, profile: f.profile, patience: in.patience, name: "policy-test-" + id[:min(8, len(id))]}
	l.provider, l.consumer = side{name: l.name + "-provider", cell: in.cell}, side{name: l.name + "-consumer", cell: in.cell}
	if l.provider.holds, l.provider.number, err = entitled(parties.Provider, "BPNLPOLICYTESTPR"); err != nil {
		return err
	}
	if l.consumer.holds, l.consumer.number, err = entitled(parties.Consumer, "BPNLPOLICYTESTCO"); err != nil {
		return err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*l.patience)
		defer cancel()
		err = errors.Join(err, l.remove(cleaning))
	}()
	if err := l.set(ctx, client.UseCaseSpec{
		Title: "Test of a policy", Description: "Made by kaphera policy test --live, which removes it.", AssetType: "urn:kaphera:policy-test", ContractPolicy: p.policy.Raw,
	}); err != nil {
		return err
	}
	if err := l.putAsset(ctx, client.Asset{ID: liveAsset, Properties: map[string]any{"name": "Nothing, to test a policy"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://policy-test.invalid/"}}); err != nil {
		return err
	}
	return l.negotiatePolicy(ctx, in.purpose)
}

// entitled are a party's credentials as entitlements, which the dataspace's own issuers issue, and its business partner number.
func entitled(p *party, number string) ([]client.HolderCredential, string, error) {
	var out []client.HolderCredential
	if p == nil {
		return nil, number, nil
	}
	for _, c := range p.Credentials {
		if n, ok := c.Claims["holderIdentifier"].(string); ok {
			number = n
		}
		raw, err := json.Marshal(c.Claims)
		if err != nil {
			return nil, "", fmt.Errorf("claims of %s: %w", c.Type, err)
		}
		out = append(out, client.HolderCredential{Type: c.Type, Claims: raw})
	}
	return out, number, nil
}

// set makes the use case and the two participants.
func (l *pair) set(ctx context.Context, useCase client.UseCaseSpec) error {
	useCase.Profile = l.profile
	if _, err := l.c.PutUseCaseWithResponse(ctx, l.name, &client.PutUseCaseParams{}, client.UseCase{Spec: useCase}); err != nil {
		return err
	}
	for _, s := range []side{l.provider, l.consumer} {
		if s.organization == "" {
			if _, err := l.c.PutOrganizationWithResponse(ctx, s.name, &client.PutOrganizationParams{}, client.Organization{Spec: client.OrganizationSpec{
				DisplayName: s.name, ContactEmail: "test@kaphera.example",
			}}); err != nil {
				return err
			}
		}
		if _, err := l.c.PutParticipantWithResponse(ctx, s.name, &client.PutParticipantParams{}, client.Participant{Spec: client.ParticipantSpec{
			Organization: s.of(), Cell: s.cell, Profile: l.profile, Credentials: s.holds, Identity: client.Identity{Context: s.name, BusinessPartnerNumber: s.number},
		}}); err != nil {
			return err
		}
	}
	for _, s := range []side{l.provider, l.consumer} {
		l.say("%s is set up on cell %s: identity, keys, credentials from the dataspace's issuers…", s.name, s.cell)
		if err := l.takesPart(ctx, l.c, l.patience, s.name); err != nil {
			return err
		}
	}
	return nil
}

// putAsset gives the provider an asset.
func (l *pair) putAsset(ctx context.Context, asset client.Asset) error {
	_, err := l.c.PutAssetWithResponse(ctx, l.provider.name, asset.ID, asset)
	return err
}

// negotiatePolicy offers, negotiates and starts a transfer; a denial of either connector is an error.
func (l *pair) negotiatePolicy(ctx context.Context, purpose string) error {
	if err := l.learnNames(ctx, l.c, l.consumer.name); err != nil {
		return err
	}
	if _, err := createOffer(ctx, l.c, l.provider.name, client.OfferCreate{Asset: liveAsset, UseCase: l.name}); err != nil {
		return err // with the trace, when its own connector refuses it
	}
	l.say("Offered. %s negotiates:", l.consumer.name)
	n, err := l.negotiate(ctx, l.c, negotiateOptions{participant: l.consumer.name, with: l.provider.name, asset: liveAsset, purpose: purpose, timeout: l.patience})
	if err != nil {
		return err
	}
	t, err := l.transfer(ctx, l.c, transferOptions{participant: l.consumer.name, agreement: n.AgreementID, timeout: l.patience})
	if err != nil {
		return err
	}
	traces, err := l.providerTraces(ctx)
	if err != nil {
		return err
	}
	traces = append(append(traces, n.Traces...), t.Traces...)
	if done, err := l.structured(traces); done {
		return err
	}
	fprintln(l.out, "\nWhat the two connectors checked:")
	for _, trace := range traces {
		l.printTrace(l.out, trace)
	}
	fprintf(l.out, "\nAgreement %s and transfer %s came about under this policy.\n", n.AgreementID, t.ID)
	return nil
}

// providerTraces are the evaluations of the provider's connector.
func (l *pair) providerTraces(ctx context.Context) (out []client.Trace, err error) {
	negotiations, err := l.c.ListNegotiationsWithResponse(ctx, l.provider.name, &client.ListNegotiationsParams{})
	if err != nil {
		return nil, err
	}
	for _, n := range negotiations.JSON200.Items {
		r, err := l.c.GetNegotiationWithResponse(ctx, l.provider.name, n.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, r.JSON200.Traces...)
	}
	return out, nil
}

// remove takes away whatever was made, also when only a part of it came about.
func (l *pair) remove(ctx context.Context) error {
	var errs []error
	for _, s := range []side{l.consumer, l.provider} {
		errs = append(errs, l.removeParticipant(ctx, l.c, l.patience, s.name))
		if s.organization == "" {
			errs = append(errs, removeOrganization(ctx, l.c, s.name))
		}
	}
	_, err := l.c.DeleteUseCaseWithResponse(ctx, l.name, &client.DeleteUseCaseParams{Force: true})
	if err != nil && !client.IsNotFound(err) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fail(ExitFailed, "kaphera get participants", "not everything of %s could be removed: %v", l.name, err)
	}
	l.say("%s is removed.", l.name)
	return nil
}
