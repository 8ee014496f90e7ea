// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/store"
)

const head = `"@context":["https://w3id.org/dspace/2025/1/context.jsonld"]`

// idle is a decider that does nothing by itself, so that a test decides.
type idle struct{}

func (idle) Negotiation(*store.Negotiation) dsp.Decision { return dsp.Decision{} }
func (idle) Transfer(*store.Transfer) dsp.Decision       { return dsp.Decision{} }

// as makes an Authorization of a party towards s, which shows all of its credentials.
func (s *side) as(did string) string {
	s.t.Helper()
	return token{did, s.did, []string{identity.TypeScope("MembershipCredential"), identity.TypeScope("AttestationCredential")}}.String()
}

// send makes a protocol call and returns status and body.
func (s *side) send(method, path, authorization, body string) (int, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base("")+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
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
		s.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
	}
	return res.StatusCode, out
}

// requested makes a negotiation on the provider side by hand and returns its process id.
func (s *side) requested(offerID, consumerPID string) string {
	s.t.Helper()
	status, body := s.send(http.MethodPost, "/negotiations/request", s.as(buyer), s.requestBody(offerID, consumerPID))
	if status != http.StatusCreated || body["@type"] != "ContractNegotiation" || body["state"] != "REQUESTED" || body["consumerPid"] != consumerPID {
		s.t.Fatalf("request answers %d %v", status, body)
	}
	return body["providerPid"].(string)
}

func (s *side) requestBody(offerID, consumerPID string) string {
	return `{` + head + `,"@type":"ContractRequestMessage","@id":"m-` + consumerPID + `","consumerPid":"` + consumerPID + `","callbackAddress":"http://127.0.0.1:1/x/",
		"offer":{"@type":"Offer","@id":"` + offerID + `","target":"asset-pcf","permission":[{"action":"use"}]}}`
}

func provider(t *testing.T) (who *people, s *side, offerID string) {
	who = newPeople()
	s = newSide(t, who, "supplier", supplier, func(o *dsp.Options) { o.Decider = idle{} })
	return who, s, s.offer("pcf", openPolicy)
}

// An issuer that is not reached ends nothing: who needs its credentials has the message for later. Who needs none of them does not notice.
func TestAnIssuerThatIsNotReachedEndsNothing(t *testing.T) {
	who, s, offerID := provider(t)
	cutOff := func(is bool) {
		who.Lock()
		defer who.Unlock()
		who.cutOff = is
	}
	before := s.requested(offerID, "c-0")
	cutOff(true)
	for what, call := range map[string][2]string{
		"a request":  {"/negotiations/request", s.requestBody(offerID, "c-1")},
		"an event":   {"/negotiations/" + before + "/events", `{` + head + `,"@type":"ContractNegotiationEventMessage","eventType":"ACCEPTED","providerPid":"` + before + `","consumerPid":"c-0"}`},
		"a catalog":  {"/catalog/request", `{` + head + `,"@type":"CatalogRequestMessage"}`},
		"a transfer": {"/transfers/request", `{` + head + `,"@type":"TransferRequestMessage","consumerPid":"t","agreementId":"none","format":"HttpData-PULL","callbackAddress":"http://x/"}`},
	} {
		if status, body := s.send(http.MethodPost, call[0], s.as(buyer), call[1]); status != http.StatusServiceUnavailable || body["code"] != "identity-unavailable" {
			t.Errorf("%s: %d %v", what, status, body)
		}
	}
	if status, body := s.send(http.MethodPost, "/catalog/request", s.as("did:web:nobody.example"), `{`+head+`,"@type":"CatalogRequestMessage"}`); status != http.StatusForbidden {
		t.Errorf("who shows nothing: %d %v", status, body)
	}
	termination := `{` + head + `,"@type":"ContractNegotiationTerminationMessage","providerPid":"` + before + `","consumerPid":"c-0"}`
	if status, body := s.send(http.MethodPost, "/negotiations/"+before+"/termination", s.as(buyer), termination); status/100 != 2 {
		t.Errorf("a termination, which needs no credential: %d %v", status, body)
	}
	cutOff(false)
	s.requested(offerID, "c-1")
}

