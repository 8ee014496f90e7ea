// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// approver is a person with the private key.
type approver struct {
	adminapi.Approver
	key jwk.Key
}

func newApprover(t *testing.T, id, organization string) approver {
	t.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := approver{Approver: adminapi.Approver{ID: id, Name: id, Organization: organization}}
	if a.key, err = jwk.Import(raw); err != nil {
		t.Fatal(err)
	}
	public, err := a.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	a.Keys = []json.RawMessage{encoded}
	return a
}

// decides signs a decision about the offer that a negotiation of the supplier has.
func (a approver) decides(t testing.TB, n *store.Negotiation, gateName string, v adminapi.Verdict) string {
	t.Helper()
	hash, err := dsp.OfferHash(n)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := gate.Sign(a.key, adminapi.DecisionClaims{Approver: a.ID, Provider: supplier, Negotiation: n.ID, Offer: hash, Gate: gateName, Verdict: v,
		IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Hour).Unix(), ID: rand.Text()})
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func approval(before string, required int, by ...approver) adminapi.Gate {
	g := adminapi.Gate{Name: "before-" + strings.ToLower(before), Type: adminapi.GateApproval, Before: before, Deadline: "P1D", Required: required}
	for _, a := range by {
		g.Approvers = append(g.Approvers, a.Approver)
	}
	return g
}

func held(n *store.Negotiation) bool { return n.Held }

// decide hands in a decision, which must count.
func (s *side) decide(n *store.Negotiation, by approver, gateName string, v adminapi.Verdict) {
	s.t.Helper()
	if _, err := s.engine.Decide(s.t.Context(), s.ctx, n.ID, by.decides(s.t, n, gateName, v)); err != nil {
		s.t.Fatal(err)
	}
}

func TestGatesHoldUntilApproved(t *testing.T) {
	_, provider, consumer := world(t)
	anna, bert := newApprover(t, "anna", "supplier"), newApprover(t, "bert", "oem")
	two := approval(state.Agreed, 2, anna, bert)
	two.Organizations = 2
	n := consumer.negotiate(provider.offer("pcf", attestedPolicy, two, approval(state.Finalized, 1, bert)))
	consumer.wait(n.ID, "REQUESTED", at(state.Requested))
	p := provider.wait(provider.peer(n).ID, "a hold", held)
	if !strings.Contains(p.Waiting, "0 of 2 approvals") || !strings.Contains(p.Waiting, "anna (supplier) or bert (oem)") {
		t.Errorf("waiting for %q", p.Waiting)
	}
	if len(p.Presented) == 0 {
		t.Error("the consumer's credentials are not kept")
	}
	if _, err := provider.engine.CommandNegotiation(t.Context(), provider.ctx, p.ID, state.CommandAgree, nil); err == nil {
		t.Error("a held negotiation was agreed")
	}
	// A release without a decision lets nothing pass.
	if p, err := provider.engine.CommandNegotiation(t.Context(), provider.ctx, p.ID, state.CommandRelease, nil); err != nil || !p.Held || p.Step != state.Requested {
		t.Errorf("released without a decision: %s held %t, %v", p.Step, p.Held, err)
	}
	signed := anna.decides(t, p, "before-agreed", adminapi.Approve)
	if p, err := provider.engine.Decide(t.Context(), provider.ctx, p.ID, signed); err != nil || !p.Held || !strings.Contains(p.Waiting, "1 of 2 approvals") {
		t.Errorf("after one of two: %+v, %v", p, err)
	}
	for code, signed := range map[string]string{
		gate.CodeReplayed:      signed,
		gate.CodeForged:        approver{bert.Approver, anna.key}.decides(t, p, "before-agreed", adminapi.Approve),
		gate.CodeWrongApprover: newApprover(t, "eve", "oem").decides(t, p, "before-agreed", adminapi.Approve),
		gate.CodeClosed:        bert.decides(t, p, "before-finalized", adminapi.Approve),
	} {
		var refusal *dsp.RefusalError
		if _, err := provider.engine.Decide(t.Context(), provider.ctx, p.ID, signed); !errors.As(err, &refusal) || refusal.Code != code {
			t.Errorf("got %v, want a refusal with code %s", err, code)
		}
	}
	provider.decide(p, bert, "before-agreed", adminapi.Approve)
	consumer.wait(n.ID, "VERIFIED", at(state.Verified))
	p = provider.wait(p.ID, "a hold before FINALIZED", func(n *store.Negotiation) bool { return n.Held && n.Step == state.Verified })
	before := len(p.Traces)
	provider.decide(p, bert, "before-finalized", adminapi.Approve)
	consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	p = provider.wait(p.ID, "FINALIZED", at(state.Finalized))
	if len(p.Traces) <= before || len(p.Presented) != 0 {
		t.Errorf("%d traces before the resume, %d after it; %d credentials kept", before, len(p.Traces), len(p.Presented))
	}
	if got := states(p.History); got != "REQUESTED AGREED VERIFIED FINALIZED" {
		t.Errorf("went through %s", got)
	}
	var refusal *dsp.RefusalError
	if _, err := provider.engine.Decide(t.Context(), provider.ctx, p.ID, anna.decides(t, p, "before-agreed", adminapi.Reject)); !errors.As(err, &refusal) || refusal.Code != gate.CodeClosed {
		t.Errorf("a decision about what is over: %v", err)
	}
}

