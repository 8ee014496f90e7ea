// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// Asset is something to offer.
type Asset struct {
	Ctx        string
	ID         string `db:"id"`
	Properties map[string]any
	// PrivateProperties are the owner's own notes: nobody else sees them.
	PrivateProperties map[string]any
	DataAddress       map[string]string
	CreatedAt         time.Time
}

// Policy is a stored ODRL Set.
type Policy struct {
	Ctx       string
	ID        string `db:"id"`
	Policy    json.RawMessage
	CreatedAt time.Time

	PrivateProperties map[string]any
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
	Revision         *adminapi.RevisionRef // of the use case
	Gates            []adminapi.Gate
	// Profiles are the participant's dataspace profiles that it is offered in; none is the default one.
	Profiles  []string
	CreatedAt time.Time

	PrivateProperties map[string]any
}

// OfferedIn reports whether the participant offers it in the profile that it is seen in.
func (d *Definition) OfferedIn(p *Participant) bool {
	if len(d.Profiles) == 0 {
		return p.Default()
	}
	return slices.Contains(d.Profiles, p.ProfileName)
}

// SelectAssets makes a selector for assets by id.
func SelectAssets(ids []string) []Criterion {
	right := make([]any, len(ids))
	for i, id := range ids {
		right[i] = id
	}
	return []Criterion{{OperandLeft: edcNamespace + "id", Operator: "in", OperandRight: right}}
}

// SelectedIDs returns the ids that a selector names, when it names ids only.
func (d *Definition) SelectedIDs() ([]string, bool) {
	if len(d.Selector) != 1 || (d.Selector[0].Operator != "=" && d.Selector[0].Operator != "in") {
		return nil, false
	}
	if bag, key := splitField(d.Selector[0].OperandLeft); bag != "" || key != "id" {
		return nil, false
	}
	return scalars(d.Selector[0].OperandRight), true
}

// Selects reports whether the asset is offered by the definition. An operator that is not known selects nothing.
func (d *Definition) Selects(a *Asset) bool {
	for _, c := range d.Selector {
		if !c.Matches(a.field(c.OperandLeft)) {
			return false
		}
	}
	return true
}

// field is the value that a criterion's left operand means; nil when the asset has none.
func (a *Asset) field(left string) any {
	bag, key := splitField(left)
	switch {
	case bag == "privateProperties":
		return a.PrivateProperties[key]
	case bag == "dataAddress":
		if v, ok := a.DataAddress[key]; ok {
			return v
		}
		return nil
	case bag == "" && key == "id":
		return a.ID
	}
	return a.Properties[key]
}

// Mode is what writing an object may do.
type Mode int

// Modes.
const (
	Put    Mode = iota // make or change
	Create             // ErrConflict when there is one already
	Update             // ErrNotFound when there is none
)

