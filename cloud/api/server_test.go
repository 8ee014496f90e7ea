// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/cloud/authz"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
)

type route struct{ method, path string }

func routes() map[string]route {
	out := map[string]route{}
	for path, item := range OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete, "PATCH": item.Patch} {
			if op != nil {
				out[op.OperationID] = route{method, path}
			}
		}
	}
	return out
}

func TestEveryRouteHasARowAndEveryRowARoute(t *testing.T) {
	all := routes()
	for op := range all {
		if !authz.Known(op) {
			t.Errorf("%s %s has no row in cloud/authz/table.go, so nobody may call it", all[op].method, all[op].path)
		}
	}
	table, err := os.ReadFile("../authz/testdata/table.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
		if op := strings.Fields(line)[0]; all[op] == (route{}) {
			t.Errorf("row %s has no route", op)
		}
	}
}

// TestRightsHoldOverHTTP calls every operation as every role: who has no right is answered 403, who has one is answered otherwise.
func TestRightsHoldOverHTTP(t *testing.T) {
	b := setup(t)
	replace := strings.NewReplacer("{name}", "absent", "{participant}", "absent", "{id}", "absent", "/api/v1", "")
	for op, r := range routes() {
		path := replace.Replace(r.path)
		for _, role := range authz.Roles {
			_, denied := authz.Authorize(t.Context(), authz.Principal{Roles: []authz.Role{role}, Organization: "acme"}, op)
			a := b.call(cloudtest.Claims("someone", "acme", string(role)), r.method, path, "{}")
			if forbidden := a.status == http.StatusForbidden; op != authz.OpInfo && forbidden != (denied != nil) {
				t.Errorf("%s as %s: got %d, and the table says %v", op, role, a.status, denied)
			}
		}
		if a := b.call(nil, r.method, path, "{}"); (a.status == http.StatusUnauthorized) == (op == authz.OpInfo) {
			t.Errorf("%s without a token: got %d", op, a.status)
		}
		if a := b.call(cloudtest.Claims("nobody", "acme"), r.method, path, "{}"); (a.status == http.StatusForbidden) == (op == authz.OpInfo) {
			t.Errorf("%s without a role: got %d", op, a.status)
		}
	}
}

func TestTokensThatAreNoneOfOurs(t *testing.T) {
	b := setup(t)
	other := cloudtest.NewIssuer(t)
	other.URL = b.issuer.URL // claims to be ours, signs with another key
	past := map[string]any{"exp": time.Now().Add(-time.Minute), "iat": time.Now().Add(-time.Hour)}
	with := func(more map[string]any) string {
		c := maps.Clone(operator)
		maps.Copy(c, more)
		return b.issuer.Token(t, c)
	}
	for name, c := range map[string]struct{ token, detail string }{
		"expired":              {with(past), "the access token expired at"},
		"for somebody else":    {with(map[string]any{"aud": "other-api"}), "for " + cloudtest.Audience},
		"of another issuer":    {with(map[string]any{"iss": "https://elsewhere.example"}), "is not one of " + b.issuer.URL},
		"signed by a stranger": {other.Token(t, operator), "is not one of " + b.issuer.URL},
		"no token at all":      {"abc", "is not one of " + b.issuer.URL},
		"an ID token":          {with(map[string]any{"typ": "ID"}), "is not one of"},
		"not valid yet":        {with(map[string]any{"nbf": time.Now().Add(time.Hour)}), "is not one of"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.call(nil, "GET", "/status", nil, "Authorization", "Bearer "+c.token)
			if a.status != http.StatusUnauthorized || a.problem.Code != CodeUnauthenticated || !strings.Contains(a.problem.Detail, c.detail) || a.problem.Next == "" {
				t.Errorf("got %d %s, want 401 %s", a.status, a.body, c.detail)
			}
			if !strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") {
				t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
			}
			if strings.Contains(string(a.body), c.token) && len(c.token) > 10 {
				t.Error("the token is repeated")
			}
		})
	}
}

