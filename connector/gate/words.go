// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// State shows a hold as it stands at a moment.
func State(h *Hold, now time.Time) adminapi.GateState {
	out := adminapi.GateState{Name: h.Gate.Name, Type: h.Gate.Type, Before: h.Gate.Before, State: Evaluate(h, now), Since: h.Since, Deadline: h.Deadline, Decided: h.Decisions}
	if out.State == adminapi.GateOpen {
		out.WaitsFor, out.ByHand = h.WaitsFor(), !h.triggered()
	}
	out.Words, out.DE = h.words(out.State, "en"), h.words(out.State, "de")
	return out
}

// Waiting says for what and for whom the open ones of the holds wait; empty when none is open.
func Waiting(holds []*Hold, now time.Time, lang string) string {
	var out []string
	for _, h := range holds {
		if o := Evaluate(h, now); o == adminapi.GateOpen {
			out = append(out, h.words(o, lang))
		}
	}
	return strings.Join(out, "; ")
}

// Reason is why a gate that is rejected or late ended the negotiation; nil for the others. The counterparty reads it: it names no people.
func Reason(h *Hold, now time.Time) *adminapi.Reason {
	switch Evaluate(h, now) {
	case adminapi.GateRejected:
		return &adminapi.Reason{Code: "gate-rejected", Message: fmt.Sprintf("gate %q was decided against it", h.Gate.Name), By: "own"}
	case adminapi.GateLate:
		return &adminapi.Reason{Code: CodeLate, Message: fmt.Sprintf("gate %q had not passed until %s", h.Gate.Name, stamp(*h.Deadline)), By: "own"}
	default:
		return nil
	}
}

// said chooses a language.
func said(lang, en, de string, args ...any) string {
	if lang == "de" {
		return fmt.Sprintf(de, args...)
	}
	return fmt.Sprintf(en, args...)
}

func (h *Hold) words(o adminapi.GateOutcome, lang string) string {
	switch o {
	case adminapi.GateAhead:
		return said(lang, "gate %q comes before %s", "Prüfschritt „%s“ steht vor %s an", h.Gate.Name, h.Gate.Before)
	case adminapi.GatePassed:
		return said(lang, "gate %q has passed", "Prüfschritt „%s“ ist bestanden", h.Gate.Name)
	case adminapi.GateRejected:
		r := h.given(adminapi.Reject)[0]
		out := said(lang, "%s (%s) rejected it at gate %q", "%s (%s) hat am Prüfschritt „%s“ abgelehnt", r.By.Name, r.By.Organization, h.Gate.Name)
		if r.Comment != "" {
			out += ": " + r.Comment
		}
		return out
	case adminapi.GateLate:
		return said(lang, "gate %q had not passed until %s: %s", "Prüfschritt „%s“ war bis %s nicht bestanden: %s", h.Gate.Name, stamp(*h.Deadline), h.missing(lang))
	default:
		return said(lang, "gate %q, until %s: %s", "Prüfschritt „%s“, bis %s: %s", h.Gate.Name, stamp(*h.Deadline), h.missing(lang))
	}
}

// missing says what a gate lacks, and from whom it may come.
func (h *Hold) missing(lang string) string {
	var out []string
	if !h.met() {
		switch h.Gate.Type {
		case adminapi.GateApproval, adminapi.GateWebhook:
			approvals := h.given(adminapi.Approve)
			text := said(lang, "%d of %d approvals are given", "%d von %d Zustimmungen liegen vor", len(approvals), h.Gate.Required)
			if h.Gate.Organizations > 1 {
				text += said(lang, ", from %d of %d organizations", ", aus %d von %d Organisationen", len(organizations(approvals)), h.Gate.Organizations)
			}
			left := slices.DeleteFunc(slices.Clone(h.Gate.Approvers), func(a adminapi.Approver) bool { return h.decided(a.ID, adminapi.Approve) || h.crowded(a.Organization) })
			out = append(out, text+said(lang, "; it waits for %s", "; es fehlt noch %s", names(left, lang)))
		case adminapi.GateAttestation:
			text := said(lang, "the attestation has not been checked yet", "der Nachweis ist noch nicht geprüft")
			if h.Attested != nil {
				text = map[bool]string{true: h.Attested.DE, false: h.Attested.Reason}[lang == "de"]
			}
			out = append(out, text)
		}
	}
	if !h.triggered() {
		out = append(out, said(lang, "%s must let it pass", "%s muss es freigeben", names(h.Gate.TriggeredBy, lang)))
	}
	return strings.Join(out, "; ")
}

// names lists people with their organizations: any of them.
func names(people []adminapi.Approver, lang string) string {
	out := make([]string, len(people))
	for i, a := range people {
		out[i] = fmt.Sprintf("%s (%s)", a.Name, a.Organization)
	}
	if len(out) < 2 {
		return strings.Join(out, "")
	}
	return strings.Join(out[:len(out)-1], ", ") + said(lang, " or ", " oder ") + out[len(out)-1]
}
