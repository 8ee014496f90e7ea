// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

func negotiationBody(n *store.Negotiation) *wire.Message {
	return processBody(wire.ContractNegotiation, &n.Process)
}

func processBody(messageType string, p *store.Process) *wire.Message {
	m := wire.New(messageType, p.ID)
	m.ProviderPID, m.ConsumerPID, m.State = p.CounterpartyPID, p.ID, p.State
	if p.Role == state.Provider {
		m.ProviderPID, m.ConsumerPID = p.ID, p.CounterpartyPID
	}
	return m
}

// contractRequest answers an initial ContractRequestMessage (provider).
func (e *Engine) contractRequest(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	m, err := e.readMessage(r, wire.ContractRequest)
	if err != nil {
		return answer{}, err
	}
	if m.ProviderPID != "" {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.providerPid: a first request has callbackAddress instead")
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return answer{}, err
	}
	current, lookupErr := e.offer(ctx, p, m.Policy.ID)
	if lookupErr != nil && !errors.Is(lookupErr, store.ErrNotFound) {
		return answer{}, lookupErr
	}
	scopes := ev.Scopes(m.Policy, profile.SubjectConsumer)
	if current != nil {
		scopes = union(scopes, ev.Scopes(current.access, profile.SubjectConsumer))
	}
	agent, missing, err := e.verify(ctx, p, r, ev, scopes)
	if err != nil {
		return answer{}, err
	}
	if missing != nil {
		return answer{}, missing
	}
	if n, err := e.opt.Store.FindNegotiation(ctx, p.Ctx, state.Provider, agent.ID, m.ConsumerPID); err == nil {
		return repeatedFirst(n, m)
	} else if !errors.Is(err, store.ErrNotFound) {
		return answer{}, err
	}
	var access bool
	if current != nil {
		if access, err = e.mayAccess(ctx, p, current.access, &agent); err != nil {
			return answer{}, err
		}
	}
	if !access {
		return answer{}, refuse(http.StatusNotFound, "not-found", "offer %q is not offered to you: read the catalog again", m.Policy.ID)
	}
	if err := sameAsOffered(current, m); err != nil {
		return answer{}, err
	}
	n := &store.Negotiation{OfferID: m.Policy.ID, Offer: m.Offer, Definition: current.definition.ID, UseCase: current.definition.UseCase,
		Process: store.Process{Ctx: p.Ctx, ID: e.opt.NewID(), Role: state.Provider, Counterparty: agent.ID, CounterpartyPID: m.ConsumerPID,
			Address: m.CallbackAddress, AssetID: current.asset.ID}}
	if err := e.judgeOffer(ctx, p, n, m.Policy, &agent); err != nil {
		return answer{}, err
	}
	return e.createNegotiation(ctx, p, n, m, state.ReceivedRequest)
}

// sameAsOffered refuses an offer that differs from the current one: what is requested must be what is offered, exactly.
func sameAsOffered(current *offered, m *wire.Message) error {
	if m.Policy.Target != "" && m.Policy.Target != current.asset.ID {
		return refuse(http.StatusBadRequest, "invalid", "$.offer.target: is %q, the offer is for %q", m.Policy.Target, current.asset.ID)
	}
	if current.id != m.Policy.ID || odrl.Hash(current.policy) != odrl.Hash(m.Policy) {
		return refuse(http.StatusBadRequest, "offer-changed", "$.offer: the policy is not the one that is offered now: read the catalog again and send the offer as it stands there")
	}
	return nil
}

// judgeOffer evaluates the offer under negotiation on both parties and keeps trace and verdict in the row.
func (e *Engine) judgeOffer(ctx context.Context, p *store.Participant, n *store.Negotiation, policy *odrl.Policy, peer *identity.Agent) error {
	j, err := e.judge(ctx, evaluation{participant: p, role: n.Role, policy: policy, phase: profile.PhaseNegotiation, peer: peer})
	if err != nil {
		return err
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return err
	}
	if m := ev.Membership(*peer); len(m.Checks) > 0 { // whom the profile lets in at all belongs to the record
		m.By, m.Phase = p.DID, profile.PhaseNegotiation
		n.Traces = append(n.Traces, m)
	}
	n.Traces, n.Denial = append(n.Traces, j.trace), j.denial
	return nil
}

