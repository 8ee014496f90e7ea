// SPDX-License-Identifier: FSL-1.1-ALv2

// Package cloudtest holds what the tests of the Cloud API and the console share: an identity provider that signs real
// tokens, a connector's participant view, and the way to it. Nothing of the product imports it.
package cloudtest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// Audience of access tokens.
const Audience = "kaphera-api"

// Issuer is an OpenID provider: discovery, keys, authorization code, refresh and client credentials.
type Issuer struct {
	URL    string
	Now    func() time.Time
	TLS    *httptest.Server
	key    jwk.Key
	public jwk.Set

	mu     sync.Mutex
	down   bool
	person map[string]any
	codes  map[string]authorization
	logins int

	revoked map[string]bool
}

type authorization struct{ challenge, nonce, redirect string }

// NewIssuer starts one; its TLS certificate is trusted by Client.
func NewIssuer(t *testing.T) *Issuer {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{Now: time.Now, codes: map[string]authorization{}, revoked: map[string]bool{}}
	if i.key, err = jwk.Import(private); err != nil {
		t.Fatal(err)
	}
	if err := i.key.Set(jwk.KeyIDKey, "test"); err != nil {
		t.Fatal(err)
	}
	public, err := i.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	i.public = jwk.NewSet()
	if err := i.public.AddKey(public); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
			"end_session_endpoint": i.URL + "/logout", "revocation_endpoint": i.URL + "/revoke", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { write(w, i.public) })
	mux.HandleFunc("GET /auth", i.authorize)
	mux.HandleFunc("POST /revoke", func(_ http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.revoked[r.FormValue("token")] = true
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) { i.token(t, w, r) })
	i.TLS = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		down := i.down
		i.mu.Unlock()
		if down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	i.URL = i.TLS.URL
	t.Cleanup(i.TLS.Close)
	return i
}

// SetDown makes it answer 502 to everything.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Claims of a person or program with roles.
func Claims(name, organization string, roles ...string) map[string]any {
	return map[string]any{"sub": "sub-" + name, "preferred_username": name, "roles": roles, "organization": organization}
}

// Token signs an access token for an hour; claims replace the usual ones.
func (i *Issuer) Token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": i.URL, "aud": Audience, "iat": i.Now(), "exp": i.Now().Add(time.Hour)}
	maps.Copy(all, claims)
	token := jwt.New()
	for k, v := range all {
		if err := token.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.RS256(), i.key))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

// LogIn says who logs in next by the authorization code flow.
func (i *Issuer) LogIn(claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.person = claims
}

// Logins counts tokens that were given out.
func (i *Issuer) Logins() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.logins
}

// authorize stands for the person who types the password.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" {
		http.Error(w, "PKCE is needed", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	i.mu.Lock()
	i.codes[code] = authorization{q.Get("code_challenge"), q.Get("nonce"), q.Get("redirect_uri")}
	i.mu.Unlock()
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusSeeOther) //nolint:gosec // for tests
}

func (i *Issuer) token(t *testing.T, w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	answer := map[string]any{"token_type": "Bearer", "expires_in": 300, "refresh_token": rand.Text()}
	switch r.FormValue("grant_type") {
	case "authorization_code":
		a, ok := i.codes[r.FormValue("code")]
		delete(i.codes, r.FormValue("code"))
		if !ok || a.challenge != challenge(r.FormValue("code_verifier")) || a.redirect != r.FormValue("redirect_uri") {
			w.WriteHeader(http.StatusBadRequest)
			write(w, map[string]string{"error": "invalid_grant"})
			return
		}
		id := maps.Clone(i.person)
		id["aud"], id["nonce"] = "kaphera-console", a.nonce
		answer["id_token"] = i.Token(t, id)
	case "refresh_token":
		if i.person == nil || i.revoked[r.FormValue("refresh_token")] {
			w.WriteHeader(http.StatusBadRequest)
			write(w, map[string]string{"error": "invalid_grant"})
			return
		}
	}
	if had := r.FormValue("refresh_token"); had != "" {
		answer["refresh_token"] = had
	}
	i.logins++
	answer["access_token"] = i.Token(t, i.person)
	write(w, answer)
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // what a test gives
}
