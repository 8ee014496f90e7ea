// SPDX-License-Identifier: Apache-2.0

package management

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// The EDC Management API, version 3, as far as its clients need it to offer, negotiate and transfer. Bodies are read in compact form, with
// terms bare, prefixed or in full; nothing is fetched.

const edcNamespace = "https://w3id.org/edc/v0.0.1/ns/"

var edcContext = map[string]string{"@vocab": edcNamespace, "edc": edcNamespace, "odrl": odrl.Namespace}

func (s *server) edcRoutes(mux *http.ServeMux) {
	const base = " /management/{ctx}/v3"
	mux.Handle("POST"+base+"/assets", s.edc(s.edcCreateAsset))
	mux.Handle("PUT"+base+"/assets", s.edc(s.edcUpdateAsset))
	mux.Handle("GET"+base+"/assets/{id}", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		a, err := s.Store.Asset(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "asset", r.PathValue("id"))
		}
		return edcAsset(a), nil
	}))
	mux.Handle("DELETE"+base+"/assets/{id}", s.edc(s.deleteAsset))
	mux.Handle("POST"+base+"/assets/request", s.edc(edcQuery(s.Store.Assets, func(a *store.Asset) (string, any) { return a.ID, edcAsset(a) })))

	mux.Handle("POST"+base+"/policydefinitions", s.edc(s.edcCreatePolicy))
	mux.Handle("PUT"+base+"/policydefinitions/{id}", s.edc(s.edcUpdatePolicy))
	mux.Handle("GET"+base+"/policydefinitions/{id}", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		d, err := s.Store.Policy(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "policy definition", r.PathValue("id"))
		}
		return edcPolicy(d), nil
	}))
	mux.Handle("DELETE"+base+"/policydefinitions/{id}", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		return nil, describe(s.Store.DeletePolicy(r.Context(), p.Ctx, r.PathValue("id")), "policy definition", r.PathValue("id"))
	}))
	mux.Handle("POST"+base+"/policydefinitions/request", s.edc(edcQuery(s.Store.Policies, func(d *store.Policy) (string, any) { return d.ID, edcPolicy(d) })))

	mux.Handle("POST"+base+"/contractdefinitions", s.edc(s.edcCreateDefinition))
	mux.Handle("PUT"+base+"/contractdefinitions", s.edc(s.edcUpdateDefinition))
	mux.Handle("GET"+base+"/contractdefinitions/{id}", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		d, err := s.Store.Definition(r.Context(), p.Ctx, r.PathValue("id"))
		if err != nil {
			return nil, describe(err, "contract definition", r.PathValue("id"))
		}
		return edcDefinition(d), nil
	}))
	mux.Handle("DELETE"+base+"/contractdefinitions/{id}", s.edc(func(r *http.Request, p *store.Participant) (any, error) {
		return nil, describe(s.Store.DeleteDefinition(r.Context(), p.Ctx, r.PathValue("id")), "contract definition", r.PathValue("id"))
	}))
	mux.Handle("POST"+base+"/contractdefinitions/request", s.edc(edcQuery(s.Store.Definitions, func(d *store.Definition) (string, any) { return d.ID, edcDefinition(d) })))
	s.edcProcessRoutes(mux, base)
}

// edc makes a handler that answers and fails as EDC does: errors are an array.
func (s *server) edc(f func(*http.Request, *store.Participant) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := s.participant(r)
		var out any
		if err == nil {
			out, err = f(r, p)
		}
		if err != nil {
			status, body := s.errorBody(r, err)
			if status == http.StatusUnprocessableEntity {
				status = http.StatusBadRequest
			}
			writeJSON(w, status, []any{map[string]any{"message": body.Message, "type": edcErrorType(body), "path": body.Path, "invalidValue": nil}})
			return
		}
		if out == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeJSON(w, http.StatusOK, out)
	}
}

func edcErrorType(e adminapi.Error) string {
	switch e.Code {
	case "not-found":
		return "ObjectNotFound"
	case "conflict":
		return "ObjectConflict"
	}
	return "ValidationFailure"
}

// edcBody reads a body into v. Keys lose the namespace of EDC, except within a policy, which is ODRL's.
func edcBody(r *http.Request, v any) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return invalid("the body could not be read: %s", err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return invalid("the body is not valid JSON: %s", err)
	}
	plain, err := json.Marshal(compactTerms(tree))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return invalid("the body is not understood: %s", err)
	}
	return nil
}

func compactTerms(v any) any {
	switch t := v.(type) {
	case []any:
		for i := range t {
			t[i] = compactTerms(t[i])
		}
	case map[string]any:
		if value, ok := t["@value"]; ok {
			return value
		}
		out := make(map[string]any, len(t))
		for k, item := range t {
			k = strings.TrimPrefix(strings.TrimPrefix(k, edcNamespace), "edc:")
			if k != "policy" {
				item = compactTerms(item)
			}
			out[k] = item
		}
		return out
	}
	return v
}

