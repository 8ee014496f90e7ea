// SPDX-License-Identifier: Apache-2.0

package management

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func (s *server) edcProcessRoutes(mux *http.ServeMux, base string) {
	mux.Handle("POST"+base+"/catalog/request", s.edc(s.edcCatalog))
	mux.Handle("POST"+base+"/contractnegotiations", s.edc(s.edcNegotiate))
	mux.Handle("GET"+base+"/contractnegotiations/{id}", s.edc(withNegotiation(s, func(_ context.Context, n *store.Negotiation) (any, error) { return edcNegotiation(n), nil })))
	mux.Handle("GET"+base+"/contractnegotiations/{id}/state", s.edc(withNegotiation(s, func(_ context.Context, n *store.Negotiation) (any, error) {
		return map[string]any{"@context": edcContext, "@type": "NegotiationState", "state": n.Step}, nil
	})))
	mux.Handle("GET"+base+"/contractnegotiations/{id}/agreement", s.edc(withNegotiation(s, func(ctx context.Context, n *store.Negotiation) (any, error) {
		a, err := s.Store.AgreementOf(ctx, n.Ctx, n.ID)
		if err != nil {
			return nil, describe(err, "agreement of negotiation", n.ID)
		}
		return edcAgreement(a), nil
	})))
	mux.Handle("POST"+base+"/contractnegotiations/{id}/terminate", s.edc(s.edcTerminateNegotiation))
	mux.Handle("POST"+base+"/contractnegotiations/request", s.edc(edcQuery(s.allNegotiations, func(n *store.Negotiation) (string, any) { return n.ID, edcNegotiation(n) })))
	mux.Handle("GET"+base+"/contractagreements/{id}", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		a, err := s.Store.Agreement(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "agreement", r.PathValue("id"))
		}
		return edcAgreement(a), nil
	}))
	mux.Handle("GET"+base+"/contractagreements/{id}/negotiation", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		a, err := s.Store.Agreement(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "agreement", r.PathValue("id"))
		}
		n, err := s.Store.Negotiation(r.Context(), p.Ctx, a.NegotiationID)
		if err != nil {
			return nil, err
		}
		return edcNegotiation(n), nil
	}))
	mux.Handle("POST"+base+"/contractagreements/request", s.edc(edcQuery(s.allAgreements, func(a *store.Agreement) (string, any) { return a.ID, edcAgreement(a) })))

	mux.Handle("POST"+base+"/transferprocesses", s.edc(s.edcTransfer))
	mux.Handle("GET"+base+"/transferprocesses/{id}", s.edc(withTransfer(s, func(t *store.Transfer) any { return edcTransferView(t) })))
	mux.Handle("GET"+base+"/transferprocesses/{id}/state", s.edc(withTransfer(s, func(t *store.Transfer) any {
		return map[string]any{"@context": edcContext, "@type": "TransferState", "state": t.Step}
	})))
	for verb, on := range map[string]state.Trigger{"suspend": state.CommandSuspend, "resume": state.CommandResume, "terminate": state.CommandTerminate} {
		mux.Handle("POST"+base+"/transferprocesses/{id}/"+verb, s.edc(s.edcCommandTransfer(on)))
	}
	mux.Handle("POST"+base+"/transferprocesses/request", s.edc(edcQuery(s.allTransfers, func(t *store.Transfer) (string, any) { return t.ID, edcTransferView(t) })))
	mux.Handle("GET"+base+"/edrs/{id}/dataaddress", s.edc(s.edcDataAddress))
}

func (s *server) allNegotiations(ctx context.Context, participant string) ([]*store.Negotiation, error) {
	return s.Store.Negotiations(ctx, participant, store.Page{Limit: 1000})
}

func (s *server) allTransfers(ctx context.Context, participant string) ([]*store.Transfer, error) {
	return s.Store.Transfers(ctx, participant, store.Page{Limit: 1000})
}

func (s *server) allAgreements(ctx context.Context, participant string) ([]*store.Agreement, error) {
	return s.Store.Agreements(ctx, participant, 1000)
}

