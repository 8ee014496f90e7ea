// SPDX-License-Identifier: FSL-1.1-ALv2

package cloudoperator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator/agent"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/config"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	edcconfig "github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/rights"
)

// AgentOptions of the operator in mode agent.
type AgentOptions struct {
	Cell      string
	Namespace string
	// NATSURL of the cloud's message server: wss://host from anywhere, tls://host:4222 in the cloud's cluster.
	NATSURL string
	// CAFile of the message server's authority, empty for the system's; CredentialsFile of the agent's user. Both are read again at each reconnect.
	CAFile, CredentialsFile string
	// Proxy is the HTTP proxy, http(s)://host:port, through whose CONNECT the message server is reached; empty is none. It is not HTTPS_PROXY, which
	// would take the Kubernetes API through it too. ProxyCAFile of its authority, empty for the system's; ProxyCredentialsFile with user:password.
	Proxy, ProxyCAFile, ProxyCredentialsFile string
	// HealthAddress of /healthz, /readyz and /metrics.
	HealthAddress string
	// Replica is the name of this one of several, the pod's; empty is the host's name, which in a pod is the pod's. A container that is started again
	// takes up the Lease that it had.
	Replica string
	Log     *slog.Logger
}

// RunAgent works as the agent of a cell until ctx ends.
func RunAgent(ctx context.Context, cfg *rest.Config, o AgentOptions) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), edc.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("kubernetes types: %w", err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("kubernetes client: %w", err)
	}
	objects, err := cache.New(cfg, cache.Options{Scheme: scheme, DefaultNamespaces: map[string]cache.Config{o.Namespace: {}}})
	if err != nil {
		return fmt.Errorf("kubernetes cache: %w", err)
	}
	changed := make(chan struct{}, 1)
	if err := watch(ctx, objects, changed); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	own, err := o.rights(cfg)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	a := agent.New(agent.Options{Metrics: registry, Cell: o.Cell, Namespace: o.Namespace, Client: c, Cache: objects, Changed: changed, Log: o.Log, Now: time.Now})
	h := newHealth(registry, own)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return objects.Start(ctx) })
	g.Go(func() error { return h.serve(ctx, o.HealthAddress) })
	g.Go(func() error {
		if !objects.WaitForCacheSync(ctx) {
			return nil // ctx has ended
		}
		h.standsBy.Store(true)
		return lead(ctx, cfg, o, func(ctx context.Context) error { return work(ctx, o, a, h) })
	})
	return g.Wait()
}

// credentialsEvery is how often the agent looks whether its credentials have been replaced.
const credentialsEvery = 2 * time.Second

// work lets the agent work through a connection with the credentials as they are. When they have been replaced, a connection with the new ones takes
// over before the one with the former ends, so that no call is lost; one that is not let in takes over nothing.
func work(ctx context.Context, o AgentOptions, a *agent.Agent, h *health) error {
	g, ctx := errgroup.WithContext(ctx)
	tick := time.NewTicker(credentialsEvery)
	defer tick.Stop()
	takesOver := func() {} // from the one before
	for ctx.Err() == nil {
		creds, credential, err := o.credential()
		if err != nil { // they are just being mounted: whoever works goes on
			o.Log.Warn("the agent's credentials; read again", "error", err)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
			continue
		}
		nc, err := connect(ctx, o)
		if err != nil {
			return err
		}
		h.link.CompareAndSwap(nil, nc)
		running, stop := context.WithCancel(ctx)
		ready := make(chan struct{})
		g.Go(func() error {
			defer nc.Close()
			return a.Run(running, nc, credential, func() { close(ready) })
		})
		for replaced := false; !replaced && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case <-ready:
				takesOver()
				h.link.Store(nc)
				takesOver, ready, stop = stop, nil, func() {}
			case <-tick.C:
				now, _, err := o.credential()
				replaced = err == nil && !bytes.Equal(now, creds)
			}
		}
		stop() // it was not let in
	}
	return g.Wait()
}

// The Lease in the cell's namespace by which one of several agents works, the connection to the cloud included. Whoever dies is succeeded before the
// cloud calls the cell silent (celllink.SilentAfter).
const (
	agentLease    = "kaphera-cell-agent"
	leaseDuration = 30 * time.Second
	renewDeadline = 20 * time.Second
	retryPeriod   = 4 * time.Second
)

// ErrLeaseLost ends an agent that could not renew its Lease: another one may work by now.
var ErrLeaseLost = errors.New("the Lease " + agentLease + " could not be renewed: does the Kubernetes API answer?")

// lead works while it has the Lease, and gives it up after the work has ended.
func lead(ctx context.Context, cfg *rest.Config, o AgentOptions, work func(context.Context) error) error {
	if o.Replica == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the name of this replica: %w", err)
		}
		o.Replica = host
	}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, o.Namespace, agentLease,
		resourcelock.ResourceLockConfig{Identity: o.Replica}, cfg, renewDeadline)
	if err != nil {
		return fmt.Errorf("lease %s: %w", agentLease, err)
	}
	standing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	began, ended := make(chan struct{}), make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: agentLease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(began)
				defer stop()
				leading, end := context.WithCancel(leading)
				defer end()
				defer context.AfterFunc(ctx, end)()
				o.Log.Info("this agent works for the cell")
				ended <- work(leading)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("lease %s: %w", agentLease, err)
	}
	defer context.AfterFunc(ctx, func() {
		select {
		case <-began: // the work stops first
		default:
			stop()
		}
	})()
	elector.Run(standing)
	select {
	case <-began:
		err = <-ended
	default:
	}
	if err == nil && ctx.Err() == nil {
		return ErrLeaseLost
	}
	return err
}

