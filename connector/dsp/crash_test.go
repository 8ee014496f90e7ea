// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dataplane"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

var errRefused = fmt.Errorf("%w: no such backend", dps.ErrRefused)

// childEnv makes this test binary a connector instead: TestMain calls child.
const childEnv = "KAPHERA_DSP_CHILD"

// childConfig is what a child connector is told. It listens on file descriptor 3, which the test keeps open over its death.
type childConfig struct {
	DSN       string            `json:"dsn"`
	Name      string            `json:"name"`
	Replica   string            `json:"replica"` // tells the processes of one connector apart
	DID       string            `json:"did"`
	URL       string            `json:"url"`
	Endpoints map[string]string `json:"endpoints"`
	// DataPlane is the internal address of a provider's data plane; the data plane itself has its own here.
	DataPlane string `json:"dataPlane"`
	// Lease is how long work is left to a process that says nothing; zero is the default.
	Lease time.Duration `json:"lease"`
	// KillAt ends the process with SIGKILL at this commit boundary, counted from 1: odd ones just before a commit, even ones just after.
	KillAt int64 `json:"killAt"`
}

func child() {
	var cfg childConfig
	must(json.Unmarshal([]byte(os.Getenv(childEnv)), &cfg))
	pool, err := pgxpool.ParseConfig(cfg.DSN)
	must(err)
	var started atomic.Bool
	var boundary atomic.Int64
	at := func() {
		if started.Load() && boundary.Add(1) == cfg.KillAt {
			must(syscall.Kill(os.Getpid(), syscall.SIGKILL))
			select {}
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	mux := http.NewServeMux()
	if cfg.DataPlane == cfg.URL {
		pool.ConnConfig.Tracer = boundaries(at)
		db, err := pgxpool.NewWithConfig(context.Background(), pool)
		must(err)
		plane, err := dataplane.New(dataplane.Deps{DB: db, Secrets: noSecrets{}, PublicURL: cfg.URL, InternalToken: internalToken, Log: log, Backends: netguard.Guard{AllowPrivate: true, AllowLoopback: true}})
		must(err)
		mux.Handle("/supplier/data/", plane.Public)
		mux.Handle("/dataflows/", plane.Internal)
		go func() { must(plane.Run(context.Background())) }()
	} else {
		s, err := store.Open(context.Background(), pool, store.Options{Owner: cfg.Name + cfg.Replica, Lease: cfg.Lease, Hooks: store.Hooks{BeforeCommit: at, AfterCommit: at}})
		must(err)
		who := newPeople()
		who.endpoints = cfg.Endpoints
		e, err := dsp.New(dsp.Options{Store: s, Identity: who, DataPlane: dps.NewClient(cfg.DataPlane, internalToken), HTTP: &http.Client{Timeout: 10 * time.Second},
			PublicURL: cfg.URL, AllowPlainHTTP: true, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Log: log})
		must(err)
		childRoutes(mux, e, cfg.Name)
		go func() { must(e.Run(context.Background())) }()
	}
	started.Store(true)
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	must(err)
	must((&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}).Serve(listener))
}

// childRoutes are the protocol's, and what a person may ask for.
func childRoutes(mux *http.ServeMux, e *dsp.Engine, name string) {
	mux.Handle("/", e.Handler())
	person := func(pattern string, do func(r *http.Request, id string) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := do(r, r.PathValue("id")); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
	}
	person("POST /start/{id}", func(r *http.Request, id string) error {
		_, err := e.Negotiate(r.Context(), name, adminapi.NegotiationRequest{ID: id, Counterparty: supplier, OfferID: r.URL.Query().Get("offer")})
		return err
	})
	person("POST /decide/{id}", func(r *http.Request, id string) error {
		signed, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = e.Decide(r.Context(), name, id, string(signed))
		}
		return err
	})
	person("POST /transfer/{id}", func(r *http.Request, id string) error {
		_, err := e.RequestTransfer(r.Context(), name, adminapi.TransferRequest{ID: id, AgreementID: r.URL.Query().Get("agreement")}, "")
		return err
	})
	person("POST /transfer/{id}/{command}", func(r *http.Request, id string) error {
		_, err := e.CommandTransfer(r.Context(), name, id, state.Trigger("command "+r.PathValue("command")), nil)
		return err
	})
}

const internalToken = "internal-token-of-the-test"

type noSecrets struct{}

func (noSecrets) Secret(context.Context, string, string, time.Time) (string, error) {
	return "", errors.New("no secrets here")
}

// boundaries calls itself around every writing statement of a data plane, each of which is a transaction of its own, with the setting of the context or not.
type boundaries func()