func TestWhoMayDoWhat(t *testing.T) {
	who, s, offerID := provider(t)
	pid := s.requested(offerID, "c-1")
	stranger := "did:web:stranger.example"
	who.give(stranger, "MembershipCredential", nil)
	verification := `{` + head + `,"@type":"ContractAgreementVerificationMessage","providerPid":"` + pid + `","consumerPid":"c-1"}`
	for name, tc := range map[string]struct {
		method, path, authorization, body string
		status                            int
		errorType                         string
	}{
		"no token on the catalog":        {http.MethodPost, "/catalog/request", "", `{` + head + `,"@type":"CatalogRequestMessage"}`, 401, wire.CatalogError},
		"a forged token":                 {http.MethodPost, "/catalog/request", "Bearer x", `{` + head + `,"@type":"CatalogRequestMessage"}`, 401, wire.CatalogError},
		"no membership":                  {http.MethodPost, "/catalog/request", s.as("did:web:nobody.example"), `{` + head + `,"@type":"CatalogRequestMessage"}`, 403, wire.CatalogError},
		"an unknown dataset":             {http.MethodGet, "/catalog/datasets/none", s.as(buyer), "", 404, wire.CatalogError},
		"no token on a negotiation":      {http.MethodGet, "/negotiations/" + pid, "", "", 401, wire.NegotiationError},
		"somebody else's negotiation":    {http.MethodGet, "/negotiations/" + pid, s.as(stranger), "", 404, wire.NegotiationError},
		"an unknown negotiation":         {http.MethodGet, "/negotiations/none", s.as(buyer), "", 404, wire.NegotiationError},
		"a message of somebody else":     {http.MethodPost, "/negotiations/" + pid + "/agreement/verification", s.as(stranger), verification, 404, wire.NegotiationError},
		"a message out of order":         {http.MethodPost, "/negotiations/" + pid + "/agreement/verification", s.as(buyer), verification, 400, wire.NegotiationError},
		"an unknown offer":               {http.MethodPost, "/negotiations/request", s.as(buyer), s.requestBody("bad", "c-2"), 404, wire.NegotiationError},
		"an agreement that there is not": {http.MethodPost, "/transfers/request", s.as(buyer), `{` + head + `,"@type":"TransferRequestMessage","consumerPid":"t","agreementId":"none","format":"HttpData-PULL","callbackAddress":"http://x/"}`, 404, wire.TransferError},
		"an unknown transfer":            {http.MethodGet, "/transfers/none", s.as(buyer), "", 404, wire.TransferError},
		"a process id of another":        {http.MethodPost, "/negotiations/" + pid + "/agreement/verification", s.as(buyer), strings.ReplaceAll(verification, pid, "other"), 400, wire.NegotiationError},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.send(tc.method, tc.path, tc.authorization, tc.body)
			if status != tc.status || body["@type"] != tc.errorType || body["@context"] == nil || body["reason"] == nil {
				t.Errorf("answers %d %v, want %d %s", status, body, tc.status, tc.errorType)
			}
		})
	}
	who.Lock()
	who.unavailable = true
	who.Unlock()
	if status, _ := s.send(http.MethodGet, "/negotiations/"+pid, s.as(buyer), ""); status != http.StatusServiceUnavailable {
		t.Errorf("with identities unavailable a read answers %d", status)
	}
}

