// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/profile"
)

func TestCheck(t *testing.T) {
	e := evaluator(t)
	yes, purpose := atom("Membership", "eq", `"active"`), atom(vocab+"Purpose", "isAnyOf", `["pcf"]`)
	for _, c := range []struct {
		name, policy string
		want         []string // each must stand in the error
	}{
		{name: "good", policy: permit(yes, atom("AttestationAge", "lt", `"P12M"`), purpose)},
		{name: "access", policy: `{"permission":{"action":"access","constraint":` + yes + `}}`, want: []string{"$.permission[0].action: the action access can't be evaluated here: write use"}},
		{name: "access beside use", policy: `{"permission":[{"action":"use","constraint":` + yes + `},{"action":["use","access"],"constraint":` + yes + `}]}`, want: []string{"$.permission[1].action: "}},
		{name: "unconditioned beside conditioned", policy: `{"permission":[{"action":"use","constraint":` + yes + `},{"action":"use"}]}`, want: []string{"$.permission[1]: it permits use without a condition"}},
		{name: "for one company", policy: `{"assignee":"did:web:only.this","permission":{"action":"use"}}`, want: []string{"$.assignee: that the policy is for did:web:only.this alone is not evaluated"}},
		{name: "undeclared operand", policy: permit(yes, `{"and":[`+atom("Region", "eq", `"EU"`)+`]}`),
			want: []string{`$.permission[0].constraint[1].and[0].leftOperand: "Region" is not declared in the dataspace profile pilot; declared are`, vocab + "AttestationAge"}},
		{name: "unsupported operator", policy: permit(atom("AttestationAge", "eq", `"P12M"`)),
			want: []string{`$.permission[0].constraint[0].operator: ` + vocab + `AttestationAge does not support the operator "eq"; it supports lt, lteq, gt, gteq`}},
		{name: "wrong type", policy: permit(atom("AttestationAge", "lt", `"2026-01-01"`)), want: []string{`$.permission[0].constraint[0].rightOperand: "2026-01-01" is not an ISO 8601 duration`}},
		{name: "bare number", policy: permit(atom(vocab+"Share", "gteq", `60`)), want: []string{`constraint[0].rightOperand`, `write "60"`}},
		{name: "each access", policy: permit(atom(vocab+"EveryAccess", "eq", `"x"`))},
		{name: "no phase", policy: permit(atom(vocab+"Seen", "eq", `"x"`)), want: []string{`$.permission[0].constraint[0]: `, "no phase evaluates it here", "access policy"}},
		{name: "duty that connectors fulfil", policy: `{"permission":{"action":"use","duty":{"action":"recordAccess"}},"obligation":{"action":{"@id":"` + vocab + `recordAccess"}}}`},
		{name: "alternatives of different phases", policy: permit(`{"or":[` + yes + `,` + purpose + `]}`), want: []string{"$.permission[0].constraint[0].or: ", "not evaluated in the same phases"}},
		{name: "permissions of different phases", policy: `{"permission":[{"action":"use","constraint":` + yes + `},{"action":"use","constraint":` + purpose + `}]}`, want: []string{"$.permission: "}},
		{name: "prohibition of different phases", policy: `{"permission":{"action":"use"},"prohibition":{"action":"use","constraint":[` + yes + `,` + purpose + `]}}`, want: []string{"$.prohibition[0]: "}},
		{name: "unknown action", policy: `{"permission":{"action":"sell"}}`, want: []string{"$.permission[0].action: the action sell"}},
		{name: "nothing permitted", policy: `{}`, want: []string{"$.permission: the policy permits nothing"}},
		{name: "duty", policy: `{"permission":{"action":"use","duty":{"action":"inform"}},"obligation":{"action":"delete"}}`,
			want: []string{"$.permission[0].duty[0]: nothing fulfils the duty inform", "$.obligation[0]: nothing fulfils the duty delete"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := e.Check(parsed(t, c.policy))
			if (err == nil) != (c.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
			var at *Error
			if err != nil && (!errors.As(err, &at) || !strings.HasPrefix(at.Path, "$")) {
				t.Errorf("%v names no path", err)
			}
		})
	}
}

func TestCheckOfAnAccessPolicy(t *testing.T) {
	e := evaluator(t)
	for policy, want := range map[string]string{
		permit(atom(vocab+"Seen", "isNoneOf", `["x"]`), atom("Membership", "eq", `"active"`)):          "",
		`{"permission":{"action":"access","constraint":` + atom("Membership", "eq", `"active"`) + `}}`: "",
		permit(atom("AttestationAge", "lt", `"P12M"`)):                                                 "$.permission[0].constraint[0]: " + "AttestationAge: no phase evaluates it here: an access policy is about the consumer",
		permit(atom(vocab+"Purpose", "eq", `"pcf"`)):                                                   "no phase evaluates it here: an access policy is evaluated in the catalog, and the operand is declared for transfer",
	} {
		if err := e.CheckAccess(parsed(t, policy)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", policy, err, want)
		}
	}
}

func TestProfileIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p *profile.Profile)
		want   string
	}{
		{"no name", func(p *profile.Profile) { p.Name = "" }, "$.name"},
		{"issuer that is no DID", func(p *profile.Profile) { p.TrustedIssuers[0].DID = "https://x" }, `$.trustedIssuers[0].did: "https://x" is not a DID`},
		{"issuer of nothing", func(p *profile.Profile) { p.TrustedIssuers[1].Types = nil }, "$.trustedIssuers[1].types"},
		{"required credential that nobody issues", func(p *profile.Profile) { p.RequiredCredentials = []string{"X"} }, "$.requiredCredentials[0]: no issuer is trusted for X"},
		{"operand name", func(p *profile.Profile) { p.Operands[0].Name = "Age" }, "$.operands[0].name"},
		{"declared twice", func(p *profile.Profile) { p.Operands[1].Aliases = []string{"AttestationAge"} }, "$.operands[1].aliases[0]"},
		{"subject", func(p *profile.Profile) { p.Operands[0].Subject = "both" }, `$.operands[0].subject: "both" is neither`},
		{"credential that nobody issues", func(p *profile.Profile) { p.Operands[0].Credential = "X" }, "$.operands[0].credential"},
		{"value type", func(p *profile.Profile) { p.Operands[0].ValueType = "colour" }, `$.operands[0].valueType: "colour" is not a value type: use age, bool, number, string, strings, timestamp`},
		{"operator", func(p *profile.Profile) { p.Operands[0].Operators = []string{"lt", "near"} }, `$.operands[0].operators[1]: "near" can't compare a age`},
		{"no operator", func(p *profile.Profile) { p.Operands[0].Operators = nil }, "$.operands[0].operators"},
		{"no phase", func(p *profile.Profile) { p.Operands[0].Phases = nil }, "$.operands[0].phases: the operand is evaluated in no phase"},
		{"phase", func(p *profile.Profile) { p.Operands[0].Phases = []profile.Phase{"dawn"} }, `$.operands[0].phases[0]: "dawn"`},
		{"no sentence", func(p *profile.Profile) { p.Operands[0].Sentence.EN = "" }, "$.operands[0].sentence.en"},
		{"no expression", func(p *profile.Profile) { p.Operands[0].Expression = "" }, "$.operands[0].expression"},
		{"purpose that no token is bound to", func(p *profile.Profile) { p.Operands[6].Phases = []profile.Phase{profile.PhaseNegotiation} }, "$.operands[6].purpose: a purpose of use is"},
		{"duty that nothing fulfils", func(p *profile.Profile) { p.Duties[0].Fulfilment = "hope" }, `$.duties[0].fulfilment: "hope" is not a way to fulfil a duty`},
		{"duty declared twice", func(p *profile.Profile) { p.Duties[0].Aliases = []string{vocab + "recordAccess"} }, "$.duties[0].aliases[0]"},
		{"CEL syntax", func(p *profile.Profile) { p.Operands[0].Expression = "credential.(" }, "$.operands[0].expression: not a valid CEL expression"},
		{"CEL variable", func(p *profile.Profile) { p.Operands[0].Expression = "holder.age" }, "$.operands[0].expression: not a valid CEL expression"},
		{"CEL type", func(p *profile.Profile) { p.Operands[0].Expression = "1 + 1" }, "$.operands[0].expression: the expression yields int, which is not a age"},
		{"reads a credential that it does not declare", func(p *profile.Profile) { p.Operands[0].Credential = "" }, "$.operands[0].expression: the expression reads credential"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pilot()
			c.change(&p)
			if _, err := NewEvaluator(p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestSentences(t *testing.T) {
	e := evaluator(t)
	yes := atom("Membership", "eq", `"active"`)
	p := parsed(t, `{"permission":{"action":"use","constraint":[`+atom("AttestationAge", "lt", `"P1Y6M"`)+`,{"or":[`+yes+`,`+atom("https://x.example/y", "isAnyOf", `["1","2"]`)+`]}]},
		"prohibition":{"action":"use","constraint":[`+atom("AttestationAge", "lt", `"P1D"`)+`,`+yes+`]},"obligation":{"action":"inform"}}`)
	en := []string{"The provider's attestation is younger than 1 year 6 months.", "the buyer's membership is active or https://x.example/y: one of 1, 2",
		"prohibited when: The provider's attestation is younger than 1 day and the buyer's membership is active", "duty: inform"}
	if got := e.Sentences(p, "en"); !slices.Equal(got, en) {
		t.Errorf("%q", got)
	}
	de := []string{"die Prüfung des Anbieters ist jünger als 1 Jahr 6 Monate", "the buyer's membership is active oder https://x.example/y: eines von 1, 2",
		"verboten, wenn: die Prüfung des Anbieters ist jünger als 1 Tag und the buyer's membership is active", "Pflicht: inform"}
	if got := e.Sentences(p, "de"); !slices.Equal(got, de) {
		t.Errorf("%q", got)
	}
	for raw, want := range map[string]string{`{}`: "[nothing is permitted]", permit(): "[use is permitted without condition]",
		permit(`{"xone":[` + yes + `,` + yes + `]}`): "[exactly one of: the buyer's membership is active; the buyer's membership is active]"} {
		if got := fmt.Sprint(e.Sentences(parsed(t, raw), "en")); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}
