// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/profile"
)

func zipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	_, err := zw.Write(plain)
	must(t, err)
	must(t, zw.Close())
	return buf.Bytes()
}

// send posts bytes with headers and returns the answer as it came, not unpacked.
func send(t *testing.T, address string, body []byte, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader(body))
	must(t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}).Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, raw
}

// Every endpoint that takes a message bounds its size, also of what is packed in it, and its depth.
func TestMessagesAreBounded(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p := newParty(t, "sender")
	r.entitleDID("authority", p.did, grant(membership, `{}`))
	long, deep := make([]byte, dcp.MaxMessage+1), []byte(`{"@context":["`+dcp.Context+`"],"type":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`}`)
	for i := range long {
		long[i] = ' '
	}
	for path, audience := range map[string]string{
		r.walletHost.URL + "/acme/dcp/presentations/query":   r.did("acme"),
		r.walletHost.URL + "/acme/dcp/credentials":           r.did("acme"),
		r.walletHost.URL + "/acme/dcp/offers":                r.did("acme"),
		r.issuerHost.URL + "/authority/issuance/credentials": r.issuerDID("authority"),
	} {
		for name, tc := range map[string]struct {
			body     []byte
			encoding string
			status   int
			says     string
		}{
			"too long":            {long, "", 413, "longer than"},
			"a bomb":              {zipped(t, long), "gzip", 413, "longer than"},
			"not gzip":            {[]byte("{}"), "gzip", 400, "could not be read"},
			"in another encoding": {[]byte("{}"), "br", 415, "gzip"},
			"too deep":            {deep, "", 400, "64"},
			"too deep, packed":    {zipped(t, deep), "gzip", 400, "64"},
			"nothing":             {nil, "", 400, "message"},
			"not JSON":            {[]byte("<xml/>"), "", 400, "message"},
			"an array":            {[]byte("[]"), "", 400, "message"},
			"null":                {[]byte("null"), "", 400, "@context"},
		} {
			claims := p.token(audience, nil)
			if strings.HasSuffix(path, "/query") {
				claims["token"] = r.access(p.did, scopes)
			}
			resp, body := send(t, path, tc.body, map[string]string{"Authorization": "Bearer " + p.sign(claims), "Content-Encoding": tc.encoding})
			if resp.StatusCode != tc.status || !strings.Contains(string(body), tc.says) {
				t.Errorf("%s, %s: %d %.200s, want %d and %q", path, name, resp.StatusCode, body, tc.status, tc.says)
			}
		}
		// Without a token nothing of the body is looked at: it is short, since a server that leaves much of one unread may reset the connection.
		unread := []byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))
		if resp, body := send(t, path, unread, nil); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d %s", path, resp.StatusCode, body)
		}
	}
}

// Messages may come packed, and answers go packed to those who take them so.
func TestGzipBothWays(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.obtain("acme", "authority", membership, `{"padding":"`+strings.Repeat("x", 4000)+`"}`)
	p := newParty(t, "verifier")
	message, err := json.Marshal(query(map[string]any{"scope": scopes}))
	must(t, err)
	for _, accept := range []string{"", "gzip"} {
		claims := p.token(r.did("acme"), map[string]any{"token": r.access(p.did, scopes)})
		resp, raw := send(t, r.walletHost.URL+"/acme/dcp/presentations/query", zipped(t, message),
			map[string]string{"Authorization": "Bearer " + p.sign(claims), "Content-Encoding": "gzip", "Accept-Encoding": accept})
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Encoding") != accept {
			t.Fatalf("accepts %q: %d %v %.100s", accept, resp.StatusCode, resp.Header, raw)
		}
		if accept != "" {
			zr, err := gzip.NewReader(bytes.NewReader(raw))
			must(t, err)
			raw, err = io.ReadAll(zr)
			must(t, err)
		}
		if n := presented(t, string(raw)); n != 1 {
			t.Errorf("accepts %q: %d credentials", accept, n)
		}
	}
	// Answers to us may come packed, and are bounded by what they hold.
	is := newParty(t, "issuer")
	r.trust = append(r.trust, profile.TrustedIssuer{DID: is.did, Types: []string{membership}})
	verify := func() (identity.Agent, error) {
		return r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), scopes[:1])
	}
	answer := func(body []byte) {
		p.page("/cs/presentations/query", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped(t, body))
		})
	}
	vp := p.sign(p.presentation(r.did("globex"), []string{is.sign(is.credential(p.did, membership, nil))}, nil))
	answer([]byte(fmt.Sprintf(`{"@context":[%q],"type":"PresentationResponseMessage","presentation":[%q]}`, dcp.Context, vp)))
	if agent, err := verify(); err != nil || len(agent.Credentials) != 1 {
		t.Errorf("a packed answer: %+v, %v", agent, err)
	}
	answer(make([]byte, 3<<20))
	if _, err := verify(); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an answer that is a bomb: %v", err)
	}
}

// Offers and deliveries with more in them than anybody needs make no work.
func TestTooManyCredentialsAreRefused(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	is := newParty(t, "issuer")
	r.admin(http.MethodPut, r.walletInternal.URL+"/admin/v1/participants/acme",
		map[string]any{"did": r.did("acme"), "trustedIssuers": []profile.TrustedIssuer{{DID: is.did, Types: []string{membership}}}}, nil)
	var many []any
	for n := range 51 {
		many = append(many, map[string]any{"id": fmt.Sprint(n), "credentialType": membership, "payload": "x", "format": "VC1_0_JWT"})
	}
	offer := map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypeCredentialOffer, "issuer": is.did, "credentials": many}
	if status, body := r.post(is, "/offers", nil, offer); status != 400 || !strings.Contains(body, "at most 50") {
		t.Errorf("an offer of 51: %d %s", status, body)
	}
	offer["credentials"] = []any{map[string]any{"id": strings.Repeat("x", 2000)}}
	if status, body := r.post(is, "/offers", nil, offer); status != 400 || !strings.Contains(body, "longer than") {
		t.Errorf("an offer with a long id: %d %s", status, body)
	}
	if n := r.count("SELECT count(*) FROM wallet.requests"); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	_, err := r.db.Exec(t.Context(), `INSERT INTO wallet.requests (id, ctx, issuer, type, state, next_attempt_at, created_at, sent_at, updated_at)
		VALUES ('pid', 'acme', $1, $2, 'SENT', now() + interval '1 hour', now(), now(), now())`, is.did, membership)
	must(t, err)
	delivery := map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypeCredentialMessage, "issuerPid": "i", "holderPid": "pid", "status": "ISSUED", "credentials": many}
	if status, body := r.post(is, "/credentials", nil, delivery); status != 400 || !strings.Contains(body, "at most 50") {
		t.Errorf("a delivery of 51: %d %s", status, body)
	}
}

// signWith makes a token of p with an algorithm and a key of the test's choice, and headers as a forger would set them.
func signWith(t *testing.T, alg jwa.SignatureAlgorithm, key any, header map[string]any, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	must(t, err)
	headers := jws.NewHeaders()
	for k, v := range header {
		must(t, headers.Set(k, v))
	}
	raw, err := jws.Sign(payload, jws.WithKey(alg, key, jws.WithProtectedHeaders(headers)))
	must(t, err)
	return string(raw)
}

func publicJWK(t *testing.T, key any) json.RawMessage {
	t.Helper()
	k, err := jwk.Import(key)
	must(t, err)
	raw, err := json.Marshal(k)
	must(t, err)
	return raw
}

// A key verifies what it is published for: by the DID that the token is of, with the algorithm that it is made for, wherever else the
// token points.
func TestKeyConfusion(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	me := r.did("globex")
	victim, mallory := newParty(t, "victim"), newParty(t, "mallory")
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	public25519, private25519, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	var lured atomic.Int32
	mallory.page("/keys", func(w http.ResponseWriter, _ *http.Request) {
		lured.Add(1)
		_, _ = fmt.Fprintf(w, `{"keys":[%s]}`, publicJWK(t, p256.Public()))
	})
	kid := victim.did + "#key"
	ofVictim := func() map[string]any { return victim.token(me, nil) }
	for name, tc := range map[string]struct {
		published json.RawMessage // in the victim's document; nil = the victim's own
		raw       string
		want      string
	}{
		"by another's key, named as it is":       {nil, signWith(t, jwa.ES256(), p256, map[string]any{"kid": mallory.did + "#key"}, ofVictim()), "does not belong to"},
		"by another's key, under our name":       {nil, signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid}, ofVictim()), "signature"},
		"by a key in the header":                 {nil, signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid, "jwk": mustKey(t, p256.Public())}, ofVictim()), "signature"},
		"by a key behind a URL":                  {nil, signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid, "jku": mallory.server.URL + "/keys", "x5u": mallory.server.URL + "/keys"}, ofVictim()), "signature"},
		"kid is a path":                          {nil, signWith(t, jwa.ES256(), p256, map[string]any{"kid": "../../mallory/did.json#key"}, ofVictim()), "does not belong to"},
		"kid is SQL":                             {nil, signWith(t, jwa.ES256(), p256, map[string]any{"kid": victim.did + "#' OR 1=1 --"}, ofVictim()), "no key"},
		"ES256 while the key is of P-384":        {publicJWK(t, p384.Public()), signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid}, ofVictim()), "does not go with"},
		"ES384 while the key is of P-256":        {nil, signWith(t, jwa.ES384(), p384, map[string]any{"kid": kid}, ofVictim()), "does not go with"},
		"EdDSA while the key is of P-256":        {nil, signWith(t, jwa.EdDSA(), private25519, map[string]any{"kid": kid}, ofVictim()), "does not go with"},
		"ES256 while the key is Ed25519":         {publicJWK(t, public25519), signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid}, ofVictim()), "does not go with"},
		"HS256 with a key published as a secret": {json.RawMessage(`{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`), "", "algorithm"},
		"ES256 with a key published as a secret": {json.RawMessage(`{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`), signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid}, ofVictim()), "does not go with"},
		"a key that is none":                     {json.RawMessage(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`), signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid}, ofVictim()), ""},
		"a key that is no object":                {json.RawMessage(`"x"`), signWith(t, jwa.ES256(), p256, map[string]any{"kid": kid}, ofVictim()), "publicKeyJwk"},
	} {
		own := victim.public
		if tc.published != nil {
			victim.public = tc.published
		}
		if tc.raw == "" {
			tc.raw = forge(t, map[string]any{"alg": "HS256", "kid": kid}, ofVictim(), hs256([]byte("secretsecretsecretsecret")))
		}
		_, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+tc.raw, nil)
		if !errors.Is(err, identity.ErrUnauthenticated) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want a refusal that says %q", name, err, tc.want)
		}
		victim.public = own
	}
	if n := lured.Load(); n != 0 {
		t.Errorf("a URL in a token's header was followed %d times", n)
	}
	if _, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+victim.sign(ofVictim()), nil); err != nil {
		t.Errorf("the victim's own token: %v", err)
	}
}

