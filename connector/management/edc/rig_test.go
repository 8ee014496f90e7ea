// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	key      = "key-of-the-test"
	audience = "management"
	member   = "https://w3id.org/catenax/2025/9/policy/Membership"
)

// nobody is the identity of a participant whose wallet is down: what needs a counterparty fails, and the rest does not need it.
type nobody struct{}

var errDown = errors.New("the wallet is down")

func (nobody) Token(context.Context, identity.Local, string, []string) (string, error) {
	return "", errDown
}
func (nobody) Endpoint(context.Context, string, string) (string, error) { return "", errDown }
func (nobody) Self(context.Context, identity.Local, []string) (identity.Agent, error) {
	return identity.Agent{}, errDown
}
func (nobody) Recheck(context.Context, identity.Local, string, []string) (identity.Agent, error) {
	return identity.Agent{}, errDown
}
func (nobody) SignHead(context.Context, identity.Local, string, adminapi.HeadStatement) (string, error) {
	return "", errDown
}
func (nobody) VerifyHead(context.Context, identity.Local, string, string) (adminapi.HeadStatement, error) {
	return adminapi.HeadStatement{}, errDown
}
func (nobody) Verify(context.Context, identity.Local, string, []string) (identity.Agent, error) {
	return identity.Agent{}, errDown
}

// rig is the API over a real database, with a participant acme and another, and an issuer of tokens.
type rig struct {
	t      *testing.T
	api    *API
	store  *store.Store
	vault  *vault.Store
	server *httptest.Server
	issuer *httptest.Server
	sign   jwk.Key
}

func newRig(t *testing.T) *rig {
	t.Helper()
	url := pgtest.NewDatabase(t)
	cfg, err := pgxpool.ParseConfig(url)
	must(t, err)
	must(t, store.Migrate(t.Context(), cfg.ConnConfig, nil))
	r := &rig{t: t, vault: vault.NewStore(vaulttest.New(), 0)}
	r.store, err = store.Open(t.Context(), cfg, store.Options{Owner: "test",
		Connections: limits.NewShares(limits.Share{Name: "statements", Most: 1, Queue: 1000, Patience: time.Minute})}) // a second one meanwhile would be waited for in vain
	must(t, err)
	t.Cleanup(r.store.Close)
	must(t, r.store.PutProfile(t.Context(), profile.Profile{Name: "pilot", Protocol: wire.Protocol,
		Operands: []profile.Operand{{Name: member, Aliases: []string{"Membership"}, Subject: profile.SubjectConsumer, Expression: "party.id", ValueType: profile.ValueString,
			Operators: []string{"eq", "isAnyOf"}, Phases: []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "membership is {right}"}}}}))
	for _, name := range []string{"acme", "other"} {
		must(t, r.store.PutParticipant(t.Context(), name, adminapi.Participant{DID: "did:web:x.example:" + name, Profile: "pilot", Active: true}))
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	engine, err := dsp.New(dsp.Options{Store: r.store, Identity: nobody{}, DataPlane: dps.NewClient("http://127.0.0.1:1", "x"), HTTP: http.DefaultClient,
		PublicURL: "http://127.0.0.1:1", Log: log})
	must(t, err)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	r.sign, err = jwk.Import(private)
	must(t, err)
	must(t, r.sign.Set(jwk.KeyIDKey, "k1"))
	public, err := r.sign.PublicKey()
	must(t, err)
	r.issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{public}})
	}))
	t.Cleanup(r.issuer.Close)
	r.api, err = New(Deps{Engine: engine, Store: r.store, Secrets: r.vault, HTTP: http.DefaultClient, Key: key, DataPlane: "http://data-plane", Log: log,
		Tokens: NewOIDC(t.Context(), r.issuer.URL, audience, r.issuer.URL, http.DefaultClient, time.Now)})
	must(t, err)
	r.server = httptest.NewServer(r.api)
	t.Cleanup(r.server.Close)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// token makes an access token; edits replace claims, nil removes one.
func (r *rig) token(subject, scope string, edits map[string]any) string {
	r.t.Helper()
	b := jwt.New()
	claims := map[string]any{"iss": r.issuer.URL, "sub": subject, "aud": audience, "scope": scope, "iat": time.Now(), "exp": time.Now().Add(time.Minute)}
	for k, v := range edits {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	for k, v := range claims {
		must(r.t, b.Set(k, v))
	}
	raw, err := jwt.Sign(b, jwt.WithKey(jwa.RS256(), r.sign))
	must(r.t, err)
	return string(raw)
}

// do makes a call as a header says, and returns status and body.
func (r *rig) do(header, value, method, path, body string) (int, []byte) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL+path, strings.NewReader(body))
	must(r.t, err)
	if header != "" {
		req.Header.Set(header, value)
	}
	res, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	must(r.t, err)
	return res.StatusCode, raw
}

// call makes a call for acme with the API key; it must answer want.
func (r *rig) call(method, path, body string, want int) []byte {
	r.t.Helper()
	status, raw := r.do("X-Api-Key", key, method, "/management/acme"+path, body)
	if status != want {
		r.t.Fatalf("%s %s answers %d, want %d: %s", method, path, status, want, raw)
	}
	return raw
}

// object is call for an answer that is an object.
func (r *rig) object(method, path, body string) map[string]any {
	r.t.Helper()
	var out map[string]any
	must(r.t, json.Unmarshal(r.call(method, path, body, http.StatusOK), &out))
	return out
}

// ids is call for a list, and returns the ids in it.
func (r *rig) ids(path, body string) string {
	r.t.Helper()
	var all []map[string]any
	must(r.t, json.Unmarshal(r.call(http.MethodPost, path, body, http.StatusOK), &all))
	var out []string
	for _, o := range all {
		out = append(out, o["@id"].(string))
	}
	return strings.Join(out, " ")
}
