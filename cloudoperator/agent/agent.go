// SPDX-License-Identifier: FSL-1.1-ALv2

// Package agent is the Cloud operator in a cell: it takes the snapshot over the connection that it opened itself, applies it as EDC
// custom resources with prune, reports their status, and forwards the cloud's calls to the connector. It decides nothing about what
// runs; while it is cut off, the cell goes on as it is.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
)

// Intervals. The agent also acts at once on a new snapshot and on a change of an EDC object.
const (
	resyncEvery = time.Minute     // take the last snapshot and apply it again
	retryAfter  = 5 * time.Second // after a failure, and while a deletion is under way
	callTimeout = 10 * time.Second
	applyLimit  = 2 * time.Minute

	headsTimeout = 5 * time.Second // of the connector's answer
)

// Options of an agent.
type Options struct {
	Cell      string
	Namespace string
	// Client writes and reads; Cache, when not nil, is what the status is read from (Client otherwise).
	Client client.Client
	Cache  client.Reader
	// Changed receives something whenever an EDC object in the namespace has changed.
	Changed <-chan struct{}
	Log     *slog.Logger
	Now     func() time.Time
	// Metrics, when not nil, takes the agent's metrics.
	Metrics prometheus.Registerer
}

// Agent works for one cell.
type Agent struct {
	Options
	working   sync.Mutex // while a snapshot is applied
	reporting sync.Mutex // while a report is made and sent
	forwarder *cellrpc.Forwarder

	applier applier
	http    *http.Client
	metrics *metrics

	runs     atomic.Int64
	applying int64         // the newest run that has applied a snapshot; guarded by working
	known    chan struct{} // closed once the agent has a snapshot, and so knows what the cell runs

	mu    sync.Mutex
	state state
}

// state is what the next report says.
type state struct {
	appliedRevision, seenRevision int64
	appliedHash, err              string
	served                        map[string]bool // kind/name of what the snapshot runs; nil before the first
}

// New makes an agent.
func New(o Options) *Agent {
	if o.Cache == nil {
		o.Cache = o.Client
	}
	a := &Agent{Options: o, known: make(chan struct{}), metrics: newMetrics(o.Metrics), http: &http.Client{Timeout: headsTimeout}, applier: applier{client: o.Client, reader: o.Cache, namespace: o.Namespace, cell: o.Cell, applied: map[string]applied{}}}
	a.forwarder = cellrpc.NewForwarder(a.resolve, o.Now, o.Log, o.Metrics)
	return a
}

// Run works on nc until ctx ends. The connection must reconnect by itself; credential is the public key with which it logs in. It may work on several
// connections at once, such as while one with new credentials takes over from one with the former. It calls ready once calls arrive through nc.
func (a *Agent) Run(ctx context.Context, nc *nats.Conn, credential string, ready func()) error {
	arrived := make(chan *nats.Msg, 16)
	sub, err := nc.ChanSubscribe(celllink.SubjectSnapshot, arrived)
	if err != nil {
		return fmt.Errorf("subscribe to snapshots: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	applied := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	n := a.runs.Add(1)
	g.Go(func() error { a.follow(ctx, n, nc, arrived, applied); return nil })
	g.Go(func() error { a.reports(ctx, nc, credential, applied); return nil })
	g.Go(func() error { return a.forwarder.Serve(ctx, nc, ready) })
	return g.Wait()
}

// follow applies the newest snapshot: at once when one arrives, and again from time to time, so that nothing is missed while the
// connection was down and drift is put right.
func (a *Agent) follow(ctx context.Context, run int64, nc *nats.Conn, arrived <-chan *nats.Msg, applied chan<- struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var data []byte
		select {
		case <-ctx.Done():
			return
		case msg := <-arrived:
			data = newest(msg, arrived).Data
		case <-timer.C:
			callCtx, cancel := context.WithTimeout(ctx, callTimeout)
			last, _, err := celllink.Last(callCtx, nc, celllink.StreamDesired, celllink.SubjectSnapshot)
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					a.Log.Warn("take the snapshot", "error", err)
				}
				timer.Reset(retryAfter)
				continue
			}
			data = last
		}
		next := resyncEvery
		if data != nil {
			if again := a.take(ctx, run, data); again {
				next = retryAfter
			}
			select {
			case applied <- struct{}{}:
			default:
			}
		} else {
			next = retryAfter
		}
		timer.Reset(next)
	}
}