// watch puts something into changed whenever an EDC object changes.
func watch(ctx context.Context, objects cache.Cache, changed chan<- struct{}) error {
	tell := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for _, kind := range agent.Kinds() {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(edc.GroupVersion.WithKind(kind))
		informer, err := objects.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %ss: %w", kind, err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: tell, DeleteFunc: tell, UpdateFunc: func(_, o any) { tell(o) },
		})
		if err != nil {
			return fmt.Errorf("watch %ss: %w", kind, err)
		}
	}
	return nil
}

// check refuses what connect could not work with, whichever replica is to connect.
func (o AgentOptions) check() error {
	u, err := url.Parse(o.NATSURL)
	if err != nil || u.Scheme != "tls" && u.Scheme != "wss" || u.Hostname() == "" || u.User != nil {
		return errors.New("--nats-url: write wss://host, or tls://host:4222 in the cloud's cluster; without TLS, and with a login in the address, nothing is sent")
	}
	if _, err := o.roots(); err != nil {
		return fmt.Errorf("--nats-ca: %w", err)
	}
	if _, _, err := o.credential(); err != nil {
		return err
	}
	if o.Proxy != "" {
		if _, err := newProxy(o.Proxy, o.ProxyCAFile, o.ProxyCredentialsFile); err != nil {
			return fmt.Errorf("--nats-proxy: %w", err)
		}
	}
	return nil
}

// rights are those of AgentRole in the cell's namespace.
func (o AgentOptions) rights(cfg *rest.Config) (*rights.Own, error) {
	rules, err := config.Rules(manifest.AgentRole)
	if err != nil {
		return nil, err
	}
	return rights.NewOwn(cfg, []edcconfig.Rights{{Namespace: o.Namespace, Rules: rules}}, logr.FromSlogHandler(o.Log.Handler()))
}

func (o AgentOptions) roots() (*x509.CertPool, error) { return poolOf(o.CAFile) }

func (o AgentOptions) creds() ([]byte, error) { return os.ReadFile(o.CredentialsFile) }

// credential also returns the public key in the agent's credentials.
func (o AgentOptions) credential() (creds []byte, key string, err error) {
	if creds, err = o.creds(); err == nil {
		key, err = natsauth.UserKey(creds)
	}
	if err != nil {
		return nil, "", fmt.Errorf("--nats-credentials: %w", err)
	}
	return creds, key, nil
}

// connect tries until the message server answers: the agent may start before it does.
func connect(ctx context.Context, o AgentOptions) (*nats.Conn, error) {
	var last string // the handlers are called one after the other
	out := func(err error) {
		if ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			o.Log.Warn("the cloud is not reached; tried again", "url", o.NATSURL, "error", err)
		}
	}
	options := []nats.Option{
		func(n *nats.Options) error { n.RootCAsCB = o.roots; return nil },
		nats.RetryOnFailedConnect(true),
		nats.IgnoreDiscoveredServers(), // addresses in the cloud's cluster
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && ctx.Err() == nil {
				o.Log.Warn("the connection to the cloud is down", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { out(err) }),
		nats.ReconnectHandler(func(*nats.Conn) {
			last = ""
			o.Log.Info("connected to the cloud", "url", o.NATSURL)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrAuthorization) {
				out(fmt.Errorf("it refuses the credentials in %s (--nats-credentials): are they of this cell, and does it exist? %w", o.CredentialsFile, err))
				return
			}
			o.Log.Warn("message server", "error", err)
		}),
	}
	if o.Proxy != "" {
		p, err := newProxy(o.Proxy, o.ProxyCAFile, o.ProxyCredentialsFile)
		if err != nil {
			return nil, fmt.Errorf("--nats-proxy: %w", err)
		}
		options = append(options, nats.SetCustomDialer(p), nats.SkipHostLookup())
	}
	nc, err := cellrpc.Connect(o.NATSURL, "kaphera cell agent "+o.Cell, &tls.Config{MinVersion: tls.VersionTLS12}, o.creds, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.NATSURL, err)
	}
	return nc, nil
}

// health is what the probes see of an agent, and its metrics.
type health struct {
	metrics  http.Handler
	rights   *rights.Own
	standsBy atomic.Bool               // it could work at once
	link     atomic.Pointer[nats.Conn] // once it works
}

func newHealth(r *prometheus.Registry, own *rights.Own) *health {
	h := &health{metrics: promhttp.HandlerFor(r, promhttp.HandlerOpts{}), rights: own}
	connected := func() float64 {
		if nc := h.link.Load(); nc != nil && nc.IsConnected() {
			return 1
		}
		return 0
	}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kaphera_agent_connected", Help: "1 while this agent works and is connected to the cloud."}, connected))
	return h
}

// ready is why the agent is not ready. One that stands by is; one that is cut off is not, and must not be restarted for it.
func (h *health) ready() error {
	lacking := h.rights.Check(nil)
	switch nc := h.link.Load(); {
	case lacking != nil:
		return lacking
	case !h.standsBy.Load():
		return errors.New("what is in the namespace is not known yet")
	case nc != nil && !nc.IsConnected():
		return fmt.Errorf("not connected to the cloud: %s", nc.Status())
	}
	return nil
}

// serve serves /healthz, /readyz and /metrics.
func (h *health) serve(ctx context.Context, address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.ready(); err != nil { //nolint:contextcheck // what is asked for outlives the probe
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.Handle("GET /metrics", h.metrics)
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; is another program using the port?", address, err)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	return nil
}
