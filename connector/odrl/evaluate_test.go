// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

const young = `"P12M"`

func TestAge(t *testing.T) {
	e := evaluator(t)
	for _, c := range []struct {
		name      string
		completed any
		op, right string
		now       time.Time
		want      bool
		reason    string
	}{
		{name: "364 days old", completed: now.AddDate(0, 0, -364).Format(time.RFC3339), op: "lt", right: "P12M", want: true},
		{name: "366 days old", completed: now.AddDate(0, 0, -366).Format(time.RFC3339), op: "lt", right: "P12M", reason: "seen 2025-03-30T12:00:00Z, which counted until 2026-03-30T12:00:00Z"},
		{name: "exactly twelve months old", completed: "2025-03-31T12:00:00Z", op: "lt", right: "P12M", reason: "which counted until 2026-03-31T12:00:00Z"},
		{name: "a second less than twelve months", completed: "2025-03-31T12:00:01Z", op: "lt", right: "P12M", want: true},
		{name: "exactly twelve months old, lteq", completed: "2025-03-31T12:00:00Z", op: "lteq", right: "P12M", want: true},
		{name: "364 days across a leap day", completed: "2024-02-01T00:00:00Z", op: "lt", right: "P12M", now: time.Date(2025, 1, 30, 0, 0, 0, 0, time.UTC), want: true},
		{name: "365 days across a leap day are no year yet", completed: "2024-02-01T00:00:00Z", op: "lt", right: "P12M", now: time.Date(2025, 1, 31, 0, 0, 0, 0, time.UTC), want: true},
		{name: "366 days across a leap day are a year", completed: "2024-02-01T00:00:00Z", op: "lt", right: "P12M", now: time.Date(2025, 2, 1, 0, 0, 0, 0, time.UTC), reason: "which counted until 2025-02-01"},
		{name: "of a leap day, until 28 February", completed: "2024-02-29T10:00:00Z", op: "lt", right: "P12M", now: time.Date(2025, 2, 28, 9, 59, 59, 0, time.UTC), want: true},
		{name: "of a leap day, from 28 February", completed: "2024-02-29T10:00:00Z", op: "lt", right: "P1Y", now: time.Date(2025, 2, 28, 10, 0, 0, 0, time.UTC), reason: "which counted until 2025-02-28T10:00:00Z"},
		{name: "a date without time", completed: "2025-06-01", op: "lt", right: "P12M", want: true},
		{name: "a date with a zone", completed: "2025-03-31T14:30:00+02:00", op: "lt", right: "P12M", want: true},
		{name: "old enough", completed: "2025-01-01", op: "gt", right: "P6M", want: true},
		{name: "too young", completed: "2026-03-01", op: "gteq", right: "P6M", reason: "which counts only after 2026-09-01"},
		{name: "in the future", completed: "2099-01-01", op: "lt", right: "P12M", reason: "lies in the future"},
		{name: "not a date", completed: "last spring", op: "lt", right: "P12M", reason: `"last spring" is not a date`},
		{name: "not even text", completed: true, op: "lt", right: "P12M", reason: "the value seen is a bool"},
		{name: "without the date", op: "lt", right: "P12M", reason: "the QualityAttestationCredential has no claim completedAt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims := map[string]any{}
			if c.completed != nil {
				claims["completedAt"] = c.completed
			}
			req := request(t, permit(atom(vocab+"AttestationAge", c.op, `"`+c.right+`"`)))
			req.Provider = attested(claims)
			if !c.now.IsZero() {
				req.Now = c.now
				req.Provider.Credentials[1].ValidFrom = c.now.AddDate(0, -1, 0)
			}
			got := e.Evaluate(t.Context(), req)
			if got.Allowed != c.want || len(got.Checks) != 1 {
				t.Fatalf("allowed %v, want %v: %+v", got.Allowed, c.want, got.Checks)
			}
			if de := got.Checks[0].DE; de == nil || (de.Reason == "") != c.want || !c.want && de.Reason == got.Checks[0].Reason {
				t.Errorf("in German: %+v", de)
			}
			if r := got.Checks[0].Reason; !strings.Contains(r, c.reason) || (r == "") != c.want {
				t.Errorf("reason %q, want it to contain %q", r, c.reason)
			}
		})
	}
}

