// SPDX-License-Identifier: Apache-2.0

package management

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
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
			a, err := dsp.Approval(p, n, &n.Gates[i], now)
			if err != nil {
				return nil, err
			}
			if a.Gate.State == adminapi.GateOpen && len(a.Gate.WaitsFor) > 0 {
				out = append(out, a)
			}
		}
	}
	return fitting(out, maxApprovalsBytes)
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
