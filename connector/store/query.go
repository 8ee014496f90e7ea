// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Query selects and orders part of a list, as the EDC Management API's QuerySpec.
type Query struct {
	Filter        []Criterion // all must hold
	SortField     string      // empty: when it was made
	Descending    bool
	Offset, Limit int
}

// QueryError is a query that can't be answered: a field that there is not, or an operator that does not fit.
type QueryError struct {
	Path    string // such as filterExpression[0].operandLeft
	Message string
}

func (e *QueryError) Error() string { return e.Path + ": " + e.Message }

// kind says how one kind of object is queried: what selects it, and its fields as JSON expressions.
type kind struct {
	sel    string
	ctx    string // column
	fields map[string]string
	bags   map[string]string // columns whose members are fields
	free   string            // column whose members are fields by their bare name
}

const millis = "to_jsonb((extract(epoch FROM %s) * 1000)::bigint)"

func text(column string) string { return "to_jsonb(" + column + ")" }

func fields(alias string, columns map[string]string, more ...map[string]string) map[string]string {
	out := map[string]string{"id": text(alias + "id")}
	for name, column := range columns {
		out[name] = text(alias + column)
	}
	for _, m := range more {
		maps.Copy(out, m)
	}
	return out
}

func made(column string) map[string]string {
	return map[string]string{"createdAt": fmt.Sprintf(millis, column)}
}

var processFields = map[string]string{"createdAt": fmt.Sprintf(millis, "created_at"), "stateTimestamp": fmt.Sprintf(millis, "updated_at"),
	"updatedAt": fmt.Sprintf(millis, "updated_at"), "type": "to_jsonb(upper(role))", "errorDetail": "reason -> 'message'"}

var (
	assetKind = kind{sel: "SELECT * FROM control_plane.assets ", ctx: "ctx", fields: fields("", nil, made("created_at")), free: "properties",
		bags: map[string]string{"properties": "properties", "privateProperties": "private_properties", "dataAddress": "data_address"}}
	policyKind = kind{sel: "SELECT * FROM control_plane.policies ", ctx: "ctx", fields: fields("", nil, made("created_at")),
		bags: map[string]string{"privateProperties": "private_properties"}}
	definitionKind = kind{sel: selectDefinition, ctx: "d.ctx", bags: map[string]string{"privateProperties": "d.private_properties"},
		fields: fields("d.", map[string]string{"accessPolicyId": "access_policy", "contractPolicyId": "contract_policy"}, made("d.created_at"), map[string]string{
			"assetsSelector.operandLeft":  "jsonb_path_query_array(d.selector, '$[*].operandLeft')",
			"assetsSelector.operandRight": "jsonb_path_query_array(d.selector, '$[*].operandRight')"})}
	negotiationKind = kind{sel: negotiationColumns.sel(), ctx: "ctx", fields: fields("", map[string]string{"state": "step", "counterPartyId": "counterparty",
		"counterPartyAddress": "address", "correlationId": "counterparty_pid", "assetId": "asset_id", "contractAgreementId": "agreement_id",
		"contractAgreement.id": "agreement_id", "contractAgreement.assetId": "asset_id", "pending": "held"}, processFields)}
	transferKind = kind{sel: transferColumns.sel(), ctx: "ctx", fields: fields("", map[string]string{"state": "step", "counterPartyId": "counterparty",
		"counterPartyAddress": "address", "correlationId": "counterparty_pid", "assetId": "asset_id", "contractId": "agreement_id", "transferType": "format"}, processFields),
		bags: map[string]string{"privateProperties": "(SELECT q.private_properties FROM control_plane.process_requests q WHERE q.ctx = transfers.ctx AND q.process_id = transfers.id)"}}
	agreementKind = kind{sel: selectAgreement, ctx: "n.state = 'FINALIZED' AND a.ctx", fields: fields("a.", map[string]string{"agreementId": "id", "assetId": "asset_id",
		"providerId": "provider", "consumerId": "consumer", "negotiationId": "negotiation_id"}, made("a.signed_at"),
		map[string]string{"contractSigningDate": "to_jsonb(extract(epoch FROM a.signed_at)::bigint)"})}
	referenceKind = kind{sel: selectReference, ctx: "t.role = 'consumer' AND t.ctx", fields: fields("t.", map[string]string{"transferProcessId": "id", "assetId": "asset_id",
		"agreementId": "agreement_id", "providerId": "counterparty"}, made("t.updated_at"), map[string]string{"contractNegotiationId": text("a.negotiation_id")})}
)

