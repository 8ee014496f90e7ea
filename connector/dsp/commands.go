// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/usecase"
)

// Negotiate starts a negotiation about an offer, which is looked up in the counterparty's catalog by its id and requested exactly as it
// stands there. The same request id again returns the negotiation that it started.
func (e *Engine) Negotiate(ctx context.Context, participant string, req adminapi.NegotiationRequest) (*store.Negotiation, error) {
	p, err := e.lookupParticipant(ctx, participant, req.Profile)
	if err != nil {
		return nil, err
	}
	if n, err := e.repeatedNegotiation(ctx, p, req); n != nil || err != nil {
		return n, err
	}
	datasets, address, err := e.fetchCatalog(ctx, p, req.Counterparty, req.Address)
	if err != nil {
		return nil, err
	}
	raw, _, dataset, err := wire.FindOffer(datasets, req.OfferID)
	if err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "invalid", "%s", err)
	}
	if raw == nil {
		return nil, refuse(http.StatusNotFound, "not-found", "%s offers no %q to you now: read its catalog again", req.Counterparty, req.OfferID)
	}
	if err := e.offeredFor(p, raw, req); err != nil {
		return nil, err
	}
	offer, err := wire.WithTarget(raw, dataset.ID, req.Counterparty)
	if err != nil {
		return nil, err
	}
	return e.RequestOffer(ctx, participant, req.Profile, req.ID, req.Counterparty, address, offer)
}

// offeredFor refuses an offer that is not for the purpose of use that was asked for.
func (e *Engine) offeredFor(p *store.Participant, offer json.RawMessage, req adminapi.NegotiationRequest) error {
	if req.Purpose == "" {
		return nil
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return err
	}
	policy, err := odrl.Parse(offer)
	if err != nil {
		return refuse(http.StatusBadGateway, "counterparty-refused", "the offer of %s is not understood: %s", req.Counterparty, err)
	}
	if purposes := ev.Purposes(policy); len(purposes) > 0 && !slices.Contains(purposes, req.Purpose) {
		return refuse(http.StatusConflict, "purpose-not-offered", "%s offers %q for %s, not for %q", req.Counterparty, req.OfferID, strings.Join(purposes, ", "), req.Purpose)
	}
	return nil
}

func (e *Engine) repeatedNegotiation(ctx context.Context, p *store.Participant, req adminapi.NegotiationRequest) (*store.Negotiation, error) {
	if req.Counterparty == "" || req.OfferID == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "invalid", "counterparty and offerId are both needed")
	}
	if req.ID == "" {
		return nil, nil
	}
	n, err := e.opt.Store.Negotiation(ctx, p.Ctx, req.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case n.Counterparty != req.Counterparty || n.OfferID != req.OfferID || n.Profile != p.ProfileName:
		return nil, refuse(http.StatusConflict, "conflict", "id %q belongs to a negotiation about another offer", req.ID)
	}
	return n, nil
}

// RequestOffer starts a negotiation with a given offer, which has its target, in one of the participant's profiles; empty is the default one.
func (e *Engine) RequestOffer(ctx context.Context, participant, profile, id, counterparty, address string, offer json.RawMessage) (*store.Negotiation, error) {
	return e.begin(ctx, participant, profile, id, counterparty, address, offer, state.Consumer, state.CommandRequest)
}

// OfferTo starts a negotiation as provider with an offer to a consumer (DSP 2025-1 ContractOfferMessage without consumerPid).
func (e *Engine) OfferTo(ctx context.Context, participant, profile, id, counterparty, address string, offer json.RawMessage) (*store.Negotiation, error) {
	return e.begin(ctx, participant, profile, id, counterparty, address, offer, state.Provider, state.CommandOffer)
}

