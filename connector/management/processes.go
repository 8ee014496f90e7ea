// SPDX-License-Identifier: Apache-2.0

package management

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func (s *server) processRoutes(mux *http.ServeMux) {
	const base = " /api/{ctx}/v1"
	mux.Handle("POST"+base+"/negotiations", s.inParticipant(http.StatusCreated, s.startNegotiation))
	mux.Handle("GET"+base+"/negotiations", s.inParticipant(http.StatusOK, s.listNegotiations))
	mux.Handle("GET"+base+"/negotiations/{id}", s.inParticipant(http.StatusOK, s.getNegotiation))
	mux.Handle("GET"+base+"/negotiations/{id}/events", http.HandlerFunc(s.negotiationEvents))
	mux.Handle("POST"+base+"/negotiations/{id}/accept", s.inParticipant(http.StatusOK, s.acceptTerms))
	mux.Handle("POST"+base+"/negotiations/{id}/counter", s.inParticipant(http.StatusOK, s.counter))
	for verb, on := range map[string]state.Trigger{"terminate": state.CommandTerminate, "release": state.CommandRelease} {
		mux.Handle("POST"+base+"/negotiations/{id}/"+verb, s.inParticipant(http.StatusOK, s.commandNegotiation(on)))
	}
	mux.Handle("GET"+base+"/negotiations/{id}/agreement", s.document(s.agreementOfNegotiation))
	mux.Handle("GET"+base+"/transfers/{id}/agreement", s.document(s.agreementOfTransfer))
	mux.Handle("POST"+base+"/negotiations/{id}/decisions", s.inParticipant(http.StatusOK, s.decide))
	mux.Handle("GET"+base+"/approvals", s.inParticipant(http.StatusOK, s.listApprovals))
	mux.Handle("GET"+base+"/agreements", s.inParticipant(http.StatusOK, s.listAgreements))
	mux.Handle("GET"+base+"/agreements/{id}", s.inParticipant(http.StatusOK, s.getAgreement))
	mux.Handle("POST"+base+"/transfers", s.inParticipant(http.StatusCreated, s.startTransfer))
	mux.Handle("GET"+base+"/transfers", s.inParticipant(http.StatusOK, s.listTransfers))
	mux.Handle("GET"+base+"/transfers/{id}", s.inParticipant(http.StatusOK, s.getTransfer))
	for verb, on := range map[string]state.Trigger{"suspend": state.CommandSuspend, "resume": state.CommandResume,
		"complete": state.CommandComplete, "terminate": state.CommandTerminate} {
		mux.Handle("POST"+base+"/transfers/{id}/"+verb, s.inParticipant(http.StatusOK, s.commandTransfer(on)))
	}
	mux.Handle("GET"+base+"/transfers/{id}/data", http.HandlerFunc(s.data))
	mux.Handle("GET"+base+"/transfers/{id}/data/{path...}", http.HandlerFunc(s.data))
	mux.Handle("GET"+base+"/audit", http.HandlerFunc(s.auditTrail))
	mux.Handle("GET"+base+"/summary", s.inParticipant(http.StatusOK, s.summary))
}

// negotiationView shows a negotiation with its terms.
func (s *server) negotiationView(p *store.Participant, n *store.Negotiation) (adminapi.Negotiation, error) {
	out := negotiationSummary(n)
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		return out, fmt.Errorf("offer of negotiation %s: %w", n.ID, err)
	}
	out.Terms = &adminapi.Terms{Policy: n.Offer, Hash: odrl.Hash(policy), Sentences: []string{}}
	if in, ok := p.In(n.Profile); ok { // which may have been left
		ev, err := s.Engine.Evaluator(in)
		if err != nil {
			return out, err
		}
		out.Terms.Sentences, out.Terms.DE = append(out.Terms.Sentences, ev.Sentences(policy, "en")...), ev.Sentences(policy, "de")
	}
	return out, nil
}

