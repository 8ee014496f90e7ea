// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

// setGates gives a negotiation the gates of the offer that it is about now. Decisions about another offer stay as a record.
func setGates(n *store.Negotiation, gates []adminapi.Gate, consumer *identity.Agent) {
	holds := gate.Holds(gates)
	gate.Renew(n.Gates)
	for i := range holds {
		for _, old := range n.Gates {
			if old.Gate.Name == holds[i].Gate.Name {
				holds[i].Decisions = old.Decisions
			}
		}
	}
	n.Gates = holds
	present(n, consumer)
}

// present keeps the credentials that the consumer presented, as long as gates may make the negotiation wait.
func present(n *store.Negotiation, consumer *identity.Agent) {
	n.Presented = nil
	if len(n.Gates) == 0 {
		return
	}
	for _, c := range consumer.Credentials {
		if !slices.Contains(n.Presented, c.Raw) { // one of several types counts once for each
			n.Presented = append(n.Presented, c.Raw)
		}
	}
}

// Unasked returns a scope that an attestation needs of the consumer and a contract policy does not ask for; empty when there is none.
func Unasked(ev *odrl.Evaluator, attestation, contract *odrl.Policy) string {
	asked := ev.Scopes(contract, profile.SubjectConsumer)
	for _, scope := range ev.Scopes(attestation, profile.SubjectConsumer) {
		if !slices.Contains(asked, scope) {
			return scope
		}
	}
	return ""
}

// gatesBefore are the gates that stand before what a provider does next.
func gatesBefore(n *store.Negotiation) []*gate.Hold {
	switch {
	case n.Role != state.Provider:
		return nil
	case n.Step == state.Requested || n.Step == state.Accepted:
		return gate.Before(n.Gates, state.Agreed)
	case n.Step == state.Verified:
		return gate.Before(n.Gates, state.Finalized)
	}
	return nil
}

// atGates turns a decision to agree or to finalize into one to wait, as long as gates are open, and once they have passed until the policy has been
// evaluated again; into a termination when one is rejected or late.
func (e *Engine) atGates(n *store.Negotiation, d Decision, side *store.Side) Decision {
	holds := gatesBefore(n)
	if len(holds) == 0 || (d.Do != state.CommandAgree && d.Do != state.CommandFinalize) {
		return d
	}
	now := e.opt.Now().UTC()
	var look time.Time // when something is to be looked at again
	for _, h := range holds {
		if h.Since == nil {
			h.Open(now)
			side.Records = append(side.Records, audit.Entry{Type: audit.Gate, Body: gateRecord{Process: n.ID, Gate: h.Gate.Name, Until: h.Deadline}})
		}
		if reason := gate.Reason(h, now); reason != nil {
			return Decision{Do: state.CommandTerminate, Reason: reason}
		}
		if gate.Evaluate(h, now) != adminapi.GateOpen {
			continue
		}
		if at := h.Look(now); look.IsZero() || at.Before(look) {
			look = at
		}
	}
	switch {
	case !look.IsZero():
		return Decision{Do: state.CommandHold, Waiting: gate.Waiting(holds, now, "en"), After: look.Sub(now)}
	case !n.Judged:
		return Decision{Do: state.CommandHold, Waiting: "the credentials to be checked again: its gates have passed"}
	}
	return d
}

// tendGates looks after a negotiation that gates hold: attestations, webhooks, deadlines, and, once all have passed, the policy again, on the credentials as
// they are now. What needs the outside is found out before the row is locked; if something has happened to it meanwhile, it is looked at again.
func (e *Engine) tendGates(ctx context.Context, had *store.Negotiation) (*store.Negotiation, error) {
	holds := gatesBefore(had)
	if !had.Held || len(holds) == 0 {
		return nil, nil
	}
	all, err := e.opt.Store.Participant(ctx, had.Ctx)
	if err != nil {
		return nil, err
	}
	p, ok := all.In(had.Profile)
	if !ok {
		return nil, fmt.Errorf("participant context %q no longer takes part in dataspace profile %q", had.Ctx, had.Profile)
	}
	judged := *had
	judged.Gates = slices.Clone(had.Gates)
	records, found := e.judgeGates(ctx, p, &judged)
	return e.opt.Store.UpdateNegotiation(ctx, had.Ctx, had.ID, "", func(n *store.Negotiation, _ bool) (store.Side, error) {
		defer settle(&n.Process)
		if n.Version != had.Version {
			return store.Side{}, nil
		}
		if found != nil {
			n.Attempts++
			n.LastError = cut(found.Error(), 1000)
			e.opt.Log.Warn("the gates of a negotiation could not be looked after; they are again", "participant", n.Ctx, "negotiation", n.ID, "error", found)
			if !overdue(holds, e.opt.Now()) {
				n.Next = &store.Next{After: untilDeadline(holds, e.opt.Now(), e.backoff(n.Attempts))}
				return store.Side{}, nil
			}
			records, judged.Judged, judged.Denial = nil, true, denied("credentials could not be verified again in time: "+n.LastError)
		}
		n.Attempts, n.Gates, n.Traces, n.Denial, n.Judged = 0, judged.Gates, judged.Traces, judged.Denial, judged.Judged
		side, err := e.negotiations.apply(n, false, input{event: state.Event{On: state.CommandRelease}, participant: p})
		side.Records = append(records, side.Records...)
		return side, err
	})
}

