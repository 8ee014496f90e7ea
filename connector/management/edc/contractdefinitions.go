// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"errors"

	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func (a *API) definitions() []route {
	x := resource[store.Definition]{kind: "contract definition", typ: "ContractDefinition", path: "/contractdefinitions", area: "contractdefinitions",
		get: a.Store.Definition, query: a.Store.QueryDefinitions, save: a.Store.SaveDefinition, view: definitionDoc, decode: a.readDefinition,
		remove: func(ctx context.Context, participant, id string) error {
			return a.Store.DeleteDefinition(ctx, participant, id)
		}}
	return x.routes()
}

func (a *API) readDefinition(c *call, id string) (*store.Definition, error) {
	out := &store.Definition{Ctx: c.participant.Ctx, ID: id}
	ids := map[string]string{}
	ev, err := a.Engine.Evaluator(c.participant)
	if err != nil {
		return nil, err
	}
	for _, use := range []struct {
		name  string
		check func(*odrl.Policy) error
	}{{"accessPolicyId", ev.CheckAccess}, {"contractPolicyId", ev.Check}} {
		policy, err := c.required(use.name)
		if err != nil {
			return nil, err
		}
		stored, err := a.Store.Policy(c.Context(), c.participant.Ctx, policy)
		if errors.Is(err, store.ErrNotFound) {
			return nil, invalidValue("$."+use.name, policy, "there is no policy definition %q: make it first", policy)
		} else if err != nil {
			return nil, err
		}
		p, err := odrl.Parse(stored.Policy)
		if err == nil {
			err = use.check(p)
		}
		if err != nil {
			return nil, invalidValue("$."+use.name, policy, "the policy definition %q can't be used here: %s", policy, err)
		}
		ids[use.name] = policy
	}
	access := ids["accessPolicyId"]
	out.AccessPolicyID, out.ContractPolicyID = &access, ids["contractPolicyId"]
	if out.Selector, err = criteria(c.body, "$", "assetsSelector"); err != nil {
		return nil, err
	}
	out.PrivateProperties, err = properties(c.body, "privateProperties")
	return out, err
}

func definitionDoc(o *store.Definition) (map[string]any, error) {
	doc := map[string]any{"@type": "ContractDefinition", "@id": o.ID, "createdAt": o.CreatedAt.UnixMilli(),
		"contractPolicyId": o.ContractPolicyID, "assetsSelector": criteriaDocs(o.Selector)}
	if o.AccessPolicyID != nil {
		doc["accessPolicyId"] = *o.AccessPolicyID
	}
	return withPrivate(doc, o.PrivateProperties), nil
}
