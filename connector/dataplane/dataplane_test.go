// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childEnv); dsn != "" {
		child(dsn)
	}
	pgtest.Main(m)
}

const (
	internalToken = "internal-token-of-the-test"
	backendKey    = "key-of-the-backend"
)

type secrets map[string]string

func (s secrets) Secret(_ context.Context, ctx, alias string, _ time.Time) (string, error) {
	v, ok := s[ctx+"/"+alias]
	if !ok {
		return "", fmt.Errorf("no secret %s", alias)
	}
	return v, nil
}

// bundle is a data plane with its database, a backend and a control plane's client.
type bundle struct {
	deps     Deps
	plane    *server
	public   *httptest.Server
	internal *httptest.Server
	backend  *httptest.Server
	client   *dps.Client
	now      atomic.Pointer[time.Time]
	got      atomic.Pointer[http.Request] // what the backend saw last
	answer   atomic.Pointer[http.HandlerFunc]
	metrics  *prometheus.Registry
	super    *pgxpool.Pool // the test looks past row security
}

func setup(t *testing.T, change ...func(*Deps)) *bundle {
	t.Helper()
	dsn := pgtest.NewDatabase(t)
	cc, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), cc, store.Grants{}); err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	b := &bundle{metrics: prometheus.NewRegistry()}
	if b.super, err = pgxpool.New(t.Context(), pgtest.Superuser(t, dsn)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.super.Close)
	start := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	b.now.Store(&start)
	b.backend = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.got.Store(r)
		if h := b.answer.Load(); h != nil {
			(*h)(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Set-Cookie", "inside=1")
		_, _ = io.WriteString(w, `{"at":"`+r.URL.EscapedPath()+`"}`) // #nosec G705 -- the test's own backend
	}))
	t.Cleanup(b.backend.Close)
	b.deps = Deps{DB: db, Secrets: secrets{"supplier/backend": backendKey}, InternalToken: internalToken, Metrics: b.metrics,
		Log: slog.New(slog.DiscardHandler), TokenLifetime: time.Hour, Backends: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, Now: func() time.Time { return *b.now.Load() }}
	b.public = httptest.NewUnstartedServer(nil)
	b.deps.PublicURL = "http://" + b.public.Listener.Addr().String()
	for _, c := range change {
		c(&b.deps)
	}
	if b.plane, err = newServer(b.deps); err != nil {
		t.Fatal(err)
	}
	in := tenant.DB{Pool: db}.In("supplier")
	if err := audit.Open(t.Context(), in, "supplier"); err != nil { // as its control plane does
		t.Fatal(err)
	}
	t.Cleanup(b.plane.journal.close)
	b.public.Config.Handler = http.HandlerFunc(b.plane.access)
	b.public.Start()
	t.Cleanup(b.public.Close)
	b.internal = httptest.NewServer(b.plane.signaling())
	t.Cleanup(b.internal.Close)
	b.client = dps.NewClient(b.internal.URL, internalToken)
	return b
}

func (b *bundle) pass(d time.Duration) {
	n := b.now.Load().Add(d)
	b.now.Store(&n)
}

func (b *bundle) flow(change ...func(*dps.Flow)) dps.Flow {
	host := strings.ReplaceAll(strings.TrimPrefix(b.deps.PublicURL, "http://"), ":", "%3A")
	f := dps.Flow{FlowID: "tp-1", Context: "supplier", Participant: "did:web:" + host + ":supplier", Counterparty: "did:web:x:buyer", AgreementID: "ag-1", AssetID: "pcf-1",
		Format: dps.FormatHTTPPull, Claims: map[string]string{"bpn": "BPNL000000000BUY"},
		Source: map[string]string{"type": "HttpData", "baseUrl": b.backend.URL + "/documents/4711", "secretName": "backend", "authKey": "X-Reader-Key"}}
	for _, c := range change {
		c(&f)
	}
	return f
}

