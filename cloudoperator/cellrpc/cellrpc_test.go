// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/connector/adminapi"
)

// connector answers what it was asked.
func connector(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/large") {
			_, _ = w.Write(make([]byte, cellrpc.MaxBody+1))
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]string{
			"method": r.Method, "uri": r.RequestURI, "authorization": r.Header.Get("Authorization"), "actor": r.Header.Get(adminapi.ActorHeader), "body": string(body), "type": r.Header.Get("Content-Type"),
		})
	}))
	t.Cleanup(s.Close)
	return s
}

func forwarder(url string) *cellrpc.Forwarder {
	return cellrpc.NewForwarder(func(_ context.Context, r cellrpc.Request) (cellrpc.Target, bool, error) {
		switch r.Participant + r.Issuer {
		case "supplier", "auditor":
			return cellrpc.Target{URL: url, Token: "internal"}, true, nil
		case "starting":
			return cellrpc.Target{}, true, errors.New("it is not up yet")
		}
		return cellrpc.Target{}, false, nil
	}, time.Now, slog.New(slog.DiscardHandler), nil)
}

func TestForward(t *testing.T) {
	t.Parallel()
	s := connector(t)
	for name, c := range map[string]struct {
		r    cellrpc.Request
		want int
		in   string
	}{
		"a read":                   {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/negotiations?limit=2"}, 201, `"uri":"/api/supplier/v1/negotiations?limit=2"`},
		"the token":                {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets"}, 201, `"authorization":"Bearer internal"`},
		"for whom":                 {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets", Actor: "user:anna"}, 201, `"actor":"user:anna"`},
		"for nobody in particular": {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets"}, 201, `"actor":"client:cloud"`},
		"a body":                   {cellrpc.Request{Participant: "supplier", Method: "POST", Path: "/transfers", Body: json.RawMessage(`{"a":1}`)}, 201, `{\"a\":1}`},
		"an escaped slash stays":   {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets/urn%3Aa%2Fb"}, 201, `"uri":"/api/supplier/v1/assets/urn%3Aa%2Fb"`},
		"a large answer":           {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/large"}, 413, "512 KiB"},
		"what an issuer issued":    {cellrpc.Request{Issuer: "auditor", Method: "GET", Path: "/credentials?holder=did:web:a"}, 201, `"uri":"/admin/v1/issuers/issuer/credentials?holder=did:web:a"`},
		"a credential":             {cellrpc.Request{Issuer: "auditor", Method: "POST", Path: "/credentials/urn:uuid:1/revoke"}, 201, `"uri":"/admin/v1/issuers/issuer/credentials/urn:uuid:1/revoke"`},
		"an unknown issuer":        {cellrpc.Request{Issuer: "other", Method: "GET", Path: "/credentials"}, 404, `no issuer \"other\"`},
		"an issuer's holders":      {cellrpc.Request{Issuer: "auditor", Method: "GET", Path: "/holders"}, 400, "/credentials only"},
		"beside its credentials":   {cellrpc.Request{Issuer: "auditor", Method: "GET", Path: "/credentials/../holders"}, 400, "path"},
		"an issuer of a path":      {cellrpc.Request{Issuer: "auditor/..", Method: "GET", Path: "/credentials"}, 400, "issuer"},
		"both":                     {cellrpc.Request{Issuer: "auditor", Participant: "supplier", Method: "GET", Path: "/credentials"}, 400, "issuer"},
		"an unknown participant":   {cellrpc.Request{Participant: "other", Method: "GET", Path: "/assets"}, 404, "no participant"},
		"a connector not up":       {cellrpc.Request{Participant: "starting", Method: "GET", Path: "/assets"}, 503, "not up yet"},
		"another method":           {cellrpc.Request{Participant: "supplier", Method: "PATCH", Path: "/assets"}, 400, "method"},
		"out of the view":          {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/../../admin/v1"}, 400, "path"},
		"out of it, escaped":       {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/%2e%2e/%2e%2e/admin/v1"}, 400, "path"},
		"out of it in an escape":   {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets/..%2f..%2fadmin"}, 400, "path"},
		"another host":             {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "//evil.example/x"}, 400, "path"},
		"an absolute address":      {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "http://evil.example/x"}, 400, "path"},
		"no leading slash":         {cellrpc.Request{Participant: "supplier", Method: "GET", Path: "assets"}, 400, "path"},
		"a participant of a path":  {cellrpc.Request{Participant: "supplier/v1/../..", Method: "GET", Path: "/assets"}, 400, "participant"},
	} {
		data, err := json.Marshal(c.r)
		if err != nil {
			t.Fatal(err)
		}
		got := forwarder(s.URL).Forward(t.Context(), data)
		if got.Status != c.want || !strings.Contains(string(got.Body), c.in) {
			t.Errorf("%s: %d %.200s; want %d with %s", name, got.Status, got.Body, c.want, c.in)
		}
	}
	if got := forwarder(s.URL).Forward(t.Context(), []byte("{")); got.Status != http.StatusBadRequest {
		t.Errorf("no request: %d", got.Status)
	}
	s.Close()
	data := []byte(`{"participant":"supplier","method":"GET","path":"/assets"}`)
	if got := forwarder(s.URL).Forward(t.Context(), data); got.Status != http.StatusBadGateway || strings.Contains(string(got.Body), s.URL) {
		t.Errorf("a connector that does not answer: %d %s", got.Status, got.Body)
	}
}

func TestCallGoesThroughTheAgentAndSurvivesARestart(t *testing.T) {
	t.Parallel()
	nats, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Stop)
	seed, err := nats.Cell(t.Context(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	creds, err := natsauth.Credentials(seed, "cloud", celllink.CloudPermissions)
	if err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	caller := cellrpc.NewCaller(nats.URL(), nil, func(_ context.Context, cell string) ([]byte, error) {
		if cell != "shared" {
			return nil, errors.New("no such cell")
		}
		return creds, nil
	}, metrics)
	t.Cleanup(caller.Close)
	call := cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets"}
	if _, err := caller.Call(t.Context(), "other", call); !errors.Is(err, cellrpc.ErrNotConnected) {
		t.Errorf("a cell that does not exist: %v", err)
	}
	if _, err := caller.Call(t.Context(), "shared", call); !errors.Is(err, cellrpc.ErrNotConnected) {
		t.Errorf("without an agent: %v", err)
	}
	for _, cell := range []string{"", "shared"} {
		if n := counted(t, metrics, "kaphera_cell_calls_total", "query", cell, "not-connected"); n != 1 {
			t.Errorf("cell %q: %v calls are counted as not-connected", cell, n)
		}
	}
	agent, err := nats.Connect(seed, celllink.AgentPermissions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- forwarder(connector(t).URL).Serve(ctx, agent, func() {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	answered := func() {
		t.Helper()
		deadline := time.After(2 * time.Minute)
		for {
			resp, err := caller.Call(t.Context(), "shared", call)
			if err == nil && resp.Status == http.StatusCreated {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("no answer: %v %v", resp, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	answered()
	if n := counted(t, metrics, "kaphera_cell_calls_total", "query", "shared", "answered"); n < 1 {
		t.Errorf("%v calls are counted as answered", n)
	}
	if err := nats.Restart(); err != nil {
		t.Fatal(err)
	}
	answered()
}
