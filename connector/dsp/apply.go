// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"fmt"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func refuse(status int, code, format string, args ...any) *RefusalError {
	return &RefusalError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// input is what an event brings with it.
type input struct {
	event       state.Event
	participant *store.Participant
	reason      *adminapi.Reason // of an end
	agreement   *store.Agreement // received
	address     *dps.DataAddress // received
}

// machineState builds the pure state of a row.
func machineState(p *store.Process, seen bool, messageID string) state.State {
	s := state.State{Role: p.Role, Wire: p.State, Step: p.Step, Held: p.Held, PeerKnown: p.CounterpartyPID != ""}
	if seen {
		s.Seen = []string{messageID}
	}
	return s
}

// enter writes the outcome of a transition into the row, except for effects that only one kind of process has.
func (e *Engine) enter(m *state.Machine, p *store.Process, before, after state.State, effects []state.Effect, in input) {
	p.State, p.Step, p.Held = after.Wire, after.Step, after.Held
	detail := ""
	if in.reason != nil {
		detail = in.reason.Message
	}
	for _, f := range effects {
		switch f.Kind {
		case state.EffectEnter:
			ev := adminapi.Event{At: e.opt.Now().UTC(), State: f.Value}
			if f.Value == state.Terminated {
				ev.Detail = detail
			}
			p.History = append(p.History, ev)
		case state.EffectSend:
			until := e.opt.Now().Add(e.opt.RetryFor)
			p.MessageID, p.Attempts, p.SendUntil, p.LastError, p.Waiting = e.opt.NewID(), 0, &until, "", "the counterparty to take the "+f.Value
			p.Next = &store.Next{}
		default: // of one kind of process
		}
	}
	if after.Step != before.Step && m.Sends(after) == "" {
		p.MessageID, p.SendUntil, p.LastError, p.Waiting, p.Attempts = "", nil, "", "", 0
		p.Next = &store.Next{Never: true}
	}
	if in.reason != nil && p.Reason == nil {
		p.Reason = in.reason
	}
	if after.Wire == state.Terminated && p.Reason == nil {
		p.Reason = &adminapi.Reason{Code: "terminated", Message: "terminated without a reason given", By: "own"}
	}
}

func (e *Engine) stepNegotiation(n *store.Negotiation, seen bool, in input, side *store.Side) error {
	before := machineState(&n.Process, seen, in.event.MessageID)
	after, effects, err := state.Negotiation.Apply(before, in.event)
	if err != nil {
		return err
	}
	e.enter(state.Negotiation, &n.Process, before, after, effects, in)
	if state.Negotiation.Final(after.Step) {
		n.Presented = nil
	}
	for _, f := range effects {
		if f.Kind == state.EffectEnter && f.Value == state.Finalized {
			side.AskForHead = true
		}
		if f.Kind == state.EffectKeepAgreement && n.Role == state.Provider {
			a, err := e.makeAgreement(n, in.participant)
			if err != nil {
				return err
			}
			side.Agreement, n.AgreementID = a, a.ID
		}
	}
	if in.agreement != nil {
		n.AgreementID = in.agreement.ID
	}
	return nil
}

// decideNegotiation asks the decider at a resting step, and applies what it says.
func (e *Engine) decideNegotiation(n *store.Negotiation, p *store.Participant, side *store.Side) {
	for range 4 { // a request is agreed or refused in one; more only if a decider chains commands
		s := machineState(&n.Process, false, "")
		if s.Held || state.Negotiation.Sends(s) != "" || state.Negotiation.Final(s.Step) {
			return
		}
		d := e.opt.Decider.Negotiation(n)
		n.Waiting = d.Waiting
		if d.After > 0 {
			n.Next = &store.Next{After: d.After}
			return
		}
		if d.Do == "" {
			return
		}
		d = e.atGates(n, d, side)
		if err := e.stepNegotiation(n, false, input{event: state.Event{On: d.Do}, participant: p, reason: d.Reason}, side); err != nil {
			e.opt.Log.Error("the decider chose an impossible command", "participant", n.Ctx, "negotiation", n.ID, "error", err)
			return
		}
		if d.Do == state.CommandHold {
			n.Waiting, n.Next = d.Waiting, &store.Next{After: d.After}
			return
		}
	}
}

// makeAgreement writes the provider's agreement from the offer under negotiation.
func (e *Engine) makeAgreement(n *store.Negotiation, p *store.Participant) (*store.Agreement, error) {
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		return nil, fmt.Errorf("offer of negotiation %s: %w", n.ID, err)
	}
	a := &store.Agreement{ID: e.opt.NewID(), Role: state.Provider, Provider: p.DID, Consumer: n.Counterparty, AssetID: n.AssetID, SignedAt: e.opt.Now().UTC(), UseCase: n.UseCase, Revision: n.Revision}
	a.Agreement = wire.Agreement(a.ID, policy, n.AssetID, p.DID, n.Counterparty, a.SignedAt)
	return a, nil
}

func (e *Engine) stepTransfer(t *store.Transfer, seen bool, in input, side *store.Side) error {
	before := machineState(&t.Process, seen, in.event.MessageID)
	before.SuspendedBy = t.SuspendedBy
	after, effects, err := state.Transfer.Apply(before, in.event)
	if err != nil {
		return err
	}
	if after.Step == state.Suspending || after.Step == state.Suspended {
		if in.reason != nil {
			t.Suspension = in.reason
		}
		in.reason = nil // it does not end
	} else if after.Step != before.Step && after.Step != state.Resuming {
		t.Suspension = nil
	}
	e.enter(state.Transfer, &t.Process, before, after, effects, in)
	t.SuspendedBy = after.SuspendedBy
	if state.Transfer.Final(after.Step) {
		t.Presented = nil
	}
	for _, f := range effects {
		switch f.Kind {
		case state.EffectFlow:
			t.Flow, t.Next = f.Value, &store.Next{}
		case state.EffectKeepAddress:
			side.Address = in.address
		case state.EffectDropAddress:
			side.DropAddress, side.Address = true, nil
		default: // entered above
		}
	}
	return nil
}

func (e *Engine) decideTransfer(t *store.Transfer, p *store.Participant, side *store.Side) {
	s := machineState(&t.Process, false, "")
	if s.Held || state.Transfer.Sends(s) != "" || state.Transfer.Final(s.Step) {
		return
	}
	d := e.opt.Decider.Transfer(t)
	t.Waiting = d.Waiting
	if d.After > 0 {
		t.Next = &store.Next{After: d.After}
		return
	}
	if d.Do == "" {
		return
	}
	if err := e.stepTransfer(t, false, input{event: state.Event{On: d.Do}, participant: p, reason: d.Reason}, side); err != nil {
		e.opt.Log.Error("the decider chose an impossible command", "participant", t.Ctx, "transfer", t.ID, "error", err)
	}
}
