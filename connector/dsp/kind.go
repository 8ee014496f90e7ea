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
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

// kind is what the engine does with one kind of process, negotiations or transfers; T is its row. The fields are what is particular to it.
type kind[T any] struct {
	e        *Engine
	machine  *state.Machine
	bodyType string // the process as the protocol shows it
	last     string // step at which the message of the good end is under way
	process  func(*T) *store.Process
	// about is what a process and its first message must have in common: the offer, or the agreement.
	about func(*T) string
	asks  func(*wire.Message) string

	read   func(ctx context.Context, participant, id string) (*T, error)
	find   func(ctx context.Context, participant string, role state.Role, counterparty, pid string) (*T, error)
	insert func(ctx context.Context, row *T, side store.Side) (*T, bool, error)
	update func(ctx context.Context, participant, id, messageID string, fn func(row *T, seen bool) (store.Side, error)) (*T, error)

	step    func(row *T, seen bool, in input, side *store.Side) error
	decide  func(row *T, p *store.Participant, side *store.Side)
	message func(ctx context.Context, p *store.Participant, row *T) (*outgoing, error)
	// ahead does what a worker has to do before anything else; nil: there is nothing.
	ahead func(ctx context.Context, row *T) (*T, error)
}

func (e *Engine) kinds() {
	st := e.opt.Store
	e.negotiations = kind[store.Negotiation]{e: e, machine: state.Negotiation, bodyType: wire.ContractNegotiation, last: state.Finalizing,
		process: func(n *store.Negotiation) *store.Process { return &n.Process },
		about:   func(n *store.Negotiation) string { return n.OfferID }, asks: func(m *wire.Message) string { return m.Policy.ID },
		read: st.Negotiation, find: st.FindNegotiation, insert: st.InsertNegotiation, update: st.UpdateNegotiation,
		step: e.stepNegotiation, decide: e.decideNegotiation, message: e.negotiationMessage, ahead: e.tendGates}
	e.transfers = kind[store.Transfer]{e: e, machine: state.Transfer, bodyType: wire.TransferProcess, last: state.Completing,
		process: func(t *store.Transfer) *store.Process { return &t.Process },
		about:   func(t *store.Transfer) string { return t.AgreementID }, asks: func(m *wire.Message) string { return m.AgreementID },
		read: st.Transfer, find: st.FindTransfer, insert: st.InsertTransfer, update: st.UpdateTransfer,
		step: e.stepTransfer, decide: e.decideTransfer, message: e.transferMessage, ahead: e.tellFlow}
}

// apply applies one event to a row and then, as long as the own side has something to decide at once, its commands. All of it is committed
// together. It reports the records to write beside the row.
func (k *kind[T]) apply(row *T, seen bool, in input) (store.Side, error) {
	side := store.Side{Agreement: in.agreement}
	if err := k.step(row, seen, in, &side); err != nil || seen {
		return store.Side{}, err
	}
	side.MessageID = in.event.MessageID
	k.decide(row, in.participant, &side)
	return side, nil
}

// body is the process as the protocol shows it.
func (k *kind[T]) body(row *T) *wire.Message {
	p := k.process(row)
	m := wire.New(k.bodyType, p.ID)
	m.ProviderPID, m.ConsumerPID, m.State = p.CounterpartyPID, p.ID, p.State
	if p.Role == state.Provider {
		m.ProviderPID, m.ConsumerPID = p.ID, p.CounterpartyPID
	}
	return m
}

// begin answers a counterparty's first message. A repeat of it finds the process that it made, and is answered as the first time whatever has
// changed since; otherwise row makes the process.
func (k *kind[T]) begin(ctx context.Context, p *store.Participant, agent *identity.Agent, role state.Role, m *wire.Message, on state.Trigger, row func() (*T, error)) (answer, error) {
	ctx = audit.WithActor(ctx, agent.ID)
	pid := m.ConsumerPID
	if role == state.Consumer {
		pid = m.ProviderPID
	}
	stored, err := k.find(ctx, p.Ctx, role, agent.ID, pid)
	if errors.Is(err, store.ErrNotFound) {
		var made bool
		if stored, err = row(); err != nil {
			return answer{}, err
		}
		common := k.process(stored)
		common.Ctx, common.ID, common.Profile, common.Role = p.Ctx, k.e.opt.NewID(), p.ProfileName, role
		common.Counterparty, common.CounterpartyPID, common.Address = agent.ID, pid, m.CallbackAddress
		side, err := k.apply(stored, false, input{event: state.Event{On: on, MessageID: m.ID}, participant: p})
		if err != nil {
			return answer{}, err
		}
		if stored, made, err = k.insert(ctx, stored, side); err != nil {
			return answer{}, err
		}
		if made {
			k.e.changed(k.process(stored))
		}
	} else if err != nil {
		return answer{}, err
	}
	if k.about(stored) != k.asks(m) || k.process(stored).Profile != p.ProfileName {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "process id %q belongs to a %s about something else", pid, k.machine.Name)
	}
	return answer{status: http.StatusCreated, body: k.body(stored)}, nil
}

