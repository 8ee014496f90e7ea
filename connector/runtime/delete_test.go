// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/test/openbao"
)

// realVault is a client of a real server, as root: what roles may do there is tested elsewhere.
func realVault(t *testing.T) (*openbao.Server, *vault.Client) {
	t.Helper()
	s := openbao.Start(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.RootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := vault.New(vault.Config{Address: s.Address, Mount: "secret", Prefix: "connector", Auth: vault.Auth{Method: vault.AuthToken, TokenFile: token}})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// rowsOf counts the rows of a participant context in every table of every schema that has any. The audit trail is another matter: it stays, and no
// later participant of the name reads it.
func (c *connector) rowsOf(ctx string) map[string]int {
	c.t.Helper()
	conn, err := pgx.Connect(c.t.Context(), c.database)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = conn.Close(c.t.Context()) }()
	rows, err := conn.Query(c.t.Context(), "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.columns WHERE column_name = 'ctx' AND table_schema NOT LIKE 'pg_%' AND table_schema <> 'audit'")
	if err != nil {
		c.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]int{}
	for _, table := range tables {
		var n int
		if err := conn.QueryRow(c.t.Context(), "SELECT count(*) FROM "+table+" WHERE ctx = $1", ctx).Scan(&n); err != nil {
			c.t.Fatal(err)
		}
		if n > 0 {
			out[table] = n
		}
	}
	return out
}

func (c *connector) keys(ctx string) (keys []string) {
	c.t.Helper()
	var doc struct {
		VerificationMethod []struct{ PublicKeyJwk json.RawMessage }
	}
	c.call(http.MethodGet, c.public+"/"+ctx+"/did.json", nil, &doc)
	for _, m := range doc.VerificationMethod {
		keys = append(keys, string(m.PublicKeyJwk))
	}
	return keys
}

// transfer negotiates the only offer of the supplier's catalog and starts a transfer.
func (c *connector) transfer(ctx, supplier string) (tr adminapi.Transfer) {
	c.t.Helper()
	var catalog []adminapi.CatalogEntry
	c.until("one offer", func() bool { // a DID document is not fetched again within a second, though its key is new
		return c.status(http.MethodGet, c.api(ctx, "/catalog?counterparty="+url.QueryEscape(supplier)), nil, &catalog) == http.StatusOK && len(catalog) == 1
	})
	var n adminapi.Negotiation
	c.call(http.MethodPost, c.api(ctx, "/negotiations"), adminapi.NegotiationRequest{Counterparty: supplier, OfferID: catalog[0].OfferID}, &n)
	if n = c.follow(ctx, n.ID); n.State != "FINALIZED" {
		c.t.Fatalf("negotiation %+v", n)
	}
	c.call(http.MethodPost, c.api(ctx, "/transfers"), adminapi.TransferRequest{AgreementID: n.AgreementID}, &tr)
	c.until("STARTED", func() bool {
		c.call(http.MethodGet, c.api(ctx, "/transfers/"+tr.ID), nil, &tr)
		return tr.State == "STARTED"
	})
	return tr
}

// TestADeletedParticipantLeavesNothing deletes a participant as the operator does and makes another of the same name: neither database nor Vault
// keep anything of the first, its tokens are dead, and what the second names alike does not reach what was the first's.
func TestADeletedParticipantLeavesNothing(t *testing.T) {
	bao, kv := realVault(t)
	authority := start(t, []runtime.Role{runtime.Issuer})
	supplier := startOn(t, kv, []runtime.Role{runtime.ControlPlane}, []runtime.Role{runtime.Wallet}, []runtime.Role{runtime.DataPlane})
	buyer := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f, member := pilot(authority.did("authority")), map[string]any{"MembershipCredential": map[string]any{"member": true}}
	supplier.join("acme", authority, f, member)
	supplier.join("other", authority, f, member)
	buyer.join("buyer", authority, f, member)
	var shown atomic.Value // the secret that the backend saw last
	shown.Store("")
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown.Store(r.Header.Get("X-Api-Key")) }))
	defer backend.Close()
	offer := func(ctx string) {
		t.Helper()
		supplier.call(http.MethodPut, supplier.api(ctx, "/assets/pcf"), adminapi.Asset{DataAddress: map[string]string{
			"type": "HttpData", "baseUrl": backend.URL, "authKey": "X-Api-Key", "secretName": "backend"}}, nil)
		supplier.call(http.MethodPut, supplier.api(ctx, "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"}, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}, nil)
	}
	for _, ctx := range []string{"acme", "other"} {
		supplier.call(http.MethodPut, supplier.api(ctx, "/secrets/backend"), adminapi.Secret{Value: "key of the first " + ctx}, nil)
		offer(ctx)
	}
	supplier.call(http.MethodPost, supplier.admin(runtime.Wallet, "/participants/acme/keys/rotate"), nil, nil)
	first, others := supplier.keys("acme"), supplier.keys("other")
	old := buyer.transfer("buyer", supplier.did("acme"))
	fetch := func(tr adminapi.Transfer) int {
		return buyer.status(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID+"/data"), nil, nil)
	}
	if status := fetch(old); status != http.StatusOK || shown.Load() != "key of the first acme" {
		t.Fatalf("before the deletion: %d, the backend was shown %q", status, shown.Load())
	}
	if n := supplier.rowsOf("acme"); n["data_plane.flows"] != 1 || n["control_plane.agreements"] != 1 || n["wallet.keys"] != 2 || n["wallet.credentials"] != 1 {
		t.Fatalf("before the deletion the database holds %v", n)
	}

	del := func(r runtime.Role) int {
		return supplier.status(http.MethodDelete, supplier.admin(r, "/participants/acme"), nil, nil)
	}
	supplier.dataPlaneDown.Store(true)
	if status := del(runtime.ControlPlane); status != http.StatusInternalServerError {
		t.Errorf("deleting while the data plane does not answer: %d", status)
	}
	if status := supplier.status(http.MethodGet, supplier.api("acme", "/assets"), nil, nil); status != http.StatusNotFound {
		t.Errorf("half deleted it still takes part: %d", status)
	}
	supplier.dataPlaneDown.Store(false)
	for _, r := range []runtime.Role{runtime.ControlPlane, runtime.Wallet} {
		for range 2 { // the second finds nothing
			if status := del(r); status/100 != 2 && status != http.StatusNotFound {
				t.Errorf("deleting on %s: %d", r, status)
			}
		}
	}
	if n := supplier.rowsOf("acme"); len(n) > 0 {
		t.Errorf("the database still holds %v", n)
	}
	for _, kind := range []string{"keys", "secrets"} {
		if names, err := kv.List(t.Context(), "acme/"+kind); err != nil || len(names) > 0 {
			t.Errorf("the Vault still holds %s %v, %v", kind, names, err)
		}
		if names, err := kv.List(t.Context(), "other/"+kind); err != nil || len(names) != 1 {
			t.Errorf("the other participant has %s %v, %v", kind, names, err)
		}
	}
	if left := bao.Call(t, "LIST", "secret/metadata/connector", nil)["data"].(map[string]any)["keys"].([]any); len(left) != 1 || left[0] != "other/" {
		t.Errorf("the Vault has folders of %v", left)
	}

	supplier.join("acme", authority, f, member)
	for _, key := range supplier.keys("acme") {
		for _, was := range first {
			if key == was {
				t.Error("the second participant has a key of the first")
			}
		}
	}
	for _, what := range []string{"assets", "offers", "negotiations", "agreements", "transfers"} {
		var list []json.RawMessage
		supplier.call(http.MethodGet, supplier.api("acme", "/"+what), nil, &list)
		if len(list) > 0 {
			t.Errorf("the second participant sees %s %s", what, list)
		}
	}
	shown.Store("nothing")
	if status := fetch(old); status/100 == 2 || shown.Load() != "nothing" {
		t.Errorf("a token of the first opens the second: %d, the backend was shown %q", status, shown.Load())
	}
	offer("acme") // names the secret as the first did, and has none of that name
	fresh := buyer.transfer("buyer", supplier.did("acme"))
	if status := fetch(fresh); status/100 == 2 || shown.Load() != "nothing" {
		t.Errorf("the second's asset is fetched with the first's secret: %d, the backend was shown %q", status, shown.Load())
	}
	supplier.call(http.MethodPut, supplier.api("acme", "/secrets/backend"), adminapi.Secret{Value: "key of the second"}, nil)
	if status := fetch(fresh); status != http.StatusOK || shown.Load() != "key of the second" {
		t.Errorf("with its own secret: %d, the backend was shown %q", status, shown.Load())
	}
	if now := supplier.keys("other"); len(now) != 1 || now[0] != others[0] {
		t.Error("the other participant's key has changed")
	}
	if status := fetch(buyer.transfer("buyer", supplier.did("other"))); status != http.StatusOK || shown.Load() != "key of the first other" {
		t.Errorf("the other participant: %d, the backend was shown %q", status, shown.Load())
	}
}
