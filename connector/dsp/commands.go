// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
		return nil, otherOffer(req.ID)
	}
	return n, nil
}

// RequestOffer starts a negotiation with a given offer, which has its target, in one of the participant's profiles; empty is the default one.
func (e *Engine) RequestOffer(ctx context.Context, participant, profile, id, counterparty, address string, offer json.RawMessage) (*store.Negotiation, error) {
	p, err := e.lookupParticipant(ctx, participant, profile)
	if err != nil {
		return nil, err
	}
	return e.begin(ctx, p, id, counterparty, address, offer, nil)
}

// OfferTo starts a negotiation as provider: an asset of one of the participant's offers is offered to a consumer (DSP 2025-1 ContractOfferMessage
// without consumerPid), on the offer's terms or on others; its gates hold either. The same request id again returns the negotiation that it started.
func (e *Engine) OfferTo(ctx context.Context, participant, offer string, req adminapi.OfferRequest) (*store.Negotiation, error) {
	if req.Counterparty == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "invalid", "$.counterparty: missing: name the DID of the consumer")
	}
	p, err := e.lookupParticipant(ctx, participant, req.Profile)
	if err != nil {
		return nil, err
	}
	if n, err := e.repeatedOffer(ctx, p, offer, req); n != nil || err != nil {
		return n, err
	}
	d, err := e.opt.Store.Definition(ctx, participant, offer)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no offer %q", offer)
	}
	if err == nil && req.Profile == "" && len(d.Profiles) > 0 {
		p, err = e.lookupParticipant(ctx, participant, d.Profiles[0])
	}
	if err != nil {
		return nil, err
	}
	if !d.OfferedIn(p) {
		return nil, refuse(http.StatusConflict, "conflict", "offer %q is not made in dataspace profile %q: name one of %s", offer, p.ProfileName, strings.Join(d.Profiles, ", "))
	}
	asset, err := e.assetOf(ctx, d, req.Asset)
	if err != nil {
		return nil, err
	}
	terms, _, err := parseDefinition(d)
	if req.Policy != nil {
		terms, err = e.CheckTerms(p, d.Gates, req.Policy)
		d.Revision = nil // whose terms these are not
	}
	if err != nil {
		return nil, err
	}
	if outdated, err := e.outdated(ctx, p, d.UseCase, d.Revision); err != nil {
		return nil, err
	} else if outdated != "" {
		return nil, refuse(http.StatusConflict, CodeNotInForce, "%s", outdated)
	}
	if trace, err := e.SelfCheck(ctx, p, terms); err != nil {
		return nil, err
	} else if trace != nil && !trace.Allowed {
		return nil, &RefusalError{Status: http.StatusForbidden, Code: "policy-denied", Message: odrl.Reason(*trace, ""), Trace: trace}
	}
	return e.begin(ctx, p, req.ID, req.Counterparty, req.Address, wire.Offer(wire.OfferID(d.ID, asset, terms), terms, asset, p.DID), d)
}

