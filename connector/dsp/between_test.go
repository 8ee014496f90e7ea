// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store"
)

// terms are an offer for the asset of these tests that the buyer's number limits.
func terms(id, number string) json.RawMessage {
	return json.RawMessage(`{"@id":"` + id + `","@type":"Offer","target":"asset-pcf","assigner":"` + supplier + `","permission":[{"action":"use","constraint":[
		{"leftOperand":"https://example.org/policy/bpn","operator":"eq","rightOperand":"` + number + `"}]}]}`)
}

// TestSeveralRoundsOfCounterOffers: request, counter-offer, counter-request, counter-offer, acceptance; what is agreed are the last terms.
func TestSeveralRoundsOfCounterOffers(t *testing.T) {
	_, provider, consumer := world(t, func(o *dsp.Options) { o.Decider = idle{} })
	offerID := provider.offer("pcf", openPolicy)
	for _, s := range []*side{provider, consumer} {
		s.revise("recall", openPolicy)
	}
	n := consumer.negotiate(offerID)
	consumer.wait(n.ID, "REQUESTED", at(state.Requested))
	pid := provider.peer(consumer.wait(n.ID, "the provider's process id", func(n *store.Negotiation) bool { return n.CounterpartyPID != "" })).ID
	counter := func(s *side, id string, offer json.RawMessage) {
		t.Helper()
		if _, err := s.engine.Counter(t.Context(), s.ctx, id, offer); err != nil {
			t.Fatal(err)
		}
	}
	both := func(step string) {
		t.Helper()
		provider.wait(pid, step, at(step))
		consumer.wait(n.ID, step, at(step))
	}
	named := func(want bool) {
		t.Helper()
		for s, id := range map[*side]string{provider: pid, consumer: n.ID} {
			if row, err := s.store.Negotiation(t.Context(), s.ctx, id); err != nil || (row.Revision != nil) != want {
				t.Errorf("to the %s the terms are those of revision %+v, %v", s.ctx, row.Revision, err)
			}
		}
	}
	named(true)
	counter(provider, pid, terms("round-1", "BPN-1"))
	both(state.Offered)
	named(false)
	counter(consumer, n.ID, terms("round-2", "BPN-"+buyer))
	both(state.Requested)
	if p, err := provider.store.Negotiation(t.Context(), provider.ctx, pid); err != nil || p.Denial == nil || p.Denial.Code != "offer-changed" {
		t.Errorf("terms of the consumer's own are not marked as such: %+v, %v", p, err)
	}
	counter(provider, pid, terms("round-3", "BPN-"+buyer))
	both(state.Offered)
	for on, s := range map[state.Trigger]*side{state.CommandAgree: provider, state.CommandVerify: consumer} { // not now
		id := map[*side]string{provider: pid, consumer: n.ID}[s]
		if _, err := s.engine.CommandNegotiation(t.Context(), s.ctx, id, on, nil); err == nil {
			t.Errorf("%s while OFFERED", on)
		}
	}
	if _, err := consumer.engine.Counter(t.Context(), consumer.ctx, n.ID, json.RawMessage(strings.Replace(string(terms("x", "y")), "asset-pcf", "asset-other", 1))); err == nil {
		t.Error("a counter-request about another asset")
	}
	for _, do := range []struct {
		s    *side
		on   state.Trigger
		then string
	}{{consumer, state.CommandAccept, state.Accepted}, {provider, state.CommandAgree, state.Agreed}, {consumer, state.CommandVerify, state.Verified}, {provider, state.CommandFinalize, state.Finalized}} {
		id := map[*side]string{provider: pid, consumer: n.ID}[do.s]
		if _, err := do.s.engine.CommandNegotiation(t.Context(), do.s.ctx, id, do.on, nil); err != nil {
			t.Fatal(err)
		}
		both(do.then)
	}
	const all = "REQUESTED OFFERED REQUESTED OFFERED ACCEPTED AGREED VERIFIED FINALIZED"
	var agreements [2]*store.Agreement
	for i, s := range []*side{provider, consumer} {
		id := map[*side]string{provider: pid, consumer: n.ID}[s]
		if row := s.wait(id, "the end", at(state.Finalized)); states(row.History) != all || row.OfferID != "round-3" {
			t.Errorf("%s went through %s about %s", s.ctx, states(row.History), row.OfferID)
		}
		a, err := s.store.AgreementOf(t.Context(), s.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		agreements[i] = a
	}
	if p, c := agreements[0], agreements[1]; p.ID != c.ID || string(p.Agreement) != string(c.Agreement) || !strings.Contains(string(p.Agreement), "BPN-"+buyer) {
		t.Errorf("the agreements are %s and %s", p.Agreement, c.Agreement)
	}
}

// TestACounterRequestStaysWithItsAsset: another asset's offer, which is easier to get, must not be agreed for this one.
func TestACounterRequestStaysWithItsAsset(t *testing.T) {
	_, provider, consumer := world(t)
	provider.offer("pcf", attestedPolicy)
	easy := provider.offer("easy", openPolicy)
	p, err := provider.engine.OfferTo(t.Context(), provider.ctx, "pcf", adminapi.OfferRequest{Counterparty: buyer, Policy: terms("first", "BPN-"+buyer)})
	if err != nil {
		t.Fatal(err)
	}
	provider.wait(p.ID, "OFFERED", at(state.Offered))
	n := consumer.peer(p)
	request := func(target string) (int, map[string]any) {
		return provider.send(http.MethodPost, "/negotiations/"+p.ID+"/request", provider.as(buyer), `{`+head+`,"@type":"ContractRequestMessage","providerPid":"`+p.ID+`","consumerPid":"`+n.ID+`",
			"offer":{"@type":"Offer","@id":"`+easy+`"`+target+`,"permission":[{"action":"use"}]}}`)
	}
	if status, body := request(`,"target":"asset-easy"`); status != http.StatusBadRequest {
		t.Errorf("another asset's offer answers %d %v", status, body)
	}
	if row := provider.wait(p.ID, "OFFERED", at(state.Offered)); row.OfferID != p.OfferID {
		t.Errorf("the offer is now %s", row.OfferID)
	}
	if status, body := request(""); status != http.StatusOK {
		t.Errorf("answers %d %v", status, body)
	}
	if row := provider.wait(p.ID, "REQUESTED", at(state.Requested)); row.Denial == nil || row.Denial.Code != "offer-changed" || row.Waiting == "" || row.AgreementID != "" {
		t.Errorf("%+v", row)
	}
}

// TestRepliesThatOvertakeTheAnswer: the agreement and the start arrive while the requests that they reply to are still unanswered.
func TestRepliesThatOvertakeTheAnswer(t *testing.T) {
	_, provider, consumer := world(t)
	replied := map[string]chan struct{}{"/negotiations/request": make(chan struct{}), "/transfers/request": make(chan struct{})}
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		for path, reply := range replied {
			if strings.HasSuffix(r.URL.Path, path) {
				provider.engine.Handler().ServeHTTP(hold{w, make(chan struct{}, 1), reply}, r)
				return false
			}
		}
		return true
	})
	consumer.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		for suffix, path := range map[string]string{"/agreement": "/negotiations/request", "/start": "/transfers/request"} {
			if strings.HasSuffix(r.URL.Path, suffix) {
				consumer.engine.Handler().ServeHTTP(w, r)
				close(replied[path])
				return false
			}
		}
		return true
	})
	n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
	provider.wait(provider.peer(n).ID, "FINALIZED", at(state.Finalized))
	if got := states(n.History); got != "REQUESTED AGREED VERIFIED FINALIZED" {
		t.Errorf("went through %s", got)
	}
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
	if err != nil {
		t.Fatal(err)
	}
	tr = consumer.waitTransfer(tr.ID, "STARTED", func(t *store.Transfer) bool { return t.Step == state.Started && t.CounterpartyPID != "" })
	if got := states(tr.History); got != "REQUESTED STARTED" {
		t.Errorf("went through %s", got)
	}
	if _, err := consumer.store.DataAddress(t.Context(), consumer.ctx, tr.ID); err != nil {
		t.Errorf("the address: %v", err)
	}
	provider.waitTransfer(tr.CounterpartyPID, "STARTED", transferAt(state.Started))
}

