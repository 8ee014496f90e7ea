// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

// hesitant leaves the first request to a person.
type hesitant struct{ dsp.AtOnce }

func (h hesitant) Negotiation(n *store.Negotiation) dsp.Decision {
	d := h.AtOnce.Negotiation(n)
	if d.Do == state.CommandAgree && len(n.History) == 1 {
		return dsp.Decision{Waiting: "a person"}
	}
	return d
}

// TestCounterOffers: the supplier leaves a request undecided and offers other terms, the buyer answers with its own, and the supplier accepts these. What
// both sides then keep as the agreement is, byte for byte, what went from one to the other.
func TestCounterOffers(t *testing.T) {
	sent := make(chan []byte, 1)
	c := startWith(t, vaulttest.New(), pgtest.NewDatabase(t), func(o *runtime.Options) {
		o.Protocol = func(o *dsp.Options) {
			o.Decider = hesitant{}
			o.HTTP = &http.Client{Timeout: o.HTTP.Timeout, Transport: spy{o.HTTP.Transport, sent}}
		}
	}, runtime.Roles)
	c.call(http.MethodPut, c.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: c.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}, {Type: "AttestationCredential", Validity: "P365D"}}}, nil)
	member := map[string]any{"MembershipCredential": map[string]any{"member": true}}
	attested := map[string]any{"MembershipCredential": member["MembershipCredential"], "AttestationCredential": map[string]any{"completedAt": time.Now().AddDate(0, -3, 0).UTC().Format(time.RFC3339)}}
	f := pilot(c.did("authority"))
	c.join("supplier", c, f, attested)
	c.join("buyer", c, f, member)
	c.call(http.MethodPut, c.api("supplier", "/assets/pcf"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://backend.example"}}, nil)
	c.call(http.MethodPut, c.api("supplier", "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"}, ContractPolicy: json.RawMessage(policy)}, nil)
	var catalog []adminapi.CatalogEntry
	c.call(http.MethodGet, c.api("buyer", "/catalog?counterparty="+url.QueryEscape(c.did("supplier"))), nil, &catalog)

	terms := func(age string) adminapi.CounterOffer {
		return adminapi.CounterOffer{Policy: json.RawMessage(strings.Replace(policy, "P12M", age, 1))}
	}
	at := func(participant, id, state string) (n adminapi.Negotiation) {
		t.Helper()
		c.until(participant+" "+state, func() bool {
			c.call(http.MethodGet, c.api(participant, "/negotiations/"+id), nil, &n)
			return n.State == state && strings.Contains(n.Waiting, "decision") || n.State == "FINALIZED"
		})
		return n
	}
	var n, p adminapi.Negotiation
	c.call(http.MethodPost, c.api("buyer", "/negotiations"), adminapi.NegotiationRequest{Counterparty: c.did("supplier"), OfferID: catalog[0].OfferID}, &n)
	c.until("a request that is held", func() bool {
		var all []adminapi.Negotiation
		c.call(http.MethodGet, c.api("supplier", "/negotiations"), nil, &all)
		if len(all) == 1 {
			p = all[0]
		}
		return p.Waiting == "a person"
	})
	c.call(http.MethodPost, c.api("supplier", "/negotiations/"+p.ID+"/counter"), terms("P24M"), nil)
	at("buyer", n.ID, "OFFERED")
	if status := c.status(http.MethodPost, c.api("supplier", "/negotiations/"+p.ID+"/accept"), adminapi.ReasonRequest{}, nil); status != http.StatusConflict {
		t.Errorf("accepting one's own offer answers %d", status)
	}
	c.call(http.MethodPost, c.api("buyer", "/negotiations/"+n.ID+"/counter"), terms("P36M"), nil)
	if got := at("supplier", p.ID, "REQUESTED"); got.Waiting != "a decision on the consumer's terms" {
		t.Errorf("the supplier waits for %q", got.Waiting)
	}
	var e adminapi.Error
	for name, tc := range map[string]struct {
		path   string
		body   adminapi.CounterOffer
		status int
		says   string
	}{
		"no policy":                       {"/negotiations/" + p.ID, adminapi.CounterOffer{}, http.StatusUnprocessableEntity, "$.policy"},
		"an operand that is not declared": {"/negotiations/" + p.ID, adminapi.CounterOffer{Policy: json.RawMessage(strings.Replace(policy, "attested", "unknown", 1))}, http.StatusUnprocessableEntity, "unknown"},
		"no such negotiation":             {"/negotiations/none", terms("P1M"), http.StatusNotFound, `"none"`},
	} {
		if status := c.status(http.MethodPost, c.api("supplier", tc.path+"/counter"), tc.body, &e); status != tc.status || !strings.Contains(e.Message+e.Path, tc.says) {
			t.Errorf("%s: %d %+v", name, status, e)
		}
	}
	if status := c.status(http.MethodGet, c.api("supplier", "/negotiations/"+p.ID+"/agreement"), nil, &e); status != http.StatusNotFound {
		t.Errorf("an agreement before there is one: %d", status)
	}
	var shown, changed adminapi.Negotiation
	c.call(http.MethodGet, c.api("supplier", "/negotiations/"+p.ID), nil, &shown)
	c.call(http.MethodPost, c.api("supplier", "/negotiations/"+p.ID+"/counter"), terms("P30M"), nil)
	at("buyer", n.ID, "OFFERED")
	c.call(http.MethodGet, c.api("buyer", "/negotiations/"+n.ID), nil, &changed)
	if status := c.status(http.MethodPost, c.api("buyer", "/negotiations/"+n.ID+"/accept"), adminapi.Acceptance{TermsHash: shown.Terms.Hash}, &e); status != http.StatusConflict || !strings.Contains(e.Message, changed.Terms.Hash) {
		t.Errorf("as consumer, terms other than those that were seen: %d %+v", status, e)
	}
	c.call(http.MethodPost, c.api("buyer", "/negotiations/"+n.ID+"/counter"), terms("P36M"), nil)
	at("supplier", p.ID, "REQUESTED")
	if status := c.status(http.MethodPost, c.api("supplier", "/negotiations/"+p.ID+"/accept"), adminapi.Acceptance{TermsHash: changed.Terms.Hash}, &e); status != http.StatusConflict || !strings.Contains(e.Message, shown.Terms.Hash) {
		t.Errorf("as provider, terms other than those that were seen: %d %+v", status, e)
	}
	c.call(http.MethodPost, c.api("supplier", "/negotiations/"+p.ID+"/accept"), adminapi.Acceptance{TermsHash: shown.Terms.Hash}, nil)
	n, p = at("buyer", n.ID, "FINALIZED"), at("supplier", p.ID, "FINALIZED")
	if status := c.status(http.MethodPost, c.api("buyer", "/negotiations/"+n.ID+"/counter"), terms("P1M"), &e); status != http.StatusConflict {
		t.Errorf("other terms after the end: %d %+v", status, e)
	}

	var message struct {
		Agreement json.RawMessage `json:"agreement"`
	}
	if err := json.Unmarshal(<-sent, &message); err != nil {
		t.Fatal(err)
	}
	var tr adminapi.Transfer
	c.call(http.MethodPost, c.api("buyer", "/transfers"), adminapi.TransferRequest{AgreementID: n.AgreementID}, &tr)
	for _, address := range []string{c.api("supplier", "/negotiations/"+p.ID), c.api("buyer", "/negotiations/"+n.ID), c.api("buyer", "/transfers/"+tr.ID)} {
		if got := c.raw(address + "/agreement"); !bytes.Equal(got, message.Agreement) {
			t.Errorf("%s/agreement is\n%s\nand sent was\n%s", address, got, message.Agreement)
		}
	}
	if !bytes.Contains(message.Agreement, []byte("P36M")) {
		t.Errorf("agreed was %s", message.Agreement)
	}
	if status := c.status(http.MethodGet, c.api("buyer", "/transfers/none/agreement"), nil, &e); status != http.StatusNotFound {
		t.Errorf("the agreement of a transfer that there is not: %d", status)
	}
}