func (e *Engine) begin(ctx context.Context, participant, profile, id, counterparty, address string, offer json.RawMessage, role state.Role, on state.Trigger) (*store.Negotiation, error) {
	p, err := e.lookupParticipant(ctx, participant, profile)
	if err != nil {
		return nil, err
	}
	policy, err := parseOffer(offer)
	if err != nil {
		return nil, err
	}
	if address, err = e.address(ctx, p, counterparty, address); err != nil {
		return nil, err
	}
	if id == "" {
		id = e.opt.NewID()
	}
	n := &store.Negotiation{OfferID: policy.ID, Offer: offer, RequestedHash: odrl.Hash(policy),
		Process: store.Process{Ctx: participant, ID: id, Profile: p.ProfileName, Role: role, Counterparty: counterparty, Address: address, AssetID: policy.Target}}
	if role == state.Provider {
		n.RequestedHash = ""
		n.Definition, _, _ = wire.SplitOfferID(policy.ID)
		d, err := e.opt.Store.Definition(ctx, participant, n.Definition)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if d != nil {
			n.UseCase, n.Revision, n.Gates = d.UseCase, d.Revision, gate.Holds(d.Gates)
		}
	} else if n.UseCase, n.Revision, err = e.known(ctx, p, n.RequestedHash); err != nil {
		return nil, err
	}
	side, err := e.negotiations.apply(n, false, input{event: state.Event{On: on}, participant: p})
	if err != nil {
		return nil, err
	}
	n, _, err = e.opt.Store.InsertNegotiation(ctx, n, side)
	if err != nil {
		return nil, err
	}
	e.changed(&n.Process)
	return n, nil
}

// known finds the use case whose revision in force has a contract policy, by its hash; nothing where none or several have it. A consumer is not told
// which use case an offer is of.
func (e *Engine) known(ctx context.Context, p *store.Participant, policyHash string) (name string, revision *adminapi.RevisionRef, err error) {
	all, err := e.opt.Store.UseCases(ctx, p.Ctx)
	if err != nil {
		return "", nil, err
	}
	for _, u := range all {
		c, err := usecase.Read(u.Revision.Content)
		if err != nil || c.Profile != p.ProfileName {
			continue
		}
		if policy, err := odrl.Parse(c.ContractPolicy); err != nil || odrl.Hash(policy) != policyHash {
			continue
		}
		if name != "" {
			return "", nil, nil
		}
		name, revision = u.ID, u.Ref()
	}
	return name, revision, nil
}

// Accept takes the counterparty's terms: as consumer the provider's offer, as provider what the consumer requested instead of an offer. From then on
// it goes on as anything that is offered. Not possible now is a RefusalError (409).
func (e *Engine) Accept(ctx context.Context, participant, id string) (*store.Negotiation, error) {
	n, err := e.opt.Store.Negotiation(ctx, participant, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no negotiation %q", id)
	}
	if err != nil {
		return nil, err
	}
	if n.Role == state.Consumer {
		return e.negotiations.command(ctx, participant, id, state.CommandAccept, nil, nil)
	}
	p, err := e.lookupParticipant(ctx, participant, n.Profile)
	if err != nil {
		return nil, err
	}
	n, err = e.opt.Store.UpdateNegotiation(ctx, participant, id, "", func(n *store.Negotiation, _ bool) (side store.Side, err error) {
		if !ownTerms(n) {
			return side, refuse(http.StatusConflict, "conflict", "negotiation %s is %s and has no terms of the consumer's to accept", n.ID, n.Step)
		}
		n.Denial = nil
		e.decideNegotiation(n, p, &side)
		return side, nil
	})
	if err != nil {
		return nil, err
	}
	e.changed(&n.Process)
	return n, nil
}

// CommandNegotiation applies a command of a person: terminate, release. A command that is not possible now is a RefusalError (409).
func (e *Engine) CommandNegotiation(ctx context.Context, participant, id string, on state.Trigger, reason *adminapi.Reason) (*store.Negotiation, error) {
	return e.negotiations.command(ctx, participant, id, on, reason, nil)
}

