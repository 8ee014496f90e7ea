// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/netguard"
)

// access serves /{ctx}/data/{flowId}[/...]: it checks the token and fetches from the asset's backend.
func (s *server) access(w http.ResponseWriter, r *http.Request) {
	begin := s.Now()
	rec := &recorder{ResponseWriter: w, sum: sha256.New()}
	ctxID, flowID, rest, ok := splitPath(r.URL.EscapedPath())
	label := "unknown" // a caller must not be able to make up metric labels
	s.metrics.running.Inc()
	defer func() {
		s.metrics.running.Dec()
		s.metrics.requests.WithLabelValues(label, strconv.Itoa(rec.status)).Inc()
		s.metrics.bytes.WithLabelValues(label).Add(float64(rec.bytes))
		s.metrics.duration.WithLabelValues(label).Observe(s.Now().Sub(begin).Seconds())
	}()
	if !ok {
		s.writeError(rec, r, refuse(http.StatusNotFound, "not-found", "no such address: data is at /{context}/data/{transfer}"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.MaxDuration)
	defer cancel()
	defer s.running.add(flowID, cancel)() // before the flow is read, so that an end in between is not missed
	r = r.WithContext(ctx)
	f, err := s.authorize(r, ctxID, flowID)
	if err != nil {
		if status := s.writeError(rec, r, err); status == http.StatusUnauthorized {
			s.Log.WarnContext(ctx, "data access refused", "context", ctxID, "flow", flowID, "reason", err.Error())
		}
		return
	}
	s.running.authorized(f)
	label = f.Context
	leave, err := s.shares.Enter(ctx, f.Context+" "+f.Counterparty) // what it waits for here is no affair of another participant's
	if err != nil {
		w.Header().Set("Retry-After", "5")
		s.writeError(rec, r, refuse(http.StatusTooManyRequests, "busy", fmt.Sprintf("%d accesses of yours are being served: try again once one of them has ended", s.PerCounterparty)))
		return
	}
	defer leave()
	end, err := s.served.Enter(ctx, f.Context)
	if err != nil {
		s.writeError(rec, r, err)
		return
	}
	defer end()
	out, err := s.begin(r, f, rest)
	if err != nil {
		s.writeError(rec, r, err)
		return
	}
	defer func() {
		out.Status, out.Bytes, out.SHA256 = rec.status, rec.bytes, hex.EncodeToString(rec.sum.Sum(nil))
		s.end(f, out)
	}()
	s.serve(rec, r, f, rest)
	out.Whole = !rec.failed // not reached when the backend's body ends early, which panics
}

// serve answers an access that is on record.
func (s *server) serve(rec *recorder, r *http.Request, f flow, rest string) {
	if err := s.judge(r, f, rest); err != nil {
		s.writeError(rec, r, err)
		return
	}
	target, err := s.target(r, f, rest)
	if err != nil {
		s.writeError(rec, r, err)
		return
	}
	s.proxy(f, target).ServeHTTP(rec, r)
}

// splitPath takes /{ctx}/data/{flowId}[/rest] apart; rest stays escaped.
func splitPath(escaped string) (ctxID, flowID, rest string, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(escaped, "/"), "/", 4)
	if len(parts) < 3 || parts[1] != "data" || !contextForm.MatchString(parts[0]) || !flowForm.MatchString(parts[2]) {
		return "", "", "", false
	}
	if len(parts) == 4 {
		rest = parts[3]
	}
	return parts[0], parts[2], rest, true
}

// authorize finds the flow that the token opens. Without the right token nothing is told about the flow, not even that it exists.
func (s *server) authorize(r *http.Request, ctxID, flowID string) (flow, error) {
	unauthorized := refuse(http.StatusUnauthorized, "unauthorized",
		"the token is missing or not the one of this transfer: send the newest authorization value of the transfer's data address in the header Authorization")
	token := bearer(r.Header.Get("Authorization"))
	if token == "" {
		return flow{}, unauthorized
	}
	f, err := s.flows.get(r.Context(), ctxID, flowID)
	switch {
	case errors.Is(err, errUnknownFlow):
		return flow{}, unauthorized
	case err != nil:
		return flow{}, err
	case f.AgreementID == "" || !f.holds(token):
		return flow{}, unauthorized
	case f.State != dps.StateStarted:
		return flow{}, refuse(http.StatusForbidden, "transfer-"+strings.ToLower(f.State),
			fmt.Sprintf("transfer %s under agreement %s is %s: %s", f.FlowID, f.AgreementID, f.State, whatNext(f.State)))
	case !f.ExpiresAt.After(s.Now()):
		return flow{}, refuse(http.StatusUnauthorized, "token-expired",
			fmt.Sprintf("the token of transfer %s expired at %s: suspend and resume the transfer, or make a new one, for a fresh token", f.FlowID, f.ExpiresAt.UTC().Format(time.RFC3339)))
	}
	return f, nil
}

func whatNext(state string) string {
	if state == dps.StateSuspended {
		return "it has to be resumed, which brings a new token"
	}
	return "make a new transfer"
}

// judge asks the control plane about an access that the agreement demands to be judged. Without an answer there is no data.
func (s *server) judge(r *http.Request, f flow, rest string) error {
	if !slices.Contains(f.Demands, dps.DemandJudge) {
		return nil
	}
	if s.Judge == nil {
		return fmt.Errorf("flow %s demands to be judged: set internal.controlPlaneURL", f.FlowID)
	}
	path, err := judged(rest)
	if err != nil {
		return refuse(http.StatusBadRequest, "invalid", err.Error())
	}
	ctx, cancel := context.WithTimeout(r.Context(), judgeTimeout)
	defer cancel()
	v, err := s.Judge.Access(ctx, f.Context, f.FlowID, dps.AccessRequest{AgreementID: f.AgreementID, Purposes: f.Purposes, Method: r.Method, Path: path})
	if err != nil {
		return err
	}
	if !v.Allowed {
		s.Log.InfoContext(r.Context(), "data access denied by the policy", "context", f.Context, "flow", f.FlowID, "agreement", f.AgreementID, "reason", v.Reason)
		return refuse(http.StatusForbidden, "policy-denied", fmt.Sprintf("the policy of agreement %s does not allow this access: %s", f.AgreementID, v.Reason))
	}
	return nil
}

// judged is the path as a policy sees it: one spelling of what the backend will understand.
func judged(escaped string) (string, error) {
	path, err := url.PathUnescape(strings.Trim(escaped, "/"))
	if err != nil {
		return "", fmt.Errorf("the path %q is not properly escaped", escaped)
	}
	if strings.Contains(path, "//") {
		return "", fmt.Errorf("the path %q has an empty segment, which backends read in different ways: leave it out", escaped)
	}
	return path, nil
}

// judgeTimeout bounds the question with its retries.
const judgeTimeout = 15 * time.Second

// target is where and how to fetch.
type target struct {
	source
	header string // value of authKey
}

func (s *server) target(r *http.Request, f flow, rest string) (target, error) {
	src, err := parseSource(f.Source)
	if err != nil {
		return target{}, fmt.Errorf("asset %s of %s: %w", f.AssetID, f.Context, err)
	}
	invalid := func(format string, args ...any) (target, error) {
		return target{}, refuse(http.StatusBadRequest, "invalid", fmt.Sprintf(format, args...))
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead && !src.proxyMethod:
		return target{}, refuse(http.StatusMethodNotAllowed, "method-not-allowed", fmt.Sprintf("asset %s can only be read: use GET instead of %s", f.AssetID, r.Method))
	case r.ContentLength != 0 && !src.proxyBody:
		return invalid("asset %s takes no request body", f.AssetID)
	case strings.Trim(rest, "/") != "" && !src.proxyPath:
		return invalid("asset %s has no paths beneath it: leave out /%s", f.AssetID, rest)
	case r.URL.RawQuery != "" && !src.proxyQuery:
		return invalid("asset %s takes no query parameters: leave out ?%s", f.AssetID, r.URL.RawQuery)
	}
	if err := src.appendPath(rest); err != nil {
		return invalid("%v", err)
	}
	fixed := maps.Clone(src.query) // of baseUrl and queryParams: they choose what the asset is
	for k, v := range r.URL.Query() {
		if fixed.Has(k) {
			return invalid("the query parameter %q is set by the asset itself", k)
		}
		src.query[k] = v
	}
	t := target{source: src}
	if src.secret != "" {
		ctx, cancel := context.WithTimeout(r.Context(), secretTimeout)
		defer cancel()
		if t.header, err = s.Secrets.Secret(ctx, f.Context, src.secret, f.CreatedAt); err != nil {
			return target{}, fmt.Errorf("secret %s of %s for asset %s: %w", src.secret, f.Context, f.AssetID, err)
		}
	}
	return t, nil
}

const secretTimeout = 10 * time.Second

// Inbound headers that must not reach a backend: the consumer's own authorization, what only this data plane may say, and what would make another request of
// the one that was judged and recorded.
var strippedRequest = []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "Edc-Contract-Agreement-Id", "Edc-Bpn",
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Connection", "Upgrade",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// Backend headers that would tell of the inside or set state at the consumer.
var strippedResponse = []string{"Set-Cookie", "Server", "Location", "Www-Authenticate", "Proxy-Authenticate", "Alt-Svc", "X-Powered-By", "Strict-Transport-Security"}

func (s *server) proxy(f flow, t target) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:  s.transport,
		BufferPool: buffers,
		Rewrite: func(pr *httputil.ProxyRequest) {
			u := *t.base
			u.RawQuery = t.query.Encode()
			pr.Out.URL, pr.Out.Host = &u, u.Host
			for _, h := range strippedRequest {
				pr.Out.Header.Del(h)
			}
			for k, v := range t.headers {
				pr.Out.Header.Set(k, v)
			}
			bpn := f.Claims["bpn"]
			if bpn == "" {
				bpn = f.Counterparty
			}
			pr.Out.Header.Set("Edc-Contract-Agreement-Id", f.AgreementID)
			pr.Out.Header.Set("Edc-Bpn", bpn)
			if t.authKey != "" {
				pr.Out.Header.Set(t.authKey, t.header)
			}
		},
		ModifyResponse: func(res *http.Response) error {
			switch {
			case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
				return backendError{fmt.Sprintf("it refused the provider's own secret (%d)", res.StatusCode)}
			case res.StatusCode >= 300 && res.StatusCode < 400 && res.StatusCode != http.StatusNotModified:
				return backendError{fmt.Sprintf("it answered a redirection (%d), which is not followed", res.StatusCode)}
			case res.StatusCode >= 500:
				return backendError{fmt.Sprintf("it answered %d", res.StatusCode)}
			}
			for _, h := range strippedResponse {
				res.Header.Del(h)
			}
			res.Body = &paced{ReadCloser: res.Body, grace: s.BackendGrace, left: s.BackendGrace, rate: s.BackendRate}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var be backendError
			var refused *netguard.RefusedError
			status, code, why, next := http.StatusBadGateway, "backend-unavailable", "it can't be reached", "try again later or tell the provider"
			switch {
			case errors.As(err, &be):
				why = be.why
			case errors.As(err, &refused): // the log says which address
				code, why, next = "backend-refused", "its address is one that this data plane does not read from", "tell the provider to change the asset's baseUrl"
			case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
				status, why = http.StatusGatewayTimeout, "it did not answer in time"
			}
			s.Log.WarnContext(r.Context(), "backend", "context", f.Context, "asset", f.AssetID, "flow", f.FlowID, "host", t.base.Host, "error", err)
			s.writeError(w, r, refuse(status, code,
				fmt.Sprintf("the provider's backend of asset %s did not serve the request: %s; %s (agreement %s)", f.AssetID, why, next, f.AgreementID)))
		},
	}
}

