// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestNextLink(t *testing.T) {
	const base = "https://p.example/x/dsp/2025-1"
	const page = base + "/catalog/request"
	for link, want := range map[string]string{
		`<` + page + `?offset=3&limit=3>; rel="next"`:                                  page + "?offset=3&limit=3",
		`<` + page + `?offset=0>; rel="previous", <` + page + `?offset=6>; rel="next"`: page + "?offset=6",
		`<` + page + `?ids=a,b>;rel=next`:                                              page + "?ids=a,b",
		`<` + page + `?a>; title="x, <y>; rel=next"; rel=previous`:                     "",
		`<?offset=3>; REL="previous Next"`:                                             page + "?offset=3",
		`</x/dsp/2025-1/catalog/request?p=2>; rel="next"; title="of, many"`:            page + "?p=2",
		`<../../../secret>; rel="next"`:                                                "",
		`<https://evil.example/x/dsp/2025-1/catalog/request>; rel="next"`:              "",
		`<https://p.example.evil.example/x/dsp/2025-1/>; rel="next"`:                   "",
		`<http://p.example/x/dsp/2025-1/catalog/request>; rel="next"`:                  "",
		`<` + page + `>; rel="nextish"`:                                                "",
		`<` + page:                                                                     "",
		``:                                                                             "",
	} {
		if got := nextLink(http.Header{"Link": {link}}, page, base); got != want {
			t.Errorf("%s gives %q, want %q", link, got, want)
		}
	}
}

// FuzzNextLink: the token for a counterparty is sent nowhere but beneath its own address.
func FuzzNextLink(f *testing.F) {
	f.Add(`<https://p.example/x/catalog/request?offset=3>; rel="next", <y>; rel=previous`)
	f.Add(`<//evil.example/x/>; rel="next"`)
	f.Add(`<\\evil>;rel="prev next";title="a,b`)
	f.Fuzz(func(t *testing.T, link string) {
		const base = "https://p.example/x"
		got := nextLink(http.Header{"Link": {link}}, base+"/catalog/request", base)
		if got == "" {
			return
		}
		req, err := http.NewRequest(http.MethodPost, got, nil)
		if err != nil {
			return // such an address is not called
		}
		if req.URL.Scheme != "https" || req.URL.Host != "p.example" || req.URL.User != nil || !strings.HasPrefix(req.URL.Path, "/x/") || strings.Contains(req.URL.Path, "/../") {
			t.Errorf("%q leads to %s", link, got)
		}
	})
}

// FuzzFilter: a filter that is taken asks for a page that there can be.
func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"@type":"QuerySpec","offset":2,"limit":50,"filterExpression":[{"operandLeft":"id","operator":"in","operandRight":["a","b"]}]}`))
	f.Add([]byte(`{"filterExpression":{"operandLeft":"https://w3id.org/edc/v0.0.1/ns/id","operator":"=","operandRight":null}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		pg, refusal := readFilter([]json.RawMessage{raw})
		if refusal == nil && (pg.offset < 0 || pg.limit < 1 || pg.limit > maxPage) {
			t.Errorf("%s asks for %+v", raw, pg)
		}
		if refusal != nil && refusal.Status != http.StatusBadRequest {
			t.Errorf("%s is refused with %d", raw, refusal.Status)
		}
		_, _ = pg.of(nil)
	})
}