// save writes a row of a table by its participant and id; columns not named keep what they have.
func save(ctx context.Context, tx pgx.Tx, mode Mode, table, participant, id string, columns []string, values ...any) error {
	var names, marks, sets []string
	for i, c := range columns {
		names, marks, sets = append(names, c), append(marks, fmt.Sprintf("$%d", i+3)), append(sets, fmt.Sprintf("%s = $%d", c, i+3))
	}
	update := "UPDATE SET " + strings.Join(sets, ", ")
	sql := fmt.Sprintf("INSERT INTO control_plane.%s (ctx, id, %s) VALUES ($1, $2, %s)", table, strings.Join(names, ", "), strings.Join(marks, ", "))
	switch mode {
	case Put:
		sql += " ON CONFLICT (ctx, id) DO " + update
	case Create:
	case Update:
		sql = fmt.Sprintf("UPDATE control_plane.%s SET %s WHERE ctx = $1 AND id = $2", table, strings.Join(sets, ", "))
	}
	tag, err := tx.Exec(ctx, sql, append([]any{participant, id}, values...)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNotFound
	}
	return err
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// PutAsset makes or changes an asset; private properties stay as they are.
func (s *Store) PutAsset(ctx context.Context, a Asset) error {
	return s.tx(ctx, s.db.In(a.Ctx), func(tx pgx.Tx) error {
		return save(ctx, tx, Put, "assets", a.Ctx, a.ID, []string{"properties", "data_address"}, orEmpty(a.Properties), orEmpty(a.DataAddress))
	})
}

// SaveAsset writes the whole asset.
func (s *Store) SaveAsset(ctx context.Context, mode Mode, a *Asset) error {
	return s.tx(ctx, s.db.In(a.Ctx), func(tx pgx.Tx) error {
		return save(ctx, tx, mode, "assets", a.Ctx, a.ID, []string{"properties", "private_properties", "data_address"},
			orEmpty(a.Properties), orEmpty(a.PrivateProperties), orEmpty(a.DataAddress))
	})
}

// Asset reads one asset.
func (s *Store) Asset(ctx context.Context, participant, id string) (*Asset, error) {
	return one[Asset](ctx, s.db.In(participant), "SELECT * FROM control_plane.assets WHERE ctx = $1 AND id = $2", participant, id)
}

// Assets lists a participant's assets by id.
func (s *Store) Assets(ctx context.Context, participant string) ([]*Asset, error) {
	return many[Asset](ctx, s.db.In(participant), "SELECT * FROM control_plane.assets WHERE ctx = $1 ORDER BY id", participant)
}

// DeleteAsset removes an asset; agreements about it stay.
func (s *Store) DeleteAsset(ctx context.Context, participant, id string) error {
	return s.exec(ctx, s.db.In(participant), "DELETE FROM control_plane.assets WHERE ctx = $1 AND id = $2", participant, id)
}

// DeleteUnusedAsset is DeleteAsset, but ErrConflict while an agreement of its provider is about the asset.
func (s *Store) DeleteUnusedAsset(ctx context.Context, participant, id string) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
		var agreement *string
		err := tx.QueryRow(ctx, `SELECT (SELECT id FROM control_plane.agreements WHERE ctx = $1 AND asset_id = $2 AND role = 'provider' LIMIT 1)
			FROM control_plane.assets WHERE ctx = $1 AND id = $2 FOR UPDATE`, participant, id).Scan(&agreement)
		switch {
		case err != nil:
			return err
		case agreement != nil:
			return fmt.Errorf("%w: agreement %s is about it", ErrConflict, *agreement)
		}
		_, err = tx.Exec(ctx, "DELETE FROM control_plane.assets WHERE ctx = $1 AND id = $2", participant, id)
		return err
	})
}