// Counter answers an offer or a request with other terms about the same asset: a counter-request as consumer, a counter-offer as provider. The
// counterparty decides. Not possible now is a RefusalError (409).
func (e *Engine) Counter(ctx context.Context, participant, id string, offer json.RawMessage) (*store.Negotiation, error) {
	policy, err := parseOffer(offer)
	if err != nil {
		return nil, err
	}
	n, err := e.opt.Store.Negotiation(ctx, participant, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no negotiation %q", id)
	}
	if err != nil {
		return nil, err
	}
	on := state.CommandCounterRequest
	if n.Role == state.Provider {
		on = state.CommandOffer
	}
	return e.negotiations.command(ctx, participant, id, on, nil, func(n *store.Negotiation) error {
		if policy.Target != n.AssetID {
			return refuse(http.StatusUnprocessableEntity, "invalid", "$.offer.target: is %q, the negotiation is about %q", policy.Target, n.AssetID)
		}
		n.Offer, n.OfferID, n.Denial = offer, policy.ID, nil
		gate.Renew(n.Gates)
		if n.Role == state.Consumer {
			n.RequestedHash = odrl.Hash(policy)
		}
		return nil
	})
}

func parseOffer(offer json.RawMessage) (*odrl.Policy, error) {
	policy, err := odrl.Parse(offer)
	if err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "invalid", "$.offer: %s", err)
	}
	if policy.ID == "" || policy.Target == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "invalid", "$.offer: @id and target are both needed")
	}
	return policy, nil
}

// RequestTransfer starts a transfer under an agreement as consumer. The same request id again returns the transfer that it started.
// It takes place in the profile of the agreement. address is the provider's DSP base; empty is the one of the negotiation.
func (e *Engine) RequestTransfer(ctx context.Context, participant string, req adminapi.TransferRequest, address string) (*store.Transfer, error) {
	a, err := e.opt.Store.Agreement(ctx, participant, req.AgreementID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no agreement %q", req.AgreementID)
	}
	if err != nil {
		return nil, err
	}
	p, err := e.lookupParticipant(ctx, participant, a.Profile)
	if err != nil {
		return nil, err
	}
	if a.Role != state.Consumer {
		return nil, refuse(http.StatusConflict, "conflict", "agreement %s is used by its consumer; this participant is its %s", a.ID, a.Role)
	}
	if a.Step != state.Finalized {
		return nil, refuse(http.StatusConflict, "conflict", "agreement %s is not in force: its negotiation is %s, not FINALIZED", a.ID, a.Step)
	}
	if req.Format == "" {
		req.Format = dps.FormatHTTPPull
	}
	if req.ID == "" {
		req.ID = e.opt.NewID()
	}
	if address == "" {
		address = a.Address
	}
	t := &store.Transfer{Format: req.Format, Process: store.Process{Ctx: participant, ID: req.ID, Profile: a.Profile, Role: state.Consumer, Counterparty: a.Provider,
		Address: address, AssetID: a.AssetID, AgreementID: a.ID}}
	side, err := e.transfers.apply(t, false, input{event: state.Event{On: state.CommandRequest}, participant: p})
	if err != nil {
		return nil, err
	}
	t, made, err := e.opt.Store.InsertTransfer(ctx, t, side)
	if err != nil {
		return nil, err
	}
	if !made && t.AgreementID != req.AgreementID {
		return nil, refuse(http.StatusConflict, "conflict", "id %q belongs to a transfer under another agreement", req.ID)
	}
	e.changed(&t.Process)
	return t, nil
}

// CommandTransfer applies a command of a person: suspend, resume, complete, terminate. Not possible now is a RefusalError (409).
func (e *Engine) CommandTransfer(ctx context.Context, participant, id string, on state.Trigger, reason *adminapi.Reason) (*store.Transfer, error) {
	return e.transfers.command(ctx, participant, id, on, reason, nil)
}