// received is a message about a process that exists.
type received[T any] struct {
	row   *T
	agent identity.Agent
	// missing is set when the sender lacks a credential that the profile requires.
	missing *RefusalError
	message *wire.Message
	id      string // of the message
}

// receive reads a message to a process, and proves that the counterparty of that process sent it, to the address of the process's profile. Whoever
// is not gets 404. policies are what
// the sender's credentials will be needed for, besides the profile.
func (k *kind[T]) receive(ctx context.Context, p *store.Participant, r *http.Request, messageType string, policies func(*T, *wire.Message) ([]*odrl.Policy, error)) (*received[T], error) {
	m, err := k.e.readMessage(r, messageType)
	if err != nil {
		return nil, err
	}
	row, err := k.read(ctx, p.Ctx, r.PathValue("pid"))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	ev, evErr := k.e.Evaluator(p)
	if evErr != nil {
		return nil, evErr
	}
	scopes := ev.Scopes(nil, profile.SubjectConsumer)
	if row != nil && k.process(row).Profile != p.ProfileName {
		row = nil
	}
	if row != nil {
		needed, err := policies(row, m)
		if err != nil {
			return nil, err
		}
		for _, policy := range needed {
			scopes = union(scopes, ev.Scopes(policy, subjectOf(k.process(row).Role.Other())))
		}
	}
	agent, missing, err := k.e.verify(ctx, p, r, ev, scopes)
	if err != nil {
		return nil, err
	}
	if row == nil || k.process(row).Counterparty != agent.ID {
		return nil, errUnknown
	}
	// Whoever the counterparty is by now, it may end what it is part of.
	if missing != nil && missing.Status == http.StatusServiceUnavailable && m.Type != wire.NegotiationTermination && m.Type != wire.TransferTermination {
		return nil, missing
	}
	common := k.process(row)
	// As EDC checks; a check by role fails with the signaling test kit.
	if m.ProviderPID != common.ID && m.ConsumerPID != common.ID {
		return nil, refuse(http.StatusBadRequest, "invalid", "neither providerPid %q nor consumerPid %q is the process %q of the address", m.ProviderPID, m.ConsumerPID, common.ID)
	}
	return &received[T]{row: row, agent: agent, missing: missing, message: m, id: messageID(m, common)}, nil
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

// take applies a received message in one transaction. prepare may change the row before; it is not called for a repeat.
func (k *kind[T]) take(ctx context.Context, p *store.Participant, in *received[T], on state.Trigger, what input, prepare func(*T) error) (answer, error) {
	ctx = audit.WithActor(ctx, in.agent.ID)
	what.event, what.participant = state.Event{On: on, MessageID: in.id}, p
	row, err := k.update(ctx, p.Ctx, k.process(in.row).ID, in.id, func(row *T, seen bool) (store.Side, error) {
		if !seen {
			if common := k.process(row); common.Role == state.Provider {
				learn(common, in.message.ConsumerPID)
			} else {
				learn(common, in.message.ProviderPID)
			}
			if prepare != nil {
				if err := prepare(row); err != nil {
					return store.Side{}, err
				}
			}
		}
		return k.apply(row, seen, what)
	})
	var ie *state.IllegalError
	if errors.As(err, &ie) {
		return answer{}, refuse(http.StatusBadRequest, "illegal-state", "%s", err) // DSP 2025-1 §5.1
	}
	if err != nil {
		return answer{}, err
	}
	k.e.changed(k.process(row))
	return answer{status: http.StatusOK, body: k.body(row)}, nil
}

// get answers a counterparty that reads a process.
func (k *kind[T]) get(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	ev, err := k.e.Evaluator(p)
	if err != nil {
		return answer{}, err
	}
	agent, err := k.e.authenticate(ctx, p, r, ev.Scopes(nil, profile.SubjectConsumer))
	if err != nil {
		return answer{}, err
	}
	row, err := k.read(ctx, p.Ctx, r.PathValue("pid"))
	if errors.Is(err, store.ErrNotFound) || (err == nil && (k.process(row).Counterparty != agent.ID || k.process(row).Profile != p.ProfileName)) {
		return answer{}, errUnknown
	}
	if err != nil {
		return answer{}, err
	}
	// The counterparty may ask after it took a message of ours and before its answer is here. It gets to see what that leads to; and after the
	// first message it must, since the answer brings its process id, without which no process can be shown.
	unknown := func(p *store.Process) bool { return p.CounterpartyPID == "" && !k.machine.Final(p.Step) }
	unanswered := func(p *store.Process) bool {
		return unknown(p) || p.LeaseOwner != "" && k.machine.Sends(machineState(p, false, "")) != ""
	}
	settled, err := k.letAnswerArrive(ctx, row, unanswered)
	if err == nil {
		row = settled
	} else if unknown(k.process(row)) {
		return answer{}, err
	}
	if k.process(row).CounterpartyPID == "" {
		return answer{}, errUnknown
	}
	return answer{status: http.StatusOK, body: k.body(row)}, nil
}

// letAnswerArrive holds a request that meets a message of ours whose answer is still to come, and returns the row after that. It waits for
// some seconds; then it is a RefusalError (503).
func (k *kind[T]) letAnswerArrive(ctx context.Context, row *T, unanswered func(*store.Process) bool) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for unanswered(k.process(row)) {
		p := k.process(row)
		changed := k.e.Watch(p.Ctx, p.ID)
		next, err := k.read(ctx, p.Ctx, p.ID)
		if err != nil {
			return nil, err
		}
		if row = next; !unanswered(k.process(row)) {
			break
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // another process of this connector may send it
		case <-ctx.Done():
			return nil, refuse(http.StatusServiceUnavailable, "busy", "your answer to our last message is still to come; send this again")
		}
	}
	return row, nil
}

