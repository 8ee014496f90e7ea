// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/usecase"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
	"github.com/kaphera/kaphera/test/tenants"
)

// entrance is a route in the name of a tenant, about something that is acme's (or, of issuers, authority's).
type entrance struct {
	name, method string
	at           func(tenant string) string
	body         any
	ok           int // what it answers to whom it serves; 0: 200
	// open lists who is served where, as "caller at tenant"; "everybody" may be the caller. All others are refused, with another one of 400, 401, 403 and 404.
	open []string
	// shows lists those that see acme's mark in the answer. Nobody else does, served or refused.
	shows []string
}

// mark is in everything that acme has and others must not see.
const mark = "only-of-acme"

// TestEveryEntranceServesWhomItIsFor asks from outside, over HTTP: each caller with what it can get of credentials, on each route, in the name of each tenant. It does
// so as the connector is, and once more with the queries' conditions on the tenant taken away, when only row security is left.
func TestEveryEntranceServesWhomItIsFor(t *testing.T) {
	t.Run("as it is", func(t *testing.T) { entrances(t, pgtest.NewDatabase) })
	t.Run("without the conditions of the queries", func(t *testing.T) {
		var removed int64
		database := func(tb testing.TB) string {
			url, n := tenants.WithoutConditions(tb, pgtest.NewDatabase(tb))
			tb.Cleanup(func() { removed += n.Load() })
			return url
		}
		t.Cleanup(func() {
			if removed < 100 {
				t.Errorf("only %d statements lost a condition", removed)
			}
		})
		entrances(t, database)
	})
}