func TestCredentialThatDoesNotCount(t *testing.T) {
	e := evaluator(t)
	for _, c := range []struct {
		name   string
		change func(a *identity.Agent)
		reason string
	}{
		{"missing", func(a *identity.Agent) { a.Credentials = a.Credentials[:1] }, supplier + " presented no QualityAttestationCredential"},
		{"self-issued", func(a *identity.Agent) { a.Credentials[1].Issuer = supplier }, "was issued by " + supplier + ", which the dataspace profile does not trust for it; trusted: " + auditor},
		{"issuer trusted for another type", func(a *identity.Agent) { a.Credentials[1].Issuer = authority }, "which the dataspace profile does not trust"},
		{"expired meanwhile", func(a *identity.Agent) { a.Credentials[1].ValidUntil = now }, "has expired"},
		{"not valid yet", func(a *identity.Agent) { a.Credentials[1].ValidFrom = now.AddDate(0, 0, 1) }, "is not valid yet"},
		{"refused as revoked", func(a *identity.Agent) {
			a.Credentials = a.Credentials[:1]
			a.Refused = []identity.Refusal{{Type: "QualityAttestationCredential", Issuer: auditor, Code: "revoked", Reason: "status list 4, index 7"}}
		}, "has been revoked by its issuer " + auditor + " (status list 4, index 7)"},
		{"refused for a reason of a later version", func(a *identity.Agent) {
			a.Credentials = a.Credentials[:1]
			a.Refused = []identity.Refusal{{Type: "QualityAttestationCredential", Issuer: auditor, Code: "moon-phase"}}
		}, "does not count (moon-phase)"},
		{"unknown party", nil, "the provider is not known here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := request(t, permit(atom("AttestationAge", "lt", young)))
			if c.change == nil {
				req.Provider = nil
			} else {
				c.change(req.Provider)
			}
			got := e.Evaluate(t.Context(), req)
			if got.Allowed {
				t.Fatalf("allowed: %+v", got)
			}
			if de := got.Checks[0].DE; de == nil || de.Reason == "" || de.Reason == got.Checks[0].Reason || de.Remedy != "Beim Prüfer eine neue Prüfung beantragen." {
				t.Errorf("in German: %+v", de)
			}
			if check := got.Checks[0]; !strings.Contains(check.Reason, c.reason) || check.Remedy != "Ask the auditor for a new attestation." {
				t.Errorf("reason %q, want %q; remedy %q", check.Reason, c.reason, check.Remedy)
			}
		})
	}
}

func TestNewestCredentialDecides(t *testing.T) {
	req := request(t, permit(atom("AttestationAge", "lt", young)))
	old := req.Provider.Credentials[1]
	old.ID, old.ValidFrom, old.Subject = "urn:uuid:a0", now.AddDate(-2, 0, 0), map[string]any{"completedAt": "2024-01-01"}
	req.Provider.Credentials = append(req.Provider.Credentials, old)
	got := evaluator(t).Evaluate(t.Context(), req)
	if !got.Allowed || got.Checks[0].Credential != "urn:uuid:a1" {
		t.Errorf("%+v", got)
	}
}

