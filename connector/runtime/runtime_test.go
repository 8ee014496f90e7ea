// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	internalToken = "internal-token-of-the-test"
	managementKey = "management-key-of-the-test"
	patience      = 3 * time.Minute
)

// part is one process of a connector.
type part struct{ public, internal, health, token string }

// connector is a connector whose roles run in one process or in several, behind one public address.
type connector struct {
	t      *testing.T
	public string
	parts  map[runtime.Role]part
	shared bool

	database      string      // as superuser
	dataPlaneDown atomic.Bool // for its control plane

	end       func()                    // ends its processes, and waits until they have
	successor atomic.Pointer[connector] // to which its public address leads from then on
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a connector; every list of roles is a process of its own.
func start(t *testing.T, processes ...[]runtime.Role) *connector {
	t.Helper()
	return startOn(t, vaulttest.New(), processes...)
}

// startOn runs a connector with a Vault.
func startOn(t *testing.T, kv vault.KV, processes ...[]runtime.Role) *connector {
	t.Helper()
	return startIn(t, kv, pgtest.NewDatabase(t), processes...)
}

// startIn runs a connector with a Vault and a database.
func startIn(t *testing.T, kv vault.KV, dsn string, processes ...[]runtime.Role) *connector {
	t.Helper()
	return startWith(t, kv, dsn, func(*runtime.Options) {}, processes...)
}

// startWith runs a connector with a Vault, a database and changed options.
func startWith(t *testing.T, kv vault.KV, dsn string, change func(*runtime.Options), processes ...[]runtime.Role) *connector {
	t.Helper()
	cc, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c := &connector{t: t, parts: map[runtime.Role]part{}, shared: len(processes) == 1, database: pgtest.Superuser(t, dsn)}
	gateway := httptest.NewServer(http.HandlerFunc(c.route))
	t.Cleanup(gateway.Close)
	c.public = gateway.URL
	cfg := config.Config{PublicURL: c.public,
		Database: config.Database{Host: cc.Host, Port: int(cc.Port), Name: cc.Database, User: cc.User, SSLMode: "disable", MaxConns: 5},
		Trust:    config.Trust{AllowPlainHTTP: true, AllowPrivateNetworks: true},
		Internal: config.Internal{TokenFile: secret(t, internalToken)}, Management: config.Management{APIKeyFile: secret(t, managementKey)},
		Protocol:       config.Protocol{RequestTimeout: config.Duration(10 * time.Second), RetryFor: config.Duration(time.Minute), Workers: 4},
		PerParticipant: config.PerParticipant{Connections: 1}} // whoever wanted a second one would wait for ever
	if err := runtime.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	type listeners struct{ public, internal, health net.Listener }
	var all []listeners
	for _, roles := range processes {
		l := listeners{listener(t), listener(t), listener(t)}
		all = append(all, l)
		for _, r := range roles {
			c.parts[r] = part{"http://" + l.public.Addr().String(), "http://" + l.internal.Addr().String(), "http://" + l.health.Addr().String(), internalToken}
		}
		if apart := map[runtime.Role]*string{runtime.Wallet: &cfg.Internal.WalletTokenFile, runtime.DataPlane: &cfg.Internal.DataPlaneTokenFile}[roles[0]]; apart != nil && len(roles) == 1 {
			p := c.parts[roles[0]]
			p.token = string(roles[0]) + "-token-of-the-test"
			c.parts[roles[0]], *apart = p, secret(t, p.token)
		}
	}
	signaling := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.dataPlaneDown.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		c.forward(w, r, c.parts[runtime.DataPlane].internal)
	}))
	t.Cleanup(signaling.Close)
	cfg.Internal.WalletURL, cfg.Internal.DataPlaneURL, cfg.Internal.ControlPlaneURL = c.parts[runtime.Wallet].internal, signaling.URL, c.parts[runtime.ControlPlane].internal
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var processesEnd sync.WaitGroup
	c.end = func() {
		stop()
		processesEnd.Wait()
	}
	t.Cleanup(c.end)
	for i, roles := range processes {
		processesEnd.Go(func() {
			options := runtime.Options{ConnectionPatience: patience, Config: cfg, Roles: roles, Log: log, KV: kv, Public: all[i].public, Internal: all[i].internal, Health: all[i].health}
			change(&options)
			if err := runtime.Run(ctx, options); err != nil {
				t.Errorf("%v ended with %v", roles, err)
			}
		})
	}
	for _, p := range c.parts {
		c.until("ready", func() bool { return c.status(http.MethodGet, p.health+"/readyz", nil, nil) == http.StatusOK })
	}
	return c
}