func newest(msg *nats.Msg, more <-chan *nats.Msg) *nats.Msg {
	for {
		select {
		case msg = <-more:
		default:
			return msg
		}
	}
}

// take applies a snapshot that came to a run and says whether to do so again soon. What came to one that was left, or to one before the newest that has
// applied any, may be older than that, and is not applied.
func (a *Agent) take(ctx context.Context, run int64, data []byte) bool {
	a.working.Lock()
	defer a.working.Unlock()
	if ctx.Err() != nil || run < a.applying {
		return true
	}
	a.applying = run
	start := time.Now()
	s, objects, err := celllink.DecodeSnapshot(data, a.Cell)
	again := false
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, applyLimit)
		defer cancel()
		a.serve(objects)
		again, err = a.Apply(ctx, objects)
	}
	a.metrics.tried(start, err)
	a.metrics.seen.Set(float64(s.Revision))
	a.mu.Lock()
	defer a.mu.Unlock()
	st := &a.state
	st.seenRevision = s.Revision
	if err != nil {
		if st.err != err.Error() {
			a.Log.Error("apply the snapshot", "revision", s.Revision, "error", err)
		}
		st.err = err.Error()
		return true
	}
	if st.appliedRevision != s.Revision || st.err != "" {
		a.Log.Info("applied the snapshot", "revision", s.Revision, "objects", len(objects))
	}
	a.metrics.applied.Set(float64(s.Revision))
	st.appliedRevision, st.appliedHash, st.err = s.Revision, s.Hash, ""
	return again
}

// serve takes calls for what objects run, also while they are being applied: what ran before goes on.
func (a *Agent) serve(objects []*unstructured.Unstructured) {
	runs := make(map[string]bool, len(objects))
	for _, o := range objects {
		runs[o.GetKind()+"/"+o.GetName()] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.served == nil {
		close(a.known)
	}
	a.state.served = runs
}

// reports reports on every change, at most once a second, and every ReportEvery.
func (a *Agent) reports(ctx context.Context, nc *nats.Conn, credential string, applied <-chan struct{}) {
	const gap = time.Second
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-applied:
			timer.Reset(0)
			continue
		case <-a.Changed:
			timer.Reset(max(0, gap-a.Now().Sub(last)))
			continue
		case <-timer.C:
		}
		last = a.Now()
		if err := a.report(ctx, nc, credential); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrConnectionReconnecting) {
			a.Log.Warn("report", "error", err)
		}
		timer.Reset(celllink.ReportEvery)
	}
}

func (a *Agent) report(ctx context.Context, nc *nats.Conn, credential string) error {
	a.reporting.Lock()
	defer a.reporting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	objects, err := a.applier.observe(ctx)
	if err != nil {
		return err
	}
	heads, err := a.heads(ctx)
	if err != nil {
		a.Log.Debug("audit heads", "error", err) // the connector may not be up; the next report has them
	}
	a.mu.Lock()
	r := celllink.Report{
		Cell: a.Cell, At: a.Now().UTC(), Credential: credential, AppliedRevision: a.state.appliedRevision, AppliedHash: a.state.appliedHash,
		SeenRevision: a.state.seenRevision, Error: a.state.err, Objects: objects, AuditHeads: heads,
	}
	a.mu.Unlock()
	err = celllink.SendReport(ctx, nc, r)
	a.metrics.told(heads, err == nil)
	return err
}
