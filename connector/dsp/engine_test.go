// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	pgtest.Main(m)
}

func (s *side) negotiate(offerID string) *store.Negotiation {
	s.t.Helper()
	n, err := s.engine.Negotiate(s.t.Context(), s.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offerID})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestNegotiationAndTransfer(t *testing.T) {
	_, provider, consumer := world(t)
	offerID := provider.offer("pcf", attestedPolicy)
	n := consumer.negotiate(offerID)
	n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	p := provider.wait(provider.peer(n).ID, "FINALIZED", at(state.Finalized))
	const all = "REQUESTED AGREED VERIFIED FINALIZED"
	if states(n.History) != all || states(p.History) != all {
		t.Errorf("consumer went through %s, provider through %s", states(n.History), states(p.History))
	}
	if len(n.Traces) != 2 || len(p.Traces) != 2 || !n.Traces[1].Allowed || n.Traces[1].Checks[0].Party != supplier || p.Traces[0].Checks[0].Party != buyer {
		t.Errorf("traces: consumer %s, provider %s", describe(n.Traces), describe(p.Traces))
	}
	ours, err := consumer.store.AgreementOf(t.Context(), consumer.ctx, n.ID)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := provider.store.AgreementOf(t.Context(), provider.ctx, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if ours.ID != theirs.ID || string(ours.Agreement) != string(theirs.Agreement) {
		t.Errorf("the agreements differ: %s and %s", ours.Agreement, theirs.Agreement)
	}
	again, err := consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{ID: n.ID, Counterparty: supplier, OfferID: offerID})
	if err != nil || again.ID != n.ID || again.Step != state.Finalized {
		t.Errorf("the same request id again: %+v, %v", again, err)
	}
	transferAll(t, provider, consumer, ours.ID)
}

func transferAll(t *testing.T, provider, consumer *side, agreement string) {
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: agreement}, "")
	if err != nil {
		t.Fatal(err)
	}
	tr = consumer.waitTransfer(tr.ID, "STARTED", transferAt(state.Started))
	find := func() *store.Transfer {
		p, err := provider.store.FindTransfer(t.Context(), provider.ctx, state.Provider, buyer, tr.ID)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	token := func() string {
		a, err := consumer.store.DataAddress(t.Context(), consumer.ctx, tr.ID)
		if err != nil {
			t.Fatal(err)
		}
		return a.Properties["authorization"]
	}
	flow := find().ID
	first := token()
	provider.waitTransfer(flow, "STARTED", transferAt(state.Started))
	command := func(s *side, id string, on state.Trigger) {
		t.Helper()
		if _, err := s.engine.CommandTransfer(t.Context(), s.ctx, id, on, nil); err != nil {
			t.Fatal(err)
		}
	}
	command(consumer, tr.ID, state.CommandSuspend)
	consumer.waitTransfer(tr.ID, "SUSPENDED", transferAt(state.Suspended))
	provider.waitTransfer(flow, "a suspended flow", func(t *store.Transfer) bool { return t.Step == state.Suspended && t.Flow == "" })
	if s := provider.flows.is(flow); s != "suspended" {
		t.Errorf("the flow of a suspended transfer is %s", s)
	}
	if _, err := consumer.store.DataAddress(t.Context(), consumer.ctx, tr.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a suspended transfer still has its token: %v", err)
	}
	command(consumer, tr.ID, state.CommandResume)
	consumer.waitTransfer(tr.ID, "STARTED again", transferAt(state.Started))
	provider.waitTransfer(flow, "STARTED again", transferAt(state.Started))
	if token() == first {
		t.Error("the token is the one from before the suspension")
	}
	reason := &adminapi.Reason{Code: "suspended", Message: "the backend is being repaired", By: "own"}
	if _, err := provider.engine.CommandTransfer(t.Context(), provider.ctx, flow, state.CommandSuspend, reason); err != nil {
		t.Fatal(err)
	}
	suspended := consumer.waitTransfer(tr.ID, "SUSPENDED by the provider", transferAt(state.Suspended))
	if diff := cmp.Diff(&adminapi.Reason{Code: "counterparty-suspended", Message: reason.Message, By: "counterparty"}, suspended.Suspension); diff != "" || suspended.Reason != nil {
		t.Errorf("why it is suspended: %s, and why it ended: %+v", diff, suspended.Reason)
	}
	if p := provider.waitTransfer(flow, "SUSPENDED by itself", transferAt(state.Suspended)); p.Suspension == nil || *p.Suspension != *reason {
		t.Errorf("the provider keeps %+v", p.Suspension)
	}
	command(provider, flow, state.CommandResume)
	started := consumer.waitTransfer(tr.ID, "STARTED by the provider", transferAt(state.Started))
	if p := provider.waitTransfer(flow, "STARTED by itself", transferAt(state.Started)); p.Suspension != nil || started.Suspension != nil {
		t.Errorf("resumed, with %+v and %+v", p.Suspension, started.Suspension)
	}
	command(consumer, tr.ID, state.CommandComplete)
	consumer.waitTransfer(tr.ID, "COMPLETED", transferAt(state.Completed))
	provider.waitTransfer(flow, "COMPLETED", func(t *store.Transfer) bool { return t.Step == state.Completed && t.Flow == "" })
	if s := provider.flows.is(flow); s != "completed" {
		t.Errorf("the flow of a completed transfer is %s", s)
	}
	if got, want := states(find().History), "REQUESTED STARTED SUSPENDED STARTED SUSPENDED STARTED COMPLETED"; got != want {
		t.Errorf("the provider went through %s, want %s", got, want)
	}
}

