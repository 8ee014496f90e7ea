// SPDX-License-Identifier: Apache-2.0

package management

import (
	"net/http"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/store"
)

// maxApprovals bounds the list, which has to fit through a cell's agent; the oldest come first, so that none waits behind it for ever.
const maxApprovals = 100

// listApprovals lists the open gates that wait for people, of all negotiations. What people are shown names no values of credentials.
func (s *server) listApprovals(r *http.Request, p *store.Participant) (any, error) {
	held, err := s.Store.Held(r.Context(), p.Ctx, maxApprovals)
	if err != nil {
		return nil, err
	}
	out := []adminapi.Approval{}
	for _, n := range held {
		hash, err := dsp.OfferHash(n)
		if err != nil {
			return nil, err
		}
		for i := range n.Gates {
			if g := gate.State(&n.Gates[i], time.Now()); g.State == adminapi.GateOpen && len(g.WaitsFor) > 0 {
				out = append(out, adminapi.Approval{Provider: p.DID, Negotiation: n.ID, Counterparty: n.Counterparty, AssetID: n.AssetID, OfferID: n.OfferID,
					UseCase: n.UseCase, Policy: n.Offer, OfferHash: hash, Verdicts: verdicts(n), Gate: g})
			}
		}
	}
	return out, nil
}

// verdicts are those of the policy's last evaluation.
func verdicts(n *store.Negotiation) []adminapi.PolicyVerdict {
	out := []adminapi.PolicyVerdict{}
	if len(n.Traces) == 0 {
		return out
	}
	for _, c := range n.Traces[len(n.Traces)-1].Checks {
		v := adminapi.PolicyVerdict{Sentence: c.Sentence, Satisfied: c.Satisfied}
		if c.DE != nil {
			v.DE = c.DE.Sentence
		}
		out = append(out, v)
	}
	return out
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
	return negotiationView(n), nil
}
