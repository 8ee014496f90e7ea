// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

const registry = "did:web:registry.example" // the issuer that the second profile trusts

// twoProfiles is a world whose provider takes part in "pilot", which trusts the authority, and in "second", which trusts the registry. The
// consumer, whose credentials the registry issued, takes part in "second" only. Offers: "one" in the default profile, "two" in both, "three" in
// the second.
func twoProfiles(t *testing.T) (who *people, provider, consumer *side, offers map[string]string) {
	who, provider, consumer = world(t)
	who.Lock()
	who.trust = map[string]string{"pilot": "did:web:authority.example", "second": registry}
	who.credentials[buyer][0].Issuer = registry
	own := who.credentials[supplier][0]
	own.Issuer = registry
	who.credentials[supplier] = append(who.credentials[supplier], own)
	for _, s := range []*side{provider, consumer} {
		who.endpoints[s.did] = s.server.URL + "/" + s.ctx + "/.well-known/dspace-version"
	}
	who.Unlock()
	second := profile.Profile{Name: "second", Protocol: wire.Protocol, RequiredCredentials: []string{"MembershipCredential"},
		TrustedIssuers: []profile.TrustedIssuer{{DID: registry, Types: []string{"MembershipCredential"}}}}
	for s, p := range map[*side]adminapi.Participant{
		provider: {DID: supplier, Profile: "pilot", FurtherProfiles: []string{"second"}, Active: true},
		consumer: {DID: buyer, Profile: "second", Active: true},
	} {
		if err := errors.Join(s.store.PutProfile(t.Context(), second), s.store.PutParticipant(t.Context(), s.ctx, p)); err != nil {
			t.Fatal(err)
		}
	}
	offers = map[string]string{}
	for id, profiles := range map[string][]string{"one": nil, "two": {"pilot", "second"}, "three": {"second"}} {
		offers[id] = provider.offer(id, openPolicy)
		d, err := provider.store.Definition(t.Context(), provider.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		d.Profiles = profiles
		if err := provider.store.PutDefinition(t.Context(), *d); err != nil {
			t.Fatal(err)
		}
	}
	return who, provider, consumer, offers
}

// request sends a message of did to the participant's address in one of its profiles.
func (s *side) request(profile, method, path, did, body string) (int, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base(profile)+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", s.as(did))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		s.t.Fatalf("%s: %v", raw, err)
	}
	return res.StatusCode, out
}

// TestProfiles: each profile of a participant has an address, a catalog and trust anchors of its own.
func TestProfiles(t *testing.T) {
	who, provider, consumer, offers := twoProfiles(t)

	datasets, address, err := consumer.engine.FetchCatalog(t.Context(), consumer.ctx, "", supplier, "")
	if err != nil || address != provider.server.URL+"/supplier/dsp/second/2025-1" {
		t.Fatalf("the catalog is at %s, %v", address, err)
	}
	var seen []string
	for _, d := range datasets {
		seen = append(seen, d.ID)
	}
	if slices.Sort(seen); !slices.Equal(seen, []string{"asset-three", "asset-two"}) {
		t.Errorf("the second profile shows %v", seen)
	}
	var refusal *dsp.RefusalError
	if _, _, err := consumer.engine.FetchCatalog(t.Context(), consumer.ctx, "", supplier, provider.base("")); !errors.As(err, &refusal) || !strings.Contains(refusal.Message, "403") {
		t.Errorf("the catalog of a profile that does not trust the consumer's issuer: %v", err)
	}

	n, err := consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offers["two"]})
	if err != nil {
		t.Fatal(err)
	}
	n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	p := provider.peer(n)
	if n.Profile != "second" || p.Profile != "second" || p.Address != consumer.base("") {
		t.Errorf("negotiated in %q and %q, called back at %s", n.Profile, p.Profile, p.Address)
	}

	// From now on the first profile trusts the consumer too, so that only the address is wrong.
	who.Lock()
	who.trust["pilot"] = registry
	who.Unlock()
	trusting := testProfile
	trusting.TrustedIssuers = append(slices.Clone(trusting.TrustedIssuers), profile.TrustedIssuer{DID: registry, Types: []string{"MembershipCredential"}})
	if err := provider.store.PutProfile(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	termination := `{` + head + `,"@type":"ContractNegotiationTerminationMessage","@id":"t","providerPid":"` + p.ID + `","consumerPid":"` + n.ID + `"}`
	for path, body := range map[string]string{"/negotiations/" + p.ID: "", "/negotiations/" + p.ID + "/termination": termination} {
		method := map[bool]string{true: http.MethodGet, false: http.MethodPost}[body == ""]
		if status, answer := provider.request("", method, path, buyer, body); status != http.StatusNotFound {
			t.Errorf("%s at the other address answers %d %v", path, status, answer)
		}
	}
	if status, answer := provider.request("second", http.MethodGet, "/negotiations/"+p.ID, buyer, ""); status != http.StatusOK || answer["state"] != state.Finalized {
		t.Errorf("the negotiation at its own address answers %d %v", status, answer)
	}
	again := `{` + head + `,"@type":"ContractRequestMessage","@id":"r","consumerPid":"` + n.ID + `","offer":` + string(n.Offer) + `,"callbackAddress":"` + consumer.base("") + `"}`
	if status, answer := provider.request("", http.MethodPost, "/negotiations/request", buyer, again); status != http.StatusBadRequest {
		t.Errorf("the first message again, at the other address, answers %d %v", status, answer)
	}
	three := strings.NewReplacer(n.ID, "new", offers["two"], offers["three"], "asset-two", "asset-three").Replace(again)
	if status, answer := provider.request("", http.MethodPost, "/negotiations/request", buyer, three); status != http.StatusNotFound {
		t.Errorf("an offer of the other profile answers %d %v", status, answer)
	}

	refused, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, provider.base(""))
	if err != nil {
		t.Fatal(err)
	}
	refused = consumer.waitTransfer(refused.ID, "TERMINATED", transferAt(state.Terminated))
	if refused.Reason == nil || !strings.Contains(refused.Reason.Message, "no agreement") {
		t.Errorf("the agreement at the other address: %+v", refused.Reason)
	}
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
	if err != nil {
		t.Fatal(err)
	}
	if tr = consumer.waitTransfer(tr.ID, "STARTED", transferAt(state.Started)); tr.Profile != "second" || tr.Address != provider.base("second") {
		t.Errorf("the transfer takes place in %q at %s", tr.Profile, tr.Address)
	}
	if _, err := provider.store.FindTransfer(t.Context(), provider.ctx, state.Provider, buyer, refused.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the refused request made a transfer: %v", err)
	}
}