// TestAProcessReadBeforeTheAnswer: the provider has taken a message and reads the consumer's process before its own answer to it is there.
func TestAProcessReadBeforeTheAnswer(t *testing.T) {
	_, provider, consumer := world(t)
	held, reads := map[string]chan struct{}{}, make(chan chan struct{}, 3)
	for _, path := range []string{"/negotiations/request", "/transfers/request", "/termination"} {
		held[path] = make(chan struct{})
		reads <- held[path]
	}
	taken := make(chan struct{}, 8)
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		for path, read := range held {
			if strings.HasSuffix(r.URL.Path, path) {
				provider.engine.Handler().ServeHTTP(hold{w, taken, read}, r)
				return false
			}
		}
		return true
	})
	consumer.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && !strings.Contains(r.URL.Path, "/kaphera/") {
			close(<-reads)
		}
		return true
	})
	shown := func(kind, id, step string) {
		t.Helper()
		<-taken // then only the answer is to come, for which the consumer waits some seconds
		status, body := consumer.send(http.MethodGet, "/"+kind+"/"+id, consumer.as(supplier), "")
		if status != http.StatusOK || body["consumerPid"] != id || body["providerPid"] == nil || step != "" && body["state"] != step {
			t.Errorf("%s: %d %v", kind, status, body)
		}
	}
	n := consumer.negotiate(provider.offer("pcf", openPolicy))
	shown("negotiations", n.ID, "")
	n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
	if err != nil {
		t.Fatal(err)
	}
	shown("transfers", tr.ID, "")
	tr = consumer.waitTransfer(tr.ID, "STARTED", func(t *store.Transfer) bool { return t.Step == state.Started && t.CounterpartyPID != "" })
	reason := &adminapi.Reason{Code: "terminated", By: "own", Message: "enough"}
	if _, err := consumer.engine.CommandTransfer(t.Context(), consumer.ctx, tr.ID, state.CommandTerminate, reason); err != nil {
		t.Fatal(err)
	}
	provider.waitTransfer(tr.CounterpartyPID, "TERMINATED", transferAt(state.Terminated))
	shown("transfers", tr.ID, state.Terminated)
}

