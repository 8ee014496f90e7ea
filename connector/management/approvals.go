// SPDX-License-Identifier: Apache-2.0

package management

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/store"
)

// Bounds of the list, which has to fit through a cell's agent (512 KiB). The oldest of each counterparty come first, so that none waits behind it for ever.
const (
	maxApprovals      = 100       // negotiations
	maxApprovalsBytes = 256 << 10 // of JSON
)

// listApprovals lists the open gates that wait for people, of all negotiations. What people are shown names no values of credentials.
func (s *server) listApprovals(r *http.Request, p *store.Participant) (any, error) {
	held, err := s.Store.Held(r.Context(), p.Ctx, maxApprovals)
	if err != nil {
		return nil, err
	}
	out, now := []adminapi.Approval{}, time.Now()
	for _, n := range held {
		for i := range n.Gates {
			a := shown(p, n, &n.Gates[i], now)
			if a.Unreadable != "" {
				s.Log.ErrorContext(r.Context(), "the offer of a negotiation cannot be read", "participant", p.Ctx, "negotiation", n.ID, "error", a.Unreadable)
			}
			if a.Gate.State == adminapi.GateOpen && len(a.Gate.WaitsFor) > 0 {
				out = append(out, a)
			}
		}
	}
	return fitting(out, maxApprovalsBytes)
}

// shown is what people see of a gate. An offer that cannot be shown hides neither the gate nor others.
func shown(p *store.Participant, n *store.Negotiation, h *gate.Hold, now time.Time) adminapi.Approval {
	a, err := dsp.Approval(p, n, h, now)
	if err != nil {
		a.Unreadable = err.Error()
	}
	return a
}

// fitting leaves out what would make the list longer than its bound. One that is too long by itself does not keep those after it away.
func fitting(in []adminapi.Approval, bound int) ([]adminapi.Approval, error) {
	out, size := []adminapi.Approval{}, 0
	for _, a := range in {
		raw, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		if size+len(raw) < bound {
			out, size = append(out, a), size+len(raw)+1
		}
	}
	return out, nil
}

// decide hands in a signed decision.
func (s *server) decide(r *http.Request, p *store.Participant) (any, error) {
	d, err := decode[adminapi.SignedDecision](r)
	if err != nil {
		return nil, err
	}
	n, err := s.Engine.Decide(r.Context(), p.Ctx, r.PathValue("id"), d.Decision)
	if err != nil {
		return nil, err
	}
	return s.negotiationView(p, n)
}
