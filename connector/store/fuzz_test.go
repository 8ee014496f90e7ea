// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"unicode/utf8"
)

// FuzzCriterion: nothing of a criterion that a client sends becomes SQL, only its arguments do; and it selects or does not, whatever the value.
func FuzzCriterion(f *testing.F) {
	for _, raw := range []string{
		`{"operandLeft":"https://w3id.org/edc/v0.0.1/ns/id","operator":"in","operandRight":["a","b"]}`,
		`{"operandLeft":"properties.'https://x/y'","operator":"like","operandRight":"%a\\_b\\"}`,
		`{"operandLeft":"privateProperties.x') --","operator":"=","operandRight":"' OR 1=1 --"}`,
		`{"operandLeft":"createdAt","operator":">=","operandRight":1.5e300}`,
		`{"operandLeft":"a","operator":"; DROP","operandRight":[[{"a":1}],null]}`,
	} {
		f.Add([]byte(raw), `"abc"`)
	}
	f.Fuzz(func(t *testing.T, raw []byte, value string) {
		var c Criterion
		if json.Unmarshal(raw, &c) != nil {
			return
		}
		var v any
		if json.Unmarshal([]byte(value), &v) == nil {
			_ = c.Matches(v)
		}
		for _, k := range []kind{assetKind, definitionKind, negotiationKind, agreementKind} {
			n := 0
			arg := func(any) string { n++; return fmt.Sprintf("$%d", n) }
			expr, err := k.expr(c.OperandLeft, arg)
			if err != nil {
				continue
			}
			if !slices.Contains(everyExpression(k), expr) {
				t.Fatalf("%q becomes %s", c.OperandLeft, expr)
			}
			n = 0
			got, err := c.sql("x", arg)
			if err != nil {
				continue
			}
			plain := Criterion{Operator: c.Operator, OperandRight: "x"}
			if _, number := c.OperandRight.(float64); number {
				plain.OperandRight = 1.0
			}
			n = 0
			if want, err := plain.sql("x", arg); err != nil || got != want {
				t.Fatalf("%s becomes %s instead of %s, %v", raw, got, want, err)
			}
		}
	})
}

func everyExpression(k kind) []string {
	out := []string{"(" + k.free + " -> $1::text)"}
	for _, column := range k.bags {
		out = append(out, "("+column+" -> $1::text)")
	}
	for _, field := range k.fields {
		out = append(out, field)
	}
	return out
}

// FuzzLike: a pattern selects what the regular expression that says the same does.
func FuzzLike(f *testing.F) {
	f.Add("%a_c%", "xabcx")
	f.Add(`a\%\\%`, `a%\`)
	f.Add(`a\`, "a")
	f.Add("%a%b%", "aabab")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 1000 || !utf8.ValidString(pattern) || !utf8.ValidString(text) {
			return
		}
		out, escaped := "(?s)^", false
		for _, r := range pattern {
			switch {
			case !escaped && r == '\\':
				escaped = true
				continue
			case !escaped && r == '%':
				out += ".*"
			case !escaped && r == '_':
				out += "."
			default:
				out += regexp.QuoteMeta(string(r))
			}
			escaped = false
		}
		if escaped == whole(pattern) {
			t.Fatalf("%q is whole: %t", pattern, !escaped)
		}
		if got, want := like(pattern, text), !escaped && regexp.MustCompile(out+"$").MatchString(text); got != want {
			t.Fatalf("%q selects %q: %t", pattern, text, got)
		}
	})
}
