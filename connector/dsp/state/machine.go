// SPDX-License-Identifier: Apache-2.0

// Package state holds the two state machines of the Dataspace Protocol 2025-1, negotiation and transfer, as data and one pure function:
// (state, event) → (state, effects). It does no input or output and imports nothing but the standard library; the store applies the
// effects in one transaction. Messages, policies and persistence do not belong here.
package state

import (
	"fmt"
	"slices"
)

// Role is the side a process is on.
type Role string

// Roles.
const (
	Consumer Role = "consumer"
	Provider Role = "provider"
)

// State is what one side knows of a process. The zero value but for Role is a process that does not exist yet.
type State struct {
	Role Role
	// Wire is the state as the protocol shows it; Step adds the steps at which an own message is under way ("AGREEING").
	Wire, Step string
	// Held is true while a guard holds the own decision; a command or a message ends it.
	Held bool
	// PeerKnown is true once the counterparty's process id is known, so that it can be told of an end.
	PeerKnown bool
	// SuspendedBy is the side that suspended a transfer.
	SuspendedBy Role
	// Seen holds ids of messages received before, as far as they matter for the event at hand.
	Seen []string
}

// Trigger says what happened.
type Trigger string

// Triggers. A command is a decision of the own side, received is a message of the counterparty.
const (
	CommandRequest        Trigger = "command request"
	CommandCounterRequest Trigger = "command counter-request"
	CommandOffer          Trigger = "command offer"
	CommandAccept         Trigger = "command accept"
	CommandAgree          Trigger = "command agree"
	CommandVerify         Trigger = "command verify"
	CommandFinalize       Trigger = "command finalize"
	CommandStart          Trigger = "command start"
	CommandSuspend        Trigger = "command suspend"
	CommandResume         Trigger = "command resume"
	CommandComplete       Trigger = "command complete"
	CommandTerminate      Trigger = "command terminate"
	CommandHold           Trigger = "command hold"
	CommandRelease        Trigger = "command release"

	ReceivedRequest        Trigger = "received request"
	ReceivedCounterRequest Trigger = "received counter-request"
	ReceivedOffer          Trigger = "received offer"
	ReceivedAccepted       Trigger = "received accepted"
	ReceivedAgreement      Trigger = "received agreement"
	ReceivedVerification   Trigger = "received verification"
	ReceivedFinalized      Trigger = "received finalized"
	ReceivedStart          Trigger = "received start"
	ReceivedSuspension     Trigger = "received suspension"
	ReceivedCompletion     Trigger = "received completion"
	ReceivedTermination    Trigger = "received termination"

	// Acknowledged: the counterparty answered the own message with 2xx.
	Acknowledged Trigger = "acknowledged"
	// GaveUp: the own message was refused, or could not be delivered within the bounds.
	GaveUp Trigger = "gave up"
)

// Event is a trigger; MessageID is set for received messages and makes a repeat recognisable.
type Event struct {
	On        Trigger
	MessageID string
}

// EffectKind is something that has to be done together with a transition.
type EffectKind string

// Effects.
const (
	EffectEnter         EffectKind = "enter"          // Value: wire state entered; recorded in the history
	EffectSend          EffectKind = "send"           // Value: message type to send
	EffectDecide        EffectKind = "decide"         // the own side may decide what to do next
	EffectKeepAgreement EffectKind = "keep agreement" // store the agreement made or received
	EffectKeepAddress   EffectKind = "keep address"   // store the data address received
	EffectDropAddress   EffectKind = "drop address"   // forget the data address and its token
	EffectFlow          EffectKind = "flow"           // Value: suspend, complete, terminate; to be told to the data plane
)

// Effect is an effect with its value.
type Effect struct {
	Kind  EffectKind
	Value string
}

// Transition is one row of a table. An empty Role stands for both.
type Transition struct {
	Role Role
	From []string // steps; "" is a process that does not exist yet
	On   Trigger
	To   string
	// Wire is the protocol state entered; empty leaves it.
	Wire string
	// Via is the wire state entered before: the message proves that the own one, still unacknowledged, arrived.
	Via     string
	Effects []Effect
}

