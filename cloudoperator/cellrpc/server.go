// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/adminapi"
)

// Target is the internal API of a connector or an issuer.
type Target struct {
	URL   string // base, without path
	Token string
}

// Resolver finds the connector of the participant, or the issuer, that a request names; ok is false when this cell has none.
type Resolver func(ctx context.Context, r Request) (t Target, ok bool, err error)

// Forwarder answers calls in a cell by forwarding them to the connector's /api/{ctx}/v1, or to an issuer's credentials.
type Forwarder struct {
	resolve Resolver
	client  *http.Client
	clock   clock
	once    once
	began   sync.Once
	since   time.Time // by the cloud's clock
	log     *slog.Logger
	calls   *prometheus.CounterVec
}

// NewForwarder makes one. now is the cell's clock; metrics may be nil.
func NewForwarder(resolve Resolver, now func() time.Time, log *slog.Logger, metrics prometheus.Registerer) *Forwarder {
	calls := newCounter(metrics, "kaphera_agent_calls_total",
		"Calls from the cloud, by what became of them (executed, repeated, expired, unknown, refused, failed).", "call", "outcome")
	return &Forwarder{resolve: resolve, log: log, calls: calls, clock: clock{here: now}, once: once{calls: map[string]*underWay{}}, client: &http.Client{
		Timeout:       AgentTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// maxConcurrent bounds the calls that one agent forwards at the same time; the rest wait in the subscription.
const maxConcurrent = 32

// Serve subscribes on nc, once it knows what time it is in the cloud, calls ready when calls arrive, and returns after ctx has ended and the calls
// under way have. It may serve several connections of one account.
func (f *Forwarder) Serve(ctx context.Context, nc *nats.Conn, ready func()) error {
	unset := func(err error) { f.log.Warn("the cloud's time", "error", err) }
	tries := 0
	for err := f.clock.set(ctx, nc); err != nil; err = f.clock.set(ctx, nc) {
		unset(err)
		if nc.IsConnected() {
			tries++
		}
		if tries == 3 { // such as credentials that may not ask, until the cloud has made others
			f.log.Warn("calls are judged by this cell's own clock")
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	f.began.Do(func() { f.since = f.clock.now() })
	var timekeeper sync.WaitGroup
	ticking, stop := context.WithCancel(ctx)
	timekeeper.Go(func() { f.clock.keep(ticking, nc, unset) })
	defer func() { stop(); timekeeper.Wait() }()
	msgs := make(chan *nats.Msg, 256)
	sub, err := nc.ChanQueueSubscribe(Subject, "agent", msgs)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", Subject, err)
	}
	for ctx.Err() == nil {
		if err := nc.FlushTimeout(5 * time.Second); err == nil {
			ready()
			break
		}
	}
	slots := make(chan struct{}, maxConcurrent)
	defer func() {
		for range maxConcurrent {
			slots <- struct{}{}
		}
	}()
	begin := func(msg *nats.Msg) {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			f.answer(context.WithoutCancel(ctx), msg) // what has begun is ended; each call has an end of its own
		}()
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case msg := <-msgs:
			begin(msg)
		}
	}
	if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("unsubscribe from %s: %w", Subject, err)
	}
	if nc.IsConnected() {
		if err := nc.FlushTimeout(5 * time.Second); err != nil { // what is lost here is asked for again
			f.log.Warn("the last calls of a connection", "error", err)
		}
	}
	for {
		select {
		case msg := <-msgs:
			begin(msg)
		default:
			return nil
		}
	}
}

// Forward answers one call. What cannot be forwarded is answered as the connector would: status and adminapi.Error.
func (f *Forwarder) Forward(ctx context.Context, data []byte) Response {
	var r Request
	if err := json.Unmarshal(data, &r); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "the call is not a request: %v", err)
	}
	resp, outcome := f.execute(ctx, r)
	f.count(r, outcome)
	return resp
}

func (f *Forwarder) count(r Request, outcome string) {
	f.calls.WithLabelValues(r.kind(), outcome).Inc()
}

