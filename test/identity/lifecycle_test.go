// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
)

func TestCredentialsAreIssuedHeldAndPresented(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{"memberOf":"Test"}`)
	r.obtain("acme", "auditor", attestation, `{"completedAt":"2026-01-31T12:00:00Z"}`)
	if member.ExpiresAt.Sub(*member.IssuedAt) != 90*24*time.Hour {
		t.Errorf("valid from %s to %s, want 90 days", member.IssuedAt, member.ExpiresAt)
	}
	for name, verify := range map[string]func() (identity.Agent, error){
		"by a counterparty": func() (identity.Agent, error) { return r.verify(scopes) },
		"by itself":         func() (identity.Agent, error) { return r.services["acme"].Self(t.Context(), r.local("acme"), scopes) },
	} {
		agent, err := verify()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if agent.ID != r.did("acme") || len(agent.Credentials) != 2 || len(agent.Refused) != 0 {
			t.Errorf("%s: %+v", name, agent)
		}
		for _, c := range agent.Credentials {
			if c.Type == attestation && c.Subject["completedAt"] != "2026-01-31T12:00:00Z" {
				t.Errorf("%s: subject %v", name, c.Subject)
			}
		}
	}
	only, err := r.verify(scopes[:1])
	must(t, err)
	if len(only.Credentials) != 1 || only.Credentials[0].Type != membership {
		t.Errorf("asked for %s, got %+v", membership, only)
	}
	none, err := r.verify(nil)
	must(t, err)
	if none.ID != r.did("acme") || len(none.Credentials) != 0 {
		t.Errorf("asked for nothing, got %+v", none)
	}
}

// A participant that was moved to a wallet keeps the host name of its DID: whoever resolves it is led there and to no other.
func TestAMovedParticipantIsReachedAtItsHostName(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	birthplace := httptest.NewServer(limited(r.wallet.Public()))
	t.Cleanup(birthplace.Close)
	r.atWallet.set(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		http.Error(w, "not here", http.StatusGone)
	})
	did := webDID(birthplace.URL, "moved")
	r.admin(http.MethodPut, r.walletInternal.URL+"/admin/v1/participants/moved", adminapi.WalletParticipant{DID: did, PublicURL: birthplace.URL, TrustedIssuers: r.trust}, nil)
	r.entitleDID("authority", did, grant(membership, `{}`))
	r.request("moved", "authority", membership)
	r.awaitState("moved", "authority", membership, adminapi.CredentialValid)
	doc, err := r.verifier.Resolve(t.Context(), did)
	must(t, err)
	for _, kind := range []string{dcp.CredentialService, dcp.DataService} {
		if at, err := doc.ServiceEndpoint(kind); err != nil || !strings.HasPrefix(at, birthplace.URL+"/moved/") {
			t.Errorf("%s is at %q (%v)", kind, at, err)
		}
	}
}

func TestRequestsAreIdempotent(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	first := r.obtain("acme", "authority", membership, `{}`)
	for range 3 {
		if again := r.request("acme", "authority", membership); again.ID != first.ID {
			t.Fatalf("asked again and got %+v", again)
		}
	}
	var issued []adminapi.Issued
	r.admin("GET", r.issuerInternal.URL+"/admin/v1/issuers/authority/credentials?holder="+strings.ReplaceAll(r.did("acme"), "%", "%25"), nil, &issued)
	if len(issued) != 1 || issued[0].ID != first.ID || issued[0].State != "Issued" {
		t.Errorf("issued %+v", issued)
	}
}

func TestStatusIsSeenByBothSides(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{}`)
	raw := r.raw("acme", member.ID)
	refused := func() string {
		t.Helper()
		_, refusal := r.verifier.Credential(t.Context(), raw, r.did("acme"), r.trust)
		if refusal == nil {
			return ""
		}
		if !strings.Contains(refusal.Reason, r.issuerDID("authority")) {
			t.Errorf("the reason does not say who: %s", refusal.Reason)
		}
		return refusal.Code
	}
	if code := refused(); code != "" {
		t.Fatalf("refused as %s before anything was done", code)
	}
	r.act("authority", member.ID, "suspend")
	if code := refused(); code != "suspended" {
		t.Errorf("suspended, judged as %q", code)
	}
	r.awaitState("acme", "authority", membership, adminapi.CredentialSuspended)
	agent, err := r.verify(scopes)
	if err != nil || len(agent.Credentials) != 0 {
		t.Errorf("a suspended credential was presented: %+v, %v", agent, err)
	}
	r.act("authority", member.ID, "resume")
	if code := refused(); code != "" {
		t.Errorf("resumed, judged as %q", code)
	}
	r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
	if got := r.act("authority", member.ID, "revoke"); got.State != "Revoked" {
		t.Errorf("state after revoke: %s", got.State)
	}
	if code := refused(); code != "revoked" {
		t.Errorf("revoked, judged as %q", code)
	}
	r.awaitState("acme", "authority", membership, adminapi.CredentialRevoked)
	at := r.issuerInternal.URL + "/admin/v1/issuers/authority/credentials/" + member.ID
	for _, action := range []string{"suspend", "resume", "deliver"} {
		if status, body := r.call("POST", at+"/"+action, nil); status != 409 || !strings.Contains(string(body), "final") {
			t.Errorf("%s of what is revoked: %d %s", action, status, body)
		}
	}
	if status, body := r.call("POST", at+"/revoke", nil); status != 200 {
		t.Errorf("revoking again: %d %s", status, body)
	}
}

