// SPDX-License-Identifier: Apache-2.0

package dps

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func clientOf(t *testing.T, h http.HandlerFunc) (*Client, *int) {
	t.Helper()
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	c := NewClient(srv.URL+"/", "secret")
	c.pause = func(ctx context.Context, _ int) error { return ctx.Err() }
	return c, &calls
}

const started = `{"dataFlowId":"tp","state":"STARTED","dataAddress":{"@type":"DataAddress","endpointType":"t","endpoint":"https://x/data/tp",
	"endpointProperties":[{"@type":"EndpointProperty","name":"authorization","value":"tok"}]}}`

func TestStart(t *testing.T) {
	c, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		var msg map[string]any
		if err := json.NewDecoder(r.Body).Decode(&msg); err != nil {
			t.Error(err)
		}
		for _, member := range []string{"messageId", "participantId", "counterPartyId", "dataspaceContext", "processId", "agreementId", "datasetId", "profile", "claims"} {
			if msg[member] == nil || msg[member] == "" {
				t.Errorf("the start message has no %s: %v", member, msg)
			}
		}
		if r.URL.Path != "/dataflows/start" || r.Header.Get("Authorization") != "Bearer secret" || msg["dataAddress"] != nil {
			t.Errorf("%s %v", r.URL.Path, msg)
		}
		_, _ = w.Write([]byte(started))
	})
	a, err := c.Start(t.Context(), Flow{FlowID: "tp", Participant: "did:web:p", Counterparty: "did:web:c", AgreementID: "ag", AssetID: "as", Format: FormatHTTPPull, Claims: map[string]string{"purpose": "pcf"}})
	if err != nil || a.Endpoint != "https://x/data/tp" || a.Properties["authorization"] != "tok" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		body    string
		is      error
		calls   int
		message string
	}{
		{"server error", 503, `{"code":"unavailable","message":"in a minute"}`, ErrUnavailable, attempts, "in a minute"},
		{"too many requests", 429, `slow down`, ErrUnavailable, attempts, "slow down"},
		{"refused", 409, `{"code":"conflict","message":"it has ended"}`, ErrRefused, 1, "it has ended"},
		{"not JSON", 200, `<html>`, ErrRefused, 1, "not understood"},
		{"no address", 200, `{"dataFlowId":"tp","state":"STARTED"}`, ErrRefused, 1, "without a data address"},
		{"address without type", 200, `{"dataFlowId":"tp","state":"STARTED","dataAddress":{"endpoint":"x"}}`, ErrRefused, 1, "endpointType is missing"},
		{"property twice", 200, strings.Replace(started, `}]}}`, `},{"name":"authorization","value":"b"}]}}`, 1), ErrRefused, 1, "there twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, calls := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			})
			_, err := client.Start(t.Context(), Flow{FlowID: "tp"})
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.message) || *calls != c.calls {
				t.Errorf("%d calls: %v", *calls, err)
			}
		})
	}
}

func TestRetryUntilItAnswers(t *testing.T) {
	client, calls := clientOf(t, nil)
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n < attempts {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if r.URL.EscapedPath() != "/dataflows/a%2Fb/completed" {
			t.Errorf("path %s", r.URL.EscapedPath())
		}
		_, _ = w.Write([]byte(`{}`))
	}))
	defer srv.Close()
	client.base = srv.URL
	if err := client.Complete(t.Context(), "a/b"); err != nil || n != attempts || *calls != 0 {
		t.Errorf("%d calls: %v", n, err)
	}
}

func TestUnreachable(t *testing.T) {
	client, _ := clientOf(t, nil)
	srv := httptest.NewServer(nil)
	srv.Close()
	client.base = srv.URL
	if err := client.Suspend(t.Context(), "tp"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Terminate(ctx, "tp"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestDemandThatIsNotConfirmedIsNotMet(t *testing.T) {
	answer := started
	c, _ := clientOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
	flow := Flow{FlowID: "tp", Demands: []string{DemandJudge}}
	if _, err := c.Start(t.Context(), flow); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), DemandJudge) {
		t.Errorf("a data plane that does not know the demand: %v", err)
	}
	answer = strings.Replace(started, `"state"`, `"demands":["judge-access"],"state"`, 1)
	if _, err := c.Start(t.Context(), flow); err != nil {
		t.Error(err)
	}
}

func TestAccessIsAsked(t *testing.T) {
	status := http.StatusServiceUnavailable
	c, calls := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		var req AccessRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || req.AgreementID != "ag" || req.Method != http.MethodGet || r.URL.Path != "/internal/v1/acme/transfers/tp/access" {
			t.Errorf("%s %+v %v", r.URL.Path, req, err)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"allowed":true,"trace":{"allowed":true,"checks":[]}}`))
	})
	ask := func() (AccessVerdict, error) {
		return (&ControlPlane{c}).Access(t.Context(), "acme", "tp", AccessRequest{AgreementID: "ag", Method: "GET"})
	}
	if v, err := ask(); !errors.Is(err, ErrUnavailable) || v.Allowed || *calls != attempts {
		t.Errorf("%+v, %v after %d calls", v, err, *calls)
	}
	status = http.StatusNotFound
	if v, err := ask(); !errors.Is(err, ErrRefused) || v.Allowed || *calls != attempts+1 {
		t.Errorf("%+v, %v after %d calls", v, err, *calls)
	}
	status = http.StatusOK
	if v, err := ask(); err != nil || !v.Allowed {
		t.Errorf("%+v, %v", v, err)
	}
}