func entrances(t *testing.T, database func(testing.TB) string) {
	authority := startIn(t, vaulttest.New(), database(t), []runtime.Role{runtime.Issuer})
	supplier := startIn(t, vaulttest.New(), database(t), []runtime.Role{runtime.ControlPlane}, []runtime.Role{runtime.Wallet}, []runtime.Role{runtime.DataPlane})
	buyers := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	for _, issuer := range []string{"authority", "second"} {
		authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/"+issuer), adminapi.IssuerConfig{DID: authority.did(issuer),
			Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	}
	f := pilot(authority.did("authority"))
	member := map[string]any{"MembershipCredential": map[string]any{"member": true}}
	supplier.join("acme", authority, f, map[string]any{"MembershipCredential": map[string]any{"member": true, "note": mark}})
	supplier.join("other", authority, f, member)
	buyers.join("buyer", authority, f, member)
	buyers.join("stranger", authority, f, member)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, mark) }))
	defer backend.Close()
	for tenant, note := range map[string]string{"acme": mark, "other": "of the other"} {
		supplier.call(http.MethodPut, supplier.api(tenant, "/assets/"+note[:4]), adminapi.Asset{Properties: map[string]any{"name": note}, DataAddress: map[string]string{"type": "HttpData", "baseUrl": backend.URL}}, nil)
		supplier.call(http.MethodPut, supplier.api(tenant, "/offers/"+note[:4]), adminapi.Offer{Assets: []string{note[:4]}, UseCase: note, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}, nil)
	}
	for tenant, note := range map[string]string{"acme": mark, "other": "of the other"} {
		text, hash, err := usecase.Write(usecase.Content{UseCase: "kept", Number: 1, Profile: "pilot", AssetType: note, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)})
		if err != nil {
			t.Fatal(err)
		}
		supplier.call(http.MethodPut, supplier.api(tenant, "/use-cases/kept"), adminapi.UseCaseRevision{UseCase: "kept", Number: 1, Hash: hash, Content: text}, nil)
	}
	bought := buyers.transfer("buyer", supplier.did("acme"))
	buyers.transfer("stranger", supplier.did("other"))
	var address struct {
		Authorization string `json:"authorization"`
	}
	_, raw := buyers.management(t).do(http.MethodGet, "buyer/v3/edrs/"+bought.ID+"/dataaddress", nil)
	if err := json.Unmarshal(raw, &address); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	var negotiations []adminapi.Negotiation
	supplier.call(http.MethodGet, supplier.api("acme", "/negotiations"), nil, &negotiations)
	var transfers []adminapi.Transfer
	supplier.call(http.MethodGet, supplier.api("acme", "/transfers"), nil, &transfers)
	var issued []adminapi.Issued
	authority.call(http.MethodGet, authority.admin(runtime.Issuer, "/issuers/authority/credentials?holder="+url.QueryEscape(supplier.did("acme"))), nil, &issued)
	if len(negotiations) != 1 || len(transfers) != 1 || len(issued) != 1 || address.Authorization == "" {
		t.Fatalf("%+v, %+v, %+v, %+v", negotiations, transfers, issued, address)
	}
	n, tr := negotiations[0], transfers[0]

	did := func(tenant string) string {
		if tenant == "authority" || tenant == "second" {
			return authority.did(tenant)
		}
		return supplier.did(tenant)
	}
	// token is a new ID token from a participant's wallet; each is good for one message.
	token := func(c *connector, of, audience, access string, scopes ...string) string {
		base := c.parts[runtime.Wallet].internal
		var out adminapi.TokenResponse
		c.call(http.MethodPost, base+"/internal/v1/"+of+"/token", adminapi.TokenRequest{Audience: audience, AccessToken: access, Scopes: scopes}, &out)
		return out.Token
	}
	const membership = "org.eclipse.dspace.dcp.vc.type:MembershipCredential:read"
	permission := func(of, verifier string) (access string) { // as the verifier finds it in the ID token that it is shown
		parsed, err := jwt.ParseInsecure([]byte(token(supplier, of, verifier, "", membership)))
		if err != nil {
			t.Fatal(err)
		}
		if err := parsed.Get("token", &access); err != nil {
			t.Fatal(err)
		}
		return access
	}
	another := map[string]string{"acme": "other", "other": "acme", "authority": "second", "second": "authority"}
	callers := map[string]func(tenant string, h http.Header){
		"nobody":        func(string, http.Header) {},
		"a wrong token": func(_ string, h http.Header) { h.Set("Authorization", "Bearer wrong") },
		"a wrong key":   func(_ string, h http.Header) { h.Set("X-Api-Key", "wrong") },
		"the operator":  func(_ string, h http.Header) { h.Set("Authorization", "Bearer "+internalToken) },
		"the wallet":    func(_ string, h http.Header) { h.Set("Authorization", "Bearer "+supplier.parts[runtime.Wallet].token) },
		"the data plane": func(_ string, h http.Header) {
			h.Set("Authorization", "Bearer "+supplier.parts[runtime.DataPlane].token)
		},
		"the application": func(_ string, h http.Header) { h.Set("X-Api-Key", managementKey) },
		"the buyer": func(tenant string, h http.Header) {
			h.Set("Authorization", "Bearer "+token(buyers, "buyer", did(tenant), "", membership))
		},
		"the buyer, meaning another": func(tenant string, h http.Header) {
			h.Set("Authorization", "Bearer "+token(buyers, "buyer", did(another[tenant]), "", membership))
		},
		"the buyer, permitted by acme": func(tenant string, h http.Header) {
			h.Set("Authorization", "Bearer "+token(buyers, "buyer", did(tenant), permission("acme", buyers.did("buyer"))))
		},
		"the stranger, permitted by other": func(tenant string, h http.Header) {
			h.Set("Authorization", "Bearer "+token(buyers, "stranger", did(tenant), permission("other", buyers.did("stranger"))))
		},
		"a stranger": func(tenant string, h http.Header) {
			h.Set("Authorization", "Bearer "+token(buyers, "stranger", did(tenant), "", membership))
		},
		"the other tenant": func(tenant string, h http.Header) {
			h.Set("Authorization", "Bearer "+token(supplier, "other", did(tenant), "", membership))
		},
		"the data token": func(_ string, h http.Header) { h.Set("Authorization", address.Authorization) },
	}
	api := func(path string) func(string) string {
		return func(tenant string) string { return supplier.api(tenant, path) }
	}
	management := func(path string) func(string) string {
		return func(tenant string) string {
			return supplier.parts[runtime.ControlPlane].internal + "/management/" + tenant + path
		}
	}
	public := func(path string) func(string) string {
		return func(tenant string) string { return supplier.public + "/" + tenant + path }
	}
	admin := func(c *connector, r runtime.Role, path string) func(string) string {
		return func(tenant string) string { return c.admin(r, strings.ReplaceAll(path, "{t}", tenant)) }
	}
	// What opens a role's internal API is that role's own token, which its callers have as well.
	ofWallet, ofDataPlane := []string{"the wallet at acme", "the wallet at other"}, []string{"the data plane at acme", "the data plane at other"}
	operator, application := []string{"the operator at acme", "the operator at other"}, []string{"the application at acme", "the application at other"}
	dspContext := []string{"https://w3id.org/dspace/2025/1/context.jsonld"}
	holder := base64.RawURLEncoding.EncodeToString([]byte(supplier.did("acme")))
	for _, e := range []entrance{
		{name: "admin: participant", at: admin(supplier, runtime.ControlPlane, "/participants/{t}"), open: operator},
		{name: "wallet admin: participant", at: admin(supplier, runtime.Wallet, "/participants/{t}"), open: ofWallet},
		{name: "wallet admin: credentials", at: admin(supplier, runtime.Wallet, "/participants/{t}/credentials"), open: ofWallet, shows: ofWallet[:1]},
		{name: "wallet: token", method: http.MethodPost, at: func(tenant string) string {
			return supplier.parts[runtime.Wallet].internal + "/internal/v1/" + tenant + "/token"
		}, body: adminapi.TokenRequest{Audience: "did:web:x"}, open: ofWallet},
		{name: "control plane: access", method: http.MethodPost, at: func(tenant string) string {
			return supplier.parts[runtime.ControlPlane].internal + "/internal/v1/" + tenant + "/transfers/" + tr.ID + "/access"
		}, body: dps.AccessRequest{AgreementID: n.AgreementID, Method: http.MethodGet}, open: ofDataPlane[:1]},
		{name: "participant: assets", at: api("/assets"), open: operator, shows: operator[:1]},
		{name: "participant: asset", at: api("/assets/" + mark[:4]), open: operator[:1], shows: operator[:1]},
		{name: "participant: offers", at: api("/offers"), open: operator, shows: operator[:1]},
		{name: "participant: offer", at: api("/offers/" + mark[:4]), open: operator[:1], shows: operator[:1]},
		{name: "participant: make an offer", method: http.MethodPost, at: api("/offers/" + mark[:4] + "/negotiations"), body: adminapi.OfferRequest{ID: "made", Counterparty: buyers.did("buyer")}, ok: http.StatusCreated, open: operator[:1], shows: operator[:1]},
		{name: "participant: use cases", at: api("/use-cases"), open: operator, shows: operator[:1]},
		{name: "participant: bring a revision into force", method: http.MethodPut, at: api("/use-cases/footprint"), body: adminapi.UseCaseRevision{UseCase: "footprint"}, ok: http.StatusConflict, open: operator},
		{name: "participant: negotiations", at: api("/negotiations"), open: operator, shows: operator[:1]},
		{name: "participant: negotiation", at: api("/negotiations/" + n.ID), open: operator[:1], shows: operator[:1]},
		{name: "participant: negotiation's events", at: api("/negotiations/" + n.ID + "/events"), open: operator[:1], shows: operator[:1]},
		{name: "participant: approvals", at: api("/approvals"), open: operator},
		{name: "participant: decide", method: http.MethodPost, at: api("/negotiations/" + n.ID + "/decisions"), body: adminapi.SignedDecision{Decision: "x"}, ok: http.StatusUnprocessableEntity, open: operator[:1]},
		{name: "participant: terminate negotiation", method: http.MethodPost, at: api("/negotiations/" + n.ID + "/terminate"), ok: http.StatusConflict, open: operator[:1]},
		{name: "participant: agreements", at: api("/agreements"), open: operator, shows: operator[:1]},
		{name: "participant: agreement", at: api("/agreements/" + n.AgreementID), open: operator[:1], shows: operator[:1]},
		{name: "participant: transfers", at: api("/transfers"), open: operator},
		{name: "participant: transfer", at: api("/transfers/" + tr.ID), open: operator[:1]},
		{name: "participant: resume transfer", method: http.MethodPost, at: api("/transfers/" + tr.ID + "/resume"), ok: http.StatusConflict, open: operator[:1]},
		{name: "participant: transfer's data", at: api("/transfers/" + tr.ID + "/data"), open: operator[:1], shows: operator[:1]},
		{name: "participant: summary", at: api("/summary"), open: operator},
		{name: "data plane: status", at: func(string) string {
			return supplier.parts[runtime.DataPlane].internal + "/dataflows/" + tr.ID + "/status"
		}, open: ofDataPlane},
		{name: "EDC: assets", method: http.MethodPost, at: management("/v3/assets/request"), body: map[string]any{}, open: application, shows: application[:1]},
		{name: "EDC: asset", at: management("/v3/assets/" + mark[:4]), open: application[:1], shows: application[:1]},
		{name: "EDC: contract definition", at: management("/v3/contractdefinitions/" + mark[:4]), open: application[:1]},
		{name: "EDC: negotiation", at: management("/v3/contractnegotiations/" + n.ID), open: application[:1]},
		{name: "EDC: agreement", at: management("/v3/contractagreements/" + n.AgreementID), open: application[:1]},
		{name: "EDC: transfer", at: management("/v3/transferprocesses/" + tr.ID), open: application[:1]},
		{name: "DSP: versions", at: public("/.well-known/dspace-version"), open: []string{"everybody at acme", "everybody at other"}},
		{name: "DSP: catalog", method: http.MethodPost, at: public("/dsp/2025-1/catalog/request"), body: map[string]any{"@context": dspContext, "@type": "CatalogRequestMessage"},
			open:  []string{"the buyer at acme", "the buyer at other", "a stranger at acme", "a stranger at other", "the other tenant at acme", "the other tenant at other"},
			shows: []string{"the buyer at acme", "a stranger at acme", "the other tenant at acme"}},
		{name: "DSP: dataset", at: public("/dsp/2025-1/catalog/datasets/" + mark[:4]), open: []string{"the buyer at acme", "a stranger at acme", "the other tenant at acme"},
			shows: []string{"the buyer at acme", "a stranger at acme", "the other tenant at acme"}},
		{name: "DSP: negotiation", at: public("/dsp/2025-1/negotiations/" + n.ID), open: []string{"the buyer at acme"}},
		{name: "DSP: terminate negotiation", method: http.MethodPost, at: public("/dsp/2025-1/negotiations/" + n.ID + "/termination"), ok: http.StatusBadRequest, open: []string{"the buyer at acme"},
			body: map[string]any{"@context": dspContext, "@type": "ContractNegotiationTerminationMessage", "providerPid": n.ID, "consumerPid": n.CounterpartyPID}},
		{name: "DSP: transfer", at: public("/dsp/2025-1/transfers/" + tr.ID), open: []string{"the buyer at acme"}},
		{name: "DCP: document", at: public("/did.json"), open: []string{"everybody at acme", "everybody at other"}},
		{name: "DCP: presentation", method: http.MethodPost, at: public("/dcp/presentations/query"),
			body: dcp.PresentationQuery{Head: dcp.NewHead(dcp.TypePresentationQuery), Scope: []string{membership}},
			open: []string{"the buyer, permitted by acme at acme", "the stranger, permitted by other at other", "the other tenant at other"}},
		{name: "data", at: public("/data/" + tr.ID), open: []string{"the data token at acme"}, shows: []string{"the data token at acme"}},
		{name: "issuer admin: issued", at: admin(authority, runtime.Issuer, "/issuers/{t}/credentials"), open: []string{"the operator at authority", "the operator at second"}},
		{name: "issuer admin: holder", at: admin(authority, runtime.Issuer, "/issuers/{t}/holders/"+holder), open: []string{"the operator at authority"}, shows: []string{"the operator at authority"}},
		{name: "issuer admin: deliver again", method: http.MethodPost, at: admin(authority, runtime.Issuer, "/issuers/{t}/credentials/"+url.PathEscape(issued[0].ID)+"/deliver"),
			open: []string{"the operator at authority"}},
	} {
		t.Run(e.name, func(t *testing.T) {
			in := []string{"acme", "other"}
			if strings.HasPrefix(e.name, "issuer") {
				in = []string{"authority", "second"}
			}
			if e.ok == 0 {
				e.ok = http.StatusOK
			}
			if e.method == "" {
				e.method = http.MethodGet
			}
			for _, tenant := range in {
				for caller, credentials := range callers {
					who := caller + " at " + tenant
					var body io.Reader
					if e.body != nil {
						raw, err := json.Marshal(e.body)
						if err != nil {
							t.Fatal(err)
						}
						body = bytes.NewReader(raw)
					}
					req, err := http.NewRequestWithContext(t.Context(), e.method, e.at(tenant), body)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", "application/json")
					credentials(tenant, req.Header)
					res, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					answer, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if err != nil {
						t.Fatal(err)
					}
					refused := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}
					if served := slices.Contains(e.open, who) || slices.Contains(e.open, "everybody at "+tenant); served != (res.StatusCode == e.ok) || !served && !slices.Contains(refused, res.StatusCode) {
						t.Errorf("%s is answered %d, served should be %t: %s", who, res.StatusCode, served, answer)
					}
					if strings.Contains(string(answer), mark) != slices.Contains(e.shows, who) {
						t.Errorf("%s: shown what is acme's should be %t: %s", who, slices.Contains(e.shows, who), answer)
					}
				}
			}
		})
	}
}