func TestNobodyIsLetInBeforeTheIdentityProviderAnswers(t *testing.T) {
	b := setup(t)
	b.issuer.SetDown(true)
	late := NewOIDC(b.issuer.URL, cloudtest.Audience, b.issuer.TLS.Client(), time.Now)
	if err := late.Discover(t.Context()); err == nil || late.Ready() == nil {
		t.Error("ready although the identity provider is down")
	}
	b.server.Config.Handler = Handler(b.service, late)
	if a := b.call(operator, "GET", "/status", nil); a.status != http.StatusServiceUnavailable || a.problem.Code != CodeNotReady {
		t.Errorf("got %d %s", a.status, a.body)
	}
	b.want(http.StatusOK, b.call(nil, "GET", "/info", nil))
	b.issuer.SetDown(false)
	if err := late.Discover(t.Context()); err != nil || late.Ready() != nil {
		t.Errorf("not ready although it answers: %v, %v", err, late.Ready())
	}
	b.issuer.SetDown(true) // between its first answer and the first token: the keys can't be had
	if a := b.call(operator, "GET", "/status", nil); a.status != http.StatusServiceUnavailable || a.problem.Code != CodeNotReady {
		t.Errorf("without keys: got %d %s", a.status, a.body)
	}
	b.issuer.SetDown(false)
	b.want(http.StatusOK, b.call(operator, "GET", "/status", nil))
}

func TestTheDocumentIsTheOneThatTheClientIsMadeFrom(t *testing.T) {
	b := setup(t)
	committed, err := os.ReadFile("../../client/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	now, err := OpenAPI().YAML()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(committed, []byte("\n"))
	if !bytes.Equal(body, now) {
		t.Error("client/openapi.yaml is not what the code says: run go generate ./client")
	}
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		var doc struct {
			OpenAPI string         `json:"openapi"`
			Paths   map[string]any `json:"paths"`
		}
		a := b.want(http.StatusOK, b.call(nil, "GET", path, nil))
		if err := yaml.Unmarshal(a.body, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Paths) == 0 {
			t.Errorf("%s is %s with %d paths, %v", path, doc.OpenAPI, len(doc.Paths), err)
		}
	}
}

func TestTheDocumentationNeedsNothingFromElsewhere(t *testing.T) {
	b := setup(t)
	a := b.want(http.StatusOK, b.call(nil, "GET", "/docs", nil))
	for _, bad := range []string{"<script", "<link", "<img", "http://", "https://"} {
		if strings.Contains(string(a.body), bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for op := range routes() {
		if !strings.Contains(string(a.body), op) {
			t.Errorf("the page lacks %s", op)
		}
	}
	if a := b.call(nil, "GET", "/nonsense", nil); a.status != http.StatusNotFound || a.problem.Code != CodeNotFound {
		t.Errorf("an unknown path: %d %s", a.status, a.body)
	}
}

func TestEveryErrorSaysWhatToDo(t *testing.T) {
	b := setup(t)
	for call, a := range map[string]answer{
		"no token":      b.call(nil, "GET", "/status", nil),
		"no right":      b.call(viewer, "PUT", "/cells/x", "{}"),
		"not there":     b.call(operator, "GET", "/cells/x", nil),
		"no JSON":       b.call(operator, "PUT", "/cells/x", "{"),
		"bad parameter": b.call(operator, "GET", "/cells?colour=red", nil),
	} {
		if a.problem.Detail == "" || a.problem.Code == "" || a.problem.Next == "" || a.problem.Status != a.status {
			t.Errorf("%s: %d %s", call, a.status, a.body)
		}
	}
	big := io.MultiReader(strings.NewReader(`{"spec":{"displayName":"`), io.LimitReader(zeroes{}, 1<<20))
	raw, err := io.ReadAll(big)
	if err != nil {
		t.Fatal(err)
	}
	if a := b.call(operator, "PUT", "/organizations/x", string(raw)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of a megabyte: got %d", a.status)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