func (b *bundle) start(t *testing.T, f dps.Flow) dps.DataAddress {
	t.Helper()
	a, err := b.client.Start(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type answer struct {
	status int
	body   string
	header http.Header
}

func (a answer) code(t *testing.T) string {
	t.Helper()
	var e adminapi.Error
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Message == "" {
		t.Fatalf("not a plain JSON error: %s", a.body)
	}
	return e.Code
}

func fetch(t *testing.T, method, url, authorization string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, string(body), res.Header}
}

func TestPull(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	if a.EndpointType != EndpointType || a.Endpoint != b.public.URL+"/supplier/data/tp-1" || a.Properties["authType"] != "bearer" || a.Properties["expiresIn"] != "3600" {
		t.Errorf("address %+v", a)
	}
	moved := b.start(t, b.flow(func(f *dps.Flow) { f.FlowID, f.Participant = "tp-moved", "did:web:born.example:supplier" }))
	if moved.Endpoint != "http://born.example/supplier/data/tp-moved" {
		t.Errorf("a participant that was moved here offers data at %s", moved.Endpoint)
	}
	token := a.Properties["authorization"]
	got := fetch(t, http.MethodGet, a.Endpoint, "Bearer "+token, "X-Reader-Key", "forged", "Edc-Bpn", "forged", "Cookie", "a=b", "X-HTTP-Method-Override", "DELETE", "X-Forwarded-For", "1.2.3.4", "Accept", "application/json")
	if got.status != http.StatusOK || got.body != `{"at":"/documents/4711"}` || got.header.Get("Content-Type") != "application/json" || got.header.Get("Set-Cookie") != "" {
		t.Fatalf("%+v", got)
	}
	seen := b.got.Load().Header
	for k, want := range map[string]string{"X-Reader-Key": backendKey, "Edc-Contract-Agreement-Id": "ag-1", "Edc-Bpn": "BPNL000000000BUY",
		"Authorization": "", "Cookie": "", "X-Http-Method-Override": "", "X-Forwarded-For": "", "Accept": "application/json"} {
		if seen.Get(k) != want {
			t.Errorf("the backend saw %s: %q, want %q", k, seen.Get(k), want)
		}
	}
	if got := fetch(t, http.MethodGet, a.Endpoint, token); got.status != http.StatusOK {
		t.Errorf("bare token: %+v", got)
	}
	if got := fetch(t, http.MethodHead, a.Endpoint, token); got.status != http.StatusOK || got.body != "" {
		t.Errorf("head: %+v", got)
	}
	if n, err := testutil.GatherAndCount(b.metrics, "kaphera_dataplane_requests_total"); err != nil || n != 1 {
		t.Errorf("%d series of requests, %v", n, err)
	}
}

func TestTokenIsStoredAsHashOnly(t *testing.T) {
	b := setup(t)
	token := b.start(t, b.flow()).Properties["authorization"]
	if len(token) < 43 {
		t.Errorf("token %q has less than 256 bits", token)
	}
	var row string
	if err := b.super.QueryRow(t.Context(), "SELECT row_to_json(f)::text FROM data_plane.flows f").Scan(&row); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(row, token) || strings.Contains(row, backendKey) {
		t.Errorf("a secret is stored: %s", row)
	}
}

func TestRefusedAccess(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	other := b.start(t, b.flow(func(f *dps.Flow) { f.FlowID, f.AgreementID = "tp-2", "ag-2" }))
	token := "Bearer " + a.Properties["authorization"]
	for _, c := range []struct {
		name, method, url, authorization string
		status                           int
		code                             string
	}{
		{"no token", "GET", a.Endpoint, "", 401, "unauthorized"},
		{"made-up token", "GET", a.Endpoint, "Bearer x", 401, "unauthorized"},
		{"another flow's token", "GET", a.Endpoint, other.Properties["authorization"], 401, "unauthorized"},
		{"unknown flow", "GET", b.public.URL + "/supplier/data/tp-9", token, 401, "unauthorized"},
		{"another participant's path", "GET", b.public.URL + "/buyer/data/tp-1", token, 401, "unauthorized"},
		{"no flow", "GET", b.public.URL + "/supplier/data", token, 404, "not-found"},
		{"strange context", "GET", b.public.URL + "/Sup%2fplier/data/tp-1", token, 404, "not-found"},
		{"writing", "POST", a.Endpoint, token, 405, "method-not-allowed"},
		{"a path", "GET", a.Endpoint + "/secret", token, 400, "invalid"},
		{"a query", "GET", a.Endpoint + "?id=1", token, 400, "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fetch(t, c.method, c.url, c.authorization); got.status != c.status || got.code(t) != c.code {
				t.Errorf("%+v", got)
			}
		})
	}
	if r := b.got.Load(); r != nil {
		t.Errorf("the backend was asked: %s", r.URL)
	}
}