func mustKey(t *testing.T, raw any) jwk.Key {
	t.Helper()
	k, err := jwk.Import(raw)
	must(t, err)
	return k
}

// A credential of two types, both trusted, counts as either; one that the issuer is not trusted for does not.
func TestACredentialOfSeveralTypes(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p, is := newParty(t, "holder"), newParty(t, "issuer")
	r.trust = append(r.trust, profile.TrustedIssuer{DID: is.did, Types: []string{membership}}, profile.TrustedIssuer{DID: is.did, Types: []string{attestation}})
	raw := is.sign(is.credential(p.did, membership, map[string]any{"type": []string{"VerifiableCredential", membership, "OtherCredential", attestation}}))
	p.presents(p.sign(p.presentation(r.did("globex"), []string{raw}, nil)))
	agent, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), scopes)
	if err != nil || len(agent.Credentials) != 2 || len(agent.Refused) != 0 {
		t.Fatalf("%+v, %v", agent, err)
	}
	if a, b := agent.Credentials[0], agent.Credentials[1]; a.ID != b.ID || a.Type != membership || b.Type != attestation {
		t.Errorf("%+v", agent.Credentials)
	}
}

// A wallet presents a credential of several types for any of them.
func TestAHeldCredentialOfSeveralTypes(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	is, p := newParty(t, "issuer"), newParty(t, "verifier")
	acme := r.did("acme")
	_, err := r.db.Exec(t.Context(), `INSERT INTO wallet.requests (id, ctx, issuer, type, state, next_attempt_at, created_at, sent_at, updated_at)
		VALUES ('pid', 'acme', $1, $2, 'SENT', now() + interval '1 hour', now(), now(), now())`, is.did, attestation)
	must(t, err)
	raw := is.sign(is.credential(acme, membership, map[string]any{"type": []string{"VerifiableCredential", membership, attestation}}))
	status, body := r.post(is, "/credentials", nil, map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypeCredentialMessage, "issuerPid": "i", "holderPid": "pid",
		"status": "ISSUED", "credentials": []any{map[string]any{"credentialType": attestation, "payload": raw, "format": dcp.ProfileVC11}}})
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if held := r.held("acme"); len(held) != 1 || held[0].Type != attestation {
		t.Errorf("requested as %s, held as %+v", attestation, held)
	}
	for _, scope := range scopes {
		status, body := r.post(p, "/presentations/query", map[string]any{"token": r.access(p.did, []string{scope})}, query(map[string]any{"scope": []string{scope}}))
		if status != 200 || presented(t, body) != 1 {
			t.Errorf("%s: %d %s", scope, status, body)
		}
	}
}

