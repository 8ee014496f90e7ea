// SPDX-License-Identifier: Apache-2.0

package management

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// TestWhatWasSeenOfOthersLeavesAsPolicyRecordsDo reads processes that were denied as somebody in the cell and as somebody outside, where records of policy
// may leave and where they may not.
func TestWhatWasSeenOfOthersLeavesAsPolicyRecordsDo(t *testing.T) {
	const own, other = "did:web:own", "did:web:other"
	check := func(party, value string) adminapi.Check {
		return adminapi.Check{Path: "$", LeftOperand: "Level", Operator: "gteq", RightOperand: json.RawMessage(`"7"`), Party: party, Value: value, CredentialType: "Attestation",
			Credential: "urn:" + value, Sentence: "the level is at least 7", Reason: "seen " + value, Remedy: value + " is too low",
			DE: &adminapi.CheckWords{Sentence: value + " ist mindestens 7", Reason: "gesehen " + value, Remedy: "anheben"}}
	}
	denied := adminapi.Trace{Checks: []adminapi.Check{check(own, "own-3"), check(other, "secret-4"),
		{Party: other, CredentialType: "Attestation", Sentence: "holds an attestation", Reason: "presented no Attestation"}}}
	reason := func() *adminapi.Reason {
		return &adminapi.Reason{Code: "policy-denied", By: "own", Message: odrl.Reason(denied, "")}
	}
	answers := map[string]func() any{
		"a negotiation": func() any { return adminapi.Negotiation{Reason: reason(), Traces: []adminapi.Trace{denied}} },
		"a transfer":    func() any { return adminapi.Transfer{Reason: reason(), Traces: []adminapi.Trace{denied}} },
		"negotiations":  func() any { return []adminapi.Negotiation{{Reason: reason()}} },
		"transfers":     func() any { return []adminapi.Transfer{{Reason: reason(), Traces: []adminapi.Trace{denied}}} },
		"a summary": func() any {
			return adminapi.Summary{LastFailure: &adminapi.Negotiation{Reason: reason(), Traces: []adminapi.Trace{denied}}}
		},
	}
	for name, c := range map[string]struct {
		actor   string
		leaving []string
		shows   bool
	}{"inside": {"", audit.Leaving, true}, "outside": {"user:anna", audit.Leaving, false}, "outside where policy records leave": {"user:anna", audit.Types, true}} {
		for what, answer := range answers {
			s := &server{Deps{AuditLeaving: c.leaving}}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.actor != "" {
				r.Header.Set(adminapi.ActorHeader, c.actor)
			}
			raw, err := json.Marshal(s.leaving(r, &store.Participant{DID: own}, answer()))
			if err != nil {
				t.Fatal(err)
			}
			got, shows := string(raw), c.shows && what != "a summary"
			if strings.Contains(got, "secret-4") != shows {
				t.Errorf("%s, %s: %s", name, what, got)
			}
			if !strings.Contains(got, `"code":"policy-denied"`) {
				t.Errorf("%s, %s: the verdict is gone: %s", name, what, got)
			}
			if what == "negotiations" { // which have no traces to make the denial of
				continue
			}
			for _, part := range []string{"own-3", "the level is at least 7", "presented no Attestation"} {
				if !strings.Contains(got, part) {
					t.Errorf("%s, %s lacks %q: %s", name, what, part, got)
				}
			}
		}
	}
	if !strings.Contains(odrl.Reason(denied, ""), "secret-4") || denied.Checks[1].DE.Sentence != "secret-4 ist mindestens 7" {
		t.Errorf("the trace itself was changed: %+v", denied)
	}
}