// find answers a query about one participant's objects.
func find[T any](ctx context.Context, s *Store, k kind, participant string, q Query) ([]*T, error) {
	args := []any{participant}
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	sql := k.sel + "WHERE " + k.ctx + " = $1"
	for i, c := range q.Filter {
		path := fmt.Sprintf("filterExpression[%d]", i)
		expr, err := k.expr(c.OperandLeft, arg)
		if err != nil {
			return nil, &QueryError{path + ".operandLeft", err.Error()}
		}
		condition, err := c.sql(expr, arg)
		if err != nil {
			return nil, &QueryError{path, err.Error()}
		}
		sql += " AND " + condition
	}
	if q.SortField == "" {
		q.SortField = "createdAt"
	}
	by, err := k.expr(q.SortField, arg)
	if err != nil {
		return nil, &QueryError{"sortField", err.Error()}
	}
	order := "ASC"
	if q.Descending {
		order = "DESC"
	}
	sql += fmt.Sprintf(" ORDER BY %s %s NULLS LAST, %s LIMIT %s OFFSET %s", by, order, k.fields["id"], arg(q.Limit), arg(q.Offset))
	return many[T](ctx, s.db.In(participant), sql, args...)
}

// expr is the JSON expression of a field.
func (k kind) expr(name string, arg func(any) string) (string, error) {
	bag, key := splitField(name)
	if column, ok := k.bags[bag]; ok {
		return fmt.Sprintf("(%s -> %s::text)", column, arg(key)), nil
	}
	if expr, ok := k.fields[key]; ok && bag == "" {
		return expr, nil
	}
	if bag == "" && k.free != "" {
		return fmt.Sprintf("(%s -> %s::text)", k.free, arg(key)), nil
	}
	known := slices.Sorted(maps.Keys(k.fields))
	for _, b := range slices.Sorted(maps.Keys(k.bags)) {
		known = append(known, b+".…")
	}
	return "", fmt.Errorf("there is no field %q here: use %s", name, strings.Join(known, ", "))
}

// QueryAssets answers a query; a field that can't be asked for is a *QueryError. So are all of these.
func (s *Store) QueryAssets(ctx context.Context, participant string, q Query) ([]*Asset, error) {
	return find[Asset](ctx, s, assetKind, participant, q)
}

// QueryPolicies is QueryAssets for policies.
func (s *Store) QueryPolicies(ctx context.Context, participant string, q Query) ([]*Policy, error) {
	return find[Policy](ctx, s, policyKind, participant, q)
}

// QueryDefinitions is QueryAssets for contract definitions.
func (s *Store) QueryDefinitions(ctx context.Context, participant string, q Query) ([]*Definition, error) {
	return find[Definition](ctx, s, definitionKind, participant, q)
}

// QueryNegotiations is QueryAssets for negotiations.
func (s *Store) QueryNegotiations(ctx context.Context, participant string, q Query) ([]*Negotiation, error) {
	return find[Negotiation](ctx, s, negotiationKind, participant, q)
}

// QueryTransfers is QueryAssets for transfers.
func (s *Store) QueryTransfers(ctx context.Context, participant string, q Query) ([]*Transfer, error) {
	return find[Transfer](ctx, s, transferKind, participant, q)
}

// QueryAgreements is QueryAssets for agreements in force.
func (s *Store) QueryAgreements(ctx context.Context, participant string, q Query) ([]*Agreement, error) {
	return find[Agreement](ctx, s, agreementKind, participant, q)
}

// QueryReferences is QueryAssets for the data addresses that a consumer holds.
func (s *Store) QueryReferences(ctx context.Context, participant string, q Query) ([]*Reference, error) {
	return find[Reference](ctx, s, referenceKind, participant, q)
}