// SavePolicy writes a policy; ErrConflict if an offer under a revision of a use case has it, which alone says what that offer demands.
func (s *Store) SavePolicy(ctx context.Context, mode Mode, p *Policy) error {
	return s.tx(ctx, s.db.In(p.Ctx), func(tx pgx.Tx) error {
		var offer, useCase string
		if _, err := tx.Exec(ctx, "SELECT FROM control_plane.participants WHERE ctx = $1 FOR NO KEY UPDATE", p.Ctx); err != nil { // no offer is made of it meanwhile
			return err
		}
		err := tx.QueryRow(ctx, `SELECT id, use_case FROM control_plane.contract_definitions
			WHERE ctx = $1 AND revision IS NOT NULL AND $2 IN (contract_policy, access_policy) ORDER BY id LIMIT 1`, p.Ctx, p.ID).Scan(&offer, &useCase)
		switch {
		case err == nil:
			return fmt.Errorf("%w: offer %s under use case %s demands what policy %s says: revise the use case instead", ErrConflict, offer, useCase, p.ID)
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		return save(ctx, tx, mode, "policies", p.Ctx, p.ID, []string{"policy", "private_properties"}, p.Policy, orEmpty(p.PrivateProperties))
	})
}

func putPolicy(ctx context.Context, tx pgx.Tx, participant, id string, policy json.RawMessage) error {
	return save(ctx, tx, Put, "policies", participant, id, []string{"policy"}, policy)
}

// Policy reads one policy.
func (s *Store) Policy(ctx context.Context, participant, id string) (*Policy, error) {
	return one[Policy](ctx, s.db.In(participant), "SELECT * FROM control_plane.policies WHERE ctx = $1 AND id = $2", participant, id)
}

// Policies lists a participant's policies by id.
func (s *Store) Policies(ctx context.Context, participant string) ([]*Policy, error) {
	return many[Policy](ctx, s.db.In(participant), "SELECT * FROM control_plane.policies WHERE ctx = $1 ORDER BY id", participant)
}

// DeletePolicy removes a policy; ErrConflict while a contract definition uses it.
func (s *Store) DeletePolicy(ctx context.Context, participant, id string) error {
	return s.exec(ctx, s.db.In(participant), "DELETE FROM control_plane.policies WHERE ctx = $1 AND id = $2", participant, id)
}

const selectDefinition = `SELECT d.ctx, d.id, d.access_policy AS access_policy_id, a.policy AS access_policy,
	d.contract_policy AS contract_policy_id, c.policy AS contract_policy, d.selector, d.use_case, d.revision, d.profiles, d.gates, d.created_at, d.private_properties
	FROM control_plane.contract_definitions d
	JOIN control_plane.policies c ON c.ctx = d.ctx AND c.id = d.contract_policy
	LEFT JOIN control_plane.policies a ON a.ctx = d.ctx AND a.id = d.access_policy `

// Definition reads one contract definition.
func (s *Store) Definition(ctx context.Context, participant, id string) (*Definition, error) {
	return one[Definition](ctx, s.db.In(participant), selectDefinition+"WHERE d.ctx = $1 AND d.id = $2", participant, id)
}

// Definitions lists a participant's contract definitions by id.
func (s *Store) Definitions(ctx context.Context, participant string) ([]*Definition, error) {
	return many[Definition](ctx, s.db.In(participant), selectDefinition+"WHERE d.ctx = $1 ORDER BY d.id", participant)
}

// PutDefinition makes or changes a contract definition. Where a policy is given inline (AccessPolicy, ContractPolicy), it is stored under
// its id in the same transaction; else that id must exist (ErrConflict).
func (s *Store) PutDefinition(ctx context.Context, d Definition) error {
	return s.tx(ctx, s.db.In(d.Ctx), func(tx pgx.Tx) error {
		if err := underRevision(ctx, tx, &d); err != nil {
			return err
		}
		return putDefinition(ctx, tx, &d)
	})
}

func putDefinition(ctx context.Context, tx pgx.Tx, d *Definition) error {
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
	return save(ctx, tx, Put, "contract_definitions", d.Ctx, d.ID, append([]string{"profiles", "gates"}, definitionColumns...), append([]any{list(d.Profiles), list(d.Gates)}, d.values()...)...)
}

var definitionColumns = []string{"access_policy", "contract_policy", "selector", "use_case", "revision"}

func (d *Definition) values() []any {
	return []any{d.AccessPolicyID, d.ContractPolicyID, d.Selector, d.UseCase, d.Revision}
}

// SaveDefinition writes a contract definition whose policies exist (else ErrConflict), except for its profiles and its gates.
func (s *Store) SaveDefinition(ctx context.Context, mode Mode, d *Definition) error {
	return s.tx(ctx, s.db.In(d.Ctx), func(tx pgx.Tx) error {
		return save(ctx, tx, mode, "contract_definitions", d.Ctx, d.ID, append([]string{"private_properties"}, definitionColumns...),
			append([]any{orEmpty(d.PrivateProperties)}, d.values()...)...)
	})
}

// DeleteDefinition removes a contract definition. With policies, the inline ones that PutDefinition stored go too.
func (s *Store) DeleteDefinition(ctx context.Context, participant, id string, policies ...string) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
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