func withNegotiation(s *server, f func(context.Context, *store.Negotiation) (any, error)) func(*http.Request, *store.Participant) (any, error) {
	return func(r *http.Request, p *store.Participant) (any, error) {
		n, err := s.Store.Negotiation(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "negotiation", r.PathValue("id"))
		}
		return f(r.Context(), n)
	}
}

func withTransfer(s *server, f func(*store.Transfer) any) func(*http.Request, *store.Participant) (any, error) {
	return func(r *http.Request, p *store.Participant) (any, error) {
		t, err := s.Store.Transfer(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "transfer", r.PathValue("id"))
		}
		return f(t), nil
	}
}

// edcRequest is what the requests to a counterparty share.
type edcRequest struct {
	CounterPartyAddress string          `json:"counterPartyAddress"`
	CounterPartyID      string          `json:"counterPartyId"`
	Protocol            string          `json:"protocol"`
	Policy              json.RawMessage `json:"policy"`
	ContractID          string          `json:"contractId"`
	TransferType        string          `json:"transferType"`
	QuerySpec           querySpec       `json:"querySpec"`
	CallbackAddresses   []any           `json:"callbackAddresses"`
}

func readRequest(r *http.Request) (edcRequest, error) {
	var b edcRequest
	if err := edcBody(r, &b); err != nil {
		return b, err
	}
	if b.Protocol != "" && b.Protocol != wire.Protocol {
		return b, invalid("protocol: %q is not supported, only %q", b.Protocol, wire.Protocol)
	}
	if len(b.CallbackAddresses) > 0 {
		return b, invalid("callbackAddresses: not supported")
	}
	return b, nil
}

func (s *server) edcCatalog(r *http.Request, p *store.Participant) (any, error) {
	b, err := readRequest(r)
	if err != nil {
		return nil, err
	}
	if b.CounterPartyID == "" {
		return nil, invalid("counterPartyId: missing")
	}
	criteria, err := edcCriteria(b.QuerySpec.FilterExpression)
	if err != nil {
		return nil, err
	}
	datasets, address, err := s.Engine.FetchCatalog(r.Context(), p.Ctx, b.CounterPartyID, b.CounterPartyAddress)
	if err != nil {
		return nil, err
	}
	var kept []wire.Dataset
	for _, d := range datasets {
		if (&store.Definition{Selector: criteria}).Selects(&store.Asset{ID: d.ID, Properties: d.Properties}) {
			kept = append(kept, d)
		}
	}
	start := min(max(b.QuerySpec.Offset, 0), len(kept))
	end := len(kept)
	if b.QuerySpec.Limit > 0 {
		end = min(start+b.QuerySpec.Limit, end)
	}
	return wire.EncodeCatalog(strings.TrimSuffix(address, "/")+"/catalog", b.CounterPartyID, address, kept[start:end]), nil
}

// edcNegotiate requests the offer that the client copied from a catalog. How it is spelled does not matter; what it says does.
func (s *server) edcNegotiate(r *http.Request, p *store.Participant) (any, error) {
	b, err := readRequest(r)
	if err != nil {
		return nil, err
	}
	if b.Policy == nil {
		return nil, invalid("policy: missing")
	}
	policy, err := odrl.Parse(b.Policy)
	if err != nil {
		return nil, err
	}
	if b.CounterPartyID == "" {
		b.CounterPartyID = policy.Assigner
	}
	if b.CounterPartyID == "" {
		return nil, invalid("counterPartyId: missing, and the policy names no assigner")
	}
	offer := wire.Offer(policy.ID, policy, policy.Target, b.CounterPartyID)
	n, err := s.Engine.RequestOffer(r.Context(), p.Ctx, "", b.CounterPartyID, b.CounterPartyAddress, offer)
	if err != nil {
		return nil, err
	}
	return edcID(n.ID, n.CreatedAt), nil
}

