// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/store"
)

// Heads of audit chains are told to the counterparty by an extension of ours, since no message of the protocol has a place for them: once an agreement
// is finalized, each side asks at the other's DSP base for
//
//	GET kaphera/audit-heads/{agreement} -> {"head": compact JWS}
//
// authenticated as every message is. The JWS is signed with the key of the participant's DID (typ kaphera-audit-head+jwt; claims iss, aud, iat,
// agreement, and head: a connector/audit.Head). Who is no party to the agreement gets 404, as from a connector without the extension.
const headPath = "kaphera/audit-heads"

type headAnswer struct {
	Head string `json:"head"`
}

const (
	headsAtOnce  = 4
	headTimeout  = 10 * time.Second
	headLease    = time.Minute
	headAttempts = 7           // over about half an hour
	headSkew     = time.Minute // how far the clocks of two parties, and of their databases, may differ
	maxHead      = 64 << 10
)

// auditHead answers a party to an agreement.
func (e *Engine) auditHead(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	agent, err := e.authenticate(ctx, p, r, nil)
	if err != nil {
		return answer{}, err
	}
	a, err := e.opt.Store.Agreement(ctx, p.Ctx, r.PathValue("pid"))
	if errors.Is(err, store.ErrNotFound) || err == nil && (a.Counterparty() != agent.ID || a.Profile != p.ProfileName) {
		return answer{}, errUnknown
	}
	if err != nil {
		return answer{}, err
	}
	h, err := e.opt.Store.AuditHead(ctx, p.Ctx)
	if err != nil {
		return answer{}, err
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return answer{}, err
	}
	signed, err := e.opt.Identity.SignHead(ctx, p.Local(), agent.ID, adminapi.HeadStatement{Agreement: a.ID, Head: raw})
	if err != nil {
		return answer{}, fmt.Errorf("sign the audit head of %s: %w", p.Ctx, err)
	}
	return answer{status: http.StatusOK, body: headAnswer{signed}}, nil
}

// askForHeads asks counterparties for the heads that are due, until ctx ends. It has workers of its own: it keeps no protocol message waiting.
func (e *Engine) askForHeads(ctx context.Context) {
	tick := time.NewTicker(e.opt.HeadPoll)
	defer tick.Stop()
	for {
		due, err := e.opt.Store.LeaseHeadRequests(ctx, headsAtOnce, headLease)
		if err != nil && ctx.Err() == nil {
			e.opt.Log.Warn("looking for audit heads to ask for failed", "error", err)
		}
		var all sync.WaitGroup
		for _, r := range due {
			all.Go(func() {
				if err := e.askForHead(ctx, r); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) {
					e.opt.Log.Warn("what came of asking for an audit head could not be stored; it is asked for again", "participant", r.Ctx, "agreement", r.AgreementID, "error", err)
				}
			})
		}
		all.Wait()
		if len(due) > 0 { // there may be more of the same counterparties
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askForHead asks once, and records the head, or, when there is none or no more attempt, why.
func (e *Engine) askForHead(ctx context.Context, r *store.HeadRequest) error {
	out := audit.Witness{Agreement: r.AgreementID, Counterparty: r.Counterparty}
	err := e.fetchHead(ctx, r, &out)
	var refused *refusedError
	switch {
	case err == nil:
		return e.opt.Store.EndHeadRequest(ctx, r.Ctx, r.AgreementID, audit.Entry{Type: audit.CounterpartyHead, Actor: r.Counterparty, Body: out})
	case ctx.Err() != nil:
		return err // the lease runs out
	case errors.Is(err, errOldHead):
		out.Reason = err.Error()
	case errors.As(err, &refused):
		out.Reason = "its connector does not tell heads of audit chains: " + err.Error()
	case r.Attempts >= headAttempts:
		out.Reason = fmt.Sprintf("asked %d times: %s", r.Attempts, cut(err.Error(), 500))
	default:
		return e.opt.Store.PostponeHeadRequest(ctx, r.Ctx, r.AgreementID, 10*e.opt.MinBackoff<<(2*(r.Attempts-1)))
	}
	return e.opt.Store.EndHeadRequest(ctx, r.Ctx, r.AgreementID, audit.Entry{Type: audit.CounterpartyHead, Actor: audit.Self, Body: out})
}

// errOldHead is a head that cannot cover the record of the agreement.
var errOldHead = errors.New("the head that it told is older than the agreement")

// fetchHead fetches and verifies a head. A *refusedError, or errOldHead, is an answer that a repeat would not change.
func (e *Engine) fetchHead(ctx context.Context, r *store.HeadRequest, out *audit.Witness) error {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	p, err := e.lookupParticipant(ctx, r.Ctx, r.Profile)
	if err != nil {
		return err
	}
	if err := e.callable(r.Address); err != nil {
		return &refusedError{reasons: []string{err.Error()}}
	}
	authorization, err := e.authorization(ctx, p, r.Counterparty, nil)
	if err != nil {
		return err
	}
	raw, _, err := e.exchange(ctx, http.MethodGet, join(r.Address, headPath, pathID(r.AgreementID)), authorization, nil, maxHead)
	if err != nil {
		return err
	}
	var got headAnswer
	if err := json.Unmarshal(raw, &got); err != nil || got.Head == "" {
		return &refusedError{status: http.StatusOK, reasons: []string{"what it answers is no head"}}
	}
	s, err := e.opt.Identity.VerifyHead(ctx, p.Local(), r.Counterparty, got.Head)
	if err != nil {
		return fmt.Errorf("the head of its audit chain: %w", err)
	}
	h, ok := headFor(r.AgreementID, s)
	if !ok {
		return &refusedError{status: http.StatusOK, reasons: []string{"what it signed is no head for this agreement"}}
	}
	if h.At.Before(r.SignedAt.Add(-headSkew)) {
		return fmt.Errorf("%w: record %d of chain %s is of %s, the agreement of %s", errOldHead, h.Seq, cut(h.Chain, 100), h.At.UTC().Format(time.RFC3339), r.SignedAt.UTC().Format(time.RFC3339))
	}
	out.Head, out.Signed = &h, got.Head
	return nil
}

// headFor reads the head in a statement, if it is one about an agreement.
func headFor(agreement string, s adminapi.HeadStatement) (h audit.Head, ok bool) {
	err := json.Unmarshal(s.Head, &h)
	return h, err == nil && h.Valid() && s.Agreement == agreement
}