func TestAnAttestationThatIsTooOldWithholdsTheOffer(t *testing.T) {
	who, provider, consumer := world(t)
	offerID := provider.offer("pcf", attestedPolicy)
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": time.Now().AddDate(-1, 0, -2).UTC().Format(time.RFC3339)})
	datasets, _, err := consumer.engine.FetchCatalog(t.Context(), consumer.ctx, "", supplier, "")
	if err != nil || len(datasets) != 0 {
		t.Errorf("the catalog has %v, %v", datasets, err)
	}
	_, err = consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offerID})
	var refusal *dsp.RefusalError
	if !errors.As(err, &refusal) || refusal.Code != "not-found" {
		t.Errorf("negotiating a withheld offer: %v", err)
	}
}

func TestTheConsumerRefusesWhatTheProviderOffersAllTheSame(t *testing.T) {
	who, provider, consumer := world(t)
	offerID := provider.offer("pcf", attestedPolicy)
	if err := provider.store.PutParticipant(t.Context(), provider.ctx, adminapi.Participant{DID: supplier, Profile: "pilot", Active: true, SelfCheck: adminapi.SelfCheckOff}); err != nil {
		t.Fatal(err)
	}
	old := time.Now().AddDate(-1, 0, -2).UTC().Format(time.RFC3339)
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": old})
	n := consumer.negotiate(offerID)
	n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated))
	if n.Reason.Code != "policy-denied" || n.Reason.By != "own" || !strings.Contains(n.Reason.Message, old[:10]) || !strings.Contains(n.Reason.Message, "renew the attestation") {
		t.Errorf("reason %+v does not name the value seen (%s) and what to do", n.Reason, old)
	}
	if states(n.History) != "REQUESTED AGREED TERMINATED" || len(n.Traces) != 2 || n.Traces[1].Allowed {
		t.Errorf("history %s, traces %s", states(n.History), describe(n.Traces))
	}
	p := provider.wait(provider.peer(n).ID, "TERMINATED", at(state.Terminated))
	if p.Reason.Code != "policy-denied" || p.Reason.By != "counterparty" || p.Reason.Message != n.Reason.Message {
		t.Errorf("the provider was told %+v", p.Reason)
	}
	if _, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, ""); err == nil || !strings.Contains(err.Error(), "not in force") {
		t.Errorf("an agreement that was never verified can be used: %v", err)
	}
	if _, err := provider.engine.RequestTransfer(t.Context(), provider.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, ""); err == nil || !strings.Contains(err.Error(), "is its provider") {
		t.Errorf("the provider can use an agreement: %v", err)
	}
}