// route is the gateway: it finds the role of a public path.
func (c *connector) route(w http.ResponseWriter, r *http.Request) {
	if s := c.successor.Load(); s != nil {
		s.route(w, r)
		return
	}
	role := runtime.ControlPlane
	switch segments := strings.Split(r.URL.Path, "/"); {
	case len(segments) < 3:
	case segments[2] == "dcp" || segments[2] == "did.json":
		role = runtime.Wallet
	case segments[2] == "data":
		role = runtime.DataPlane
	}
	p, ok := c.parts[role]
	if !ok {
		p = c.parts[runtime.Issuer]
	}
	c.forward(w, r, p.public)
}

func (c *connector) forward(w http.ResponseWriter, r *http.Request, to string) {
	target, err := url.Parse(to)
	if err != nil {
		c.t.Error(err)
		return
	}
	httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
}

func secret(t *testing.T, value string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (c *connector) did(ctx string) string {
	return "did:web:" + strings.Replace(strings.TrimPrefix(c.public, "http://"), ":", "%3A", 1) + ":" + ctx
}

// token opens the internal API at an address.
func (c *connector) token(address string) string {
	for _, p := range c.parts {
		if p.internal != "" && strings.HasPrefix(address, p.internal+"/") {
			return p.token
		}
	}
	return internalToken
}

// status makes a call with the token of the internal API there and returns its status; in and out may be nil.
func (c *connector) status(method, address string, in, out any) int {
	c.t.Helper()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			c.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, address, body)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token(address))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if out != nil && res.StatusCode/100 == 2 {
		if err := json.Unmarshal(raw, out); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, address, err, raw)
		}
	}
	if e, ok := out.(*adminapi.Error); ok {
		if err := json.Unmarshal(raw, e); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, address, err, raw)
		}
	}
	if res.StatusCode >= 300 && out == nil && in != nil {
		c.t.Logf("%s %s: %d %s", method, address, res.StatusCode, raw)
	}
	return res.StatusCode
}

func (c *connector) call(method, address string, in, out any) {
	c.t.Helper()
	if status := c.status(method, address, in, out); status/100 != 2 {
		c.t.Fatalf("%s %s answered %d", method, address, status)
	}
}

func (c *connector) until(what string, holds func() bool) {
	c.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("not in time: %s", what)
		}
	}
}

func (c *connector) admin(r runtime.Role, path string) string {
	base := c.parts[r].internal
	if r == runtime.Wallet && c.shared {
		base += "/wallet"
	}
	return base + "/admin/v1" + path
}

func (c *connector) api(ctx, path string) string {
	return c.parts[runtime.ControlPlane].internal + "/api/" + ctx + "/v1" + path
}

// join makes a participant with its credentials.
func (c *connector) join(ctx string, authority *connector, f profile.Profile, claims map[string]any) {
	c.t.Helper()
	holder := adminapi.Holder{DID: c.did(ctx)}
	for credential, subject := range claims {
		raw, err := json.Marshal(subject)
		if err != nil {
			c.t.Fatal(err)
		}
		holder.Credentials = append(holder.Credentials, adminapi.HolderCredential{Type: credential, Claims: raw})
	}
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority/holders/"+base64.RawURLEncoding.EncodeToString([]byte(holder.DID))), holder, nil)
	c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/profiles/"+f.Name), f, nil)
	c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/participants/"+ctx), adminapi.Participant{DID: c.did(ctx), Profile: f.Name, Active: true}, nil)
	c.call(http.MethodPut, c.admin(runtime.Wallet, "/participants/"+ctx), adminapi.WalletParticipant{DID: c.did(ctx), TrustedIssuers: f.TrustedIssuers}, nil)
	for credential := range claims {
		c.call(http.MethodPost, c.admin(runtime.Wallet, "/participants/"+ctx+"/credential-requests"),
			adminapi.CredentialRequest{Issuer: authority.did("authority"), Type: credential}, nil)
	}
	c.until("credentials of "+ctx, func() bool {
		var held []adminapi.HeldCredential
		c.call(http.MethodGet, c.admin(runtime.Wallet, "/participants/"+ctx+"/credentials"), nil, &held)
		valid := 0
		for _, h := range held {
			if h.State == adminapi.CredentialValid {
				valid++
			}
		}
		return valid == len(claims)
	})
}

