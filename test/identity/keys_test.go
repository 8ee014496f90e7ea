// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/netguard"
)

// wish tells the wallet which key acme is to have and returns the id of the one it has.
func (r *rig) wish(key adminapi.Key) string {
	r.t.Helper()
	var out adminapi.WalletParticipantStatus
	r.admin(http.MethodPut, r.walletInternal.URL+"/admin/v1/participants/acme", adminapi.WalletParticipant{DID: r.did("acme"), TrustedIssuers: r.trust, Key: key}, &out)
	return strings.TrimPrefix(out.KeyID, r.did("acme")+"#")
}

// wishIssuer does the same at the authority.
func (r *rig) wishIssuer(key adminapi.Key) string {
	r.t.Helper()
	var out adminapi.IssuerStatus
	r.admin(http.MethodPut, r.issuerInternal.URL+"/admin/v1/issuers/authority", adminapi.IssuerConfig{DID: r.issuerDID("authority"),
		Types: []adminapi.CredentialType{{Type: membership, Validity: "P90D"}}, Key: key}, &out)
	return strings.TrimPrefix(out.KeyID, r.issuerDID("authority")+"#")
}

// published returns the ids of the keys in a DID document, without the DID, and the algorithm of each.
func (r *rig) published(did string) map[string]string {
	r.t.Helper()
	doc, err := r.verifier.Resolve(r.t.Context(), did)
	must(r.t, err)
	out := map[string]string{}
	for _, m := range doc.VerificationMethod {
		kind := "ES256"
		if strings.Contains(string(m.PublicKeyJWK), "Ed25519") {
			kind = "EdDSA"
		}
		out[strings.TrimPrefix(m.ID, did+"#")] = kind
	}
	return out
}

func TestKeysFollowTheWish(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	for n, step := range []struct {
		wish adminapi.Key
		kid  string
		kind string
	}{
		{adminapi.Key{}, "key-1", "ES256"},
		{adminapi.Key{Algorithm: "ES256", Generation: 1}, "key-1", "ES256"},
		{adminapi.Key{Algorithm: "EdDSA"}, "key-2", "EdDSA"},
		{adminapi.Key{}, "key-2", "EdDSA"},
		{adminapi.Key{Generation: 4}, "key-4", "EdDSA"},
		{adminapi.Key{Algorithm: "EdDSA", Generation: 3}, "key-4", "EdDSA"}, // newer than the wish is good enough
		{adminapi.Key{Algorithm: "ES256", Generation: 4}, "key-5", "ES256"},
	} {
		if kid := r.wish(step.wish); kid != step.kid || r.published(r.did("acme"))[kid] != step.kind {
			t.Errorf("step %d, %+v: %s of %v", n, step.wish, kid, r.published(r.did("acme")))
		}
	}
	for _, bad := range []adminapi.Key{{Algorithm: "RS256"}, {Generation: -1}} {
		status, body := r.call(http.MethodPut, r.walletInternal.URL+"/admin/v1/participants/acme", adminapi.WalletParticipant{DID: r.did("acme"), Key: bad})
		if status != http.StatusUnprocessableEntity || !strings.Contains(string(body), "key:") {
			t.Errorf("%+v: %d %s", bad, status, body)
		}
	}
}

// Whatever the kinds of key on each side, credentials are issued, presented and verified; and what an old key signed goes on counting.
func TestKeysOfEitherKind(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	first := r.obtain("acme", "authority", membership, `{}`)
	for _, kinds := range [][2]string{{"EdDSA", "ES256"}, {"EdDSA", "EdDSA"}, {"ES256", "EdDSA"}} {
		r.wish(adminapi.Key{Algorithm: kinds[0]})
		r.wishIssuer(adminapi.Key{Algorithm: kinds[1]})
		agent, err := r.verify(scopes)
		if err != nil || len(agent.Credentials) != 1 || agent.Credentials[0].ID != first.ID {
			t.Errorf("wallet %s, issuer %s, the first credential: %+v, %v", kinds[0], kinds[1], agent, err)
		}
	}
	r.entitle("authority", "globex", grant(membership, `{}`))
	r.request("globex", "authority", membership)
	r.awaitState("globex", "authority", membership, adminapi.CredentialValid)
	self, err := r.services["globex"].Self(t.Context(), r.local("globex"), scopes)
	if err != nil || len(self.Credentials) != 1 {
		t.Errorf("issued with Ed25519: %+v, %v", self, err)
	}
}