func TestOperators(t *testing.T) {
	e := evaluator(t)
	for _, c := range []struct {
		left, op, right string
		want            bool
	}{
		{"Share", "gteq", `"60"`, true}, {"Share", "gteq", `"62.50"`, true}, {"Share", "gteq", `"62.6"`, false}, {"Share", "lt", `"1e2"`, true},
		{"Share", "eq", `{"@value":"62.5","@type":"xsd:decimal"}`, true}, {"Share", "isAnyOf", `["1","62.5"]`, true}, {"Share", "isAnyOf", `["1","2"]`, false},
		{"Share", "gteq", `60`, true},
		{"Standards", "isAllOf", `["ISO 14067","PCR 2024"]`, true}, {"Standards", "isAllOf", `["ISO 14067","ISO 9001"]`, false},
		{"Standards", "hasPart", `"ISO 14067"`, true}, {"Standards", "isAnyOf", `["ISO 9001","PCR 2024"]`, true}, {"Standards", "isAnyOf", `["ISO 9001"]`, false},
		{"Standards", "isNoneOf", `["ISO 9001"]`, true}, {"Standards", "isNoneOf", `["PCR 2024"]`, false}, {"Standards", "isPartOf", `["ISO 14067","PCR 2024","X"]`, true},
		{"Standards", "isPartOf", `["ISO 14067"]`, false}, {"Standards", "eq", `["PCR 2024","ISO 14067"]`, true}, {"Standards", "eq", `["PCR 2024"]`, false},
		{"Standards", "neq", `["PCR 2024"]`, true},
		{"Accredited", "eq", `"true"`, true}, {"Accredited", "neq", `"true"`, false}, {"Accredited", "eq", `"false"`, false},
		{"Completed", "gt", `"2026-01-01"`, true}, {"Completed", "lt", `"2026-01-15T09:00:00Z"`, false},
		{"Membership", "eq", `"active"`, true}, {"Membership", "neq", `"active"`, false}, {"Membership", "isAnyOf", `["active","founding"]`, true},
		{"Membership", "isNoneOf", `["none"]`, true}, {"Membership", "odrl:isAnyOf", `"active"`, true}, {"Membership", Namespace + "eq", `"active"`, true},
		{"Membership", "EQ", `"active"`, true}, {"Membership", "IN", `["active"]`, true},
	} {
		left := c.left
		if left != "Membership" {
			left = vocab + left
		}
		got := e.Evaluate(t.Context(), request(t, permit(atom(left, c.op, c.right))))
		if got.Allowed != c.want {
			t.Errorf("%s %s %s: allowed %v, want %v: %s", c.left, c.op, c.right, got.Allowed, c.want, Reason(got, ""))
		}
	}
}

