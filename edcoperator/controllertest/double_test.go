// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// network leads the names that the operator dials to servers of the test; what it does not know, no DNS knows.
type network struct {
	mu     sync.Mutex
	routes map[string]string
}

func (n *network) route(address string, s *httptest.Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.routes[address] = s.Listener.Addr().String()
}

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	to, known := n.routes[address]
	n.mu.Unlock()
	if !known {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

// runtimeDouble answers the admin API of every role as a connector does, from memory.
type runtimeDouble struct {
	mu           sync.Mutex
	forgotten    bool                      // the tokens that the operator reads are none of the runtime's
	refuse       map[string]adminapi.Error // by path: answered with 422
	profiles     map[string]adminapi.Profile
	participants map[string]adminapi.Participant
	wallets      map[string]adminapi.WalletParticipant
	credentials  map[string][]adminapi.HeldCredential
	requests     []adminapi.CredentialRequest
	summary      adminapi.Summary
	issuers      map[string]adminapi.IssuerConfig
	holders      map[string]adminapi.Holder
}

func newDouble() *runtimeDouble {
	return &runtimeDouble{
		refuse: map[string]adminapi.Error{}, profiles: map[string]adminapi.Profile{}, participants: map[string]adminapi.Participant{},
		wallets: map[string]adminapi.WalletParticipant{}, credentials: map[string][]adminapi.HeldCredential{},
		issuers: map[string]adminapi.IssuerConfig{}, holders: map[string]adminapi.Holder{},
	}
}

// with changes or reads the double's state.
func (d *runtimeDouble) with(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func read[T any](d *runtimeDouble, f func() T) T {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f()
}

func (d *runtimeDouble) server(t *testing.T, token string, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(d.guard(token, h))
	t.Cleanup(s.Close)
	return s
}

// guard checks the token and answers the refusals asked for.
func (d *runtimeDouble) guard(token string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.forgotten || r.Header.Get("Authorization") != "Bearer "+token {
			answer(w, http.StatusUnauthorized, adminapi.Error{Code: "unauthenticated", Message: "the bearer token is not this connector's"})
			return
		}
		if e, refused := d.refuse[r.URL.Path]; refused {
			answer(w, http.StatusUnprocessableEntity, e)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (d *runtimeDouble) controlPlane() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("PUT /admin/v1/profiles/{name}", func(w http.ResponseWriter, r *http.Request) { put(w, r, d.profiles, r.PathValue("name")) })
	m.HandleFunc("PUT /admin/v1/participants/{ctx}", func(w http.ResponseWriter, r *http.Request) { put(w, r, d.participants, r.PathValue("ctx")) })
	m.HandleFunc("DELETE /admin/v1/participants/{ctx}", func(w http.ResponseWriter, r *http.Request) { remove(w, d.participants, r.PathValue("ctx")) })
	m.HandleFunc("GET /api/{ctx}/v1/summary", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, d.summary) })
	return m
}

func (d *runtimeDouble) wallet() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("PUT /admin/v1/participants/{ctx}", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.PathValue("ctx")
		if store(w, r, d.wallets, ctx) {
			answer(w, http.StatusOK, adminapi.WalletParticipantStatus{DID: d.wallets[ctx].DID, KeyID: keyID(d.wallets[ctx].DID, d.wallets[ctx].Key)})
		}
	})
	m.HandleFunc("DELETE /admin/v1/participants/{ctx}", func(w http.ResponseWriter, r *http.Request) { remove(w, d.wallets, r.PathValue("ctx")) })
	m.HandleFunc("GET /admin/v1/participants/{ctx}/credentials", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, append([]adminapi.HeldCredential{}, d.credentials[r.PathValue("ctx")]...))
	})
	m.HandleFunc("POST /admin/v1/participants/{ctx}/credential-requests", func(w http.ResponseWriter, r *http.Request) {
		var req adminapi.CredentialRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			answer(w, http.StatusBadRequest, adminapi.Error{Code: "invalid", Message: err.Error()})
			return
		}
		d.requests = append(d.requests, req)
		ctx := r.PathValue("ctx")
		d.credentials[ctx] = append(d.credentials[ctx], adminapi.HeldCredential{Type: req.Type, Issuer: req.Issuer, State: adminapi.CredentialRequested})
		w.WriteHeader(http.StatusAccepted)
	})
	return m
}

func (d *runtimeDouble) issuer() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("PUT /admin/v1/issuers/{ctx}", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.PathValue("ctx")
		if store(w, r, d.issuers, ctx) {
			answer(w, http.StatusOK, adminapi.IssuerStatus{DID: d.issuers[ctx].DID, KeyID: keyID(d.issuers[ctx].DID, d.issuers[ctx].Key)})
		}
	})
	did := func(r *http.Request) string {
		raw, err := base64.RawURLEncoding.DecodeString(r.PathValue("did"))
		if err != nil {
			return ""
		}
		return string(raw)
	}
	m.HandleFunc("GET /admin/v1/issuers/{ctx}/holders", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, slices.Collect(maps.Values(d.holders)))
	})
	m.HandleFunc("PUT /admin/v1/issuers/{ctx}/holders/{did}", func(w http.ResponseWriter, r *http.Request) { put(w, r, d.holders, did(r)) })
	m.HandleFunc("DELETE /admin/v1/issuers/{ctx}/holders/{did}", func(w http.ResponseWriter, r *http.Request) { remove(w, d.holders, did(r)) })
	return m
}

// keyID is the key that a fresh wallet or issuer makes for a wish.
func keyID(did string, wish adminapi.Key) string {
	return fmt.Sprintf("%s#key-%d", did, max(1, wish.Generation))
}

func put[T any](w http.ResponseWriter, r *http.Request, into map[string]T, key string) {
	if store(w, r, into, key) {
		answer(w, http.StatusOK, into[key])
	}
}

// store reads a body; one that cannot be read is answered.
func store[T any](w http.ResponseWriter, r *http.Request, into map[string]T, key string) bool {
	var v T
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		answer(w, http.StatusBadRequest, adminapi.Error{Code: "invalid", Message: err.Error()})
		return false
	}
	into[key] = v
	return true
}

func remove[T any](w http.ResponseWriter, from map[string]T, key string) {
	if _, there := from[key]; !there {
		answer(w, http.StatusNotFound, adminapi.Error{Code: "not-found", Message: key + " is not there"})
		return
	}
	delete(from, key)
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that went away is its own problem
}

// vaultDouble answers sys/health.
func vaultDouble(t *testing.T, health string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/health" {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(health, `"sealed":true`) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, health)
	}))
	t.Cleanup(s.Close)
	return s
}
