// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/client"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// bundle is the program with an API that a test programs, call by call.
type bundle struct {
	*testing.T
	server *httptest.Server
	env    map[string]string
	home   string
	now    time.Time
	tty    bool
	asks   bool
	input  string

	mu      sync.Mutex
	answers map[string]http.HandlerFunc
	calls   []string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{T: t, home: t.TempDir(), now: noon, answers: map[string]http.HandlerFunc{}}
	b.server = httptest.NewServer(b)
	t.Cleanup(b.server.Close)
	b.env = map[string]string{"KAPHERA_API": b.server.URL, "KAPHERA_CLIENT_ID": "ci", "KAPHERA_CLIENT_SECRET": "ci-secret"}
	b.answer("GET /api/v1/info", client.Info{Issuer: b.server.URL + "/realm", Audience: "kaphera-api", CLIClientID: "kaphera-cli", ConsoleURL: "https://console.example", Version: "v"})
	b.answer("GET /realm/.well-known/openid-configuration", map[string]string{
		"issuer": b.server.URL + "/realm", "token_endpoint": b.server.URL + "/realm/token", "device_authorization_endpoint": b.server.URL + "/realm/device", "revocation_endpoint": b.server.URL + "/realm/revoke",
	})
	partners := client.PartnerList{Items: []client.Partner{{Name: "oem", Organization: "Rheintal Motoren AG", DID: oemDID}, {Name: "supplier", Organization: "Brandt Guss GmbH", DID: supplierDID}}}
	for _, p := range partners.Items {
		b.answer("GET /api/v1/participants/"+p.Name+"/partners", partners)
	}
	b.answer("POST /realm/token", map[string]any{"access_token": "a-token", "token_type": "Bearer", "expires_in": 300})
	return b
}

func (b *bundle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	call := r.Method + " " + r.URL.Path
	b.mu.Lock()
	b.calls = append(b.calls, strings.TrimSpace(call+" "+r.URL.RawQuery+" "+string(body)))
	answer := b.answers[call]
	b.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/api/") && r.URL.Path != "/api/v1/info" && r.Header.Get("Authorization") != "Bearer a-token" {
		refuse(w, http.StatusUnauthorized, "unauthenticated", "the access token is not valid here")
		return
	}
	if answer == nil {
		refuse(w, http.StatusNotFound, "not-found", "there is no "+call)
		return
	}
	answer(w, r)
}

func refuse(w http.ResponseWriter, status int, code, detail string) {
	problem(w, client.Problem{Status: int64(status), Code: code, Title: http.StatusText(status), Detail: detail, Next: "do what is right"})
}

func problem(w http.ResponseWriter, p client.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(int(p.Status))
	_ = json.NewEncoder(w).Encode(p)
}

func (b *bundle) on(call string, answer http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[call] = answer
}

// answer programs a constant answer: 201 to POST, 200 to everything else, 204 when there is no body.
func (b *bundle) answer(call string, body any) {
	b.on(call, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
			return
		case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/api/"):
			w.WriteHeader(http.StatusCreated)
		}
		_ = json.NewEncoder(w).Encode(body)
	})
}

func (b *bundle) called(prefix string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.calls {
		if strings.HasPrefix(c, prefix) {
			out = append(out, c)
		}
	}
	return out
}

// result of a run.
type result struct {
	out, err string
	code     int
}

func (b *bundle) run(args ...string) result {
	b.Helper()
	var out, errOut bytes.Buffer
	a := &app{
		in: strings.NewReader(b.input), out: &out, err: &errOut, tty: b.tty, asks: b.asks, env: func(k string) string { return b.env[k] }, home: b.home, now: func() time.Time { return b.now }, zone: time.FixedZone("CEST", 2*60*60),
		newID: func() string { return "id-1" }, version: "test", wait: func(int) time.Duration { return 0 }, poll: time.Millisecond,
	}
	code := a.run(b.Context(), args)
	return result{b.stable(out.String()), b.stable(errOut.String()), code}
}

// stable replaces what differs from run to run.
func (b *bundle) stable(s string) string {
	return strings.NewReplacer(b.server.URL, "https://api.example", b.home, "HOME", b.server.Listener.Addr().String(), "api.example").Replace(s)
}

// golden compares with a file under testdata.
func (b *bundle) golden(name string, r result) {
	b.Helper()
	got := fmt.Sprintf("%s-- err --\n%s-- exit %d --\n", r.out, r.err, r.code)
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		b.Errorf("%s (run with -update if it is meant):\n%s", name, diff)
	}
}

// events answers a watch with one event for each negotiation.
func events(all ...client.Negotiation) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, n := range all {
			raw, _ := json.Marshal(n)
			_, _ = fmt.Fprintf(w, "event: negotiation\ndata: %s\n\n", raw)
		}
	}
}

const (
	supplierDID = "did:web:shared.example:brandt-guss"
	oemDID      = "did:web:shared.example:rheintal-motoren"
)

// negotiation in the states given, a second apart.
func negotiation(states ...string) client.Negotiation {
	n := client.Negotiation{ID: "n1", Role: "consumer", Counterparty: supplierDID, AssetID: "pcf", OfferID: "o1", CreatedAt: noon, UpdatedAt: noon, History: []client.Event{}}
	for i, s := range states {
		n.State = s
		n.History = append(n.History, client.Event{At: noon.Add(time.Duration(i) * time.Second), State: s})
	}
	if n.State == "FINALIZED" {
		n.AgreementID = "agreement-1"
	}
	return n
}

func trace(age string, allowed bool) client.Trace {
	t := client.Trace{Phase: "negotiation", By: oemDID, Policy: "ab12", At: noon.Add(500 * time.Millisecond), Allowed: allowed, Checks: []client.Check{
		{Sentence: "The consumer is an active member of the dataspace.", LeftOperand: "Membership", Operator: "eq", RightOperand: json.RawMessage(`"active"`), Subject: "consumer", Party: oemDID,
			Value: "active", CredentialType: "MembershipCredential", Credential: "urn:uuid:membership", Satisfied: true, Path: "$.permission[0].constraint[0]"},
		{Sentence: "The provider's attestation is younger than 12 months.", LeftOperand: "AttestationAge", Operator: "lt", RightOperand: json.RawMessage(`"P12M"`), Subject: "provider", Party: supplierDID,
			Value: age, CredentialType: attestation, Credential: "urn:uuid:attestation", Satisfied: allowed, Path: "$.permission[0].constraint[1]"},
	}}
	if !allowed {
		t.Checks[1].Reason, t.Checks[1].Remedy = "it is 13 months old", "Have the data quality attested again."
	}
	return t
}
