// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// outgoing is a message with where it goes and what it leads to.
type outgoing struct {
	message *wire.Message
	url     string
	process string // "negotiations" or "transfers"
	leadsTo string // the counterparty's state once it took the message
	first   bool   // the counterparty's process id is not known yet
	scopes  []string
}

func (e *Engine) newMessage(messageType string, p *store.Process) *wire.Message {
	m := wire.New(messageType, p.MessageID)
	m.ConsumerPID, m.ProviderPID = p.ID, p.CounterpartyPID
	if p.Role == state.Provider {
		m.ConsumerPID, m.ProviderPID = p.CounterpartyPID, p.ID
	}
	if p.Reason != nil && p.Step == state.Terminating {
		m.Code, m.Reason = p.Reason.Code, []string{p.Reason.Message}
	}
	return m
}

// negotiationMessage builds the message that a negotiation has under way.
func (e *Engine) negotiationMessage(ctx context.Context, p *store.Participant, n *store.Negotiation) (*outgoing, error) {
	ev, err := e.Evaluator(p)
	if err != nil {
		return nil, err
	}
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		return nil, fmt.Errorf("offer: %w", err)
	}
	first := n.CounterpartyPID == ""
	out := &outgoing{process: "negotiations", first: first, scopes: ev.Scopes(policy, subjectOf(n.Role))}
	m := e.newMessage(state.Negotiation.Sends(machineState(&n.Process, false, "")), &n.Process)
	out.message = m
	path := func(parts ...string) string {
		return join(n.Address, append([]string{"negotiations", pathID(n.CounterpartyPID)}, parts...)...)
	}
	switch n.Step {
	case state.Requesting:
		m.Offer, out.leadsTo, out.url = n.Offer, state.Requested, path("request")
		if first {
			m.CallbackAddress, out.url = e.Base(p), join(n.Address, "negotiations", "request")
		} else {
			// Exactly one of providerPid and callbackAddress (DSP 2025-1 §5.4).
			m.CallbackAddress = ""
		}
	case state.Offering:
		m.Offer, out.leadsTo, out.url = n.Offer, state.Offered, path("offers")
		if first {
			m.CallbackAddress, out.url = e.Base(p), join(n.Address, "negotiations", "offers")
		}
	case state.Accepting:
		m.EventType, out.leadsTo, out.url = wire.EventAccepted, state.Accepted, path("events")
	case state.Agreeing:
		a, err := e.opt.Store.AgreementOf(ctx, n.Ctx, n.ID)
		if err != nil {
			return nil, fmt.Errorf("agreement: %w", err)
		}
		m.Agreement, out.leadsTo, out.url = a.Agreement, state.Agreed, path("agreement")
	case state.Verifying:
		out.leadsTo, out.url = state.Verified, path("agreement", "verification")
	case state.Finalizing:
		m.EventType, out.leadsTo, out.url = wire.EventFinalized, state.Finalized, path("events")
	case state.Terminating:
		out.leadsTo, out.url = state.Terminated, path("termination")
	default:
		return nil, fmt.Errorf("no message is under way at step %s", n.Step)
	}
	return out, nil
}

// transferMessage builds the message that a transfer has under way.
func (e *Engine) transferMessage(ctx context.Context, p *store.Participant, t *store.Transfer) (*outgoing, error) {
	ev, err := e.Evaluator(p)
	if err != nil {
		return nil, err
	}
	a, policy, err := e.agreementPolicy(ctx, t.Ctx, t.AgreementID)
	if err != nil {
		return nil, err
	}
	out := &outgoing{process: "transfers", first: t.CounterpartyPID == "", scopes: ev.Scopes(policy, subjectOf(t.Role))}
	m := e.newMessage(state.Transfer.Sends(machineState(&t.Process, false, "")), &t.Process)
	out.message = m
	path := func(verb string) string { return join(t.Address, "transfers", pathID(t.CounterpartyPID), verb) }
	switch t.Step {
	case state.Requesting:
		m.AgreementID, m.Format, m.CallbackAddress = a.ID, t.Format, e.Base(p)
		out.leadsTo, out.url = state.Requested, join(t.Address, "transfers", "request")
	case state.Starting, state.Resuming, state.Resumed:
		out.leadsTo, out.url = state.Started, path("start")
		if t.Role == state.Provider {
			address, err := e.startFlow(ctx, p, t, a, policy)
			if err != nil {
				return nil, err
			}
			m.DataAddress = wireAddress(address)
		}
	case state.Suspending:
		out.leadsTo, out.url = state.Suspended, path("suspension")
		if t.Suspension != nil {
			m.Code, m.Reason = t.Suspension.Code, []string{t.Suspension.Message}
		}
	case state.Completing:
		out.leadsTo, out.url = state.Completed, path("completion")
	case state.Terminating:
		out.leadsTo, out.url = state.Terminated, path("termination")
	default:
		return nil, fmt.Errorf("no message is under way at step %s", t.Step)
	}
	return out, nil
}