// overdue reports whether the deadlines of all gates have passed.
func overdue(holds []*gate.Hold, now time.Time) bool {
	return !slices.ContainsFunc(holds, func(h *gate.Hold) bool { return now.Before(*h.Deadline) })
}

// untilDeadline is how long it takes until the next deadline passes, at most d.
func untilDeadline(holds []*gate.Hold, now time.Time, d time.Duration) time.Duration {
	for _, h := range holds {
		if left := h.Deadline.Sub(now); left > 0 {
			d = min(d, left)
		}
	}
	return d
}

// judgeGates asks webhooks, evaluates open attestations, and, when nothing is open any more, the policy. It returns audit records; the error is
// temporary.
func (e *Engine) judgeGates(ctx context.Context, p *store.Participant, n *store.Negotiation) (records []audit.Entry, err error) {
	now := e.opt.Now().UTC()
	holds := gatesBefore(n)
	if slices.ContainsFunc(holds, func(h *gate.Hold) bool { return gate.Evaluate(h, now) == adminapi.GateLate }) {
		return nil, nil // that ends the negotiation, whatever the others would say
	}
	for _, h := range holds {
		if h.Gate.Type != adminapi.GateWebhook || gate.Evaluate(h, now) != adminapi.GateOpen {
			continue
		}
		signed, err := e.askWebhook(ctx, p, n, h)
		if err != nil {
			return nil, fmt.Errorf("gate %q: %w", h.Gate.Name, err)
		}
		h.Looked = &now
		if signed == "" {
			continue
		}
		record, err := e.takeDecision(p, n, signed)
		if err != nil {
			return nil, fmt.Errorf("gate %q: the answer of %s: %w", h.Gate.Name, h.Gate.URL, err)
		}
		records = append(records, record)
	}
	return records, e.judgeCredentials(ctx, p, n, holds, now)
}

// judgeCredentials is what judgeGates does about credentials.
func (e *Engine) judgeCredentials(ctx context.Context, p *store.Participant, n *store.Negotiation, holds []*gate.Hold, now time.Time) error {
	waits := slices.ContainsFunc(holds, func(h *gate.Hold) bool {
		return h.Gate.Type == adminapi.GateAttestation && gate.Evaluate(h, now) == adminapi.GateOpen
	})
	open := func(h *gate.Hold) bool { return gate.Evaluate(h, now) != adminapi.GatePassed }
	if !waits && slices.ContainsFunc(holds, open) {
		return nil
	}
	consumer, err := e.opt.Identity.Recheck(ctx, p.Local(), n.Counterparty, n.Presented)
	if err != nil {
		return err
	}
	for _, r := range consumer.Refused {
		if r.Code == identity.CodeStatusUnavailable || r.Code == identity.CodeUnreachable { // what was decided is not lost over a list that cannot be read for a moment
			return fmt.Errorf("%s of %s: %s", r.Type, n.Counterparty, r.Reason)
		}
	}
	evaluated := map[*gate.Hold]bool{}
	// First what is open; then, when nothing is open any more, what passed earlier: a credential may have gone since, while other gates still held.
	for _, of := range []adminapi.GateOutcome{adminapi.GateOpen, adminapi.GatePassed} {
		for _, h := range holds {
			if h.Gate.Type != adminapi.GateAttestation || evaluated[h] || gate.Evaluate(h, now) != of {
				continue
			}
			evaluated[h] = true
			trace, err := e.attest(ctx, p, h.Gate, &consumer)
			if err != nil {
				return err
			}
			h.Looked, h.Attested = &now, &gate.Attested{Satisfied: trace.Allowed}
			if trace.Allowed {
				n.Traces = append(n.Traces, trace)
			} else {
				said := odrl.Withhold(trace, p.DID) // approvers of any organization read it
				h.Attested.Reason, h.Attested.DE = odrl.Reason(said, ""), odrl.Reason(said, "de")
			}
		}
		if slices.ContainsFunc(holds, open) {
			return nil
		}
	}
	return e.judgeAgain(ctx, p, n, &consumer)
}

