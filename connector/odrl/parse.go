// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/jsondepth"
)

// Namespace is the ODRL vocabulary; its terms are also written with the prefix "odrl:" or bare.
const Namespace = "http://www.w3.org/ns/odrl/2/"

// Limits of a policy, far above what people write and far below what would hurt.
const (
	maxBytes   = 256 << 10
	maxDepth   = 16 // nesting of logical constraints and duties
	maxEntries = 1000
)

var (
	logicalOperators = []string{"and", "or", "xone", "andSequence"}
	operators        = []string{"eq", "neq", "gt", "gteq", "lt", "lteq", "isAnyOf", "isNoneOf", "isAllOf", "hasPart", "isPartOf", "isA"}
	kinds            = []string{"Set", "Offer", "Agreement"}
)

// Parse reads an ODRL Set, Offer or Agreement (DSP 2025-1 §5.4, and what the EDC Management API accepts): single values or arrays,
// bare terms, "odrl:" or full IRIs, strings or {"@id"}/{"@value"} objects. Members that change a policy's meaning and that this
// package does not evaluate are refused. Errors are *Error with the JSON path.
func Parse(raw json.RawMessage) (*Policy, error) {
	if len(raw) > maxBytes {
		return nil, errorf("$", "the policy has %d bytes, more than the %d allowed", len(raw), maxBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errorf("$", "not valid JSON: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errorf("$", "more than one JSON value")
	}
	if path, name := jsondepth.Twice(raw); name != "" {
		return nil, errorf(path, "member %q stands there twice", name)
	}
	ps := &parser{}
	p, err := ps.policy(v)
	if err != nil {
		return nil, err
	}
	p.Raw = slices.Clone(raw)
	return p, nil
}

type parser struct {
	entries int
	named   []named
}

// named is a party or an asset that a rule names.
type named struct{ path, member, value string }

// members is a JSON object with its keys stripped of the ODRL prefix.
type members map[string]any

func object(path string, v any, what string) (members, error) {
	if list, ok := v.([]any); ok && len(list) == 1 {
		v = list[0]
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errorf(path, "%s must be an object, not %s", what, kindOf(v))
	}
	out := make(members, len(m))
	for k, val := range m {
		t := term(k)
		if _, dup := out[t]; dup {
			return nil, errorf(path, "member %q stands there twice in different spellings", t)
		}
		out[t] = val
	}
	return out, nil
}

func (ps *parser) policy(v any) (*Policy, error) {
	m, err := object("$", v, "a policy")
	if err != nil {
		return nil, err
	}
	for _, k := range []string{"inheritFrom", "conflict", "refinement", "remedy", "consequence"} {
		if _, ok := m[k]; ok {
			return nil, errorf("$."+k, "%q changes the meaning of the policy and is not supported: write the rules out in full", k)
		}
	}
	for k := range m { // another vocabulary's, such as dct:title, says nothing about rules
		if strings.Contains(k, ":") {
			delete(m, k)
		}
	}
	if err := only("$", m, policyMembers, "a policy"); err != nil {
		return nil, err
	}
	p := &Policy{Kind: "Set"}
	if t, ok := m["@type"]; ok {
		kind, err := text("$.@type", t)
		if err != nil {
			return nil, err
		}
		if p.Kind = term(kind); p.Kind == "Policy" {
			p.Kind = "Set"
		}
		if !slices.Contains(kinds, p.Kind) {
			return nil, errorf("$.@type", "%q is not a policy: use Set, Offer or Agreement", kind)
		}
	}
	for k, dst := range map[string]*string{"@id": &p.ID, "target": &p.Target, "assigner": &p.Assigner, "assignee": &p.Assignee} {
		val, ok := m[k]
		if !ok && k == "@id" {
			val, ok = m["uid"]
		}
		if !ok || val == nil {
			continue
		}
		if *dst, err = text("$."+k, val); err != nil {
			return nil, err
		}
	}
	for i, val := range list(m["profile"]) {
		s, err := text(fmt.Sprintf("$.profile[%d]", i), val)
		if err != nil {
			return nil, err
		}
		p.Profiles = append(p.Profiles, s)
	}
	obligation, key := m["obligation"], "obligation"
	if duty, ok := m["duty"]; ok {
		if obligation != nil {
			return nil, errorf("$.duty", "write either obligation or duty, not both")
		}
		obligation, key = duty, "duty"
	}
	if p.Permissions, err = ps.rules("$.permission", m["permission"], 0, true); err != nil {
		return nil, err
	}
	if p.Prohibitions, err = ps.rules("$.prohibition", m["prohibition"], 0, false); err != nil {
		return nil, err
	}
	if p.Obligations, err = ps.rules("$."+key, obligation, 0, false); err != nil {
		return nil, err
	}
	return p, ps.narrower(p)
}

// narrower refuses a rule that is for another party or asset than its policy: nothing evaluates that.
func (ps *parser) narrower(p *Policy) error {
	of := map[string]string{"target": p.Target, "assigner": p.Assigner, "assignee": p.Assignee}
	for _, n := range ps.named {
		if whole := of[n.member]; n.value != whole {
			return errorf(n.path, "the rule is for %s %q alone, which is not evaluated: every rule is for the policy's own %s%s", n.member, n.value, n.member,
				map[bool]string{true: ", which is not given here; state who or what it is for as a constraint", false: ", " + whole}[whole == ""])
		}
	}
	return nil
}

var policyMembers = []string{"@context", "@id", "@type", "uid", "profile", "target", "assigner", "assignee", "permission", "prohibition", "obligation", "duty", "timestamp"}

var ruleMembers = []string{"@id", "@type", "uid", "action", "constraint", "duty", "obligation", "target", "assigner", "assignee"}

func (ps *parser) rules(path string, v any, depth int, duties bool) ([]Rule, error) {
	var out []Rule
	for i, item := range list(v) {
		r, err := ps.rule(fmt.Sprintf("%s[%d]", path, i), item, depth, duties)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (ps *parser) rule(path string, v any, depth int, duties bool) (Rule, error) {
	r := Rule{Path: path}
	if err := ps.enter(path, depth); err != nil {
		return r, err
	}
	m, err := object(path, v, "a rule")
	if err != nil {
		return r, err
	}
	if err := only(path, m, ruleMembers, "a rule"); err != nil {
		return r, err
	}
	if len(list(m["action"])) == 0 {
		return r, errorf(path+".action", "the rule has no action: write \"use\"")
	}
	for i, a := range list(m["action"]) {
		s, err := action(fmt.Sprintf("%s.action[%d]", path, i), a)
		if err != nil {
			return r, err
		}
		r.Actions = append(r.Actions, s)
	}
	if r.Constraints, err = ps.constraints(path+".constraint", m["constraint"], depth+1); err != nil {
		return r, err
	}
	for _, k := range []string{"target", "assigner", "assignee"} {
		if m[k] == nil {
			continue
		}
		s, err := text(path+"."+k, m[k])
		if err != nil {
			return r, err
		}
		ps.named = append(ps.named, named{path: path + "." + k, member: k, value: s})
	}
	duty, key := m["duty"], "duty"
	if other := m["obligation"]; duty == nil {
		duty, key = other, "obligation"
	} else if other != nil {
		return r, errorf(path+".obligation", "write either duty or obligation, not both")
	}
	if len(list(duty)) > 0 && !duties {
		return r, errorf(path+"."+key, "only a permission can have duties here: nothing evaluates those of a prohibition or of another duty")
	}
	r.Duties, err = ps.rules(path+"."+key, duty, depth+1, false)
	return r, err
}

// action reads "use", {"@id": "odrl:use"}, and EDC's older {"type": "USE"}.
func action(path string, v any) (string, error) {
	if m, ok := v.(map[string]any); ok {
		o, err := object(path, m, "an action")
		if err != nil {
			return "", err
		}
		if err := only(path, o, []string{"@id", "@type", "type", "@value"}, "an action"); err != nil {
			return "", err
		}
		if t, ok := o["type"]; ok && o["@id"] == nil {
			v = t
		}
	}
	s, err := text(path, v)
	if err != nil {
		return "", err
	}
	s = term(s)
	if strings.EqualFold(s, "use") {
		s = "use"
	}
	return s, nil
}

func (ps *parser) constraints(path string, v any, depth int) ([]Constraint, error) {
	var out []Constraint
	for i, item := range list(v) {
		c, err := ps.constraint(fmt.Sprintf("%s[%d]", path, i), item, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (ps *parser) constraint(path string, v any, depth int) (Constraint, error) {
	c := Constraint{Path: path}
	if err := ps.enter(path, depth); err != nil {
		return c, err
	}
	m, err := object(path, v, "a constraint")
	if err != nil {
		return c, err
	}
	allowed := []string{"@id", "@type", "uid"}
	for _, l := range logicalOperators {
		if _, ok := m[l]; !ok {
			continue
		}
		c.Logical = l
		if err := only(path, m, append(allowed, l), "a logical constraint"); err != nil {
			return c, err
		}
		if c.Of, err = ps.constraints(path+"."+l, m[l], depth+1); err != nil {
			return c, err
		}
		if len(c.Of) == 0 {
			return c, errorf(path+"."+l, "the logical constraint is empty: list at least one constraint")
		}
		return c, nil
	}
	if err := only(path, m, append(allowed, "leftOperand", "operator", "rightOperand"), "a constraint"); err != nil {
		return c, err
	}
	for _, k := range []string{"leftOperand", "operator", "rightOperand"} {
		if m[k] == nil {
			return c, errorf(path+"."+k, "the constraint has no %s", k)
		}
	}
	left, err := text(path+".leftOperand", m["leftOperand"])
	if err != nil {
		return c, err
	}
	c.Left = expand(left)
	op, err := text(path+".operator", m["operator"])
	if err != nil {
		return c, err
	}
	c.Operator = operator(op)
	c.Right, err = right(path+".rightOperand", m["rightOperand"])
	return c, err
}

func (ps *parser) enter(path string, depth int) error {
	if ps.entries++; ps.entries > maxEntries {
		return errorf(path, "the policy has more than %d rules and constraints", maxEntries)
	}
	if depth > maxDepth {
		return errorf(path, "nested more than %d deep", maxDepth)
	}
	return nil
}

// right reads a right operand: a string, an object with @value or @id, a number or boolean, or a list of those.
func right(path string, v any) (Right, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return Right{}, errorf(path, "%v", err)
	}
	r := Right{Raw: raw}
	items := list(v)
	_, r.List = v.([]any)
	for i, item := range items {
		p := path
		if len(items) > 1 {
			p = fmt.Sprintf("%s[%d]", path, i)
		}
		switch t := item.(type) {
		case json.Number:
			r.Values, r.Bare = append(r.Values, t.String()), true
		case bool:
			r.Values, r.Bare = append(r.Values, fmt.Sprint(t)), true
		default:
			s, err := text(p, item)
			if err != nil {
				return Right{}, err
			}
			r.Values = append(r.Values, s)
		}
	}
	if len(r.Values) == 0 {
		return Right{}, errorf(path, "the right operand is empty: give at least one value")
	}
	return r, nil
}

// only refuses members outside allowed: each would change the meaning silently.
func only(path string, m members, allowed []string, what string) error {
	for _, k := range sortedKeys(m) {
		if !slices.Contains(allowed, k) {
			return errorf(path+"."+k, "%s can't have the member %q here; known are %s", what, k, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// text reads a string, {"@id": s}, {"@value": s|number|boolean} or a list of one of those.
func text(path string, v any) (string, error) {
	switch t := v.(type) {
	case string:
		if strings.TrimSpace(t) == "" {
			return "", errorf(path, "empty")
		}
		return t, nil
	case []any:
		if len(t) == 1 {
			return text(path, t[0])
		}
		return "", errorf(path, "exactly one value is needed, not %d", len(t))
	case map[string]any:
		for k := range t { // such as the refinement of a party collection
			if !slices.Contains([]string{"@id", "@type", "@value", "@language"}, k) {
				return "", errorf(path+"."+k, "a value can't have the member %q here; known are @id, @type, @value", k)
			}
		}
		if id, ok := t["@id"].(string); ok && id != "" {
			return id, nil
		}
		switch val := t["@value"].(type) {
		case string:
			return text(path, val)
		case json.Number:
			return val.String(), nil
		case bool:
			return fmt.Sprint(val), nil
		}
	}
	return "", errorf(path, "must be a string or an object with @id or @value, not %s", kindOf(v))
}

// list makes a list of what may be one value, a list, or JSON-LD's {"@list": ...}.
func list(v any) []any {
	switch t := v.(type) {
	case nil:
		return nil
	case []any:
		if len(t) == 1 {
			if m, ok := t[0].(map[string]any); ok && m["@list"] != nil {
				return list(m)
			}
		}
		return t
	case map[string]any:
		if l, ok := t["@list"].([]any); ok && len(t) == 1 {
			return l
		}
	}
	return []any{v}
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}
