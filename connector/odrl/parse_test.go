// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// spellings of one policy: the compact form of the protocol, the prefixed and the expanded form, the EDC Management API's forms.
var spellings = []string{
	`{"@type":"Offer","@id":"o1","target":"a1","assigner":"did:web:s","permission":[{"action":"use","constraint":[{"and":[
		{"leftOperand":"Membership","operator":"eq","rightOperand":"active"},{"leftOperand":"https://w3id.org/kaphera/policy/Share","operator":"gteq","rightOperand":"60"}]}]}]}`,
	`{"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"odrl:Offer","uid":"o1","odrl:target":{"@id":"a1"},"odrl:assigner":{"@id":"did:web:s"},
		"odrl:permission":{"odrl:action":{"@id":"odrl:use"},"odrl:constraint":{"odrl:and":{"@list":[
		{"odrl:leftOperand":{"@id":"Membership"},"odrl:operator":{"@id":"odrl:eq"},"odrl:rightOperand":"active"},
		{"odrl:leftOperand":"https://w3id.org/kaphera/policy/Share","odrl:operator":"odrl:gteq","odrl:rightOperand":{"@value":"60"}}]}}},"odrl:prohibition":[],"odrl:obligation":[]}`,
	`{"@id":"o1","@type":["http://www.w3.org/ns/odrl/2/Offer"],"http://www.w3.org/ns/odrl/2/target":[{"@id":"a1"}],"http://www.w3.org/ns/odrl/2/assigner":[{"@id":"did:web:s"}],
		"http://www.w3.org/ns/odrl/2/permission":[{"http://www.w3.org/ns/odrl/2/action":[{"@id":"http://www.w3.org/ns/odrl/2/use"}],
		"http://www.w3.org/ns/odrl/2/constraint":[{"http://www.w3.org/ns/odrl/2/and":[{"@list":[
		{"http://www.w3.org/ns/odrl/2/leftOperand":[{"@id":"Membership"}],"http://www.w3.org/ns/odrl/2/operator":[{"@id":"http://www.w3.org/ns/odrl/2/eq"}],"http://www.w3.org/ns/odrl/2/rightOperand":[{"@value":"active"}]},
		{"http://www.w3.org/ns/odrl/2/leftOperand":[{"@id":"https://w3id.org/kaphera/policy/Share"}],"http://www.w3.org/ns/odrl/2/operator":[{"@id":"http://www.w3.org/ns/odrl/2/gteq"}],"http://www.w3.org/ns/odrl/2/rightOperand":[{"@value":"60"}]}]}]}]}]}`,
	`{"@type":"Offer","@id":"o1","target":"a1","assigner":"did:web:s","permission":{"action":{"type":"USE"},"constraint":{"@type":"LogicalConstraint","and":[
		{"@type":"Constraint","leftOperand":"Membership","operator":{"@id":"EQ"},"rightOperand":"active"},{"@type":"AtomicConstraint","leftOperand":"https://w3id.org/kaphera/policy/Share","operator":"term-gteq","rightOperand":"60"}]}},"obligation":null}`,
}

func TestSpellingsMeanTheSame(t *testing.T) {
	first := parsed(t, spellings[0])
	for _, raw := range spellings {
		p := parsed(t, raw)
		if p.Kind != "Offer" || p.ID != "o1" || p.Target != "a1" || p.Assigner != "did:web:s" || string(p.Raw) != raw {
			t.Errorf("%+v", p)
		}
		c := p.Permissions[0].Constraints[0]
		if c.Path != "$.permission[0].constraint[0]" || c.Logical != "and" || c.Of[1].Path != c.Path+".and[1]" {
			t.Errorf("paths: %+v", c)
		}
		if err := evaluator(t).Check(p); err != nil {
			t.Error(err)
		}
		// A list on the right (the expanded form has one everywhere) is another way to write the one value.
		if got := evaluator(t).Evaluate(t.Context(), request(t, raw)); !got.Allowed {
			t.Errorf("%s: %s", raw, Reason(got, ""))
		}
		if Hash(p) != Hash(first) {
			t.Errorf("hash differs: %s", raw)
		}
	}
}

