// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/cloud/authz"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/adminapi"
)

type route struct {
	method, path string
	operation    *huma.Operation
}

func routes() map[string]route {
	out := map[string]route{}
	for path, item := range OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete, "PATCH": item.Patch} {
			if op != nil {
				out[op.OperationID] = route{method, path, op}
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

// tenant is an organization with one object of each kind that can be an organization's.
type tenant struct{ organization, participant, context, cell, key string }

var tenants = []tenant{
	{"brandt-guss", "supplier", "brandt", "brandt-cell", "key-brandt"},
	{"rheintal-motoren", "oem", "rheintal", "rheintal-cell", "key-rheintal"},
}

func (o tenant) cellSpec() string {
	return strings.Replace(tier1Cell(o.organization), "tier1.example", o.cell+".example", 1)
}

// named is the tenant's object of a collection, or one that is everybody's; empty where a collection has no object with a name.
func (o tenant) named(t *testing.T, collection string) string {
	t.Helper()
	name, ok := map[string]string{
		"info": "", "approvals": "", "status": o.participant, "participants": o.participant, "organizations": o.organization, "cells": o.cell, "approval-keys": o.key,
		"platforms": "kaphera", "dataspace-profiles": "automotive", "use-cases": "carbon-footprint",
	}[collection]
	if !ok {
		t.Fatalf("no expectation for /%s: say here whose objects it has, and make one for each tenant", collection)
	}
	return name
}

// body is one that the operation takes, as far as the caller may.
func (o tenant) body(t *testing.T, op string, key json.RawMessage) string {
	t.Helper()
	const agreed, reason, counterparty = `{"agreementId":"one"}`, `{"reason":"because"}`, `{"counterparty":"oem","offerId":"one"}`
	body, ok := map[string]string{
		authz.OpPutCell: wrap(o.cellSpec()), authz.OpRotateCredentials: `{"revokeNow":true}`, authz.OpInstallCell: `{"agentKey":"` + agentKey(t) + `"}`, authz.OpPutProfile: wrap(profileSpec), authz.OpPutUseCase: wrap(useCaseSpec(contractPolicy)),
		authz.OpPutOrganization: wrap(`{"displayName":"` + o.organization + `"}`), authz.OpPutParticipant: wrap(participantSpec(o.organization, o.context)),
		authz.OpSignOff: `{"signed":"a.b.c"}`, authz.OpRegisterKey: `{"publicKey":` + string(key) + `}`, authz.OpDecide: `{"decision":"a.b.c"}`,
		authz.OpPutAsset: `{"id":"one","properties":{},"dataAddress":{"type":"HttpData"}}`, authz.OpPutSecret: `{"value":"x"}`, authz.OpCreateOffer: `{"asset":"one","useCase":"carbon-footprint"}`,
		authz.OpSendOffer: `{"counterparty":"oem"}`, authz.OpStartNegotiation: counterparty, authz.OpCounterNegotiation: `{"policy":` + contractPolicy + `}`,
		authz.OpAcceptNegotiation: `{}`, authz.OpTerminateNegotiation: reason, authz.OpStartTransfer: agreed, authz.OpTerminateTransfer: reason, authz.OpSuspendTransfer: reason,
	}[op]
	if !ok {
		t.Fatalf("no expectation for %s: say here what it takes", op)
	}
	return body
}

// call is how the operation is called on the tenant's objects. What removes or replaces them is a dry run, where there is one.
func (r route) call(t *testing.T, o tenant, key json.RawMessage) (path, body string) {
	t.Helper()
	path = strings.TrimPrefix(r.path, prefix)
	collection, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	path = strings.NewReplacer("{name}", o.named(t, collection), "{participant}", o.participant, "{id}", "one", "{number}", "1").Replace(path)
	query := url.Values{}
	for _, p := range r.operation.Parameters {
		switch {
		case p.In == "query" && p.Name == "counterparty":
			query.Set(p.Name, "oem")
		case p.In == "query" && (p.Name == "dryRun" || p.Name == "force"):
			query.Set(p.Name, "true")
		case p.Required && p.In != "path":
			t.Fatalf("no expectation for parameter %s of %s: say here what it is", p.Name, r.operation.OperationID)
		}
	}
	if r.operation.RequestBody != nil {
		body = o.body(t, r.operation.OperationID, key)
	}
	return path + "?" + query.Encode(), body
}

// TestRightsHoldOverHTTP calls every operation as every role of two organizations on what belongs to either: who has no right is told so (403), who has one
// for the own organization finds nothing of the other (404, or that a name is taken), and everything else is answered otherwise.
func TestRightsHoldOverHTTP(t *testing.T) {
	b := setup(t)
	b.pilot()
	platform := &cloudv1.Platform{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "kaphera"}, Spec: cloudv1.PlatformSpec{Domain: "demo.example"}}
	if err := kube.Create(t.Context(), platform); err != nil {
		t.Fatal(err)
	}
	for _, o := range tenants {
		b.want(http.StatusCreated, b.call(both, "PUT", "/cells/"+o.cell, wrap(o.cellSpec())))
	}
	registered := publicKey(t)
	keys := func() { // whose removal knows no dry run
		for _, o := range tenants {
			k := &cloudv1.ApprovalKey{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: o.key},
				Spec: cloudv1.ApprovalKeySpec{Subject: "sub-" + o.key, Organization: o.organization, PublicKey: apiextensionsv1.JSON{Raw: registered}}}
			if err := kube.Create(t.Context(), k); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
	}
	b.connector.Answer("GET issuer-auditor/credentials", http.StatusOK, []adminapi.Issued{{ID: "one", IssuedAt: time.Now().Add(time.Hour)}})
	b.connector.Otherwise(func(r *http.Request) (int, any) {
		if _, below, _ := strings.Cut(r.URL.Path, "/v1/"); r.Method == http.MethodGet && !strings.Contains(below, "/") {
			return http.StatusOK, []any{}
		}
		return http.StatusOK, map[string]any{"id": "one", "state": "TERMINATED"}
	})
	type caller struct {
		role authz.Role
		of   tenant
	}
	callers := []caller{{role: authz.PlatformOperator}, {role: authz.GovernanceAuthority}}
	for _, o := range tenants {
		callers = append(callers, caller{authz.OrganizationAdmin, o}, caller{authz.Viewer, o})
	}
	key := publicKey(t)
	for op, r := range routes() {
		for _, o := range tenants {
			path, body := r.call(t, o, key)
			if a := b.call(nil, r.method, path, body); (a.status == http.StatusUnauthorized) == (op == authz.OpInfo) {
				t.Errorf("%s without a token: got %d", op, a.status)
			}
			if a := b.call(cloudtest.Claims("nobody", "acme"), r.method, path, body); (a.status == http.StatusForbidden) == (op == authz.OpInfo) {
				t.Errorf("%s without a role: got %d", op, a.status)
			}
			if op == authz.OpInfo {
				continue
			}
			for _, c := range callers {
				keys()
				ctx, denied := authz.Authorize(t.Context(), authz.Principal{Roles: []authz.Role{c.role}, Organization: c.of.organization}, op)
				a := b.call(cloudtest.Claims("someone", c.of.organization, string(c.role)), r.method, path, body)
				says := fmt.Sprintf("%s as %s of %q on what is %s's: got %d %s", op, c.role, c.of.organization, o.organization, a.status, a.body)
				collection, below, _ := strings.Cut(strings.TrimPrefix(r.path, prefix+"/"), "/")
				covered := authz.From(ctx).Covers(o.organization)
				switch {
				case denied != nil:
					if a.status != http.StatusForbidden {
						t.Errorf("%s, and the table says %v", says, denied)
					}
				case below == "" && r.method == http.MethodGet: // a list, of what the caller may see
					if a.status != http.StatusOK || strings.Contains(string(a.body), `:"`+o.named(t, collection)+`"`) != (covered && o.named(t, collection) != "") {
						t.Errorf("%s, want it listed: %t", says, covered)
					}
				case !covered:
					if a.status != http.StatusNotFound && a.status != http.StatusForbidden && a.problem.Code != CodeExists {
						t.Errorf("%s, want it refused", says)
					}
				case slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, a.status) || a.status >= http.StatusInternalServerError || a.status == http.StatusUnprocessableEntity:
					t.Errorf("%s, and the table says it may", says)
				}
			}
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
		"of two organizations": {with(map[string]any{"organization": []string{"brandt-guss", "rheintal-motoren"}}), "nobody may be of several"},
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

func TestAnOrganizationIsATextOrAListOfOne(t *testing.T) {
	b := setup(t)
	for want, claim := range map[string]any{"brandt-guss": "brandt-guss", "rheintal-motoren": []string{"rheintal-motoren"}, "": []string{}} {
		p, err := b.oidc.Authenticate(t.Context(), b.issuer.Token(t, map[string]any{"sub": "x", "organization": claim}))
		if err != nil || p.Organization != want {
			t.Errorf("%v is organization %q, %v", claim, p.Organization, err)
		}
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
	// Just too long: a server that leaves much unread may end the connection before its answer is read.
	if a := b.call(operator, "PUT", "/organizations/x", `{"spec":{"displayName":"`+strings.Repeat("0", 512<<10)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of half a megabyte: got %d", a.status)
	}
}