// createNegotiation stores a negotiation that a counterparty began. A repeat of the same request finds the one it made.
func (e *Engine) createNegotiation(ctx context.Context, p *store.Participant, n *store.Negotiation, m *wire.Message, on state.Trigger) (answer, error) {
	side, err := e.applyNegotiation(n, false, input{event: state.Event{On: on, MessageID: m.ID}, participant: p})
	if err != nil {
		return answer{}, err
	}
	stored, made, err := e.opt.Store.InsertNegotiation(ctx, n, side)
	if err != nil {
		return answer{}, err
	}
	if !made {
		return repeatedFirst(stored, m)
	}
	e.changed(&stored.Process)
	return answer{status: http.StatusCreated, body: negotiationBody(stored)}, nil
}

// repeatedFirst answers a first message whose process is there already as the first time, whatever has changed since.
func repeatedFirst(n *store.Negotiation, m *wire.Message) (answer, error) {
	if n.OfferID != m.Policy.ID {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "process id %q belongs to a negotiation about another offer", n.CounterpartyPID)
	}
	return answer{status: http.StatusCreated, body: negotiationBody(n)}, nil
}

// readMessage reads a message; addresses in it must be ones that tokens may be sent to.
func (e *Engine) readMessage(r *http.Request, types ...string) (*wire.Message, error) {
	if r.Header.Get("Authorization") == "" {
		return nil, refuse(http.StatusUnauthorized, "unauthenticated", "the Authorization header is missing")
	}
	m, err := read(r, types...)
	if err != nil {
		return nil, err
	}
	if m.CallbackAddress != "" {
		if err := e.callable(m.CallbackAddress); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "$.callbackAddress: %s", err)
		}
	}
	if m.DataAddress != nil {
		if err := e.confidential(plainAddress(m.DataAddress).Endpoint); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "$.dataAddress.endpoint: %s", err)
		}
	}
	return m, nil
}

// contractOffer answers an initial ContractOfferMessage (consumer).
func (e *Engine) contractOffer(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	m, err := e.readMessage(r, wire.ContractOffer)
	if err != nil {
		return answer{}, err
	}
	if m.ConsumerPID != "" {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.consumerPid: a first offer has callbackAddress instead")
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return answer{}, err
	}
	agent, missing, err := e.verify(ctx, p, r, ev, ev.Scopes(m.Policy, profile.SubjectProvider))
	if err != nil {
		return answer{}, err
	}
	if missing != nil {
		return answer{}, missing
	}
	if n, err := e.opt.Store.FindNegotiation(ctx, p.Ctx, state.Consumer, agent.ID, m.ProviderPID); err == nil {
		return repeatedFirst(n, m)
	} else if !errors.Is(err, store.ErrNotFound) {
		return answer{}, err
	}
	n := &store.Negotiation{OfferID: m.Policy.ID, Offer: m.Offer,
		Process: store.Process{Ctx: p.Ctx, ID: e.opt.NewID(), Role: state.Consumer, Counterparty: agent.ID, CounterpartyPID: m.ProviderPID,
			Address: m.CallbackAddress, AssetID: m.Policy.Target}}
	if err := e.judgeOffer(ctx, p, n, m.Policy, &agent); err != nil {
		return answer{}, err
	}
	return e.createNegotiation(ctx, p, n, m, state.ReceivedOffer)
}

// received is a message about a negotiation that exists.
type received struct {
	row   *store.Negotiation
	agent identity.Agent
	// missing is set when the sender lacks a credential that the profile requires.
	missing *RefusalError
	message *wire.Message
	id      string // of the message
}