func TestHashTellsPoliciesApart(t *testing.T) {
	seen := map[string]string{}
	for _, raw := range []string{permit(), permit(atom("a", "eq", `"1"`)), permit(atom("a", "eq", `"2"`)), permit(atom("a", "neq", `"1"`)), permit(atom("b", "eq", `"1"`)),
		permit(atom("a", "eq", `["1","2"]`)), permit(atom("a", "eq", `"1"`), atom("a", "eq", `"2"`)), permit(`{"or":[` + atom("a", "eq", `"1"`) + `]}`),
		`{"prohibition":{"action":"use"}}`, `{"obligation":{"action":"use"}}`, `{"permission":{"action":"use","duty":{"action":"use"}}}`, `{"permission":{"action":"print"}}`} {
		h := Hash(parsed(t, raw))
		if other, dup := seen[h]; dup || len(h) != 64 {
			t.Errorf("%s and %s have the hash %s", raw, other, h)
		}
		seen[h] = raw
	}
	offer := parsed(t, `{"@type":"Offer","@id":"x","permission":{"action":"use"}}`)
	agreement := parsed(t, `{"@type":"Agreement","@id":"y","target":"a","assigner":"did:web:p","assignee":"did:web:c","timestamp":"2026-01-01T00:00:00Z","permission":[{"action":["odrl:use"]}]}`)
	if Hash(offer) != Hash(agreement) {
		t.Error("an agreement does not have the hash of its offer")
	}
}

