// SPDX-License-Identifier: Apache-2.0

// Package dataplane serves data: it is directed by a control plane (Data Plane Signaling, internal port) and hands data out to the
// holders of a flow's token (HTTP pull, public port) from the asset's own backend. It never decides who may have data; that is the
// control plane's, which starts and ends the flows and, where a policy wants that, judges each access.
package dataplane

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// Secrets reads what a backend wants to be shown, by the alias that an asset's address names, as it was at since or later.
type Secrets interface {
	Secret(ctx context.Context, participantCtx, alias string, since time.Time) (string, error)
}

// Judge is asked before each access to a flow whose agreement demands it; the control plane.
type Judge interface {
	Access(ctx context.Context, participantCtx, flowID string, req dps.AccessRequest) (dps.AccessVerdict, error)
}

// Deps is what a data plane needs.
type Deps struct {
	DB            *pgxpool.Pool
	Secrets       Secrets
	Judge         Judge  // nil: flows that demand to be judged are not started
	PublicURL     string // base of the public port, https://shared.demo.example
	InternalToken string // bearer token of the signaling API
	Metrics       prometheus.Registerer
	Log           *slog.Logger
	// BackendTLS is how TLS backends are verified; nil means the system's trust.
	BackendTLS *tls.Config
	// TokenLifetime is how long a flow's token is good for; a new start or a resume makes a new one. Default 1 h.
	TokenLifetime time.Duration
	// MaxDuration ends a single access. Default 1 h.
	MaxDuration time.Duration
	// HeaderTimeout is how long a backend may take until it begins to answer. Default 30 s.
	HeaderTimeout time.Duration
	// RecordTimeout is how long records may take to be written. Default 10 s.
	RecordTimeout time.Duration
	// PerCounterparty is how many accesses of one counterparty to one participant's data are served at once. Default 64.
	PerCounterparty int
	// PerParticipant is how many accesses to one participant's data are served at once; as many more wait. Default 128.
	PerParticipant int
	// Connections to the database that each participant has at once; nil: not bounded.
	Connections *limits.Shares
	Meter       *limits.Meter // of what is bounded here; nil: none
	// BackendGrace and BackendRate: a backend may stand still for BackendGrace in all, and for as long as what it has sent takes at BackendRate bytes
	// per second; then the access is ended. Time in which the consumer takes nothing does not count. Default 30 s and 1 KiB/s.
	BackendGrace time.Duration
	BackendRate  int64
	// Backends says where backends may be.
	Backends netguard.Guard
	// Name of this process. One that starts again under the same name knows that the accesses of the one before have ended. Default a random one.
	Name     string
	Now      func() time.Time // default time.Now
	NewToken func() string    // default 256 random bits
}

type server struct {
	Deps
	flows     flows
	transport http.RoundTripper
	metrics   metrics
	running   running
	served    *limits.Shares // accesses, of participants
	shares    *limits.Shares // accesses, of counterparties
	journal   *journal
	boot      string // of this process, see record.go
	beats     sync.Mutex
}

// DataPlane is the data plane role.
type DataPlane struct {
	Public   http.Handler // /{ctx}/data/...
	Internal http.Handler // signaling, /dataflows/...
	// Run keeps the record of accesses until its context ends.
	Run func(context.Context) error
	// Close records what has not been yet, once no access is under way any more.
	Close func()
}

// New makes a data plane.
func New(d Deps) (*DataPlane, error) {
	s, err := newServer(d)
	if err != nil {
		return nil, err
	}
	return &DataPlane{Public: http.HandlerFunc(s.access), Internal: s.signaling(), Run: s.Run, Close: s.journal.close}, nil
}