func negotiationSummary(n *store.Negotiation) adminapi.Negotiation {
	out := adminapi.Negotiation{ID: n.ID, Profile: n.Profile, Role: string(n.Role), State: n.State, Step: n.Step, Counterparty: n.Counterparty, CounterpartyPID: n.CounterpartyPID,
		AssetID: n.AssetID, OfferID: n.OfferID, UseCase: n.UseCase, UseCaseRevision: n.Revision, AgreementID: n.AgreementID, Reason: n.Reason, Waiting: n.Waiting, Decides: dsp.Decides(n), Retry: retryView(&n.Process),
		History: append([]adminapi.Event{}, n.History...), Traces: n.Traces, CreatedAt: n.CreatedAt.UTC(), UpdatedAt: n.UpdatedAt.UTC(), Revision: n.Version}
	if n.Step == state.Terminating || n.Step == state.Terminated { // what was proposed is no agreement
		out.AgreementID = ""
	}
	for i := range n.Gates {
		if h := &n.Gates[i]; n.Held || gate.Evaluate(h, time.Now()) != adminapi.GateOpen { // what it waited for when it ended otherwise is of no account
			out.Gates = append(out.Gates, gate.State(h, time.Now()))
		}
	}
	return out
}

// retryView tells of a message that is sent again; nil when none is.
func retryView(p *store.Process) *adminapi.Retry {
	if p.MessageID == "" || p.Attempts == 0 {
		return nil
	}
	return &adminapi.Retry{Attempts: p.Attempts, Error: p.LastError, Next: p.NextAttemptAt, Until: p.SendUntil}
}

func (s *server) transferView(ctx context.Context, t *store.Transfer) (adminapi.Transfer, error) {
	out := adminapi.Transfer{ID: t.ID, Profile: t.Profile, Role: string(t.Role), State: t.State, AgreementID: t.AgreementID, AssetID: t.AssetID, Counterparty: t.Counterparty,
		Suspension: t.Suspension, Reason: t.Reason, Waiting: t.Waiting, Retry: retryView(&t.Process), History: append([]adminapi.Event{}, t.History...), Traces: t.Traces,
		CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(), Revision: t.Version}
	address, err := s.Store.DataAddress(ctx, t.Ctx, t.ID)
	if err == nil {
		out.Endpoint = address.Endpoint
	} else if !errors.Is(err, store.ErrNotFound) {
		return out, err
	}
	return out, nil
}

// page reads ?state=&limit=&before=.
func page(r *http.Request) (store.Page, error) {
	q := r.URL.Query()
	out := store.Page{State: q.Get("state")}
	var err error
	if v := q.Get("limit"); v != "" {
		if out.Limit, err = strconv.Atoi(v); err != nil || out.Limit < 1 || out.Limit > 1000 {
			return out, invalid("limit=%q: a number from 1 to 1000", v)
		}
	}
	if v := q.Get("before"); v != "" {
		if out.Before, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return out, invalid("before=%q: the createdAt of the last item of the page before", v)
		}
	}
	return out, nil
}

func (s *server) startNegotiation(r *http.Request, p *store.Participant) (any, error) {
	req, err := decode[adminapi.NegotiationRequest](r)
	if err != nil {
		return nil, err
	}
	n, err := s.Engine.Negotiate(r.Context(), p.Ctx, req)
	if err != nil {
		return nil, err
	}
	return s.negotiationView(p, n)
}

func (s *server) listNegotiations(r *http.Request, p *store.Participant) (any, error) {
	pg, err := page(r)
	if err != nil {
		return nil, err
	}
	all, err := s.Store.Negotiations(r.Context(), p.Ctx, pg)
	out := make([]adminapi.Negotiation, 0, len(all))
	for _, n := range all {
		v := negotiationSummary(n)
		v.Traces = nil // whoever wants to know more reads the one; a page with all of them does not fit through an agent
		out = append(out, v)
	}
	return out, err
}

// getNegotiation answers at once, or with ?wait=REVISION when the negotiation has another revision, or after waitFor.
func (s *server) getNegotiation(r *http.Request, p *store.Participant) (any, error) {
	id := r.PathValue("id")
	after := int64(-1)
	if v := r.URL.Query().Get("wait"); v != "" {
		var err error
		if after, err = strconv.ParseInt(v, 10, 64); err != nil {
			return nil, invalid("wait=%q: the revision that is known", v)
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), waitFor)
	defer cancel()
	n, err := s.nextNegotiation(ctx, p.Ctx, id, after)
	if err != nil {
		return nil, describe(err, "negotiation", id)
	}
	return s.negotiationView(p, n)
}

