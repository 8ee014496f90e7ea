// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Config says where the Cloud API is and who calls it.
type Config struct {
	// API is the base address, e.g. https://api.demo.kaphera.test.
	API string
	// CAFile is PEM of the authorities that are trusted instead of the system's; empty trusts the system's.
	CAFile string
	// ClientID and ClientSecret log in by client credentials. Token is used instead when it is set.
	ClientID, ClientSecret string
	// Token returns an access token for each call; it may renew it.
	Token func(ctx context.Context) (string, error)
	// Manager names the writer: terraform, cli or api (the default).
	Manager string
	// Timeout of one call, retries aside; default 60 s.
	Timeout time.Duration
	// Wait is how long to wait before the n-th retry (n starts at 1); default a second, then two.
	Wait func(n int) time.Duration
	// Transport replaces the network, for tests.
	Transport http.RoundTripper
}

// API is a client of the Cloud API. Its calls return an *Error for every answer that is no success.
type API struct {
	*ClientWithResponses
	http *http.Client
	cfg  Config
}

// New makes a client. It calls nobody yet.
func New(cfg Config) (*API, error) {
	if cfg.API == "" {
		return nil, errors.New("no address of the Cloud API: set KAPHERA_API, or log in with kaphera login --api https://api.<domain>")
	}
	if !strings.HasPrefix(cfg.API, "https://") && !strings.HasPrefix(cfg.API, "http://127.0.0.1") {
		return nil, fmt.Errorf("address of the Cloud API %q is not an https URL like https://api.<domain>", cfg.API)
	}
	h, err := HTTPClient(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Wait == nil {
		cfg.Wait = func(n int) time.Duration { return time.Duration(n) * time.Second }
	}
	if cfg.Token == nil && cfg.ClientID != "" {
		cfg.Token = clientCredentials(cfg, h)
	}
	a := &API{http: h, cfg: cfg}
	a.ClientWithResponses, err = NewClientWithResponses(strings.TrimSuffix(cfg.API, "/"), WithHTTPClient(doer{a}))
	return a, err
}

// HTTPClient makes the client's HTTP client: its trust, its time-out, no redirects to elsewhere.
func HTTPClient(cfg Config) (*http.Client, error) {
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	c := &http.Client{Timeout: timeout, Transport: cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if cfg.Transport != nil {
		return c, nil
	}
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w; give the PEM file of the gateway's authority with KAPHERA_CA_FILE", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s has no PEM certificate; give the PEM file of the gateway's authority with KAPHERA_CA_FILE", cfg.CAFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c.Transport = t
	return c, nil
}

// Error is a problem that the Cloud API reports (RFC 9457), or a call that did not get through (Status 0).
type Error struct {
	Problem
	cause error
}

func (e *Error) Error() string {
	out := e.Detail
	for _, f := range e.Errors {
		out += "\n  " + strings.TrimPrefix(f.Location+": ", ": ") + f.Message
	}
	return out
}

// Unwrap returns what kept the call from getting through.
func (e *Error) Unwrap() error { return e.cause }

// Codes of errors that the client makes itself; the others are the API's.
const (
	CodeUnreachable = "unreachable"
	CodeLogin       = "login"
)

// AsError returns the *Error in err's chain, or nil.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// IsNotFound says whether the API answered 404.
func IsNotFound(err error) bool {
	e := AsError(err)
	return e != nil && e.Status == http.StatusNotFound
}

func unreachable(where string, cause error) *Error {
	var cert *tls.CertificateVerificationError
	if errors.As(cause, &cert) {
		return &Error{Problem{
			Code: CodeUnreachable, Title: "Unreachable", Detail: fmt.Sprintf("the certificate of %s is not trusted: %s", where, cert.Err),
			Next: "give the PEM file of the authority that signed it with KAPHERA_CA_FILE, and check the address (KAPHERA_API)",
		}, cause}
	}
	return &Error{Problem{
		Code: CodeUnreachable, Title: "Unreachable", Detail: fmt.Sprintf("%s does not answer: %s", where, cause),
		Next: "check the address (KAPHERA_API), the authority (KAPHERA_CA_FILE) and the network, then try again",
	}, cause}
}

// doer sends one call: token, manager, bounded retries, errors.
type doer struct{ *API }

// attempts of a call that may be repeated: it did not get through, or the gateway says that nobody is there.
const attempts = 3

func (d doer) Do(r *http.Request) (*http.Response, error) {
	for _, h := range []string{"If-Match", "If-None-Match", "X-Kaphera-Manager"} { // generated code sends empty ones
		if r.Header.Get(h) == "" {
			r.Header.Del(h)
		}
	}
	if d.cfg.Manager != "" && r.Method != http.MethodGet {
		r.Header.Set("X-Kaphera-Manager", d.cfg.Manager)
	}
	if d.cfg.Token != nil && !strings.HasSuffix(r.URL.Path, "/api/v1/info") {
		token, err := d.cfg.Token(r.Context())
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for n := 1; ; n++ {
		resp, err := d.http.Do(r)
		err = check(d.cfg.API, resp, err)
		if err == nil || n == attempts || !again(r, err) {
			return resp, err
		}
		select {
		case <-r.Context().Done():
			return nil, unreachable(d.cfg.API, r.Context().Err())
		case <-time.After(d.cfg.Wait(n)):
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, fmt.Errorf("repeating %s %s: %w", r.Method, r.URL.Path, err)
			}
		}
	}
}

// again says whether the call may be repeated: it changes nothing when repeated (POST may), and there is hope.
func again(r *http.Request, err error) bool {
	e := AsError(err)
	if e == nil || r.Method == http.MethodPost || r.Context().Err() != nil {
		return false
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return false
	}
	return e.Status == 0 || e.Status == http.StatusBadGateway || e.Status == http.StatusServiceUnavailable && e.Code != "cell-not-connected"
}

// check turns an answer that is no success into an *Error, and closes its body.
func check(api string, resp *http.Response, err error) error {
	if err != nil {
		return unreachable(api, unwrapURL(err))
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		return nil
	}
	const most = 1 << 20
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, most))
	_ = resp.Body.Close()
	e := &Error{cause: readErr}
	if err := decode(body, &e.Problem); err != nil || e.Detail == "" {
		e.Problem = Problem{
			Code: "unexpected", Title: resp.Status, Detail: fmt.Sprintf("%s answered %s, which is no answer of a Cloud API", api, resp.Status),
			Next: "check that this is the address of the Cloud API; the platform may still be starting",
		}
	}
	e.Status = int64(resp.StatusCode)
	return e
}

// Data fetches a transfer's data through the provider's data plane. path is empty, or what follows the asset's address.
func (a *API) Data(ctx context.Context, participant, transfer, path string) (body []byte, contentType string, err error) {
	resp, err := a.GetTransferDataWithResponse(ctx, participant, transfer, &GetTransferDataParams{Path: path})
	if err != nil {
		return nil, "", err
	}
	return bytes.Clone(resp.Body), resp.HTTPResponse.Header.Get("Content-Type"), nil
}

// Address is the base address of the Cloud API.
func (a *API) Address() string { return strings.TrimSuffix(a.cfg.API, "/") }