// execute also returns what became of the call.
func (f *Forwarder) execute(ctx context.Context, r Request) (Response, string) {
	const refused, failed, executed = "refused", "failed", "executed"
	u, err := checked(r)
	if err != nil {
		return refuse(http.StatusBadRequest, "invalid", "%v", err), refused
	}
	ctx, cancel := context.WithTimeout(ctx, AgentTimeout)
	defer cancel()
	kind, name, who := "participant", r.Participant, fmt.Sprintf("the connector of participant %q", r.Participant)
	if r.Issuer != "" {
		kind, name, who = "issuer", r.Issuer, fmt.Sprintf("issuer %q", r.Issuer)
	}
	target, ok, err := f.resolve(ctx, r)
	switch {
	case err != nil:
		return refuse(http.StatusServiceUnavailable, "connector-unavailable", "%s: %v", who, err), failed
	case !ok:
		return refuse(http.StatusNotFound, "not-found", "this cell runs no %s %q", kind, name), refused
	}
	resp, err := f.forward(ctx, target, r, u)
	if err != nil {
		f.log.Warn("forward a call", kind, name, "method", r.Method, "path", u.Path, "error", err)
		return refuse(http.StatusBadGateway, "connector-unavailable", "%s does not answer: %v", who, err), failed
	}
	return resp, executed
}

func (f *Forwarder) forward(ctx context.Context, t Target, r Request, u *url.URL) (Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, strings.TrimSuffix(t.URL, "/")+u.String(), bytes.NewReader(r.Body))
	if err != nil {
		return Response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+t.Token)
	// Always there: it also tells the connector that the answer leaves the cell.
	req.Header.Set(adminapi.ActorHeader, cmp.Or(r.Actor, "client:cloud"))
	if len(r.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	start := time.Now()
	resp, err := f.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which is of no use to the caller
		}
		return Response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return Response{}, fmt.Errorf("read the answer: %w", err)
	}
	f.log.Debug("forwarded", "participant", r.Participant, "method", r.Method, "path", u.Path, "status", resp.StatusCode, "took", time.Since(start))
	if len(body) > MaxBody {
		return refuse(http.StatusRequestEntityTooLarge, "too-large",
			"the answer is larger than %d KiB: ask for fewer items with ?limit=, and fetch large data from the data plane with the transfer's own endpoint", MaxBody>>10), nil
	}
	return Response{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: body}, nil
}

// checked returns the connector's path of a call that stays within the participant's view.
func checked(r Request) (*url.URL, error) {
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		return nil, fmt.Errorf("method %q: must be GET, POST, PUT or DELETE", r.Method)
	}
	base := "/api/" + r.Participant + "/v1"
	switch {
	case r.Issuer != "" && (r.Participant != "" || !contextID(r.Issuer)):
		return nil, fmt.Errorf("issuer %q: must be a name of lower-case letters, digits and dashes, and the only one that is asked", r.Issuer)
	case r.Issuer != "":
		base = "/admin/v1/issuers/" + snapshot.IssuerContext
	case !contextID(r.Participant):
		return nil, fmt.Errorf("participant %q: must be a context id of lower-case letters, digits and dashes", r.Participant)
	}
	u, err := url.Parse(r.Path)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Fragment != "" || !strings.HasPrefix(u.Path, "/") {
		return nil, fmt.Errorf("path %q: must be a path with an optional query, starting with /", r.Path)
	}
	if u.Path != "/" && path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") || strings.Contains(u.Path, `\`) {
		return nil, fmt.Errorf("path %q: must not contain empty, . or .. segments", r.Path)
	}
	if r.Issuer != "" && u.Path != "/credentials" && !strings.HasPrefix(u.Path, "/credentials/") {
		return nil, fmt.Errorf("path %q: an issuer is asked about /credentials only", r.Path)
	}
	// The escaped form is kept: an id may contain an escaped slash, and that must not become a separator.
	return &url.URL{Path: base + u.Path, RawPath: base + u.EscapedPath(), RawQuery: u.RawQuery}, nil
}

func contextID(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func refuse(status int, code, format string, args ...any) Response {
	body, err := json.Marshal(adminapi.Error{Code: code, Message: fmt.Sprintf(format, args...)})
	if err != nil {
		body = []byte(`{"code":"internal"}`)
	}
	return Response{Status: status, ContentType: "application/json", Body: body}
}
