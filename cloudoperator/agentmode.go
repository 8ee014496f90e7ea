// SPDX-License-Identifier: FSL-1.1-ALv2

package cloudoperator

import (
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
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator/agent"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
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
	HealthAddress                            string
	Log                                      *slog.Logger
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
	nc, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer nc.Close()
	a := agent.New(agent.Options{Cell: o.Cell, Namespace: o.Namespace, Client: c, Cache: objects, Changed: changed, Log: o.Log, Now: time.Now})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return objects.Start(ctx) })
	g.Go(func() error { return serveHealth(ctx, o.HealthAddress, nc) })
	g.Go(func() error {
		if !objects.WaitForCacheSync(ctx) {
			return nil // ctx has ended
		}
		return a.Run(ctx, nc)
	})
	return g.Wait()
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

// connect tries until the message server answers: the agent may start before it does.
func connect(ctx context.Context, o AgentOptions) (*nats.Conn, error) {
	u, err := url.Parse(o.NATSURL)
	if err != nil || u.Scheme != "tls" && u.Scheme != "wss" || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("--nats-url: write wss://host, or tls://host:4222 in the cloud's cluster; without TLS, and with a login in the address, nothing is sent")
	}
	roots := func() (*x509.CertPool, error) { return poolOf(o.CAFile) }
	if _, err := roots(); err != nil {
		return nil, fmt.Errorf("--nats-ca: %w", err)
	}
	creds := func() ([]byte, error) { return os.ReadFile(o.CredentialsFile) }
	if _, err := creds(); err != nil {
		return nil, fmt.Errorf("--nats-credentials: %w", err)
	}
	var last string // the handlers are called one after the other
	out := func(err error) {
		if ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			o.Log.Warn("the cloud is not reached; tried again", "url", o.NATSURL, "error", err)
		}
	}
	options := []nats.Option{
		func(n *nats.Options) error { n.RootCAsCB = roots; return nil },
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
	nc, err := cellrpc.Connect(o.NATSURL, "kaphera cell agent "+o.Cell, &tls.Config{MinVersion: tls.VersionTLS12}, creds, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.NATSURL, err)
	}
	return nc, nil
}

// serveHealth serves /healthz and /readyz. An agent that is cut off is not ready, and must not be restarted for it.
func serveHealth(ctx context.Context, address string, nc *nats.Conn) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !nc.IsConnected() {
			http.Error(w, "not connected to the cloud: "+nc.Status().String(), http.StatusServiceUnavailable)
		}
	})
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
