// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/profile"
)

func TestPurposeIsWhatTheAgreementSays(t *testing.T) {
	e := evaluator(t)
	purpose := func(op, right string) string { return atom(vocab+"Purpose", op, right) }
	either := permit(`{"or":[{"and":[` + purpose("eq", `"recall"`) + `]},{"and":[` + purpose("eq", `"pcf"`) + `,` + purpose("isNoneOf", `["pcf"]`) + `]}]}`)
	for _, c := range []struct {
		name, policy string
		stated       []string // nil: what the policy says
		allowed      []string
	}{
		{"one", permit(purpose("eq", `"recall"`)), nil, []string{"recall"}},
		{"several", permit(purpose("isAnyOf", `["recall","pcf"]`)), nil, []string{"recall", "pcf"}},
		{"several, one stated", permit(purpose("isAnyOf", `["recall","pcf"]`)), []string{"pcf"}, []string{"pcf"}},
		{"another", permit(purpose("eq", `"recall"`)), []string{"marketing"}, nil},
		{"another beside", permit(purpose("eq", `"recall"`)), []string{"marketing", "recall"}, []string{"recall"}},
		{"none", permit(purpose("eq", `"recall"`)), []string{}, nil},
		{"excluded ones are not stated", permit(purpose("isNoneOf", `["marketing"]`)), nil, nil},
		{"an alternative that fails", either, nil, []string{"recall"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := request(t, c.policy)
			req.Phase, req.Purposes = profile.PhaseTransfer, c.stated
			got := e.Evaluate(t.Context(), req)
			if got.Allowed != (c.allowed != nil) || !slices.Equal(got.Purposes, c.allowed) {
				t.Errorf("allowed %v for %q, want %q: %+v", got.Allowed, got.Purposes, c.allowed, got.Checks)
			}
		})
	}
	req := request(t, permit(purpose("eq", `"recall"`)))
	req.Phase, req.Purposes = profile.PhaseTransfer, []string{"marketing"}
	if r := Reason(e.Evaluate(t.Context(), req), ""); !strings.Contains(r, "seen marketing, needed exactly recall") {
		t.Errorf("reason %q", r)
	}
	req.Purposes = []string{}
	if r := Reason(e.Evaluate(t.Context(), req), ""); !strings.Contains(r, "purpose was not stated") {
		t.Errorf("reason %q", r)
	}
}

func TestEachAccess(t *testing.T) {
	e := evaluator(t)
	policy := parsed(t, `{"permission":{"action":"use","constraint":[`+atom(vocab+"Method", "isAnyOf", `["GET","HEAD"]`)+`,`+atom("Membership", "eq", `"active"`)+`],"duty":{"action":"recordAccess"}}}`)
	if judged, types := e.Access(policy); !judged || len(types) != 0 || !e.Recorded(policy) {
		t.Errorf("judged %v, on %v, recorded %v", judged, types, e.Recorded(policy))
	}
	if judged, _ := e.Access(parsed(t, permit(atom("Membership", "eq", `"active"`)))); judged || e.Recorded(parsed(t, permit())) {
		t.Error("nothing of it is for the access")
	}
	for method, want := range map[string]bool{"GET": true, "DELETE": false} {
		req := request(t, permit())
		req.Policy, req.Phase, req.Request = policy, profile.PhaseAccess, map[string]string{"method": method}
		got := e.Evaluate(t.Context(), req)
		if got.Allowed != want || len(got.Checks) != 2 || got.Checks[1].Sentence != "Every access is recorded or refused." || got.Checks[1].DE.Sentence != "Jeder Zugriff wird aufgezeichnet oder verweigert." {
			t.Errorf("%s: %+v", method, got)
		}
	}
}
