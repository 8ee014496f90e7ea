// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"encoding/json"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
)

// fuzzing reports whether inputs are searched for. How long the seeds of an ordinary test take says more of the machine than of them.
func fuzzing() bool { return flag.Lookup("test.fuzz").Value.String() != "" }

// FuzzOperand: an operand's expression is refused by path, or is evaluated within its bounds; what has no value denies in either direction.
func FuzzOperand(f *testing.F) {
	for _, o := range pilot().Operands {
		f.Add(o.Expression, string(o.ValueType), "2026-01-01T00:00:00Z")
	}
	f.Add(`credentials.map(c, c.subject).size()`, "number", "1")
	f.Add(`credential.subject[?"a"].orValue("x") + party.id`, "string", "x")
	f.Add(`"a".matches("(a+)+$")`, "bool", "true")
	f.Add(`[0].map(x, [x, x].map(y, [y, y].map(z, z)))`, "strings", "x")
	f.Fuzz(func(t *testing.T, expression, valueType, right string) {
		p := pilot()
		p.Operands = []profile.Operand{{Name: vocab + "X", Subject: profile.SubjectConsumer, Credential: "MembershipCredential", Expression: expression,
			ValueType: profile.ValueType(valueType), Operators: []string{"eq"}, Phases: []profile.Phase{profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "x"}}}
		if p.Operands[0].ValueType == profile.ValueAge {
			p.Operands[0].Operators = []string{"lt"}
		}
		e, err := NewEvaluator(p)
		if err != nil {
			var at *Error
			if !errors.As(err, &at) || at.Path == "" {
				t.Fatalf("refused without a path: %v", err)
			}
			return
		}
		value, err := json.Marshal(right)
		if err != nil {
			return
		}
		constraint := `{"leftOperand":"` + vocab + `X","operator":"` + p.Operands[0].Operators[0] + `","rightOperand":` + string(value) + `}`
		permission, err := Parse(json.RawMessage(`{"permission":[{"action":"use","constraint":[` + constraint + `]}]}`))
		if err != nil {
			return // an empty text
		}
		prohibition, err := Parse(json.RawMessage(`{"permission":[{"action":"use"}],"prohibition":[{"action":"use","constraint":[` + constraint + `]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		permits := e.Evaluate(t.Context(), Request{Policy: permission, Phase: "negotiation", Consumer: member(), Now: now})
		forbids := e.Evaluate(t.Context(), Request{Policy: prohibition, Phase: "negotiation", Consumer: member(), Now: now})
		if d := time.Since(begin); fuzzing() && d > 10*evaluationTime {
			t.Fatalf("%q took %s", expression, d)
		}
		if permits.Allowed && forbids.Allowed {
			t.Fatalf("%q permits, and forbids nothing", expression)
		}
	})
}

// FuzzClaims: whatever a credential says of its subject, it is compared or denied in either direction, with a reason.
func FuzzClaims(f *testing.F) {
	for _, claims := range []string{
		`{"completedAt":"2026-01-15T09:00:00Z","primaryDataShare":62.5,"accredited":true,"standards":["ISO 14067","PCR 2024"]}`,
		`{"completedAt":"2026-01-15","primaryDataShare":"62.5","accredited":"true","standards":"ISO 14067"}`,
		`{"completedAt":1768467600,"primaryDataShare":1e400,"accredited":1,"standards":[["ISO 14067"],{"@value":"PCR 2024"},null]}`,
		`{"completedAt":{"@value":"2026-01-15T09:00:00Z"},"primaryDataShare":null,"standards":{}}`,
		`{"completedAt":"9999-12-31T23:59:59.999999999-14:00","primaryDataShare":-0}`,
	} {
		for which := range uint8(5) {
			f.Add([]byte(claims), 3*which)
		}
	}
	e := evaluator(f)
	var constraints []string
	for _, name := range []string{"AttestationAge", "Share", "Standards", "Accredited", "Completed"} {
		o := e.lookup(term(vocab + name))
		if o == nil {
			f.Fatalf("the profile has no operand %s", name)
		}
		right := map[profile.ValueType]string{profile.ValueAge: `"P12M"`, profile.ValueNumber: `50`, profile.ValueStrings: `["ISO 14067"]`, profile.ValueBool: `true`, profile.ValueTimestamp: `"2026-01-01T00:00:00Z"`}[o.ValueType]
		for _, op := range o.Operators {
			constraints = append(constraints, atom(vocab+name, op, right))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, which uint8) {
		var claims map[string]any
		if json.Unmarshal(raw, &claims) != nil {
			return
		}
		c := constraints[int(which)%len(constraints)]
		permission := request(t, permit(c))
		permission.Provider = attested(claims)
		prohibition := permission
		prohibition.Policy = parsed(t, `{"permission":[{"action":"use"}],"prohibition":[{"action":"use","constraint":[`+c+`]}]}`)
		permits, forbids := e.Evaluate(t.Context(), permission), e.Evaluate(t.Context(), prohibition)
		if permits.Allowed && forbids.Allowed {
			t.Fatalf("%s with %s permits, and forbids nothing", raw, c)
		}
		for _, trace := range []adminapi.Trace{permits, forbids} {
			if !trace.Allowed && Reason(trace, "") == "" {
				t.Fatalf("%s with %s is denied without a reason", raw, c)
			}
		}
	})
}

// FuzzSatisfiable: what is refused because nobody can satisfy it is satisfied by nobody, and that is found out in time.
func FuzzSatisfiable(f *testing.F) {
	share, membership, age := vocab+"Share", vocab+"Membership", vocab+"AttestationAge"
	for _, constraints := range [][]string{
		{atom(share, "gteq", `50`), atom(share, "lt", `60`)},
		{atom(share, "gteq", `70`), atom(share, "lt", `60`)},
		{atom(age, "lt", `"P12M"`), atom(age, "gt", `"P2Y"`)},
		{`{"or":[` + atom(membership, "eq", `"active"`) + `,` + atom(share, "eq", `1`) + `]}`, atom(membership, "neq", `"active"`)},
		{`{"xone":[` + atom(vocab+"Standards", "isAllOf", `["ISO 14067","PCR 2024"]`) + `,` + atom(vocab+"Standards", "isNoneOf", `["ISO 14067"]`) + `]}`},
	} {
		f.Add([]byte(permit(constraints...)))
		f.Add([]byte(`{"permission":[{"action":"use"}],"prohibition":[{"action":"use","constraint":[` + constraints[0] + `]}]}`))
	}
	e := evaluator(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse(raw)
		if err != nil {
			return
		}
		begin := time.Now()
		refusal := e.Check(p)
		if d := time.Since(begin); fuzzing() && d > 10*evaluationTime {
			t.Fatalf("%s took %s to check", raw, d)
		}
		if refusal == nil || !strings.Contains(refusal.Error(), "nobody can satisfy") {
			return
		}
		for _, phase := range []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation, profile.PhaseTransfer} {
			if !strings.Contains(refusal.Error(), "in the phase "+string(phase)) {
				continue
			}
			req := Request{Policy: p, Phase: phase, Provider: attested(good()), Consumer: member(), Now: now}
			if e.Evaluate(t.Context(), req).Allowed {
				t.Fatalf("%s is satisfied, and refused: %v", raw, refusal)
			}
		}
	})
}

// FuzzDuration: a duration leads from any moment to one that is not before it, and can be said.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{"P12M", "P1Y2M3W4DT5H6M7.5S", "PT0S", "P999999Y", "PT999999999H999999999M999999999S", "P-1D"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if end := d.After(now); end.Before(now) {
			t.Fatalf("%s after %s is %s", s, now, end)
		}
		if d.Words("en") == "" || d.Words("de") == "" {
			t.Fatalf("%s has no words", s)
		}
	})
}
