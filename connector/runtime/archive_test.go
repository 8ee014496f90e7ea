// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/archive"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/gate/gatetest"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

// TestARestoredConnectorGoesOn: a connector is lost, and one with another database and another Vault takes over from its archive: with the same keys,
// a negotiation that had begun, a transfer that was running, and the audit trail, all of which the counterparty takes for the same participant's.
func TestARestoredConnectorGoesOn(t *testing.T) {
	roles := [][]runtime.Role{{runtime.ControlPlane}, {runtime.Wallet}, {runtime.DataPlane}}
	_, kv := realVault(t)
	dsn := pgtest.NewDatabase(t)
	authority := start(t, []runtime.Role{runtime.Issuer})
	lost := startIn(t, kv, dsn, roles...)
	buyer := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f, member := pilot(authority.did("authority")), map[string]any{"MembershipCredential": map[string]any{"member": true}}
	lost.join("acme", authority, f, member)
	buyer.join("buyer", authority, f, member)
	var shown atomic.Value // the secret that the backend saw last
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown.Store(r.Header.Get("X-Api-Key")) }))
	defer backend.Close()
	lost.call(http.MethodPut, lost.api("acme", "/secrets/backend"), adminapi.Secret{Value: "hush"}, nil)
	for _, asset := range []string{"pcf", "gated"} {
		lost.call(http.MethodPut, lost.api("acme", "/assets/"+asset), adminapi.Asset{DataAddress: map[string]string{
			"type": "HttpData", "baseUrl": backend.URL, "authKey": "X-Api-Key", "secretName": "backend"}}, nil)
	}
	open := json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)
	lost.call(http.MethodPut, lost.api("acme", "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"}, ContractPolicy: open}, nil)
	running := buyer.transfer("buyer", lost.did("acme"))
	key, encoded := gatetest.NewKey(t)
	anna := adminapi.Approver{ID: "anna", Name: "Anna Ahrens", Organization: "acme", Keys: []json.RawMessage{encoded}}
	lost.call(http.MethodPut, lost.api("acme", "/offers/gated"), adminapi.Offer{Assets: []string{"gated"}, ContractPolicy: open,
		Gates: []adminapi.Gate{{Name: "release", Type: adminapi.GateApproval, Before: "AGREED", Deadline: "P1D", Required: 1, Approvers: []adminapi.Approver{anna}}}}, nil)
	var catalog []adminapi.CatalogEntry
	buyer.call(http.MethodGet, buyer.api("buyer", "/catalog?counterparty="+url.QueryEscape(lost.did("acme"))), nil, &catalog)
	var begun adminapi.Negotiation
	for _, e := range catalog {
		if e.AssetID == "gated" {
			buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations"), adminapi.NegotiationRequest{Counterparty: lost.did("acme"), OfferID: e.OfferID}, &begun)
		}
	}
	var waiting []adminapi.Approval
	lost.until("an approval that is waited for", func() bool {
		lost.call(http.MethodGet, lost.api("acme", "/approvals"), nil, &waiting)
		return len(waiting) == 1
	})
	keys := lost.keys("acme")

	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	owner := func(dsn string) *pgx.ConnConfig {
		cc, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		return cc
	}
	var backup bytes.Buffer
	if _, _, err := archive.Export(t.Context(), owner(dsn), kv, &backup, []age.Recipient{identity.Recipient()}); err != nil {
		t.Fatal(err)
	}
	var heads []audit.Head
	lost.call(http.MethodGet, lost.admin(runtime.ControlPlane, "/audit/heads"), nil, &heads)
	lost.end()

	_, kv = realVault(t)
	dsn = pgtest.NewDatabase(t)
	if err := store.Migrate(t.Context(), owner(dsn), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := archive.Import(t.Context(), owner(dsn), kv, &backup, identity); err != nil {
		t.Fatal(err)
	}
	restored := startWith(t, kv, dsn, func(o *runtime.Options) { o.Config.PublicURL = lost.public }, roles...)
	restored.public = lost.public
	lost.successor.Store(restored)

	restored.join("acme", authority, f, member) // as the operator does when it looks
	if now := restored.keys("acme"); !slices.Equal(now, keys) || len(now) != 1 {
		t.Errorf("keys %v, were %v", now, keys)
	}
	if status := buyer.status(http.MethodGet, buyer.api("buyer", "/transfers/"+running.ID+"/data"), nil, nil); status != http.StatusOK || shown.Load() != "hush" {
		t.Errorf("the transfer that was running: %d, the backend was shown %v", status, shown.Load())
	}
	a, now := waiting[0], time.Now()
	signed, err := gate.Sign(key, adminapi.DecisionClaims{Approver: "anna", Provider: a.Provider, Negotiation: a.Negotiation, Offer: a.OfferHash, Gate: "release", Verdict: adminapi.Approve,
		IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix(), ID: rand.Text()})
	if err != nil {
		t.Fatal(err)
	}
	restored.call(http.MethodPost, restored.api("acme", "/negotiations/"+a.Negotiation+"/decisions"), adminapi.SignedDecision{Decision: signed}, nil)
	if n := buyer.follow("buyer", begun.ID); n.State != "FINALIZED" {
		t.Errorf("the negotiation that had begun: %+v", n)
	}
	if p := restored.follow("acme", a.Negotiation); p.State != "FINALIZED" {
		t.Errorf("on the supplier's side: %+v", p)
	}
	restored.call(http.MethodDelete, restored.api("acme", "/offers/gated"), nil, nil)
	buyer.transfer("buyer", lost.did("acme"))

	_, trail := restored.trail("acme", "", "")
	r, err := audit.Verify(bytes.NewReader(trail), heads)
	if err != nil || r.Compared != 1 || r.ByType[audit.ParticipantRestored] != 1 || r.ByType[audit.Agreement] != 3 || r.ByType[audit.ParticipantMade] != 1 {
		t.Errorf("the audit trail: %+v, %v", r, err)
	}
}

