// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// node is a random constraint whose truth is known: leaves are memberships that hold ("active") or not ("founding").
type node struct {
	json  map[string]any
	holds bool
}

func leaf(holds bool) node {
	value := map[bool]string{true: "active", false: "founding"}[holds]
	return node{map[string]any{"leftOperand": "Membership", "operator": "eq", "rightOperand": value}, holds}
}

func randomNode(t *rapid.T, depth int) node {
	op := rapid.SampledFrom([]string{"leaf", "and", "or", "xone", "andSequence"}).Draw(t, "kind")
	if depth == 0 || op == "leaf" {
		return leaf(rapid.Bool().Draw(t, "holds"))
	}
	var of []any
	count, n := 0, rapid.IntRange(1, 4).Draw(t, "n")
	for range n {
		child := randomNode(t, depth-1)
		of = append(of, child.json)
		if child.holds {
			count++
		}
	}
	holds := map[string]bool{"and": count == n, "andSequence": count == n, "or": count > 0, "xone": count == 1}[op]
	return node{map[string]any{op: of}, holds}
}

func policyOf(t *rapid.T, tb testing.TB, constraints ...any) *Policy {
	raw, err := json.Marshal(map[string]any{"@type": "Set", "permission": []any{map[string]any{"action": "use", "constraint": constraints}}})
	if err != nil {
		t.Fatal(err)
	}
	return parsed(tb, string(raw))
}

func TestLogicAgreesWithTheModel(t *testing.T) {
	e := evaluator(t)
	req := Request{Phase: "negotiation", By: buyer, Provider: attested(good()), Consumer: member(), Now: now}
	rapid.Check(t, func(rt *rapid.T) {
		n := randomNode(rt, 3)
		r := req
		r.Policy = policyOf(rt, t, n.json)
		got := e.Evaluate(t.Context(), r)
		if got.Allowed != n.holds {
			rt.Fatalf("allowed %v, model says %v: %s", got.Allowed, n.holds, r.Policy.Raw)
		}
		if got.Allowed != (Reason(got, "") == "") {
			rt.Fatalf("allowed %v, reason %q", got.Allowed, Reason(got, ""))
		}
		// The same as a prohibition allows exactly the contrary.
		r.Policy = &Policy{Permissions: []Rule{{Actions: []string{"use"}}}, Prohibitions: []Rule{{Path: "$.prohibition[0]", Actions: []string{"use"}, Constraints: r.Policy.Permissions[0].Constraints}}}
		if got := e.Evaluate(t.Context(), r); got.Allowed == n.holds {
			rt.Fatalf("prohibition allows %v, model says %v", got.Allowed, n.holds)
		}
	})
}

func TestAConstraintMoreNeverAllowsMore(t *testing.T) {
	e := evaluator(t)
	undeclared := map[string]any{"leftOperand": "https://x.example/unknown", "operator": "eq", "rightOperand": "1"}
	rapid.Check(t, func(rt *rapid.T) {
		r := Request{Phase: "negotiation", By: buyer, Provider: attested(good()), Consumer: member(), Now: now}
		a, b := randomNode(rt, 2), randomNode(rt, 2)
		r.Policy = policyOf(rt, t, a.json)
		one := e.Evaluate(t.Context(), r).Allowed
		r.Policy = policyOf(rt, t, a.json, b.json)
		if two := e.Evaluate(t.Context(), r).Allowed; two && !one {
			rt.Fatal("a further constraint allowed what was denied")
		}
		r.Policy = policyOf(rt, t, a.json, undeclared)
		if e.Evaluate(t.Context(), r).Allowed {
			rt.Fatal("an undeclared operand was passed over")
		}
		// Without the parties nothing that depends on them holds.
		r.Policy, r.Consumer = policyOf(rt, t, leaf(true).json, a.json), nil
		if e.Evaluate(t.Context(), r).Allowed {
			rt.Fatal("a constraint on an unknown party held")
		}
	})
}

func TestDurationIsMonotone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(rt, "at"), 0)
		later := at.Add(time.Duration(rapid.Int64Range(0, int64(800*24*time.Hour)).Draw(rt, "later")))
		d := Duration{Years: rapid.IntRange(0, 9).Draw(rt, "y"), Months: rapid.IntRange(0, 30).Draw(rt, "m"), Days: rapid.IntRange(0, 400).Draw(rt, "d")}
		// Only the days: 30 August 19:21 and 31 August 00:00 plus a month are both on 30 September, each at its own time of day.
		a, b := d.After(at), d.After(later)
		if a.Truncate(24 * time.Hour).After(b.Truncate(24 * time.Hour)) {
			rt.Fatalf("%v: %v gives %v, %v gives %v", d, at, a, later, b)
		}
		if a.Before(at) {
			rt.Fatalf("%v before %v", a, at)
		}
		months := Duration{Years: d.Years, Months: d.Months}
		want := at.UTC().Year()*12 + int(at.UTC().Month()) + 12*d.Years + d.Months
		if got := months.After(at); got.Year()*12+int(got.Month()) != want {
			rt.Fatalf("%v + %v is %v, in another month", at, months, got)
		}
	})
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]Duration{"P12M": {Months: 12}, "P1Y2M3W4DT5H6M7.5S": {1, 2, 25, 5*time.Hour + 6*time.Minute + 7500*time.Millisecond},
		"PT90S": {Clock: 90 * time.Second}, "P0D": {}} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "P", "PT", "12M", "-P1M", "P1.5M", "P1M ", "P1D2M", "p12m", "P1S", "P9999999Y", "P1YT"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q was read as %+v", s, got)
		}
	}
	for d, want := range map[Duration][2]string{{Months: 12}: {"12 months", "12 Monate"}, {Years: 1, Days: 1}: {"1 year 1 day", "1 Jahr 1 Tag"},
		{Clock: 90 * time.Minute}: {"1 hour 30 minutes", "1 Stunde 30 Minuten"}, {}: {"0 seconds", "0 Sekunden"}} {
		if d.Words("en") != want[0] || d.Words("de") != want[1] {
			t.Errorf("%+v: %s, %s", d, d.Words("en"), d.Words("de"))
		}
	}
}
