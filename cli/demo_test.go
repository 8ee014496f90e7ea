// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kaphera/kaphera/client"
)

// stage is a platform on which the demo plays: what one call puts, others see.
type stage struct {
	*bundle
	backend *httptest.Server

	mu        sync.Mutex
	documents map[string][]byte
	late      *client.Participant // the disposable supplier
	lateSeen  int                 // how often it was asked for: it takes a while
	unchecked int                 // offers refused after the check was switched off: the cell takes a while
	assets    map[string]client.Asset
	secrets   map[string]string
	decisions int // handed in at the gate of the negotiation under way
	needed    int // decisions that it waits for
	// faults
	otherValue  bool // the data plane delivers another document
	openBackend bool // the backend lets everybody in
	lax         bool // the consumer concludes what it should refuse
	lateOffers  bool // the late supplier may offer
}

const writerKey, readerKey = "writer-key-0123456789", "reader-key-0123456789"

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{bundle: setup(t), needed: 1, documents: map[string][]byte{}, assets: map[string]client.Asset{}, secrets: map[string]string{}}
	s.backend = httptest.NewServer(http.HandlerFunc(s.serveBackend))
	t.Cleanup(s.backend.Close)
	s.answer("GET /api/v1/participants/supplier", supplier())
	s.answer("GET /api/v1/organizations/brandt-guss", client.Organization{Name: "brandt-guss", Spec: client.OrganizationSpec{DisplayName: "Brandt Guss GmbH"}})
	s.answer("GET /api/v1/use-cases/carbon-footprint", client.UseCase{Name: "carbon-footprint", Spec: client.UseCaseSpec{AssetType: "https://w3id.org/catenax/taxonomy#PcfExchange"}})
	s.answer("GET /api/v1/use-cases/quality-recall", client.UseCase{Name: "quality-recall", Spec: client.UseCaseSpec{AssetType: "https://w3id.org/catenax/taxonomy#QualityInvestigationNotification"}})
	s.answer("GET /api/v1/status", client.StatusReport{Participants: []client.StatusParticipant{}})
	for _, p := range []string{"supplier", disposable} {
		s.on("PUT /api/v1/participants/"+p+"/secrets/"+demoSecret, func(w http.ResponseWriter, r *http.Request) {
			var v client.Secret
			s.decode(r, &v)
			s.mu.Lock()
			s.secrets[p] = v.Value
			s.mu.Unlock()
			w.WriteHeader(http.StatusNoContent)
		})
		for _, asset := range []string{demoAsset, recallAsset, passportAsset} {
			s.on("PUT /api/v1/participants/"+p+"/assets/"+asset, func(w http.ResponseWriter, r *http.Request) {
				var v client.Asset
				s.decode(r, &v)
				s.mu.Lock()
				s.assets[p] = v
				s.mu.Unlock()
				s.reply(w, http.StatusOK, v)
			})
		}
		s.on("POST /api/v1/participants/"+p+"/offers", func(w http.ResponseWriter, _ *http.Request) { s.offer(w, p) })
	}
	s.on("GET /api/v1/participants/oem/catalog", func(w http.ResponseWriter, r *http.Request) {
		s.reply(w, http.StatusOK, client.CatalogItemList{Items: []client.CatalogItem{{OfferID: "offer-of-" + r.URL.Query().Get("counterparty"), AssetID: s.lastAsset(), UseCase: "carbon-footprint", Formats: []string{}, Sentences: []string{}}}})
	})
	s.on("POST /api/v1/participants/oem/negotiations", func(w http.ResponseWriter, r *http.Request) {
		var start client.NegotiationStart
		s.decode(r, &start)
		n := negotiation("REQUESTED")
		n.ID = "with-" + start.Counterparty
		s.reply(w, http.StatusCreated, n)
	})
	good := negotiation("REQUESTED", "AGREED", "VERIFIED", "FINALIZED")
	good.Traces = []client.Trace{trace("2026-06-01T00:00:00Z", true)}
	s.gate(good)
	s.on("GET /api/v1/participants/oem/negotiations/with-"+disposable+"/events", func(w http.ResponseWriter, r *http.Request) {
		n := negotiation("REQUESTED", "AGREED", "TERMINATED")
		n.Traces = []client.Trace{trace("2025-09-01T12:00:00Z", false)}
		n.Reason = client.Reason{Code: "policy-denied", By: "own", Message: "the attestation is 13 months old"}
		if s.lax {
			n = good
		}
		events(n)(w, r)
	})
	s.answer("POST /api/v1/participants/oem/transfers", client.Transfer{ID: "t1", State: "STARTED", AgreementID: "agreement-1", History: []client.Event{}})
	s.on("GET /api/v1/participants/oem/transfers/t1/data", s.data)
	s.on("PUT /api/v1/organizations/"+disposable, func(w http.ResponseWriter, _ *http.Request) { s.reply(w, http.StatusCreated, client.Organization{}) })
	s.on("DELETE /api/v1/organizations/"+disposable, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s.on("PUT /api/v1/participants/"+disposable, s.putLate)
	s.on("GET /api/v1/participants/"+disposable, s.getLate)
	s.on("DELETE /api/v1/participants/"+disposable, s.deleteLate)
	return s
}