// TestAParticipantMovesThereAndBack between connectors that go on running, with others under way to it: it keeps its DID, its keys, its transfers and its
// audit trail, and what was begun ends where it is then.
func TestAParticipantMovesThereAndBack(t *testing.T) {
	patient := func(o *runtime.Options) { o.Config.Protocol.RetryFor = config.Duration(10 * time.Minute) } // a move under load takes a while
	all := []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane}
	type place struct {
		*connector
		kv  vault.KV
		dsn string
	}
	run := func() place {
		kv, dsn := vaulttest.New(), pgtest.NewDatabase(t)
		return place{startWith(t, kv, dsn, patient, all), kv, dsn}
	}
	authority := start(t, []runtime.Role{runtime.Issuer})
	home, away := run(), run()
	buyer := startWith(t, vaulttest.New(), pgtest.NewDatabase(t), patient, all)
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f, member := pilot(authority.did("authority")), map[string]any{"MembershipCredential": map[string]any{"member": true}}
	home.join("acme", authority, f, member)
	home.join("stays", authority, f, member)
	buyer.join("buyer", authority, f, member)
	did, birthplace := home.did("acme"), home.public
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != "hush" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer backend.Close()
	home.call(http.MethodPut, home.api("acme", "/secrets/backend"), adminapi.Secret{Value: "hush"}, nil)
	home.call(http.MethodPut, home.api("acme", "/assets/pcf"), adminapi.Asset{DataAddress: map[string]string{
		"type": "HttpData", "baseUrl": backend.URL, "authKey": "X-Api-Key", "secretName": "backend"}}, nil)
	home.call(http.MethodPut, home.api("acme", "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"}, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}, nil)
	running := buyer.transfer("buyer", did)
	keys := home.keys("acme")
	data := func() int {
		return buyer.status(http.MethodGet, buyer.api("buyer", "/transfers/"+running.ID+"/data"), nil, nil)
	}
	var catalog []adminapi.CatalogEntry
	buyer.call(http.MethodGet, buyer.api("buyer", "/catalog?counterparty="+url.QueryEscape(did)), nil, &catalog)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	owner := func(dsn string) *pgx.ConnConfig {
		cc, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		return cc
	}
	told := func(p place) (heads []audit.Head) {
		p.call(http.MethodGet, p.admin(runtime.ControlPlane, "/audit/heads"), nil, &heads)
		return slices.DeleteFunc(heads, func(h audit.Head) bool { return h.Ctx != "acme" })
	}
	move := func(from, to place, route *connector) {
		t.Helper()
		var begun [3]adminapi.Negotiation // in whatever state the move finds them
		for i := range begun {
			buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations"), adminapi.NegotiationRequest{Counterparty: did, OfferID: catalog[0].OfferID}, &begun[i])
		}
		if err := archive.Hold(t.Context(), owner(from.dsn), "acme"); err != nil {
			t.Fatal(err)
		}
		if status := data(); status == http.StatusOK {
			t.Error("data is served, of which nothing is recorded any more")
		}
		for address, body := range map[string]any{
			from.admin(runtime.Wallet, "/participants/acme"): adminapi.WalletParticipant{DID: did, PublicURL: birthplace, TrustedIssuers: f.TrustedIssuers, Key: adminapi.Key{Generation: 9}},
			from.api("acme", "/secrets/backend"):             adminapi.Secret{Value: "late"},
		} {
			if status := from.status(http.MethodPut, address, body, nil); status != http.StatusServiceUnavailable {
				t.Errorf("PUT %s while it moves: %d", address, status)
			}
		}
		if heads := told(from); len(heads) > 0 {
			t.Errorf("it tells %+v of a trail that goes on elsewhere", heads)
		}
		var moved bytes.Buffer
		if _, _, err := archive.Export(t.Context(), owner(from.dsn), from.kv, &moved, []age.Recipient{identity.Recipient()}, "acme"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := archive.Import(t.Context(), owner(to.dsn), to.kv, &moved, identity); err != nil {
			t.Fatal(err)
		}
		to.call(http.MethodPut, to.admin(runtime.ControlPlane, "/profiles/"+f.Name), f, nil)
		to.call(http.MethodPut, to.admin(runtime.ControlPlane, "/participants/acme"), adminapi.Participant{DID: did, Profile: f.Name, Active: true}, nil)
		to.call(http.MethodPut, to.admin(runtime.Wallet, "/participants/acme"), adminapi.WalletParticipant{DID: did, PublicURL: birthplace, TrustedIssuers: f.TrustedIssuers}, nil)
		home.successor.Store(route)
		for _, role := range []runtime.Role{runtime.ControlPlane, runtime.Wallet} {
			from.call(http.MethodDelete, from.admin(role, "/participants/acme"), nil, nil)
		}
		for i := range begun {
			if n := buyer.follow("buyer", begun[i].ID); n.State != "FINALIZED" {
				t.Errorf("a negotiation that was under way: %+v", n)
			}
		}
		if status := data(); status != http.StatusOK {
			t.Errorf("the transfer that was running: %d", status)
		}
		if now := to.keys("acme"); !slices.Equal(now, keys) || len(now) != 1 {
			t.Errorf("keys %v, were %v", now, keys)
		}
	}
	first := told(home)
	move(home, away, away.connector)
	second := told(away)
	buyer.transfer("buyer", did)
	move(away, home, nil)
	buyer.transfer("buyer", did)
	_, trail := home.trail("acme", "", "")
	r, err := audit.Verify(bytes.NewReader(trail), append(first, second...))
	if err != nil || r.Compared != 2 || r.ByType[audit.ParticipantRestored] != 2 || r.ByType[audit.Agreement] != 9 || r.ByType[audit.ParticipantMade] != 1 || r.ByType[audit.ParticipantDeleted] != 0 {
		t.Errorf("the audit trail: %+v, %v", r, err)
	}
	if s := home.status(http.MethodGet, home.public+"/stays/did.json", nil, nil); s != http.StatusOK {
		t.Errorf("one that stays: %d", s)
	}
}