// command applies a command of a person. What is not possible now is a RefusalError (409). prepare may change the row before.
func (k *kind[T]) command(ctx context.Context, participant, id string, on state.Trigger, reason *adminapi.Reason, prepare func(*T) error) (*T, error) {
	p, err := k.e.lookupParticipant(ctx, participant, "")
	if err != nil {
		return nil, err
	}
	row, err := k.update(ctx, participant, id, "", func(row *T, _ bool) (store.Side, error) {
		if prepare != nil {
			if err := prepare(row); err != nil {
				return store.Side{}, err
			}
		}
		return k.apply(row, false, input{event: state.Event{On: on}, participant: p, reason: reason})
	})
	var ie *state.IllegalError
	switch {
	case errors.As(err, &ie):
		return nil, refuse(http.StatusConflict, "conflict", "%s", err)
	case errors.Is(err, store.ErrNotFound):
		return nil, refuse(http.StatusNotFound, "not-found", "there is no %s %q", k.machine.Name, id)
	case err != nil:
		return nil, err
	}
	k.e.changed(k.process(row))
	return row, nil
}

// work does what a leased row has to do, as long as there is something at once.
func (k *kind[T]) work(ctx context.Context, row *T) {
	for leased := true; leased; {
		common := k.process(row)
		next, err := k.advance(ctx, row)
		if err != nil {
			k.e.opt.Log.Error("a process could not be advanced; its lease runs out", "participant", common.Ctx, k.machine.Name, common.ID, "error", err)
			return
		}
		common = k.process(next)
		k.e.changed(common)
		leased, row = common.LeaseOwner != "", next
	}
}

// advance sends the message under way, or else asks the decider.
func (k *kind[T]) advance(ctx context.Context, row *T) (*T, error) {
	if k.ahead != nil {
		if next, err := k.ahead(ctx, row); next != nil || err != nil {
			return next, err
		}
	}
	had := k.process(row)
	p, err := k.e.opt.Store.Participant(ctx, had.Ctx)
	if err != nil {
		return nil, err
	}
	in, ok := p.In(had.Profile)
	sending := k.machine.Sends(machineState(had, false, "")) != ""
	result := outcome{}
	switch {
	case !sending || (had.Step == state.Terminating && had.CounterpartyPID == ""): // nobody to send anything to
	case !ok:
		result.err = fmt.Errorf("participant context %q no longer takes part in dataspace profile %q", p.Ctx, had.Profile)
	default:
		result = k.e.attempt(ctx, in, had, func() (*outgoing, error) { return k.message(ctx, in, row) })
	}
	return k.update(ctx, had.Ctx, had.ID, "", func(row *T, _ bool) (store.Side, error) {
		now := k.process(row)
		defer settle(now)
		learn(now, result.peerPID)
		if stale := sending && now.MessageID != had.MessageID; stale || (!sending && now.Version != had.Version) {
			return store.Side{}, nil
		}
		var side store.Side
		if !sending {
			now.Next = &store.Next{Never: true}
			k.decide(row, p, &side)
			return side, nil
		}
		on, reason, done := k.e.judgeOutcome(now, result, now.Step == k.last)
		if !done {
			return side, nil
		}
		return k.apply(row, false, input{event: state.Event{On: on}, participant: p, reason: reason})
	})
}