func TestParseAcceptsWhatChangesNothing(t *testing.T) {
	for _, raw := range []string{
		`{"@context":"http://www.w3.org/ns/odrl.jsonld","dct:title":"a policy","https://x.example/leftOperand":1,"permission":[{"action":"use"}]}`,
		`{"target":"a","assigner":"p","assignee":"c","permission":[{"action":"use","target":{"@id":"a"},"assigner":"p","assignee":"c"}]}`,
		`{"@type":"Agreement","timestamp":"2026-01-01T00:00:00Z","permission":[{"action":"use"}],"prohibition":[],"obligation":[]}`,
	} {
		if _, err := Parse(json.RawMessage(raw)); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"and":[`, 40) + atom("a", "eq", `"1"`) + strings.Repeat(`]}`, 40)
	for _, c := range []struct{ name, raw, want string }{
		{"no JSON", `{`, "$: not valid JSON"},
		{"two values", `{} {}`, "$: more than one JSON value"},
		{"no object", `"use"`, "$: a policy must be an object, not a string"},
		{"too big", `"` + strings.Repeat("x", 300<<10) + `"`, "$: the policy has"},
		{"type", `{"@type":"Ticket"}`, `$.@type: "Ticket" is not a policy: use Set, Offer or Agreement`},
		{"inheritance", `{"inheritFrom":"x"}`, "$.inheritFrom"},
		{"conflict strategy", `{"odrl:conflict":"perm"}`, "$.conflict"},
		{"two spellings", `{"permission":[],"odrl:permission":[]}`, `member "permission" stands there twice`},
		{"two targets", `{"target":["a","b"]}`, "$.target: exactly one value is needed, not 2"},
		{"rule", `{"permission":["use"]}`, "$.permission[0]: a rule must be an object"},
		{"no action", `{"permission":[{"constraint":[]}]}`, "$.permission[0].action: the rule has no action"},
		{"refined action", `{"permission":[{"action":{"@id":"use","refinement":[]}}]}`, "$.permission[0].action[0].refinement"},
		{"unknown rule member", `{"permission":[{"action":"use","remedy":[]}]}`, "$.permission[0].remedy"},
		{"constraint", permit(`7`), "$.permission[0].constraint[0]: a constraint must be an object, not a number"},
		{"no left operand", permit(`{"operator":"eq","rightOperand":"x"}`), "$.permission[0].constraint[0].leftOperand: the constraint has no leftOperand"},
		{"no operator", permit(`{"leftOperand":"a","rightOperand":"x"}`), "constraint[0].operator"},
		{"no right operand", permit(`{"leftOperand":"a","operator":"eq"}`), "constraint[0].rightOperand"},
		{"reference as right operand", permit(`{"leftOperand":"a","operator":"eq","rightOperandReference":"x"}`), "constraint[0].rightOperandReference: a constraint can't have the member"},
		{"unit", permit(`{"leftOperand":"a","operator":"eq","rightOperand":"x","unit":"kg"}`), "constraint[0].unit"},
		{"empty right operand", permit(atom("a", "isAnyOf", `[]`)), "constraint[0].rightOperand: the right operand is empty"},
		{"right operand object", permit(atom("a", "eq", `{"a":1}`)), `constraint[0].rightOperand.a: a value can't have the member "a" here`},
		{"null in a list", permit(atom("a", "isAnyOf", `["x",null]`)), "constraint[0].rightOperand[1]"},
		{"empty logical", permit(`{"or":[]}`), "constraint[0].or: the logical constraint is empty"},
		{"two logical", permit(`{"or":[{}],"and":[{}]}`), "a logical constraint can't have the member"},
		{"logical and atomic", permit(`{"or":[` + atom("a", "eq", `"x"`) + `],"leftOperand":"a"}`), "leftOperand: a logical constraint can't have"},
		{"too deep", permit(deep), "nested more than"},
		{"too many", `{"permission":[` + strings.Repeat(`{"action":"use"},`, 1200) + `{"action":"use"}]}`, "more than 1000 rules"},
		{"obligation and duty", `{"obligation":[],"duty":[]}`, "$.duty"},
		{"constraint of the whole policy", `{"constraint":[` + atom("a", "eq", `"x"`) + `],"permission":[{"action":"use"}]}`, `$.constraint: a policy can't have the member "constraint" here`},
		{"misspelt prohibition", `{"permission":[{"action":"use"}],"odrl:prohibitions":[]}`, "$.prohibitions: a policy can't"},
		{"member twice", `{"permission":[{"action":"use","constraint":[]}],"permission":[{"action":"use"}]}`, `$: member "permission" stands there twice`},
		{"member twice below", `{"permission":[{"action":"use","constraint":[` + atom("a", "eq", `"x"`) + `],"constraint":[]}]}`, `$.permission[0]: member "constraint" stands there twice`},
		{"rule for one party", `{"permission":[{"action":"use","assignee":"did:web:only.this"}]}`, `$.permission[0].assignee: the rule is for assignee "did:web:only.this" alone`},
		{"rule for another party", `{"assignee":"did:web:a","prohibition":[{"action":"use","assignee":{"@id":"did:web:b"}}]}`, "every rule is for the policy's own assignee, did:web:a"},
		{"rule for another asset", `{"target":"a","permission":[{"action":"use","target":"b"}]}`, "$.permission[0].target"},
		{"duty of another party", `{"permission":[{"action":"use","duty":[{"action":"inform","assigner":"x"}]}]}`, "$.permission[0].duty[0].assigner"},
		{"refined party", `{"assignee":{"@id":"x","refinement":[]}}`, "$.assignee.refinement"},
		{"duty and obligation of a rule", `{"permission":[{"action":"use","duty":[],"obligation":[{"action":"inform"}]}]}`, "$.permission[0].obligation: write either duty or obligation"},
		{"duty of a duty", `{"permission":[{"action":"use","duty":[{"action":"inform","duty":[{"action":"inform"}]}]}]}`, "$.permission[0].duty[0].duty: only a permission can have duties"},
		{"duty of an obligation", `{"obligation":[{"action":"inform","duty":{"action":"inform"}}]}`, "$.obligation[0].duty: only a permission"},
		{"duty of a prohibition", `{"prohibition":[{"action":"use","obligation":{"action":"inform"}}]}`, "$.prohibition[0].obligation: only a permission"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(json.RawMessage(c.raw))
			var at *Error
			if !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, raw := range spellings {
		f.Add([]byte(raw))
	}
	files, err := filepath.Glob("testdata/policies/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file) // #nosec G304 -- test data
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	e := evaluator(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse(raw)
		if err != nil {
			var at *Error
			if !errors.As(err, &at) || at.Message == "" {
				t.Fatalf("error without a path: %v", err)
			}
			return
		}
		again, err := Parse(p.Raw)
		if err != nil || Hash(again) != Hash(p) {
			t.Fatalf("read again: %v", err)
		}
		// What says something about use is judged, wherever it stands.
		visited := 0
		p.leaves(func(Constraint) { visited++ })
		if written := constraintsIn(t, raw); written != visited {
			t.Fatalf("%d constraints are written and %d are judged", written, visited)
		}
		e.Sentences(p, "de")
		got := e.Evaluate(t.Context(), Request{Policy: p, Phase: "negotiation", Provider: attested(good()), Consumer: member(), Now: now})
		if got.Allowed && len(p.Permissions) == 0 {
			t.Fatal("a policy without a permission allows")
		}
		if got.Allowed != (Reason(got, "") == "") {
			t.Fatalf("allowed %v with reason %q", got.Allowed, Reason(got, ""))
		}
	})
}

// constraintsIn counts the left operands in the policy's own vocabulary.
func constraintsIn(t *testing.T, raw []byte) int {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var count func(v any) int
	count = func(v any) (n int) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				n += count(item)
			}
		case map[string]any:
			for k, item := range v {
				switch k = term(k); {
				case k == "leftOperand":
					n++
				case k != "@context" && !strings.Contains(k, ":"):
					n += count(item)
				}
			}
		}
		return n
	}
	return count(v)
}
