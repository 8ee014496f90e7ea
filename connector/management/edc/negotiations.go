// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func (a *API) negotiations() []route {
	const path, area, kind, typ = "/contractnegotiations", "negotiations", "negotiation", "ContractNegotiation"
	get, show := a.Store.Negotiation, one(a.negotiationDocs)
	return []route{
		{method: http.MethodPost, path: path, area: area, write: true, summary: "Request the contract that an offer of a catalog describes", body: "ContractRequest",
			answer: "IdResponse", do: a.negotiate},
		item(path+"/{id}", area, kind, typ, "Read a negotiation", get, show),
		item(path+"/{id}/state", area, kind, "NegotiationState", "Read the state of a negotiation", get, func(_ *call, n *store.Negotiation) (map[string]any, error) {
			return map[string]any{"@type": "NegotiationState", "state": n.Step}, nil
		}),
		item(path+"/{id}/agreement", "agreements", kind, "ContractAgreement", "Read the agreement of a negotiation", a.agreementOf,
			func(_ *call, o *store.Agreement) (map[string]any, error) { return agreementDoc(o) }),
		{method: http.MethodPost, path: path + "/{id}/terminate", area: area, write: true, summary: "End a negotiation", body: "TerminateNegotiation", optional: true,
			do: func(c *call) (any, error) {
				reason, err := c.reason()
				if err == nil {
					_, err = a.Engine.CommandNegotiation(c.Context(), c.participant.Ctx, c.id, state.CommandTerminate, reason)
				}
				return nil, err
			}},
		{method: http.MethodDelete, path: path + "/{id}", area: area, write: true, summary: "Remove a terminated negotiation", do: func(c *call) (any, error) {
			return nil, describe(a.Store.DeleteNegotiation(c.Context(), c.participant.Ctx, c.id), kind, c.id)
		}},
		list(path, area, kind, typ, func(ctx context.Context, participant string, q store.Query) ([]*store.Negotiation, error) {
			return a.Store.QueryNegotiations(ctx, participant, byState(q, negotiationCodes))
		}, a.negotiationDocs),
	}
}

// one makes of a function that shows many a function that shows one.
func one[T any](docs func(*call, []T) ([]map[string]any, error)) func(*call, T) (map[string]any, error) {
	return func(c *call, o T) (map[string]any, error) {
		all, err := docs(c, []T{o})
		if err != nil {
			return nil, err
		}
		return all[0], nil
	}
}