// agreementPolicy reads an agreement and its policy.
func (e *Engine) agreementPolicy(ctx context.Context, participant, id string) (*store.Agreement, *odrl.Policy, error) {
	a, err := e.opt.Store.Agreement(ctx, participant, id)
	if err != nil {
		return nil, nil, fmt.Errorf("agreement %s: %w", id, err)
	}
	policy, err := odrl.Parse(a.Agreement)
	if err != nil {
		return nil, nil, fmt.Errorf("agreement %s: %w", id, err)
	}
	return a, policy, nil
}

// startFlow returns the address of a provider's flow, started once: a repeat of the start message carries the same token.
func (e *Engine) startFlow(ctx context.Context, p *store.Participant, t *store.Transfer, a *store.Agreement, policy *odrl.Policy) (*dps.DataAddress, error) {
	address, err := e.opt.Store.DataAddress(ctx, t.Ctx, t.ID)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return address, err
	}
	asset, err := e.opt.Store.Asset(ctx, t.Ctx, t.AssetID)
	if err != nil {
		return nil, fmt.Errorf("asset %s: %w", t.AssetID, err)
	}
	flow := dps.Flow{FlowID: t.ID, Context: t.Ctx, Participant: p.DID, Counterparty: t.Counterparty,
		AgreementID: a.ID, AssetID: t.AssetID, Format: t.Format, Source: asset.DataAddress, Purposes: purposesOf(t)}
	if flow.Demands, err = e.demands(p, policy); err != nil {
		return nil, err
	}
	started, err := e.opt.DataPlane.Start(ctx, flow)
	if err != nil {
		return nil, err
	}
	if _, err := e.opt.Store.UpdateTransfer(ctx, t.Ctx, t.ID, "", func(row *store.Transfer, _ bool) (store.Side, error) {
		if row.MessageID != t.MessageID {
			return store.Side{}, errStale
		}
		return store.Side{Address: &started}, nil
	}); err != nil {
		return nil, err
	}
	return &started, nil
}

var errStale = errors.New("the process has moved on")

const edcNamespace = "https://w3id.org/edc/v0.0.1/ns/"

// wireAddress writes a data address so that both readers understand it: the standard's members, and EDC's property names.
func wireAddress(a *dps.DataAddress) *dps.WireAddress {
	out := dps.WireAddress{EndpointType: a.EndpointType, Endpoint: a.Endpoint, Properties: map[string]string{
		edcNamespace + "endpoint": a.Endpoint, edcNamespace + "endpointType": a.EndpointType,
	}}
	for k, v := range a.Properties {
		out.Properties[k] = v
		if k == "authorization" || k == "authType" {
			out.Properties[edcNamespace+k] = v
		}
	}
	return &out
}

// plainAddress reads both forms: EDC's property names become the plain ones. Where the standard's endpoint member is absent, the endpoint
// stays among the properties too, which marks EDC's form.
func plainAddress(w *dps.WireAddress) *dps.DataAddress {
	out := &dps.DataAddress{EndpointType: w.EndpointType, Endpoint: w.Endpoint, Properties: map[string]string{}}
	for k, v := range w.Properties {
		if len(k) > len(edcNamespace) && k[:len(edcNamespace)] == edcNamespace {
			k = k[len(edcNamespace):]
			if _, standard := w.Properties[k]; standard {
				continue
			}
		}
		out.Properties[k] = v
	}
	if out.Endpoint == "" {
		out.Endpoint = out.Properties["endpoint"]
	} else {
		delete(out.Properties, "endpoint")
	}
	return out
}