func TestAMemberIsNeeded(t *testing.T) {
	who, provider, consumer := world(t)
	offerID := provider.offer("pcf", openPolicy)
	who.give(buyer, "MembershipCredential", nil)
	who.Lock()
	who.credentials[buyer] = nil
	who.Unlock()
	_, err := consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offerID})
	if err == nil || !strings.Contains(err.Error(), "MembershipCredential") {
		t.Errorf("without membership: %v", err)
	}
}

func TestAccessPolicyHidesAnOffer(t *testing.T) {
	_, provider, consumer := world(t)
	offerID := provider.offer("pcf", openPolicy)
	d, err := provider.store.Definition(t.Context(), provider.ctx, "pcf")
	if err != nil {
		t.Fatal(err)
	}
	access := "members"
	d.AccessPolicyID = &access
	for bpn, visible := range map[string]bool{"BPN-" + buyer: true, "BPN-other": false} {
		d.AccessPolicy = json.RawMessage(`{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/policy/bpn","operator":"eq","rightOperand":"` + bpn + `"}]}]}`)
		if err := provider.store.PutDefinition(t.Context(), *d); err != nil {
			t.Fatal(err)
		}
		datasets, _, err := consumer.engine.FetchCatalog(t.Context(), consumer.ctx, "", supplier, "")
		if err != nil || (len(datasets) == 1) != visible {
			t.Errorf("for %s the catalog has %v, %v", bpn, datasets, err)
		}
		offer := json.RawMessage(`{"@id":"` + offerID + `","@type":"Offer","target":"asset-pcf","permission":[{"action":"use"}]}`)
		n, err := consumer.engine.RequestOffer(t.Context(), consumer.ctx, "", "", supplier, "", offer)
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: state.Finalized, false: state.Terminated}[visible]
		consumer.wait(n.ID, want, at(want))
	}
}

func TestAChangedPolicyEndsTheOfferAndAForgedOneIsRefused(t *testing.T) {
	_, provider, consumer := world(t)
	offerID := provider.offer("pcf", attestedPolicy)
	// The id of the offer with other rules under it.
	forged := json.RawMessage(`{"@id":"` + offerID + `","@type":"Offer","target":"asset-pcf","permission":[{"action":"use"}]}`)
	n, err := consumer.engine.RequestOffer(t.Context(), consumer.ctx, "", "", supplier, "", forged)
	if err != nil {
		t.Fatal(err)
	}
	n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated))
	if !strings.Contains(n.Reason.Message, "not the one that is offered now") {
		t.Errorf("reason %+v", n.Reason)
	}
	provider.offer("pcf", openPolicy)
	if _, err = consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offerID}); err == nil {
		t.Error("the offer is still there after its policy has changed")
	}
}

func TestAnOutageDelaysAndDoesNotTerminate(t *testing.T) {
	_, provider, consumer := world(t)
	offerID := provider.offer("pcf", openPolicy)
	var down atomic.Int32
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/negotiations/") && down.Add(1) <= 3 {
			w.WriteHeader(http.StatusBadGateway)
			return false
		}
		return true
	})
	consumer.wait(consumer.negotiate(offerID).ID, "FINALIZED", at(state.Finalized))
}

func TestAnUnreachableCounterpartyIsGivenUp(t *testing.T) {
	_, provider, consumer := world(t, func(o *dsp.Options) { o.RetryFor = 50 * time.Millisecond })
	offerID := provider.offer("pcf", openPolicy)
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/negotiations/") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return false
		}
		return true
	})
	n := consumer.wait(consumer.negotiate(offerID).ID, "TERMINATED", at(state.Terminated))
	if n.Reason.Code != "counterparty-unreachable" || !strings.Contains(n.Reason.Message, supplier) {
		t.Errorf("reason %+v", n.Reason)
	}
}

