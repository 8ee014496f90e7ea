// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/runtime"
)

// trail reads a participant's audit trail, as a person outside the cell or as somebody inside it.
func (c *connector) trail(ctx, query, actor string) (records []audit.Record, export []byte) {
	c.t.Helper()
	export = c.read(c.api(ctx, "/audit"+query), actor)
	for line := range bytes.Lines(export) {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			c.t.Fatal(err)
		}
		if r.Seq > 0 {
			records = append(records, r)
		}
	}
	return records, export
}

// read reads as a person outside the cell, or without a name as somebody inside it.
func (c *connector) read(address, actor string) []byte {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+internalToken)
	if actor != "" {
		req.Header.Set(adminapi.ActorHeader, actor)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %v: %s", res.Status, err, body)
	}
	return body
}

func (c *connector) as(actor, method, address string, body any) int {
	c.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, address, bytes.NewReader(raw))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+internalToken)
	req.Header.Set(adminapi.ActorHeader, actor)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// TestTheAuditTrailOfAnExchange negotiates, transfers and fetches between two connectors whose roles run apart, and reads what both have on record.
func TestTheAuditTrailOfAnExchange(t *testing.T) {
	authority := start(t, []runtime.Role{runtime.Issuer})
	supplier := start(t, []runtime.Role{runtime.ControlPlane}, []runtime.Role{runtime.Wallet}, []runtime.Role{runtime.DataPlane})
	buyer := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f, member := pilot(authority.did("authority")), map[string]any{"MembershipCredential": map[string]any{"member": true}}
	supplier.join("acme", authority, f, member)
	buyer.join("buyer", authority, f, member)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the data") }))
	defer backend.Close()

	const anna = "user:anna"
	for address, body := range map[string]any{"/secrets/backend": adminapi.Secret{Value: "s3cr3t"},
		"/assets/pcf": adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": backend.URL}}} {
		if status := supplier.as(anna, http.MethodPut, supplier.api("acme", address), body); status/100 != 2 {
			t.Fatalf("%s: %d", address, status)
		}
	}
	if status := supplier.as(anna, http.MethodPut, supplier.api("acme", "/offers/pcf"), adminapi.Offer{Assets: []string{"none"}}); status != http.StatusNotFound {
		t.Fatalf("an offer of nothing: %d", status)
	}
	if status := supplier.as(anna, http.MethodPut, supplier.api("acme", "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"},
		ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}); status != http.StatusOK {
		t.Fatalf("%d", status)
	}
	tr := buyer.transfer("buyer", supplier.did("acme"))
	if status := buyer.as("user:bert", http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID+"/data"), nil); status != http.StatusOK {
		t.Fatalf("%d", status)
	}

	// Each has the other's head on record, signed by the other's wallet, which with no other head from elsewhere finds that the end was cut off.
	told := func(c *connector, ctx string) (r *audit.Result) {
		c.until("the counterparty's head, and the end of what is under way", func() bool {
			_, export := c.trail(ctx, "", "")
			var err error
			if r, err = audit.Verify(bytes.NewReader(export), nil); err != nil {
				t.Fatal(err)
			}
			return r.ByType[audit.CounterpartyHead] > 0 && len(r.Open) == 0 // the outcome of an access too
		})
		if len(r.Witnessed) != 1 || r.Witnessed[0].Agreement != tr.AgreementID || strings.Count(r.Witnessed[0].Signed, ".") != 2 {
			t.Fatalf("%s was told %+v", ctx, r.Witnessed)
		}
		return r
	}
	told(supplier, "acme")
	witness := audit.Told(supplier.did("acme"), told(buyer, "buyer").Witnessed)
	provider, export := supplier.trail("acme", "", "")
	if r, err := audit.Verify(bytes.NewReader(export), nil, witness...); err != nil || r.Told != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	shorter, _ := supplier.trail("acme", "?limit=2", "")
	var cut bytes.Buffer
	for _, r := range shorter {
		if err := audit.WriteRecord(&cut, &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := audit.WriteHead(&cut, audit.Head{Chain: shorter[1].Chain, Ctx: "acme", Seq: 2, At: shorter[1].At, Hash: shorter[1].Hash, Open: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(&cut, nil, witness...); err == nil || !strings.Contains(err.Error(), "it is missing") {
		t.Errorf("a trail that was cut short: %v", err)
	}
	if r, err := audit.Verify(bytes.NewReader(export), nil); err != nil || r.Withheld != 0 || len(r.Open) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	has := func(records []audit.Record, typ, actor string, parts ...string) {
		t.Helper()
		if !slices.ContainsFunc(records, func(r audit.Record) bool {
			return r.Type == typ && r.Actor == actor && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(string(r.Body), p) })
		}) {
			t.Errorf("no %s by %s with %q", typ, actor, parts)
		}
	}
	has(provider, audit.ParticipantMade, "client:internal", supplier.did("acme"))
	has(provider, audit.Management, anna, `"do":"PUT /assets/pcf"`, `"sha256":`)
	has(provider, audit.Management, anna, `"do":"PUT /secrets/backend"`)
	has(provider, audit.Management, anna, `"do":"PUT /offers/pcf"`)
	has(provider, audit.NegotiationTransition, buyer.did("buyer"), `"state":"REQUESTED"`)
	has(provider, audit.NegotiationTransition, audit.Self, `"state":"FINALIZED"`)
	has(provider, audit.Agreement, buyer.did("buyer"), tr.AgreementID)
	has(provider, audit.Policy, buyer.did("buyer"), `"allowed":true`)
	has(provider, audit.TransferTransition, audit.Self, `"state":"STARTED"`)
	has(provider, audit.DataIntent, buyer.did("buyer"), `"agreement":"`+tr.AgreementID+`"`)
	n := 0
	for _, r := range provider {
		if strings.Contains(string(r.Body), "s3cr3t") || strings.Contains(string(r.Body), "PUT /secrets") && strings.Contains(string(r.Body), "sha256") {
			t.Errorf("a secret is on record: %s", r.Body)
		}
		if strings.Contains(string(r.Body), "PUT /offers/pcf") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d records of one offer: what was refused changed nothing", n)
	}
	consumer, _ := buyer.trail("buyer", "", "")
	var sent, came struct {
		SHA256 string `json:"sha256"`
		Bytes  int
		Whole  bool
	}
	for _, r := range append(provider, consumer...) {
		into := map[string]any{audit.DataOutcome: &sent, audit.DataFetched: &came}[r.Type]
		if into == nil {
			continue
		}
		if err := json.Unmarshal(r.Body, into); err != nil {
			t.Fatal(err)
		}
	}
	if sent != came || sent.Bytes != len("the data") || !sent.Whole {
		t.Errorf("the provider has %+v on record, the consumer %+v", sent, came)
	}
	has(consumer, audit.DataFetched, "user:bert")

	// Whoever is outside the cell gets no body of a type that stays inside, and verifies all the same.
	outside, export := supplier.trail("acme", "", anna)
	r, err := audit.Verify(bytes.NewReader(export), nil)
	if err != nil || r.Withheld == 0 || len(outside) < len(provider) {
		t.Errorf("%d records, before %d: %+v, %v", len(outside), len(provider), r, err)
	}
	for i, rec := range outside {
		if (rec.Body == nil) != (rec.Type == audit.Policy) || i < len(provider) && rec.Hash != provider[i].Hash {
			t.Errorf("record %d, %s: %s", rec.Seq, rec.Type, rec.Body)
		}
	}
	if last, _ := supplier.trail("acme", "?last=2", ""); len(last) != 2 || last[1].Seq < outside[len(outside)-1].Seq {
		t.Errorf("the last two: %+v", last)
	}
	if next, _ := supplier.trail("acme", "?after=3&limit=2", ""); len(next) != 2 || next[0].Seq != 4 {
		t.Errorf("the next two: %+v", next)
	}
	supplier.until("the head that the trail has", func() bool { // nothing is recorded between the two
		_, export := supplier.trail("acme", "", "")
		r, err := audit.Verify(bytes.NewReader(export), nil)
		if err != nil {
			t.Fatal(err)
		}
		var heads []audit.Head
		supplier.call(http.MethodGet, supplier.admin(runtime.ControlPlane, "/audit/heads"), nil, &heads)
		return len(heads) == 1 && heads[0] == r.Head
	})
}
