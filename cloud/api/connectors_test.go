// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	"github.com/kaphera/kaphera/cloud/status"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/connector/adminapi"
)

var denial = adminapi.Trace{
	Phase: "negotiation", By: "did:web:shared.example:brandt", Policy: "ab12", At: time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC),
	Checks: []adminapi.Check{{
		Path: "$.permission[0].constraint[0]", LeftOperand: "AttestationAge", Operator: "lt", RightOperand: json.RawMessage(`"P12M"`), Subject: "provider",
		Party: "did:web:shared.example:brandt", Value: "2025-09-01T00:00:00Z", Sentence: "The attestation is younger than 12 months.", Reason: "it is 13 months old", Remedy: "Have it attested again.",
	}},
}

func TestAnOfferIsMadeOfTheUseCasesPolicies(t *testing.T) {
	b := setup(t)
	b.pilot()
	var sent adminapi.Offer
	b.connector.On("PUT brandt/offers/pcf--carbon-footprint", func(r *http.Request) (int, any) {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		answered := sent
		answered.State = "Offered"
		return http.StatusOK, answered
	})
	got := decodeTo[adminapi.Offer](t, b.want(http.StatusCreated, b.call(brandt, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"carbon-footprint"}`)))
	if got.State != "Offered" || got.ID != "pcf--carbon-footprint" {
		t.Errorf("answered %+v", got)
	}
	var want, policy any
	if json.Unmarshal([]byte(contractPolicy), &want) != nil || json.Unmarshal(sent.ContractPolicy, &policy) != nil || !cmp.Equal(want, policy) {
		t.Errorf("sent policy %s", sent.ContractPolicy)
	}
	if a := b.call(brandt, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"other"}`); a.status != http.StatusNotFound || !strings.Contains(a.problem.Detail, `use case "other"`) {
		t.Errorf("an unknown use case: %d %s", a.status, a.body)
	}
}

func TestAPolicysRefusalArrivesWithItsTrace(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.connector.Answer("PUT brandt/offers/pcf--carbon-footprint", http.StatusForbidden, adminapi.Error{Code: "policy-denied", Message: "the attestation is 13 months old", Trace: &denial})
	a := b.want(http.StatusForbidden, b.call(operator, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"carbon-footprint"}`))
	if a.problem.Code != CodePolicyDenied || a.problem.Trace == nil || !strings.Contains(a.problem.Detail, "13 months") || a.problem.Next == "" {
		t.Fatalf("problem %s", a.body)
	}
	if diff := cmp.Diff(denial, *a.problem.Trace); diff != "" {
		t.Errorf("the trace changed on its way:\n%s", diff)
	}
	_, err := b.client(operator).CreateOfferWithResponse(t.Context(), "supplier", client.OfferCreate{Asset: "pcf", UseCase: "carbon-footprint"})
	e := client.AsError(err)
	if e == nil || e.Code != CodePolicyDenied || len(e.Trace.Checks) != 1 || e.Trace.Checks[0].Value != "2025-09-01T00:00:00Z" {
		t.Errorf("the client says %v", err)
	}
}

func TestFailuresOnTheWayToAConnector(t *testing.T) {
	b := setup(t)
	b.pilot()
	heard := time.Date(2026, 10, 1, 8, 30, 0, 0, time.UTC)
	const call = "GET brandt/assets/a"
	b.connector.Fail(cellrpc.ErrNotConnected)
	if a := b.call(operator, "GET", "/participants/supplier/assets/a", nil); a.status != http.StatusServiceUnavailable || !strings.Contains(a.problem.Detail, "it has never connected") {
		t.Errorf("a cell that never connected: %d %s", a.status, a.body)
	}
	const expired = "what was asked has expired"
	if a := b.call(operator, "GET", "/participants/supplier/assets/a", nil); strings.Contains(a.problem.Detail, expired) {
		t.Errorf("a question that was not answered: %s", a.body)
	}
	if a := b.call(operator, "DELETE", "/participants/supplier/assets/a", nil); a.status != http.StatusServiceUnavailable || !strings.Contains(a.problem.Detail, expired) {
		t.Errorf("a command that was not answered: %d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		arrange      func()
		status       int
		code, detail string
	}{
		"the cell went silent": {func() { b.heard("shared", heard); b.connector.Fail(cellrpc.ErrNotConnected) }, http.StatusServiceUnavailable, CodeNotConnected,
			"last heard 2026-10-01T08:30:00Z"},
		"the way is broken otherwise": {func() { b.connector.Fail(errors.New("secret token abc")) }, http.StatusInternalServerError, CodeInternal, "could not do this"},
		"the connector fails":         {func() { b.connector.Answer(call, http.StatusInternalServerError, "boom") }, http.StatusBadGateway, CodeConnector, "the connector answered 500"},
		"the connector fails in words": {func() {
			b.connector.Answer(call, http.StatusServiceUnavailable, adminapi.Error{Code: "inactive", Message: "participant brandt is not active"})
		}, http.StatusServiceUnavailable, "inactive", "participant brandt is not active"},
		"the agent's token is refused": {func() { b.connector.Answer(call, http.StatusUnauthorized, nil) }, http.StatusBadGateway, CodeConnector, "answered 401"},
		"the counterparty is unreachable": {func() {
			b.connector.Answer(call, http.StatusBadGateway, adminapi.Error{Code: "counterparty-unreachable", Message: "did:web:x does not answer"})
		}, http.StatusBadGateway, "counterparty-unreachable", "does not answer"},
		"the answer is no JSON": {func() { b.connector.Answer(call, http.StatusOK, []byte("<html>")) }, http.StatusInternalServerError, CodeInternal, ""},
		"there is no such asset": {func() {
			b.connector.Answer(call, http.StatusNotFound, adminapi.Error{Code: "not-found", Message: `there is no asset "a"`})
		},
			http.StatusNotFound, CodeNotFound, `there is no asset "a"`},
	} {
		t.Run(name, func(t *testing.T) {
			b.connector.Fail(nil)
			c.arrange()
			a := b.call(operator, "GET", "/participants/supplier/assets/a", nil)
			if a.status != c.status || a.problem.Code != c.code || !strings.Contains(a.problem.Detail, c.detail) {
				t.Errorf("got %d %s, want %d %s %s", a.status, a.body, c.status, c.code, c.detail)
			}
			if strings.Contains(string(a.body), "secret token") {
				t.Error("the cause is shown to the caller")
			}
		})
	}
}

func TestAContextIsReachedByItsFirstParticipantOnly(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.connector.Answer("GET brandt/assets", http.StatusOK, []adminapi.Asset{})
	// Past the API, whose check would refuse it: as if both had been written at the same moment.
	var p cloudv1.Participant
	if err := kube.Get(t.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: "supplier"}, &p); err != nil {
		t.Fatal(err)
	}
	second := &cloudv1.Participant{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "zz-second"}, Spec: p.Spec}
	second.Spec.Organization = "rheintal-motoren"
	if err := kube.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	rheintal := cloudtest.Claims("renate", "rheintal-motoren", "organization-admin")
	if a := b.call(rheintal, "GET", "/participants/zz-second/assets", nil); a.status != http.StatusConflict || !strings.Contains(a.problem.Detail, `context "brandt" was taken`) {
		t.Errorf("the second reaches the first one's connector: %d %s", a.status, a.body)
	}
	b.want(http.StatusOK, b.call(brandt, "GET", "/participants/supplier/assets", nil))
}

func TestNamesThatCannotBeAreNotFound(t *testing.T) {
	b := setup(t)
	b.pilot()
	for _, path := range []string{"/participants/a%2Fb", "/participants/a%25b/assets", "/cells/a%2F..%2Fb"} {
		if a := b.call(operator, "GET", path, nil); a.status != http.StatusNotFound || a.problem.Code != CodeNotFound {
			t.Errorf("%s: got %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/participants/supplier/negotiations/a%00b", "/participants/a%00b", "/cells/a%FFb", "/participants/supplier/assets/%C3%28"} {
		if a := b.call(operator, "GET", path, nil); a.status != http.StatusBadRequest || a.problem.Code != CodeInvalid || !strings.Contains(a.problem.Detail, "UTF-8") {
			t.Errorf("%s: got %d %s", path, a.status, a.body)
		}
	}
	if a := b.call(operator, "GET", "/participants/oem/catalog?counterparty=a%2Fb", nil); a.status != http.StatusUnprocessableEntity {
		t.Errorf("counterparty: got %d %s", a.status, a.body)
	}
}

func TestAssetsAndSecrets(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.connector.Answer("PUT brandt/assets/pcf", http.StatusNoContent, nil)
	b.connector.Answer("PUT brandt/secrets/key", http.StatusNoContent, nil)
	b.connector.Answer("DELETE brandt/assets/pcf", http.StatusNoContent, nil)
	b.connector.Answer("GET brandt/assets", http.StatusOK, []adminapi.Asset{{ID: "pcf", Properties: map[string]any{"name": "PCF"}, DataAddress: map[string]string{"type": "HttpData"}}})
	c := b.client(brandt)
	if _, err := c.PutSecretWithResponse(t.Context(), "supplier", "key", client.Secret{Value: "s3cr3t"}); err != nil {
		t.Error(err)
	}
	put, err := c.PutAssetWithResponse(t.Context(), "supplier", "pcf", client.Asset{ID: "pcf", Properties: map[string]any{"name": "PCF"}, DataAddress: map[string]string{"type": "HttpData"}})
	if err != nil || put.JSON200.ID != "pcf" {
		t.Errorf("put: %v, %v", put, err)
	}
	l, err := c.ListAssetsWithResponse(t.Context(), "supplier")
	if err != nil || len(l.JSON200.Items) != 1 {
		t.Errorf("list: %v, %v", l, err)
	}
	if _, err := c.DeleteAssetWithResponse(t.Context(), "supplier", "pcf"); err != nil {
		t.Error(err)
	}
	wrong := b.call(brandt, "PUT", "/participants/supplier/secrets/key", `{"value":{"token":"s3cr3t"}}`)
	if wrong.status != http.StatusUnprocessableEntity || strings.Contains(string(wrong.body), "s3cr3t") {
		t.Errorf("a malformed secret: %d %s; want it refused and not repeated", wrong.status, wrong.body)
	}
}

func TestTheCatalogKnowsUseCasesByTheirPolicy(t *testing.T) {
	b := setup(t)
	b.pilot()
	offer := strings.Replace(contractPolicy, `"@type":"Set"`, `"@type":"Offer","@id":"o1","target":"pcf"`, 1)
	b.connector.On("GET rheintal/catalog", func(r *http.Request) (int, any) {
		if got := r.URL.Query().Get("counterparty"); got != "did:web:shared.example:brandt" {
			t.Errorf("asked for %q, want the participant's DID", got)
		}
		return http.StatusOK, []adminapi.CatalogEntry{{OfferID: "o1", AssetID: "pcf", Policy: json.RawMessage(offer)}, {OfferID: "o2", AssetID: "other", Policy: json.RawMessage(`{"@type":"Offer","permission":[]}`)}}
	})
	all := decodeTo[List[CatalogItem]](t, b.want(http.StatusOK, b.call(operator, "GET", "/participants/oem/catalog?counterparty=supplier", nil)))
	if len(all.Items) != 2 || all.Items[0].UseCase != "carbon-footprint" || all.Items[1].UseCase != "" {
		t.Errorf("catalog %+v", all.Items)
	}
	one := decodeTo[List[CatalogItem]](t, b.call(operator, "GET", "/participants/oem/catalog?counterparty=did:web:shared.example:brandt&useCase=carbon-footprint", nil))
	if len(one.Items) != 1 || one.Items[0].OfferID != "o1" {
		t.Errorf("of the use case: %+v", one.Items)
	}
	if a := b.call(operator, "GET", "/participants/oem/catalog?counterparty=nobody", nil); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.problem.Detail, `"nobody"`) {
		t.Errorf("an unknown counterparty: %d %s", a.status, a.body)
	}
}

func TestANegotiationIsFollowedToItsEnd(t *testing.T) {
	b := setup(t)
	b.pilot()
	states := []string{"REQUESTED", "REQUESTED", "AGREED", "VERIFIED", "VERIFIED", "FINALIZED"}
	var at atomic.Int64
	b.connector.On("POST rheintal/negotiations", func(r *http.Request) (int, any) {
		var got adminapi.NegotiationRequest
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Counterparty != "did:web:shared.example:brandt" || got.OfferID != "o1" || got.ID != "n1" {
			t.Errorf("the connector was asked %+v, %v", got, err)
		}
		return http.StatusCreated, adminapi.Negotiation{ID: "n1", State: "REQUESTED"}
	})
	b.connector.On("GET rheintal/negotiations/n1", func(*http.Request) (int, any) {
		i := min(int(at.Add(1))-1, len(states)-1)
		n := adminapi.Negotiation{ID: "n1", State: states[i], History: []adminapi.Event{}}
		return http.StatusOK, n
	})
	c := b.client(operator)
	started, err := c.StartNegotiationWithResponse(t.Context(), "oem", client.NegotiationStart{ID: "n1", Counterparty: "supplier", OfferID: "o1"})
	if err != nil || started.JSON201.ID != "n1" {
		t.Fatalf("started %v, %v", started, err)
	}
	var seen []string
	if err := c.WatchNegotiation(t.Context(), "oem", "n1", func(n client.Negotiation) error { seen = append(seen, n.State); return nil }); err != nil {
		t.Fatal(err)
	}
	// The first look is taken before the stream begins, to answer 404 while that can still be done.
	if diff := cmp.Diff([]string{"REQUESTED", "AGREED", "VERIFIED", "FINALIZED"}, seen); diff != "" {
		t.Errorf("states as they happened:\n%s", diff)
	}
	if err := c.WatchNegotiation(t.Context(), "oem", "n2", nil); !client.IsNotFound(err) {
		t.Errorf("watching what is not there: %v", err)
	}
}

func TestAWatchThatBreaksSaysWhy(t *testing.T) {
	b := setup(t)
	b.pilot()
	var asked atomic.Int64
	b.connector.On("GET rheintal/negotiations/n1", func(*http.Request) (int, any) {
		if asked.Add(1) > 2 {
			return http.StatusServiceUnavailable, adminapi.Error{Code: "inactive", Message: "the connector is going down"}
		}
		return http.StatusOK, adminapi.Negotiation{ID: "n1", State: "REQUESTED", History: []adminapi.Event{}}
	})
	err := b.client(operator).WatchNegotiation(t.Context(), "oem", "n1", func(client.Negotiation) error { return nil })
	if e := client.AsError(err); e == nil || e.Code != "inactive" {
		t.Errorf("got %v, want the problem", err)
	}
	stop := errors.New("enough")
	asked.Store(0)
	if err := b.client(operator).WatchNegotiation(t.Context(), "oem", "n1", func(client.Negotiation) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the watcher's own error", err)
	}
}

func TestPartnersHaveNamesThatPeopleKnow(t *testing.T) {
	b := setup(t)
	b.pilot()
	got := decodeTo[List[Partner]](t, b.want(http.StatusOK, b.call(viewer, "GET", "/participants/supplier/partners", nil)))
	if len(got.Items) != 2 || got.Items[0].Name != "oem" || got.Items[1].DID != "did:web:shared.example:brandt" || got.Items[1].Organization == "" {
		t.Errorf("partners %+v", got.Items)
	}
	if a := b.call(viewer, "GET", "/participants/oem/partners", nil); a.status != http.StatusNotFound {
		t.Errorf("through another's participant: %d", a.status)
	}
}

func TestEndingATransferReachesTheConnector(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.connector.On("POST rheintal/transfers/t1/terminate", func(r *http.Request) (int, any) {
		var got adminapi.ReasonRequest
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Reason != "enough" {
			t.Errorf("the connector was told %+v, %v", got, err)
		}
		return http.StatusOK, adminapi.Transfer{ID: "t1", State: "TERMINATED"}
	})
	if _, err := b.client(operator).TerminateTransferWithResponse(t.Context(), "oem", "t1", client.TerminationReason{Reason: "enough"}); err != nil {
		t.Error(err)
	}
	if a := b.call(viewer, "POST", "/participants/supplier/transfers/t1/terminate", map[string]string{"reason": "x"}); a.status != http.StatusForbidden {
		t.Errorf("by a viewer: %d", a.status)
	}
}

func TestATransferIsPausedByItsParticipantOnly(t *testing.T) {
	b := setup(t)
	b.pilot()
	rheintal := cloudtest.Claims("renate", "rheintal-motoren", "organization-admin")
	for verb, body := range map[string]any{"suspend": `{"reason":"repair"}`, "resume": nil} {
		b.connector.On("POST brandt/transfers/t1/"+verb, func(r *http.Request) (int, any) {
			var got adminapi.ReasonRequest
			if err := json.NewDecoder(r.Body).Decode(&got); verb == "suspend" && (err != nil || got.Reason != "repair") {
				t.Errorf("the connector was told %+v, %v", got, err)
			}
			return http.StatusOK, adminapi.Transfer{ID: "t1", State: "STARTED"}
		})
		for name, c := range map[string]struct {
			who    map[string]any
			status int
		}{
			"the operator": {operator, http.StatusOK}, "its organization": {brandt, http.StatusOK}, "a viewer of it": {viewer, http.StatusForbidden},
			"the authority": {authority, http.StatusForbidden}, "another organization": {rheintal, http.StatusNotFound}, "nobody": {nil, http.StatusUnauthorized},
		} {
			if a := b.call(c.who, "POST", "/participants/supplier/transfers/t1/"+verb, body); a.status != c.status {
				t.Errorf("%s by %s: %d %s, want %d", verb, name, a.status, a.body, c.status)
			}
		}
	}
}

func TestAnAgreementPassesByteForByte(t *testing.T) {
	b := setup(t)
	b.pilot()
	document := []byte("{ \"@type\" : \"Agreement\",\n\t\"a\": \"<&>\" }")
	b.connector.Answer("GET brandt/agreements/a1", http.StatusOK, adminapi.Agreement{ID: "a1", NegotiationID: "n1", Policy: json.RawMessage(`{}`)})
	b.connector.Answer("GET brandt/negotiations/n1/agreement", http.StatusOK, document)
	got, err := b.client(viewer).GetAgreementDocumentWithResponse(t.Context(), "supplier", "a1")
	if err != nil || string(got.Body) != string(document) {
		t.Errorf("got %q, %v", got.Body, err)
	}
	rheintal := cloudtest.Claims("renate", "rheintal-motoren", "organization-admin")
	if a := b.call(rheintal, "GET", "/participants/supplier/agreements/a1/document", nil); a.status != http.StatusNotFound {
		t.Errorf("another organization's: %d", a.status)
	}
}

func TestAnOfferToOneConsumerReachesTheConnector(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.connector.On("POST brandt/offers/pcf/negotiations", func(r *http.Request) (int, any) {
		var got adminapi.OfferRequest
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.ID != "n1" || got.Counterparty != "did:web:shared.example:rheintal" || string(got.Policy) != contractPolicy {
			t.Errorf("the connector was told %+v, %v", got, err)
		}
		return http.StatusCreated, adminapi.Negotiation{ID: "n1", Role: "provider", Step: "OFFERING"}
	})
	sent, err := b.client(brandt).SendOfferWithResponse(t.Context(), "supplier", "pcf", client.OfferSend{ID: "n1", Counterparty: "oem", Policy: json.RawMessage(contractPolicy)})
	if err != nil || sent.JSON201.Step != "OFFERING" {
		t.Errorf("%+v, %v", sent, err)
	}
	rheintal := cloudtest.Claims("renate", "rheintal-motoren", "organization-admin")
	body := `{"id":"n1","counterparty":"oem","policy":` + contractPolicy + `}`
	for name, c := range map[string]struct {
		who    map[string]any
		status int
	}{
		"the operator": {operator, http.StatusCreated}, "its organization": {brandt, http.StatusCreated}, "a viewer of it": {viewer, http.StatusForbidden},
		"the authority": {authority, http.StatusForbidden}, "another organization": {rheintal, http.StatusNotFound}, "nobody": {nil, http.StatusUnauthorized},
	} {
		if a := b.call(c.who, "POST", "/participants/supplier/offers/pcf/negotiations", body); a.status != c.status {
			t.Errorf("%s: %d %s, want %d", name, a.status, a.body, c.status)
		}
	}
	if a := b.call(brandt, "POST", "/participants/supplier/offers/pcf/negotiations", `{"counterparty":"nobody"}`); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.problem.Detail, `"nobody"`) {
		t.Errorf("an unknown consumer: %d %s", a.status, a.body)
	}
}

func TestDecidingOnTermsReachesTheConnector(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.connector.On("POST rheintal/negotiations/n1/counter", func(r *http.Request) (int, any) {
		var got adminapi.CounterOffer
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || string(got.Policy) != contractPolicy {
			t.Errorf("the connector was told %s, %v", got.Policy, err)
		}
		return http.StatusOK, adminapi.Negotiation{ID: "n1", Step: "REQUESTING"}
	})
	b.connector.On("POST rheintal/negotiations/n1/accept", func(r *http.Request) (int, any) {
		var got adminapi.Acceptance
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.TermsHash != "" && got.TermsHash != "5f3a" {
			t.Errorf("the connector was told %+v, %v", got, err)
		}
		return http.StatusOK, adminapi.Negotiation{ID: "n1", Step: "ACCEPTING", Terms: &adminapi.Terms{Hash: got.TermsHash}}
	})
	c := b.client(operator)
	countered, err := c.CounterNegotiationWithResponse(t.Context(), "oem", "n1", client.CounterOffer{Policy: json.RawMessage(contractPolicy)})
	if err != nil || countered.JSON200.Step != "REQUESTING" {
		t.Errorf("counter: %+v, %v", countered, err)
	}
	accepted, err := c.AcceptNegotiationWithResponse(t.Context(), "oem", "n1", client.Acceptance{TermsHash: "5f3a"})
	if err != nil || accepted.JSON200.Step != "ACCEPTING" || accepted.JSON200.Terms.Hash != "5f3a" {
		t.Errorf("accept: %+v, %v", accepted, err)
	}
	b.want(http.StatusOK, b.call(operator, "POST", "/participants/oem/negotiations/n1/accept", nil))
	for verb, body := range map[string]any{"counter": `{"policy":` + contractPolicy + `}`, "accept": nil} {
		if a := b.call(viewer, "POST", "/participants/supplier/negotiations/n1/"+verb, body); a.status != http.StatusForbidden {
			t.Errorf("%s by a viewer: %d", verb, a.status)
		}
	}
}

func TestDataPassesAsItIs(t *testing.T) {
	b := setup(t)
	b.pilot()
	data := []byte("\x00\x01 not JSON")
	b.connector.On("GET rheintal/transfers/t1/data/items", func(r *http.Request) (int, any) {
		if r.URL.Query().Get("year") != "2026" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		return http.StatusOK, data
	})
	got, contentType, err := b.client(operator).Data(t.Context(), "oem", "t1", "items?year=2026")
	if err != nil || string(got) != string(data) || contentType != "application/octet-stream" {
		t.Errorf("got %q %s, %v", got, contentType, err)
	}
	b.connector.Answer("GET rheintal/transfers/t1/data", http.StatusForbidden, adminapi.Error{Code: "policy-denied", Message: "no", Trace: &denial})
	if _, _, err := b.client(operator).Data(t.Context(), "oem", "t1", ""); client.AsError(err) == nil || client.AsError(err).Code != CodePolicyDenied {
		t.Errorf("got %v", err)
	}
}

func TestStatusIsOfThoseOneMaySee(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.heard("shared", time.Now())
	all := decodeTo[status.Report](t, b.want(http.StatusOK, b.call(operator, "GET", "/status", nil)))
	if len(all.Participants) != 2 || all.Participants[0].Participant != "oem" || all.Participants[0].Connector.State != status.Healthy || all.Participants[0].Contracts.Active != 1 {
		t.Errorf("status %+v", all)
	}
	own := decodeTo[status.Report](t, b.call(viewer, "GET", "/status", nil))
	if len(own.Participants) != 1 || own.Participants[0].Participant != "supplier" {
		t.Errorf("a viewer sees %+v", own)
	}
}

func TestTheClientTriesAgainWhereThatHelps(t *testing.T) {
	for name, c := range map[string]struct {
		failures int
		status   int
		body     string
		method   string
		calls    int64
		ok       bool
	}{
		"a gateway without anybody behind it": {2, http.StatusBadGateway, "bad gateway", "GET", 3, true},
		"for good":                            {9, http.StatusServiceUnavailable, "", "GET", 3, false},
		"not what may happen twice":           {9, http.StatusBadGateway, "", "POST", 1, false},
		"not when the cell is gone":           {9, http.StatusServiceUnavailable, `{"code":"cell-not-connected","detail":"gone","title":"x","status":503}`, "GET", 1, false},
		"not what is wrong":                   {9, http.StatusUnprocessableEntity, `{"code":"invalid","detail":"wrong","title":"x","status":422}`, "GET", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if n := calls.Add(1); n <= int64(c.failures) {
					w.WriteHeader(c.status)
					_, _ = fmt.Fprint(w, c.body)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = fmt.Fprint(w, `{"participants":[]}`)
			}))
			defer server.Close()
			api, err := client.New(client.Config{API: server.URL, Wait: func(int) time.Duration { return 0 }})
			if err != nil {
				t.Fatal(err)
			}
			if c.method == "POST" {
				_, err = api.CreateOfferWithResponse(t.Context(), "p", client.OfferCreate{})
			} else {
				_, err = api.GetStatusWithResponse(t.Context())
			}
			if (err == nil) != c.ok || calls.Load() != c.calls {
				t.Errorf("after %d calls: %v; want %d", calls.Load(), err, c.calls)
			}
			if err != nil && (client.AsError(err) == nil || client.AsError(err).Detail == "") {
				t.Errorf("the error says nothing: %v", err)
			}
		})
	}
}

// TestSeveralProfiles: offers and catalogs of a use case are those of its profile, and partners are whoever shares one.
func TestSeveralProfiles(t *testing.T) {
	b := setup(t)
	b.pilot()
	further := func(spec, profiles string) string {
		return wrap(strings.Replace(spec, `"cell"`, `"furtherProfiles":[`+profiles+`],"cell"`, 1))
	}
	for profiles, want := range map[string]string{`"automotive"`: `"automotive" is named twice`, `"aviation"`: `dataspace profile "aviation"`} {
		a := b.call(both, "PUT", "/participants/supplier?force=true", further(participantSpec("brandt-guss", "brandt"), profiles))
		if a.status != http.StatusUnprocessableEntity || !a.has("spec.furtherProfiles[0]", want) {
			t.Errorf("further profiles %s: %d %s", profiles, a.status, a.body)
		}
	}
	b.want(http.StatusCreated, b.call(both, "PUT", "/dataspace-profiles/aviation", wrap(strings.ReplaceAll(profileSpec, "auditor", "tower"))))
	b.want(http.StatusCreated, b.call(both, "PUT", "/use-cases/flight", wrap(strings.Replace(useCaseSpec(contractPolicy), "automotive", "aviation", 1))))
	b.operate("flight")
	if a := b.call(operator, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"flight"}`); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.problem.Detail, `belongs to profile "aviation"`) {
		t.Errorf("an offer in a profile of others: %d %s", a.status, a.body)
	}
	b.want(http.StatusOK, b.call(both, "PUT", "/participants/supplier?force=true", further(participantSpec("brandt-guss", "brandt"), `"aviation"`)))
	oem := strings.Replace(participantSpec("rheintal-motoren", "rheintal"), "automotive", "aviation", 1)
	b.want(http.StatusOK, b.call(both, "PUT", "/participants/oem?force=true", wrap(oem)))

	for useCase, want := range map[string][]string{"carbon-footprint": nil, "flight": {"aviation"}} {
		b.connector.On("PUT brandt/offers/pcf--"+useCase, func(r *http.Request) (int, any) {
			var got adminapi.Offer
			if err := json.NewDecoder(r.Body).Decode(&got); err != nil || !slices.Equal(got.Profiles, want) {
				t.Errorf("offer under %s: %+v, %v", useCase, got, err)
			}
			return http.StatusOK, got
		})
		b.want(http.StatusCreated, b.call(operator, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"`+useCase+`"}`))
	}
	var asked string
	b.connector.On("GET brandt/catalog", func(r *http.Request) (int, any) {
		asked = r.URL.Query().Get("profile")
		return http.StatusOK, []adminapi.CatalogEntry{}
	})
	for query, want := range map[string]string{"": "aviation", "&useCase=flight": "aviation", "&useCase=carbon-footprint": "automotive", "&profile=automotive": "automotive"} {
		b.want(http.StatusOK, b.call(operator, "GET", "/participants/supplier/catalog?counterparty=oem"+query, nil))
		if asked != want {
			t.Errorf("the catalog with %q was asked for in %q, want %q", query, asked, want)
		}
	}
	b.connector.On("POST brandt/negotiations", func(r *http.Request) (int, any) {
		var got adminapi.NegotiationRequest
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Profile != "aviation" {
			t.Errorf("the connector was asked %+v, %v", got, err)
		}
		return http.StatusCreated, adminapi.Negotiation{ID: "n1", State: "REQUESTED"}
	})
	for _, profile := range []string{"aviation", ""} {
		if _, err := b.client(operator).StartNegotiationWithResponse(t.Context(), "supplier", client.NegotiationStart{Counterparty: "oem", OfferID: "o1", Profile: profile}); err != nil {
			t.Error(err)
		}
	}
	if got := decodeTo[List[Partner]](t, b.want(http.StatusOK, b.call(operator, "GET", "/participants/oem/partners", nil))); len(got.Items) != 2 {
		t.Errorf("partners %+v", got.Items)
	}
}
