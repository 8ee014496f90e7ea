// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"maps"
	"slices"
	"strings"
)

// term strips the ODRL prefix or namespace.
func term(s string) string {
	if t, ok := strings.CutPrefix(s, Namespace); ok {
		return t
	}
	return strings.TrimPrefix(s, "odrl:")
}

// expand writes "odrl:x" as the full IRI; everything else stays as it is.
func expand(s string) string {
	if t, ok := strings.CutPrefix(s, "odrl:"); ok {
		return Namespace + t
	}
	return s
}

// edcOperators are the spellings of older EDC clients.
var edcOperators = map[string]string{"EQ": "eq", "NEQ": "neq", "GT": "gt", "GEQ": "gteq", "LT": "lt", "LEQ": "lteq", "IN": "isAnyOf",
	"IS_ANY_OF": "isAnyOf", "IS_NONE_OF": "isNoneOf", "IS_ALL_OF": "isAllOf", "HAS_PART": "hasPart", "IS_PART_OF": "isPartOf", "IS_A": "isA", "=": "eq"}

// operator normalises an operator; what is not an ODRL operator comes back as written.
func operator(s string) string {
	t := strings.TrimPrefix(term(s), "term-")
	if slices.Contains(operators, t) {
		return t
	}
	if op, ok := edcOperators[t]; ok {
		return op
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
