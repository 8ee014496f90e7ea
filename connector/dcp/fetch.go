// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/netguard"
)

// HTTPConfig says which servers are reached and believed.
type HTTPConfig struct {
	// Roots are the authorities whose certificates are believed; nil = the system's.
	Roots *x509.CertPool
	// Networks says which addresses are connected to.
	Networks netguard.Guard
	// AllowPlainHTTP permits sending a token to an http address.
	AllowPlainHTTP bool
	// Timeout bounds one exchange, body included; default 10 s.
	Timeout time.Duration
}

// NewHTTPClient makes a client for calls to addresses that others name (DID documents, credential services, status lists, schemas, their
// connectors): every address is checked after its name has been resolved, redirects too; no token goes out over plain HTTP; no proxy; at
// most three redirects, never from https to http.
func NewHTTPClient(cfg HTTPConfig) *http.Client {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	transport := &http.Transport{
		DialContext:            cfg.Networks.Dialer().DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  cfg.Timeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
	}
	return &http.Client{
		Timeout:   cfg.Timeout,
		Transport: &confidential{transport, cfg.AllowPlainHTTP},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("more than three redirects")
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return fmt.Errorf("redirect from https to %s", req.URL.Redacted())
			}
			req.Header.Del("Authorization")
			return nil
		},
	}
}

// confidential keeps tokens from being sent in clear.
type confidential struct {
	*http.Transport
	allowPlainHTTP bool
}

// RoundTrip implements http.RoundTripper.
func (c *confidential) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" || c.allowPlainHTTP || req.Header.Get("Authorization") == "" {
		return c.Transport.RoundTrip(req)
	}
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return nil, fmt.Errorf("no token is sent over plain HTTP, to %s; set trust.allowPlainHTTP where that is meant", req.URL.Host)
}

// StatusError is an answer that is not 2xx.
type StatusError struct {
	Method, URL string
	Status      int
	Body        string // its beginning
}

// Error says what was called and what came.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s %s answered %d", e.Method, e.URL, e.Status)
	if e.Body != "" {
		text += ": " + e.Body
	}
	return text
}

// Refused says whether a repeat would be refused again: 4xx except 408, 425 and 429.
func (e *StatusError) Refused() bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooEarly && e.Status != http.StatusTooManyRequests
}

// isRefusal says whether err is an answer that a repeat would not change.
func isRefusal(err error) bool {
	var se *StatusError
	return errors.As(err, &se) && se.Refused()
}

// Get fetches at most limit bytes. An empty authorization sends none.
func Get(ctx context.Context, client *http.Client, url, accept, authorization string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	req.Header.Set("Accept", accept)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	body, _, err := do(client, req, limit)
	return body, err
}

// PostJSON posts a message and reads at most limit bytes of the answer.
func PostJSON(ctx context.Context, client *http.Client, url, authorization string, message any, limit int64) ([]byte, http.Header, error) {
	raw, err := json.Marshal(message)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the message for %s: %w", url, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("POST %s: %w", url, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return do(client, req, limit)
}

func do(client *http.Client, req *http.Request, limit int64) ([]byte, http.Header, error) {
	if req.URL.Scheme != "https" && req.URL.Scheme != "http" || req.URL.Host == "" {
		return nil, nil, fmt.Errorf("%q is not an http(s) address", req.URL.Redacted())
	}
	resp, err := client.Do(req) // #nosec G704 -- the client checks every address; see NewHTTPClient
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: read the answer: %w", req.Method, req.URL.Redacted(), err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, nil, &StatusError{Method: req.Method, URL: req.URL.Redacted(), Status: resp.StatusCode, Body: excerpt(body)}
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("%s %s: the answer is longer than %d bytes", req.Method, req.URL.Redacted(), limit)
	}
	return body, resp.Header, nil
}

// excerpt makes an answer's beginning fit for an error: one line, printable.
func excerpt(body []byte) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0xfffd {
			return ' '
		}
		return r
	}, string(body))
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 600 {
		text = string(r[:600]) + "…"
	}
	return text
}