// Machine is a table with what holds for all of it.
type Machine struct {
	Name  string
	Table []Transition
	// Messages maps the steps at which an own message is under way to the type of that message.
	Messages map[Role]map[string]string
	final    []string
	guard    func(State, Event) error
}

// IllegalError says that an event is not possible in a state.
type IllegalError struct {
	Machine string
	State   State
	On      Trigger
}

func (e *IllegalError) Error() string {
	if e.State.Held {
		return fmt.Sprintf("%s: %q is not possible while the %s's decision at %s is held", e.Machine, e.On, e.State.Role, e.State.Step)
	}
	return fmt.Sprintf("%s: %q is not possible for the %s in state %s", e.Machine, e.On, e.State.Role, e.State.Step)
}

// Final reports whether a step is an end.
func (m *Machine) Final(step string) bool { return slices.Contains(m.final, step) }

// Sends returns the type of message that is under way at a step, or "".
func (m *Machine) Sends(s State) string { return m.Messages[s.Role][s.Step] }

// Apply computes what an event does. A repeated message changes nothing and has no effects. The error is an *IllegalError.
func (m *Machine) Apply(s State, e Event) (State, []Effect, error) {
	if e.MessageID != "" && slices.Contains(s.Seen, e.MessageID) {
		return s, nil, nil
	}
	illegal := &IllegalError{Machine: m.Name, State: s, On: e.On}
	settled := s.Step != "" && m.Sends(s) == "" && !m.Final(s.Step)
	switch e.On {
	case CommandHold:
		if !settled {
			return s, nil, illegal
		}
		s.Held = true
		return s, nil, nil
	case CommandRelease:
		if !s.Held {
			return s, nil, illegal
		}
		s.Held = false
		return s, []Effect{{EffectDecide, ""}}, nil
	default: // in the table
	}
	t := m.find(s, e.On)
	if t == nil || (s.Held && isCommand(e.On) && e.On != CommandTerminate && e.On != CommandOffer) {
		return s, nil, illegal
	}
	if m.guard != nil {
		if err := m.guard(s, e); err != nil {
			return s, nil, fmt.Errorf("%w: %w", illegal, err)
		}
	}
	return m.move(s, e, t)
}

func (m *Machine) find(s State, on Trigger) *Transition {
	for i := range m.Table {
		if t := &m.Table[i]; t.On == on && (t.Role == "" || t.Role == s.Role) && slices.Contains(t.From, s.Step) {
			return t
		}
	}
	return nil
}

func (m *Machine) move(s State, e Event, t *Transition) (State, []Effect, error) {
	var effects []Effect
	to, wire := t.To, t.Wire
	if e.On == GaveUp && !s.PeerKnown {
		to, wire = Terminated, Terminated // nobody to tell
	}
	for _, w := range []string{t.Via, wire} {
		if w != "" && w != s.Wire {
			effects = append(effects, Effect{EffectEnter, w})
			s.Wire = w
		}
	}
	effects = append(effects, t.Effects...)
	if e.On != GaveUp && !isCommand(e.On) {
		s.PeerKnown = true
	}
	if e.MessageID != "" {
		s.Seen = append(slices.Clone(s.Seen), e.MessageID)
	}
	if to == Suspended {
		s.SuspendedBy = s.Role
		if e.On == ReceivedSuspension {
			s.SuspendedBy = s.Role.Other()
		}
	}
	if s.Step == to {
		return s, effects, nil
	}
	s.Step, s.Held = to, false
	if message := m.Sends(s); message != "" {
		effects = append(effects, Effect{EffectSend, message})
	} else if !m.Final(to) {
		effects = append(effects, Effect{EffectDecide, ""})
	}
	return s, effects, nil
}

func isCommand(on Trigger) bool { return len(on) > 8 && on[:8] == "command " }

// Other returns the other side.
func (r Role) Other() Role {
	if r == Consumer {
		return Provider
	}
	return Consumer
}

func without(steps []string, step string) []string {
	return slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return s == step })
}
