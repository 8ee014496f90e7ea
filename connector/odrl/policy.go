// SPDX-License-Identifier: Apache-2.0

// Package odrl reads ODRL policies and judges them: it parses the forms that dataspace messages use, checks a policy when it is
// written, and evaluates it with a trace for people. It knows nothing of negotiations, storage or HTTP.
//
// Evaluation fails closed: whatever can't be evaluated is a denial with its reason. Each left operand is declared in the dataspace
// profile (connector/profile) with a CEL expression that yields the value seen.
package odrl

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Policy is an ODRL Set, Offer or Agreement in normal form: terms without prefix, members always lists.
type Policy struct {
	ID       string // @id; empty when absent
	Kind     string // Set, Offer or Agreement
	Target   string // asset id; empty in a Set and in a catalog's Offer
	Assigner string // provider's DID
	Assignee string // consumer's DID
	Profiles []string

	Permissions  []Rule
	Prohibitions []Rule
	Obligations  []Rule

	// Raw is the policy as it was received, to be stored and sent on unchanged.
	Raw json.RawMessage
}

// Rule is a permission, a prohibition or a duty. Its constraints must all hold.
type Rule struct {
	Path        string   // JSON path, such as $.permission[0]
	Actions     []string // without the ODRL prefix: "use"
	Constraints []Constraint
	Duties      []Rule // of a permission: must be fulfilled to make use of it
}

// Constraint is atomic (Left, Operator, Right) or logical (Logical, Of).
type Constraint struct {
	Path     string
	Left     string // as written, "odrl:" expanded to the full IRI
	Operator string // without the ODRL prefix: "eq"
	Right    Right
	Logical  string // and, or, xone, andSequence; empty when atomic
	Of       []Constraint
}

// Right is a right operand: its values as text. One value and a list of one value mean the same; List tells how it was written.
type Right struct {
	Values []string
	List   bool
	// Bare is true when a JSON number or boolean stood there, which the dataspace protocol does not allow on the wire.
	Bare bool
	Raw  json.RawMessage
}

// Error is what is wrong with a policy or a profile, and where.
type Error struct {
	Path    string // JSON path
	Message string // for people
}

func (e *Error) Error() string { return e.Path + ": " + e.Message }

func errorf(path, format string, args ...any) error {
	return &Error{Path: path, Message: fmt.Sprintf(format, args...)}
}

// MarshalJSON returns the policy as it was received.
func (p *Policy) MarshalJSON() ([]byte, error) { return p.Raw, nil }

// canonical is what Hash covers. Order of rules and constraints counts; spelling does not.
type canonicalPolicy struct {
	Permission  []canonicalRule `json:"permission"`
	Prohibition []canonicalRule `json:"prohibition"`
	Obligation  []canonicalRule `json:"obligation"`
}

type canonicalRule struct {
	Action     []string              `json:"action"`
	Constraint []canonicalConstraint `json:"constraint"`
	Duty       []canonicalRule       `json:"duty"`
}

type canonicalConstraint struct {
	Left     string                `json:"left,omitempty"`
	Operator string                `json:"operator,omitempty"`
	Right    []string              `json:"right,omitempty"`
	Logical  string                `json:"logical,omitempty"`
	Of       []canonicalConstraint `json:"of,omitempty"`
}

// Hash returns the SHA-256 (hex) of the policy's rules in normal form. Two policies with the same hash say the same about the use
// of an asset, however they are spelled and whoever they are addressed to: an agreement has the hash of the offer it came from.
func Hash(p *Policy) string {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(canonicalPolicy{canonicalRules(p.Permissions), canonicalRules(p.Prohibitions), canonicalRules(p.Obligations)}) //nolint:errchkjson // strings only: can't fail
	sum := sha256.Sum256(buf.Bytes())
	return hex.EncodeToString(sum[:])
}

// Plain is a policy with nothing in it but what Hash covers: what somebody else added to it, and how they spelled it, is gone.
func (p *Policy) Plain() *Policy {
	return &Policy{Kind: p.Kind, Permissions: plainRules(p.Permissions), Prohibitions: plainRules(p.Prohibitions), Obligations: plainRules(p.Obligations)}
}

func plainRules(rules []Rule) []Rule {
	out := make([]Rule, 0, len(rules))
	for _, r := range rules {
		out = append(out, Rule{Actions: r.Actions, Constraints: plainConstraints(r.Constraints), Duties: plainRules(r.Duties)})
	}
	return out
}

func plainConstraints(cs []Constraint) []Constraint {
	out := make([]Constraint, 0, len(cs))
	for _, c := range cs {
		// Bare, so that the values are written and not the JSON that they stood in.
		out = append(out, Constraint{Left: c.Left, Operator: c.Operator, Right: Right{Values: c.Right.Values, Bare: true}, Logical: c.Logical, Of: plainConstraints(c.Of)})
	}
	return out
}

func canonicalRules(rules []Rule) []canonicalRule {
	out := make([]canonicalRule, 0, len(rules))
	for _, r := range rules {
		out = append(out, canonicalRule{r.Actions, canonicalConstraints(r.Constraints), canonicalRules(r.Duties)})
	}
	return out
}

func canonicalConstraints(cs []Constraint) []canonicalConstraint {
	out := make([]canonicalConstraint, 0, len(cs))
	for _, c := range cs {
		out = append(out, canonicalConstraint{c.Left, c.Operator, c.Right.Values, c.Logical, canonicalConstraints(c.Of)})
	}
	return out
}

// leaves calls f for every atomic constraint of the rules, duties included.
func leaves(rules []Rule, f func(Constraint)) {
	for _, r := range rules {
		constraintLeaves(r.Constraints, f)
		leaves(r.Duties, f)
	}
}

func constraintLeaves(cs []Constraint, f func(Constraint)) {
	for _, c := range cs {
		if c.Logical == "" {
			f(c)
		}
		constraintLeaves(c.Of, f)
	}
}

func (p *Policy) leaves(f func(Constraint)) {
	leaves(p.Permissions, f)
	leaves(p.Prohibitions, f)
	leaves(p.Obligations, f)
}