// hold says that there is an answer, and sends it only once until is closed.
type hold struct {
	http.ResponseWriter
	taken chan<- struct{}
	until <-chan struct{}
}

func (h hold) WriteHeader(status int) {
	h.taken <- struct{}{}
	<-h.until
	h.ResponseWriter.WriteHeader(status)
}

// TestACounterpartyThatIsNotReadyYet: Eclipse EDC answers 409 to an agreement or a start that comes before it has stored its own state; while a participant
// moves to another cell an ingress controller answers 404 to a request.
func TestACounterpartyThatIsNotReadyYet(t *testing.T) {
	for _, status := range []int{http.StatusConflict, http.StatusNotFound, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			_, provider, consumer := world(t)
			var early sync.Map
			notReady := func(w http.ResponseWriter, r *http.Request) bool {
				if !slices.ContainsFunc([]string{"/agreement", "/start", "/negotiations/request", "/transfers/request"}, func(p string) bool { return strings.HasSuffix(r.URL.Path, p) }) {
					return true
				}
				count, _ := early.LoadOrStore(r.URL.Path, new(atomic.Int32))
				if count.(*atomic.Int32).Add(1) > 3 {
					return true
				}
				w.WriteHeader(status)
				return false
			}
			consumer.intercept(notReady)
			provider.intercept(notReady)
			n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
			tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
			if err != nil {
				t.Fatal(err)
			}
			consumer.waitTransfer(tr.ID, "STARTED", transferAt(state.Started))
			if provider.flows.starts != 1 {
				t.Errorf("%d flows were started", provider.flows.starts)
			}
		})
	}
}