// nextNegotiation returns a negotiation once its revision is not after, or when ctx ends.
func (s *server) nextNegotiation(ctx context.Context, participant, id string, after int64) (*store.Negotiation, error) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		changed := s.Engine.Watch(participant, id)
		n, err := s.Store.Negotiation(context.WithoutCancel(ctx), participant, id)
		if err != nil || n.Version != after || state.Negotiation.Final(n.Step) {
			return n, err
		}
		select {
		case <-ctx.Done():
			return n, nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// negotiationEvents streams a negotiation as server-sent events, one for each change, until it has ended.
func (s *server) negotiationEvents(w http.ResponseWriter, r *http.Request) {
	p, err := s.participant(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	id := r.PathValue("id")
	n, err := s.Store.Negotiation(r.Context(), p.Ctx, id)
	if err != nil {
		s.fail(w, r, describe(err, "negotiation", id))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for {
		view, err := s.negotiationView(p, n)
		if err != nil {
			return
		}
		raw, err := json.Marshal(s.leaving(r, p, view))
		if err != nil {
			return
		}
		// #nosec G705 -- JSON as an event stream, which no browser renders
		if _, err := fmt.Fprintf(w, "id: %d\nevent: negotiation\ndata: %s\n\n", n.Version, raw); err != nil || out.Flush() != nil {
			return
		}
		for last := n.Version; n.Version == last; {
			if state.Negotiation.Final(n.Step) || r.Context().Err() != nil {
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), waitFor)
			n, err = s.nextNegotiation(ctx, p.Ctx, id, last)
			cancel()
			if err != nil {
				return
			}
			if n.Version == last { // a comment keeps the connection open
				if _, err := fmt.Fprint(w, ": waiting\n\n"); err != nil || out.Flush() != nil {
					return
				}
			}
		}
	}
}

// reasonOf reads why a person gives a command. An end has a reason in any case, a suspension where one is given, and nothing else has any.
func reasonOf(r *http.Request, on state.Trigger) (*adminapi.Reason, error) {
	body, err := optional[adminapi.ReasonRequest](r)
	switch {
	case err != nil:
		return nil, err
	case on == state.CommandTerminate:
		return &adminapi.Reason{Code: "terminated", Message: cmp.Or(body.Reason, "ended by a person"), By: "own"}, nil
	case on == state.CommandSuspend && body.Reason != "":
		return &adminapi.Reason{Code: "suspended", Message: body.Reason, By: "own"}, nil
	}
	return nil, nil
}

func (s *server) commandNegotiation(on state.Trigger) func(*http.Request, *store.Participant) (any, error) {
	return func(r *http.Request, p *store.Participant) (any, error) {
		reason, err := reasonOf(r, on)
		if err != nil {
			return nil, err
		}
		n, err := s.Engine.CommandNegotiation(r.Context(), p.Ctx, r.PathValue("id"), on, reason)
		if err != nil {
			return nil, err
		}
		return s.negotiationView(p, n)
	}
}

func (s *server) acceptTerms(r *http.Request, p *store.Participant) (any, error) {
	in, err := optional[adminapi.Acceptance](r)
	if err != nil {
		return nil, err
	}
	n, err := s.Engine.Accept(r.Context(), p.Ctx, r.PathValue("id"), in.TermsHash)
	if err != nil {
		return nil, err
	}
	return s.negotiationView(p, n)
}

// counter refuses terms that could not be evaluated in the negotiation's profile.
func (s *server) counter(r *http.Request, p *store.Participant) (any, error) {
	in, err := decode[adminapi.CounterOffer](r)
	if err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	n, err := s.Store.Negotiation(r.Context(), p.Ctx, id)
	if err != nil {
		return nil, describe(err, "negotiation", id)
	}
	own, ok := p.In(n.Profile)
	if !ok {
		return nil, &dsp.RefusalError{Status: http.StatusConflict, Code: "conflict", Message: fmt.Sprintf("the participant no longer takes part in dataspace profile %q", n.Profile)}
	}
	if in.Policy == nil {
		return nil, invalid("$.policy: missing")
	}
	var gates []adminapi.Gate
	for _, h := range n.Gates {
		gates = append(gates, h.Gate)
	}
	policy, err := s.Engine.CheckTerms(own, gates, in.Policy)
	if err != nil {
		return nil, err
	}
	provider := n.Counterparty
	if n.Role == state.Provider {
		provider = p.DID
	}
	if n, err = s.Engine.Counter(r.Context(), p.Ctx, id, wire.Offer(cmp.Or(in.OfferID, uuid.NewString()), policy, n.AssetID, provider)); err != nil {
		return nil, err
	}
	return s.negotiationView(p, n)
}

func agreementView(a *store.Agreement) adminapi.Agreement {
	return adminapi.Agreement{ID: a.ID, NegotiationID: a.NegotiationID, Profile: a.Profile, AssetID: a.AssetID, Provider: a.Provider, Consumer: a.Consumer,
		SignedAt: a.SignedAt.UTC(), Policy: a.Agreement, UseCase: a.UseCase, UseCaseRevision: a.Revision}
}

func (s *server) listAgreements(r *http.Request, p *store.Participant) (any, error) {
	all, err := s.Store.Agreements(r.Context(), p.Ctx, 1000)
	out := make([]adminapi.Agreement, 0, len(all))
	for _, a := range all {
		out = append(out, agreementView(a))
	}
	return out, err
}

func (s *server) getAgreement(r *http.Request, p *store.Participant) (any, error) {
	a, err := s.Store.Agreement(r.Context(), p.Ctx, r.PathValue("id"))
	if err == nil && a.Step != state.Finalized { // made, and not concluded
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, describe(err, "agreement", r.PathValue("id"))
	}
	return agreementView(a), nil
}

// document answers an agreement byte for byte as it was sent or received.
func (s *server) document(find func(r *http.Request, p *store.Participant) (*store.Agreement, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := s.participant(r)
		var a *store.Agreement
		if err == nil {
			a, err = find(r, p)
		}
		if err == nil && a.Step != state.Finalized { // made, and not concluded
			err = notFound("agreement in force of", r.PathValue("id"))
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(a.Agreement) // the caller may be gone
	}
}

func (s *server) agreementOfNegotiation(r *http.Request, p *store.Participant) (*store.Agreement, error) {
	a, err := s.Store.AgreementOf(r.Context(), p.Ctx, r.PathValue("id"))
	return a, describe(err, "agreement of negotiation", r.PathValue("id"))
}

func (s *server) agreementOfTransfer(r *http.Request, p *store.Participant) (*store.Agreement, error) {
	t, err := s.Store.Transfer(r.Context(), p.Ctx, r.PathValue("id"))
	if err != nil {
		return nil, describe(err, "transfer", r.PathValue("id"))
	}
	a, err := s.Store.Agreement(r.Context(), p.Ctx, t.AgreementID)
	return a, describe(err, "agreement of transfer", t.ID)
}

func (s *server) startTransfer(r *http.Request, p *store.Participant) (any, error) {
	req, err := decode[adminapi.TransferRequest](r)
	if err != nil {
		return nil, err
	}
	t, err := s.Engine.RequestTransfer(r.Context(), p.Ctx, req, "")
	if err != nil {
		return nil, err
	}
	return s.transferView(r.Context(), t)
}

func (s *server) listTransfers(r *http.Request, p *store.Participant) (any, error) {
	pg, err := page(r)
	if err != nil {
		return nil, err
	}
	all, err := s.Store.Transfers(r.Context(), p.Ctx, pg)
	if err != nil {
		return nil, err
	}
	out := make([]adminapi.Transfer, 0, len(all))
	for _, t := range all {
		v, err := s.transferView(r.Context(), t)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (s *server) getTransfer(r *http.Request, p *store.Participant) (any, error) {
	t, err := s.Store.Transfer(r.Context(), p.Ctx, r.PathValue("id"))
	if err != nil {
		return nil, describe(err, "transfer", r.PathValue("id"))
	}
	return s.transferView(r.Context(), t)
}

func (s *server) commandTransfer(on state.Trigger) func(*http.Request, *store.Participant) (any, error) {
	return func(r *http.Request, p *store.Participant) (any, error) {
		reason, err := reasonOf(r, on)
		if err != nil {
			return nil, err
		}
		t, err := s.Engine.CommandTransfer(r.Context(), p.Ctx, r.PathValue("id"), on, reason)
		if err != nil {
			return nil, err
		}
		return s.transferView(r.Context(), t)
	}
}

func (s *server) summary(r *http.Request, p *store.Participant) (any, error) {
	out, last, err := s.Store.Summary(r.Context(), p.Ctx)
	if err != nil {
		return nil, err
	}
	if last != nil {
		v := negotiationSummary(last)
		out.LastFailure = &v
	}
	return out, nil
}