// attest evaluates the policy of an attestation gate on both parties, the own one too, whatever SelfCheck says of own obligations.
func (e *Engine) attest(ctx context.Context, p *store.Participant, g adminapi.Gate, consumer *identity.Agent) (adminapi.Trace, error) {
	policy, err := odrl.Parse(g.Policy)
	if err != nil {
		return adminapi.Trace{}, fmt.Errorf("policy of gate %q: %w", g.Name, err)
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return adminapi.Trace{}, err
	}
	self, err := e.opt.Identity.Self(ctx, p.Local(), ev.Scopes(policy, profile.SubjectProvider))
	if err != nil {
		return adminapi.Trace{}, fmt.Errorf("own credentials: %w", err)
	}
	return ev.Evaluate(ctx, odrl.Request{Policy: policy, Phase: profile.PhaseNegotiation, By: p.DID, Provider: &self, Consumer: consumer, Now: e.opt.Now()}), nil
}

// judgeAgain evaluates the offer on both parties as they are now, the profile's required credentials included.
func (e *Engine) judgeAgain(ctx context.Context, p *store.Participant, n *store.Negotiation, consumer *identity.Agent) error {
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	if err := e.judgeOffer(ctx, p, n, policy, consumer); err != nil {
		return err
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return err
	}
	if m := ev.Membership(*consumer); !m.Allowed {
		n.Denial = denied(odrl.Reason(m, ""))
	}
	n.Judged = true
	return nil
}

// maxDecision bounds what a webhook answers, in bytes.
const maxDecision = 16 << 10

// askWebhook asks the system of a webhook for its decision; empty when it has none yet.
func (e *Engine) askWebhook(ctx context.Context, p *store.Participant, n *store.Negotiation, h *gate.Hold) (string, error) {
	if err := e.callable(h.Gate.URL); err != nil {
		return "", err
	}
	about, err := Approval(p, n, h, e.opt.Now())
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(about)
	if err != nil {
		return "", err
	}
	token, err := e.opt.Identity.Token(ctx, p.Local(), h.Gate.Approvers[0].ID, nil)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, e.opt.RequestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.Gate.URL, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", token)
	req.Header.Set("Content-Type", "application/json")
	res, err := e.opt.HTTP.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusAccepted || res.StatusCode == http.StatusNoContent {
		return "", nil
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", h.Gate.URL, res.Status)
	}
	signed, err := readDecision(res.Body)
	if err != nil {
		return "", fmt.Errorf("the answer of %s is not understood: %w", h.Gate.URL, err)
	}
	return signed, nil
}

// readDecision reads what a webhook answers with 200.
func readDecision(body io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(body, maxDecision+1))
	if err != nil {
		return "", err
	}
	if len(raw) > maxDecision {
		return "", fmt.Errorf("it is larger than %d bytes", maxDecision)
	}
	var answer adminapi.SignedDecision
	if err := json.Unmarshal(raw, &answer); err != nil {
		return "", err
	}
	if answer.Decision == "" {
		return "", errors.New(`it holds no decision: answer {"decision": "<JWS>"}, or 202 as long as there is none`)
	}
	return answer.Decision, nil
}

// CheckWebhook refuses an address that no request with a token may go to.
func (e *Engine) CheckWebhook(address string) error { return e.callable(address) }