func pilot(authority string) profile.Profile {
	return profile.Profile{Name: "pilot", Protocol: wire.Protocol, RequiredCredentials: []string{"MembershipCredential"},
		TrustedIssuers: []profile.TrustedIssuer{{DID: authority, Types: []string{"MembershipCredential", "AttestationCredential"}}},
		Operands: []profile.Operand{{Name: "https://example.org/policy/attested", Subject: profile.SubjectProvider, Credential: "AttestationCredential",
			Expression: "timestamp(credential.subject.completedAt)", ValueType: profile.ValueAge, Operators: []string{"lt"},
			Phases:   []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation, profile.PhaseTransfer},
			Sentence: profile.Translation{EN: "the attestation is younger than {right}"}, Remedy: profile.Translation{EN: "renew the attestation"}}}}
}

const policy = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/policy/attested","operator":"lt","rightOperand":"P12M"}]}]}`

// TestExchange: an issuer, a supplier whose roles share a process and a buyer whose roles run apart exchange data over real DSP and DCP.
func TestExchange(t *testing.T) {
	authority := start(t, []runtime.Role{runtime.Issuer})
	supplier := startWith(t, vaulttest.New(), pgtest.NewDatabase(t), func(o *runtime.Options) { o.Config.Audit.Leaving = audit.Types },
		[]runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	buyer := start(t, []runtime.Role{runtime.ControlPlane}, []runtime.Role{runtime.Wallet}, []runtime.Role{runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}, {Type: "AttestationCredential", Validity: "P365D"}}}, nil)
	f := pilot(authority.did("authority"))
	supplier.join("supplier", authority, f, map[string]any{"MembershipCredential": map[string]any{"member": true},
		"AttestationCredential": map[string]any{"completedAt": time.Now().AddDate(0, -3, 0).UTC().Format(time.RFC3339)}})
	buyer.join("buyer", authority, f, map[string]any{"MembershipCredential": map[string]any{"member": true}})

	value := rand.Text()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != "backend-key" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"value":%q,"path":%q}`, value, r.URL.Path)
	}))
	defer backend.Close()
	supplier.call(http.MethodPut, supplier.api("supplier", "/secrets/backend"), adminapi.Secret{Value: "backend-key"}, nil)
	supplier.call(http.MethodPut, supplier.api("supplier", "/assets/pcf"), adminapi.Asset{Properties: map[string]any{"name": "PCF of gear 4711"}, DataAddress: map[string]string{
		"type": "HttpData", "baseUrl": backend.URL, "proxyPath": "true", "authKey": "X-Api-Key", "secretName": "backend"}}, nil)
	supplier.call(http.MethodPut, supplier.api("supplier", "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"}, UseCase: "carbon", ContractPolicy: json.RawMessage(policy)}, nil)

	var catalog []adminapi.CatalogEntry
	buyer.call(http.MethodGet, buyer.api("buyer", "/catalog?counterparty="+url.QueryEscape(supplier.did("supplier"))), nil, &catalog)
	if len(catalog) != 1 || catalog[0].Properties["name"] != "PCF of gear 4711" || len(catalog[0].Sentences) == 0 {
		t.Fatalf("catalog %+v", catalog)
	}
	var n adminapi.Negotiation
	buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations"), adminapi.NegotiationRequest{Counterparty: supplier.did("supplier"), OfferID: catalog[0].OfferID}, &n)
	n = buyer.follow("buyer", n.ID)
	if n.State != "FINALIZED" {
		t.Fatalf("negotiation %+v", n)
	}
	var tr adminapi.Transfer
	buyer.call(http.MethodPost, buyer.api("buyer", "/transfers"), adminapi.TransferRequest{AgreementID: n.AgreementID}, &tr)
	buyer.until("STARTED", func() bool {
		buyer.call(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID), nil, &tr)
		return tr.State == "STARTED"
	})
	var data struct{ Value, Path string }
	buyer.call(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID+"/data/footprints/1"), nil, &data)
	if data.Value != value || data.Path != "/footprints/1" {
		t.Errorf("fetched %+v, want %s", data, value)
	}
	if res, err := http.Get(tr.Endpoint); err != nil {
		t.Error(err)
	} else if _ = res.Body.Close(); res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
		t.Errorf("without the token the data plane answers %d", res.StatusCode)
	}
	buyer.call(http.MethodPost, buyer.api("buyer", "/transfers/"+tr.ID+"/complete"), nil, nil)
	buyer.until("COMPLETED", func() bool {
		buyer.call(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID), nil, &tr)
		return tr.State == "COMPLETED"
	})
	if status := buyer.status(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID+"/data"), nil, nil); status != http.StatusConflict {
		t.Errorf("fetching from a completed transfer answers %d", status)
	}
	t.Run("what leaves", func(t *testing.T) { whatLeaves(t, supplier, buyer, n.ID) })
	t.Run("refusals", func(t *testing.T) { refusals(t, authority, supplier, buyer, n) })
	t.Run("EDC Management API", func(t *testing.T) { edcExchange(t, supplier, buyer, backend.URL, value) })
	t.Run("gates", func(t *testing.T) { gatedExchange(t, supplier, buyer) })
	t.Run("offers", func(t *testing.T) { offeredExchange(t, supplier, buyer) })
	var summary adminapi.Summary
	supplier.call(http.MethodGet, supplier.api("supplier", "/summary"), nil, &summary)
	if summary.Agreements != 8 || summary.Negotiations["FINALIZED"] != 8 || summary.Transfers["COMPLETED"] != 1 || summary.Transfers["TERMINATED"] != 3 {
		t.Errorf("summary %+v", summary)
	}
}

// whatLeaves: what each saw of the other's credentials leaves the supplier's cell, as its policy records do, and stays in the buyer's.
func whatLeaves(t *testing.T, supplier, buyer *connector, negotiation string) {
	seen := func(c *connector, ctx, id, actor string) (of []string, checks int) {
		t.Helper()
		for _, path := range []string{"", "/events"} { // which ends, as the negotiation has
			raw := c.read(c.api(ctx, "/negotiations/"+id+path), actor)
			if _, data, ok := bytes.Cut(raw, []byte("data: ")); ok {
				raw = data
			}
			var n adminapi.Negotiation
			if err := json.Unmarshal(raw, &n); err != nil || n.State != "FINALIZED" || len(n.Traces) == 0 {
				t.Fatalf("%v: %s", err, raw)
			}
			for _, tr := range n.Traces {
				for _, ch := range tr.Checks {
					if checks++; !ch.Satisfied || ch.Sentence == "" {
						t.Errorf("%+v", ch)
					}
					if ch.Party != c.did(ctx) {
						of = append(of, ch.Value+ch.Credential)
					}
				}
			}
		}
		return of, checks
	}
	var theirs []adminapi.Negotiation
	supplier.call(http.MethodGet, supplier.api("supplier", "/negotiations"), nil, &theirs)
	for _, c := range []struct {
		*connector
		ctx, id string
		leaves  bool
	}{{supplier, "supplier", theirs[0].ID, true}, {buyer, "buyer", negotiation, false}} {
		inside, all := seen(c.connector, c.ctx, c.id, "")
		outside, n := seen(c.connector, c.ctx, c.id, "user:anna")
		if len(inside) == 0 || slices.Contains(inside, "") || n != all {
			t.Errorf("in the cell of %s: %d checks, seen %q", c.ctx, all, inside)
		}
		if want := map[bool][]string{true: inside, false: make([]string, len(inside))}[c.leaves]; !slices.Equal(outside, want) {
			t.Errorf("outside the cell of %s: seen %q, want %q", c.ctx, outside, want)
		}
	}
}

// refusals: what the plain JSON API answers to what it does not do.
func refusals(t *testing.T, authority, supplier, buyer *connector, n adminapi.Negotiation) {
	offer := func(policy string) adminapi.Offer {
		return adminapi.Offer{Assets: []string{"pcf"}, ContractPolicy: json.RawMessage(policy)}
	}
	asset := func(baseURL string) adminapi.Asset {
		return adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": baseURL}}
	}
	unknown := `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/policy/unknown","operator":"eq","rightOperand":"x"}]}]}`
	request := adminapi.NegotiationRequest{ID: n.ID, Counterparty: n.Counterparty, OfferID: "another"}
	for name, tc := range map[string]struct {
		c            *connector
		method, path string
		body         any
		status       int
		code, says   string
	}{
		"a participant that there is not":   {supplier, http.MethodGet, "/api/nobody/v1/assets", nil, 404, "not-found", `"nobody"`},
		"an asset that there is not":        {supplier, http.MethodPut, "/api/supplier/v1/offers/x", adminapi.Offer{Assets: []string{"none"}, ContractPolicy: json.RawMessage(policy)}, 404, "not-found", `"none"`},
		"an offer without assets":           {supplier, http.MethodPut, "/api/supplier/v1/offers/x", adminapi.Offer{ContractPolicy: json.RawMessage(policy)}, 422, "invalid", "$.assets"},
		"an operand that is not declared":   {supplier, http.MethodPut, "/api/supplier/v1/offers/x", offer(unknown), 422, "invalid", "unknown"},
		"a member that is not known":        {supplier, http.MethodPut, "/api/supplier/v1/assets/x", map[string]any{"propertys": 1}, 422, "invalid", "propertys"},
		"an asset without address":          {supplier, http.MethodPut, "/api/supplier/v1/assets/x", adminapi.Asset{}, 422, "invalid", "$.dataAddress"},
		"an asset at an own port":           {supplier, http.MethodPut, "/api/supplier/v1/assets/x", asset(supplier.parts[runtime.DataPlane].internal), 422, "invalid", "$.dataAddress: baseUrl"},
		"an asset at cloud metadata":        {supplier, http.MethodPut, "/api/supplier/v1/assets/x", asset("http://169.254.169.254/latest"), 422, "invalid", "link-local"},
		"an offer that is not in a catalog": {buyer, http.MethodPost, "/api/buyer/v1/negotiations", adminapi.NegotiationRequest{Counterparty: n.Counterparty, OfferID: "none"}, 404, "not-found", "catalog"},
		"an id that is taken":               {buyer, http.MethodPost, "/api/buyer/v1/negotiations", request, 409, "conflict", n.ID},
		"a counterparty without document":   {buyer, http.MethodGet, "/api/buyer/v1/catalog?counterparty=did:web:127.0.0.1%253A1:x", nil, 502, "counterparty-unreachable", "did:web:127.0.0.1%3A1:x"},
		"terminating what is final":         {buyer, http.MethodPost, "/api/buyer/v1/negotiations/" + n.ID + "/terminate", adminapi.ReasonRequest{Reason: "x"}, 409, "conflict", "FINALIZED"},
		"a transfer without agreement":      {buyer, http.MethodPost, "/api/buyer/v1/transfers", adminapi.TransferRequest{AgreementID: "none"}, 404, "not-found", `"none"`},
		"a transfer as provider":            {supplier, http.MethodPost, "/api/supplier/v1/transfers", adminapi.TransferRequest{AgreementID: n.AgreementID}, 409, "conflict", "provider"},
		"a profile under another name":      {supplier, http.MethodPut, "/admin/v1/profiles/x", adminapi.Profile{Name: "y"}, 422, "invalid", "$.name"},
		"a profile that does not compile":   {supplier, http.MethodPut, "/admin/v1/profiles/x", adminapi.Profile{Name: "x", Operands: []profile.Operand{{Name: "n", Expression: "("}}}, 422, "invalid", "operands[0]"},
		"a participant without a profile":   {supplier, http.MethodPut, "/admin/v1/participants/other", adminapi.Participant{DID: "did:web:x", Profile: "none"}, 409, "conflict", "none"},
		"a participant with a bad name":     {supplier, http.MethodPut, "/admin/v1/participants/A_B", adminapi.Participant{DID: "did:web:x", Profile: "pilot"}, 422, "invalid", "A_B"},
		"an id with a NUL":                  {buyer, http.MethodGet, "/api/buyer/v1/negotiations/a%00b", nil, 400, "invalid", "U+0000"},
		"an id that is no text":             {supplier, http.MethodGet, "/api/supplier/v1/assets/a%ffb", nil, 400, "invalid", "UTF-8"},
		"a state with a NUL":                {buyer, http.MethodGet, "/api/buyer/v1/negotiations?state=%00", nil, 400, "invalid", "U+0000"},
		"a property with a NUL":             {supplier, http.MethodPut, "/api/supplier/v1/assets/x", adminapi.Asset{Properties: map[string]any{"name": "a\x00b"}, DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://x.example"}}, 400, "invalid", "U+0000"},
		"a page that there is not":          {buyer, http.MethodGet, "/api/buyer/v1/negotiations?limit=0", nil, 422, "invalid", "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			var e adminapi.Error
			status := tc.c.status(tc.method, tc.c.parts[runtime.ControlPlane].internal+tc.path, tc.body, &e)
			if status != tc.status || e.Code != tc.code || !strings.Contains(e.Message+e.Path, tc.says) {
				t.Errorf("answers %d %+v, want %d %s saying %s", status, e, tc.status, tc.code, tc.says)
			}
		})
	}
	old, err := json.Marshal(map[string]string{"completedAt": time.Now().AddDate(-1, 0, -1).UTC().Format(time.RFC3339)})
	if err != nil {
		t.Fatal(err)
	}
	supplier.join("late", authority, pilot(authority.did("authority")), map[string]any{"MembershipCredential": map[string]any{"member": true}, "AttestationCredential": json.RawMessage(old)})
	supplier.call(http.MethodPut, supplier.api("late", "/assets/pcf"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://backend.example"}}, nil)
	var e adminapi.Error
	if status := supplier.status(http.MethodPut, supplier.api("late", "/offers/pcf"), offer(policy), &e); status != http.StatusForbidden || e.Code != "policy-denied" || e.Trace == nil || e.Trace.Allowed {
		t.Errorf("an offer under an attestation that is too old answers %d %+v", status, e)
	}
	if !strings.Contains(e.Message, "renew the attestation") {
		t.Errorf("%q does not say what to do", e.Message)
	}
}

// follow reads a negotiation's events to the end.
func (c *connector) follow(ctx, id string) (n adminapi.Negotiation) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.api(ctx, "/negotiations/"+id+"/events"), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+internalToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &n); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	return n
}