func edcID(id string, at time.Time) any {
	return map[string]any{"@context": edcContext, "@type": "IdResponse", "@id": id, "createdAt": at.UnixMilli()}
}

type edcAssetBody struct {
	ID                string         `json:"@id"`
	Properties        map[string]any `json:"properties"`
	PrivateProperties map[string]any `json:"privateProperties"`
	DataAddress       map[string]any `json:"dataAddress"`
}

func (b *edcAssetBody) asset(participant string) (store.Asset, error) {
	if b.ID == "" {
		return store.Asset{}, invalid("@id: missing")
	}
	if len(b.PrivateProperties) > 0 {
		return store.Asset{}, invalid("privateProperties: not supported")
	}
	address := map[string]string{}
	for k, v := range b.DataAddress {
		if !strings.HasPrefix(k, "@") {
			address[k] = fmt.Sprint(v)
		}
	}
	if len(address) == 0 {
		return store.Asset{}, invalid("dataAddress: missing")
	}
	return store.Asset{Ctx: participant, ID: b.ID, Properties: b.Properties, DataAddress: address}, nil
}

func edcAsset(a *store.Asset) any {
	address := map[string]any{"@type": "DataAddress"}
	for k, v := range a.DataAddress {
		address[k] = v
	}
	return map[string]any{"@context": edcContext, "@type": "Asset", "@id": a.ID, "properties": a.Properties, "dataAddress": address}
}