func TestLifeOfAToken(t *testing.T) {
	b := setup(t)
	first := b.start(t, b.flow())
	old := first.Properties["authorization"]
	check := func(what, token string, status int, code string) {
		t.Helper()
		got := fetch(t, http.MethodGet, first.Endpoint, token)
		if got.status != status || code != "" && got.code(t) != code {
			t.Errorf("%s: %+v", what, got)
		}
	}
	check("started", old, 200, "")
	b.pass(time.Hour)
	check("after its lifetime", old, 401, "token-expired")
	if err := b.client.Suspend(t.Context(), "tp-1"); err != nil {
		t.Fatal(err)
	}
	check("suspended", old, 403, "transfer-suspended")
	fresh := b.start(t, b.flow()).Properties["authorization"]
	check("the old token after the resume", old, 401, "unauthorized")
	check("the new token", fresh, 200, "")
	again := b.start(t, b.flow()).Properties["authorization"]
	check("started again, the token before", fresh, 401, "unauthorized")
	check("started again", again, 200, "")
	for range 2 { // a repeated message changes nothing
		if err := b.client.Complete(t.Context(), "tp-1"); err != nil {
			t.Fatal(err)
		}
	}
	check("completed", again, 403, "transfer-completed")
	if err := b.client.Terminate(t.Context(), "tp-1"); err != nil {
		t.Errorf("ending twice: %v", err)
	}
	check("completed stays", again, 403, "transfer-completed")
	if _, err := b.client.Start(t.Context(), b.flow()); !errors.Is(err, dps.ErrRefused) || !strings.Contains(err.Error(), "is COMPLETED and does not start again") {
		t.Errorf("starting what has ended: %v", err)
	}
	if err := b.client.Suspend(t.Context(), "tp-1"); !errors.Is(err, dps.ErrRefused) {
		t.Errorf("suspending what has ended: %v", err)
	}
	if err := b.client.Terminate(t.Context(), "never-started"); err != nil {
		t.Errorf("ending what never started: %v", err)
	}
	if err := b.client.Suspend(t.Context(), "never-started"); !errors.Is(err, dps.ErrRefused) {
		t.Errorf("suspending what never started: %v", err)
	}
}

func TestRestartLosesNothing(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	b.deps.Metrics = nil
	plane, err := New(b.deps) // another process on the same database
	if err != nil {
		t.Fatal(err)
	}
	restarted := httptest.NewServer(plane.Public)
	defer restarted.Close()
	if got := fetch(t, http.MethodGet, restarted.URL+"/supplier/data/tp-1", a.Properties["authorization"]); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
}

func TestPathAndQuery(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow(func(f *dps.Flow) {
		f.Source["proxyPath"], f.Source["proxyQueryParams"], f.Source["queryParams"] = "true", "true", "tenant=7"
	}))
	token := a.Properties["authorization"]
	for path, want := range map[string]string{"": "/documents/4711?tenant=7", "/a/b": "/documents/4711/a/b?tenant=7", "/a%20b?x=1": "/documents/4711/a%20b?tenant=7&x=1",
		"/urn:uuid:1/": "/documents/4711/urn:uuid:1/?tenant=7", "/50%25": "/documents/4711/50%25?tenant=7"} {
		got := fetch(t, http.MethodGet, a.Endpoint+path, token)
		if u := b.got.Load().URL.RequestURI(); got.status != http.StatusOK || u != want {
			t.Errorf("%s: the backend saw %s, want %s (%+v)", path, u, want, got)
		}
	}
	b.got.Store(nil)
	for _, path := range []string{"/../secret", "/a/../../secret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/..%5csecret", "/%252e%252e/secret", "/%25252e%25252e/x", "/a%2fb", "/x%00", "/.", "?tenant=8"} {
		if got := fetch(t, http.MethodGet, a.Endpoint+path, token); got.status != http.StatusBadRequest {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if r := b.got.Load(); r != nil {
		t.Errorf("the backend was asked for %s", r.URL)
	}
}

func TestWhatTheAssetFixesStays(t *testing.T) {
	b := setup(t)
	for id, change := range map[string]func(map[string]string){
		"in-base-url":  func(s map[string]string) { s["baseUrl"] += "?tenant=7" },
		"full-name":    func(s map[string]string) { s[edcNamespace+"queryParams"] = "tenant=7" },
		"abbreviation": func(s map[string]string) { s["edc:queryParams"] = "tenant=7" },
	} {
		a := b.start(t, b.flow(func(f *dps.Flow) {
			f.FlowID, f.Source["proxyQueryParams"] = id, "true"
			change(f.Source)
		}))
		b.got.Store(nil)
		token := a.Properties["authorization"]
		if got := fetch(t, http.MethodGet, a.Endpoint+"?tenant=8", token); got.status != http.StatusBadRequest || b.got.Load() != nil {
			t.Errorf("%s: another tenant: %+v", id, got)
		}
		if got := fetch(t, http.MethodGet, a.Endpoint+"?page=2", token); got.status != http.StatusOK || b.got.Load().URL.RawQuery != "page=2&tenant=7" {
			t.Errorf("%s: a page: %+v", id, got)
		}
	}
}

func TestBackendFails(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	token := a.Properties["authorization"]
	for _, c := range []struct {
		name    string
		backend http.HandlerFunc
		status  int
		want    string
	}{
		{"wrong secret", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you", http.StatusForbidden) }, 502, "refused the provider's own secret (403)"},
		{"redirection", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		}, 502, "redirection (302)"},
		{"server error", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "stack trace", http.StatusInternalServerError)
		}, 502, "it answered 500"},
		{"connection dropped", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, "can't be reached"},
		{"not there", func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) }, 404, "404 page not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.answer.Store(&c.backend)
			got := fetch(t, http.MethodGet, a.Endpoint, token)
			if got.status != c.status || !strings.Contains(got.body, c.want) || strings.Contains(got.body, "stack trace") || strings.Contains(got.body, backendKey) || got.header.Get("Location") != "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestBackendDoesNotAnswer(t *testing.T) {
	b := setup(t, func(d *Deps) { d.HeaderTimeout = 50 * time.Millisecond })
	a := b.start(t, b.flow())
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b.answer.Store(&silent)
	if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusGatewayTimeout || !strings.Contains(got.body, "did not answer in time") {
		t.Errorf("%+v", got)
	}
}

