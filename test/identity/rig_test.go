// SPDX-License-Identifier: Apache-2.0

// Package identity_test proves identities end to end: issuer, wallet and verifier over real HTTP, on a real PostgreSQL.
// It holds no test of a single package.
package identity_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/issuer"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
	"github.com/kaphera/kaphera/connector/wallet"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	membership  = "MembershipCredential"
	attestation = "DataQualityCredential"
)

var scopes = []string{identity.TypeScope(membership), identity.TypeScope(attestation)}

// rig is a dataspace in one process: two issuers on one host, two participants on another, and a verifier for each participant.
type rig struct {
	t        *testing.T
	offset   atomic.Int64 // of the clock
	db       *pgxpool.Pool
	verifier *dcp.Verifier
	wallet   *wallet.Wallet
	services map[string]*dcp.Service // by context

	issuerHost, walletHost         *httptest.Server
	issuerInternal, walletInternal *httptest.Server
	atIssuer, atWallet             trouble
	stopWallet                     func()        // ends its work, not its serving
	keys                           *vaulttest.KV // of the wallet
	trust                          []profile.TrustedIssuer
}

// trouble stands in front of a host and may keep requests or answers from it.
type trouble struct {
	handle atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
}

func (d *trouble) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := d.handle.Load(); f != nil {
			(*f)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (d *trouble) set(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	d.handle.Store(&f)
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.offset.Load())) }

func (r *rig) advance(d time.Duration) { r.offset.Add(int64(d)) }

func newRig(t *testing.T, settings dcp.Settings) *rig {
	t.Helper()
	r := &rig{t: t, services: map[string]*dcp.Service{}, keys: vaulttest.New()}
	settings.StatusCache, settings.DocumentCache = -1, -1
	dsn := pgtest.NewDatabase(t)
	cc, err := pgx.ParseConfig(dsn)
	must(t, err)
	must(t, store.Migrate(t.Context(), cc, nil))
	db, err := pgxpool.New(t.Context(), dsn)
	must(t, err)
	t.Cleanup(db.Close)
	r.db, err = pgxpool.New(t.Context(), pgtest.Superuser(t, dsn))
	must(t, err)
	t.Cleanup(r.db.Close)
	r.verifier, err = dcp.NewVerifier(dcp.VerifierConfig{
		HTTP: dcp.NewHTTPClient(dcp.HTTPConfig{Networks: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, AllowPlainHTTP: true}), DIDHTTP: true, Settings: settings, Now: r.now,
	})
	must(t, err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))

	r.issuerHost, r.walletHost = lateServer(t), lateServer(t)
	is, err := issuer.New(issuer.Deps{
		DB: db, Vault: vault.NewStore(vaulttest.New(), time.Minute), Verifier: r.verifier, PublicURL: r.issuerHost.URL,
		Poll: 20 * time.Millisecond, MinBackoff: 50 * time.Millisecond, Now: r.now, Log: log,
	})
	must(t, err)
	r.wallet, err = wallet.New(wallet.Deps{
		DB: db, Vault: vault.NewStore(r.keys, time.Minute), Verifier: r.verifier, PublicURL: r.walletHost.URL, Now: r.now, Log: log,
		Timing: wallet.Timing{Poll: 20 * time.Millisecond, StatusPoll: 100 * time.Millisecond, MinBackoff: 50 * time.Millisecond, MaxBackoff: 200 * time.Millisecond},
	})
	must(t, err)
	r.issuerHost.Config.Handler, r.walletHost.Config.Handler = r.atIssuer.around(limited(is.Public())), r.atWallet.around(limited(r.wallet.Public()))
	r.issuerInternal, r.walletInternal = httptest.NewServer(is.Internal()), httptest.NewServer(r.wallet.Internal())
	stopIssuer, stopWallet := run(is.Run), run(r.wallet.Run)
	r.stopWallet = stopWallet
	t.Cleanup(func() {
		stopIssuer()
		stopWallet()
		for _, s := range []*httptest.Server{r.issuerInternal, r.walletInternal, r.issuerHost, r.walletHost} {
			s.Close()
		}
	})
	r.trust = []profile.TrustedIssuer{
		{DID: r.issuerDID("authority"), Types: []string{membership}},
		{DID: r.issuerDID("auditor"), Types: []string{attestation}},
	}
	for _, name := range []string{"authority", "auditor", "rogue"} {
		r.admin(http.MethodPut, r.issuerInternal.URL+"/admin/v1/issuers/"+name, adminapi.IssuerConfig{DID: r.issuerDID(name), Types: []adminapi.CredentialType{
			{Type: membership, Validity: "P90D"}, {Type: attestation, Validity: "P30D", RequiredClaims: []string{"completedAt"}},
		}}, nil)
	}
	for _, name := range []string{"acme", "globex"} {
		r.admin(http.MethodPut, r.walletInternal.URL+"/admin/v1/participants/"+name, adminapi.WalletParticipant{DID: r.did(name), TrustedIssuers: r.trust}, nil)
		r.services[name] = r.service(r.wallet)
	}
	return r
}

// run starts something and returns what ends it and waits for that; it may be called again.
func run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = f(ctx); close(done) }()
	return func() { cancel(); <-done }
}

func (r *rig) service(tokens dcp.Tokens) *dcp.Service {
	s, err := dcp.NewService(dcp.ServiceConfig{
		Verifier: r.verifier, Tokens: tokens, Replay: dcp.NewPostgresReplay(r.db, "control_plane"),
		Trust: func(context.Context, string) ([]profile.TrustedIssuer, error) { return r.trust, nil },
	})
	must(r.t, err)
	return s
}

