// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func noWait(int) time.Duration { return 0 }

func TestAddressesAndFilesAreCheckedFirst(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.crt")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]Config{
		"KAPHERA_API":            {},
		"https://api.<domain>":   {API: "http://api.example"},
		"KAPHERA_CA_FILE":        {API: "https://api.example", CAFile: "/absent/ca.crt"},
		"has no PEM certificate": {API: "https://api.example", CAFile: empty},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestAnUntrustedCertificateIsToldAtOnce(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	a, err := New(Config{API: server.URL, Wait: func(int) time.Duration { calls.Add(1); return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.GetStatusWithResponse(t.Context())
	e := AsError(err)
	if e == nil || e.Code != CodeUnreachable || !strings.Contains(e.Detail, "certificate") || !strings.Contains(e.Next, "KAPHERA_CA_FILE") {
		t.Errorf("got %v", err)
	}
	if calls.Load() != 0 {
		t.Error("it was tried again, although that can't help")
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var stolen atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Store(true) }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	a, err := New(Config{API: server.URL, Wait: noWait, Token: func(context.Context) (string, error) { return "t", nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.GetStatusWithResponse(t.Context()); err == nil || stolen.Load() {
		t.Errorf("got %v, followed: %t", err, stolen.Load())
	}
}

func TestACallThatTakesTooLongEnds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	a, err := New(Config{API: server.URL, Wait: noWait, Timeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.GetStatusWithResponse(t.Context())
	if e := AsError(err); e == nil || e.Code != CodeUnreachable {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.GetStatusWithResponse(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error in the chain", err)
	}
}

func TestRepeatedWritesSendTheirBodyAgain(t *testing.T) {
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := new(strings.Builder)
		_ = r.Write(buf)
		bodies = append(bodies, buf.String())
		if len(bodies) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if r.Header.Get("X-Kaphera-Manager") != "cli" || r.Header.Values("If-Match") != nil {
			t.Errorf("headers %v", r.Header)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"name":"x","spec":{"displayName":"X"}}`))
	}))
	defer server.Close()
	a, err := New(Config{API: server.URL, Wait: noWait, Manager: "cli"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.PutOrganizationWithResponse(t.Context(), "x", &PutOrganizationParams{}, Organization{Spec: OrganizationSpec{DisplayName: "X"}})
	if err != nil || got.JSON200.Spec.DisplayName != "X" || len(bodies) != 3 {
		t.Fatalf("%d calls: %v", len(bodies), err)
	}
	for _, b := range bodies {
		if !strings.Contains(b, `"displayName":"X"`) {
			t.Errorf("a call without its body: %s", b)
		}
	}
}

func TestTokensAreFreshUntilShortlyBeforeTheyExpire(t *testing.T) {
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		token *oauth2.Token
		want  bool
	}{
		{nil, false}, {&oauth2.Token{}, false}, {&oauth2.Token{AccessToken: "t"}, true},
		{&oauth2.Token{AccessToken: "t", Expiry: now.Add(tokenMargin + time.Second)}, true}, {&oauth2.Token{AccessToken: "t", Expiry: now.Add(tokenMargin)}, false},
	} {
		if got := Fresh(c.token, now); got != c.want {
			t.Errorf("Fresh(%+v) = %t", c.token, got)
		}
	}
}

func TestAnIdentityProviderThatFailsIsNotTheSecretsFault(t *testing.T) {
	for status, want := range map[int][2]string{
		http.StatusUnauthorized:        {CodeLogin, "check KAPHERA_CLIENT_ID"},
		http.StatusInternalServerError: {CodeUnreachable, "try again in a minute"},
		http.StatusServiceUnavailable:  {CodeUnreachable, "try again in a minute"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"error":"unknown_error","error_description":"For more on this error consult the server log."}`))
		}))
		flow := clientcredentials.Config{ClientID: "robot", ClientSecret: "very-secret", TokenURL: server.URL}
		_, err := flow.Token(t.Context())
		server.Close()
		if e := NoToken("robot", err); e.Code != want[0] || !strings.Contains(e.Next, want[1]) || !strings.Contains(e.Detail, `client "robot" could not log in`) || strings.Contains(e.Error(), "very-secret") {
			t.Errorf("%d: %+v", status, e.Problem)
		}
	}
}