func TestSecretMissing(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow(func(f *dps.Flow) { f.Source["secretName"] = "another" }))
	if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusServiceUnavailable || got.code(t) != "unavailable" || b.got.Load() != nil {
		t.Errorf("%+v", got)
	}
}

func TestLargeAnswerStreams(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	const size = 64 << 20
	first := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for i := range size / len(chunk) {
			_, _ = w.Write(chunk)
			if i == 0 {
				_ = http.NewResponseController(w).Flush()
				<-first // the rest is sent only after the consumer has the beginning
			}
		}
	})
	b.answer.Store(&h)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", a.Properties["authorization"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.ReadFull(res.Body, make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	close(first)
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size-1024 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestEndStopsWhatIsUnderWay(t *testing.T) {
	b := setup(t)
	t.Run("here", func(t *testing.T) { endStopsWhatIsUnderWay(t, b, "tp-1", b.client.Terminate) })
	t.Run("through another replica", func(t *testing.T) {
		deps := b.deps
		deps.Metrics = nil
		other, err := newServer(deps)
		if err != nil {
			t.Fatal(err)
		}
		internal := httptest.NewServer(other.signaling())
		t.Cleanup(internal.Close)
		b.run(t, b.plane.Run)
		client := dps.NewClient(internal.URL, internalToken)
		endStopsWhatIsUnderWay(t, b, "tp-2", client.Suspend)
		endStopsWhatIsUnderWay(t, b, "tp-3", client.Terminate)
	})
}

func endStopsWhatIsUnderWay(t *testing.T, b *bundle, flow string, end func(context.Context, string) error) {
	t.Helper()
	a := b.start(t, b.flow(func(f *dps.Flow) { f.FlowID = flow }))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 1024))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // would go on for ever
	})
	b.answer.Store(&h)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", a.Properties["authorization"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.ReadFull(res.Body, make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	if err := end(t.Context(), flow); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("after the end of the transfer %d bytes came and all was well", n)
	}
}

// What a backend's name meant when its flow started does not count when it is read.
func TestBackendsAreJudgedWhenTheyAreConnectedTo(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	b.deps.Backends, b.deps.Metrics = netguard.Guard{AllowPrivate: true}, nil // the same flow, now loopback is refused
	plane, err := New(b.deps)
	if err != nil {
		t.Fatal(err)
	}
	b.public.Config.Handler = plane.Public
	got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"])
	if got.status != http.StatusBadGateway || got.code(t) != "backend-refused" || !strings.Contains(got.body, "baseUrl") || b.got.Load() != nil {
		t.Errorf("%+v", got)
	}
	if strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("the consumer learns the inside: %s", got.body)
	}
	refusing := httptest.NewServer(plane.Internal)
	defer refusing.Close()
	_, err = dps.NewClient(refusing.URL, internalToken).Start(t.Context(), b.flow(func(f *dps.Flow) { f.FlowID = "tp-2" }))
	if !errors.Is(err, dps.ErrRefused) || !strings.Contains(err.Error(), "baseUrl") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("start: %v", err)
	}
}

