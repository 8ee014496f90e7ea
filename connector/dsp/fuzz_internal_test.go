// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
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

// FuzzVersions: a version document leads nowhere but beneath the address that it was read from, and is refused in words.
func FuzzVersions(f *testing.F) {
	// As Eclipse EDC 0.15.1 answers.
	f.Add([]byte(`{"protocolVersions":[{"version":"2025-1","path":"/2025-1","binding":"HTTPS"},{"version":"2024/1","path":"/2024/1","binding":"HTTPS"},{"version":"v0.8","path":"/","binding":"HTTPS"}]}`))
	f.Add([]byte(`{"protocolVersions":[{"version":"2025-1","path":"","serviceId":"did:web:p.example#other"},{"version":"2025-1","path":"/other/","serviceId":"did:web:p.example#a%20b","auth":{"protocol":"DCP"}}]}`))
	f.Add([]byte(`{"protocolVersions":[{"version":"2025-1","path":"../../../evil"},{"version":"2025-1","path":"?x=1#y"},{"version":"2025-1","path":"//u@evil.example:1"},null]}`))
	f.Add([]byte(`{"protocolVersions":{"version":"2025-1"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		const root, did = "https://p.example/x", "did:web:p.example"
		p := &store.Participant{Profiles: []profile.Profile{{Name: "first"}, {Name: "a b"}}}
		for _, in := range p.Profiles {
			p.ProfileName = in.Name
			base, err := versionBase(raw, p, did, root+versionEndpoint)
			if err != nil {
				if r := new(RefusalError); !errors.As(err, &r) || r.Status != http.StatusBadGateway || r.Message == "" {
					t.Fatalf("not a refusal: %v", err)
				}
				continue
			}
			u, err := url.Parse(join(base, "catalog", "request"))
			if err != nil || u.Scheme != "https" || u.Host != "p.example" || u.User != nil || !strings.HasPrefix(path.Clean(u.Path), "/x/") || !strings.HasSuffix(u.Path, "/catalog/request") {
				t.Fatalf("%s leads to %s", raw, u)
			}
		}
	})
}

// FuzzDecisionAnswered: what a webhook answers is a decision, or an error; never silently none.
func FuzzDecisionAnswered(f *testing.F) {
	f.Add([]byte(`{"decision":"eyJhbGciOiJFUzI1NiJ9.e30.AA"}`))
	f.Add([]byte(`{"decision":""}`))
	f.Add([]byte(`{"approved":true}`))
	f.Add([]byte(`{"decision":"a"}{"decision":"b"}`))
	f.Add([]byte(`{"decision":"` + strings.Repeat("x", maxDecision) + `"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		signed, err := readDecision(bytes.NewReader(raw))
		if (err == nil) != (signed != "") || len(signed) > maxDecision {
			t.Fatalf("%.100q gives %.100q, %v", raw, signed, err)
		}
		if err == nil && !json.Valid(raw) {
			t.Fatalf("%q is taken", raw)
		}
	})
}

// FuzzHead: what a counterparty signed as the head of its chain is one, about the agreement that was asked for, and is recorded as it was signed.
func FuzzHead(f *testing.F) {
	f.Add("g", []byte(`{"chain":"6b1f7e0c-9d57-4a59-8f0a-1f6f5a2c3d4e","ctx":"acme","seq":3,"at":"2026-01-02T03:04:05.678Z","hash":"`+strings.Repeat("0a", 32)+`","open":true}`))
	f.Add("g", []byte(`{"chain":"c","ctx":"acme","seq":-1,"at":"2026-01-02T03:04:05Z","hash":"`+strings.Repeat("0", 64)+`"}`))
	f.Add("other", []byte(`null`))
	f.Fuzz(func(t *testing.T, agreement string, raw []byte) {
		h, ok := headFor("g", adminapi.HeadStatement{Agreement: agreement, Head: raw})
		if !ok {
			return
		}
		recorded, err := json.Marshal(audit.Witness{Agreement: agreement, Head: &h})
		if err != nil {
			t.Fatalf("%s cannot be recorded: %v", raw, err)
		}
		var back audit.Witness
		err = json.Unmarshal(recorded, &back)
		if err != nil || agreement != "g" || !back.Head.Valid() || !back.Head.At.Equal(h.At) {
			t.Fatalf("%s for %q is recorded as %s: %v", raw, agreement, recorded, err)
		}
	})
}
