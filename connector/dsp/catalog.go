// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

var formats = []string{dps.FormatHTTPPull}

// visible is what one consumer may see of a participant's offers.
type visible struct {
	definition *store.Definition
	policy     *odrl.Policy
}

// definitions returns the contract definitions of a participant's profile with their policies, and the scopes that evaluating all of their access
// policies needs.
func (e *Engine) definitions(ctx context.Context, p *store.Participant, ev *odrl.Evaluator) ([]*store.Definition, []string, error) {
	all, err := e.opt.Store.Definitions(ctx, p.Ctx)
	if err != nil {
		return nil, nil, err
	}
	all = slices.DeleteFunc(all, func(d *store.Definition) bool { return !d.OfferedIn(p) })
	scopes := ev.Scopes(nil, profile.SubjectConsumer)
	for _, d := range all {
		if _, access, err := parseDefinition(d); err == nil {
			scopes = union(scopes, ev.Scopes(access, profile.SubjectConsumer))
		}
	}
	return all, scopes, nil
}

// show leaves of all definitions those that the consumer may see and whose obligations on the provider are met; the others are noted in v.
func (e *Engine) show(ctx context.Context, p *store.Participant, ev *odrl.Evaluator, all []*store.Definition, consumer *identity.Agent, v *catalogVerdict) ([]visible, error) {
	var out []visible
	var own []string
	for _, d := range all {
		contract, access, err := parseDefinition(d)
		if err != nil {
			e.opt.Log.Error("a contract definition is not offered", "participant", p.Ctx, "definition", d.ID, "error", err)
			continue
		}
		j, err := e.judgeSight(ctx, p, access, consumer)
		if err != nil {
			return nil, err
		}
		if j.denial != nil {
			v.withhold(d.ID, j.trace.Policy, odrl.Reason(j.trace, ""))
			continue
		}
		switch outdated, err := e.outdated(ctx, p, d.UseCase, d.Revision); {
		case err != nil:
			return nil, err
		case outdated != "":
			v.withhold(d.ID, odrl.Hash(contract), outdated)
			continue
		}
		out = append(out, visible{d, contract})
		own = union(own, ev.Scopes(contract, profile.SubjectProvider))
	}
	if len(out) == 0 || p.SelfCheck == adminapi.SelfCheckOff {
		return out, nil
	}
	self, err := e.opt.Identity.Self(ctx, p.Local(), own)
	if err != nil {
		return nil, fmt.Errorf("own credentials: %w", err)
	}
	return slices.DeleteFunc(out, func(offer visible) bool {
		t := e.selfCheck(ctx, ev, p, offer.policy, &self)
		if !t.Allowed {
			v.withhold(offer.definition.ID, t.Policy, odrl.Reason(t, ""))
		}
		return !t.Allowed
	}), nil
}