func TestInternalPortNeedsItsToken(t *testing.T) {
	edc := listener(t)
	c := startWith(t, vaulttest.New(), pgtest.NewDatabase(t), func(o *runtime.Options) { o.Config.Listen.Management, o.Management = ":8083", edc }, runtime.Roles)
	management := "http://" + edc.Addr().String()
	for address, want := range map[string]int{
		management + "/management/x/v3/assets":                                http.StatusUnauthorized,
		management + "/admin/v1/profiles/pilot":                               http.StatusNotFound,
		management + "/api/x/v1/assets":                                       http.StatusNotFound,
		management + "/internal/v1/x/token":                                   http.StatusNotFound,
		c.parts[runtime.ControlPlane].internal + "/admin/v1/profiles/pilot":   http.StatusUnauthorized,
		c.parts[runtime.ControlPlane].internal + "/api/x/v1/assets":           http.StatusUnauthorized,
		c.parts[runtime.ControlPlane].internal + "/internal/v1/x/token":       http.StatusUnauthorized,
		c.parts[runtime.ControlPlane].internal + "/management/x/v3/assets":    http.StatusUnauthorized,
		c.parts[runtime.ControlPlane].public + "/admin/v1/profiles/pilot":     http.StatusNotFound,
		c.parts[runtime.ControlPlane].public + "/api/x/v1/assets":             http.StatusNotFound,
		c.parts[runtime.ControlPlane].public + "/x/did.json":                  http.StatusNotFound,
		c.parts[runtime.ControlPlane].public + "/x/dsp/2025-1/negotiations/1": http.StatusNotFound,
		c.parts[runtime.ControlPlane].health + "/livez":                       http.StatusOK,
		c.parts[runtime.ControlPlane].health + "/metrics":                     http.StatusOK,
	} {
		res, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s answers %d, want %d", address, res.StatusCode, want)
		}
	}
}

func TestParseRoles(t *testing.T) {
	if got, err := runtime.ParseRoles("wallet, control-plane,wallet"); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "controlplane", "wallet,"} {
		if _, err := runtime.ParseRoles(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