func (s *server) edcCreateAsset(r *http.Request, p *store.Participant) (any, error) {
	var b edcAssetBody
	if err := edcBody(r, &b); err != nil {
		return nil, err
	}
	a, err := b.asset(p.Ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Store.Asset(r.Context(), p.Ctx, a.ID); err == nil {
		return nil, alreadyThere("asset", a.ID)
	}
	return edcID(a.ID, time.Now()), s.storeAsset(r.Context(), a)
}

func alreadyThere(kind, id string) error {
	return &dsp.RefusalError{Status: http.StatusConflict, Code: "conflict", Message: fmt.Sprintf("there is a %s %q already", kind, id)}
}

func (s *server) edcUpdateAsset(r *http.Request, p *store.Participant) (any, error) {
	var b edcAssetBody
	if err := edcBody(r, &b); err != nil {
		return nil, err
	}
	a, err := b.asset(p.Ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Store.Asset(r.Context(), p.Ctx, a.ID); err != nil {
		return nil, describe(err, "asset", a.ID)
	}
	return nil, s.storeAsset(r.Context(), a)
}

type edcPolicyBody struct {
	ID     string          `json:"@id"`
	Policy json.RawMessage `json:"policy"`
}

func edcPolicy(d *store.Policy) any {
	return map[string]any{"@context": edcContext, "@type": "PolicyDefinition", "@id": d.ID, "createdAt": d.CreatedAt.UnixMilli(), "policy": d.Policy}
}

func (s *server) edcCreatePolicy(r *http.Request, p *store.Participant) (any, error) {
	var b edcPolicyBody
	if err := edcBody(r, &b); err != nil {
		return nil, err
	}
	if b.ID == "" {
		return nil, invalid("@id: missing")
	}
	if _, err := s.Store.Policy(r.Context(), p.Ctx, b.ID); err == nil {
		return nil, alreadyThere("policy definition", b.ID)
	}
	return edcID(b.ID, time.Now()), s.edcPutPolicy(r, p, b)
}

func (s *server) edcUpdatePolicy(r *http.Request, p *store.Participant) (any, error) {
	var b edcPolicyBody
	if err := edcBody(r, &b); err != nil {
		return nil, err
	}
	b.ID = r.PathValue("id")
	if _, err := s.Store.Policy(r.Context(), p.Ctx, b.ID); err != nil {
		return nil, describe(err, "policy definition", b.ID)
	}
	return nil, s.edcPutPolicy(r, p, b)
}

func (s *server) edcPutPolicy(r *http.Request, p *store.Participant, b edcPolicyBody) error {
	if _, err := s.checkPolicy(p, "$.policy", b.Policy); err != nil {
		return err
	}
	return s.Store.PutPolicy(r.Context(), store.Policy{Ctx: p.Ctx, ID: b.ID, Policy: b.Policy})
}

type edcDefinitionBody struct {
	ID               string          `json:"@id"`
	AccessPolicyID   string          `json:"accessPolicyId"`
	ContractPolicyID string          `json:"contractPolicyId"`
	AssetsSelector   json.RawMessage `json:"assetsSelector"`
}

func (b *edcDefinitionBody) definition(participant string) (store.Definition, error) {
	for name, v := range map[string]string{"@id": b.ID, "accessPolicyId": b.AccessPolicyID, "contractPolicyId": b.ContractPolicyID} {
		if v == "" {
			return store.Definition{}, invalid("%s: missing", name)
		}
	}
	criteria, err := edcCriteria(b.AssetsSelector)
	if err != nil {
		return store.Definition{}, err
	}
	return store.Definition{Ctx: participant, ID: b.ID, AccessPolicyID: &b.AccessPolicyID, ContractPolicyID: b.ContractPolicyID, Selector: criteria}, nil
}

// edcCriteria reads one criterion or a list of them; operators other than = and in are refused, since they would select nothing.
func edcCriteria(raw json.RawMessage) ([]store.Criterion, error) {
	out := []store.Criterion{}
	if len(raw) == 0 || string(raw) == "null" {
		return out, nil
	}
	if raw[0] == '{' {
		raw = slices.Concat(json.RawMessage("["), raw, json.RawMessage("]"))
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, invalid("criteria are not understood: %s", err)
	}
	for i, c := range out {
		if c.Operator != "=" && c.Operator != "in" {
			return nil, invalid("criterion %d: operator %q is not supported, only = and in", i, c.Operator)
		}
	}
	return out, nil
}

func edcDefinition(d *store.Definition) any {
	selector := []any{}
	for _, c := range d.Selector {
		selector = append(selector, map[string]any{"@type": "Criterion", "operandLeft": c.OperandLeft, "operator": c.Operator, "operandRight": c.OperandRight})
	}
	return map[string]any{"@context": edcContext, "@type": "ContractDefinition", "@id": d.ID, "createdAt": d.CreatedAt.UnixMilli(),
		"accessPolicyId": d.AccessPolicyID, "contractPolicyId": d.ContractPolicyID, "assetsSelector": selector}
}

func (s *server) edcCreateDefinition(r *http.Request, p *store.Participant) (any, error) {
	var b edcDefinitionBody
	if err := edcBody(r, &b); err != nil {
		return nil, err
	}
	d, err := b.definition(p.Ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Store.Definition(r.Context(), p.Ctx, d.ID); err == nil {
		return nil, alreadyThere("contract definition", d.ID)
	}
	return edcID(d.ID, time.Now()), s.Store.PutDefinition(r.Context(), d)
}

func (s *server) edcUpdateDefinition(r *http.Request, p *store.Participant) (any, error) {
	var b edcDefinitionBody
	if err := edcBody(r, &b); err != nil {
		return nil, err
	}
	d, err := b.definition(p.Ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Store.Definition(r.Context(), p.Ctx, d.ID); err != nil {
		return nil, describe(err, "contract definition", d.ID)
	}
	return nil, s.Store.PutDefinition(r.Context(), d)
}

// querySpec is the body of POST .../request; it may be absent.
type querySpec struct {
	Offset           int             `json:"offset"`
	Limit            int             `json:"limit"`
	FilterExpression json.RawMessage `json:"filterExpression"`
}

func readQuery(r *http.Request) (q querySpec, ids []string, err error) {
	q.Limit = 50
	if r.ContentLength != 0 {
		if err := edcBody(r, &q); err != nil {
			return q, nil, err
		}
	}
	criteria, err := edcCriteria(q.FilterExpression)
	if err != nil {
		return q, nil, err
	}
	for _, c := range criteria {
		selected, ok := (&store.Definition{Selector: []store.Criterion{c}}).SelectedIDs()
		if !ok {
			return q, nil, invalid("filterExpression: only a condition on the id is supported, not on %q", c.OperandLeft)
		}
		ids = append([]string{}, selected...)
	}
	if q.Offset < 0 || q.Limit < 1 || q.Limit > 1000 {
		return q, nil, invalid("offset %d, limit %d: offset from 0, limit from 1 to 1000", q.Offset, q.Limit)
	}
	return q, ids, nil
}

// window returns the part of a list that a query asks for.
func window[T any](q querySpec, ids []string, all []T, view func(T) (string, any)) []any {
	out := []any{}
	for _, item := range all {
		id, v := view(item)
		if ids == nil || slices.Contains(ids, id) {
			out = append(out, v)
		}
	}
	start := min(q.Offset, len(out))
	return out[start:min(start+q.Limit, len(out))]
}

func edcQuery[T any](list func(ctx context.Context, participant string) ([]T, error), view func(T) (string, any)) func(*http.Request, *store.Participant) (any, error) {
	return func(r *http.Request, p *store.Participant) (any, error) {
		q, ids, err := readQuery(r)
		if err != nil {
			return nil, err
		}
		all, err := list(r.Context(), p.Ctx)
		if err != nil {
			return nil, err
		}
		return window(q, ids, all, view), nil
	}
}
