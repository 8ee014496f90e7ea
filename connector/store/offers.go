// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Asset is something to offer.
type Asset struct {
	Ctx         string
	ID          string `db:"id"`
	Properties  map[string]any
	DataAddress map[string]string
	CreatedAt   time.Time
}

// Policy is a stored ODRL Set.
type Policy struct {
	Ctx       string
	ID        string `db:"id"`
	Policy    json.RawMessage
	CreatedAt time.Time
}

// Criterion is one condition of a selector, as in the EDC Management API.
type Criterion struct {
	OperandLeft  string `json:"operandLeft"`
	Operator     string `json:"operator"`
	OperandRight any    `json:"operandRight"`
}

// Definition is a contract definition with its policies. AccessPolicy is nil when everybody who satisfies the profile may see the offer.
type Definition struct {
	Ctx              string
	ID               string  `db:"id"`
	AccessPolicyID   *string `db:"access_policy_id"`
	AccessPolicy     json.RawMessage
	ContractPolicyID string `db:"contract_policy_id"`
	ContractPolicy   json.RawMessage
	Selector         []Criterion
	UseCase          string
	CreatedAt        time.Time
}

// Names under which a selector means the asset's id.
var idOperands = []string{"id", "@id", "https://w3id.org/edc/v0.0.1/ns/id"}

// SelectAssets makes a selector for assets by id.
func SelectAssets(ids []string) []Criterion {
	right := make([]any, len(ids))
	for i, id := range ids {
		right[i] = id
	}
	return []Criterion{{OperandLeft: idOperands[2], Operator: "in", OperandRight: right}}
}

// SelectedIDs returns the ids that a selector names, when it selects by id only.
func (d *Definition) SelectedIDs() ([]string, bool) {
	if len(d.Selector) != 1 || !slices.Contains(idOperands, d.Selector[0].OperandLeft) {
		return nil, false
	}
	return rightStrings(d.Selector[0].OperandRight), true
}

// Selects reports whether the asset is offered by the definition. An operator that is not known selects nothing.
func (d *Definition) Selects(a *Asset) bool {
	for _, c := range d.Selector {
		value := a.ID
		if !slices.Contains(idOperands, c.OperandLeft) {
			v, ok := a.Properties[c.OperandLeft]
			if !ok {
				return false
			}
			value = fmt.Sprint(v)
		}
		right := rightStrings(c.OperandRight)
		equal := c.Operator == "=" && len(right) == 1 && right[0] == value
		if !equal && (c.Operator != "in" || !slices.Contains(right, value)) {
			return false
		}
	}
	return true
}

func rightStrings(v any) (out []string) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, item := range list {
		out = append(out, fmt.Sprint(item))
	}
	return out
}

// PutAsset makes or changes an asset.
func (s *Store) PutAsset(ctx context.Context, a Asset) error {
	if a.Properties == nil {
		a.Properties = map[string]any{}
	}
	if a.DataAddress == nil {
		a.DataAddress = map[string]string{}
	}
	return s.exec(ctx, `INSERT INTO control_plane.assets (ctx, id, properties, data_address) VALUES ($1, $2, $3, $4)
		ON CONFLICT (ctx, id) DO UPDATE SET properties = $3, data_address = $4`, a.Ctx, a.ID, a.Properties, a.DataAddress)
}

// Asset reads one asset.
func (s *Store) Asset(ctx context.Context, participant, id string) (*Asset, error) {
	return one[Asset](ctx, s.pool, "SELECT * FROM control_plane.assets WHERE ctx = $1 AND id = $2", participant, id)
}

// Assets lists a participant's assets by id.
func (s *Store) Assets(ctx context.Context, participant string) ([]*Asset, error) {
	return many[Asset](ctx, s.pool, "SELECT * FROM control_plane.assets WHERE ctx = $1 ORDER BY id", participant)
}

// DeleteAsset removes an asset; agreements about it stay.
func (s *Store) DeleteAsset(ctx context.Context, participant, id string) error {
	return s.exec(ctx, "DELETE FROM control_plane.assets WHERE ctx = $1 AND id = $2", participant, id)
}