// TestRepeatedLateAndReorderedTransferMessages plays the consumer of a transfer by hand.
func TestRepeatedLateAndReorderedTransferMessages(t *testing.T) {
	_, provider, consumer := world(t)
	n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
	consumer.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/transfers/") { // answers nothing: its messages are made below
			w.WriteHeader(http.StatusServiceUnavailable)
			return false
		}
		return true
	})
	request := `{` + head + `,"@type":"TransferRequestMessage","@id":"r","consumerPid":"t-1","agreementId":"` + n.AgreementID + `","format":"HttpData-PULL","callbackAddress":"` + consumer.base("") + `"}`
	ask := func(body string) (int, string) {
		status, answer := provider.send(http.MethodPost, "/transfers/request", provider.as(buyer), body)
		pid, _ := answer["providerPid"].(string)
		return status, pid
	}
	status, pid := ask(request)
	if status != http.StatusCreated || pid == "" {
		t.Fatalf("answers %d %s", status, pid)
	}
	for what, body := range map[string]string{"again": request, "again under another message id": strings.Replace(request, `"r"`, `"r2"`, 1), "again without a message id": strings.Replace(request, `"@id":"r",`, "", 1)} {
		if status, again := ask(body); status != http.StatusCreated || again != pid {
			t.Errorf("the request %s answers %d %s, want 201 %s", what, status, again, pid)
		}
	}
	if status, _ := ask(strings.Replace(request, n.AgreementID, "other", 1)); status != http.StatusBadRequest {
		t.Errorf("the process id for another agreement answers %d", status)
	}
	expect := func(what, verb, id string, status int, step string) {
		t.Helper()
		messageType := map[string]string{"start": wire.TransferStart, "suspension": wire.TransferSuspension, "completion": wire.TransferCompletion, "termination": wire.TransferTermination}[verb]
		body := fmt.Sprintf(`{%s,"@type":%q,"@id":%q,"providerPid":%q,"consumerPid":"t-1"}`, head, messageType, id, pid)
		if got, answer := provider.send(http.MethodPost, "/transfers/"+pid+"/"+verb, provider.as(buyer), body); got != status {
			t.Errorf("%s answers %d %v, want %d", what, got, answer, status)
		}
		if tr, err := provider.store.Transfer(t.Context(), provider.ctx, pid); err != nil || !strings.HasPrefix(tr.Step, step) {
			t.Errorf("after %s the step is %s, want %s (%v)", what, tr.Step, step, err)
		}
	}
	provider.waitTransfer(pid, "STARTING", transferAt(state.Starting)) // the start is never acknowledged
	expect("a suspension that overtakes the answer to the start", "suspension", "s", http.StatusOK, state.Suspended)
	expect("the suspension again", "suspension", "s", http.StatusOK, state.Suspended)
	expect("a completion while suspended", "completion", "c0", http.StatusBadRequest, state.Suspended)
	expect("the restart", "start", "s1", http.StatusOK, "RESUM")
	expect("the suspension again, late", "suspension", "s", http.StatusOK, "RESUM")
	expect("the restart again", "start", "s1", http.StatusOK, "RESUM")
	expect("the completion", "completion", "c", http.StatusOK, state.Completed)
	expect("the completion again", "completion", "c", http.StatusOK, state.Completed)
	expect("the first suspension again, very late", "suspension", "s", http.StatusOK, state.Completed)
	expect("a termination after the end", "termination", "t", http.StatusBadRequest, state.Completed)
	expect("a start after the end", "start", "s2", http.StatusBadRequest, state.Completed)
	tr := provider.waitTransfer(pid, "a completed flow", func(t *store.Transfer) bool { return t.Flow == "" })
	if got := states(tr.History); got != "REQUESTED STARTED SUSPENDED STARTED COMPLETED" {
		t.Errorf("went through %s", got)
	}
}

// TestTheVersionEndpointLeadsToTheConnector: a DID document, or a person, may name it instead of the address (DSP 2025-1 §5.1).
func TestTheVersionEndpointLeadsToTheConnector(t *testing.T) {
	who, provider, consumer := world(t)
	offerID := provider.offer("pcf", openPolicy)
	endpoint := provider.server.URL + "/supplier/.well-known/dspace-version"
	who.Lock()
	who.endpoints[supplier] = endpoint
	who.Unlock()
	for _, address := range []string{"", endpoint} {
		n, err := consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offerID, Address: address})
		if err != nil {
			t.Fatal(err)
		}
		if n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized)); n.Address != provider.base("") {
			t.Errorf("the address is %s", n.Address)
		}
	}
	res, err := http.Get(endpoint) // without a token
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var versions struct {
		ProtocolVersions []map[string]any `json:"protocolVersions"`
	}
	if err := json.NewDecoder(res.Body).Decode(&versions); err != nil || res.StatusCode != http.StatusOK || len(versions.ProtocolVersions) != 1 {
		t.Fatalf("%d %+v, %v", res.StatusCode, versions, err)
	}
	if v := versions.ProtocolVersions[0]; v["version"] != "2025-1" || v["path"] != "/dsp/2025-1" || v["binding"] != "HTTPS" || v["serviceId"] != supplier+"#pilot" {
		t.Errorf("%+v", v)
	}
}