// negotiate requests the offer that the client copied from a catalog. How it is spelled does not matter; what it says does. An offer
// without any rule is looked up in the catalog by its id.
func (a *API) negotiate(c *call) (any, error) {
	did, address, err := c.counterparty()
	if err != nil {
		return nil, err
	}
	p, err := c.policy()
	if err != nil {
		return nil, err
	}
	if did == "" {
		did = p.Assigner
	}
	switch {
	case did == "":
		return nil, invalid("$.counterPartyId", "mandatory value is missing, and the policy names no assigner")
	case p.ID == "":
		return nil, missing("$.policy.@id")
	}
	id := uuid.NewString()
	n, err := started(a, c, id, func(ctx context.Context) (*store.Negotiation, error) {
		if len(p.Permissions)+len(p.Prohibitions)+len(p.Obligations) == 0 {
			return a.Engine.Negotiate(ctx, c.participant.Ctx, adminapi.NegotiationRequest{ID: id, Counterparty: did, OfferID: p.ID, Address: address, Profile: c.participant.ProfileName})
		}
		if p.Target == "" {
			return nil, missing("$.policy.target")
		}
		return a.Engine.RequestOffer(ctx, c.participant.Ctx, c.participant.ProfileName, id, did, address, wire.Offer(p.ID, p, p.Target, did))
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"@type": "IdResponse", "@id": n.ID, "createdAt": n.CreatedAt.UnixMilli()}, nil
}

// started keeps what the client gave along with a process, and starts it. An event may come before start returns, so the order counts.
func started[T any](a *API, c *call, id string, start func(context.Context) (T, error)) (T, error) {
	var none T
	req, err := c.request(a.PlainHTTP)
	if err != nil {
		return none, err
	}
	keep := len(req.PrivateProperties) > 0 || len(req.Callbacks) > 0
	if keep {
		if err := a.Store.PutRequest(c.Context(), c.participant.Ctx, id, req); err != nil {
			return none, err
		}
	}
	out, err := start(c.Context())
	if err != nil && keep {
		if drop := a.Store.DropRequest(context.WithoutCancel(c.Context()), c.participant.Ctx, id); drop != nil {
			a.Log.WarnContext(c.Context(), "a request that started nothing could not be removed", "participant", c.participant.Ctx, "process", id, "error", drop)
		}
	}
	return out, err
}

// request reads what a client wants kept with a process.
func (c *call) request(plainHTTP bool) (store.Request, error) {
	var out store.Request
	var err error
	if out.PrivateProperties, err = properties(c.body, "privateProperties"); err != nil {
		return out, err
	}
	all, err := objects(c.body, "$", "callbackAddresses")
	if err != nil {
		return out, err
	}
	for i, o := range all {
		at := fmt.Sprintf("$.callbackAddresses[%d]", i)
		cb := store.Callback{}
		if cb.URI, err = text(o, at, "uri"); err != nil {
			return out, err
		}
		for _, name := range []string{"authKey", "authCodeId"} {
			if o[name] != nil {
				return out, invalid(at+"."+name, "not supported: a control plane stores secrets and cannot read them")
			}
		}
		u, err := url.Parse(cb.URI)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
			return out, invalidValue(at+".uri", cb.URI, "an http(s) address is needed here")
		}
		if u.Scheme == "http" && !plainHTTP {
			return out, invalidValue(at+".uri", cb.URI, "events carry tokens, so an https address is needed here")
		}
		if u.User != nil {
			return out, invalid(at+".uri", "a user name or password in an address is not supported")
		}
		transactional, err := boolean(o, at, "transactional")
		switch {
		case err != nil:
			return out, err
		case transactional:
			return out, invalidValue(at+".transactional", true, "not supported: events are delivered after they happened, and again until they are taken")
		}
		for j, e := range many(o, "events") {
			name, ok := scalar(e)
			if !ok || (!strings.HasPrefix(name, "contract.negotiation") && !strings.HasPrefix(name, "transfer.process")) {
				return out, invalidValue(fmt.Sprintf("%s.events[%d]", at, j), e, "events are contract.negotiation and transfer.process, or those with a state behind it")
			}
			cb.Events = append(cb.Events, name)
		}
		if len(cb.Events) == 0 {
			return out, missing(at + ".events")
		}
		out.Callbacks = append(out.Callbacks, cb)
	}
	return out, nil
}

// reason reads why a client ends something.
func (c *call) reason() (*adminapi.Reason, error) {
	why, err := c.text("reason")
	if why == "" {
		why = "ended by a client of the Management API"
	}
	return &adminapi.Reason{Code: "terminated", Message: why, By: "own"}, err
}

// processDoc writes what negotiations and transfers share.
func processDoc(p *store.Process, req store.Request) map[string]any {
	callbacks := []any{}
	for _, cb := range req.Callbacks {
		events := []any{}
		for _, e := range cb.Events {
			events = append(events, e)
		}
		callbacks = append(callbacks, map[string]any{"@type": "CallbackAddress", "uri": cb.URI, "events": events, "transactional": false})
	}
	out := map[string]any{"@id": p.ID, "state": p.Step, "type": strings.ToUpper(string(p.Role)), "stateTimestamp": p.UpdatedAt.UnixMilli(),
		"createdAt": p.CreatedAt.UnixMilli(), "assetId": p.AssetID, "callbackAddresses": callbacks}
	if p.CounterpartyPID != "" {
		out["correlationId"] = p.CounterpartyPID
	}
	if p.Reason != nil {
		out["errorDetail"] = p.Reason.Message
	}
	return withPrivate(out, req.PrivateProperties)
}

