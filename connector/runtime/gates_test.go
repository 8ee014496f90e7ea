// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/gate/gatetest"
	"github.com/kaphera/kaphera/connector/odrl"
)

// gatedExchange: a supplier's offer that a person must approve; the approval is read, signed and handed in over the plain JSON API, and the
// consumer's credentials are verified again before the agreement.
func gatedExchange(t *testing.T, supplier, buyer *connector) {
	key, encoded := gatetest.NewKey(t)
	anna := adminapi.Approver{ID: "anna", Name: "Anna Ahrens", Organization: "supplier", Keys: []json.RawMessage{encoded}}
	approval := adminapi.Gate{Name: "release", Type: adminapi.GateApproval, Before: "AGREED", Deadline: "P1D", Required: 1, Approvers: []adminapi.Approver{anna}}
	offer := func(change func(*adminapi.Gate)) adminapi.Offer {
		g := approval
		if change != nil {
			change(&g)
		}
		return adminapi.Offer{Assets: []string{"pcf"}, UseCase: "reviewed", ContractPolicy: json.RawMessage(policy), Gates: []adminapi.Gate{g}}
	}
	for name, c := range map[string]struct {
		change func(*adminapi.Gate)
		path   string
	}{
		"a gate that this runtime cannot hold": {func(g *adminapi.Gate) { g.Type = "oracle" }, "$.gates[0].type"},
		"a gate that nobody passes":            {func(g *adminapi.Gate) { g.Required = 2 }, "$.gates[0].required"},
		"an attestation that is not in the vocabulary": {func(g *adminapi.Gate) {
			g.Type, g.Approvers, g.Required = adminapi.GateAttestation, nil, 0
			g.Policy = json.RawMessage(strings.ReplaceAll(policy, "policy/attested", "policy/unknown"))
		}, "$.gates[0].policy"},
	} {
		var e adminapi.Error
		if status := supplier.status(http.MethodPut, supplier.api("supplier", "/offers/reviewed"), offer(c.change), &e); status != http.StatusUnprocessableEntity || !strings.HasPrefix(e.Path, c.path) {
			t.Errorf("%s: %d %+v", name, status, e)
		}
	}
	supplier.call(http.MethodPut, supplier.api("supplier", "/offers/reviewed"), offer(nil), nil)
	var shown adminapi.Offer
	supplier.call(http.MethodGet, supplier.api("supplier", "/offers/reviewed"), nil, &shown)
	if len(shown.Gates) != 1 || len(shown.Gates[0].Approvers) != 1 || len(shown.Gates[0].Approvers[0].Keys) != 1 {
		t.Errorf("the offer shows %+v", shown.Gates)
	}
	parsed, err := odrl.Parse(json.RawMessage(policy))
	if err != nil {
		t.Fatal(err)
	}
	var catalog []adminapi.CatalogEntry
	buyer.call(http.MethodGet, buyer.api("buyer", "/catalog?counterparty="+url.QueryEscape(supplier.did("supplier"))), nil, &catalog)
	var n adminapi.Negotiation
	for _, e := range catalog {
		if definition, _, err := wire.SplitOfferID(e.OfferID); err == nil && definition == "reviewed" {
			buyer.call(http.MethodPost, buyer.api("buyer", "/negotiations"), adminapi.NegotiationRequest{Counterparty: supplier.did("supplier"), OfferID: e.OfferID}, &n)
		}
	}
	var approvals []adminapi.Approval
	supplier.until("an approval that is waited for", func() bool {
		supplier.call(http.MethodGet, supplier.api("supplier", "/approvals"), nil, &approvals)
		return len(approvals) == 1
	})
	a := approvals[0]
	if want := (gate.Terms{OfferID: a.OfferID, AssetID: "pcf", Consumer: buyer.did("buyer"), Policy: parsed}).Hash(); a.OfferHash != want || a.Provider != supplier.did("supplier") ||
		len(a.Gate.WaitsFor) != 1 || a.Gate.WaitsFor[0].Name != "Anna Ahrens" || len(a.Verdicts) == 0 {
		t.Errorf("the approval shows %+v, want hash %s", a, want)
	}
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "completedAt") || strings.Contains(string(raw), "Credential") {
		t.Errorf("the approval shows more than it should: %s", raw)
	}
	now := time.Now()
	claims := adminapi.DecisionClaims{Approver: "anna", Provider: a.Provider, Negotiation: a.Negotiation, Offer: a.OfferHash, Gate: "release", Verdict: adminapi.Approve,
		IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix(), ID: rand.Text()}
	decide := func(change func(*adminapi.DecisionClaims), out any) int {
		c := claims
		if change != nil {
			change(&c)
		}
		signed, err := gate.Sign(key, c)
		if err != nil {
			t.Fatal(err)
		}
		return supplier.status(http.MethodPost, supplier.api("supplier", "/negotiations/"+a.Negotiation+"/decisions"), adminapi.SignedDecision{Decision: signed}, out)
	}
	var e adminapi.Error
	if status := decide(func(c *adminapi.DecisionClaims) { c.Offer = "another" }, &e); status != http.StatusConflict || e.Code != gate.CodeOtherOffer {
		t.Errorf("about another offer: %d %+v", status, e)
	}
	var held adminapi.Negotiation
	if status := decide(nil, &held); status != http.StatusOK || len(held.Gates) != 1 || held.Gates[0].State != adminapi.GatePassed || held.Gates[0].Decided[0].By.Keys != nil {
		t.Errorf("decided: %d %+v", status, held)
	}
	if n = buyer.follow("buyer", n.ID); n.State != "FINALIZED" {
		t.Errorf("negotiation %+v", n)
	}
	if p := supplier.follow("supplier", a.Negotiation); p.State != "FINALIZED" {
		t.Errorf("the supplier's negotiation %+v", p)
	}
}