// outcome is what became of one attempt to send.
type outcome struct {
	acknowledged bool
	peerPID      string           // learned from the answer to a first message
	final        *adminapi.Reason // not acknowledged: give up, with this reason; nil: try again
	err          error
}

// deliver sends one message once and judges the answer.
func (e *Engine) deliver(ctx context.Context, p *store.Participant, row *store.Process, out *outgoing) outcome {
	authorization, err := e.authorization(ctx, p, row.Counterparty, out.scopes)
	if err != nil {
		return outcome{err: err}
	}
	answer, _, err := e.exchange(ctx, http.MethodPost, out.url, authorization, out.message, maxAnswer)
	e.metrics.sent(out.message.Type, err)
	var refused *refusedError
	switch {
	case err == nil && !out.first:
		return outcome{acknowledged: true}
	case err == nil:
		m, err := wire.Parse(answer, wire.ContractNegotiation, wire.TransferProcess)
		if err != nil {
			return outcome{err: err, final: &adminapi.Reason{Code: "counterparty-refused", By: "counterparty",
				Message: fmt.Sprintf("the counterparty's answer to the %s is not understood: %s", out.message.Type, err)}}
		}
		pid := m.ProviderPID
		if row.Role == state.Provider {
			pid = m.ConsumerPID
		}
		return outcome{acknowledged: true, peerPID: pid}
	case !errors.As(err, &refused):
		return outcome{err: err}
	}
	return e.refusedOutcome(ctx, p, row, out, refused)
}

// settleAttempts is how often a refusal is tried again that a counterparty may take back by itself: one that has not stored its own
// state yet (404, 409), is at another place in a moment (404 without an error of the protocol, from what stands before connectors), or could not verify
// an identity for the moment (401, 403).
const settleAttempts = 8

func (e *Engine) refusedOutcome(ctx context.Context, p *store.Participant, row *store.Process, out *outgoing, refused *refusedError) outcome {
	passing := refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden || refused.status == http.StatusConflict ||
		(refused.status == http.StatusNotFound && (!out.first || refused.code == "" && len(refused.reasons) == 0))
	if row.Step == state.Terminating && (refused.status == http.StatusNotFound || refused.status == http.StatusConflict) {
		passing = row.Attempts < 2 // it ended by itself, or never began
	}
	if refused.code == "policy-denied" {
		passing = false
	}
	if passing && row.Attempts+1 < settleAttempts {
		return outcome{err: refused}
	}
	if !out.first && e.peerState(ctx, p, row, out) == out.leadsTo {
		return outcome{acknowledged: true} // it has taken the message before
	}
	reason := &adminapi.Reason{Code: "counterparty-refused", By: "counterparty", Message: fmt.Sprintf("%s refused the %s: %s", row.Counterparty, out.message.Type, refused)}
	if refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden {
		reason.Code = "identity-refused"
	}
	if refused.code == "policy-denied" {
		reason.Code = refused.code
	}
	return outcome{err: refused, final: reason}
}

// peerState reads the state that the counterparty shows; empty when it does not say.
func (e *Engine) peerState(ctx context.Context, p *store.Participant, row *store.Process, out *outgoing) string {
	authorization, err := e.authorization(ctx, p, row.Counterparty, out.scopes) // a token is good for one use
	if err != nil {
		return ""
	}
	answer, _, err := e.exchange(ctx, http.MethodGet, join(row.Address, out.process, pathID(row.CounterpartyPID)), authorization, nil, maxAnswer)
	if err != nil {
		return ""
	}
	m, err := wire.Parse(answer, wire.ContractNegotiation, wire.TransferProcess)
	if err != nil {
		return ""
	}
	return m.State
}

// backoff is the pause before the next attempt: doubled each time, with jitter of a quarter in both directions.
func (e *Engine) backoff(attempts int) time.Duration {
	d := e.opt.MinBackoff
	for range attempts {
		if d *= 2; d >= e.opt.MaxBackoff {
			d = e.opt.MaxBackoff
			break
		}
	}
	return d*3/4 + time.Duration(e.jitter(int64(d)/2))
}