// receive reads a message to a process, and proves that the counterparty of that process sent it. Whoever is not gets 404.
func (e *Engine) receive(ctx context.Context, p *store.Participant, r *http.Request, types ...string) (*received, error) {
	m, err := e.readMessage(r, types...)
	if err != nil {
		return nil, err
	}
	pid := r.PathValue("pid")
	n, err := e.opt.Store.Negotiation(ctx, p.Ctx, pid)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	ev, evErr := e.Evaluator(p)
	if evErr != nil {
		return nil, evErr
	}
	scopes := ev.Scopes(nil, profile.SubjectConsumer)
	if n != nil && m.Policy != nil {
		scopes = ev.Scopes(m.Policy, subjectOf(n.Role.Other()))
	} else if n != nil && n.Role == state.Provider && m.EventType == wire.EventAccepted {
		if policy, err := odrl.Parse(n.Offer); err == nil {
			scopes = ev.Scopes(policy, profile.SubjectConsumer)
		}
	}
	agent, missing, err := e.verify(ctx, p, r, ev, scopes)
	if err != nil {
		return nil, err
	}
	if n == nil || n.Counterparty != agent.ID {
		return nil, errUnknown
	}
	if err := checkPIDs(&n.Process, m); err != nil {
		return nil, err
	}
	return &received{row: n, agent: agent, missing: missing, message: m, id: messageID(m, &n.Process)}, nil
}

// checkPIDs: the id in the path must be one of the two in the message (as EDC checks; a check by role fails with the signaling test kit).
func checkPIDs(row *store.Process, m *wire.Message) error {
	if m.ProviderPID != row.ID && m.ConsumerPID != row.ID {
		return refuse(http.StatusBadRequest, "invalid", "neither providerPid %q nor consumerPid %q is the process %q of the address", m.ProviderPID, m.ConsumerPID, row.ID)
	}
	return nil
}

