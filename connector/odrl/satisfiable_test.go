// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kaphera/kaphera/connector/profile"
)

func TestPolicyThatNobodyCanSatisfy(t *testing.T) {
	e := evaluator(t)
	active, founding := atom("Membership", "eq", `"active"`), atom("Membership", "eq", `"founding"`)
	share := func(op, right string) string { return atom(vocab+"Share", op, right) }
	standards := func(op, right string) string { return atom(vocab+"Standards", op, right) }
	age := func(op, right string) string { return atom("AttestationAge", op, right) }
	prohibit := func(permission, prohibition string) string {
		return `{"permission":{"action":"use","constraint":[` + permission + `]},"prohibition":{"action":"use","constraint":[` + prohibition + `]}}`
	}
	for _, c := range []struct {
		name, policy string
		path, says   string // empty: somebody can
	}{
		{"two values of one", permit(active, founding), "$.permission[0].constraint[1]", "in the phase negotiation: $.permission[0].constraint[0] and $.permission[0].constraint[1] exclude everything"},
		{"two values, one by its alias", permit(active, `{"and":[`+atom(vocab+"Membership", "eq", `"founding"`)+`]}`), "$.permission[0].constraint[1].and[0]", "nobody can satisfy"},
		{"one of several, and another", permit(atom("Membership", "isAnyOf", `["active","founding"]`), founding), "", ""},
		{"none of them", permit(atom("Membership", "isAnyOf", `["active","founding"]`), atom("Membership", "isNoneOf", `["founding","active","x"]`)), "$.permission[0].constraint[1]", "nobody"},
		{"eq and neq", permit(active, atom("Membership", "neq", `"active"`)), "$.permission[0].constraint[1]", "nobody"},
		{"ranges apart", permit(share("gteq", `"60"`), share("lt", `"60"`)), "$.permission[0].constraint[1]", "nobody"},
		{"ranges that touch", permit(share("gteq", `"60"`), share("eq", `"60.0"`)), "", ""},
		{"ranges apart by little", permit(share("gteq", `"60"`), share("lt", `"60.000001"`)), "", ""},
		{"sets", permit(standards("isPartOf", `["A"]`), standards("hasPart", `["B"]`)), "$.permission[0].constraint[1]", "nobody"},
		{"sets that fit", permit(standards("isPartOf", `["A","B","C"]`), standards("isAllOf", `["B"]`), standards("isNoneOf", `["C"]`)), "", ""},
		{"yes and no", permit(atom(vocab+"Accredited", "eq", `"true"`), atom(vocab+"Accredited", "neq", `"true"`)), "$.permission[0].constraint[1]", "nobody"},
		{"ages apart", permit(age("lt", `"P6M"`), age("gt", `"P12M"`)), "$.permission[0].constraint[1]", "nobody"},
		{"ages apart in other units", permit(age("lt", `"P30D"`), age("gteq", `"P2M"`)), "$.permission[0].constraint[1]", "nobody"},
		{"ages between", permit(age("gt", `"P6M"`), age("lt", `"P1Y"`)), "", ""},
		{"a month against thirty days", permit(age("gt", `"P30D"`), age("lt", `"P1M"`)), "", ""},
		{"a month against thirty days, otherwise", permit(age("lt", `"P30D"`), age("gt", `"P1M"`)), "", ""},
		{"the same age", permit(age("lt", `"P12M"`), age("gteq", `"P1Y"`)), "$.permission[0].constraint[1]", "nobody"},
		{"times apart", permit(atom("odrl:dateTime", "gt", `"2026-12-31"`), atom("odrl:dateTime", "lteq", `"2026-01-01"`)), "$.permission[0].constraint[1]", "nobody"},
		{"equal alternatives of xone", permit(`{"xone":[` + active + `,` + active + `]}`), "$.permission[0].constraint[0].xone", "nobody"},
		{"alternatives of or", permit(founding, `{"or":[`+active+`,`+share("gteq", `"1"`)+`]}`), "", ""},
		{"alternatives that all fail", permit(founding, `{"or":[`+active+`,{"and":[`+share("lt", `"1"`)+`,`+share("gteq", `"2"`)+`]}]}`), "$.permission[0].constraint[1].or", "$.permission[0].constraint[0] and $.permission[0].constraint[1].or"},
		{"prohibition that covers the permission", prohibit(active, active), "$.prohibition[0]", "$.permission[0].constraint[0] and $.prohibition[0]"},
		{"prohibition that covers it and more", prohibit(active, atom("Membership", "isAnyOf", `["founding","active"]`)), "$.prohibition[0]", "nobody"},
		{"prohibition of something else", prohibit(active, founding), "", ""},
		{"prohibition of a part", prohibit(active, active+`,`+share("gteq", `"5"`)), "", ""},
		{"prohibition without condition", `{"permission":{"action":"use"},"prohibition":{"action":"use"}}`, "$.prohibition[0]", "nobody"},
		{"one permission of two", `{"permission":[{"action":"use","constraint":[` + active + `,` + founding + `]},{"action":"use","constraint":[` + active + `]}]}`, "", ""},
		{"both permissions", `{"permission":[{"action":"use","constraint":[` + active + `]},{"action":"use","constraint":[` + founding + `]}],"obligation":{"action":"use","constraint":[` + atom("Membership", "eq", `"x"`) + `]}}`, "$.obligation[0].constraint[0]", "and likewise $.permission[1].constraint[0] and $.obligation[0].constraint[0]"},
		{"what stands in the way alone is named", permit(active, share("gteq", `"3"`), share("lt", `"2"`), age("lt", `"P1M"`)), "$.permission[0].constraint[2]", "catalog: $.permission[0].constraint[1] and $.permission[0].constraint[2] exclude"},
		{"what each access adds", permit(atom(vocab+"Method", "isAnyOf", `["GET"]`), `{"xone":[`+atom(vocab+"Method", "isAnyOf", `["GET"]`)+`,`+atom(vocab+"EveryAccess", "eq", `"x"`)+`]}`), "", ""},
		{"at each access", permit(atom(vocab+"EveryAccess", "eq", `"x"`), atom(vocab+"EveryAccess", "eq", `"y"`)), "$.permission[0].constraint[1]", "in the phase access"},
	} {
		t.Run(c.name, func(t *testing.T) {
			faults := faultsIn(e.Check(parsed(t, c.policy)))
			switch {
			case c.path == "" && len(faults) > 0:
				t.Errorf("refused: %v", faults)
			case c.path != "" && (len(faults) != 1 || faults[0].Path != c.path || !strings.Contains(faults[0].Message, c.says)):
				t.Errorf("%v, want %s: %s", faults, c.path, c.says)
			}
		})
	}
	if err := e.CheckAccess(parsed(t, permit(active, founding))); err == nil || !strings.Contains(err.Error(), "in the phase catalog") {
		t.Errorf("access policy: %v", err)
	}
}

