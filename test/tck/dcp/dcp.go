// SPDX-License-Identifier: Apache-2.0

// Package dcp runs the Eclipse Decentralized Claims Protocol kit against our wallet, issuer and verifier, each in the kit's own run, on a
// real PostgreSQL. What the kit needs beyond the product (a token endpoint in OAuth's form, a trigger for the verifier, a request made
// beforehand) is here and nowhere else.
package dcp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"encoding/base64"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/issuer"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/store/tenant"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
	"github.com/kaphera/kaphera/connector/wallet"
	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/tck/runner"
)

// The kit's two credential types.
const (
	membership = "MembershipCredential"
	sensitive  = "SensitiveDataCredential"
)

// Compatible are the settings with which release candidate 6 of the kit is green; the zero value follows DCP 1.0.1, and later kits.
var Compatible = dcp.Settings{
	KeyRelationships: dcp.RelationshipsWhenDeclared,
	ScopeEscalation:  dcp.EscalationRefused,
	DeliveryFormat:   dcp.FormatLegacy,
	SingleStatus:     true,
}

// Kit is the kit against our three roles with the given settings.
func Kit(pom string, settings dcp.Settings) runner.Kit {
	return runner.Kit{Name: "DCP", POM: pom, Want: 85, TimedOut: "within 10 seconds", Start: func(ctx context.Context) ([]runner.Run, func(), error) { return start(ctx, settings) }}
}

// system is what the kit is run against.
type system struct {
	db       *pgxpool.Pool
	verifier *dcp.Verifier
	wallet   *wallet.Wallet
	issuer   *issuer.Issuer
	host     string // of the three roles
	kit      string // address of the kit
	secret   string // of the token endpoint
}

func start(ctx context.Context, settings dcp.Settings) (runs []runner.Run, stop func(), err error) {
	var undo []func()
	stop = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	server, err := pgtest.Start() //nolint:contextcheck // its own life, ended by stop
	if err != nil {
		return nil, nil, err
	}
	undo = append(undo, server.Stop)
	if err := server.Create("kaphera"); err != nil { //nolint:contextcheck // as above
		return nil, nil, err
	}
	s := &system{secret: rand.Text()}
	if s.db, err = database(ctx, server.URL("kaphera")); err != nil {
		return nil, nil, err
	}
	undo = append(undo, s.db.Close)
	// The kit makes new keys at every start, so documents are not remembered.
	settings.DocumentCache, settings.StatusCache = -1, -1
	if s.verifier, err = dcp.NewVerifier(dcp.VerifierConfig{
		HTTP: dcp.NewHTTPClient(dcp.HTTPConfig{Networks: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, AllowPlainHTTP: true, Timeout: time.Minute}), DIDHTTP: true, Settings: settings,
	}); err != nil {
		return nil, nil, err
	}
	kitPort, err := freeport.Pick()
	if err != nil {
		return nil, nil, err
	}
	s.kit = fmt.Sprintf("http://localhost:%d", kitPort)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s.host = fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	if err := s.roles(); err != nil {
		return nil, nil, err
	}
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = web.Serve(listener) }()
	undo = append(undo, func() { _ = web.Close() })
	work, cancel := context.WithCancel(ctx)
	undo = append(undo, cancel)
	go func() { _ = s.wallet.Run(work) }()
	go func() { _ = s.issuer.Run(work) }()
	correlation, err := s.prepare(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s.runs(kitPort, correlation), stop, nil
}

func database(ctx context.Context, url string) (*pgxpool.Pool, error) {
	cc, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx, cc, nil); err != nil {
		return nil, err
	}
	return pgxpool.New(ctx, url)
}

func (s *system) roles() (err error) {
	log := slog.New(slog.DiscardHandler)
	if path := os.Getenv("TCK_SYSTEM_LOG"); path != "" {
		file, err := os.Create(path) // #nosec G304 G703 -- a developer names it
		if err != nil {
			return err
		}
		log = slog.New(slog.NewTextHandler(file, nil))
	}
	keys := vault.NewStore(vaulttest.New(), time.Minute)
	if s.wallet, err = wallet.New(wallet.Deps{DB: s.db, Vault: keys, Verifier: s.verifier, PublicURL: s.host, Log: log}); err != nil {
		return err
	}
	s.issuer, err = issuer.New(issuer.Deps{DB: s.db, Vault: keys, Verifier: s.verifier, PublicURL: s.host, Log: log, Poll: 50 * time.Millisecond})
	return err
}

// handler puts the three roles on one host: contexts "holder" and "verifier" of the wallet, "issuer" of the issuer.
func (s *system) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/issuer/", s.issuer.Public())
	mux.Handle("/", s.wallet.Public())
	mux.HandleFunc("POST /sts/token", s.token)
	mux.HandleFunc("POST /verifier/trigger", s.trigger)
	return mux
}

func (s *system) did(name string) string {
	return "did:web:" + strings.ReplaceAll(strings.TrimPrefix(s.host, "http://"), ":", "%3A") + ":" + name
}

func (s *system) kitDID(name string) string {
	return "did:web:" + strings.ReplaceAll(strings.TrimPrefix(s.kit, "http://"), ":", "%3A") + ":" + name
}

func (s *system) trust() []profile.TrustedIssuer {
	return []profile.TrustedIssuer{{DID: s.kitDID("issuer"), Types: []string{membership, sensitive}}}
}

