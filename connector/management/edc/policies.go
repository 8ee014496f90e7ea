// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

func (a *API) policies() []route {
	x := resource[store.Policy]{kind: "policy definition", typ: "PolicyDefinition", path: "/policydefinitions", area: "policies", onItem: true,
		get: a.Store.Policy, save: a.Store.SavePolicy, remove: a.Store.DeletePolicy, query: a.Store.QueryPolicies,
		decode: func(c *call, id string) (*store.Policy, error) {
			p, err := c.policy()
			if err == nil {
				err = a.check(c.participant, p)
			}
			if err != nil {
				return nil, err
			}
			out := &store.Policy{Ctx: c.participant.Ctx, ID: id}
			doc, err := policyDoc(p)
			if err != nil {
				return nil, err
			}
			if out.Policy, err = json.Marshal(doc); err != nil {
				return nil, err
			}
			out.PrivateProperties, err = properties(c.body, "privateProperties")
			return out, err
		},
		view: func(o *store.Policy) (map[string]any, error) {
			p, err := odrl.Parse(o.Policy)
			if err != nil {
				return nil, err
			}
			doc, err := policyDoc(p)
			return withPrivate(map[string]any{"@type": "PolicyDefinition", "@id": o.ID, "createdAt": o.CreatedAt.UnixMilli(), "policy": inODRL(doc)}, o.PrivateProperties), err
		}}
	return append(x.routes(), route{method: http.MethodPost, path: "/policydefinitions/{id}/validate", area: "policies",
		summary: "Say whether a stored policy can be evaluated by the participant's profile", answer: "PolicyValidationResult", do: a.validatePolicy})
}

// check refuses a policy that could not be evaluated, whatever it is used as; every fault is named by its JSON path.
func (a *API) check(p *store.Participant, policy *odrl.Policy) error {
	ev, err := a.Engine.Evaluator(p)
	if err != nil {
		return err
	}
	err = ev.Check(policy)
	if err != nil && ev.CheckAccess(policy) == nil { // which of the two it is for is said by a contract definition
		return nil
	}
	return inBody(err)
}

// inBody moves the paths of a policy's faults to where the policy stands in a body.
func inBody(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, inBody(e))
		}
		return errors.Join(out...)
	}
	var fault *odrl.Error
	if errors.As(err, &fault) {
		return &odrl.Error{Path: "$.policy" + strings.TrimPrefix(fault.Path, "$"), Message: fault.Message}
	}
	return err
}

func (a *API) validatePolicy(c *call) (any, error) {
	o, err := a.Store.Policy(c.Context(), c.participant.Ctx, c.id)
	if err != nil {
		return nil, describe(err, "policy definition", c.id)
	}
	p, err := odrl.Parse(o.Policy)
	if err == nil {
		err = a.check(c.participant, p)
	}
	faults := []any{}
	if err != nil {
		status, all := a.explain(c.Request, err)
		if status >= http.StatusInternalServerError {
			return nil, err
		}
		for _, f := range all {
			faults = append(faults, f.Error())
		}
	}
	return map[string]any{"@type": "PolicyValidationResult", "isValid": len(faults) == 0, "errors": faults}, nil
}

// policy reads the body's policy, in whichever of its forms.
func (c *call) policy() (*odrl.Policy, error) {
	in, err := object(c.body, "policy")
	if err != nil {
		return nil, err
	}
	if in == nil {
		return nil, missing("$.policy")
	}
	raw, err := json.Marshal(bareODRL(in, c.participant.Profile))
	if err != nil {
		return nil, err
	}
	p, err := odrl.Parse(raw)
	return p, inBody(err)
}

// bareODRL writes a policy as connector/odrl reads it: ODRL's members bare, left operands as the profile spells them. A term that stood
// there without a context of ODRL's had become one of EDC's.
func bareODRL(v any, f profile.Profile) any {
	switch t := v.(type) {
	case []any:
		out := make([]any, len(t))
		for i, item := range t {
			out[i] = bareODRL(item, f)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, item := range t {
			switch k = strings.TrimPrefix(k, odrl.Namespace); k {
			case "@type":
				if s, ok := item.(string); ok {
					item = strings.TrimPrefix(s, namespace)
				}
			case "leftOperand":
				if s, ok := scalar(item); ok {
					item = operand(s, f)
				}
			default:
				item = bareODRL(item, f)
			}
			out[k] = item
		}
		return out
	}
	return v
}

// operand spells a left operand that has no namespace of its own (so EDC's) as the profile does: bare, unless the full IRI is declared.
func operand(iri string, f profile.Profile) string {
	term, ok := strings.CutPrefix(iri, namespace)
	if !ok || slices.ContainsFunc(f.Operands, func(o profile.Operand) bool { return o.Name == iri || slices.Contains(o.Aliases, iri) }) {
		return iri
	}
	return term
}

// policyDoc writes a policy in compact form, with all three kinds of rules.
func policyDoc(p *odrl.Policy) (map[string]any, error) {
	var out map[string]any
	if err := json.Unmarshal(wire.Offer(p.ID, p, p.Target, p.Assigner), &out); err != nil {
		return nil, err
	}
	out["@type"] = p.Kind
	if p.ID == "" {
		delete(out, "@id")
	}
	if p.Assignee != "" {
		out["assignee"] = p.Assignee
	}
	for _, rules := range []string{"permission", "prohibition", "obligation"} {
		if out[rules] == nil {
			out[rules] = []any{}
		}
	}
	return out, nil
}

// inODRL makes a compact policy part of a document. EDC writes the parties as text, not as references.
func inODRL(policy map[string]any) map[string]any {
	for _, party := range []string{"assigner", "assignee"} {
		if v, ok := policy[party]; ok {
			policy[party] = map[string]any{"@value": v}
		}
	}
	policy["@context"] = contextODRL
	return policy
}