// TestAnAccountThatRowSecurityDoesNotBindServesNobody: a superuser would see through it, so the role says so and does not become ready.
func TestAnAccountThatRowSecurityDoesNotBindServesNobody(t *testing.T) {
	dsn := pgtest.NewDatabase(t)
	cc, err := pgx.ParseConfig(pgtest.Superuser(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Config{PublicURL: "http://connector.example", Internal: config.Internal{TokenFile: secret(t, internalToken)},
		Database: config.Database{Host: cc.Host, Port: int(cc.Port), Name: cc.Database, User: cc.User, SSLMode: "disable", MaxConns: 2}}
	if err := runtime.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	public, internal, health := listener(t), listener(t), listener(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- runtime.Run(ctx, runtime.Options{Config: cfg, Roles: []runtime.Role{runtime.Wallet}, KV: vaulttest.New(), Public: public, Internal: internal, Health: health})
	}()
	c := &connector{t: t}
	c.until("the reason", func() bool {
		res, err := http.Get("http://" + health.Addr().String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		said, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusOK {
			t.Fatalf("it is ready: %s", said)
		}
		return strings.Contains(string(said), "BYPASSRLS")
	})
	stop()
	if err := <-done; err != nil && !strings.Contains(err.Error(), "BYPASSRLS") {
		t.Errorf("it ended with %v", err)
	}
}