// TestTheWholeCatalogIsRead over its pages, and no more than that.
func TestTheWholeCatalogIsRead(t *testing.T) {
	_, provider, consumer := world(t)
	const assets = 7
	for i := range assets {
		provider.offer(fmt.Sprint("a", i), openPolicy)
	}
	var pages atomic.Int32
	link := ""
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/catalog/request") {
			return true
		}
		pages.Add(1)
		if link != "" {
			w.Header().Set("Link", link)
			_, _ = io.WriteString(w, `{`+head+`,"@id":"c","@type":"Catalog"}`)
			return false
		}
		if r.URL.RawQuery == "" {
			r.URL.RawQuery = "limit=3"
		}
		return true
	})
	fetch := func() (int, error) {
		pages.Store(0)
		datasets, _, err := consumer.engine.FetchCatalog(t.Context(), consumer.ctx, "", supplier, "")
		return len(datasets), err
	}
	if n, err := fetch(); n != assets || err != nil || pages.Load() != 3 {
		t.Errorf("%d datasets in %d pages, %v", n, pages.Load(), err)
	}
	link = `<http://elsewhere.example/catalog/request?offset=1>; rel="next"`
	if n, err := fetch(); n != 0 || err != nil || pages.Load() != 1 {
		t.Errorf("a page elsewhere: %d datasets in %d pages, %v", n, pages.Load(), err)
	}
	for _, query := range []string{"offset=-1", "limit=0", "limit=x", "limit=1001", "offset=99999999999"} {
		link = ""
		if status, body := provider.send(http.MethodPost, "/catalog/request?"+query, provider.as(buyer), `{`+head+`,"@type":"CatalogRequestMessage"}`); status != http.StatusBadRequest || body["@type"] != wire.CatalogError {
			t.Errorf("%s answers %d %v", query, status, body)
		}
	}
	if status, body := provider.send(http.MethodPost, "/catalog/request?offset=1000000", provider.as(buyer), `{`+head+`,"@type":"CatalogRequestMessage"}`); status != http.StatusOK || body["dataset"] != nil {
		t.Errorf("a page after the end answers %d %v", status, body)
	}
}

// TestPackedMessages: requests and answers may be gzip (DSP 2025-1, HTTPS binding).
func TestPackedMessages(t *testing.T) {
	_, s, offerID := provider(t)
	for i := range 20 {
		s.offer(fmt.Sprint("more", i), openPolicy)
	}
	call := func(path, message string) *http.Response {
		t.Helper()
		var b bytes.Buffer
		gz := gzip.NewWriter(&b)
		_, _ = io.WriteString(gz, message)
		_ = gz.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base("")+path, &b)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", s.as(buyer))
		req.Header.Set("Content-Encoding", "gzip")
		req.Header.Set("Accept-Encoding", "gzip")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	res := call("/catalog/request", `{`+head+`,"@type":"CatalogRequestMessage"}`)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("answers %d, %s", res.StatusCode, res.Header.Get("Content-Encoding"))
	}
	gz, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	if _, datasets, err := wire.ParseCatalog(raw); err != nil || len(datasets) != 21 {
		t.Errorf("%d datasets, %v", len(datasets), err)
	}
	if res := call("/negotiations/request", s.requestBody(offerID, "c-1")); res.StatusCode != http.StatusCreated {
		t.Errorf("a packed request answers %d", res.StatusCode)
	}
	bomb := strings.Replace(s.requestBody(offerID, "c-2"), `"consumerPid"`, `"x":"`+strings.Repeat("a", 64<<20)+`","consumerPid"`, 1)
	if res := call("/negotiations/request", bomb); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a bomb answers %d", res.StatusCode)
	}
}