// gate holds the negotiation with the supplier until as many decisions as are needed have been handed in by people who logged in.
func (s *stage) gate(good client.Negotiation) {
	held := negotiation("REQUESTED", "AGREED", "VERIFIED")
	held.Traces, held.CounterpartyPid = good.Traces, "provider-1"
	s.on("GET /api/v1/participants/oem/negotiations/with-supplier/events", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.decisions < s.needed {
			events(held)(w, r)
			return
		}
		s.decisions = 0
		events(good)(w, r)
	})
	s.answer("GET /api/v1/approvals", client.Approvals{Items: []client.Approval{waiting(s.T, "of-an-earlier-run", "release"), waiting(s.T, "provider-1", "release")}})
	s.on("POST /api/v1/participants/supplier/negotiations/provider-1/decisions", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.decisions++
		w.WriteHeader(http.StatusNoContent)
	})
	s.answer("POST /api/v1/approval-keys", client.ApprovalKey{Name: "key-1", Spec: client.ApprovalKeySpec{Subject: "sub", Name: "Somebody", Thumbprint: "print"}})
	s.loginPages()
}

func (s *stage) lastAsset() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assets["supplier"].ID
}

func (s *stage) decode(r *http.Request, into any) {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		s.Error(err)
	}
}

func (s *stage) reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *stage) serveBackend(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch key := r.Header.Get(backendKeyHeader); {
	case r.Method == http.MethodPut && key == writerKey:
		s.documents[r.URL.Path], _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet && (key == readerKey || s.openBackend):
		_, _ = w.Write(s.documents[r.URL.Path])
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// data is the data plane: it fetches from the backend with the key that the asset names.
func (s *stage) data(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	asset, key := s.assets["supplier"], s.secrets["supplier"]
	s.mu.Unlock()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, asset.DataAddress["baseUrl"], http.NoBody)
	if err != nil {
		s.Error(err)
		return
	}
	if asset.DataAddress["secretName"] == demoSecret {
		req.Header.Set(asset.DataAddress["authKey"], key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if s.otherValue {
		body = []byte(strings.Replace(string(body), `"pcfExcludingBiogenicUptake": 6.`, `"pcfExcludingBiogenicUptake": 7.`, 1))
	}
	_, _ = w.Write(body)
}

func (s *stage) offer(w http.ResponseWriter, p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == disposable && !s.lateOffers {
		if s.late.Spec.SelfCheck == "Off" {
			s.unchecked++
		}
		if s.unchecked < 3 {
			problem(w, client.Problem{Status: 403, Code: "policy-denied", Title: "Forbidden", Detail: "the attestation is 13 months old", Trace: trace("2025-09-01T12:00:00Z", false)})
			return
		}
	}
	s.reply(w, http.StatusCreated, client.Offer{ID: "offer-of-" + p, State: "Offered", Assets: []string{demoAsset}, ContractPolicy: json.RawMessage("{}")})
}

func (s *stage) putLate(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p client.Participant
	s.decode(r, &p)
	status := http.StatusOK
	if s.late == nil {
		status = http.StatusCreated
	}
	s.late, s.lateSeen = &p, 0
	s.reply(w, status, p)
}

func (s *stage) getLate(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late == nil {
		refuse(w, http.StatusNotFound, "not-found", "there is none")
		return
	}
	s.lateSeen++
	p := *s.late
	p.Status.Conditions = []client.Condition{{Type: "Active", Status: "True"}, {Type: "CredentialsHeld", Status: "False", Message: "credentials are on their way"}}
	if s.lateSeen > 2 {
		p.Status.Conditions[1].Status = "True"
	}
	if s.late.Deleting {
		s.late = nil
	}
	s.reply(w, http.StatusOK, p)
}

func (s *stage) deleteLate(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late == nil {
		refuse(w, http.StatusNotFound, "not-found", "there is none")
		return
	}
	s.late.Deleting = true
	w.WriteHeader(http.StatusNoContent)
}

func (s *stage) play(args ...string) result {
	s.Helper()
	return s.show("carbon-footprint", args...)
}

func (s *stage) show(name string, args ...string) result {
	s.Helper()
	keys := s.T.TempDir()
	for name, key := range map[string]string{"writer": writerKey, "reader": readerKey} {
		if err := os.WriteFile(filepath.Join(keys, name), []byte(key+"\n"), 0o600); err != nil {
			s.Fatal(err)
		}
	}
	return s.run(append([]string{"demo", "run", name, "--people", passwords(s.T), "--backend-url", s.backend.URL, "--backend-address", s.backend.URL,
		"--backend-writer-token-file", filepath.Join(keys, "writer"), "--backend-reader-token-file", filepath.Join(keys, "reader"), "--timeout", "2m"}, args...)...)
}

func TestTheDemoTellsTheWholeStory(t *testing.T) {
	s := newStage(t)
	for round := range 2 { // it can be run again
		s.lateSeen, s.unchecked = 0, 0
		r := s.play()
		if r.code != ExitOK {
			t.Fatalf("round %d: exit %d\n%s%s", round, r.code, r.out, r.err)
		}
		for _, words := range []string{
			"1. supplier puts a carbon footprint", "2. supplier offers it", "Offer offer-of-supplier: Offered", "waits for the governance authority", "gabriel sees: gate", "$ kaphera --context gabriel approvals trigger provider-1 --yes --offer", "--comment 'attestation seen'", "FINALIZED", "MembershipCredential of consumer", "Agreement      agreement-1",
			"Match.", "refused (401 Unauthorized)", "attestation is 13 months old", "value seen: 2025-09-01T12:00:00Z of provider", "what to do: Have the data quality attested again.",
			"switches its own check off", "Offer offer-of-" + disposable, "TERMINATED", "How everything stands", "https://console.example",
		} {
			if !strings.Contains(r.out, words) {
				t.Errorf("round %d lacks %q:\n%s", round, words, r.out)
			}
		}
		if strings.Contains(r.out+r.err, writerKey) || strings.Contains(r.out+r.err, readerKey) {
			t.Error("a key is shown")
		}
		if s.late != nil {
			t.Error("the disposable supplier is left over")
		}
	}
	// What it made of the disposable supplier.
	puts := s.called("PUT /api/v1/participants/" + disposable + " ")
	if len(puts) == 0 {
		puts = s.called("PUT /api/v1/participants/" + disposable)
	}
	var sent client.Participant
	if err := json.Unmarshal([]byte(puts[0][strings.Index(puts[0], "{"):]), &sent); err != nil {
		t.Fatal(err)
	}
	for _, c := range sent.Spec.Credentials {
		if c.Type == attestation && !strings.Contains(string(c.Claims), "2025-09-01T12:00:00Z") {
			t.Errorf("claims %s, want an attestation completed thirteen months before %s", c.Claims, noon)
		}
		if strings.Contains(string(c.Claims), "CAST1") {
			t.Errorf("claims %s are those of the other supplier", c.Claims)
		}
	}
}

func TestTheDemoWaitsForEnter(t *testing.T) {
	s := newStage(t)
	s.input = strings.Repeat("\n", 8)
	if r := s.play("--pause"); r.code != ExitOK || strings.Count(r.out, "Enter to go on") != 8 {
		t.Errorf("exit %d, paused %d times", r.code, strings.Count(r.out, "Enter to go on"))
	}
}

func TestTheDemoDoesNotClaimWhatItDidNotSee(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(s *stage)
		words string
		code  int
	}{
		"another value arrives":           {func(s *stage) { s.otherValue = true }, "is not the one put in", ExitFailed},
		"the backend is open to everyone": {func(s *stage) { s.openBackend = true }, "asking the backend directly was answered 200", ExitFailed},
		"the late supplier may offer":     {func(s *stage) { s.lateOffers = true }, "must not be able to offer", ExitFailed},
		"the consumer concludes it":       {func(s *stage) { s.lax = true }, "the consumer must refuse", ExitFailed},
		"the backend is gone":             {func(s *stage) { s.backend.Close() }, "the supplier's backend does not answer", ExitUnreachable},
		"there is no supplier": {func(s *stage) {
			s.on("GET /api/v1/participants/supplier", func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "not-found", "none") })
		}, `needs a participant "supplier"`, ExitNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c.fault(s)
			r := s.play()
			if r.code != c.code || !strings.Contains(r.err, c.words) {
				t.Errorf("exit %d, want %d %q:\n%s%s", r.code, c.code, c.words, r.out, r.err)
			}
			if s.late != nil {
				t.Error("the disposable supplier is left over")
			}
		})
	}
}

