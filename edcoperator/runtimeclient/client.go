// SPDX-License-Identifier: Apache-2.0

// Package runtimeclient calls the internal plain JSON API of a connector (types in connector/adminapi) the way a controller needs
// it: each attempt has a time-out, a failed connection is tried again a bounded number of times, and an error carries the runtime's
// own words. All calls are idempotent by the API's contract. It knows nothing of Kubernetes.
package runtimeclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// DialFunc opens connections; tests lead service names to their own servers with it.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

const (
	attempts   = 3
	firstPause = 200 * time.Millisecond // doubled after each attempt
	maxBody    = 8 << 20
)

// Client calls one role of one connector.
type Client struct {
	base, token string
	http        *http.Client
}

// New returns a client of the role at base (http://host:port), which authenticates with the connector's internal token.
// timeout is that of one attempt.
func New(base, token string, dial DialFunc, timeout time.Duration) *Client {
	return &Client{base: base, token: token, http: &http.Client{Transport: Transport(dial, nil), Timeout: timeout}}
}

// Transport uses no proxy and keeps few connections; roots nil trusts the system's authorities.
func Transport(dial DialFunc, roots *x509.CertPool) *http.Transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	}
	return &http.Transport{
		DialContext: dial, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: 2, IdleConnTimeout: 20 * time.Second,
	}
}

// Error is the runtime's refusal.
type Error struct {
	Op     string // "PUT /admin/v1/participants/acme"
	Status int
	Body   adminapi.Error
}

func (e *Error) Error() string {
	msg := e.Body.Message
	if msg == "" {
		msg = http.StatusText(e.Status)
	}
	if e.Body.Path != "" {
		msg += " (at " + e.Body.Path + ")"
	}
	return fmt.Sprintf("%s: answered %d: %s", e.Op, e.Status, msg)
}

// Refused reports whether err is the runtime's refusal of what was asked (4xx other than 401, 404 and 429), which repeating does not
// cure, and returns it.
func Refused(err error) (*Error, bool) {
	var e *Error
	if !errors.As(err, &e) {
		return nil, false
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return e, false
	}
	return e, e.Status >= 400 && e.Status < 500
}

// Answered reports whether the runtime gave an answer of its own: anything else is a problem of the way to it.
func Answered(err error) bool {
	var e *Error
	return errors.As(err, &e) && !passing(e.Status)
}

func notFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// passing tells the answers of something between us and the runtime, or of a runtime that is starting.
func passing(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// call sends in (nil: no body) and reads the answer into out (nil: dropped).
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	op := method + " " + path
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, op, method, path, body, out)
		if err == nil || attempt == attempts || Answered(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pause):
			pause *= 2
		}
	}
}

func (c *Client) once(ctx context.Context, op, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err // names method and URL
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", op, err)
	}
	if resp.StatusCode >= 300 {
		e := &Error{Op: op, Status: resp.StatusCode}
		if json.Unmarshal(raw, &e.Body) != nil {
			e.Body.Message = string(bytes.TrimSpace(raw[:min(len(raw), 300)]))
		}
		return e
	}
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return &Error{Op: op, Status: http.StatusNotImplemented, Body: adminapi.Error{Message: "answered with something other than the expected JSON: " + err.Error()}}
	}
	return nil
}