func TestRejectionsSayWhy(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.request("acme", "authority", membership)
	unknown := r.awaitState("acme", "authority", membership, adminapi.CredentialRejected)
	if !strings.Contains(unknown.Detail, "not a holder") || !strings.Contains(unknown.Detail, r.did("acme")) {
		t.Errorf("an unknown holder is told: %s", unknown.Detail)
	}
	r.entitle("auditor", "acme", grant(attestation, `{"score":7}`))
	r.request("acme", "auditor", attestation)
	missing := r.awaitState("acme", "auditor", attestation, adminapi.CredentialRejected)
	if !strings.Contains(missing.Detail, "completedAt") {
		t.Errorf("a missing claim is told: %s", missing.Detail)
	}
	// What was missing comes, and the request made again succeeds.
	r.obtain("acme", "auditor", attestation, `{"completedAt":"2026-01-31T12:00:00Z"}`)
	r.obtain("acme", "authority", membership, `{}`)
}

func TestExpiryAndRenewal(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	old := r.obtain("acme", "auditor", attestation, `{"completedAt":"2026-01-31T12:00:00Z"}`)
	raw := r.raw("acme", old.ID)
	// With a third of its life left it is renewed.
	r.advance(21 * 24 * time.Hour)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		got := r.awaitState("acme", "auditor", attestation, adminapi.CredentialValid)
		if got.ID != old.ID {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not renewed")
		}
		pause()
	}
	// The issuer refuses to renew again: the owner sees that before it expires, and the verifier after.
	r.entitle("auditor", "acme")
	r.advance(21 * 24 * time.Hour)
	stuck := r.awaitState("acme", "auditor", attestation, adminapi.CredentialRenewalStuck)
	if !strings.Contains(stuck.Detail, "not a holder") {
		t.Errorf("detail: %s", stuck.Detail)
	}
	_, refusal := r.verifier.Credential(t.Context(), raw, r.did("acme"), r.trust)
	if refusal == nil || refusal.Code != "expired" || !strings.Contains(refusal.Reason, old.ExpiresAt.Format(time.RFC3339)) {
		t.Errorf("an expired credential is judged %+v", refusal)
	}
	r.advance(10 * 24 * time.Hour)
	r.awaitState("acme", "auditor", attestation, adminapi.CredentialExpired)
	agent, err := r.verify(scopes)
	if err != nil || len(agent.Credentials) != 0 {
		t.Errorf("an expired credential was presented: %+v, %v", agent, err)
	}
}

func TestWrongIssuerIsNamedOnBothSides(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.entitle("rogue", "acme", grant(membership, `{}`))
	r.request("acme", "rogue", membership)
	r.awaitState("acme", "rogue", membership, adminapi.CredentialWrongIssuer)
	agent, err := r.verify(scopes)
	must(t, err)
	if len(agent.Credentials) != 0 || len(agent.Refused) != 1 || agent.Refused[0].Code != "wrong-issuer" {
		t.Fatalf("agent %+v", agent)
	}
	for _, did := range []string{r.issuerDID("rogue"), r.issuerDID("authority")} {
		if !strings.Contains(agent.Refused[0].Reason, did) {
			t.Errorf("the reason does not name %s: %s", did, agent.Refused[0].Reason)
		}
	}
}

