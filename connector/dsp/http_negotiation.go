// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

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
	return e.negotiations.begin(ctx, p, &agent, state.Provider, m, state.ReceivedRequest, func() (*store.Negotiation, error) {
		var access bool
		if current != nil {
			if access, err = e.mayAccess(ctx, p, current.access, &agent); err != nil {
				return nil, err
			}
		}
		if !access {
			return nil, refuse(http.StatusNotFound, "not-found", "offer %q is not offered to you: read the catalog again", m.Policy.ID)
		}
		if err := sameAsOffered(current, m); err != nil {
			return nil, err
		}
		n := &store.Negotiation{OfferID: m.Policy.ID, Offer: m.Offer, Definition: current.definition.ID, UseCase: current.definition.UseCase, Revision: current.definition.Revision,
			Process: store.Process{Role: state.Provider, AssetID: current.asset.ID}}
		setGates(n, current.definition.Gates, &agent)
		return n, e.judgeOffer(ctx, p, n, m.Policy, &agent)
	})
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
	if n.Role != state.Provider || n.Denial != nil {
		return nil
	}
	message, err := e.outdated(ctx, p, n.UseCase, n.Revision)
	if message != "" { // terms of ours that are no longer what was signed off
		n.Denial = &adminapi.Reason{Code: CodeNotInForce, By: "own", Message: message}
	}
	return err
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
	return e.negotiations.begin(ctx, p, &agent, state.Consumer, m, state.ReceivedOffer, func() (*store.Negotiation, error) {
		n := &store.Negotiation{OfferID: m.Policy.ID, Offer: m.Offer, Process: store.Process{Role: state.Consumer, AssetID: m.Policy.Target}}
		return n, e.judgeOffer(ctx, p, n, m.Policy, &agent)
	})
}

// receive takes a message about a negotiation; the sender's credentials are needed for the policy that it brings, or accepts.
func (e *Engine) receive(ctx context.Context, p *store.Participant, r *http.Request, messageType string) (*received[store.Negotiation], error) {
	return e.negotiations.receive(ctx, p, r, messageType, func(n *store.Negotiation, m *wire.Message) ([]*odrl.Policy, error) {
		switch {
		case m.EventType == wire.EventAccepted:
			policy, err := odrl.Parse(n.Offer)
			if err != nil {
				return nil, err
			}
			access, err := e.accessOf(ctx, n)
			if errors.Is(err, store.ErrNotFound) { // and refused for that
				err = nil
			}
			return []*odrl.Policy{policy, access}, err
		case messageType == wire.ContractRequest:
			current, err := e.offer(ctx, p, m.Policy.ID)
			if errors.Is(err, store.ErrNotFound) {
				return []*odrl.Policy{m.Policy}, nil
			}
			if err != nil {
				return nil, err
			}
			return []*odrl.Policy{m.Policy, current.access}, nil
		}
		return []*odrl.Policy{m.Policy}, nil
	})
}

// counterRequest answers ContractRequestMessage with providerPid. An offer that is not ours, or not to this consumer, is taken all the same if its
// policy allows it, and marked as such: a person decides on it.
func (e *Engine) counterRequest(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	in, err := e.receive(ctx, p, r, wire.ContractRequest)
	if err != nil {
		return answer{}, err
	}
	if in.missing != nil {
		return answer{}, in.missing
	}
	judged, policy := *in.row, in.message.Policy
	if policy.Target != "" && policy.Target != judged.AssetID {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.offer.target: is %q, the negotiation is about %q", policy.Target, judged.AssetID)
	}
	current, err := e.offer(ctx, p, policy.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return answer{}, err
	}
	access := false
	if current != nil && current.asset.ID == judged.AssetID {
		if access, err = e.mayAccess(ctx, p, current.access, &in.agent); err != nil {
			return answer{}, err
		}
	}
	changed := ""
	if !access {
		changed = fmt.Sprintf("%q is not offered: read the catalog again", policy.ID)
	} else if refusal := (*RefusalError)(nil); errors.As(sameAsOffered(current, in.message), &refusal) {
		changed = refusal.Message
	} else {
		judged.Definition, judged.UseCase, judged.Revision = current.definition.ID, current.definition.UseCase, current.definition.Revision
		setGates(&judged, current.definition.Gates, &in.agent)
	}
	if err := e.judgeOffer(ctx, p, &judged, policy, &in.agent); err != nil {
		return answer{}, err
	}
	if changed != "" && judged.Denial == nil {
		judged.Denial = &adminapi.Reason{Code: codeOfferChanged, By: "own", Message: changed}
	}
	if changed != "" { // the gates of what was offered before hold these terms too
		gate.Renew(judged.Gates)
		present(&judged, &in.agent)
		judged.Revision = nil
	}
	return e.negotiations.take(ctx, p, in, state.ReceivedCounterRequest, input{}, func(n *store.Negotiation) error {
		n.Traces, n.Denial, n.Offer, n.OfferID = judged.Traces, judged.Denial, in.message.Offer, policy.ID
		n.Definition, n.UseCase, n.Revision, n.Gates, n.Presented = judged.Definition, judged.UseCase, judged.Revision, judged.Gates, judged.Presented
		return nil
	})
}