// datasets joins the visible definitions with the assets that they select.
func (e *Engine) datasets(ctx context.Context, p *store.Participant, shown []visible) ([]wire.Dataset, error) {
	assets, err := e.opt.Store.Assets(ctx, p.Ctx)
	if err != nil {
		return nil, err
	}
	var out []wire.Dataset
	for _, a := range assets {
		d := wire.Dataset{ID: a.ID, Properties: a.Properties, Formats: formats}
		for _, v := range shown {
			if v.definition.Selects(a) {
				d.Offers = append(d.Offers, wire.Offer(wire.OfferID(v.definition.ID, a.ID, v.policy), v.policy, "", ""))
			}
		}
		if len(d.Offers) > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// page is the part of a catalog that a request asks for.
type page struct {
	offset, limit int
	ids           []string // nil: all
}

const maxPage = 1000

// readFilter reads the one filter that is supported, EDC's QuerySpec with a condition on the id; anything else is 400 (DSP 2025-1 §5.1).
func readFilter(filter []json.RawMessage) (page, *RefusalError) {
	out := page{limit: maxPage}
	for i, raw := range filter {
		var q struct {
			Offset           int             `json:"offset"`
			Limit            int             `json:"limit"`
			FilterExpression json.RawMessage `json:"filterExpression"`
			SortField        string          `json:"sortField"`
		}
		bad := refuse(http.StatusBadRequest, "invalid", "$.filter[%d]: only offset, limit and a condition on the id are supported as filter", i)
		if err := json.Unmarshal(raw, &q); err != nil || q.Offset < 0 || q.Limit < 0 || q.SortField != "" {
			return page{}, bad
		}
		out.offset = q.Offset
		if q.Limit > 0 {
			out.limit = min(q.Limit, maxPage)
		}
		criteria, err := readCriteria(q.FilterExpression)
		if err != nil {
			return page{}, bad
		}
		for _, c := range criteria {
			ids, ok := (&store.Definition{Selector: []store.Criterion{c}}).SelectedIDs()
			if !ok || (c.Operator != "=" && c.Operator != "in") {
				return page{}, bad
			}
			out.ids = append([]string{}, ids...)
		}
	}
	return out, nil
}

func readCriteria(raw json.RawMessage) (out []store.Criterion, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if strings.HasPrefix(string(raw), "{") {
		raw = json.RawMessage("[" + string(raw) + "]")
	}
	err = json.Unmarshal(raw, &out)
	return out, err
}

func (pg page) of(all []wire.Dataset) (part []wire.Dataset, more bool) {
	if pg.ids != nil {
		all = slices.DeleteFunc(all, func(d wire.Dataset) bool { return !slices.Contains(pg.ids, d.ID) })
	}
	start := min(pg.offset, len(all))
	end := min(start+pg.limit, len(all))
	return all[start:end], end < len(all)
}

// FetchCatalog asks a counterparty for its catalog now, in one of the participant's profiles; empty is the default one. All pages are read, up to
// a bound.
func (e *Engine) FetchCatalog(ctx context.Context, participant, profile, counterparty, address string) ([]wire.Dataset, string, error) {
	p, err := e.lookupParticipant(ctx, participant, profile)
	if err != nil {
		return nil, "", err
	}
	return e.fetchCatalog(ctx, p, counterparty, address)
}

const maxPages = 1000

func (e *Engine) fetchCatalog(ctx context.Context, p *store.Participant, counterparty, given string) ([]wire.Dataset, string, error) {
	address, err := e.address(ctx, p, counterparty, given)
	if err != nil {
		return nil, "", err
	}
	authorization, err := e.authorization(ctx, p, counterparty, catalogScopes(p.Profile))
	if err != nil {
		return nil, "", err
	}
	var out []wire.Dataset
	next, left := join(address, "catalog", "request"), int64(maxCatalog)
	for range maxPages {
		raw, header, err := e.exchange(ctx, http.MethodPost, next, authorization, wire.New(wire.CatalogRequest, ""), left)
		if err != nil {
			return nil, "", unreachable(counterparty, err)
		}
		_, part, err := wire.ParseCatalog(raw)
		if err != nil {
			return nil, "", refuse(http.StatusBadGateway, "counterparty-refused", "the catalog of %s is not understood: %s", counterparty, err)
		}
		out, left = append(out, part...), left-int64(len(raw))
		if next = nextLink(header, next, address); next == "" {
			return out, address, nil
		}
		// A token may be good for one use.
		if authorization, err = e.authorization(ctx, p, counterparty, catalogScopes(p.Profile)); err != nil {
			return nil, "", err
		}
	}
	return out, address, nil
}

// catalogScopes lets a provider see whatever its access policies may ask of a consumer: which they are isn't known beforehand.
func catalogScopes(p profile.Profile) []string {
	var out []string
	for _, t := range p.RequiredCredentials {
		out = append(out, identity.TypeScope(t))
	}
	for _, o := range p.Operands {
		if o.Subject == subjectOf(state.Consumer) && o.Credential != "" {
			out = append(out, identity.TypeScope(o.Credential))
		}
	}
	return union(out)
}

// nextLink returns the address of the next page (RFC 8288), which may be relative to the page's and must be beneath base.
func nextLink(h http.Header, page, base string) string {
	from, err := url.Parse(page)
	if err != nil {
		return ""
	}
	for _, rest := range h.Values("Link") {
		for {
			_, after, ok := strings.Cut(rest, "<")
			if !ok {
				break
			}
			var target string
			var params []string
			if target, after, ok = strings.Cut(after, ">"); !ok {
				break
			}
			params, rest = linkParams(after)
			if !slices.ContainsFunc(params, isNext) {
				continue
			}
			u, err := from.Parse(target)
			if err == nil && strings.HasPrefix(u.String(), strings.TrimSuffix(base, "/")+"/") {
				return u.String()
			}
		}
	}
	return ""
}

// linkParams splits the parameters of a link off. What is in quotes ends neither a parameter nor the link.
func linkParams(s string) (params []string, rest string) {
	quoted, begin := false, 0
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ';' && !quoted:
			params, begin = append(params, s[begin:i]), i+1
		case s[i] == ',' && !quoted:
			return append(params, s[begin:i]), s[i+1:]
		}
	}
	return append(params, s[begin:]), ""
}

// isNext reports whether rel, which may name several relations, names "next".
func isNext(param string) bool {
	name, value, _ := strings.Cut(param, "=")
	return strings.EqualFold(strings.TrimSpace(name), "rel") &&
		slices.Contains(strings.Fields(strings.ToLower(strings.Trim(strings.TrimSpace(value), `"`))), "next")
}
