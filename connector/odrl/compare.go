// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/kaphera/kaphera/connector/profile"
)

var operatorsOf = map[profile.ValueType][]string{
	profile.ValueString:    {"eq", "neq", "isAnyOf", "isNoneOf", "isAllOf", "isPartOf", "isA"},
	profile.ValueStrings:   {"eq", "neq", "isAnyOf", "isNoneOf", "isAllOf", "hasPart", "isPartOf", "isA"},
	profile.ValueNumber:    {"eq", "neq", "gt", "gteq", "lt", "lteq", "isAnyOf", "isNoneOf"},
	profile.ValueTimestamp: {"eq", "neq", "gt", "gteq", "lt", "lteq"},
	profile.ValueAge:       {"gt", "gteq", "lt", "lteq"},
	profile.ValueBool:      {"eq", "neq"},
}

// setOperators take a list on the right.
var setOperators = []string{"isAnyOf", "isNoneOf", "isAllOf", "hasPart", "isPartOf"}

func valueTypes() []string {
	out := make([]string, 0, len(operatorsOf))
	for t := range operatorsOf {
		out = append(out, string(t))
	}
	slices.Sort(out)
	return out
}

// futureTolerance is how far ahead of now a timestamp of an age may lie: dates without time are a day off between time zones.
const futureTolerance = 24 * time.Hour

// seen is a value in the form that its type is compared in.
type seen struct {
	text    string
	strings []string
	number  *big.Rat
	time    time.Time
}