// counterOffer answers ContractOfferMessage with consumerPid.
func (e *Engine) counterOffer(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	in, err := e.receive(ctx, p, r, wire.ContractOffer)
	if err != nil {
		return answer{}, err
	}
	if asked := in.message.Policy.Target; asked != in.row.AssetID {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.offer.target: is %q, the negotiation is about %q", asked, in.row.AssetID)
	}
	judged := *in.row
	if err := e.judgeOffer(ctx, p, &judged, in.message.Policy, &in.agent); err != nil {
		return answer{}, err
	}
	deny(&judged, in.missing)
	return e.negotiations.take(ctx, p, in, state.ReceivedOffer, input{}, func(n *store.Negotiation) error {
		n.Traces, n.Denial, n.Offer, n.OfferID = judged.Traces, judged.Denial, in.message.Offer, in.message.Policy.ID
		if !sameOffer(n) {
			n.Revision = nil // whose terms these are not
		}
		return nil
	})
}

// deny adds a missing membership of the sender to the verdict.
func deny(judged *store.Negotiation, missing *RefusalError) {
	if missing != nil {
		judged.Denial = denied(missing.Message)
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
	deny(&judged, in.missing)
	if message := e.agreementDiffers(p, in.row, policy); message != "" {
		judged.Denial = &adminapi.Reason{Code: "agreement-differs", By: "own", Message: message}
	}
	at, err := time.Parse(time.RFC3339, in.message.Timestamp)
	if err != nil {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.agreement.timestamp: %s", err)
	}
	a := &store.Agreement{ID: policy.ID, Role: in.row.Role, Provider: in.agent.ID, Consumer: p.DID, AssetID: in.row.AssetID,
		Agreement: in.message.Agreement, SignedAt: at.UTC(), UseCase: in.row.UseCase, Revision: in.row.Revision}
	// Eclipse EDC may forget an agreement that it sent, and then sends another under the id of the same message: the last one counts.
	in.id += " " + a.ID
	return e.negotiations.take(ctx, p, in, state.ReceivedAgreement, input{agreement: a}, func(n *store.Negotiation) error {
		if string(n.Offer) != string(in.row.Offer) {
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
			// If the consumer took a finalization whose answer is still to come, then the negotiation is final and the termination is refused.
			finalizing := func(n *store.Process) bool { return n.Step == state.Finalizing && n.LeaseOwner != "" }
			if in.row, err = e.negotiations.letAnswerArrive(ctx, in.row, finalizing); err != nil {
				return answer{}, err
			}
			// Whoever the counterparty is by now, it may end what it is part of.
			on, what.reason = state.ReceivedTermination, counterpartyReason(in.message)
		case in.missing != nil:
			return answer{}, in.missing
		case in.message.EventType == wire.EventAccepted:
			return e.accepted(ctx, p, in)
		case in.message.EventType == wire.EventFinalized:
			on = state.ReceivedFinalized
		}
		return e.negotiations.take(ctx, p, in, on, what, nil)
	}
}

// accessOf is the access policy of a provider's negotiation; nil when everybody may have what it is about. ErrNotFound when its offer is withdrawn:
// whom it was for is not known any more.
func (e *Engine) accessOf(ctx context.Context, n *store.Negotiation) (*odrl.Policy, error) {
	if n.Definition == "" {
		return nil, nil
	}
	d, err := e.opt.Store.Definition(ctx, n.Ctx, n.Definition)
	if err != nil {
		return nil, err
	}
	_, access, err := parseDefinition(d)
	return access, err
}

// accepted takes the consumer's acceptance of an offer, which is evaluated as a request would be. What the provider offered unasked may be accepted
// only by whom it would be shown to.
func (e *Engine) accepted(ctx context.Context, p *store.Participant, in *received[store.Negotiation]) (answer, error) {
	judged := *in.row
	policy, err := odrl.Parse(in.row.Offer)
	if err != nil {
		return answer{}, err
	}
	if in.row.Role == state.Provider {
		present(&judged, &in.agent)
		if err := e.judgeOffer(ctx, p, &judged, policy, &in.agent); err != nil {
			return answer{}, err
		}
		refusal := ""
		switch access, err := e.accessOf(ctx, in.row); {
		case errors.Is(err, store.ErrNotFound):
			refusal = "the offer has been withdrawn: read the catalog for what is offered to you"
		case err != nil:
			return answer{}, err
		default:
			ok, err := e.mayAccess(ctx, p, access, &in.agent)
			if err != nil {
				return answer{}, err
			}
			if !ok {
				refusal = "the access policy of the offer does not let you have it: read the catalog for what is offered to you"
			}
		}
		if refusal != "" && judged.Denial == nil {
			judged.Denial = denied(refusal)
		}
	}
	return e.negotiations.take(ctx, p, in, state.ReceivedAccepted, input{}, func(n *store.Negotiation) error {
		if string(n.Offer) != string(in.row.Offer) {
			return refuse(http.StatusConflict, "illegal-state", "the offer has changed meanwhile; send the acceptance again")
		}
		n.Traces, n.Denial, n.Presented = judged.Traces, judged.Denial, judged.Presented
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