func (at boundaries) TraceBatchStart(ctx context.Context, c *pgx.Conn, b pgx.TraceBatchStartData) context.Context {
	return at.TraceQueryStart(ctx, c, pgx.TraceQueryStartData{SQL: b.Batch.QueuedQueries[b.Batch.Len()-1].SQL})
}

func (at boundaries) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (at boundaries) TraceBatchEnd(ctx context.Context, c *pgx.Conn, _ pgx.TraceBatchEndData) {
	at.TraceQueryEnd(ctx, c, pgx.TraceQueryEndData{})
}

func (at boundaries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	sql := strings.TrimSpace(q.SQL)
	if !strings.HasPrefix(sql, "INSERT") && !strings.HasPrefix(sql, "UPDATE") {
		return ctx
	}
	at()
	return context.WithValue(ctx, boundaryKey{}, true)
}

func (at boundaries) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(boundaryKey{}) != nil {
		at()
	}
}

type boundaryKey struct{}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// process is a connector in a process of its own.
type process struct {
	t        *testing.T
	cfg      childConfig
	listener *os.File
	cmd      *exec.Cmd
	log      bytes.Buffer
	died     chan struct{}
	store    *store.Store // the test's own view of its database
}

func newProcess(t *testing.T, name, did string) *process {
	t.Helper()
	p := &process{t: t, cfg: childConfig{DSN: pgtest.NewDatabase(t), Name: name, DID: did}}
	pool, err := pgxpool.ParseConfig(p.cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), pool.ConnConfig, nil); err != nil {
		t.Fatal(err)
	}
	pool.MaxConns = 2
	if p.store, err = store.Open(t.Context(), pool, store.Options{Owner: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.store.Close)
	if err := p.store.PutProfile(t.Context(), testProfile); err != nil {
		t.Fatal(err)
	}
	if err := p.store.PutParticipant(t.Context(), name, adminapi.Participant{DID: did, Profile: "pilot", Active: true}); err != nil {
		t.Fatal(err)
	}
	p.listen()
	return p
}

// listen opens the port that the process has in all of its lives.
func (p *process) listen() {
	t := p.t
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if p.listener, err = listener.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	p.cfg.URL = "http://" + listener.Addr().String()
	_ = listener.Close()
	t.Cleanup(func() { _ = p.listener.Close() })
}

func (p *process) base() string { return p.cfg.URL + "/" + p.cfg.Name + "/dsp/2025-1" }

func (p *process) start(killAt int64) {
	p.t.Helper()
	cfg := p.cfg
	cfg.KillAt = killAt
	raw, err := json.Marshal(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
	p.cmd.ExtraFiles = []*os.File{p.listener}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	died, cmd := make(chan struct{}), p.cmd
	p.died = died
	go func() { _ = cmd.Wait(); close(died) }()
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	<-p.died
}

// reviveIfDead starts the process again, without a boundary to die at, and reports whether it was dead.
func (p *process) reviveIfDead() bool {
	select {
	case <-p.died:
		p.start(0)
		return true
	default:
		return false
	}
}

// TestKillAtEveryCommitBoundary runs a negotiation between two connectors in processes of their own again and again, each time killing one
// of them at the next boundary of its commits, starting it again, and comparing both databases at the end.
func TestKillAtEveryCommitBoundary(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, victim string
		gated        bool
	}{{"provider", "provider", false}, {"consumer", "consumer", false}, {"provider with gates", "provider", true}} {
		victim := c.victim
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for boundary := int64(1); ; boundary++ {
				died := false
				t.Run(fmt.Sprint("boundary ", boundary), func(t *testing.T) { died = negotiateWithDeath(t, victim, boundary, c.gated) })
				if t.Failed() {
					return
				}
				if !died {
					if boundary < 8 {
						t.Fatalf("the %s has only %d boundaries in a negotiation", victim, boundary-1)
					}
					return
				}
			}
		})
	}
}

