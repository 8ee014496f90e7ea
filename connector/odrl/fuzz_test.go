// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/profile"
)

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
		if d := time.Since(begin); d > 10*evaluationTime {
			t.Fatalf("%q took %s", expression, d)
		}
		if permits.Allowed && forbids.Allowed {
			t.Fatalf("%q permits, and forbids nothing", expression)
		}
	})
}
