// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/dcp"
)

// party is a counterparty under the test's control: its DID document, its key, and what its credential service answers.
type party struct {
	t      *testing.T
	server *httptest.Server
	did    string
	key    dcp.SigningKey
	public json.RawMessage

	relationships []string // that the document lists the key in
	queries       atomic.Int32

	mu    sync.Mutex
	pages map[string]http.HandlerFunc
}

func newParty(t *testing.T, name string) *party {
	t.Helper()
	p := &party{t: t, relationships: []string{"authentication", "assertionMethod", "capabilityInvocation"}, pages: map[string]http.HandlerFunc{}}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		page := p.pages[r.URL.Path]
		p.mu.Unlock()
		if page == nil {
			http.NotFound(w, r)
			return
		}
		page(w, r)
	}))
	t.Cleanup(p.server.Close)
	p.did = webDID(p.server.URL, name)
	p.key, p.public = newKey(t, p.did)
	p.document("/" + name + "/did.json")
	return p
}

// document serves p's DID document at a path.
func (p *party) document(path string) {
	p.page(path, func(w http.ResponseWriter, _ *http.Request) {
		doc := map[string]any{
			"@context": []string{"https://www.w3.org/ns/did/v1"}, "id": p.did,
			"verificationMethod": []any{map[string]any{"id": "#key", "type": "JsonWebKey2020", "controller": p.did, "publicKeyMultibase": nil, "publicKeyJwk": p.public}},
			"service":            []any{map[string]any{"id": "cs", "type": "CredentialService", "serviceEndpoint": p.server.URL + "/cs"}},
		}
		for _, rel := range p.relationships {
			doc[rel] = []string{p.did + "#key"}
		}
		_ = json.NewEncoder(w).Encode(doc)
	})
}

func newKey(t *testing.T, did string) (dcp.SigningKey, json.RawMessage) {
	t.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	private, err := jwk.Import(raw)
	must(t, err)
	public, err := jwk.Import(raw.Public())
	must(t, err)
	encoded, err := json.Marshal(public)
	must(t, err)
	return dcp.SigningKey{ID: did + "#key", Private: private}, encoded
}

func (p *party) page(path string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pages[path] = h
}

// presents lets the credential service answer presentations.
func (p *party) presents(presentations ...string) {
	p.page("/cs/presentations/query", func(w http.ResponseWriter, _ *http.Request) {
		p.queries.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypePresentationResponse, "presentation": presentations})
	})
}

func (p *party) sign(claims map[string]any) string { return sign(p.t, p.key, claims) }

func sign(t *testing.T, key dcp.SigningKey, claims map[string]any) string {
	t.Helper()
	raw, err := key.Sign(claims, "JWT")
	must(t, err)
	return raw
}

// token are the claims of a good ID token, changed by edits; a nil value removes a claim.
func (p *party) token(audience string, edits map[string]any) map[string]any {
	now := time.Now()
	return edited(map[string]any{
		"iss": p.did, "sub": p.did, "aud": audience, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "token": "access",
	}, edits)
}

// presentation are the claims of a good presentation.
func (p *party) presentation(audience string, credentials []string, edits map[string]any) map[string]any {
	now := time.Now()
	return edited(map[string]any{
		"iss": p.did, "sub": p.did, "aud": audience, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		"vp": map[string]any{"type": "VerifiablePresentation", "verifiableCredential": credentials},
	}, edits)
}

// credential are the claims of a good credential of p about holder, with edits of the vc claim.
func (p *party) credential(holder, typ string, edits map[string]any) map[string]any {
	now := time.Now()
	return map[string]any{"iss": p.did, "vc": edited(map[string]any{
		"id": "urn:uuid:" + rand.Text(), "type": []string{"VerifiableCredential", typ}, "issuer": p.did,
		"issuanceDate": now.Add(-time.Hour).UTC().Format(time.RFC3339), "expirationDate": now.Add(time.Hour).UTC().Format(time.RFC3339),
		"credentialSubject": map[string]any{"id": holder},
	}, edits)}
}

func edited(claims, edits map[string]any) map[string]any {
	for k, v := range edits {
		if v == nil {
			delete(claims, k)
			continue
		}
		claims[k] = v
	}
	return claims
}

// forge makes a token with any header, signed by whatever makes a signature of the signing input.
func forge(t *testing.T, header, claims map[string]any, signature func(input []byte) []byte) string {
	t.Helper()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	input := part(header) + "." + part(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(signature([]byte(input)))
}

func hs256(key []byte) func([]byte) []byte {
	return func(input []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(input)
		return mac.Sum(nil)
	}
}

// tamper changes a token's claims and keeps its signature.
func tamper(t *testing.T, raw string, change func(map[string]any)) string {
	t.Helper()
	parts := strings.Split(raw, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(payload, &claims))
	change(claims)
	payload, err = json.Marshal(claims)
	must(t, err)
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + parts[2]
}