// TestOneSenderLeavesRoomForOthers: a sender whose wallet answers slowly waits for itself only.
func TestOneSenderLeavesRoomForOthers(t *testing.T) {
	const share = 3
	who := newPeople()
	s := newSide(t, who, "supplier", supplier, func(o *dsp.Options) { o.PerSender = share })
	other := "did:web:other.example"
	who.give(other, "MembershipCredential", nil)
	release := make(chan struct{})
	who.Lock()
	who.slow = map[string]chan struct{}{buyer: release}
	who.Unlock()
	statuses := make(chan int, share+1)
	for range share + 1 {
		go func() {
			status := 0
			defer func() { statuses <- status }() // also when send gives the test up
			status, _ = s.send(http.MethodGet, "/negotiations/none", s.as(buyer), "")
		}()
	}
	if status := <-statuses; status != http.StatusTooManyRequests { // the others are waiting for the wallet
		t.Errorf("one more than its share answers %d", status)
	}
	if status, _ := s.send(http.MethodGet, "/negotiations/none", s.as(other), ""); status != http.StatusNotFound {
		t.Errorf("meanwhile another sender gets %d", status)
	}
	close(release)
	for range share {
		if status := <-statuses; status != http.StatusNotFound {
			t.Errorf("its own messages answer %d", status)
		}
	}
	if status, _ := s.send(http.MethodGet, "/negotiations/none", s.as(buyer), ""); status != http.StatusNotFound {
		t.Errorf("afterwards it gets %d", status)
	}
}

// TestOneParticipantLeavesRoomForOthers: requests to a participant from many senders, all of whose wallets answer slowly, wait for each other, and the next
// one is told so in the protocol's words; another participant of the connector answers at once.
func TestOneParticipantLeavesRoomForOthers(t *testing.T) {
	const share = 3
	who := newPeople()
	s := newSide(t, who, "supplier", supplier, func(o *dsp.Options) { o.Requests = limits.NewShares(limits.Share{Name: "requests", Most: share}) })
	if err := s.store.PutParticipant(t.Context(), "quiet", adminapi.Participant{DID: "did:web:quiet.example", Profile: "pilot", Active: true}); err != nil {
		t.Fatal(err)
	}
	release, slow := make(chan struct{}), map[string]chan struct{}{}
	type reply struct {
		status int
		body   string
	}
	replies := make(chan reply, share+1)
	senders := make([]string, share+1)
	for i := range senders {
		senders[i] = fmt.Sprintf("did:web:sender-%d.example", i)
		who.give(senders[i], "MembershipCredential", nil)
		slow[senders[i]] = release
	}
	who.Lock()
	who.slow = slow
	who.Unlock()
	for _, sender := range senders {
		go func() {
			var got reply
			defer func() { replies <- got }() // also when send gives the test up
			var body map[string]any
			got.status, body = s.send(http.MethodGet, "/negotiations/none", s.as(sender), "")
			got.body = fmt.Sprint(body)
		}()
	}
	if got := <-replies; got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, wire.NegotiationError) || !strings.Contains(got.body, "supplier has 3 requests under way") {
		t.Errorf("one more than its share: %+v", got)
	}
	res, err := http.Get(s.server.URL + "/quiet/dsp/2025-1/negotiations/none")
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("meanwhile another participant answers %d", res.StatusCode)
	}
	close(release)
	for range share {
		if got := <-replies; got.status != http.StatusNotFound {
			t.Errorf("its own requests answer %+v", got)
		}
	}
}

func TestCounterRefusals(t *testing.T) {
	_, s, offerID := provider(t)
	pid := s.requested(offerID, "c-1")
	for name, tc := range map[string]struct {
		id, offer string
		status    int
	}{
		"no such negotiation": {"none", string(terms("x", "y")), http.StatusNotFound},
		"no JSON":             {pid, "{", http.StatusUnprocessableEntity},
		"no target":           {pid, `{"@id":"x","@type":"Offer","permission":[{"action":"use"}]}`, http.StatusUnprocessableEntity},
	} {
		var refusal *dsp.RefusalError
		if _, err := s.engine.Counter(t.Context(), s.ctx, tc.id, json.RawMessage(tc.offer)); !errors.As(err, &refusal) || refusal.Status != tc.status {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.engine.CommandNegotiation(t.Context(), s.ctx, pid, state.CommandTerminate, nil); err != nil {
		t.Fatal(err)
	}
	var refusal *dsp.RefusalError
	if _, err := s.engine.Counter(t.Context(), s.ctx, pid, terms("x", "y")); !errors.As(err, &refusal) || refusal.Status != http.StatusConflict {
		t.Errorf("after the end: %v", err)
	}
}
