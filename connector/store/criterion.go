// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Criterion is one condition of a selector or a query, as in the EDC Management API.
type Criterion struct {
	OperandLeft  string `json:"operandLeft"`
	Operator     string `json:"operator"`
	OperandRight any    `json:"operandRight"`
}

// Operators of criteria. A field that an object does not have satisfies none of them.
var Operators = []string{"=", "!=", "<", "<=", ">", ">=", "in", "like", "ilike", "contains"}

const edcNamespace = "https://w3id.org/edc/v0.0.1/ns/"

// bags are the members of an object whose own members are free; a path names one by "bag.key" or "bag.'key'".
var bags = []string{"properties", "privateProperties", "dataAddress"}

// splitField reads a left operand: a field, or a bag and a key in it, with or without EDC's namespace and quotes.
func splitField(left string) (bag, key string) {
	left = bare(left)
	for _, b := range bags {
		if rest, ok := strings.CutPrefix(left, b+"."); ok {
			return b, bare(rest)
		}
	}
	if left == "@id" {
		left = "id"
	}
	return "", left
}

func bare(name string) string {
	name = strings.TrimPrefix(strings.Trim(name, "'"), edcNamespace)
	return strings.TrimPrefix(name, "edc:")
}

// Matches reports whether a value satisfies the criterion. An operator that is not known selects nothing.
func (c Criterion) Matches(value any) bool {
	if value == nil {
		return false
	}
	right := scalars(c.OperandRight)
	switch c.Operator {
	case "in":
		return slices.Contains(right, scalar(value))
	case "contains":
		return len(right) == 1 && slices.Contains(scalars(value), right[0])
	}
	if len(right) != 1 {
		return false
	}
	switch left := scalar(value); c.Operator {
	case "=":
		return left == right[0]
	case "!=":
		return left != right[0]
	case "like":
		return like(right[0], left)
	case "ilike":
		return like(strings.ToLower(right[0]), strings.ToLower(left))
	}
	order, ok := compare(value, c.OperandRight)
	if !ok {
		return false
	}
	switch c.Operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	return false
}

// like is SQL's LIKE: % is any text, _ any character, and a backslash takes its meaning from what follows it. A pattern that is no whole one
// selects nothing.
func like(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	i, j, star, taken := 0, 0, -1, 0 // star: behind the last %, which has taken what is before taken
	for i < len(p) || j < len(t) {
		next := i + 1
		switch {
		case i < len(p) && p[i] == '%':
			i, star, taken = next, next, j
			continue
		case i < len(p) && p[i] == '\\':
			next++
			if next <= len(p) && j < len(t) && p[i+1] == t[j] {
				i, j = next, j+1
				continue
			}
		case i < len(p) && j < len(t) && (p[i] == '_' || p[i] == t[j]):
			i, j = next, j+1
			continue
		}
		if star < 0 || taken >= len(t) {
			return false
		}
		taken++
		i, j = star, taken
	}
	return true
}

// whole reports whether the last backslash of a pattern has something to take the meaning from.
func whole(pattern string) bool {
	return (len(pattern)-len(strings.TrimRight(pattern, `\`)))%2 == 0
}

// compare orders numbers by size and anything else by its text; a number and something else have no order.
func compare(left, right any) (int, bool) {
	l, lok := left.(float64)
	r, rok := right.(float64)
	switch {
	case lok && rok:
		return cmp.Compare(l, r), true
	case rok:
		return 0, false
	}
	return strings.Compare(scalar(left), scalar(right)), true
}

// scalar is a JSON value as PostgreSQL's #>> '{}' writes it.
func scalar(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}

func scalars(v any) (out []string) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, item := range list {
		out = append(out, scalar(item))
	}
	return out
}

// sql writes the criterion as a condition on a JSON expression.
func (c Criterion) sql(expr string, arg func(any) string) (string, error) {
	text := "(" + expr + " #>> '{}')"
	right := scalars(c.OperandRight)
	switch c.Operator {
	case "in":
		return fmt.Sprintf("%s = ANY (%s::text[])", text, arg(right)), nil
	case "contains", "=", "!=", "<", "<=", ">", ">=", "like", "ilike":
		if len(right) != 1 {
			return "", fmt.Errorf("the operator %q takes one right operand, not %d", c.Operator, len(right))
		}
	default:
		return "", fmt.Errorf("operator %q is not supported: use %s", c.Operator, strings.Join(Operators, ", "))
	}
	switch c.Operator {
	case "contains":
		return fmt.Sprintf("(jsonb_typeof(%[1]s) = 'array' AND EXISTS (SELECT FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(%[1]s) = 'array' THEN %[1]s END) e WHERE e = %[2]s::text) OR jsonb_typeof(%[1]s) <> 'array' AND %[3]s = %[2]s)",
			expr, arg(right[0]), text), nil
	case "=":
		return fmt.Sprintf("%s = %s::text", text, arg(right[0])), nil
	case "!=":
		return fmt.Sprintf("%s <> %s::text", text, arg(right[0])), nil
	case "like", "ilike":
		if !whole(right[0]) {
			return "", fmt.Errorf("the pattern %q ends with a backslash, which takes the meaning from nothing: double it", right[0])
		}
		return fmt.Sprintf("%s %s %s::text", text, c.Operator, arg(right[0])), nil
	}
	if n, ok := c.OperandRight.(float64); ok {
		return fmt.Sprintf("CASE WHEN jsonb_typeof(%[1]s) = 'number' THEN (%[1]s)::numeric %[2]s %[3]s::numeric END", expr, c.Operator, arg(n)), nil
	}
	return fmt.Sprintf(`%s COLLATE "C" %s %s::text`, text, c.Operator, arg(right[0])), nil
}