func webDID(server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		panic(err)
	}
	return "did:web:" + strings.ReplaceAll(u.Host, ":", "%3A") + ":" + name
}

func (r *rig) did(name string) string       { return webDID(r.walletHost.URL, name) }
func (r *rig) issuerDID(name string) string { return webDID(r.issuerHost.URL, name) }

func (r *rig) local(name string) identity.Local {
	return identity.Local{Context: name, DID: r.did(name), Profile: "p"}
}

// entitle registers what an issuer grants a participant.
func (r *rig) entitle(issuerName, participant string, credentials ...adminapi.HolderCredential) {
	r.t.Helper()
	r.entitleDID(issuerName, r.did(participant), credentials...)
}

func (r *rig) entitleDID(issuerName, did string, credentials ...adminapi.HolderCredential) {
	r.t.Helper()
	r.admin(http.MethodPut, r.issuerInternal.URL+"/admin/v1/issuers/"+issuerName+"/holders/"+base64.RawURLEncoding.EncodeToString([]byte(did)),
		adminapi.Holder{DID: did, Credentials: credentials}, nil)
}

func grant(typ, claims string) adminapi.HolderCredential {
	return adminapi.HolderCredential{Type: typ, Claims: json.RawMessage(claims)}
}

func (r *rig) request(participant, issuerName, typ string) adminapi.HeldCredential {
	r.t.Helper()
	var out adminapi.HeldCredential
	r.admin(http.MethodPost, r.walletInternal.URL+"/admin/v1/participants/"+participant+"/credential-requests",
		adminapi.CredentialRequest{Issuer: r.issuerDID(issuerName), Type: typ}, &out)
	return out
}

func (r *rig) held(participant string) []adminapi.HeldCredential {
	r.t.Helper()
	var out []adminapi.HeldCredential
	r.admin(http.MethodGet, r.walletInternal.URL+"/admin/v1/participants/"+participant+"/credentials", nil, &out)
	return out
}

// awaitState waits until a participant's credential of a type and issuer is in a state, and returns it.
func (r *rig) awaitState(participant, issuerName, typ string, state adminapi.CredentialState) adminapi.HeldCredential {
	r.t.Helper()
	var last []adminapi.HeldCredential
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		last = r.held(participant)
		for _, h := range last {
			if h.Type == typ && h.Issuer == r.issuerDID(issuerName) && h.State == state {
				return h
			}
		}
		pause()
	}
	r.t.Fatalf("%s's %s of %s is not %s: %+v", participant, typ, issuerName, state, last)
	return adminapi.HeldCredential{}
}

// obtain entitles and requests, and waits for the credential.
func (r *rig) obtain(participant, issuerName, typ, claims string) adminapi.HeldCredential {
	r.t.Helper()
	r.entitle(issuerName, participant, grant(typ, claims))
	r.request(participant, issuerName, typ)
	return r.awaitState(participant, issuerName, typ, adminapi.CredentialValid)
}

// verify lets acme send a message to globex and returns what globex makes of it.
func (r *rig) verify(scopes []string) (identity.Agent, error) {
	r.t.Helper()
	header, err := r.services["acme"].Token(r.t.Context(), r.local("acme"), r.did("globex"), scopes)
	must(r.t, err)
	return r.services["globex"].Verify(r.t.Context(), r.local("globex"), header, scopes)
}

// trail returns the events of credentials on a participant's audit trail, which must verify, with their actors.
func (r *rig) trail(participant string) (events []string) {
	r.t.Helper()
	h, err := audit.HeadOf(r.t.Context(), r.db, participant)
	must(r.t, err)
	records, err := audit.Records(r.t.Context(), r.db, h, 0, 1000)
	must(r.t, err)
	var export bytes.Buffer
	for _, rec := range records {
		must(r.t, audit.WriteRecord(&export, rec))
		var body struct {
			Event string `json:"event"`
			Type  string `json:"type"`
		}
		must(r.t, json.Unmarshal(rec.Body, &body))
		if rec.Type == audit.Credential {
			events = append(events, body.Event+" "+body.Type+" by "+strings.TrimPrefix(rec.Actor, r.issuerDID("")))
		}
	}
	must(r.t, audit.WriteHead(&export, h))
	_, err = audit.Verify(&export, nil)
	must(r.t, err)
	return events
}

func (r *rig) act(issuerName, credential, action string) adminapi.Issued {
	r.t.Helper()
	var out adminapi.Issued
	r.admin(http.MethodPost, r.issuerInternal.URL+"/admin/v1/issuers/"+issuerName+"/credentials/"+credential+"/"+action, nil, &out)
	return out
}

func (r *rig) admin(method, address string, body, into any) {
	r.t.Helper()
	status, raw := r.call(method, address, body)
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %s", method, address, status, raw)
	}
	if into != nil {
		must(r.t, json.Unmarshal(raw, into))
	}
}

func (r *rig) call(method, address string, body any) (int, []byte) {
	r.t.Helper()
	raw, err := json.Marshal(body)
	must(r.t, err)
	req, err := http.NewRequestWithContext(r.t.Context(), method, address, bytes.NewReader(raw))
	must(r.t, err)
	resp, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer func() { _ = resp.Body.Close() }()
	out, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return resp.StatusCode, out
}

// limited bounds requests as the product's listeners do.
func limited(h http.Handler) http.Handler { return limits.Handler(h, limits.Options{}) }

func lateServer(t *testing.T) *httptest.Server {
	t.Helper()
	return httptest.NewServer(http.NotFoundHandler())
}

// pause yields between two looks at a condition.
func pause() { <-time.After(10 * time.Millisecond) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
