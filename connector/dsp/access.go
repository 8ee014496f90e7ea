// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

// demands are what an agreement's policy demands of the data plane.
func (e *Engine) demands(p *store.Participant, policy *odrl.Policy) (out []string, err error) {
	ev, err := e.Evaluator(p)
	if err != nil {
		return nil, err
	}
	if judged, _ := ev.Access(policy); judged {
		out = append(out, dps.DemandJudge)
	}
	if ev.Recorded(policy) {
		out = append(out, dps.DemandRecord)
	}
	return out, nil
}

// purposesOf are the purposes of use that the policy allowed when the transfer was judged last.
func purposesOf(t *store.Transfer) []string {
	for _, trace := range slices.Backward(t.Traces) {
		if trace.Phase == profile.PhaseTransfer {
			return trace.Purposes
		}
	}
	return nil
}

// JudgeAccess evaluates the agreement's policy at one data access (provider): on the own credentials as they are now, and on those of the
// consumer as it presented them when the transfer was started, verified again. A verdict that differs from the one before is kept with the transfer.
func (e *Engine) JudgeAccess(ctx context.Context, participant, transfer string, req dps.AccessRequest) (dps.AccessVerdict, error) {
	t, err := e.opt.Store.Transfer(ctx, participant, transfer)
	if errors.Is(err, store.ErrNotFound) || err == nil && (t.Role != state.Provider || t.AgreementID != req.AgreementID) {
		return dps.AccessVerdict{}, refuse(http.StatusNotFound, "not-found", "there is no transfer %q under agreement %q", transfer, req.AgreementID)
	}
	if err != nil {
		return dps.AccessVerdict{}, err
	}
	p, err := e.lookupParticipant(ctx, participant, t.Profile)
	if err != nil {
		return dps.AccessVerdict{}, err
	}
	a, policy, err := e.agreementPolicy(ctx, p.Ctx, t.AgreementID)
	if err != nil {
		return dps.AccessVerdict{}, err
	}
	consumer, err := e.opt.Identity.Recheck(ctx, p.Local(), t.Counterparty, t.Presented)
	if err != nil {
		return dps.AccessVerdict{}, err
	}
	j, err := e.judge(ctx, evaluation{participant: p, role: t.Role, policy: policy, phase: profile.PhaseAccess, peer: &consumer, agreement: a,
		request: map[string]string{"method": req.Method, "path": req.Path}, purposes: req.Purposes})
	if err != nil {
		return dps.AccessVerdict{}, err
	}
	if err := e.keepAccess(ctx, t, j.trace); err != nil {
		return dps.AccessVerdict{}, err
	}
	return dps.AccessVerdict{Allowed: j.denial == nil, Reason: odrl.Reason(j.trace, ""), Trace: j.trace}, nil
}

// maxAccessTraces bounds what is kept of accesses; the oldest go.
const maxAccessTraces = 20

// keepAccess adds a trace to the transfer unless the last access had the same verdict for the same reasons.
func (e *Engine) keepAccess(ctx context.Context, t *store.Transfer, trace adminapi.Trace) error {
	if sameAsLast(t.Traces, trace) {
		return nil
	}
	row, err := e.opt.Store.UpdateTransfer(ctx, t.Ctx, t.ID, "", func(row *store.Transfer, _ bool) (store.Side, error) {
		if sameAsLast(row.Traces, trace) { // another access was quicker
			return store.Side{}, nil
		}
		row.Traces = append(row.Traces, trace)
		isAccess := func(t adminapi.Trace) bool { return t.Phase == profile.PhaseAccess }
		kept := 0
		for _, t := range row.Traces {
			if isAccess(t) {
				kept++
			}
		}
		if oldest := slices.IndexFunc(row.Traces, isAccess); kept > maxAccessTraces {
			row.Traces = slices.Delete(row.Traces, oldest, oldest+1)
		}
		return store.Side{}, nil
	})
	if err != nil {
		return err
	}
	e.changed(&row.Process)
	return nil
}

func sameAsLast(traces []adminapi.Trace, trace adminapi.Trace) bool {
	for _, last := range slices.Backward(traces) {
		if last.Phase == profile.PhaseAccess {
			return last.Allowed == trace.Allowed && slices.EqualFunc(last.Checks, trace.Checks, func(a, b adminapi.Check) bool {
				return a.Path == b.Path && a.Satisfied == b.Satisfied && a.Reason == b.Reason
			})
		}
	}
	return false
}
