// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

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
	if a != nil && a.Profile != p.ProfileName {
		a, policy = nil, nil
	}
	agent, missing, err := e.verify(ctx, p, r, ev, ev.Scopes(policy, profile.SubjectConsumer))
	if err != nil {
		return answer{}, err
	}
	if missing != nil {
		return answer{}, missing
	}
	return e.transfers.begin(ctx, p, &agent, state.Provider, m, state.ReceivedRequest, func() (*store.Transfer, error) {
		// A request proves that the consumer holds the agreement as final, also while the answer to the finalization is still to come.
		if a == nil || a.Consumer != agent.ID || a.Role != state.Provider || (a.Step != state.Finalized && a.Step != state.Finalizing) {
			return nil, refuse(http.StatusNotFound, "not-found", "there is no agreement %q between us", m.AgreementID)
		}
		if !slices.Contains(formats, m.Format) || m.DataAddress != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "$.format: %q is not supported, only %v without dataAddress", m.Format, formats)
		}
		t := &store.Transfer{Format: m.Format, Process: store.Process{Role: state.Provider, AssetID: a.AssetID, AgreementID: a.ID}}
		return t, e.judgeTransfer(ctx, p, t, a, policy, &agent)
	})
}

// judgeTransfer evaluates the agreement's policy at the transfer phase and keeps trace and verdict in the row.
func (e *Engine) judgeTransfer(ctx context.Context, p *store.Participant, t *store.Transfer, a *store.Agreement, policy *odrl.Policy, peer *identity.Agent) error {
	j, err := e.judge(ctx, evaluation{participant: p, role: t.Role, policy: policy, phase: profile.PhaseTransfer, peer: peer, agreement: a})
	if err != nil {
		return err
	}
	t.Traces, t.Denial, t.Presented = append(t.Traces, j.trace), j.denial, nil
	if t.Role != state.Provider {
		return nil
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return err
	}
	_, needed := ev.Access(policy)
	for _, c := range peer.Credentials {
		if slices.Contains(needed[profile.SubjectConsumer], c.Type) && !slices.Contains(t.Presented, c.Raw) {
			t.Presented = append(t.Presented, c.Raw)
		}
	}
	return nil
}

var transferTriggers = map[string]state.Trigger{wire.TransferStart: state.ReceivedStart, wire.TransferSuspension: state.ReceivedSuspension,
	wire.TransferCompletion: state.ReceivedCompletion, wire.TransferTermination: state.ReceivedTermination}

// transferMessageOf answers the messages of both sides about a transfer that exists. A start is evaluated as a request would be.
func (e *Engine) transferMessageOf(messageType string) protocolHandler {
	starting := messageType == wire.TransferStart
	return func(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
		var a *store.Agreement
		var policy *odrl.Policy
		in, err := e.transfers.receive(ctx, p, r, messageType, func(t *store.Transfer, _ *wire.Message) (_ []*odrl.Policy, err error) {
			if starting {
				a, policy, err = e.agreementPolicy(ctx, p.Ctx, t.AgreementID)
			}
			return []*odrl.Policy{policy}, err
		})
		if err != nil {
			return answer{}, err
		}
		what := input{}
		if messageType == wire.TransferTermination {
			what.reason = counterpartyReason(in.message) // whoever the counterparty is by now, it may end what it is part of
		} else if in.missing != nil {
			return answer{}, in.missing
		}
		if messageType == wire.TransferSuspension && len(in.message.Reason) > 0 {
			what.reason = &adminapi.Reason{Code: "counterparty-suspended", Message: strings.Join(in.message.Reason, "; "), By: "counterparty"}
		}
		judged := *in.row
		if starting {
			if e.judgeTransfer(ctx, p, &judged, a, policy, &in.agent) != nil {
				return answer{}, refuse(http.StatusServiceUnavailable, "identity-unavailable", "the policy could not be evaluated now; send the message again")
			}
			if judged.Role == state.Provider && judged.Denial != nil {
				return answer{}, refuse(http.StatusForbidden, "policy-denied", "%s", judged.Denial.Message)
			}
			if in.message.DataAddress != nil {
				what.address = plainAddress(in.message.DataAddress)
			}
		}
		return e.transfers.take(ctx, p, in, transferTriggers[messageType], what, func(t *store.Transfer) error {
			if starting {
				t.Traces, t.Denial, t.Presented = judged.Traces, judged.Denial, judged.Presented
			}
			return nil
		})
	}
}
