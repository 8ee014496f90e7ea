// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kaphera/kaphera/connector/store"
)

// text reads a member that holds one string, number, boolean or reference; empty when it is absent.
func text(doc map[string]any, path, name string) (string, error) {
	v, ok := doc[name]
	if !ok || v == nil {
		return "", nil
	}
	s, ok := scalar(v)
	if !ok {
		return "", invalidValue(path+"."+name, v, "one value is needed here")
	}
	return s, nil
}

// scalar is the text of a value or a reference.
func scalar(v any) (string, bool) {
	switch t := v.(type) {
	case string:
		return t, true
	case bool:
		return strconv.FormatBool(t), true
	case float64:
		return strconv.FormatFloat(t, 'f', -1, 64), true
	case map[string]any:
		if value, ok := t["@value"]; ok {
			return scalar(value)
		}
		id, ok := t["@id"].(string)
		return id, ok && len(t) == 1
	}
	return "", false
}

// number reads a whole number that may be written as text; otherwise is its value when it is absent.
func number(doc map[string]any, path, name string, otherwise int) (int, error) {
	s, err := text(doc, path, name)
	if err != nil || s == "" {
		return otherwise, err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, invalidValue(path+"."+name, s, "a whole number is needed here")
	}
	return n, nil
}

// boolean reads true or false, which may be written as text; absent is false.
func boolean(doc map[string]any, path, name string) (bool, error) {
	switch s, err := text(doc, path, name); {
	case err != nil:
		return false, err
	case s == "true":
		return true, nil
	case s == "" || s == "false":
		return false, nil
	default:
		return false, invalidValue(path+"."+name, s, "true or false is needed here")
	}
}

// many reads a member that holds one value or a list of them.
func many(doc map[string]any, name string) []any {
	switch t := doc[name].(type) {
	case nil:
		return nil
	case []any:
		return t
	default:
		return []any{t}
	}
}

// objects is many for objects.
func objects(doc map[string]any, path, name string) ([]map[string]any, error) {
	out := []map[string]any{}
	for i, item := range many(doc, name) {
		o, ok := item.(map[string]any)
		if !ok {
			return nil, invalidValue(fmt.Sprintf("%s.%s[%d]", path, name, i), item, "an object is needed here")
		}
		out = append(out, o)
	}
	return out, nil
}

// object reads a member of the body that holds an object; nil when it is absent.
func object(doc map[string]any, name string) (map[string]any, error) {
	all, err := objects(doc, "$", name)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if len(all) > 1 {
		return nil, invalid("$."+name, "one object is needed here")
	}
	return all[0], nil
}

// properties reads an object of the body with free members.
func properties(doc map[string]any, name string) (map[string]any, error) {
	in, err := object(doc, name)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for k, v := range in {
		if !strings.HasPrefix(k, "@") {
			out[k] = v
		}
	}
	return out, nil
}

// querySpec reads a query; nil selects the first 50 objects.
func querySpec(doc map[string]any, path string) (store.Query, error) {
	q := store.Query{}
	var err error
	if q.Offset, err = number(doc, path, "offset", 0); err != nil {
		return q, err
	}
	if q.Limit, err = number(doc, path, "limit", 50); err != nil {
		return q, err
	}
	if q.Offset < 0 || q.Limit < 1 || q.Limit > 1000 {
		return q, invalid(path, fmt.Sprintf("offset %d, limit %d: offset from 0, limit from 1 to 1000", q.Offset, q.Limit))
	}
	if q.SortField, err = text(doc, path, "sortField"); err != nil {
		return q, err
	}
	order, err := text(doc, path, "sortOrder")
	switch {
	case err != nil:
		return q, err
	case order != "" && order != "ASC" && order != "DESC":
		return q, invalidValue(path+".sortOrder", order, "ASC or DESC is needed here")
	}
	q.Descending = order == "DESC"
	q.Filter, err = criteria(doc, path, "filterExpression")
	return q, err
}

// criteria reads conditions.
func criteria(doc map[string]any, path, name string) ([]store.Criterion, error) {
	all, err := objects(doc, path, name)
	if err != nil {
		return nil, err
	}
	out := make([]store.Criterion, 0, len(all))
	for i, o := range all {
		at := fmt.Sprintf("%s.%s[%d]", path, name, i)
		c := store.Criterion{OperandRight: o["operandRight"]}
		if c.OperandLeft, err = text(o, at, "operandLeft"); err != nil {
			return nil, err
		}
		if c.Operator, err = text(o, at, "operator"); err != nil {
			return nil, err
		}
		switch {
		case c.OperandLeft == "":
			return nil, missing(at + ".operandLeft")
		case !slices.Contains(store.Operators, c.Operator):
			return nil, invalidValue(at+".operator", c.Operator, "use one of %s", strings.Join(store.Operators, ", "))
		case c.OperandRight == nil:
			return nil, missing(at + ".operandRight")
		}
		out = append(out, c)
	}
	return out, nil
}

// criteriaDocs writes conditions.
func criteriaDocs(all []store.Criterion) []any {
	out := []any{}
	for _, c := range all {
		out = append(out, map[string]any{"@type": "Criterion", "operandLeft": c.OperandLeft, "operator": c.Operator, "operandRight": c.OperandRight})
	}
	return out
}

// withPrivate adds private properties where there are any.
func withPrivate(doc, private map[string]any) map[string]any {
	if len(private) > 0 {
		doc["privateProperties"] = maps.Clone(private)
	}
	return doc
}