// TestWhatHasChangedWhileItWaited: the policy is evaluated again before the provider goes on, on the credentials as they are then.
func TestWhatHasChangedWhileItWaited(t *testing.T) {
	for name, change := range map[string]func(*people){
		"the consumer's membership was revoked": func(who *people) {
			who.Lock()
			defer who.Unlock()
			who.credentials[buyer] = nil
		},
		"the provider's attestation has become too old": func(who *people) {
			who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2020-01-01T00:00:00Z"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			who, provider, consumer := world(t)
			anna := newApprover(t, "anna", "supplier")
			n := consumer.negotiate(provider.offer("pcf", attestedPolicy, approval(state.Agreed, 1, anna)))
			consumer.wait(n.ID, "REQUESTED", at(state.Requested))
			p := provider.wait(provider.peer(n).ID, "a hold", held)
			change(who)
			provider.decide(p, anna, "before-agreed", adminapi.Approve)
			p = provider.wait(p.ID, "an end", func(n *store.Negotiation) bool { return n.Reason != nil })
			if p.Reason.Code != "policy-denied" || p.AgreementID != "" {
				t.Errorf("reason %+v, agreement %q", p.Reason, p.AgreementID)
			}
		})
	}
}

func TestARejectionAndAMissedDeadlineEndIt(t *testing.T) {
	_, provider, consumer := world(t)
	anna := newApprover(t, "anna", "supplier")
	n := consumer.negotiate(provider.offer("pcf", openPolicy, approval(state.Agreed, 1, anna)))
	consumer.wait(n.ID, "REQUESTED", at(state.Requested))
	p := provider.wait(provider.peer(n).ID, "a hold", held)
	provider.decide(p, anna, "before-agreed", adminapi.Reject)
	n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated))
	if p = provider.wait(p.ID, "TERMINATED", at(state.Terminated)); p.Reason.Code != "gate-rejected" || strings.Contains(n.Reason.Message, "anna") {
		t.Errorf("reason %+v, the consumer was told %+v", p.Reason, n.Reason)
	}
	short := approval(state.Agreed, 1, anna)
	short.Deadline = "PT0.05S"
	n = consumer.negotiate(provider.offer("short", openPolicy, short))
	n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated))
	if p = provider.wait(provider.peer(n).ID, "TERMINATED", at(state.Terminated)); p.Reason.Code != gate.CodeLate || !strings.Contains(n.Reason.Message, "had not passed until") {
		t.Errorf("reason %+v, the consumer was told %+v", p.Reason, n.Reason)
	}
}