// repeatedOffer returns the negotiation that a request id has started already; nil when there is none.
func (e *Engine) repeatedOffer(ctx context.Context, p *store.Participant, offer string, req adminapi.OfferRequest) (*store.Negotiation, error) {
	if req.ID == "" {
		return nil, nil
	}
	n, err := e.opt.Store.Negotiation(ctx, p.Ctx, req.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	same := n.Role == state.Provider && n.Counterparty == req.Counterparty && n.Definition == offer && (req.Profile == "" || n.Profile == req.Profile) && (req.Asset == "" || n.AssetID == req.Asset)
	if same && req.Policy != nil {
		terms, err := odrl.Parse(req.Policy)
		same = err == nil && odrl.Hash(terms) == n.RequestedHash
	}
	if !same {
		return nil, otherOffer(req.ID)
	}
	return n, nil
}

func otherOffer(id string) error {
	return refuse(http.StatusConflict, "conflict", "id %q belongs to a negotiation about another offer", id)
}

// assetOf is the asset of an offer that a request names; it need not name one where the offer has one only.
func (e *Engine) assetOf(ctx context.Context, d *store.Definition, named string) (string, error) {
	assets, err := e.opt.Store.Assets(ctx, d.Ctx)
	if err != nil {
		return "", err
	}
	var all []string
	for _, a := range assets {
		if d.Selects(a) {
			all = append(all, a.ID)
		}
	}
	switch {
	case slices.Contains(all, named):
		return named, nil
	case named == "" && len(all) == 1:
		return all[0], nil
	}
	return "", refuse(http.StatusUnprocessableEntity, "invalid", "$.asset: %q is not one of the assets of offer %q: %s", named, d.ID, strings.Join(all, ", "))
}

// CheckTerms reads terms that a person proposes, and refuses those that could not be evaluated or under which gates could never pass.
func (e *Engine) CheckTerms(p *store.Participant, gates []adminapi.Gate, raw json.RawMessage) (*odrl.Policy, error) {
	ev, err := e.Evaluator(p)
	if err != nil {
		return nil, err
	}
	terms, err := odrl.Parse(raw)
	if err == nil {
		err = ev.Check(terms)
	}
	for _, g := range gates {
		if err == nil && g.Type == adminapi.GateAttestation {
			var attestation *odrl.Policy
			if attestation, err = odrl.Parse(g.Policy); err != nil {
				return nil, fmt.Errorf("policy of gate %s: %w", g.Name, err)
			}
			if scope := Unasked(ev, attestation, terms); scope != "" {
				err = &odrl.Error{Path: "$", Message: fmt.Sprintf("gate %q needs %s of the consumer, which these terms do not ask for: add a constraint that does", g.Name, scope)}
			}
		}
	}
	var oe *odrl.Error
	if errors.As(err, &oe) {
		return nil, &odrl.Error{Path: "$.policy" + oe.Path[1:], Message: oe.Message}
	}
	return terms, err
}

// begin starts a negotiation with an offer, which has its target: as provider under a definition of its own, as consumer without.
func (e *Engine) begin(ctx context.Context, p *store.Participant, id, counterparty, address string, offer json.RawMessage, d *store.Definition) (*store.Negotiation, error) {
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
		Process: store.Process{Ctx: p.Ctx, ID: id, Profile: p.ProfileName, Role: state.Consumer, Counterparty: counterparty, Address: address, AssetID: policy.Target}}
	on := state.CommandRequest
	if d != nil {
		on, n.Role = state.CommandOffer, state.Provider
		n.Definition, n.UseCase, n.Revision, n.Gates = d.ID, d.UseCase, d.Revision, gate.Holds(d.Gates)
	} else if n.UseCase, n.Revision, err = e.known(ctx, p, n.RequestedHash); err != nil {
		return nil, err
	}
	side, err := e.negotiations.apply(n, false, input{event: state.Event{On: on}, participant: p})
	if err != nil {
		return nil, err
	}
	n, made, err := e.opt.Store.InsertNegotiation(ctx, n, side)
	if err != nil {
		return nil, err
	}
	if !made && (n.Counterparty != counterparty || n.AssetID != policy.Target || (n.Role == state.Provider) != (d != nil)) {
		return nil, otherOffer(id)
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
// it goes on as anything that is offered. seen is the hash of the terms that the person has seen; empty takes whatever is under negotiation. Other
// terms, and not possible now, are a RefusalError (409).
func (e *Engine) Accept(ctx context.Context, participant, id, seen string) (*store.Negotiation, error) {
	n, err := e.opt.Store.Negotiation(ctx, participant, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no negotiation %q", id)
	}
	if err != nil {
		return nil, err
	}
	if n.Role == state.Consumer {
		return e.negotiations.command(ctx, participant, id, state.CommandAccept, nil, func(n *store.Negotiation) error { return asSeen(n, seen) })
	}
	p, err := e.lookupParticipant(ctx, participant, n.Profile)
	if err != nil {
		return nil, err
	}
	n, err = e.opt.Store.UpdateNegotiation(ctx, participant, id, "", func(n *store.Negotiation, _ bool) (side store.Side, err error) {
		if !ownTerms(n) {
			return side, refuse(http.StatusConflict, "conflict", "negotiation %s is %s and has no terms of the consumer's to accept", n.ID, n.Step)
		}
		if err := asSeen(n, seen); err != nil {
			return side, err
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

// asSeen refuses terms that are not those with the hash seen.
func asSeen(n *store.Negotiation, seen string) error {
	if seen == "" {
		return nil
	}
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		return err
	}
	if now := odrl.Hash(policy); now != seen {
		return refuse(http.StatusConflict, "conflict", "the terms of negotiation %s have changed: they are %s now, not %s; read them, then decide", n.ID, now, seen)
	}
	return nil
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
		n.Offer, n.OfferID, n.Denial, n.Revision = offer, policy.ID, nil, nil // whose terms these are not
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