// prepare makes what the kit expects to find, by the product's own admin APIs, and one request that it answers again and again.
func (s *system) prepare(ctx context.Context) (correlation string, err error) {
	holder := s.kitDID("holder")
	claims := json.RawMessage(`{"membershipType":"full","membershipStartDate":"2025-01-01T00:00:00Z"}`)
	for _, call := range []struct {
		handler http.Handler
		path    string
		body    any
	}{
		{s.wallet.Internal(), "participants/holder", adminapi.WalletParticipant{DID: s.did("holder"), TrustedIssuers: s.trust()}},
		{s.wallet.Internal(), "participants/verifier", adminapi.WalletParticipant{DID: s.did("verifier"), TrustedIssuers: s.trust()}},
		{s.issuer.Internal(), "issuers/issuer", adminapi.IssuerConfig{DID: s.did("issuer"), Types: []adminapi.CredentialType{
			{Type: membership, Validity: "P1Y"}, {Type: sensitive, Validity: "P1Y"},
		}}},
		{s.issuer.Internal(), "issuers/issuer/holders/" + base64.RawURLEncoding.EncodeToString([]byte(holder)), adminapi.Holder{
			DID: holder, Credentials: []adminapi.HolderCredential{{Type: membership, Claims: claims}, {Type: sensitive, Claims: claims}},
		}},
	} {
		if err := put(ctx, call.handler, "/admin/v1/"+call.path, call.body); err != nil {
			return "", err
		}
	}
	correlation = rand.Text()
	_, err = tenant.DB{Pool: s.db}.In("holder").Exec(ctx, `INSERT INTO wallet.requests (id, ctx, issuer, type, state, next_attempt_at, created_at, sent_at, updated_at)
		VALUES ($1, 'holder', $2, $3, 'SENT', now() + interval '1 day', now(), now(), now())`, correlation, s.kitDID("issuer"), membership)
	return correlation, err
}

func put(ctx context.Context, h http.Handler, path string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPut, path, strings.NewReader(string(raw))))
	if w.Code != http.StatusOK {
		return fmt.Errorf("PUT %s: %d %s", path, w.Code, w.Body)
	}
	return nil
}

func (s *system) runs(kitPort int, correlation string) []runner.Run {
	const packages = "org.eclipse.dataspacetck.dcp.verification."
	run := func(name string, want int, extra map[string]string, parts ...string) runner.Run {
		r := runner.Run{Name: name, Want: want, Properties: map[string]string{
			"dataspacetck.launcher":                   "org.eclipse.dataspacetck.dcp.system.DcpSystemLauncher",
			"dataspacetck.host":                       "127.0.0.1",
			"dataspacetck.port":                       fmt.Sprint(kitPort),
			"dataspacetck.callback.address":           s.kit,
			"dataspacetck.credentials.correlation.id": correlation,
		}}
		for k, v := range extra {
			r.Properties["dataspacetck."+k] = v
		}
		for _, p := range parts {
			r.Packages = append(r.Packages, packages+p)
		}
		return r
	}
	return []runner.Run{
		run("wallet", 40, map[string]string{
			"did.holder": s.did("holder"), "sts.url": s.host + "/sts", "sts.client.id": "holder", "sts.client.secret": s.secret,
		}, "presentation.cs", "issuance.cs"),
		run("issuer", 25, map[string]string{"did.issuer": s.did("issuer")}, "issuance.issuer"),
		run("verifier", 20, map[string]string{
			"did.verifier": s.did("verifier"), "vpp.trigger.endpoint": s.host + "/verifier/trigger", "revocation.type": "bitstringstatuslist",
		}, "presentation.verifier"),
	}
}

// token is the wallet's token API in the form of OAuth's client credentials, as the kit calls it.
func (s *system) token(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("client_secret") != s.secret {
		http.Error(w, "wrong secret", http.StatusUnauthorized)
		return
	}
	resp, err := s.wallet.Token(r.Context(), r.FormValue("client_id"), adminapi.TokenRequest{
		Audience: r.FormValue("audience"), Scopes: strings.Fields(r.FormValue("bearer_access_scope")),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(map[string]any{
		"access_token": resp.Token, "token_type": "Bearer", "expires_in": int(time.Until(resp.ExpiresAt).Seconds()),
	}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// trigger verifies the sender as the control plane does and insists on the membership, as a profile would.
func (s *system) trigger(w http.ResponseWriter, r *http.Request) {
	service, err := dcp.NewService(dcp.ServiceConfig{
		Verifier: s.verifier, Tokens: s.wallet, Replay: dcp.NewPostgresReplay(s.db, "control_plane"),
		Trust: func(context.Context, string) ([]profile.TrustedIssuer, error) { return s.trust(), nil },
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	local := identity.Local{Context: "verifier", DID: s.did("verifier"), Profile: "kit"}
	agent, err := service.Verify(r.Context(), local, r.Header.Get("Authorization"), []string{identity.TypeScope(membership)})
	switch {
	case errors.Is(err, identity.ErrUnauthenticated):
		http.Error(w, err.Error(), http.StatusUnauthorized)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case len(agent.Credentials) == 0:
		http.Error(w, fmt.Sprintf("no %s that counts: %+v", membership, agent.Refused), http.StatusForbidden)
	}
}
