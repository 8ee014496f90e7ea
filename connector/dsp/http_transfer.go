// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

func transferBody(t *store.Transfer) *wire.Message {
	return processBody(wire.TransferProcess, &t.Process)
}

// transferRequest answers TransferRequestMessage (provider). The agreement's policy is evaluated again.
func (e *Engine) transferRequest(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	m, err := e.readMessage(r, wire.TransferRequest)
	if err != nil {
		return answer{}, err
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return answer{}, err
	}
	a, policy, err := e.agreementPolicy(ctx, p.Ctx, m.AgreementID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return answer{}, err
	}
	agent, missing, err := e.verify(ctx, p, r, ev, ev.Scopes(policy, profile.SubjectConsumer))
	if err != nil {
		return answer{}, err
	}
	if missing != nil {
		return answer{}, missing
	}
	if t, err := e.opt.Store.FindTransfer(ctx, p.Ctx, state.Provider, agent.ID, m.ConsumerPID); err == nil {
		return repeatedTransfer(t, m)
	} else if !errors.Is(err, store.ErrNotFound) {
		return answer{}, err
	}
	// A request proves that the consumer holds the agreement as final, also while the answer to the finalization is still to come.
	if a == nil || a.Consumer != agent.ID || a.Role != state.Provider || (a.Step != state.Finalized && a.Step != state.Finalizing) {
		return answer{}, refuse(http.StatusNotFound, "not-found", "there is no agreement %q between us", m.AgreementID)
	}
	if !slices.Contains(formats, m.Format) || m.DataAddress != nil {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "$.format: %q is not supported, only %v without dataAddress", m.Format, formats)
	}
	t := &store.Transfer{Format: m.Format, Process: store.Process{Ctx: p.Ctx, ID: e.opt.NewID(), Role: state.Provider, Counterparty: agent.ID,
		CounterpartyPID: m.ConsumerPID, Address: m.CallbackAddress, AssetID: a.AssetID, AgreementID: a.ID}}
	if err := e.judgeTransfer(ctx, p, t, a, policy, &agent); err != nil {
		return answer{}, err
	}
	side, err := e.applyTransfer(t, false, input{event: state.Event{On: state.ReceivedRequest, MessageID: m.ID}, participant: p})
	if err != nil {
		return answer{}, err
	}
	stored, made, err := e.opt.Store.InsertTransfer(ctx, t, side)
	if err != nil {
		return answer{}, err
	}
	if !made {
		return repeatedTransfer(stored, m)
	}
	e.changed(&stored.Process)
	return answer{status: http.StatusCreated, body: transferBody(stored)}, nil
}

// repeatedTransfer answers a request whose process is there already as the first time.
func repeatedTransfer(t *store.Transfer, m *wire.Message) (answer, error) {
	if t.AgreementID != m.AgreementID {
		return answer{}, refuse(http.StatusBadRequest, "invalid", "process id %q belongs to a transfer under another agreement", m.ConsumerPID)
	}
	return answer{status: http.StatusCreated, body: transferBody(t)}, nil
}

// judgeTransfer evaluates the agreement's policy at the transfer phase and keeps trace and verdict in the row.
func (e *Engine) judgeTransfer(ctx context.Context, p *store.Participant, t *store.Transfer, a *store.Agreement, policy *odrl.Policy, peer *identity.Agent) error {
	j, err := e.judge(ctx, evaluation{participant: p, role: t.Role, policy: policy, phase: profile.PhaseTransfer, peer: peer, agreement: a})
	if err != nil {
		return err
	}
	t.Traces, t.Denial = append(t.Traces, j.trace), j.denial
	return nil
}

var transferTriggers = map[string]state.Trigger{wire.TransferStart: state.ReceivedStart, wire.TransferSuspension: state.ReceivedSuspension,
	wire.TransferCompletion: state.ReceivedCompletion, wire.TransferTermination: state.ReceivedTermination}

// transferMessageOf answers the messages of both sides about a transfer that exists.
func (e *Engine) transferMessageOf(messageType string) protocolHandler {
	return func(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
		m, err := e.readMessage(r, messageType)
		if err != nil {
			return answer{}, err
		}
		t, err := e.opt.Store.Transfer(ctx, p.Ctx, r.PathValue("pid"))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return answer{}, err
		}
		ev, evErr := e.Evaluator(p)
		if evErr != nil {
			return answer{}, evErr
		}
		scopes, judged := ev.Scopes(nil, profile.SubjectConsumer), store.Transfer{}
		starting := t != nil && messageType == wire.TransferStart
		var a *store.Agreement
		var policy *odrl.Policy
		if starting {
			if a, policy, err = e.agreementPolicy(ctx, p.Ctx, t.AgreementID); err != nil {
				return answer{}, err
			}
			scopes = ev.Scopes(policy, subjectOf(t.Role.Other()))
		}
		agent, missing, err := e.verify(ctx, p, r, ev, scopes)
		if err != nil {
			return answer{}, err
		}
		if t == nil || t.Counterparty != agent.ID {
			return answer{}, errUnknown
		}
		if err := checkPIDs(&t.Process, m); err != nil {
			return answer{}, err
		}
		if missing != nil && messageType != wire.TransferTermination {
			return answer{}, missing
		}
		if starting {
			if judged = *t; e.judgeTransfer(ctx, p, &judged, a, policy, &agent) != nil {
				return answer{}, refuse(http.StatusServiceUnavailable, "identity-unavailable", "the policy could not be evaluated now; send the message again")
			}
			if t.Role == state.Provider && judged.Denial != nil {
				return answer{}, refuse(http.StatusForbidden, "policy-denied", "%s", judged.Denial.Message)
			}
		}
		what := input{event: state.Event{On: transferTriggers[messageType], MessageID: messageID(m, &t.Process)}, participant: p}
		if messageType == wire.TransferTermination {
			what.reason = counterpartyReason(m)
		}
		return e.takeTransfer(ctx, t, m, what, func(row *store.Transfer) {
			if starting {
				row.Traces, row.Denial = judged.Traces, judged.Denial
			}
		})
	}
}

// takeTransfer applies a received message in one transaction.
func (e *Engine) takeTransfer(ctx context.Context, t *store.Transfer, m *wire.Message, what input, prepare func(*store.Transfer)) (answer, error) {
	row, err := e.opt.Store.UpdateTransfer(ctx, t.Ctx, t.ID, what.event.MessageID, func(row *store.Transfer, seen bool) (store.Side, error) {
		if !seen {
			if row.Role == state.Provider {
				learn(&row.Process, m.ConsumerPID)
			} else {
				learn(&row.Process, m.ProviderPID)
			}
			prepare(row)
		}
		side, err := e.applyTransfer(row, seen, what)
		if err == nil && !seen && m.DataAddress != nil && row.Role == state.Consumer && row.Step == state.Started {
			side.Address, side.DropAddress = plainAddress(m.DataAddress), false
		}
		return side, err
	})
	var ie *state.IllegalError
	if errors.As(err, &ie) {
		return answer{}, illegal(err)
	}
	if err != nil {
		return answer{}, err
	}
	e.changed(&row.Process)
	return answer{status: http.StatusOK, body: transferBody(row)}, nil
}

func (e *Engine) getTransfer(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	agent, err := e.reader(ctx, p, r)
	if err != nil {
		return answer{}, err
	}
	t, err := e.opt.Store.Transfer(ctx, p.Ctx, r.PathValue("pid"))
	if errors.Is(err, store.ErrNotFound) || (err == nil && t.Counterparty != agent.ID) {
		return answer{}, errUnknown
	}
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: transferBody(t)}, nil
}
