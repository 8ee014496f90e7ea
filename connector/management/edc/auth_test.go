// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// TestScopesOpenRoutes: every scope with every route, in the own participant context and in another.
func TestScopesOpenRoutes(t *testing.T) {
	r := newRig(t)
	nothing := func(*route) bool { return false }
	for scopes, opens := range map[string]func(*route) bool{
		"":                             nothing,
		"openid profile":               nothing,
		"read write admin":             nothing,
		"management-api":               nothing,
		"management-api:*":             nothing,
		"management-api:assets:admin":  nothing,
		"identity-api:write":           nothing,
		"management-api:read":          func(rt *route) bool { return !rt.write },
		"management-api:write":         func(*route) bool { return true },
		"management-api:admin":         func(*route) bool { return true },
		"openid management-api:read":   func(rt *route) bool { return !rt.write },
		"management-api:assets:read":   func(rt *route) bool { return rt.area == "assets" && !rt.write },
		"management-api:assets:write":  func(rt *route) bool { return rt.area == "assets" },
		"management-api:policies:read": func(rt *route) bool { return rt.area == "policies" && !rt.write },
		"management-api:catalog:read":  func(rt *route) bool { return rt.area == "catalog" },
		"management-api:transfers:write management-api:agreements:read": func(rt *route) bool { return rt.area == "transfers" || rt.area == "agreements" },
	} {
		token := r.token("acme", scopes, nil)
		for _, rt := range r.api.routes() {
			for _, v := range rt.versions() {
				for _, ctx := range []string{"acme", "other"} {
					path := "/management/" + ctx + "/" + string(v) + strings.Replace(rt.path, "{id}", "none", 1)
					status, body := r.do("Authorization", "Bearer "+token, rt.method, path, "")
					want := opens(&rt) && (ctx == "acme" || strings.Contains(scopes, "admin"))
					if got := status != http.StatusForbidden; got != want || status == http.StatusUnauthorized {
						t.Errorf("scopes %q: %s %s answers %d %s, want it open: %v", scopes, rt.method, path, status, body, want)
					}
				}
			}
		}
	}
	for _, rt := range r.api.routes() { // and without any of it
		for _, v := range rt.versions() {
			path := "/management/acme/" + string(v) + strings.Replace(rt.path, "{id}", "none", 1)
			for name, header := range map[string][2]string{"nothing": {"", ""}, "a wrong key": {"X-Api-Key", "wrong"}, "no token": {"Authorization", "Bearer "},
				"another scheme": {"Authorization", "Basic " + key}, "a key as token": {"Authorization", "Bearer " + key}} {
				if status, body := r.do(header[0], header[1], rt.method, path, ""); status != http.StatusUnauthorized || !strings.HasPrefix(string(body), "[{") {
					t.Errorf("with %s, %s %s answers %d %s", name, rt.method, path, status, body)
				}
			}
		}
	}
	if status, _ := r.do("", "", http.MethodGet, "/management/openapi.json", ""); status != http.StatusUnauthorized {
		t.Errorf("the document answers %d without a key", status)
	}
	if status, _ := r.do("", "", http.MethodGet, "/management/nothing", ""); status != http.StatusUnauthorized {
		t.Errorf("what there is not answers %d without a key", status)
	}
}

func TestTokensAreVerified(t *testing.T) {
	r := newRig(t)
	const scope = "management-api:read"
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	good := r.token("acme", scope, nil)
	parts := strings.Split(good, ".")
	claims, err := jwt.ParseInsecure([]byte(good))
	must(t, err)
	signed := func(alg jwa.SignatureAlgorithm, with any) string {
		raw, err := jwt.Sign(claims, jwt.WithKey(alg, with))
		must(t, err)
		return string(raw)
	}
	public, err := r.sign.PublicKey()
	must(t, err)
	var rsaKey any
	must(t, jwk.Export(public, &rsaKey))
	der, err := x509.MarshalPKIXPublicKey(rsaKey)
	must(t, err)
	for name, tc := range map[string]struct {
		token string
		want  int
	}{
		"good":                     {good, http.StatusNotFound},
		"for two audiences":        {r.token("acme", scope, map[string]any{"aud": []string{"other", audience}}), http.StatusNotFound},
		"expired":                  {r.token("acme", scope, map[string]any{"exp": time.Now().Add(-time.Hour)}), http.StatusUnauthorized},
		"without an end":           {r.token("acme", scope, map[string]any{"exp": nil}), http.StatusUnauthorized},
		"not yet valid":            {r.token("acme", scope, map[string]any{"nbf": time.Now().Add(time.Hour)}), http.StatusUnauthorized},
		"for another audience":     {r.token("acme", scope, map[string]any{"aud": "other"}), http.StatusUnauthorized},
		"for nobody":               {r.token("acme", scope, map[string]any{"aud": nil}), http.StatusUnauthorized},
		"of another issuer":        {r.token("acme", scope, map[string]any{"iss": "https://other.example"}), http.StatusUnauthorized},
		"without a subject":        {r.token("acme", scope, map[string]any{"sub": nil}), http.StatusForbidden},
		"without a scope":          {r.token("acme", scope, map[string]any{"scope": nil}), http.StatusForbidden},
		"a scope that is no text":  {r.token("acme", scope, map[string]any{"scope": []string{scope}}), http.StatusUnauthorized},
		"a stranger's key":         {signed(jwa.RS256(), stranger), http.StatusUnauthorized},
		"the public key as secret": {signed(jwa.HS256(), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), http.StatusUnauthorized},
		"no signature":             {"eyJhbGciOiJub25lIn0." + parts[1] + ".", http.StatusUnauthorized},
		"a changed claim":          {parts[0] + "." + strings.Split(r.token("other", scope, nil), ".")[1] + "." + parts[2], http.StatusUnauthorized},
		"not a token":              {"x", http.StatusUnauthorized},
	} {
		if status, body := r.do("Authorization", "Bearer "+tc.token, http.MethodGet, "/management/acme/v3/assets/none", ""); status != tc.want {
			t.Errorf("%s: answers %d %s, want %d", name, status, body, tc.want)
		}
	}
	down := newRig(t)
	down.issuer.Close()
	if status, _ := down.do("Authorization", "Bearer "+down.token("acme", scope, nil), http.MethodGet, "/management/acme/v3/assets/none", ""); status != http.StatusUnauthorized {
		t.Errorf("while the issuer can't be reached: answers %d", status)
	}
	if status, _ := down.do("X-Api-Key", key, http.MethodGet, "/management/acme/v3/assets/none", ""); status != http.StatusNotFound {
		t.Errorf("the key, meanwhile: answers %d", status)
	}
}
