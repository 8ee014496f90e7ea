// SPDX-License-Identifier: Apache-2.0

// Package dsp speaks the Dataspace Protocol 2025-1 over HTTPS as provider and consumer. Its engine ties the pure state machines
// (dsp/state), the messages (dsp/wire), policies (connector/odrl), identities (connector/identity) and the store together: a message or a
// command becomes one transaction, and workers send what the rows say is under way. Management APIs call the engine; they live in
// connector/management.
package dsp

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// Options of an Engine. Store, Identity, DataPlane, HTTP and PublicURL are required.
type Options struct {
	Store     *store.Store
	Identity  identity.Service
	DataPlane dps.DataPlane
	// HTTP sends the messages to counterparties.
	HTTP *http.Client
	// PublicURL is the base of everything public; DSP is at PublicURL/{ctx}/dsp/2025-1, and at PublicURL/{ctx}/dsp/{profile}/2025-1 for each
	// profile but the default one. A participant's DID may name another host (dcp.Base).
	PublicURL string
	// AllowPlainHTTP takes http addresses of counterparties, to which tokens go.
	AllowPlainHTTP bool
	// Decider chooses the own side's next command; nil is the product's.
	Decider Decider

	RequestTimeout time.Duration // of one message; default 20 s
	RetryFor       time.Duration // how long a message is retried; default 30 min
	MinBackoff     time.Duration // default 100 ms
	MaxBackoff     time.Duration // default 2 min
	HeadPoll       time.Duration // how often audit heads to ask for are looked for; default 2 s
	Workers        int           // default 32; a quarter of them at most works for one counterparty, half of that for one participant
	PerSender      int           // messages of one sender that are verified at once; default 32
	Now            func() time.Time
	NewID          func() string
	Log            *slog.Logger
	Metrics        prometheus.Registerer // nil: not registered

	PerParticipant int            // messages of one participant that are sent at once, by all processes of the connector; default a quarter of Workers
	Meter          *limits.Meter  // of what is bounded here; nil: none
	Requests       *limits.Shares // protocol requests to each participant at once; nil: not bounded
}

// Engine is one connector's protocol side. It is safe for concurrent use.
type Engine struct {
	opt      Options
	wake     chan struct{}
	metrics  *metrics
	watchers watchers
	senders  *limits.Shares
	sending  *limits.Shares
	verdicts catalogVerdicts

	negotiations kind[store.Negotiation]
	transfers    kind[store.Transfer]

	evaluators struct {
		sync.Mutex
		byName map[string]compiled
	}
}

type compiled struct {
	source    string // the profile's JSON
	evaluator *odrl.Evaluator
}

// New makes an engine. Run starts its workers.
func New(opt Options) (*Engine, error) {
	if opt.Store == nil || opt.Identity == nil || opt.DataPlane == nil || opt.HTTP == nil || opt.PublicURL == "" {
		return nil, errors.New("dsp: store, identity, data plane, HTTP client and public URL are all needed")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&opt.RequestTimeout, 20*time.Second)
	def(&opt.RetryFor, 30*time.Minute)
	def(&opt.MinBackoff, 100*time.Millisecond)
	def(&opt.MaxBackoff, 2*time.Minute)
	def(&opt.HeadPoll, 2*time.Second)
	if opt.Workers == 0 {
		opt.Workers = 32
	}
	if opt.PerParticipant == 0 {
		opt.PerParticipant = max(1, opt.Workers/4)
	}
	if opt.PerSender == 0 {
		opt.PerSender = 32
	}
	if opt.Decider == nil {
		opt.Decider = AtOnce{}
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.NewID == nil {
		opt.NewID = newUUID
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	opt.PublicURL = strings.TrimSuffix(opt.PublicURL, "/")
	e := &Engine{opt: opt, wake: make(chan struct{}, 1), metrics: newMetrics(opt.Metrics),
		sending: opt.Meter.Shares(limits.Share{Name: "messages to send", Most: opt.PerParticipant, Queue: opt.Workers, Patience: opt.RequestTimeout}),
		senders: opt.Meter.Shares(limits.Share{Name: "messages of a sender", Most: opt.PerSender})}
	e.evaluators.byName = map[string]compiled{}
	e.watchers.byKey = map[string]chan struct{}{}
	e.kinds()
	return e, nil
}

// Base returns a participant's own DSP base in the profile that it is seen in, which is also its callback address.
func (e *Engine) Base(p *store.Participant) string {
	return dcp.Base(p.DID, e.opt.PublicURL, p.Ctx) + "/" + url.PathEscape(p.Ctx) + basePath(p)
}

func basePath(p *store.Participant) string {
	if p.Default() {
		return "/dsp/2025-1"
	}
	return "/dsp/" + url.PathEscape(p.ProfileName) + "/2025-1"
}

// Evaluator returns the compiled policies of the profile that a participant is seen in.
func (e *Engine) Evaluator(p *store.Participant) (*odrl.Evaluator, error) {
	return e.compile(p.Profile)
}

// Wake makes the workers look for due rows now.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// changed wakes workers and watchers after a commit.
func (e *Engine) changed(p *store.Process) {
	e.watchers.notify(p.Ctx + "/" + p.ID)
	if p.NextAttemptAt != nil {
		e.Wake()
	}
}

// Watch returns a channel that is closed at the next change of a process in this connector.
func (e *Engine) Watch(participant, id string) <-chan struct{} {
	return e.watchers.get(participant + "/" + id)
}

// watchers are channels by process, closed at its next change.
type watchers struct {
	sync.Mutex
	byKey map[string]chan struct{}
}

func (w *watchers) get(key string) <-chan struct{} {
	w.Lock()
	defer w.Unlock()
	if w.byKey[key] == nil {
		w.byKey[key] = make(chan struct{})
	}
	return w.byKey[key]
}

func (w *watchers) notify(key string) {
	w.Lock()
	defer w.Unlock()
	if c := w.byKey[key]; c != nil {
		close(c)
		delete(w.byKey, key)
	}
}

// newUUID returns a random UUID (RFC 9562 version 4) as a URN-free string, the form other connectors use.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	const hexDigits = "0123456789abcdef"
	out := make([]byte, 0, 36)
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out = append(out, '-')
		}
		out = append(out, hexDigits[c>>4], hexDigits[c&15])
	}
	return string(out)
}

// RefusalError is an error that a caller of the engine, or a counterparty, may read: a stable code, an HTTP status and words.
type RefusalError struct {
	Status  int
	Code    string
	Message string
	Trace   *adminapi.Trace
}

func (r *RefusalError) Error() string { return r.Message }

// lookupParticipant reads a participant that may act now in one of its profiles; empty is the default one.
func (e *Engine) lookupParticipant(ctx context.Context, name, profile string) (*store.Participant, error) {
	p, err := e.opt.Store.Participant(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "not-found", "there is no participant context %q here", name)
	}
	if err != nil {
		return nil, err
	}
	if !p.Active {
		return nil, refuse(http.StatusServiceUnavailable, "inactive", "participant context %q is not active: its onboarding is not complete", name)
	}
	in, ok := p.In(profile)
	if !ok {
		return nil, refuse(http.StatusNotFound, "not-found", "participant context %q does not take part in dataspace profile %q", name, profile)
	}
	return in, nil
}