func TestDenials(t *testing.T) {
	yes, no := atom("Membership", "eq", `"active"`), atom("Membership", "eq", `"founding"`)
	young := atom("AttestationAge", "lt", `"P12M"`)
	purpose := atom(vocab+"Purpose", "isAnyOf", `["pcf"]`)
	logical := func(op string, of ...string) string { return fmt.Sprintf(`{%q:[%s]}`, op, strings.Join(of, ",")) }
	prohibit := func(cs ...string) string {
		return `{"@type":"Set","permission":[{"action":"use"}],"prohibition":[{"action":"use","constraint":[` + strings.Join(cs, ",") + `]}]}`
	}
	unknown := atom("https://example.com/Region", "eq", `"EU"`)
	for _, c := range []struct {
		name, policy string
		phase        profile.Phase
		want         bool
		reason       string
	}{
		{name: "everything holds", policy: permit(yes, young), want: true},
		{name: "no constraint", policy: permit(), want: true},
		{name: "no permission", policy: `{"@type":"Set"}`, reason: "no permission to use"},
		{name: "permission for something else", policy: `{"permission":[{"action":"odrl:print"}]}`, reason: "no permission to use"},
		{name: "one of two fails", policy: permit(yes, no), reason: "seen active, needed exactly founding"},
		{name: "undeclared operand", policy: permit(unknown), reason: "is not declared in the dataspace profile pilot; declared are " + vocab},
		{name: "undeclared operand in a phase that evaluates nothing", policy: permit(unknown), phase: profile.PhaseAccess, reason: "is not declared"},
		{name: "unsupported operator", policy: permit(atom("Membership", "gt", `"a"`)), reason: `does not support the operator "gt"; it supports eq, neq`},
		{name: "unsupported operator outside its phases", policy: permit(atom(vocab+"Purpose", "neq", `"pcf"`)), reason: `does not support the operator "neq"`},
		{name: "right operand of the wrong type", policy: permit(atom(vocab+"Share", "gteq", `"most"`)), reason: `"most" is not a number`},
		{name: "right operand that is no duration", policy: permit(atom("AttestationAge", "lt", `"12 months"`)), reason: "not an ISO 8601 duration"},
		{name: "two values for an operator that takes one", policy: permit(atom("Membership", "eq", `["active","x"]`)), reason: "use isAnyOf"},
		{name: "expression that is too costly", policy: permit(atom(vocab+"Endless", "eq", `"true"`)), reason: "could not be evaluated"},
		{name: "purpose is left to the transfer", policy: permit(purpose), want: true},
		{name: "or, one holds", policy: permit(logical("or", no, young)), want: true},
		{name: "or, none holds", policy: permit(logical("or", no, no)), reason: "needed exactly founding"},
		{name: "or, one undeclared beside one that holds", policy: permit(logical("or", unknown, yes)), want: true},
		{name: "or over different phases", policy: permit(logical("or", yes, purpose)), reason: "not evaluated in the phase negotiation"},
		{name: "xone, exactly one", policy: permit(logical("xone", no, young)), want: true},
		{name: "xone, two", policy: permit(logical("xone", yes, young)), reason: "more than one holds"},
		{name: "xone with an undecided one", policy: permit(logical("xone", yes, unknown)), reason: "is not declared"},
		{name: "and", policy: permit(logical("and", yes, young)), want: true},
		{name: "and, one fails", policy: permit(logical("and", yes, no)), reason: "needed exactly founding"},
		{name: "andSequence", policy: permit(logical("andSequence", yes, young)), want: true},
		{name: "nested", policy: permit(logical("or", logical("and", no, young), logical("and", yes, young))), want: true},
		{name: "several permissions, one holds", policy: `{"permission":[{"action":"use","constraint":` + no + `},{"action":"use","constraint":` + yes + `}]}`, want: true},
		{name: "several permissions, none holds", policy: `{"permission":[{"action":"use","constraint":` + no + `},{"action":"use","constraint":` + no + `}]}`, reason: "founding"},
		{name: "several permissions of different phases", policy: `{"permission":[{"action":"use","constraint":` + no + `},{"action":"use","constraint":` + purpose + `}]}`, reason: "evaluated together"},
		{name: "prohibition that does not apply", policy: prohibit(no), want: true},
		{name: "prohibition that applies", policy: prohibit(yes), reason: "the prohibition applies: seen active"},
		{name: "prohibition of which one constraint does not apply", policy: prohibit(yes, no), want: true},
		{name: "prohibition that can't be judged", policy: prohibit(unknown), reason: "is not declared"},
		{name: "prohibition that can't be judged but surely does not apply", policy: prohibit(unknown, no), want: true},
		{name: "prohibition of another phase", policy: prohibit(purpose), want: true},
		{name: "prohibition over different phases", policy: prohibit(yes, purpose), reason: "not evaluated in the phase"},
		{name: "prohibition without condition", policy: `{"permission":[{"action":"use"}],"prohibition":[{"action":"use"}]}`, reason: "prohibits it without condition"},
		{name: "prohibition of something that can't be judged", policy: `{"permission":[{"action":"use"}],"prohibition":[{"action":"distribute"}]}`, reason: "only prohibitions of use"},
		{name: "obligation that holds", policy: `{"permission":[{"action":"use"}],"obligation":[{"action":"use","constraint":` + yes + `}]}`, want: true},
		{name: "obligation that fails", policy: `{"permission":[{"action":"use"}],"obligation":[{"action":"use","constraint":` + no + `}]}`, reason: "founding"},
		{name: "obligation that nothing fulfils", policy: `{"permission":[{"action":"use"}],"obligation":[{"action":"compensate"}]}`, reason: "nothing that fulfils it"},
		{name: "duty of a permission that fails", policy: `{"permission":[{"action":"use","duty":[{"action":"use","constraint":` + no + `}]}]}`, reason: "founding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := request(t, c.policy)
			if c.phase != "" {
				req.Phase = c.phase
			}
			got := evaluator(t).Evaluate(t.Context(), req)
			if got.Allowed != c.want || !strings.Contains(Reason(got, ""), c.reason) || (Reason(got, "") == "") != c.want {
				t.Errorf("allowed %v, want %v; reason %q, want %q; %+v", got.Allowed, c.want, Reason(got, ""), c.reason, got.Checks)
			}
		})
	}
	if got := evaluator(t).Evaluate(t.Context(), Request{Phase: profile.PhaseNegotiation}); got.Allowed {
		t.Error("no policy at all is allowed")
	}
}