// checkRight tells whether the right operand fits the operator and the value type.
func checkRight(t profile.ValueType, op string, r Right) error {
	multiple := slices.Contains(setOperators, op) || t == profile.ValueStrings && (op == "eq" || op == "neq")
	if !multiple && len(r.Values) != 1 {
		return fmt.Errorf("%s takes exactly one value, not %d: use isAnyOf for a list", op, len(r.Values))
	}
	for _, v := range r.Values {
		var err error
		switch t {
		case profile.ValueNumber:
			_, err = parseNumber(v)
		case profile.ValueTimestamp:
			_, err = parseTime(v)
		case profile.ValueAge:
			_, err = ParseDuration(v)
		case profile.ValueBool:
			if v != "true" && v != "false" {
				err = fmt.Errorf("%q is neither \"true\" nor \"false\"", v)
			}
		case profile.ValueString, profile.ValueStrings:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// convert brings what the expression yielded into the operand's value type.
func convert(t profile.ValueType, v ref.Val) (seen, error) {
	wrong := func() (seen, error) {
		return seen{}, &valueError{fmt.Sprintf("the value seen is a %s, not a %s", v.Type().TypeName(), t), fmt.Sprintf("der gesehene Wert ist %s und nicht %s", v.Type().TypeName(), t)}
	}
	switch t {
	case profile.ValueString:
		s, ok := v.Value().(string)
		if !ok {
			return wrong()
		}
		return seen{text: s, strings: []string{s}}, nil
	case profile.ValueStrings:
		l, ok := v.(traits.Lister)
		if !ok {
			return wrong()
		}
		out := []string{}
		for it := l.Iterator(); it.HasNext() == types.True; {
			s, ok := it.Next().Value().(string)
			if !ok {
				return seen{}, errors.New("the list seen has an item that is not text")
			}
			out = append(out, s)
		}
		return seen{text: strings.Join(out, ", "), strings: out}, nil
	case profile.ValueNumber:
		n, err := toNumber(v)
		if err != nil {
			return wrong()
		}
		return seen{text: numberText(n), number: n}, nil
	case profile.ValueBool:
		b, ok := v.Value().(bool)
		if !ok {
			return wrong()
		}
		return seen{text: strconv.FormatBool(b)}, nil
	case profile.ValueTimestamp, profile.ValueAge:
		switch val := v.Value().(type) {
		case time.Time:
			return seen{text: val.UTC().Format(time.RFC3339), time: val}, nil
		case string:
			at, err := parseTime(val)
			if err != nil {
				return seen{}, err
			}
			return seen{text: at.UTC().Format(time.RFC3339), time: at}, nil
		}
	}
	return wrong()
}

// compare judges one constraint. The right operand must have passed checkRight.
func compare(t profile.ValueType, op string, s seen, r Right, now time.Time) (bool, error) {
	if err := checkRight(t, op, r); err != nil {
		return false, err
	}
	switch t {
	case profile.ValueString, profile.ValueStrings:
		return compareSets(op, s.strings, r.Values), nil
	case profile.ValueBool:
		return (s.text == r.Values[0]) == (op == "eq"), nil
	case profile.ValueNumber:
		found := slices.ContainsFunc(r.Values, func(v string) bool {
			n, err := parseNumber(v)
			return err == nil && n.Cmp(s.number) == 0
		})
		switch op {
		case "isAnyOf":
			return found, nil
		case "isNoneOf":
			return !found, nil
		}
		n, err := parseNumber(r.Values[0])
		if err != nil {
			return false, err
		}
		return ordered(op, s.number.Cmp(n)), nil
	case profile.ValueTimestamp:
		at, err := parseTime(r.Values[0])
		if err != nil {
			return false, err
		}
		return ordered(op, s.time.Compare(at)), nil
	case profile.ValueAge:
		d, err := ParseDuration(r.Values[0])
		if err != nil {
			return false, err
		}
		if s.time.After(now.Add(futureTolerance)) {
			return false, &valueError{s.text + " lies in the future", s.text + " liegt in der Zukunft"}
		}
		// The age is less than d if and only if seen + d is still to come.
		return ordered(op, now.Compare(d.After(s.time))), nil
	}
	return false, fmt.Errorf("values of type %q can't be compared", t)
}

// ordered judges an ordering operator by the sign of (left - right).
func ordered(op string, sign int) bool {
	switch op {
	case "eq":
		return sign == 0
	case "neq":
		return sign != 0
	case "gt":
		return sign > 0
	case "gteq":
		return sign >= 0
	case "lt":
		return sign < 0
	case "lteq":
		return sign <= 0
	}
	return false
}

func compareSets(op string, left, right []string) bool {
	in := func(set []string) func(string) bool { return func(s string) bool { return slices.Contains(set, s) } }
	subset := func(a, b []string) bool { return !slices.ContainsFunc(a, func(s string) bool { return !in(b)(s) }) }
	switch op {
	case "eq":
		return subset(left, right) && subset(right, left)
	case "neq":
		return !subset(left, right) || !subset(right, left)
	case "isAnyOf", "isA":
		return slices.ContainsFunc(right, in(left))
	case "isNoneOf":
		return !slices.ContainsFunc(right, in(left))
	case "isAllOf", "hasPart":
		return subset(right, left)
	case "isPartOf":
		return len(left) > 0 && subset(left, right)
	}
	return false
}

var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02", "2006-01-02Z"}

// parseTime reads RFC 3339, and a date or a time without zone as UTC.
func parseTime(s string) (time.Time, error) {
	for _, f := range timeForms {
		if t, err := time.Parse(f, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &valueError{
		fmt.Sprintf("%q is not a date: write for example 2026-03-31 or 2026-03-31T12:00:00Z", s),
		fmt.Sprintf("„%s“ ist kein Datum: richtig wäre zum Beispiel 2026-03-31 oder 2026-03-31T12:00:00Z", s),
	}
}

func parseNumber(s string) (*big.Rat, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || len(s) > 40 || strings.ContainsAny(s, "xXpP_") {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	if strings.ContainsAny(s, "eE") {
		s = strconv.FormatFloat(f, 'f', -1, 64) // keeps the exponent within what a float holds
	}
	n, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

func toNumber(v ref.Val) (*big.Rat, error) {
	switch n := v.Value().(type) {
	case int64:
		return new(big.Rat).SetInt64(n), nil
	case uint64:
		return new(big.Rat).SetUint64(n), nil
	case float64:
		return parseNumber(strconv.FormatFloat(n, 'g', -1, 64))
	}
	return nil, errors.New("not a number")
}

func numberText(n *big.Rat) string {
	if n.IsInt() {
		return n.Num().String()
	}
	f, _ := n.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