// PutPolicy makes or changes a policy.
func (s *Store) PutPolicy(ctx context.Context, p Policy) error {
	return s.tx(ctx, func(tx pgx.Tx) error { return putPolicy(ctx, tx, p.Ctx, p.ID, p.Policy) })
}

func putPolicy(ctx context.Context, tx pgx.Tx, participant, id string, policy json.RawMessage) error {
	_, err := tx.Exec(ctx, `INSERT INTO control_plane.policies (ctx, id, policy) VALUES ($1, $2, $3)
		ON CONFLICT (ctx, id) DO UPDATE SET policy = $3`, participant, id, policy)
	return err
}

// Policy reads one policy.
func (s *Store) Policy(ctx context.Context, participant, id string) (*Policy, error) {
	return one[Policy](ctx, s.pool, "SELECT * FROM control_plane.policies WHERE ctx = $1 AND id = $2", participant, id)
}

// Policies lists a participant's policies by id.
func (s *Store) Policies(ctx context.Context, participant string) ([]*Policy, error) {
	return many[Policy](ctx, s.pool, "SELECT * FROM control_plane.policies WHERE ctx = $1 ORDER BY id", participant)
}

// DeletePolicy removes a policy; ErrConflict while a contract definition uses it.
func (s *Store) DeletePolicy(ctx context.Context, participant, id string) error {
	return s.exec(ctx, "DELETE FROM control_plane.policies WHERE ctx = $1 AND id = $2", participant, id)
}

const selectDefinition = `SELECT d.ctx, d.id, d.access_policy AS access_policy_id, a.policy AS access_policy,
	d.contract_policy AS contract_policy_id, c.policy AS contract_policy, d.selector, d.use_case, d.created_at
	FROM control_plane.contract_definitions d
	JOIN control_plane.policies c ON c.ctx = d.ctx AND c.id = d.contract_policy
	LEFT JOIN control_plane.policies a ON a.ctx = d.ctx AND a.id = d.access_policy `

// Definition reads one contract definition.
func (s *Store) Definition(ctx context.Context, participant, id string) (*Definition, error) {
	return one[Definition](ctx, s.pool, selectDefinition+"WHERE d.ctx = $1 AND d.id = $2", participant, id)
}

// Definitions lists a participant's contract definitions by id.
func (s *Store) Definitions(ctx context.Context, participant string) ([]*Definition, error) {
	return many[Definition](ctx, s.pool, selectDefinition+"WHERE d.ctx = $1 ORDER BY d.id", participant)
}

// PutDefinition makes or changes a contract definition. Where a policy is given inline (AccessPolicy, ContractPolicy), it is stored under
// its id in the same transaction; else that id must exist (ErrConflict).
func (s *Store) PutDefinition(ctx context.Context, d Definition) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		if d.AccessPolicyID != nil && d.AccessPolicy != nil {
			if err := putPolicy(ctx, tx, d.Ctx, *d.AccessPolicyID, d.AccessPolicy); err != nil {
				return err
			}
		}
		if d.ContractPolicy != nil {
			if err := putPolicy(ctx, tx, d.Ctx, d.ContractPolicyID, d.ContractPolicy); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO control_plane.contract_definitions (ctx, id, access_policy, contract_policy, selector, use_case)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (ctx, id) DO UPDATE SET access_policy = $3, contract_policy = $4, selector = $5, use_case = $6`,
			d.Ctx, d.ID, d.AccessPolicyID, d.ContractPolicyID, d.Selector, d.UseCase)
		return err
	})
}

// DeleteDefinition removes a contract definition. With policies, the inline ones that PutDefinition stored go too.
func (s *Store) DeleteDefinition(ctx context.Context, participant, id string, policies ...string) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM control_plane.contract_definitions WHERE ctx = $1 AND id = $2", participant, id)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		_, err = tx.Exec(ctx, "DELETE FROM control_plane.policies WHERE ctx = $1 AND id = ANY ($2)", participant, policies)
		return err
	})
}