func TestCheckBackend(t *testing.T) {
	guard := netguard.Guard{AllowPrivate: true, Denied: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}
	for address, want := range map[string]string{
		"http://10.96.0.1/":               `baseUrl "http://10.96.0.1/"`,
		"http://169.254.169.254/latest":   "link-local",
		"http://localhost:8081":           "loopback",
		"http://user:secret@10.96.0.1/":   "xxxxx",
		"https://backend.example.invalid": "", // not known yet
		"http://10.1.0.1:8080/x":          "",
		"":                                "",
	} {
		for _, name := range []string{"baseUrl", "edc:baseUrl", edcNamespace + "baseUrl"} {
			err := CheckBackend(t.Context(), guard, map[string]string{"type": "HttpData", name: address})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: %v, want %q", name, address, err, want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%v", err)
			}
		}
	}
}

func TestSignalingRefuses(t *testing.T) {
	b := setup(t)
	b.start(t, b.flow())
	for _, c := range []struct {
		name   string
		change func(f *dps.Flow)
		want   string
	}{
		{"no agreement", func(f *dps.Flow) { f.AgreementID = "" }, "agreementId is missing"},
		{"flow id", func(f *dps.Flow) { f.FlowID = "../x" }, `processId "../x"`},
		{"context", func(f *dps.Flow) { f.Context = "A b" }, `participantContext "A b"`},
		{"format", func(f *dps.Flow) { f.Format = "HttpData-PUSH" }, `profile "HttpData-PUSH" is not served here`},
		{"type", func(f *dps.Flow) { f.Source["type"] = "AmazonS3" }, `type "AmazonS3" is not served here`},
		{"scheme", func(f *dps.Flow) { f.Source["baseUrl"] = "file:///etc/passwd" }, "must begin with http"},
		{"user in the address", func(f *dps.Flow) { f.Source["baseUrl"] = "https://u:hunter2@backend.example/" }, "contains a user name or password"},
		{"secret in clear", func(f *dps.Flow) { f.Source["authCode"] = "hunter2" }, "a secret in clear"},
		{"secret header without secret", func(f *dps.Flow) { delete(f.Source, "secretName") }, "secretName must name the secret"},
		{"header", func(f *dps.Flow) { f.Source["header:X-A"] = "a\r\nb" }, "not a valid header"},
		{"OAuth2", func(f *dps.Flow) { f.Source["oauth2:clientId"] = "x" }, `"oauth2:clientId" is not supported`},
		{"switch", func(f *dps.Flow) { f.Source["proxyPath"] = "yes" }, `write "true" or "false"`},
		{"another agreement for the flow", func(f *dps.Flow) { f.AgreementID = "ag-7" }, "exists for another agreement"},
		{"another party for the flow", func(f *dps.Flow) { f.Counterparty = "did:web:evil" }, "exists for another agreement"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := b.client.Start(t.Context(), b.flow(c.change))
			if !errors.Is(err, dps.ErrRefused) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := dps.NewClient(b.internal.URL, "wrong").Start(t.Context(), b.flow()); !errors.Is(err, dps.ErrRefused) || !strings.Contains(err.Error(), "internal token") {
		t.Errorf("wrong internal token: %v", err)
	}
	res := fetch(t, http.MethodGet, b.internal.URL+"/dataflows/tp-1/status", "Bearer "+internalToken)
	if res.status != http.StatusOK || !strings.Contains(res.body, `"state":"STARTED"`) {
		t.Errorf("status: %+v", res)
	}
	if got := fetch(t, http.MethodGet, b.internal.URL+"/dataflows/tp-1/status", ""); got.status != http.StatusUnauthorized {
		t.Errorf("status without token: %+v", got)
	}
	if got := fetch(t, http.MethodPost, b.internal.URL+"/dataflows/tp-1/resume", "Bearer "+internalToken); got.status != http.StatusOK || !strings.Contains(got.body, `"name":"authorization"`) {
		t.Errorf("resume: %+v", got)
	}
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	for want, d := range map[string]Deps{"database": {InternalToken: "x", PublicURL: "y"}, "internal token": {DB: &pgxpool.Pool{}, Secrets: secrets{}, Log: slog.Default(), PublicURL: "y"},
		"publicURL": {DB: &pgxpool.Pool{}, Secrets: secrets{}, Log: slog.Default(), InternalToken: "x"}} {
		if _, err := New(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
