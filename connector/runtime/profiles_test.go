// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
)

// TestProfiles: a supplier takes part in two dataspace profiles, each with an issuer of its own. Two buyers, each trusted in one of them, are met
// at the address of theirs, found through the supplier's DID document, and nowhere else.
func TestProfiles(t *testing.T) {
	c := start(t, runtime.Roles)
	second := start(t, []runtime.Role{runtime.Issuer})
	for _, authority := range []*connector{c, second} {
		authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
			Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	}
	member := map[string]any{"MembershipCredential": map[string]any{"member": true}}
	profiles := map[string]profile.Profile{}
	for name, authority := range map[string]*connector{"first": c, "second": second} {
		f := pilot(authority.did("authority"))
		f.Name = name
		profiles[name] = f
		c.join("buyer-of-the-"+name, authority, f, member)
	}
	c.join("supplier", second, profiles["second"], member)
	c.join("supplier", c, profiles["first"], member)
	c.call(http.MethodPut, c.admin(runtime.Wallet, "/participants/supplier"), adminapi.WalletParticipant{DID: c.did("supplier"),
		TrustedIssuers: slices.Concat(profiles["first"].TrustedIssuers, profiles["second"].TrustedIssuers)}, nil)
	participant := adminapi.Participant{DID: c.did("supplier"), Profile: "first", FurtherProfiles: []string{"second", "second"}, Active: true}
	var e adminapi.Error
	if status := c.status(http.MethodPut, c.admin(runtime.ControlPlane, "/participants/supplier"), participant, &e); status != http.StatusUnprocessableEntity || !strings.Contains(e.Message, "$.furtherProfiles") {
		t.Errorf("a profile named twice: %d %+v", status, e)
	}
	participant.FurtherProfiles = []string{"second"}
	c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/participants/supplier"), participant, nil)
	c.call(http.MethodGet, c.admin(runtime.ControlPlane, "/participants/supplier"), nil, &participant)
	if len(participant.FurtherProfiles) != 1 {
		t.Errorf("the participant is %+v", participant)
	}

	c.call(http.MethodPut, c.api("supplier", "/assets/pcf"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://backend.example"}}, nil)
	open := json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)
	for id, in := range map[string][]string{"default": nil, "both": {"first", "second"}, "further": {"second"}} {
		var o adminapi.Offer
		c.call(http.MethodPut, c.api("supplier", "/offers/"+id), adminapi.Offer{Assets: []string{"pcf"}, Profiles: in, ContractPolicy: open}, &o)
		if o.State != "Offered" {
			t.Errorf("offer %s is %+v", id, o)
		}
	}
	if status := c.status(http.MethodPut, c.api("supplier", "/offers/x"), adminapi.Offer{Assets: []string{"pcf"}, Profiles: []string{"third"}, ContractPolicy: open}, &e); status != http.StatusUnprocessableEntity || !strings.Contains(e.Message, `$.profiles[0]: "third"`) {
		t.Errorf("an offer in a profile that the supplier has no part in: %d %+v", status, e)
	}

	base := c.public + "/supplier/dsp/"
	for name, address := range map[string]string{"first": base + "2025-1", "second": base + "second/2025-1"} {
		buyer := "buyer-of-the-" + name
		query := "/catalog?counterparty=" + url.QueryEscape(c.did("supplier"))
		var catalog []adminapi.CatalogEntry
		c.call(http.MethodGet, c.api(buyer, query), nil, &catalog)
		if len(catalog) != 2 {
			t.Fatalf("%s sees %+v", buyer, catalog)
		}
		var n adminapi.Negotiation
		c.call(http.MethodPost, c.api(buyer, "/negotiations"), adminapi.NegotiationRequest{Counterparty: c.did("supplier"), OfferID: catalog[0].OfferID}, &n)
		if n = c.follow(buyer, n.ID); n.State != "FINALIZED" || n.Profile != name {
			t.Errorf("%s negotiated %+v", buyer, n)
		}
		var own []adminapi.Agreement
		c.until("the supplier's agreement", func() bool {
			c.call(http.MethodGet, c.api("supplier", "/agreements"), nil, &own)
			return len(own) > 0 && own[0].ID == n.AgreementID
		})
		if own[0].Profile != name {
			t.Errorf("the supplier's agreement is %+v", own[0])
		}
		for _, other := range []string{base + "2025-1", base + "second/2025-1", base + "third/2025-1"} {
			if other == address {
				continue
			}
			if status := c.status(http.MethodGet, c.api(buyer, query+"&address="+url.QueryEscape(other)), nil, &e); status != http.StatusBadGateway || e.Code != "counterparty-refused" {
				t.Errorf("%s is answered %d %+v at %s", buyer, status, e, other)
			}
		}
	}
}
