// SPDX-License-Identifier: Apache-2.0

// Package gate says how a gate of a negotiation stands and which signed decisions of people count for it. It is pure: what a gate is comes from
// the offer (adminapi.Gate), what happened at it is a Hold, kept with the negotiation's row; the engine (connector/dsp) holds and resumes, and
// does all input and output.
package gate

import (
	"slices"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// Hold is a gate in a negotiation. The gate is the one that the offer had when the negotiation began: its approvers and their keys stay.
type Hold struct {
	Gate      adminapi.Gate           `json:"gate"`
	Since     *time.Time              `json:"since,omitempty"`    // when it began to hold
	Deadline  *time.Time              `json:"deadline,omitempty"` // set with Since
	Decisions []adminapi.GateDecision `json:"decisions,omitempty"`
	// Looked is when an attestation or a webhook was looked at last; nil: it is to be looked at now.
	Looked *time.Time `json:"looked,omitempty"`
	// Attested is the last evaluation of an attestation gate; nil while there is none.
	Attested *Attested `json:"attested,omitempty"`
}

// Attested is what an attestation gate saw.
type Attested struct {
	Satisfied bool   `json:"satisfied"`
	Reason    string `json:"reason,omitempty"` // why not, for people
	DE        string `json:"de,omitempty"`
}

// Holds makes the holds of a negotiation that begins.
func Holds(gates []adminapi.Gate) []Hold {
	out := make([]Hold, len(gates))
	for i, g := range gates {
		out[i].Gate = g
	}
	return out
}

// Before returns the holds that keep a negotiation from a state. The result shares their memory.
func Before(holds []Hold, state string) []*Hold {
	var out []*Hold
	for i := range holds {
		if holds[i].Gate.Before == state {
			out = append(out, &holds[i])
		}
	}
	return out
}

// Open begins to hold.
func (h *Hold) Open(now time.Time) {
	deadline := deadline(h.Gate, now)
	h.Since, h.Deadline = &now, &deadline
}

// Renew starts all of it again, since the offer has changed: decisions about another offer do not count, and stay as a record.
func Renew(holds []Hold) {
	for i := range holds {
		h := &holds[i]
		h.Since, h.Deadline, h.Looked, h.Attested = nil, nil, nil, nil
		for j := range h.Decisions {
			h.Decisions[j].Void = true
		}
	}
}

// Evaluate says how a gate stands at a moment. A rejection counts whatever else was decided; what was complete before the deadline has passed.
func Evaluate(h *Hold, now time.Time) adminapi.GateOutcome {
	switch {
	case h.Since == nil:
		return adminapi.GateAhead
	case len(h.given(adminapi.Reject)) > 0:
		return adminapi.GateRejected
	case h.triggered() && h.met():
		return adminapi.GatePassed
	case !now.Before(*h.Deadline):
		return adminapi.GateLate
	}
	return adminapi.GateOpen
}

func (h *Hold) triggered() bool {
	return len(h.Gate.TriggeredBy) == 0 || len(h.given(adminapi.Trigger)) > 0
}

// met says whether what the gate's type asks for is there.
func (h *Hold) met() bool {
	switch h.Gate.Type {
	case adminapi.GateAttestation:
		return h.Attested != nil && h.Attested.Satisfied
	case adminapi.GateApproval, adminapi.GateWebhook:
		approvals := h.given(adminapi.Approve)
		return len(approvals) >= h.Gate.Required && len(organizations(approvals)) >= h.Gate.Organizations
	}
	return false
}

// given are the decisions that count.
func (h *Hold) given(v adminapi.Verdict) []adminapi.GateDecision {
	return slices.DeleteFunc(slices.Clone(h.Decisions), func(d adminapi.GateDecision) bool { return d.Void || d.Verdict != v })
}

func organizations(decisions []adminapi.GateDecision) map[string]bool {
	out := map[string]bool{}
	for _, d := range decisions {
		out[d.By.Organization] = true
	}
	return out
}

// crowded says whether one more approval from an organization would leave too little room for the other organizations that are needed.
func (h *Hold) crowded(organization string) bool {
	approvals := h.given(adminapi.Approve)
	from := organizations(approvals)
	return from[organization] && h.Gate.Required-len(approvals)-1 < h.Gate.Organizations-len(from)
}

// Look is when something is to be done about an open gate by itself: seldom, the longer it has been open, and at its deadline.
func (h *Hold) Look(now time.Time) time.Time {
	if h.met() || (h.Gate.Type != adminapi.GateAttestation && h.Gate.Type != adminapi.GateWebhook) {
		return *h.Deadline
	}
	if h.Looked == nil {
		return now
	}
	next := now.Add(min(max(now.Sub(*h.Since)/4, 15*time.Second), 10*time.Minute))
	if next.After(*h.Deadline) {
		return *h.Deadline
	}
	return next
}

// WaitsFor are the people whose decision an open gate still takes.
func (h *Hold) WaitsFor() []adminapi.Approver {
	var out []adminapi.Approver
	add := func(a adminapi.Approver) {
		if !slices.ContainsFunc(out, func(o adminapi.Approver) bool { return o.ID == a.ID }) {
			out = append(out, plain(a))
		}
	}
	if !h.met() {
		for _, a := range h.Gate.Approvers {
			if !h.decided(a.ID, adminapi.Approve) && !h.crowded(a.Organization) {
				add(a)
			}
		}
	}
	if !h.triggered() {
		for _, a := range h.Gate.TriggeredBy {
			add(a)
		}
	}
	return out
}

// decided says whether a person has given a verdict that counts.
func (h *Hold) decided(person string, v adminapi.Verdict) bool {
	return slices.ContainsFunc(h.given(v), func(d adminapi.GateDecision) bool { return d.By.ID == person })
}

// plain is an approver without keys.
func plain(a adminapi.Approver) adminapi.Approver {
	a.Keys = nil
	return a
}