func TestAnAttestationGateWaitsForTheCredentialAndForTheAuthority(t *testing.T) {
	who, provider, consumer := world(t)
	gus := newApprover(t, "gus", "authority")
	g := adminapi.Gate{Name: "reviewed", Type: adminapi.GateAttestation, Before: state.Finalized, Deadline: "P1D", Policy: json.RawMessage(attestedPolicy), TriggeredBy: []adminapi.Approver{gus.Approver}}
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2020-01-01T00:00:00Z"})
	n := consumer.negotiate(provider.offer("pcf", openPolicy, g))
	consumer.wait(n.ID, "VERIFIED", at(state.Verified))
	p := provider.wait(provider.peer(n).ID, "the reason for which it waits", func(n *store.Negotiation) bool { return n.Held && strings.Contains(n.Waiting, "2020-01-01") })
	if !strings.Contains(p.Waiting, "gus (authority) must let it pass") {
		t.Errorf("waiting for %q", p.Waiting)
	}
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)})
	provider.decide(p, gus, "reviewed", adminapi.Trigger)
	consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
}

// TestAnAttestationThatIsGoneHoldsAgain: its gate had passed while another still waited for a person.
func TestAnAttestationThatIsGoneHoldsAgain(t *testing.T) {
	who, provider, consumer := world(t)
	anna := newApprover(t, "anna", "supplier")
	g := adminapi.Gate{Name: "reviewed", Type: adminapi.GateAttestation, Before: state.Agreed, Deadline: "P1D", Policy: json.RawMessage(attestedPolicy)}
	n := consumer.negotiate(provider.offer("pcf", openPolicy, g, approval(state.Agreed, 1, anna)))
	consumer.wait(n.ID, "REQUESTED", at(state.Requested))
	p := provider.wait(provider.peer(n).ID, "the attestation", func(n *store.Negotiation) bool {
		return n.Held && n.Gates[0].Attested != nil && n.Gates[0].Attested.Satisfied
	})
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2020-01-01T00:00:00Z"})
	provider.decide(p, anna, "before-agreed", adminapi.Approve)
	p = provider.wait(p.ID, "an answer", func(n *store.Negotiation) bool { return !n.Held || strings.Contains(n.Waiting, "2020-01-01") })
	if !p.Held || p.AgreementID != "" || p.Gates[0].Attested.Satisfied {
		t.Errorf("%s, held %t, agreement %q, attested %+v", p.Step, p.Held, p.AgreementID, p.Gates[0].Attested)
	}
}

func TestAGateHoldsAnOfferThatTheProviderMadeFirst(t *testing.T) {
	_, provider, consumer := world(t)
	anna := newApprover(t, "anna", "supplier")
	provider.offer("pcf", openPolicy, approval(state.Agreed, 1, anna))
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", adminapi.OfferRequest{Counterparty: buyer})
	if err != nil {
		t.Fatal(err)
	}
	provider.wait(p.ID, "OFFERED", at(state.Offered))
	n := consumer.peer(p)
	if _, err := consumer.engine.CommandNegotiation(t.Context(), consumer.ctx, n.ID, state.CommandAccept, nil); err != nil {
		t.Fatal(err)
	}
	p = provider.wait(p.ID, "a hold", held)
	if p.Step != state.Accepted {
		t.Errorf("held at %s", p.Step)
	}
	provider.decide(p, anna, "before-agreed", adminapi.Approve)
	consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
}

func TestAWebhookDecidesWithItsOwnKey(t *testing.T) {
	_, provider, consumer := world(t)
	system := newApprover(t, "risk", "supplier")
	var asked []adminapi.Approval
	var tokens []string
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a adminapi.Approval
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		asked, tokens = append(asked, a), append(tokens, r.Header.Get("Authorization"))
		claims := adminapi.DecisionClaims{Approver: system.ID, Provider: a.Provider, Negotiation: a.Negotiation, Offer: a.OfferHash, Gate: a.Gate.Name, Verdict: adminapi.Approve,
			IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Minute).Unix(), ID: rand.Text()}
		key := system.key
		switch len(asked) {
		case 1: // a failure is no answer
			w.WriteHeader(http.StatusInternalServerError)
			return
		case 2: // nor is a decision that somebody else signed
			key = newApprover(t, "risk", "supplier").key
		}
		signed, err := gate.Sign(key, claims)
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(adminapi.SignedDecision{Decision: signed})
	}))
	t.Cleanup(hook.Close)
	g := approval(state.Agreed, 1, system)
	g.Type, g.URL = adminapi.GateWebhook, hook.URL
	n := consumer.negotiate(provider.offer("pcf", openPolicy, g))
	consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	if len(asked) != 3 || asked[2].Provider != supplier || asked[2].Counterparty != buyer || asked[2].AssetID != "asset-pcf" || !strings.HasPrefix(tokens[2], "Bearer ") {
		t.Errorf("asked %+v with %v", asked, tokens)
	}
}