func TestSubjects(t *testing.T) {
	both := permit(atom("Membership", "eq", `"founding"`), atom("AttestationAge", "lt", young))
	either := permit(`{"or":[` + atom("Membership", "eq", `"active"`) + `,` + atom("AttestationAge", "lt", `"P1D"`) + `]}`)
	for _, c := range []struct {
		name, policy string
		subjects     []profile.Subject
		want         bool
		checks       int
	}{
		{"both", both, nil, false, 2},
		{"only the provider", both, []profile.Subject{profile.SubjectProvider}, true, 1},
		{"only the consumer", both, []profile.Subject{profile.SubjectConsumer}, false, 1},
		{"an alternative is judged whole", either, []profile.Subject{profile.SubjectProvider}, true, 2},
	} {
		req := request(t, c.policy)
		req.Subjects = c.subjects
		if got := evaluator(t).Evaluate(t.Context(), req); got.Allowed != c.want || len(got.Checks) != c.checks {
			t.Errorf("%s: allowed %v with %d checks: %+v", c.name, got.Allowed, len(got.Checks), got)
		}
	}
}

func TestTrace(t *testing.T) {
	req := request(t, permit(atom("AttestationAge", "lt", young)))
	req.Provider = attested(map[string]any{"completedAt": "2024-11-05"})
	got := evaluator(t).Evaluate(t.Context(), req)
	c := got.Checks[0]
	if got.Phase != profile.PhaseNegotiation || got.By != buyer || !got.At.Equal(now) || got.Policy != Hash(req.Policy) {
		t.Errorf("head: %+v", got)
	}
	if c.Path != "$.permission[0].constraint[0]" || c.Subject != profile.SubjectProvider || c.Party != supplier || c.Value != "2024-11-05T00:00:00Z" ||
		c.Credential != "urn:uuid:a1" || string(c.RightOperand) != young || c.Operator != "lt" {
		t.Errorf("check: %+v", c)
	}
	want := "not met: The provider's attestation is younger than 12 months: seen 2024-11-05T00:00:00Z, which counted until 2025-11-05T00:00:00Z. Ask the auditor for a new attestation"
	if Reason(got, "") != want {
		t.Errorf("reason\n%s, want\n%s", Reason(got, ""), want)
	}
	want = "nicht erfüllt: die Prüfung des Anbieters ist jünger als 12 Monate: gesehen 2024-11-05T00:00:00Z, das galt bis 2025-11-05T00:00:00Z. Beim Prüfer eine neue Prüfung beantragen"
	if got := Reason(evaluator(t).Evaluate(t.Context(), req), "de"); got != want {
		t.Errorf("reason\n%s, want\n%s", got, want)
	}
}

func TestMembership(t *testing.T) {
	e := evaluator(t)
	if got := e.Membership(*member()); !got.Allowed || got.Checks[0].Credential != "urn:uuid:m2" {
		t.Errorf("%+v", got)
	}
	got := e.Membership(identity.Agent{ID: buyer, Refused: []identity.Refusal{{Type: "MembershipCredential", Issuer: authority, Code: "expired"}}})
	want := "not met: holds a valid MembershipCredential: the MembershipCredential issued by " + authority + " has expired. Request a current MembershipCredential from " + authority
	if got.Allowed || Reason(got, "") != want {
		t.Errorf("allowed %v: %s", got.Allowed, Reason(got, ""))
	}
}

func TestScopes(t *testing.T) {
	e := evaluator(t)
	p := parsed(t, permit(atom("Membership", "eq", `"active"`), atom("AttestationAge", "lt", young)))
	membership, quality := identity.TypeScope("MembershipCredential"), identity.TypeScope("QualityAttestationCredential")
	for _, c := range []struct {
		policy  *Policy
		subject profile.Subject
		want    []string
	}{{p, profile.SubjectProvider, []string{membership, quality}}, {p, profile.SubjectConsumer, []string{membership}}, {nil, profile.SubjectProvider, []string{membership}}} {
		if got := e.Scopes(c.policy, c.subject); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.subject, got, c.want)
		}
	}
}

func TestPermissionToSeeIsNoneToUse(t *testing.T) {
	e := evaluator(t)
	for policy, allowed := range map[string]bool{
		`{"permission":[{"action":"access"},{"action":"use","constraint":` + atom("AttestationAge", "lt", `"P12M"`) + `}]}`: false,
		`{"permission":[{"action":"access"}]}`: true, // an access policy
	} {
		r := request(t, policy)
		r.Provider = attested(map[string]any{})
		if got := e.Evaluate(t.Context(), r); got.Allowed != allowed {
			t.Errorf("%s: allowed %t", policy, got.Allowed)
		}
	}
}
