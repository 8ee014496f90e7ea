// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/odrl"
)

// policy is an Offer or Agreement in compact form: lists always arrays, never empty.
type policy struct {
	ID          string   `json:"@id"`
	Type        string   `json:"@type"`
	Profile     []string `json:"profile,omitempty"`
	Target      string   `json:"target,omitempty"`
	Assigner    string   `json:"assigner,omitempty"`
	Assignee    string   `json:"assignee,omitempty"`
	Timestamp   string   `json:"timestamp,omitempty"`
	Permission  []rule   `json:"permission,omitempty"`
	Prohibition []rule   `json:"prohibition,omitempty"`
	Obligation  []rule   `json:"obligation,omitempty"`
}

type rule struct {
	Action     any          `json:"action"`
	Constraint []constraint `json:"constraint,omitempty"`
	Duty       []rule       `json:"duty,omitempty"`
}

type constraint map[string]any

// OfferID is the id under which an asset is offered by a contract definition: it changes with the policy, and with nothing else.
func OfferID(definition, asset string, p *odrl.Policy) string {
	b64 := base64.StdEncoding.EncodeToString
	return strings.Join([]string{b64([]byte(definition)), b64([]byte(asset)), b64([]byte(odrl.Hash(p)))}, ":")
}

// SplitOfferID returns the definition and the asset that an id of OfferID names.
func SplitOfferID(id string) (definition, asset string, err error) {
	parts := strings.Split(id, ":")
	if len(parts) == 3 {
		d, err1 := base64.StdEncoding.DecodeString(parts[0])
		a, err2 := base64.StdEncoding.DecodeString(parts[1])
		if err1 == nil && err2 == nil {
			return string(d), string(a), nil
		}
	}
	return "", "", fmt.Errorf("offer id %q is not of the form base64(definition):base64(asset):base64(policy)", id)
}

// Offer writes a policy as an offer. In a catalog target and assigner are empty (DSP 2025-1 §5.4: no target there).
func Offer(id string, p *odrl.Policy, target, assigner string) json.RawMessage {
	return encodePolicy(policy{ID: id, Type: "Offer", Target: target, Assigner: assigner}, p)
}

// Agreement writes a policy as an agreement.
func Agreement(id string, p *odrl.Policy, target, assigner, assignee string, at time.Time) json.RawMessage {
	return encodePolicy(policy{ID: id, Type: "Agreement", Target: target, Assigner: assigner, Assignee: assignee,
		Timestamp: at.UTC().Format(time.RFC3339)}, p)
}

func encodePolicy(out policy, p *odrl.Policy) json.RawMessage {
	out.Profile = p.Profiles
	out.Permission, out.Prohibition, out.Obligation = rules(p.Permissions), rules(p.Prohibitions), rules(p.Obligations)
	raw, _ := json.Marshal(out) //nolint:errchkjson // strings, and raw JSON that was parsed before, always marshal
	return raw
}

func rules(in []odrl.Rule) (out []rule) {
	for _, r := range in {
		var action any = r.Actions
		if len(r.Actions) == 1 {
			action = r.Actions[0]
		}
		out = append(out, rule{Action: action, Constraint: constraints(r.Constraints), Duty: rules(r.Duties)})
	}
	return out
}

func constraints(in []odrl.Constraint) (out []constraint) {
	for _, c := range in {
		if c.Logical != "" {
			out = append(out, constraint{c.Logical: constraints(c.Of)})
			continue
		}
		out = append(out, constraint{"leftOperand": c.Left, "operator": c.Operator, "rightOperand": right(c.Right)})
	}
	return out
}

// right writes a right operand: a string, an object or an array, never a bare number or boolean.
func right(r odrl.Right) any {
	if !r.Bare {
		return r.Raw
	}
	if len(r.Values) == 1 {
		return r.Values[0]
	}
	return r.Values
}