func TestHostileBodies(t *testing.T) {
	_, s, offerID := provider(t)
	good := s.requestBody(offerID, "c-1")
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"nothing":               {"", 400},
		"no JSON":               {"<xml/>", 400},
		"half a message":        {good[:len(good)/2], 400},
		"two messages":          {good + good, 400},
		"oversized":             {`{"x":"` + strings.Repeat("a", 2<<20) + `"}`, 413},
		"deep":                  {strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000), 400},
		"many constraints":      {strings.Replace(good, `{"action":"use"}`, `{"action":"use","constraint":[`+strings.Repeat(`{"leftOperand":"l","operator":"eq","rightOperand":"r"},`, 5000)+`{}]}`, 1), 400},
		"a number as pid":       {strings.Replace(good, `"consumerPid":"c-1"`, `"consumerPid":1`, 1), 400},
		"an endless pid":        {strings.Replace(good, `"consumerPid":"c-1"`, `"consumerPid":"`+strings.Repeat("x", 10_000)+`"`, 1), 400},
		"a callback of a file":  {strings.Replace(good, "http://127.0.0.1:1/x/", "file:///etc/passwd", 1), 400},
		"another asset":         {strings.Replace(good, `"target":"asset-pcf"`, `"target":"asset-other"`, 1), 400},
		"no context":            {strings.Replace(good, head+",", "", 1), 400},
		"SQL in the offer's id": {strings.Replace(good, offerID, "'; DROP TABLE control_plane.negotiations; --", 1), 404},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.send(http.MethodPost, "/negotiations/request", s.as(buyer), tc.body)
			if status != tc.status || body["@type"] != wire.NegotiationError {
				t.Errorf("answers %d %v, want %d", status, body, tc.status)
			}
		})
	}
	if status, body := s.send(http.MethodGet, "/negotiations/a%00b", s.as(buyer), ""); status != http.StatusNotFound {
		t.Errorf("a NUL in the address answers %d %v, want 404", status, body)
	}
	if n, err := s.store.Negotiations(t.Context(), s.ctx, store.Page{}); err != nil || len(n) != 0 {
		t.Errorf("left %d negotiations, %v", len(n), err)
	}
	s.requested(offerID, "c-1")
}

func TestRepeatedLateAndReorderedMessages(t *testing.T) {
	_, s, offerID := provider(t)
	pid := s.requested(offerID, "c-1")
	if again := s.requested(offerID, "c-1"); again != pid {
		t.Errorf("the same request made %s and %s", pid, again)
	}
	s.offer("pcf", attestedPolicy) // a repeat is answered as the first time, whatever has changed since
	if again := s.requested(offerID, "c-1"); again != pid {
		t.Errorf("the same request made %s and %s", pid, again)
	}
	reverted := s.offer("pcf", openPolicy)
	if reverted != offerID {
		t.Errorf("the same policy has the offer ids %s and %s", offerID, reverted)
	}
	message := func(messageType, id, more string) string {
		return fmt.Sprintf(`{%s,"@type":%q,"@id":%q,"providerPid":%q,"consumerPid":"c-1"%s}`, head, messageType, id, pid, more)
	}
	expect := func(what, path, body string, status int, step string) {
		t.Helper()
		if got, answer := s.send(http.MethodPost, "/negotiations/"+pid+path, s.as(buyer), body); got != status {
			t.Errorf("%s answers %d %v, want %d", what, got, answer, status)
		}
		if n, err := s.store.Negotiation(t.Context(), s.ctx, pid); err != nil || n.Step != step {
			t.Errorf("after %s the step is %s, want %s (%v)", what, n.Step, step, err)
		}
	}
	verification := message(wire.ContractVerification, "v", "")
	expect("a verification too early", "/agreement/verification", verification, 400, state.Requested)
	// The agreement can't be delivered (nobody listens at the callback), and the verification proves that it arrived all the same.
	if _, err := s.engine.CommandNegotiation(t.Context(), s.ctx, pid, state.CommandAgree, nil); err != nil {
		t.Fatal(err)
	}
	expect("the verification that overtakes the answer", "/agreement/verification", verification, 200, state.Verified)
	expect("the verification again", "/agreement/verification", verification, 200, state.Verified)
	expect("the verification in another message", "/agreement/verification", message(wire.ContractVerification, "v2", ""), 200, state.Verified)
	expect("an acceptance too late", "/events", message(wire.NegotiationEvent, "e", `,"eventType":"ACCEPTED"`), 400, state.Verified)
	expect("a finalization from the wrong side", "/events", message(wire.NegotiationEvent, "f", `,"eventType":"FINALIZED"`), 400, state.Verified)
	termination := message(wire.NegotiationTermination, "t", `,"code":"1","reason":["no longer needed"]`)
	expect("a termination, with a slash at the end", "/termination/", termination, 200, state.Terminated)
	expect("the termination again", "/termination", termination, 200, state.Terminated)
	expect("anything after the end", "/agreement/verification", message(wire.ContractVerification, "v3", ""), 400, state.Terminated)
}