func TestNothingIsDeliveredIsNoticed(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.issuerHost.Close() // nobody there
	r.request("acme", "authority", membership)
	asked := r.awaitState("acme", "authority", membership, adminapi.CredentialRequested)
	if asked.IssuedAt != nil {
		t.Errorf("%+v", asked)
	}
	r.advance(time.Hour)
	never := r.awaitState("acme", "authority", membership, adminapi.CredentialNeverDelivered)
	if !strings.Contains(never.Detail, "not delivered since") {
		t.Errorf("detail: %s", never.Detail)
	}
}

func TestRotatedKeysGoOnVerifying(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{}`)
	var before, after adminapi.WalletParticipantStatus
	r.admin("GET", r.walletInternal.URL+"/admin/v1/participants/acme", nil, &before)
	r.admin("POST", r.walletInternal.URL+"/admin/v1/participants/acme/keys/rotate", nil, &after)
	r.admin("POST", r.issuerInternal.URL+"/admin/v1/issuers/authority/keys/rotate", nil, nil)
	if before.KeyID == after.KeyID {
		t.Fatalf("still %s", after.KeyID)
	}
	agent, err := r.verify(scopes)
	must(t, err)
	if len(agent.Credentials) != 1 || agent.Credentials[0].ID != member.ID {
		t.Errorf("after the rotation: %+v", agent)
	}
}

func TestOffersAreTakenUp(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.entitle("authority", "acme", grant(membership, `{}`))
	r.admin("POST", r.issuerInternal.URL+"/admin/v1/issuers/authority/offers", adminapi.OfferCredentials{Holder: r.did("acme"), Types: []string{membership}}, nil)
	r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
	status, body := r.call("POST", r.issuerInternal.URL+"/admin/v1/issuers/rogue/offers", adminapi.OfferCredentials{Holder: r.did("acme"), Types: []string{membership}})
	if status != 502 || !strings.Contains(string(body), "trusts") {
		t.Errorf("an offer of an issuer that is not trusted: %d %s", status, body)
	}
}

func TestRedeliveryChangesNothing(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{}`)
	for range 2 {
		r.act("authority", member.ID, "deliver")
		r.await("the delivery", func() bool {
			var open int
			must(t, r.db.QueryRow(t.Context(), "SELECT count(*) FROM issuer.requests WHERE NOT delivered").Scan(&open))
			return open == 0
		})
	}
	var n int
	must(t, r.db.QueryRow(t.Context(), "SELECT count(*) FROM wallet.credentials").Scan(&n))
	if n != 1 {
		t.Errorf("%d credentials after three deliveries of one", n)
	}
}

func TestTokensOfAWalletElsewhere(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.obtain("acme", "authority", membership, `{}`)
	remote := r.service(dcp.NewTokenClient(r.walletInternal.URL, func() (string, error) { return "internal", nil }))
	header, err := remote.Token(t.Context(), r.local("acme"), r.did("globex"), scopes)
	must(t, err)
	agent, err := remote.Verify(t.Context(), r.local("globex"), header, scopes)
	if err != nil || len(agent.Credentials) != 1 {
		t.Errorf("%+v, %v", agent, err)
	}
	if _, err := remote.Token(t.Context(), identity.Local{Context: "nobody"}, r.did("globex"), nil); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("an unknown participant: %v", err)
	}
	r.walletInternal.Close()
	if _, err := remote.Token(t.Context(), r.local("acme"), r.did("globex"), scopes); err == nil || errors.Is(err, identity.ErrUnauthenticated) {
		t.Errorf("a wallet that is down: %v", err)
	}
}

func (r *rig) await(what string, done func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			r.t.Fatalf("still waiting for %s", what)
		}
		pause()
	}
}

// raw returns a held credential as it was signed.
func (r *rig) raw(participant, id string) string {
	r.t.Helper()
	var raw string
	must(r.t, r.db.QueryRow(r.t.Context(), "SELECT raw FROM wallet.credentials WHERE ctx = $1 AND id = $2", participant, id).Scan(&raw))
	return raw
}