// TestAnswersThatAreLost: the message arrives, the answer does not. The repeat is recognised, and both sides have done everything once.
func TestAnswersThatAreLost(t *testing.T) {
	_, provider, consumer := world(t)
	offerID := provider.offer("pcf", openPolicy)
	lose := func(s *side) {
		var count atomic.Int32
		s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost || !strings.Contains(r.URL.Path, "/negotiations/") || count.Add(1)%2 == 0 {
				return true
			}
			s.engine.Handler().ServeHTTP(discard{header: http.Header{}}, r)
			w.WriteHeader(http.StatusGatewayTimeout)
			return false
		})
	}
	lose(provider)
	lose(consumer)
	n := consumer.wait(consumer.negotiate(offerID).ID, "FINALIZED", at(state.Finalized))
	p := provider.wait(provider.peer(n).ID, "FINALIZED", at(state.Finalized))
	const all = "REQUESTED AGREED VERIFIED FINALIZED"
	if states(n.History) != all || states(p.History) != all || n.AgreementID != p.AgreementID {
		t.Errorf("consumer %s, provider %s, agreements %s and %s", states(n.History), states(p.History), n.AgreementID, p.AgreementID)
	}
	for _, s := range []*side{provider, consumer} {
		if all, err := s.store.Negotiations(t.Context(), s.ctx, store.Page{}); err != nil || len(all) != 1 {
			t.Errorf("%s has %d negotiations, %v", s.ctx, len(all), err)
		}
	}
}

// TestRefusalOfWhatWasTaken: a counterparty that does not recognise repeats takes a message, its answer is lost, and it refuses the repeat.
// Its state says that it has the message.
func TestRefusalOfWhatWasTaken(t *testing.T) {
	var hold atomic.Bool
	hold.Store(true)
	_, provider, consumer := world(t)
	offerID := provider.offer("pcf", openPolicy, approval(state.Finalized, 1, newApprover(t, "anna", "supplier")))
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/agreement/verification") {
			return true
		}
		if hold.Swap(false) {
			provider.engine.Handler().ServeHTTP(discard{header: http.Header{}}, r)
		}
		w.WriteHeader(http.StatusBadRequest)
		return false
	})
	n := consumer.negotiate(offerID)
	consumer.wait(n.ID, "VERIFIED", at(state.Verified))
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func TestProviderOffersFirstAndConsumerAccepts(t *testing.T) {
	_, provider, consumer := world(t)
	provider.offer("pcf", openPolicy)
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", adminapi.OfferRequest{Counterparty: buyer})
	if err != nil {
		t.Fatal(err)
	}
	provider.wait(p.ID, "OFFERED", at(state.Offered))
	n := consumer.peer(p)
	if n.Step != state.Offered || n.Waiting == "" {
		t.Fatalf("an unasked offer was answered without a person: %s, waiting for %q", n.Step, n.Waiting)
	}
	if _, err := consumer.engine.CommandNegotiation(t.Context(), consumer.ctx, n.ID, state.CommandAccept, nil); err != nil {
		t.Fatal(err)
	}
	n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	if got := states(n.History); got != "OFFERED ACCEPTED AGREED VERIFIED FINALIZED" {
		t.Errorf("went through %s", got)
	}
}