// negotiateWithDeath reports whether the victim reached the boundary, and so died, before the negotiation was over. With gates, a person approves
// before AGREED, and again before FINALIZED.
func negotiateWithDeath(t *testing.T, victim string, boundary int64, gated bool) (died bool) {
	provider, consumer := newProcess(t, "supplier", supplier), newProcess(t, "buyer", buyer)
	provider.cfg.Endpoints = map[string]string{buyer: consumer.base()}
	consumer.cfg.Endpoints = map[string]string{supplier: provider.base()}
	anna := newApprover(t, "anna", "supplier")
	var gates []adminapi.Gate
	if gated {
		gates = []adminapi.Gate{approval(state.Agreed, 1, anna), approval(state.Finalized, 1, anna)}
	}
	offerID := (&side{t: t, ctx: "supplier", store: provider.store}).offer("pcf", attestedPolicy, gates...)
	killProvider, killConsumer := boundary, int64(0)
	if victim == "consumer" {
		killProvider, killConsumer = 0, boundary
	}
	provider.start(killProvider)
	consumer.start(killConsumer)
	defer provider.stop()
	defer consumer.stop()
	const id = "negotiation-1"
	deadline := time.Now().Add(patience)
	client := &http.Client{Timeout: 30 * time.Second}
	begun := false
	for !finalized(t, consumer, id) || !peerFinalized(t, provider, id) {
		select { // the databases are looked at again soon, or at once after a death
		case <-provider.died:
		case <-consumer.died:
		case <-time.After(10 * time.Millisecond):
		}
		died = provider.reviveIfDead() || died
		died = consumer.reviveIfDead() || died
		if time.Now().After(deadline) {
			t.Fatalf("not final in time; provider:\n%s\nconsumer:\n%s", provider.log.String(), consumer.log.String())
		}
		if gated {
			approveHeld(t, client, provider, anna)
		}
		if !begun { // a person who gets no answer asks again with the same id
			res, err := client.Post(consumer.cfg.URL+"/start/"+id+"?offer="+strings.ReplaceAll(offerID, "=", "%3D"), "", nil)
			if err == nil {
				begun = res.StatusCode == http.StatusOK
				_ = res.Body.Close()
			}
		}
	}
	compare(t, provider, consumer, id)
	return died
}

// approveHeld lets a person approve what holds a negotiation of the provider, if something does. Whoever gets no answer decides anew.
func approveHeld(t *testing.T, client *http.Client, provider *process, by approver) {
	t.Helper()
	held, err := provider.store.Held(t.Context(), provider.cfg.Name, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range held {
		for i := range n.Gates {
			if gate.Evaluate(&n.Gates[i], time.Now()) != adminapi.GateOpen {
				continue
			}
			res, err := client.Post(provider.cfg.URL+"/decide/"+n.ID, "", strings.NewReader(by.decides(t, n, n.Gates[i].Gate.Name, adminapi.Approve)))
			if err == nil {
				_ = res.Body.Close()
			}
		}
	}
}

func finalized(t *testing.T, p *process, id string) bool {
	n, err := p.store.Negotiation(t.Context(), p.cfg.Name, id)
	if err != nil {
		return false
	}
	if n.Step == state.Terminated {
		t.Fatalf("%s: terminated: %+v\n%s", p.cfg.Name, n.Reason, p.log.String())
	}
	return n.Step == state.Finalized
}

func peerFinalized(t *testing.T, p *process, id string) bool {
	n, err := p.store.FindNegotiation(t.Context(), p.cfg.Name, state.Provider, buyer, id)
	return err == nil && finalized(t, p, n.ID)
}

// compare checks that each database has one negotiation and one agreement, that they say the same, and that nothing was done twice.
func compare(t *testing.T, provider, consumer *process, id string) {
	t.Helper()
	type view struct {
		OfferID, AssetID, State, Agreement, History string
		Negotiations, Agreements                    int
	}
	look := func(p *process) (view, *store.Negotiation) {
		negotiations, err := p.store.Negotiations(t.Context(), p.cfg.Name, store.Page{})
		if err != nil || len(negotiations) == 0 {
			t.Fatalf("%s: %d negotiations, %v", p.cfg.Name, len(negotiations), err)
		}
		agreements, err := p.store.Agreements(t.Context(), p.cfg.Name, 10)
		if err != nil || len(agreements) == 0 {
			t.Fatalf("%s: %d agreements, %v", p.cfg.Name, len(agreements), err)
		}
		n := negotiations[0]
		return view{n.OfferID, n.AssetID, n.State, string(agreements[0].Agreement), states(n.History), len(negotiations), len(agreements)}, n
	}
	theirs, p := look(provider)
	ours, c := look(consumer)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("the databases differ (-provider +consumer):\n%s", diff)
	}
	if ours.Negotiations != 1 || ours.Agreements != 1 || ours.History != "REQUESTED AGREED VERIFIED FINALIZED" {
		t.Errorf("something was lost or doubled: %+v", ours)
	}
	if p.CounterpartyPID != id || c.CounterpartyPID != p.ID {
		t.Errorf("process ids: provider knows %q, consumer knows %q of %q", p.CounterpartyPID, c.CounterpartyPID, p.ID)
	}
}