// A key that was replaced stays in the document until nothing that it signed is valid, and then goes, the private one too.
func TestReplacedKeysGoInTime(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{}`)
	r.admin(http.MethodPost, r.issuerInternal.URL+"/admin/v1/issuers/authority/keys/rotate", nil, nil)
	r.admin(http.MethodPost, r.walletInternal.URL+"/admin/v1/participants/acme/keys/rotate", nil, nil)
	r.admin(http.MethodPost, r.issuerInternal.URL+"/admin/v1/issuers/auditor/keys/rotate", nil, nil) // it has issued nothing
	gone := func(did, kid string) func() bool { return func() bool { return r.published(did)[kid] == "" } }
	r.advance(2 * 24 * time.Hour)
	r.await("the removal of the wallet's old key, which signed tokens for minutes", gone(r.did("acme"), "key-1"))
	r.await("the removal of the old key of the issuer that issued nothing", gone(r.issuerDID("auditor"), "key-1"))
	if r.published(r.issuerDID("authority"))["key-1"] == "" {
		t.Error("the issuer's old key is gone, and what it signed is valid for 90 days")
	}
	if _, err := r.keys.Read(t.Context(), "acme/keys/key-1"); err == nil {
		t.Error("the wallet's old private key is still in the vault")
	}
	agent, err := r.verify(scopes)
	if err != nil || len(agent.Credentials) != 1 || agent.Credentials[0].ID != member.ID {
		t.Errorf("after the rotation: %+v, %v", agent, err)
	}
	r.advance(89 * 24 * time.Hour)
	r.await("the removal of the issuer's old key once what it signed has expired", gone(r.issuerDID("authority"), "key-1"))
	// No number is used twice.
	if kid := r.wish(adminapi.Key{Algorithm: "EdDSA"}); kid != "key-3" {
		t.Errorf("the next key is %s", kid)
	}
}

// Rotations at the same time follow each other.
func TestRotationsAtOnce(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if status, raw := r.call(http.MethodPost, r.walletInternal.URL+"/admin/v1/participants/acme/keys/rotate", nil); status != http.StatusOK {
				t.Errorf("a rotation answers %d %s", status, raw)
			}
		})
	}
	all.Wait()
	if n := r.count("SELECT count(*) FROM wallet.keys WHERE ctx = 'acme' AND active AND kid = 'key-6'"); n != 1 || len(r.published(r.did("acme"))) != 6 {
		t.Errorf("%v", r.published(r.did("acme")))
	}
}

// Documents are fetched by HTTPS unless the configuration says otherwise, from the host, port and path that the DID names.
func TestDIDsByHTTPS(t *testing.T) {
	p := newParty(t, "party")
	secure := httptest.NewTLSServer(p.server.Config.Handler)
	defer secure.Close()
	p.did = webDID(secure.URL, "deep:path")
	p.key.ID = p.did + "#key"
	p.document("/deep/path/did.json")
	resolve := func(trusted bool) error {
		client := dcp.NewHTTPClient(dcp.HTTPConfig{Networks: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, AllowPlainHTTP: true})
		if trusted {
			client = secure.Client()
		}
		v, err := dcp.NewVerifier(dcp.VerifierConfig{HTTP: client})
		must(t, err)
		_, err = v.IDToken(t.Context(), "Bearer "+p.sign(p.token("did:web:me", nil)), "did:web:me", dcp.NewMemoryReplay(1))
		return err
	}
	must(t, resolve(true))
	if err := resolve(false); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	p.did = webDID(p.server.URL, "deep:path") // the same without TLS
	p.key.ID = p.did + "#key"
	if err := resolve(true); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("plain HTTP without the setting: %v", err)
	}
}