func newServer(d Deps) (*server, error) {
	switch {
	case d.DB == nil || d.Secrets == nil || d.Log == nil:
		return nil, errors.New("data plane: database, secrets and log are needed")
	case d.InternalToken == "":
		return nil, errors.New("data plane: the internal token is empty: set internal.tokenFile")
	case d.PublicURL == "":
		return nil, errors.New("data plane: the public address is empty: set publicURL")
	}
	setDefault(&d.TokenLifetime, time.Hour)
	setDefault(&d.MaxDuration, time.Hour)
	setDefault(&d.HeaderTimeout, 30*time.Second)
	setDefault(&d.BackendGrace, 30*time.Second)
	setDefault(&d.RecordTimeout, 10*time.Second)
	if d.BackendRate == 0 {
		d.BackendRate = 1 << 10
	}
	if d.PerCounterparty == 0 {
		d.PerCounterparty = 64
	}
	if d.PerParticipant == 0 {
		d.PerParticipant = 128
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.NewToken == nil {
		d.NewToken = func() string { return rand.Text() + rand.Text() } // 2 × 130 bits
	}
	if d.Name == "" {
		d.Name = rand.Text()
	}
	d.PublicURL = strings.TrimSuffix(d.PublicURL, "/")
	s := &server{Deps: d, flows: flows{tenant.DB{Pool: d.DB, Shares: d.Connections}}, metrics: newMetrics(), boot: rand.Text(),
		served: d.Meter.Shares(limits.Share{Name: "data accesses of a participant", Most: d.PerParticipant, Queue: d.PerParticipant, Patience: queueTime, Pause: pause}),
		shares: d.Meter.Shares(limits.Share{Name: "data accesses of a counterparty", Most: d.PerCounterparty, Pause: pause})}
	s.journal = newJournal(s.commit)
	s.transport = newTransport(d)
	if d.Metrics != nil {
		if err := s.metrics.register(d.Metrics); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// running are the accesses under way in this process, by flow: they end with their flow.
type running struct {
	sync.Mutex
	byFlow map[string]*underWay
}

type underWay struct {
	participant string // empty until one was authorized
	cancel      map[*context.CancelFunc]struct{}
}

// add notes an access and returns what takes it off the list.
func (r *running) add(flow string, cancel context.CancelFunc) (done func()) {
	r.Lock()
	defer r.Unlock()
	if r.byFlow == nil {
		r.byFlow = map[string]*underWay{}
	}
	if r.byFlow[flow] == nil {
		r.byFlow[flow] = &underWay{cancel: map[*context.CancelFunc]struct{}{}}
	}
	r.byFlow[flow].cancel[&cancel] = struct{}{}
	return func() {
		r.Lock()
		defer r.Unlock()
		if delete(r.byFlow[flow].cancel, &cancel); len(r.byFlow[flow].cancel) == 0 {
			delete(r.byFlow, flow)
		}
	}
}

// authorized notes whose flow it is that an access has been let in to.
func (r *running) authorized(f flow) {
	r.Lock()
	defer r.Unlock()
	r.byFlow[f.FlowID].participant = f.Context
}

// stop cancels the accesses of a flow.
func (r *running) stop(flow string) {
	r.Lock()
	defer r.Unlock()
	if a := r.byFlow[flow]; a != nil {
		for cancel := range a.cancel {
			(*cancel)()
		}
	}
}

// flows are those with accesses that were let in, by participant.
func (r *running) flows() map[string][]string {
	r.Lock()
	defer r.Unlock()
	out := map[string][]string{}
	for flow, a := range r.byFlow {
		if a.participant != "" {
			out[a.participant] = append(out[a.participant], flow)
		}
	}
	return out
}

// stopEnded cancels the accesses of flows that are started no more: another replica may have been told.
func (s *server) stopEnded(ctx context.Context) error {
	for participant, ids := range s.running.flows() {
		started, err := s.flows.started(ctx, participant, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if !slices.Contains(started, id) {
				s.running.stop(id)
			}
		}
	}
	return nil
}

// queueTime is how long an access waits until others to the same participant's data have ended.
const queueTime = 5 * time.Second

// pause is how long an access that is turned away waits for that answer.
const pause = time.Second

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// refusal is an answer other than success, as every handler here writes it.
type refusal struct {
	status  int
	code    string
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, code, message string) error { return &refusal{status, code, message} }

// writeError answers with the refusal in err; what is not a refusal is logged and stays inside.
func (s *server) writeError(w http.ResponseWriter, r *http.Request, err error) int {
	var ref *refusal
	var busy *limits.BusyError
	switch {
	case errors.As(err, &ref):
	case errors.As(err, &busy): // of the participant, whose name is in the address
		ref = &refusal{http.StatusServiceUnavailable, "busy", busy.Error()}
		w.Header().Set("Retry-After", "5")
	default:
		s.Log.ErrorContext(r.Context(), "data plane", "method", r.Method, "path", r.URL.Path, "error", err)
		ref = &refusal{http.StatusServiceUnavailable, "unavailable", "the data plane can't answer right now: try again in a minute"}
		w.Header().Set("Retry-After", "30")
	}
	writeJSON(w, ref.status, adminapi.Error{Code: ref.code, Message: ref.message})
	return ref.status
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // the client may be gone
}

type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	running  prometheus.Gauge
	signals  *prometheus.CounterVec
}

func newMetrics() metrics {
	return metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaphera_dataplane_requests_total",
			Help: "Data accesses by participant context and HTTP status."}, []string{"context", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaphera_dataplane_sent_bytes_total",
			Help: "Bytes of data handed out by participant context."}, []string{"context"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kaphera_dataplane_request_seconds",
			Help: "Time from a data access to its last byte.", Buckets: prometheus.ExponentialBuckets(0.005, 4, 8)}, []string{"context"}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kaphera_dataplane_requests_running", Help: "Data accesses under way."}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaphera_dataplane_signals_total",
			Help: "Signaling messages by kind and HTTP status."}, []string{"message", "status"}),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.requests, m.bytes, m.duration, m.running, m.signals} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