func faultsIn(err error) (out []*Error) {
	switch x := err.(type) { //nolint:errorlint // the join itself is wanted
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			out = append(out, faultsIn(e)...)
		}
	case *Error:
		out = append(out, x)
	}
	return out
}

// world is one operand with all values that make a difference for what random constraints on it say.
type world struct {
	name, kind string
	operators  []string
	rights     []any // right operands to draw from
	values     []any // claims
}

var worlds = []world{
	{"s", "string", operatorsOf[profile.ValueString], []any{"a", "b", "c"}, []any{"a", "b", "c", "d"}},
	{"n", "number", operatorsOf[profile.ValueNumber], []any{"1", "2", "3.5"}, []any{0, 1, 1.5, 2, 3, 3.5, 4}},
	{"ss", "strings", operatorsOf[profile.ValueStrings], []any{"a", "b"}, []any{[]any{}, []any{"a"}, []any{"b"}, []any{"a", "b"}, []any{"c"}, []any{"a", "c"}, []any{"b", "c"}, []any{"a", "b", "c"}}},
	{"b", "bool", operatorsOf[profile.ValueBool], []any{"true", "false"}, []any{true, false}},
	{"t", "timestamp", operatorsOf[profile.ValueTimestamp], []any{"2026-01-01", "2026-06-01"}, []any{"2025-01-01", "2026-01-01", "2026-03-01", "2026-06-01", "2027-01-01"}},
	{"age", "age", operatorsOf[profile.ValueAge], []any{"P1M", "P30D", "P31D", "P12M"}, nil},
}

