// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/store"
)

// catalogFor proves who asks and returns what that party may see.
func (e *Engine) catalogFor(ctx context.Context, p *store.Participant, r *http.Request) ([]wire.Dataset, error) {
	ev, err := e.Evaluator(p)
	if err != nil {
		return nil, err
	}
	all, scopes, err := e.definitions(ctx, p, ev)
	if err != nil {
		return nil, err
	}
	agent, missing, err := e.verify(ctx, p, r, ev, scopes)
	if err != nil {
		return nil, err
	}
	verdict := catalogVerdict{Counterparty: agent.ID, Allowed: missing == nil}
	if missing != nil {
		verdict.Reason = missing.Message
		e.recordCatalog(ctx, p, verdict)
		return nil, missing
	}
	shown, err := e.show(ctx, p, ev, all, &agent, &verdict)
	if err != nil {
		return nil, err
	}
	e.recordCatalog(ctx, p, verdict)
	return e.datasets(ctx, p, shown)
}

// catalogRequest answers CatalogRequestMessage. Pages are linked with RFC 8288 headers whose addresses carry offset and limit.
func (e *Engine) catalogRequest(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	if r.Header.Get("Authorization") == "" {
		return answer{}, refuse(http.StatusUnauthorized, "unauthenticated", "the Authorization header is missing")
	}
	m, err := read(r, wire.CatalogRequest)
	if err != nil {
		return answer{}, err
	}
	pg, bad := readFilter(m.Filter)
	if bad != nil {
		return answer{}, bad
	}
	for name, into := range map[string]*int{"offset": &pg.offset, "limit": &pg.limit} {
		if v := r.URL.Query().Get(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > 1<<30 || (name == "limit" && (n == 0 || n > maxPage)) {
				return answer{}, refuse(http.StatusBadRequest, "invalid", "%s=%q: follow the Link header of the page before", name, v)
			}
			*into = n
		}
	}
	all, err := e.catalogFor(ctx, p, r)
	if err != nil {
		return answer{}, err
	}
	part, more := pg.of(all)
	base := e.Base(p)
	out := answer{status: http.StatusOK, body: wire.EncodeCatalog(base+"/catalog", p.DID, base, part)}
	link := func(offset int, rel string) string {
		return fmt.Sprintf(`<%s/catalog/request?offset=%d&limit=%d>; rel="%s"`, base, offset, pg.limit, rel)
	}
	var links []string
	if pg.offset > 0 {
		links = append(links, link(max(0, pg.offset-pg.limit), "previous"))
	}
	if more {
		links = append(links, link(pg.offset+pg.limit, "next"))
	}
	if len(links) > 0 {
		out.header = http.Header{"Link": {strings.Join(links, ", ")}}
	}
	return out, nil
}

func (e *Engine) datasetRequest(ctx context.Context, p *store.Participant, r *http.Request) (answer, error) {
	all, err := e.catalogFor(ctx, p, r)
	if err != nil {
		return answer{}, err
	}
	id := r.PathValue("id")
	i := slices.IndexFunc(all, func(d wire.Dataset) bool { return d.ID == id })
	if i < 0 {
		return answer{}, refuse(http.StatusNotFound, "not-found", "dataset %q is not offered to you", id)
	}
	body := wire.EncodeDataset(all[i], e.Base(p))
	body["@context"] = []string{wire.Context}
	return answer{status: http.StatusOK, body: body}, nil
}