// Eclipse EDC forgets what it sent when our reply overtakes its own record, and sends it again: an agreement with a new id, in a message with
// the old one; a verification, or a finalization, in a new message. Both sides must end with the same agreement.
func TestWhatACounterpartyForgotIsTakenAgain(t *testing.T) {
	who, s, offerID := provider(t)
	pid := s.requested(offerID, "c-1")
	if _, err := s.engine.CommandNegotiation(t.Context(), s.ctx, pid, state.CommandAgree, nil); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"v-1", "v-2"} {
		status, body := s.send(http.MethodPost, "/negotiations/"+pid+"/agreement/verification", s.as(buyer),
			`{`+head+`,"@type":"ContractAgreementVerificationMessage","@id":"`+id+`","providerPid":"`+pid+`","consumerPid":"c-1"}`)
		if status != http.StatusOK || body["state"] != "VERIFIED" {
			t.Errorf("verification %s: %d %v", id, status, body)
		}
		if id == "v-1" {
			if _, err := s.engine.CommandNegotiation(t.Context(), s.ctx, pid, state.CommandFinalize, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	consumer := newSide(t, who, "buyer", buyer, func(o *dsp.Options) { o.Decider = idle{} })
	status, body := consumer.send(http.MethodPost, "/negotiations/offers", consumer.as(supplier), `{`+head+`,"@type":"ContractOfferMessage","@id":"o-1","providerPid":"p-1",
		"callbackAddress":"http://127.0.0.1:1/x/","offer":{"@type":"Offer","@id":"offer","target":"asset-pcf","permission":[{"action":"use"}]}}`)
	if status != http.StatusCreated {
		t.Fatalf("offer: %d %v", status, body)
	}
	cid := body["consumerPid"].(string)
	command := func(on state.Trigger) {
		t.Helper()
		if _, err := consumer.engine.CommandNegotiation(t.Context(), consumer.ctx, cid, on, nil); err != nil {
			t.Fatal(err)
		}
	}
	agreed := func(id, action string) int {
		status, _ := consumer.send(http.MethodPost, "/negotiations/"+cid+"/agreement", consumer.as(supplier), `{`+head+`,"@type":"ContractAgreementMessage","@id":"a-1",
			"providerPid":"p-1","consumerPid":"`+cid+`","agreement":{"@type":"Agreement","@id":"`+id+`","target":"asset-pcf","assigner":"`+supplier+`","assignee":"`+buyer+`",
			"timestamp":"2026-11-24T20:21:50Z","permission":[{"action":"`+action+`"}]}}`)
		return status
	}
	command(state.CommandAccept)
	for _, tc := range []struct {
		id, action, kept string
		status           int
		verify           bool
	}{
		{"first", "use", "first", http.StatusOK, false},
		{"first", "use", "first", http.StatusOK, false},
		{"second", "use", "second", http.StatusOK, true},
		{"third", "use", "third", http.StatusOK, false},
		{"another", "read", "third", http.StatusBadRequest, false},
	} {
		if status := agreed(tc.id, tc.action); status != tc.status {
			t.Errorf("agreement %s: %d", tc.id, status)
		}
		a, err := consumer.store.AgreementOf(t.Context(), consumer.ctx, cid)
		if err != nil || a.ID != tc.kept {
			t.Errorf("after agreement %s: kept %+v, %v", tc.id, a, err)
		}
		if tc.verify {
			command(state.CommandVerify)
		}
	}
	n, err := consumer.store.Negotiation(t.Context(), consumer.ctx, cid)
	if err != nil || n.Step != state.Verifying || n.AgreementID != "third" {
		t.Errorf("%+v, %v", n, err)
	}
	for _, id := range []string{"f-1", "f-2"} {
		status, body := consumer.send(http.MethodPost, "/negotiations/"+cid+"/events", consumer.as(supplier),
			`{`+head+`,"@type":"ContractNegotiationEventMessage","@id":"`+id+`","providerPid":"p-1","consumerPid":"`+cid+`","eventType":"FINALIZED"}`)
		if status != http.StatusOK || body["state"] != "FINALIZED" {
			t.Errorf("finalization %s: %d %v", id, status, body)
		}
	}
	if n, err = consumer.store.Negotiation(t.Context(), consumer.ctx, cid); err != nil || states(n.History) != "OFFERED ACCEPTED AGREED VERIFIED FINALIZED" {
		t.Errorf("went through %s, %v", states(n.History), err)
	}
}

func TestVersionsAndInactiveParticipants(t *testing.T) {
	_, s, _ := provider(t)
	version := func() *http.Response {
		res, err := http.Get(s.server.URL + "/supplier/.well-known/dspace-version")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	if res := version(); res.StatusCode != http.StatusOK {
		t.Errorf("versions answer %d", res.StatusCode)
	}
	if err := s.store.PutParticipant(t.Context(), s.ctx, adminapi.Participant{DID: supplier, Profile: "pilot"}); err != nil {
		t.Fatal(err)
	}
	status, body := s.send(http.MethodPost, "/catalog/request", s.as(buyer), `{`+head+`,"@type":"CatalogRequestMessage"}`)
	if status != http.StatusServiceUnavailable || body["@type"] != wire.CatalogError {
		t.Errorf("an inactive participant answers %d %v", status, body)
	}
}

func TestCatalogPages(t *testing.T) {
	_, s, _ := provider(t)
	for i := range 7 {
		s.offer(fmt.Sprint("more-", i), openPolicy)
	}
	ids := map[string]bool{}
	next := "/catalog/request?offset=0&limit=3"
	for pages := 0; next != ""; pages++ {
		if pages == 10 {
			t.Fatal("the pages do not end")
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base("")+next, strings.NewReader(`{`+head+`,"@type":"CatalogRequestMessage"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", s.as(buyer))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, datasets, err := wire.ParseCatalog(raw)
		if err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		for _, d := range datasets {
			ids[d.ID] = true
		}
		next = ""
		for link := range strings.SplitSeq(res.Header.Get("Link"), ", ") {
			if strings.Contains(link, `rel="next"`) {
				next = strings.TrimPrefix(strings.TrimPrefix(strings.Split(link, ">")[0], "<"), s.base(""))
			}
		}
	}
	if len(ids) != 8 {
		t.Errorf("all pages together have %d datasets, want 8", len(ids))
	}
	for filter, status := range map[string]int{
		`[{"@type":"QuerySpec","offset":0,"limit":50,"sortOrder":"ASC","filterExpression":[]}]`:                                  200,
		`[{"filterExpression":[{"operandLeft":"https://w3id.org/edc/v0.0.1/ns/id","operator":"=","operandRight":"asset-pcf"}]}]`: 200,
		`[{"filterExpression":[{"operandLeft":"https://w3id.org/edc/v0.0.1/ns/name","operator":"like","operandRight":"%"}]}]`:    400,
		`["everything"]`: 400,
	} {
		if got, body := s.send(http.MethodPost, "/catalog/request", s.as(buyer), `{`+head+`,"@type":"CatalogRequestMessage","filter":`+filter+`}`); got != status {
			t.Errorf("filter %s answers %d %v, want %d", filter, got, body, status)
		}
	}
}

func TestShutdownWaitsForWhatIsUnderWay(t *testing.T) {
	who := newPeople()
	s := newSide(t, who, "supplier", supplier)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.engine.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