func TestBothCompaniesApprove(t *testing.T) {
	s := newStage(t)
	s.needed = 2
	r := s.show("quality-recall")
	if r.code != ExitOK || strings.Count(r.out, "approvals approve provider-1") != 2 || !strings.Contains(r.out, "--context renate") || !strings.Contains(r.out, "oem has the notification") {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	s.needed, s.decisions = 3, 0 // nobody else is asked
	if r := s.show("quality-recall", "--timeout", "1s"); r.code == ExitOK || strings.Contains(r.out, "has the notification") {
		t.Errorf("it claims an agreement that did not come about: %d %s", r.code, r.out)
	}
}

func TestTheDemoFindsAChangedRecord(t *testing.T) {
	s := newStage(t)
	lines, h := chainOf(t, aTrail...)
	s.trail(lines)
	s.answer("GET /api/v1/participants/supplier/audit/heads", map[string]any{"items": []any{h}})
	r := s.run("demo", "run", "audit")
	if r.code != ExitOK || !strings.Contains(r.out, "verified:") || !strings.Contains(r.out, "changes one record of it, 3") || !strings.Contains(r.out, "record 3 (line 3)") || !strings.Contains(r.out, "Found. Exit code 1") {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	lines, _ = chainOf(t, aTrail[:2]...)
	s.trail(lines)
	s.answer("GET /api/v1/participants/supplier/audit/heads", map[string]any{"items": []any{}})
	if r := s.run("demo", "run", "audit"); r.code != ExitFailed || !strings.Contains(r.err, "no agreement is on record") {
		t.Errorf("nothing to change: %d %s%s", r.code, r.out, r.err)
	}
}

func TestTheDemoNeedsAWayToTheBackend(t *testing.T) {
	s := newStage(t)
	if r := s.run("demo", "run", "carbon-footprint"); r.code != ExitUsage || !strings.Contains(r.err, "--kubeconfig") {
		t.Errorf("%d %s", r.code, r.err)
	}
	if r := s.run("demo", "run", "carbon-footprint", "--kubeconfig", "/absent"); r.code != ExitFailed || !strings.Contains(r.err, "/absent") {
		t.Errorf("%d %s", r.code, r.err)
	}
	if r := s.run("demo", "run", "recall"); r.code != ExitUsage || !strings.Contains(r.err, `"recall"`) || !strings.Contains(r.err, "quality-recall") {
		t.Errorf("%d %s", r.code, r.err)
	}
}