// TestAMissedDeadlineEndsItAlsoWhenAWebhookFails: what another gate waits for comes to nothing any more.
func TestAMissedDeadlineEndsItAlsoWhenAWebhookFails(t *testing.T) {
	_, provider, consumer := world(t)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	t.Cleanup(hook.Close)
	webhook := approval(state.Agreed, 1, newApprover(t, "risk", "supplier"))
	webhook.Name, webhook.Type, webhook.URL = "risk", adminapi.GateWebhook, hook.URL
	short := approval(state.Agreed, 1, newApprover(t, "anna", "supplier"))
	short.Deadline = "PT0.05S"
	n := consumer.negotiate(provider.offer("pcf", openPolicy, webhook, short))
	n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated))
	if p := provider.wait(provider.peer(n).ID, "TERMINATED", at(state.Terminated)); p.Reason.Code != gate.CodeLate {
		t.Errorf("reason %+v", p.Reason)
	}
}

func TestApproversSeeTheVerdictAboutTheOffer(t *testing.T) {
	n := &store.Negotiation{Process: store.Process{ID: "n1"}, OfferID: "o1", Offer: json.RawMessage(`{"@id":"o1","@type":"Offer","permission":[{"action":"use"}]}`)}
	policy, err := odrl.Parse(n.Offer)
	if err != nil {
		t.Fatal(err)
	}
	n.Traces = []adminapi.Trace{{Policy: odrl.Hash(policy), Checks: []adminapi.Check{{Sentence: "of the offer"}}}, {Policy: "of a gate", Checks: []adminapi.Check{{Sentence: "of a gate"}}}}
	a, err := dsp.Approval(&store.Participant{DID: supplier}, n, &gate.Hold{}, time.Now())
	if err != nil || len(a.Verdicts) != 1 || a.Verdicts[0].Sentence != "of the offer" {
		t.Errorf("%+v, %v", a.Verdicts, err)
	}
}

// TestApproversSeeNothingThatTheirDecisionDoesNotCover: a consumer can send an offer with a quarter of a megabyte that changes nothing about its rules.
func TestApproversSeeNothingThatTheirDecisionDoesNotCover(t *testing.T) {
	junk := strings.Repeat("x", 100<<10)
	n := &store.Negotiation{Process: store.Process{ID: "n1", Counterparty: buyer, AssetID: "asset-pcf"}, OfferID: "o1", Offer: json.RawMessage(`{"@id":"o1","@type":"odrl:Offer","profile":"` + junk + `","dct:note":"hidden",
		"permission":[{"@id":"hidden","action":"odrl:USE","constraint":[{"or":[{"@id":"hidden","leftOperand":"odrl:spatial","operator":"EQ","rightOperand":{"@value":"EU","@type":"hidden` + junk + `"}},
		{"leftOperand":"count","operator":"lteq","rightOperand":[5,true]}]}],"duty":[{"action":{"@id":"inform"}}]}]}`)}
	hash, err := dsp.OfferHash(n)
	if err != nil {
		t.Fatal(err)
	}
	a, err := dsp.Approval(&store.Participant{DID: supplier}, n, &gate.Hold{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(a.Policy), "hidden") || len(a.Policy) > 1000 {
		t.Errorf("shown are %d bytes: %.1000s", len(a.Policy), a.Policy)
	}
	policy, err := odrl.Parse(a.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if got := (gate.Terms{OfferID: a.OfferID, AssetID: a.AssetID, Consumer: a.Counterparty, Policy: policy}).Hash(); got != hash || a.OfferHash != hash {
		t.Errorf("the shown policy has hash %s, its approval says %s, the offer has %s", got, a.OfferHash, hash)
	}
}