// What others name is fetched in bounded pieces, and not again while it is believed.
func TestFetchesAreBoundedAndRemembered(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p, is := newParty(t, "holder"), newParty(t, "issuer")
	var documents, lists atomic.Int32
	encoded, err := dcp.EncodeStatusList(dcp.ProfileVC20, make([]byte, 16))
	must(t, err)
	is.page("/list", func(w http.ResponseWriter, _ *http.Request) {
		lists.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": []string{"VerifiableCredential", "BitstringStatusListCredential"}, "issuer": is.did,
			"credentialSubject": map[string]any{"statusPurpose": "revocation", "encodedList": encoded}})
	})
	served := p.pages["/holder/did.json"]
	p.page("/holder/did.json", func(w http.ResponseWriter, req *http.Request) { documents.Add(1); served(w, req) })
	v, err := dcp.NewVerifier(dcp.VerifierConfig{HTTP: dcp.NewHTTPClient(dcp.HTTPConfig{Networks: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, AllowPlainHTTP: true}), DIDHTTP: true,
		Settings: dcp.Settings{StatusCache: time.Hour, DocumentCache: time.Hour}})
	must(t, err)
	status := map[string]any{"credentialStatus": map[string]any{"type": "BitstringStatusListEntry", "statusPurpose": "revocation", "statusListIndex": "3", "statusListCredential": is.server.URL + "/list"}}
	trust := []profile.TrustedIssuer{{DID: is.did, Types: []string{membership}}}
	replay := dcp.NewMemoryReplay(100)
	for range 5 {
		_, err := v.IDToken(t.Context(), "Bearer "+p.sign(p.token("did:web:me", nil)), "did:web:me", replay)
		must(t, err)
		if _, refusal := v.Credential(t.Context(), is.sign(is.credential(p.did, membership, status)), p.did, trust); refusal != nil {
			t.Fatalf("%+v", refusal)
		}
	}
	if documents.Load() != 1 || lists.Load() != 1 {
		t.Errorf("fetched the document %d times, the list %d times", documents.Load(), lists.Load())
	}
	for name, body := range map[string]string{"too long": strings.Repeat(" ", 300<<10) + "{}", "too deep": strings.Repeat(`{"a":`, 5000), "of another": `{"id":"did:web:x"}`, "no JSON": "<html>"} {
		p.page("/holder/did.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		_, err := r.verifier.Resolve(t.Context(), p.did)
		if err == nil || !strings.Contains(err.Error(), p.did) && !strings.Contains(err.Error(), "longer than") {
			t.Errorf("a document that is %s: %v", name, err)
		}
	}
}