// Approval is what is shown of a gate to those who decide: neither credentials nor values read from them. With an error, it is what is known without
// the offer.
func Approval(p *store.Participant, n *store.Negotiation, h *gate.Hold, now time.Time) (adminapi.Approval, error) {
	out := adminapi.Approval{Provider: p.DID, Negotiation: n.ID, Counterparty: n.Counterparty, AssetID: n.AssetID, OfferID: n.OfferID, UseCase: n.UseCase,
		Verdicts: []adminapi.PolicyVerdict{}, Gate: gate.State(h, now)}
	terms, err := termsOf(n)
	if err != nil {
		return out, err
	}
	// Written anew: the offer as the consumer sent it can carry, and weigh, what nobody decides about.
	out.Policy, out.OfferHash = wire.Offer(n.OfferID, terms.Policy.Plain(), n.AssetID, p.DID), terms.Hash()
	offer := odrl.Hash(terms.Policy)
	i := len(n.Traces) - 1
	for i >= 0 && n.Traces[i].Policy != offer { // those of attestation gates stand there too
		i--
	}
	if i < 0 {
		return out, nil
	}
	for _, c := range n.Traces[i].Checks {
		v := adminapi.PolicyVerdict{Sentence: c.Sentence, Satisfied: c.Satisfied}
		if c.DE != nil {
			v.DE = c.DE.Sentence
		}
		out.Verdicts = append(out.Verdicts, v)
	}
	return out, nil
}

// Decide adds a person's signed decision to the gate that it is for, and goes on where that was the last one. A decision that does not count is a
// RefusalError with a code of connector/gate.
func (e *Engine) Decide(ctx context.Context, participant, id, signed string) (*store.Negotiation, error) {
	n, err := e.opt.Store.Negotiation(ctx, participant, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no negotiation %q", id)
	}
	if err != nil {
		return nil, err
	}
	p, err := e.lookupParticipant(ctx, participant, n.Profile)
	if err != nil {
		return nil, err
	}
	row, err := e.opt.Store.UpdateNegotiation(ctx, participant, id, "", func(n *store.Negotiation, _ bool) (store.Side, error) {
		record, err := e.takeDecision(p, n, signed)
		if err != nil {
			return store.Side{}, err
		}
		side, err := e.negotiations.apply(n, false, input{event: state.Event{On: state.CommandRelease}, participant: p})
		side.Records = append([]audit.Entry{record}, side.Records...)
		return side, err
	})
	if err != nil {
		return nil, err
	}
	e.changed(&row.Process)
	return row, nil
}

// takeDecision verifies a decision and keeps it in the row. It returns its audit record.
func (e *Engine) takeDecision(p *store.Participant, n *store.Negotiation, signed string) (audit.Entry, error) {
	hash, err := OfferHash(n)
	if err != nil {
		return audit.Entry{}, err
	}
	d, err := gate.Decide(n.Gates, gate.About{Provider: p.DID, Negotiation: n.ID, Offer: hash}, signed, e.opt.Now())
	var refused *gate.RefusedError
	if errors.As(err, &refused) {
		status := http.StatusConflict
		switch refused.Code {
		case gate.CodeMalformed:
			status = http.StatusUnprocessableEntity
		case gate.CodeForged, gate.CodeWrongApprover:
			status = http.StatusForbidden
		}
		return audit.Entry{}, refuse(status, refused.Code, "%s", refused.Message)
	}
	if err != nil {
		return audit.Entry{}, err
	}
	if !n.Held {
		return audit.Entry{}, refuse(http.StatusConflict, gate.CodeClosed, "the negotiation waits for no decision: it is %s", n.Step)
	}
	for i := range n.Gates { // somebody has done something: look at once whether what is missing is there now
		n.Gates[i].Looked = nil
	}
	return audit.Entry{Type: audit.Gate, Actor: "approver:" + d.By.ID, Body: gateRecord{Process: n.ID, Gate: d.Gate, Offer: hash, Decision: &d}}, nil
}

// gateRecord is the body of an audit record: a decision, or that a gate holds from now on.
type gateRecord struct {
	Process  string                 `json:"process"`
	Gate     string                 `json:"gate"`
	Offer    string                 `json:"offer,omitempty"` // hash
	Until    *time.Time             `json:"until,omitempty"`
	Decision *adminapi.GateDecision `json:"decision,omitempty"`
}

// OfferHash is what decisions about the offer under negotiation are bound to.
func OfferHash(n *store.Negotiation) (string, error) {
	terms, err := termsOf(n)
	if err != nil {
		return "", err
	}
	return terms.Hash(), nil
}

func termsOf(n *store.Negotiation) (gate.Terms, error) {
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		return gate.Terms{}, fmt.Errorf("offer of negotiation %s: %w", n.ID, err)
	}
	return gate.Terms{OfferID: n.OfferID, AssetID: n.AssetID, Consumer: n.Counterparty, Policy: policy}, nil
}
