// SPDX-License-Identifier: Apache-2.0

package runtimeclient_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
)

// serve answers the n-th call (from 1) with handler.
func serve(t *testing.T, handler func(n int32, w http.ResponseWriter, r *http.Request)) (*runtimeclient.Client, *atomic.Int32) {
	t.Helper()
	calls := &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(calls.Add(1), w, r) }))
	t.Cleanup(s.Close)
	return runtimeclient.New(s.URL, "the-token", nil, time.Minute), calls
}

func TestCallCarriesTokenAndBody(t *testing.T) {
	t.Parallel()
	did := "did:web:holder.example%3A8443:a/b"
	c, _ := serve(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
		var h adminapi.Holder
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil || h.DID != did {
			t.Errorf("body %v, %v", h, err)
		}
		want := "PUT /admin/v1/issuers/issuer/holders/" + base64.RawURLEncoding.EncodeToString([]byte(did))
		if got := r.Method + " " + r.URL.Path; got != want || r.Header.Get("Authorization") != "Bearer the-token" {
			t.Errorf("%s with %q, want %s", got, r.Header.Get("Authorization"), want)
		}
		_, _ = io.WriteString(w, `{"did":"whatever"}`)
	})
	if err := c.PutHolder(t.Context(), "issuer", adminapi.Holder{DID: did}); err != nil {
		t.Error(err)
	}
}

func TestRefusalIsNotRepeatedAndKeepsItsWords(t *testing.T) {
	t.Parallel()
	c, calls := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"code":"invalid","message":"no such operator","path":"operands[2].operators"}`)
	})
	err := c.PutProfile(t.Context(), adminapi.Profile{Name: "automotive"})
	e, refused := runtimeclient.Refused(err)
	if !refused || !runtimeclient.Answered(err) || e.Body.Code != "invalid" || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	if want := "PUT /admin/v1/profiles/automotive: answered 422: no such operator (at operands[2].operators)"; err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

func TestStartingRuntimeIsAskedAgain(t *testing.T) {
	t.Parallel()
	c, calls := serve(t, func(n int32, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"agreements":4}`)
	})
	s, err := c.Summary(t.Context(), "acme")
	if err != nil || s.Agreements != 4 || calls.Load() != 3 {
		t.Errorf("%+v, %v after %d calls", s, err, calls.Load())
	}
}

func TestRepetitionIsBounded(t *testing.T) {
	t.Parallel()
	c, calls := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	_, err := c.Credentials(t.Context(), "acme")
	if err == nil || runtimeclient.Answered(err) || calls.Load() != 3 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestSilentRuntimeTimesOut(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release); s.Close() })
	c := runtimeclient.New(s.URL, "t", nil, 20*time.Millisecond)
	err := c.RequestCredential(t.Context(), "acme", adminapi.CredentialRequest{})
	if err == nil || runtimeclient.Answered(err) || !strings.Contains(err.Error(), "Timeout") {
		t.Errorf("error %v", err)
	}
}

func TestEndedContextEndsTheCall(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c, calls := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if err := c.DeleteParticipant(ctx, "acme"); err == nil || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestDeletingWhatIsGoneIsDone(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	if err := c.DeleteParticipant(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	if _, err := c.Summary(t.Context(), "acme"); err == nil {
		t.Error("a summary of nobody")
	} else if _, refused := runtimeclient.Refused(err); refused {
		t.Error("404 may pass: a participant that is still to be configured")
	}
}

func TestAnswerOfSomebodyElseIsAnError(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>welcome</html>") })
	if _, err := c.PutWalletParticipant(t.Context(), "acme", adminapi.WalletParticipant{}); err == nil || !strings.Contains(err.Error(), "other than the expected JSON") {
		t.Errorf("error %v", err)
	}
}