func (a *API) negotiationDocs(c *call, all []*store.Negotiation) ([]map[string]any, error) {
	return processDocs(a, c, all, func(n *store.Negotiation) *store.Process { return &n.Process }, func(n *store.Negotiation, out map[string]any) {
		out["@type"], out["protocol"], out["profile"], out["counterPartyId"], out["counterPartyAddress"] = "ContractNegotiation", wire.Protocol, n.Profile, n.Counterparty, n.Address
		if n.AgreementID != "" {
			out["contractAgreementId"] = n.AgreementID
		}
		if n.Held || n.Waiting != "" {
			out["pending"], out["awaiting"] = n.Held, n.Waiting
		}
	})
}

// processDocs reads what was asked for along with the processes, all at once.
func processDocs[T any](a *API, c *call, all []T, process func(T) *store.Process, own func(T, map[string]any)) ([]map[string]any, error) {
	ids := make([]string, 0, len(all))
	for _, o := range all {
		ids = append(ids, process(o).ID)
	}
	requests, err := a.Store.Requests(c.Context(), c.participant.Ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]map[string]any, 0, len(all))
	for _, o := range all {
		doc := processDoc(process(o), requests[process(o).ID])
		own(o, doc)
		out = append(out, doc)
	}
	return out, nil
}

// EDC stores states as numbers, and its clients ask for them so.
var negotiationCodes = map[float64]string{100: state.Requesting, 200: state.Requested, 300: state.Offering, 400: state.Offered, 700: state.Accepting,
	800: state.Accepted, 825: state.Agreeing, 850: state.Agreed, 1050: state.Verifying, 1100: state.Verified, 1150: state.Finalizing,
	1200: state.Finalized, 1300: state.Terminating, 1400: state.Terminated}

// byState names the states in a query that are given by number.
func byState(q store.Query, codes map[float64]string) store.Query {
	name := func(v any) any {
		if n, ok := v.(float64); ok && codes[n] != "" {
			return codes[n]
		}
		return v
	}
	for i, f := range q.Filter {
		if strings.TrimPrefix(f.OperandLeft, namespace) != "state" {
			continue
		}
		if l, ok := f.OperandRight.([]any); ok {
			for j := range l {
				l[j] = name(l[j])
			}
		}
		q.Filter[i].OperandRight = name(f.OperandRight)
	}
	return q
}

// agreements can be used once their negotiation is FINALIZED, and are shown from then on.
func (a *API) agreements() []route {
	const path, area, kind, typ = "/contractagreements", "agreements", "agreement", "ContractAgreement"
	show := func(_ *call, o *store.Agreement) (map[string]any, error) { return agreementDoc(o) }
	return []route{
		item(path+"/{id}", area, kind, typ, "Read an agreement", a.agreement, show),
		item(path+"/{id}/negotiation", area, kind, "ContractNegotiation", "Read the negotiation that led to an agreement",
			func(ctx context.Context, participant, id string) (*store.Negotiation, error) {
				o, err := a.agreement(ctx, participant, id)
				if err != nil {
					return nil, err
				}
				return a.Store.Negotiation(ctx, participant, o.NegotiationID)
			}, one(a.negotiationDocs)),
		list(path, area, kind, typ, a.Store.QueryAgreements, func(_ *call, all []*store.Agreement) ([]map[string]any, error) { return each(all, agreementDoc) }),
	}
}

func (a *API) agreement(ctx context.Context, participant, id string) (*store.Agreement, error) {
	return inForce(a.Store.Agreement(ctx, participant, id))
}

func (a *API) agreementOf(ctx context.Context, participant, negotiation string) (*store.Agreement, error) {
	return inForce(a.Store.AgreementOf(ctx, participant, negotiation))
}

func inForce(o *store.Agreement, err error) (*store.Agreement, error) {
	if err == nil && o.Step != state.Finalized {
		err = store.ErrNotFound
	}
	return o, err
}

func agreementDoc(o *store.Agreement) (map[string]any, error) {
	p, err := odrl.Parse(o.Agreement)
	if err != nil {
		return nil, err
	}
	doc, err := policyDoc(p)
	return map[string]any{"@type": "ContractAgreement", "@id": o.ID, "agreementId": o.ID, "assetId": o.AssetID, "providerId": o.Provider, "consumerId": o.Consumer,
		"contractSigningDate": o.SignedAt.Unix(), "policy": inODRL(doc)}, err
}
