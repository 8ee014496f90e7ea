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

// pair is a disposable provider and consumer that negotiate a policy on a real cell.
type pair struct {
	*app
	c                              *client.API
	cell, profile                  string
	patience                       time.Duration
	name, provider, consumer       string // of what is made
	providerHolds, consumerHolds   []client.HolderCredential
	providerNumber, consumerNumber string
}

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
	l := &pair{app: a, c: c, cell: in.cell, profile: f.profile, patience: in.patience, name: "policy-test-" + id[:min(8, len(id))]}
	l.provider, l.consumer = l.name+"-provider", l.name+"-consumer"
	if l.providerHolds, l.providerNumber, err = entitled(parties.Provider, "BPNLPOLICYTESTPR"); err != nil {
		return err
	}
	if l.consumerHolds, l.consumerNumber, err = entitled(parties.Consumer, "BPNLPOLICYTESTCO"); err != nil {
		return err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*l.patience)
		defer cancel()
		err = errors.Join(err, l.remove(cleaning))
	}()
	if err := l.set(ctx, p.policy.Raw); err != nil {
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

// set makes the use case, the two participants and the asset.
func (l *pair) set(ctx context.Context, policy json.RawMessage) error {
	if _, err := l.c.PutUseCaseWithResponse(ctx, l.name, &client.PutUseCaseParams{}, client.UseCase{Spec: client.UseCaseSpec{
		Profile: l.profile, Title: "Test of a policy", Description: "Made by kaphera policy test --live, which removes it.", AssetType: "urn:kaphera:policy-test", ContractPolicy: policy,
	}}); err != nil {
		return err
	}
	for _, p := range []struct {
		name, number string
		holds        []client.HolderCredential
	}{{l.provider, l.providerNumber, l.providerHolds}, {l.consumer, l.consumerNumber, l.consumerHolds}} {
		if _, err := l.c.PutOrganizationWithResponse(ctx, p.name, &client.PutOrganizationParams{}, client.Organization{Spec: client.OrganizationSpec{
			DisplayName: p.name, ContactEmail: "policy-test@kaphera.example",
		}}); err != nil {
			return err
		}
		if _, err := l.c.PutParticipantWithResponse(ctx, p.name, &client.PutParticipantParams{}, client.Participant{Spec: client.ParticipantSpec{
			Organization: p.name, Cell: l.cell, Profile: l.profile, Credentials: p.holds, Identity: client.Identity{Context: p.name, BusinessPartnerNumber: p.number},
		}}); err != nil {
			return err
		}
	}
	for _, name := range []string{l.provider, l.consumer} {
		l.say("%s is set up on cell %s: identity, keys, credentials from the dataspace's issuers…", name, l.cell)
		if err := l.takesPart(ctx, l.c, l.patience, name); err != nil {
			return err
		}
	}
	_, err := l.c.PutAssetWithResponse(ctx, l.provider, liveAsset, client.Asset{ID: liveAsset, Properties: map[string]any{"name": "Nothing, to test a policy"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://policy-test.invalid/"}})
	return err
}

// negotiatePolicy offers, negotiates and starts a transfer; a denial of either connector is an error.
func (l *pair) negotiatePolicy(ctx context.Context, purpose string) error {
	if err := l.learnNames(ctx, l.c, l.consumer); err != nil {
		return err
	}
	if _, err := createOffer(ctx, l.c, l.provider, client.OfferCreate{Asset: liveAsset, UseCase: l.name}); err != nil {
		return err // with the trace, when its own connector refuses it
	}
	l.say("Offered. %s negotiates:", l.consumer)
	n, err := l.negotiate(ctx, l.c, negotiateOptions{participant: l.consumer, with: l.provider, asset: liveAsset, purpose: purpose, timeout: l.patience})
	if err != nil {
		return err
	}
	t, err := l.transfer(ctx, l.c, transferOptions{participant: l.consumer, agreement: n.AgreementID, timeout: l.patience})
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
	negotiations, err := l.c.ListNegotiationsWithResponse(ctx, l.provider, &client.ListNegotiationsParams{})
	if err != nil {
		return nil, err
	}
	for _, n := range negotiations.JSON200.Items {
		r, err := l.c.GetNegotiationWithResponse(ctx, l.provider, n.ID)
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
	for _, name := range []string{l.consumer, l.provider} {
		errs = append(errs, l.removeParticipant(ctx, l.c, l.patience, name), removeOrganization(ctx, l.c, name))
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