// messageID is what a repeat is recognised by: @id, or else the content as long as nothing else happened in between.
func messageID(m *wire.Message, row *store.Process) string {
	if m.ID != "" {
		return m.ID
	}
	raw, _ := json.Marshal(m) //nolint:errchkjson // a parsed message always marshals
	sum := sha256.Sum256(append(raw, strconv.FormatInt(row.Version, 10)...))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// takeNegotiation applies a received message in one transaction. prepare may change the row before; it is not called for a repeat.
func (e *Engine) takeNegotiation(ctx context.Context, p *store.Participant, in *received, on state.Trigger, what input, prepare func(*store.Negotiation) error) (answer, error) {
	what.event, what.participant = state.Event{On: on, MessageID: in.id}, p
	if err := e.letAnswerArrive(ctx, in.row, on); err != nil {
		return answer{}, err
	}
	n, err := e.opt.Store.UpdateNegotiation(ctx, p.Ctx, in.row.ID, in.id, func(n *store.Negotiation, seen bool) (store.Side, error) {
		if !seen {
			if n.Role == state.Provider {
				learn(&n.Process, in.message.ConsumerPID)
			} else {
				learn(&n.Process, in.message.ProviderPID)
			}
			if prepare != nil {
				if err := prepare(n); err != nil {
					return store.Side{}, err
				}
			}
		}
		return e.applyNegotiation(n, seen, what)
	})
	var ie *state.IllegalError
	if errors.As(err, &ie) {
		return answer{}, illegal(err)
	}
	if err != nil {
		return answer{}, err
	}
	e.changed(&n.Process)
	return answer{status: http.StatusOK, body: negotiationBody(n)}, nil
}

// letAnswerArrive holds a termination that meets a finalization whose answer is still to come: if the consumer took it, then the
// negotiation is final and the termination is refused; if not, the termination counts.
func (e *Engine) letAnswerArrive(ctx context.Context, n *store.Negotiation, on state.Trigger) error {
	if on != state.ReceivedTermination {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for n.Step == state.Finalizing && n.LeaseOwner != "" {
		changed := e.Watch(n.Ctx, n.ID)
		row, err := e.opt.Store.Negotiation(ctx, n.Ctx, n.ID)
		if err != nil {
			return err
		}
		if n = row; n.Step != state.Finalizing || n.LeaseOwner == "" {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return refuse(http.StatusServiceUnavailable, "busy", "the finalization is under way; send the termination again")
		}
	}
	return nil
}

// counterRequest answers ContractRequestMessage with providerPid. An offer that is not ours is taken all the same, and denied.
func (e *Engine) counterRequest(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	in, err := e.receive(ctx, p, r, wire.ContractRequest)
	if err != nil {
		return answer{}, err
	}
	if in.missing != nil {
		return answer{}, in.missing
	}
	judged := *in.row
	current, err := e.offer(ctx, p, in.message.Policy.ID)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return answer{}, err
	case err != nil:
		judged.Denial = &adminapi.Reason{Code: "offer-changed", By: "own", Message: fmt.Sprintf("%q is not offered: read the catalog again", in.message.Policy.ID)}
	default:
		if err := e.judgeOffer(ctx, p, &judged, in.message.Policy, &in.agent); err != nil {
			return answer{}, err
		}
		var refusal *RefusalError
		if errors.As(sameAsOffered(current, in.message), &refusal) {
			judged.Denial = &adminapi.Reason{Code: "offer-changed", By: "own", Message: refusal.Message}
		}
	}
	return e.takeNegotiation(ctx, p, in, state.ReceivedCounterRequest, input{}, func(n *store.Negotiation) error {
		n.Traces, n.Denial, n.Offer, n.OfferID = judged.Traces, judged.Denial, in.message.Offer, in.message.Policy.ID
		return nil
	})
}

// counterOffer answers ContractOfferMessage with consumerPid.
func (e *Engine) counterOffer(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	in, err := e.receive(ctx, p, r, wire.ContractOffer)
	if err != nil {
		return answer{}, err
	}
	judged := *in.row
	if err := e.judgeOffer(ctx, p, &judged, in.message.Policy, &in.agent); err != nil {
		return answer{}, err
	}
	in.deny(&judged)
	return e.takeNegotiation(ctx, p, in, state.ReceivedOffer, input{}, func(n *store.Negotiation) error {
		n.Traces, n.Denial, n.Offer, n.OfferID = judged.Traces, judged.Denial, in.message.Offer, in.message.Policy.ID
		return nil
	})
}

// deny adds a missing membership of the sender to the verdict.
func (in *received) deny(judged *store.Negotiation) {
	if in.missing != nil {
		judged.Denial = denied(in.missing.Message)
	}
}

// agreement answers ContractAgreementMessage (consumer): the agreement is compared with what was requested, and its policy evaluated on the
// provider's presentation and the own credentials, before it is verified.
func (e *Engine) agreement(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	in, err := e.receive(ctx, p, r, wire.ContractAgreement)
	if err != nil {
		return answer{}, err
	}
	judged, policy := *in.row, in.message.Policy
	if err := e.judgeOffer(ctx, p, &judged, policy, &in.agent); err != nil {
		return answer{}, err
	}
	in.deny(&judged)
	if message := e.agreementDiffers(p, in.row, policy); message != "" {
		judged.Denial = &adminapi.Reason{Code: "agreement-differs", By: "own", Message: message}
	}
	at, err := time.Parse(time.RFC3339, in.message.Timestamp)
	if err != nil {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.agreement.timestamp: %s", err)
	}
	a := &store.Agreement{ID: policy.ID, Role: in.row.Role, Provider: in.agent.ID, Consumer: p.DID, AssetID: in.row.AssetID,
		Agreement: in.message.Agreement, SignedAt: at.UTC()}
	// Eclipse EDC may forget an agreement that it sent, and then sends another under the id of the same message: the last one counts.
	in.id += " " + a.ID
	return e.takeNegotiation(ctx, p, in, state.ReceivedAgreement, input{agreement: a}, func(n *store.Negotiation) error {
		if n.OfferID != in.row.OfferID {
			return refuse(http.StatusConflict, "illegal-state", "the offer has changed meanwhile; send the agreement again")
		}
		if n.Step == state.Verifying && judged.Denial != nil {
			return refuse(http.StatusBadRequest, judged.Denial.Code, "the agreement is being verified and can't be replaced by this one: %s", judged.Denial.Message)
		}
		n.Traces, n.Denial = judged.Traces, judged.Denial
		return nil
	})
}

// agreementDiffers says in words how an agreement is not what was asked for.
func (e *Engine) agreementDiffers(p *store.Participant, n *store.Negotiation, policy *odrl.Policy) string {
	requested, err := odrl.Parse(n.Offer)
	switch {
	case err != nil:
		return fmt.Sprintf("the offer that was requested can't be read any more: %s", err)
	case odrl.Hash(requested) != odrl.Hash(policy):
		return "the policy of the agreement is not the one of the offer that was requested"
	case policy.Target != n.AssetID:
		return fmt.Sprintf("the agreement is about %q, requested was %q", policy.Target, n.AssetID)
	case policy.Assigner != n.Counterparty:
		return fmt.Sprintf("the agreement names %q as provider, it is %q", policy.Assigner, n.Counterparty)
	case policy.Assignee != p.DID:
		return fmt.Sprintf("the agreement names %q as consumer, it is %q", policy.Assignee, p.DID)
	}
	return ""
}

// negotiationMessageOf answers the messages that carry nothing but the two process ids, an event or a reason.
func (e *Engine) negotiationMessageOf(messageType string) protocolHandler {
	return func(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
		in, err := e.receive(ctx, p, r, messageType)
		if err != nil {
			return answer{}, err
		}
		on, what := state.ReceivedVerification, input{}
		switch {
		case messageType == wire.NegotiationTermination:
			// Whoever the counterparty is by now, it may end what it is part of.
			on, what.reason = state.ReceivedTermination, counterpartyReason(in.message)
		case in.missing != nil:
			return answer{}, in.missing
		case in.message.EventType == wire.EventAccepted:
			return e.accepted(ctx, p, in)
		case in.message.EventType == wire.EventFinalized:
			on = state.ReceivedFinalized
		}
		return e.takeNegotiation(ctx, p, in, on, what, nil)
	}
}

// accepted takes the consumer's acceptance of an offer, which is evaluated as a request would be.
func (e *Engine) accepted(ctx context.Context, p *store.Participant, in *received) (answer, error) {
	judged := *in.row
	policy, err := odrl.Parse(in.row.Offer)
	if err != nil {
		return answer{}, err
	}
	if in.row.Role == state.Provider {
		if err := e.judgeOffer(ctx, p, &judged, policy, &in.agent); err != nil {
			return answer{}, err
		}
	}
	return e.takeNegotiation(ctx, p, in, state.ReceivedAccepted, input{}, func(n *store.Negotiation) error {
		if n.OfferID != in.row.OfferID {
			return refuse(http.StatusConflict, "illegal-state", "the offer has changed meanwhile; send the acceptance again")
		}
		n.Traces, n.Denial = judged.Traces, judged.Denial
		return nil
	})
}

func counterpartyReason(m *wire.Message) *adminapi.Reason {
	out := &adminapi.Reason{Code: "counterparty-terminated", Message: strings.Join(m.Reason, "; "), By: "counterparty"}
	if m.Code == "policy-denied" {
		out.Code = m.Code
	}
	if out.Message == "" {
		out.Message = "the counterparty ended it without a reason"
	}
	return out
}

func (e *Engine) getNegotiation(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	agent, err := e.reader(ctx, p, r)
	if err != nil {
		return answer{}, err
	}
	n, err := e.opt.Store.Negotiation(ctx, p.Ctx, r.PathValue("pid"))
	if errors.Is(err, store.ErrNotFound) || (err == nil && n.Counterparty != agent.ID) {
		return answer{}, errUnknown
	}
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: negotiationBody(n)}, nil
}

// reader proves who reads a process.
func (e *Engine) reader(ctx context.Context, p *store.Participant, r *http.Request) (identity.Agent, error) {
	ev, err := e.Evaluator(p)
	if err != nil {
		return identity.Agent{}, err
	}
	return e.authenticate(ctx, p, r, ev.Scopes(nil, profile.SubjectConsumer))
}
