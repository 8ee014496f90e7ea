// SPDX-License-Identifier: FSL-1.1-ALv2

package cloudtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
)

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Connector is a participant's view at /api/{ctx}/v1 of a connector in a cell, over HTTP, and the way to it. What a test does not program
// with On or Otherwise is answered 404, as a connector does.
type Connector struct {
	mu      sync.Mutex
	answers map[string]func(r *http.Request) (int, any)
	// otherwise answers the calls that answers has not.
	otherwise func(r *http.Request) (int, any)
	requests  []string
	err       error
	heads     map[string][]audit.Head
	server    *httptest.Server
}

var _ cellrpc.Caller = (*Connector)(nil)

// NewConnector starts one.
func NewConnector(t *testing.T) *Connector {
	t.Helper()
	c := &Connector{answers: map[string]func(*http.Request) (int, any){}}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

// On programs the answer to a call such as "GET supplier/offers/o1": participant context, or "issuer-" and its name, and path without query.
func (c *Connector) On(call string, answer func(r *http.Request) (int, any)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[call] = answer
}

// Answer programs a constant answer.
func (c *Connector) Answer(call string, status int, body any) {
	c.On(call, func(*http.Request) (int, any) { return status, body })
}

// Otherwise programs the answer to every call that has none.
func (c *Connector) Otherwise(answer func(r *http.Request) (int, any)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.otherwise = answer
}

// Fail makes calls fail before they reach the cell; nil ends that.
func (c *Connector) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// Requests are the calls so far, with their query and body.
func (c *Connector) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.requests...)
}

func (c *Connector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	ctx, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/"), "/v1")
	call := r.Method + " " + ctx + path
	c.mu.Lock()
	c.requests = append(c.requests, strings.TrimRight(fmt.Sprintf("%s?%s %s", call, r.URL.RawQuery, body), "? "))
	answer := c.answers[call]
	if answer == nil {
		answer = c.otherwise
	}
	c.mu.Unlock()
	status, out := http.StatusNotFound, any(adminapi.Error{Code: "not-found", Message: "there is no " + call})
	if answer != nil {
		status, out = answer(r)
	}
	if raw, ok := out.([]byte); ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.WriteHeader(status)
		_, _ = w.Write(raw)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if out != nil {
		_ = json.NewEncoder(w).Encode(out) //nolint:errchkjson // what a test gives
	}
}

// Report makes the cell report a head of an audit chain.
func (c *Connector) Report(h audit.Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heads == nil {
		c.heads = map[string][]audit.Head{}
	}
	c.heads[h.Ctx] = append(c.heads[h.Ctx], h)
}

// Heads implements cellrpc.Caller.
func (c *Connector) Heads(_ context.Context, _, participant string) ([]audit.Head, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heads[participant], c.err
}

// Call implements cellrpc.Caller.
func (c *Connector) Call(ctx context.Context, cell string, r cellrpc.Request) (cellrpc.Response, error) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return cellrpc.Response{}, fmt.Errorf("cell %s: %w", cell, err)
	}
	of := r.Participant
	if r.Issuer != "" {
		of = "issuer-" + r.Issuer
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.server.URL+"/api/"+of+"/v1"+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return cellrpc.Response{}, err
	}
	req.Header.Set(adminapi.ActorHeader, r.Actor)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return cellrpc.Response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return cellrpc.Response{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: body}, err
}