// TestTermsForOneConsumer: a provider offers what is in its catalog on other terms, under the gates of what is there.
func TestTermsForOneConsumer(t *testing.T) {
	who, provider, consumer := world(t)
	anna := newApprover(t, "anna", "supplier")
	provider.offer("pcf", openPolicy, approval(state.Agreed, 1, anna))
	req := adminapi.OfferRequest{ID: "first", Counterparty: buyer, Policy: terms("x", "BPN-"+buyer)}
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", req)
	if err != nil {
		t.Fatal(err)
	}
	provider.wait(p.ID, "OFFERED", at(state.Offered))
	n := consumer.peer(p)
	if _, err := consumer.engine.Accept(t.Context(), consumer.ctx, n.ID, ""); err != nil {
		t.Fatal(err)
	}
	provider.decide(provider.wait(p.ID, "a hold", held), anna, "before-agreed", adminapi.Approve)
	n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	if a, err := consumer.store.Agreement(t.Context(), consumer.ctx, n.AgreementID); err != nil || !strings.Contains(string(a.Agreement), "BPN-"+buyer) {
		t.Errorf("agreed is %+v, %v", a, err)
	}
	again, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", req)
	if err != nil || again.ID != p.ID {
		t.Errorf("the request again: %+v, %v", again, err)
	}

	provider.offer("attested", attestedPolicy)
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2020-01-01T00:00:00Z"})
	for name, tc := range map[string]struct {
		offer  string
		req    adminapi.OfferRequest
		status int
		says   string
	}{
		"nobody":                         {"pcf", adminapi.OfferRequest{}, http.StatusUnprocessableEntity, "$.counterparty"},
		"no such offer":                  {"none", adminapi.OfferRequest{Counterparty: buyer}, http.StatusNotFound, `"none"`},
		"another offer's asset":          {"pcf", adminapi.OfferRequest{Counterparty: buyer, Asset: "asset-attested"}, http.StatusUnprocessableEntity, "$.asset"},
		"own obligations":                {"attested", adminapi.OfferRequest{Counterparty: buyer}, http.StatusForbidden, "2020-01-01"},
		"the id of another offer":        {"attested", adminapi.OfferRequest{ID: "first", Counterparty: buyer}, http.StatusConflict, `"first"`},
		"the id of other terms":          {"pcf", adminapi.OfferRequest{ID: "first", Counterparty: buyer, Policy: terms("x", "x")}, http.StatusConflict, `"first"`},
		"the id of another counterparty": {"pcf", adminapi.OfferRequest{ID: "first", Counterparty: "did:web:else.example"}, http.StatusConflict, `"first"`},
	} {
		var refusal *dsp.RefusalError
		if _, err := provider.engine.OfferTo(t.Context(), provider.ctx, tc.offer, tc.req); !errors.As(err, &refusal) || refusal.Status != tc.status || !strings.Contains(refusal.Message, tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var oe *odrl.Error
	unknown := json.RawMessage(`{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/policy/unknown","operator":"eq","rightOperand":"x"}]}]}`)
	if _, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", adminapi.OfferRequest{Counterparty: buyer, Policy: unknown}); !errors.As(err, &oe) || !strings.HasPrefix(oe.Path, "$.policy.permission[0]") {
		t.Errorf("terms with an operand that is not declared: %v", err)
	}
	vocabulary := testProfile
	vocabulary.Operands = append(slices.Clone(testProfile.Operands), profile.Operand{Name: "https://example.org/policy/audited", Subject: profile.SubjectConsumer, Credential: "AttestationCredential",
		Expression: "credential.subject.audited", ValueType: profile.ValueString, Operators: []string{"eq"}, Phases: []profile.Phase{profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "audited by {right}"}})
	if err := provider.store.PutProfile(t.Context(), vocabulary); err != nil {
		t.Fatal(err)
	}
	const audited = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/policy/audited","operator":"eq","rightOperand":"us"}]}]}`
	provider.offer("gated", audited, adminapi.Gate{Name: "numbered", Type: adminapi.GateAttestation, Before: state.Agreed, Deadline: "P7D", Policy: json.RawMessage(audited)})
	if _, err := provider.engine.OfferTo(t.Context(), provider.ctx, "gated", adminapi.OfferRequest{Counterparty: buyer, Policy: json.RawMessage(openPolicy)}); !errors.As(err, &oe) || !strings.Contains(oe.Message, "numbered") {
		t.Errorf("terms under which a gate can't pass: %v", err)
	}
}

// TestWhoMayNotHaveAnOfferCannotAcceptIt: a provider may offer to whom it wants; whether its access policy lets that consumer have it is seen when it accepts.
func TestWhoMayNotHaveAnOfferCannotAcceptIt(t *testing.T) {
	_, provider, consumer := world(t)
	provider.offer("pcf", openPolicy)
	access := "others"
	if err := provider.store.PutDefinition(t.Context(), store.Definition{Ctx: provider.ctx, ID: "pcf", ContractPolicyID: "pcf", ContractPolicy: json.RawMessage(openPolicy),
		AccessPolicyID: &access, AccessPolicy: terms("x", "BPN-other"), Selector: store.SelectAssets([]string{"asset-pcf"})}); err != nil {
		t.Fatal(err)
	}
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", adminapi.OfferRequest{Counterparty: buyer})
	if err != nil {
		t.Fatal(err)
	}
	provider.wait(p.ID, "OFFERED", at(state.Offered))
	if _, err := consumer.engine.Accept(t.Context(), consumer.ctx, consumer.peer(p).ID, ""); err != nil {
		t.Fatal(err)
	}
	if p = provider.wait(p.ID, "TERMINATED", at(state.Terminated)); p.Reason == nil || p.Reason.Code != "policy-denied" || p.AgreementID != "" {
		t.Errorf("ended with %+v, agreement %q", p.Reason, p.AgreementID)
	}
}

// TestAWithdrawnOfferCannotBeAccepted: with the offer goes its access policy, and nobody can say any more whom it was for.
func TestAWithdrawnOfferCannotBeAccepted(t *testing.T) {
	_, provider, consumer := world(t)
	provider.offer("pcf", openPolicy)
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", adminapi.OfferRequest{Counterparty: buyer})
	if err != nil {
		t.Fatal(err)
	}
	provider.wait(p.ID, "OFFERED", at(state.Offered))
	n := consumer.peer(p)
	if err := provider.store.DeleteDefinition(t.Context(), provider.ctx, "pcf"); err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.engine.Accept(t.Context(), consumer.ctx, n.ID, ""); err != nil {
		t.Fatal(err)
	}
	if p = provider.wait(p.ID, "TERMINATED", at(state.Terminated)); p.Reason == nil || p.Reason.Code != "policy-denied" || !strings.Contains(p.Reason.Message, "withdrawn") || p.AgreementID != "" {
		t.Errorf("ended with %+v, agreement %q", p.Reason, p.AgreementID)
	}
}

func TestTerminationReachesTheOtherSide(t *testing.T) {
	_, provider, consumer := world(t)
	n := consumer.negotiate(provider.offer("pcf", openPolicy, approval(state.Finalized, 1, newApprover(t, "anna", "supplier"))))
	consumer.wait(n.ID, "VERIFIED", at(state.Verified))
	reason := &adminapi.Reason{Code: "terminated", Message: "no longer needed", By: "own"}
	if _, err := consumer.engine.CommandNegotiation(t.Context(), consumer.ctx, n.ID, state.CommandTerminate, reason); err != nil {
		t.Fatal(err)
	}
	n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated))
	p := provider.wait(provider.peer(n).ID, "TERMINATED", at(state.Terminated))
	if diff := cmp.Diff(&adminapi.Reason{Code: "counterparty-terminated", Message: "no longer needed", By: "counterparty"}, p.Reason); diff != "" {
		t.Error(diff)
	}
}

func TestDataPlaneThatRefusesEndsTheTransfer(t *testing.T) {
	_, provider, consumer := world(t)
	n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
	provider.flows.fail = errRefused
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
	if err != nil {
		t.Fatal(err)
	}
	tr = consumer.waitTransfer(tr.ID, "TERMINATED", transferAt(state.Terminated))
	if tr.Reason.By != "counterparty" || !strings.Contains(tr.Reason.Message, "no such backend") {
		t.Errorf("reason %+v", tr.Reason)
	}
}

func TestPolicyIsEvaluatedAgainForATransfer(t *testing.T) {
	who, provider, consumer := world(t)
	n := consumer.wait(consumer.negotiate(provider.offer("pcf", attestedPolicy)).ID, "FINALIZED", at(state.Finalized))
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2020-01-01T00:00:00Z"})
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
	if err != nil {
		t.Fatal(err)
	}
	tr = consumer.waitTransfer(tr.ID, "TERMINATED", transferAt(state.Terminated))
	if tr.Reason.Code != "policy-denied" {
		t.Errorf("reason %+v", tr.Reason)
	}
	if provider.flows.starts != 0 {
		t.Error("a flow was started")
	}
}