func worldProfile() profile.Profile {
	p := profile.Profile{Name: "world", TrustedIssuers: []profile.TrustedIssuer{{DID: auditor, Types: []string{"QualityAttestationCredential"}}}}
	for _, w := range worlds {
		p.Operands = append(p.Operands, profile.Operand{Name: "x:" + w.name, Subject: profile.SubjectProvider, Credential: "QualityAttestationCredential", Expression: "credential.subject." + w.name,
			ValueType: profile.ValueType(w.kind), Operators: w.operators, Phases: []profile.Phase{profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "{right}"}})
	}
	return p
}

func randomConstraint(t *rapid.T, of []world, depth int) map[string]any {
	if op := rapid.SampledFrom([]string{"leaf", "leaf", "and", "or", "xone"}).Draw(t, "kind"); depth > 0 && op != "leaf" {
		var cs []any
		for range rapid.IntRange(1, 3).Draw(t, "n") {
			cs = append(cs, randomConstraint(t, of, depth-1))
		}
		return map[string]any{op: cs}
	}
	w := rapid.SampledFrom(of).Draw(t, "operand")
	op := rapid.SampledFrom(w.operators).Draw(t, "operator")
	right := rapid.SampledFrom(w.rights).Draw(t, "right")
	if strings.HasPrefix(op, "is") && op != "isA" || op == "hasPart" || w.kind == "strings" && op != "isA" {
		right = rapid.SliceOfNDistinct(rapid.SampledFrom(w.rights), 1, len(w.rights), rapid.ID[any]).Draw(t, "rights")
	}
	return map[string]any{"leftOperand": "x:" + w.name, "operator": op, "rightOperand": right}
}

// TestSatisfiabilityAgreesWithTrying compares the verdict with an evaluation on every combination of values that can make a difference. Ages may
// be called satisfiable when they are not, never the other way round.
func TestSatisfiabilityAgreesWithTrying(t *testing.T) {
	e, err := NewEvaluator(worldProfile())
	if err != nil {
		t.Fatal(err)
	}
	ages := worlds[len(worlds)-1]
	for _, d := range []int{0, 27, 28, 29, 30, 31, 32, 364, 365, 366, 400} {
		ages.values = append(ages.values, now.AddDate(0, 0, -d).Format(time.RFC3339))
	}
	all := append(append([]world{}, worlds[:len(worlds)-1]...), ages)
	refused, accepted := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		of := []world{rapid.SampledFrom(all).Draw(rt, "first"), rapid.SampledFrom(worlds[:4]).Draw(rt, "second")}
		rules := func(name string, most int) []any {
			out := []any{}
			for range rapid.IntRange(0, most).Draw(rt, name) {
				out = append(out, map[string]any{"action": "use", "constraint": []any{randomConstraint(rt, of, 1)}})
			}
			return out
		}
		doc := map[string]any{"permission": []any{map[string]any{"action": "use", "constraint": []any{randomConstraint(rt, of, 2), randomConstraint(rt, of, 1)}}},
			"prohibition": rules("prohibitions", 1), "obligation": rules("obligations", 1)}
		if rapid.Bool().Draw(rt, "two permissions") {
			doc["permission"] = append(doc["permission"].([]any), rules("permissions", 1)...)
		}
		raw, err := json.Marshal(doc)
		if err != nil {
			rt.Fatal(err)
		}
		p := parsed(t, string(raw))
		faults := faultsIn(e.Check(p))
		for _, f := range faults {
			if !strings.Contains(f.Message, "nobody can satisfy") {
				rt.Fatalf("%s: %v", raw, f)
			}
		}
		satisfied := false
		for _, v := range of[0].values {
			for _, w := range of[1].values {
				req := Request{Policy: p, Phase: profile.PhaseNegotiation, Now: now, Provider: attested(map[string]any{of[0].name: v, of[1].name: w})}
				satisfied = satisfied || e.evaluate(t.Context(), req, "").Allowed
			}
		}
		uses := strings.Contains(string(raw), `"x:age"`)
		if satisfied && len(faults) > 0 || !satisfied && len(faults) == 0 && !uses {
			rt.Fatalf("can be satisfied: %v; said: %v\n%s", satisfied, faults, raw)
		}
		if len(faults) > 0 {
			refused++
		} else {
			accepted++
		}
	})
	if refused == 0 || accepted == 0 {
		t.Errorf("%d refused, %d accepted: the policies are all alike", refused, accepted)
	}
}