// buffers are what bodies are copied through.
var buffers = &bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}

type bufferPool struct{ sync.Pool }

func (p *bufferPool) Get() []byte  { return p.Pool.Get().(*[32 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }

// paced ends a body that comes too slowly: each read takes from what is left, and what it brings adds to it.
type paced struct {
	io.ReadCloser
	grace, left time.Duration
	rate        int64 // bytes per second
}

func (p *paced) Read(b []byte) (int, error) {
	begin := time.Now()
	late := time.AfterFunc(p.left, func() { _ = p.Close() }) // which ends the read
	n, err := p.ReadCloser.Read(b)
	if !late.Stop() {
		return n, errTooSlow
	}
	p.left = min(p.grace, p.left-time.Since(begin)+time.Duration(n)*time.Second/time.Duration(p.rate))
	return n, err
}

var errTooSlow = errors.New("the backend sends too slowly")

type backendError struct{ why string }

func (e backendError) Error() string { return "the backend did not serve: " + e.why }

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// newTransport makes the HTTP client side towards backends: no proxy from the environment, time-outs on every step, and addresses
// checked at the moment of the connection.
func newTransport(d Deps) *http.Transport {
	return &http.Transport{DialContext: d.Backends.Dialer().DialContext, TLSClientConfig: d.BackendTLS, TLSHandshakeTimeout: 5 * time.Second,
		ResponseHeaderTimeout: d.HeaderTimeout, MaxIdleConnsPerHost: d.PerCounterparty, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
}

// recorder notes the status of an answer, and size and digest of its body.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	sum    hash.Hash
	failed bool // the consumer did not take all
}

func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	r.sum.Write(p[:n])
	r.failed = r.failed || err != nil
	return n, err
}

// Unwrap gives http.ResponseController the writer beneath.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