// A DID document, a status list or a schema that redirects to where only we can reach leads nowhere.
func TestNothingLeadsToInnerAddresses(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p, is := newParty(t, "holder"), newParty(t, "issuer")
	r.trust = append(r.trust, profile.TrustedIssuer{DID: is.did, Types: []string{membership}})
	inner := http.RedirectHandler("http://169.254.169.254/latest/meta-data", http.StatusFound)
	is.page("/inner", inner.ServeHTTP)
	for name, edits := range map[string]map[string]any{
		"status list": {"credentialStatus": map[string]any{"type": "StatusList2021Entry", "statusPurpose": "revocation", "statusListIndex": "1", "statusListCredential": is.server.URL + "/inner"}},
		"schema":      {"credentialSchema": map[string]any{"type": "JsonSchema", "id": is.server.URL + "/inner"}},
	} {
		_, refusal := r.verifier.Credential(t.Context(), is.sign(is.credential(p.did, membership, edits)), p.did, r.trust)
		if refusal == nil || !strings.Contains(refusal.Reason, "169.254.169.254") {
			t.Errorf("%s: %+v", name, refusal)
		}
	}
	p.page("/holder/did.json", inner.ServeHTTP)
	_, err := r.verifier.Resolve(t.Context(), p.did)
	var refused *netguard.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("DID document: %v", err)
	}
}

// A sender whose host cannot be reached is told to come again, and not that something broke here.
func TestUnreachableSenderIsAnswered503(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p := newParty(t, "party")
	header := map[string]string{"Authorization": "Bearer " + p.sign(p.token(r.did("acme"), nil))}
	p.server.Close()
	resp, body := send(t, r.walletHost.URL+"/acme/dcp/offers", []byte("{}"), header)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || strings.Contains(string(body), "127.0.0.1") {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
}