func edcProcess(out map[string]any, p *store.Process) map[string]any {
	out["@context"], out["@id"], out["state"], out["type"] = edcContext, p.ID, p.Step, strings.ToUpper(string(p.Role))
	out["stateTimestamp"], out["createdAt"], out["protocol"] = p.UpdatedAt.UnixMilli(), p.CreatedAt.UnixMilli(), wire.Protocol
	out["counterPartyId"], out["counterPartyAddress"], out["assetId"], out["callbackAddresses"] = p.Counterparty, p.Address, p.AssetID, []any{}
	if p.CounterpartyPID != "" {
		out["correlationId"] = p.CounterpartyPID
	}
	if p.Reason != nil {
		out["errorDetail"] = p.Reason.Message
	}
	return out
}

func edcNegotiation(n *store.Negotiation) any {
	out := edcProcess(map[string]any{"@type": "ContractNegotiation"}, &n.Process)
	if n.AgreementID != "" {
		out["contractAgreementId"] = n.AgreementID
	}
	if n.Held || n.Waiting != "" {
		out["pending"], out["awaiting"] = n.Held, n.Waiting
	}
	return out
}

func edcAgreement(a *store.Agreement) any {
	return map[string]any{"@context": edcContext, "@type": "ContractAgreement", "@id": a.ID, "agreementId": a.ID, "assetId": a.AssetID,
		"providerId": a.Provider, "consumerId": a.Consumer, "contractSigningDate": a.SignedAt.Unix(), "policy": a.Agreement}
}

func edcReason(r *http.Request) (*adminapi.Reason, error) {
	var b struct {
		Reason string `json:"reason"`
	}
	if r.ContentLength != 0 {
		if err := edcBody(r, &b); err != nil {
			return nil, err
		}
	}
	if b.Reason == "" {
		b.Reason = "ended by a person"
	}
	return &adminapi.Reason{Code: "terminated", Message: b.Reason, By: "own"}, nil
}

func (s *server) edcTerminateNegotiation(r *http.Request, p *store.Participant) (any, error) {
	reason, err := edcReason(r)
	if err != nil {
		return nil, err
	}
	_, err = s.Engine.CommandNegotiation(r.Context(), p.Ctx, r.PathValue("id"), state.CommandTerminate, reason)
	return nil, err
}

func (s *server) edcTransfer(r *http.Request, p *store.Participant) (any, error) {
	b, err := readRequest(r)
	if err != nil {
		return nil, err
	}
	t, err := s.Engine.RequestTransfer(r.Context(), p.Ctx, adminapi.TransferRequest{AgreementID: b.ContractID, Format: b.TransferType}, b.CounterPartyAddress)
	if err != nil {
		return nil, err
	}
	return edcID(t.ID, t.CreatedAt), nil
}

func edcTransferView(t *store.Transfer) any {
	return edcProcess(map[string]any{"@type": "TransferProcess", "contractId": t.AgreementID, "transferType": t.Format}, &t.Process)
}

func (s *server) edcCommandTransfer(on state.Trigger) func(*http.Request, *store.Participant) (any, error) {
	return func(r *http.Request, p *store.Participant) (any, error) {
		var reason *adminapi.Reason
		if on == state.CommandTerminate {
			var err error
			if reason, err = edcReason(r); err != nil {
				return nil, err
			}
		}
		_, err := s.Engine.CommandTransfer(r.Context(), p.Ctx, r.PathValue("id"), on, reason)
		return nil, err
	}
}

// edcDataAddress is the EDR: with its token, for whoever holds the API key.
func (s *server) edcDataAddress(r *http.Request, p *store.Participant) (any, error) {
	a, err := s.Store.DataAddress(r.Context(), p.Ctx, r.PathValue("id"))
	if err != nil {
		return nil, describe(err, "data address of transfer", r.PathValue("id"))
	}
	out := map[string]any{"@context": edcContext, "@type": "DataAddress", "type": a.EndpointType, "endpointType": a.EndpointType, "endpoint": a.Endpoint}
	for k, v := range a.Properties {
		out[k] = v
	}
	return out, nil
}