// TestProfilesOfAProvider: what the provider starts goes to the counterparty's address for the profile that was chosen.
func TestProfilesOfAProvider(t *testing.T) {
	_, provider, consumer, _ := twoProfiles(t)
	if _, err := provider.engine.OfferTo(t.Context(), provider.ctx, "three", adminapi.OfferRequest{Counterparty: buyer, Profile: "third"}); err == nil || !strings.Contains(err.Error(), `"third"`) {
		t.Errorf("a profile that the provider has no part in: %v", err)
	}
	if _, err := provider.engine.OfferTo(t.Context(), provider.ctx, "three", adminapi.OfferRequest{Counterparty: buyer, Profile: "pilot"}); err == nil || !strings.Contains(err.Error(), `"pilot"`) {
		t.Errorf("a profile in which it is not offered: %v", err)
	}
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "three", adminapi.OfferRequest{Counterparty: buyer})
	if err != nil {
		t.Fatal(err)
	}
	p = provider.wait(p.ID, "OFFERED", at(state.Offered))
	n := consumer.peer(p)
	if p.Profile != "second" || n.Profile != "second" || n.Address != provider.base("second") {
		t.Errorf("offered in %q and %q, called back at %s", p.Profile, n.Profile, n.Address)
	}
	// The consumer's default profile has the provider's name for it, so the provider finds it; its own default one the consumer does not have.
	if _, _, err := provider.engine.FetchCatalog(t.Context(), provider.ctx, "second", buyer, ""); err != nil {
		t.Error(err)
	}
	who := profile.Profile{Name: "lonely", Protocol: wire.Protocol}
	if err := errors.Join(provider.store.PutProfile(t.Context(), who), provider.store.PutParticipant(t.Context(), provider.ctx,
		adminapi.Participant{DID: supplier, Profile: "pilot", FurtherProfiles: []string{"second", "lonely"}, Active: true})); err != nil {
		t.Fatal(err)
	}
	if _, _, err := provider.engine.FetchCatalog(t.Context(), provider.ctx, "lonely", buyer, ""); err == nil || !strings.Contains(err.Error(), `no address for dataspace profile "lonely"`) {
		t.Errorf("a profile that the counterparty does not list: %v", err)
	}
}

// TestLeavingAProfile: what belongs to it stays, cannot be used, and goes on when the participant is back.
func TestLeavingAProfile(t *testing.T) {
	_, provider, consumer, offers := twoProfiles(t)
	n, err := consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offers["three"]})
	if err != nil {
		t.Fatal(err)
	}
	n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	base := provider.base("second")
	put := func(further ...string) {
		t.Helper()
		if err := provider.store.PutParticipant(t.Context(), provider.ctx, adminapi.Participant{DID: supplier, Profile: "pilot", FurtherProfiles: further, Active: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := provider.store.PutParticipant(t.Context(), provider.ctx, adminapi.Participant{DID: supplier, Profile: "pilot", FurtherProfiles: []string{"none"}, Active: true}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a profile that there is not: %v", err)
	}
	if err := provider.store.DeleteProfile(t.Context(), "second"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("removing a profile that is in use: %v", err)
	}
	request := `{` + head + `,"@type":"TransferRequestMessage","@id":"r","consumerPid":"t-1","agreementId":"` + n.AgreementID + `","format":"` + dps.FormatHTTPPull +
		`","callbackAddress":"` + consumer.base("") + `"}`
	post := func() int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/transfers/request", strings.NewReader(request))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", provider.as(buyer))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	put()
	if status := post(); status != http.StatusNotFound {
		t.Errorf("the address of a profile that the participant left answers %d", status)
	}
	put("second")
	if status := post(); status != http.StatusCreated {
		t.Errorf("back in the profile, a transfer request answers %d", status)
	}
}