// offeredExchange: a supplier offers first, and the buyer, another runtime, accepts, answers with other terms, or ends it.
func offeredExchange(t *testing.T, supplier, buyer *connector) {
	const offer = "/offers/unasked"
	supplier.call(http.MethodPut, supplier.api("supplier", offer), adminapi.Offer{Assets: []string{"pcf"}, UseCase: "unasked", ContractPolicy: json.RawMessage(policy)}, nil)
	terms := func(age string) json.RawMessage { return json.RawMessage(strings.Replace(policy, "P12M", age, 1)) }
	read := func(c *connector, participant, id string) (n adminapi.Negotiation) {
		t.Helper()
		c.call(http.MethodGet, c.api(participant, "/negotiations/"+id), nil, &n)
		return n
	}
	made := func(id string, policy json.RawMessage) (p, n adminapi.Negotiation) {
		t.Helper()
		req := adminapi.OfferRequest{ID: id, Counterparty: buyer.did("buyer"), Policy: policy}
		var again adminapi.Negotiation
		supplier.call(http.MethodPost, supplier.api("supplier", offer+"/negotiations"), req, &p)
		supplier.call(http.MethodPost, supplier.api("supplier", offer+"/negotiations"), req, &again)
		if p.ID != id || again.ID != id || p.Role != "provider" || p.UseCase != "unasked" {
			t.Errorf("%s made %+v and then %+v", id, p, again)
		}
		supplier.until(id+" at the buyer", func() bool {
			p = read(supplier, "supplier", id)
			return p.Step == state.Offered && p.CounterpartyPID != ""
		})
		n = read(buyer, "buyer", p.CounterpartyPID)
		if n.State != state.Offered || n.Role != "consumer" || n.Terms == nil || !n.Decides || len(n.Terms.Sentences) == 0 || p.Decides {
			t.Errorf("the buyer sees %+v, %+v", n, n.Terms)
		}
		return p, n
	}
	both := func(p, n adminapi.Negotiation, state string) (adminapi.Negotiation, adminapi.Negotiation) {
		t.Helper()
		p, n = supplier.follow("supplier", p.ID), buyer.follow("buyer", n.ID)
		if p.State != state || n.State != state {
			t.Errorf("%s and %s, want %s: %+v %+v", p.State, n.State, state, p.Reason, n.Reason)
		}
		return p, n
	}

	p, n := made("accepted", nil)
	buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations/"+n.ID+"/accept"), nil, nil)
	if p, n = both(p, n, state.Finalized); p.AgreementID == "" || p.AgreementID != n.AgreementID {
		t.Errorf("agreements %q and %q", p.AgreementID, n.AgreementID)
	}

	p, n = made("countered", terms("P24M"))
	buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations/"+n.ID+"/counter"), adminapi.CounterOffer{Policy: terms("P36M")}, nil)
	supplier.until("the buyer's terms", func() bool {
		got := read(supplier, "supplier", p.ID)
		return got.State == state.Requested && got.Decides && strings.Contains(string(got.Terms.Policy), "P36M")
	})
	supplier.call(http.MethodPost, supplier.api("supplier", "/negotiations/"+p.ID+"/accept"), nil, nil)
	if _, n = both(p, n, state.Finalized); !bytes.Contains(buyer.raw(buyer.api("buyer", "/negotiations/"+n.ID+"/agreement")), []byte("P36M")) {
		t.Error("what was agreed are not the last terms")
	}

	p, n = made("ended", nil)
	buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations/"+n.ID+"/terminate"), adminapi.ReasonRequest{Reason: "not needed"}, nil)
	if p, _ = both(p, n, state.Terminated); p.Reason == nil || !strings.Contains(p.Reason.Message, "not needed") {
		t.Errorf("the supplier reads %+v", p.Reason)
	}
}

// spy keeps the first agreement message that is sent.
type spy struct {
	http.RoundTripper
	sent chan<- []byte
}

func (s spy) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/agreement") && r.Body != nil {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		if bytes.Contains(raw, []byte(wire.ContractAgreement)) {
			select {
			case s.sent <- raw:
			default:
			}
		}
	}
	return s.RoundTripper.RoundTrip(r)
}

// raw reads the body of an answer.
func (c *connector) raw(address string) []byte {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+internalToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s answers %d %s, %v", address, res.StatusCode, raw, err)
	}
	return raw
}
