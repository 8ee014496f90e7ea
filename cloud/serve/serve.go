// SPDX-License-Identifier: FSL-1.1-ALv2

// Package serve assembles the cloud program: Kubernetes client and cache, identity provider, the way to the cells, the
// Cloud API, the console, and health. It decides nothing itself.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/cloud/config"
	"github.com/kaphera/kaphera/cloud/console"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
)

const identityTimeout = 10 * time.Second

// Run serves until ctx ends.
func Run(ctx context.Context, c config.Config, version string, log *slog.Logger) error {
	kube, err := ctrlconfig.GetConfig()
	if err != nil {
		return fmt.Errorf("kubernetes configuration: %w", err)
	}
	k, err := connect(kube, c.Namespace)
	if err != nil {
		return err
	}
	natsTLS, err := api.TrustConfig(c.NATS.CAFile)
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	if !strings.HasPrefix(c.NATS.URL, "tls://") {
		natsTLS = nil
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	cells := cellrpc.NewCaller(c.NATS.URL, natsTLS, cellrpc.SecretCredentials(k.client, c.Namespace), metrics)
	defer cells.Close()
	trust, err := api.TrustClient(c.OIDC.CAFile, identityTimeout)
	if err != nil {
		return fmt.Errorf("oidc: %w", err)
	}
	identity := api.NewOIDC(c.OIDC.Issuer, c.OIDC.Audience, trust, time.Now)
	service := api.New(api.Service{
		Client: k.client, Cached: k.cache, Namespace: c.Namespace, Cells: cells, Log: log,
		Info: api.Info{Issuer: c.OIDC.Issuer, Audience: c.OIDC.Audience, CLIClientID: c.OIDC.CLIClientID, ConsoleURL: c.ConsoleURL, Version: version},
	})
	secret, err := os.ReadFile(c.Console.ClientSecretFile)
	if err != nil {
		return fmt.Errorf("console's client secret: %w", err)
	}
	pages, err := console.New(console.Config{
		Service: service, Identity: identity, URL: c.ConsoleURL, ClientID: c.Console.ClientID, ClientSecret: strings.TrimSpace(string(secret)), Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.cache.Start(ctx) })
	group.Go(func() error { identity.Run(ctx, log); return nil })
	group.Go(func() error {
		if k.cache.WaitForCacheSync(ctx) {
			service.FollowRevisions(ctx)
		}
		return nil
	})
	group.Go(func() error { return listen(ctx, c.Listen.Public, Public(service, identity, pages, c.APIURL), log) }) //nolint:contextcheck // calls carry their own
	group.Go(func() error { return listen(ctx, c.Listen.Health, health(service, identity, metrics), log) })
	return group.Wait()
}

type kubernetes struct {
	client ctrl.Client
	cache  cache.Cache
}

func connect(kube *rest.Config, namespace string) (kubernetes, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), cloudv1.AddToScheme(scheme)); err != nil {
		return kubernetes{}, fmt.Errorf("kubernetes types: %w", err)
	}
	client, err := ctrl.New(kube, ctrl.Options{Scheme: scheme})
	if err != nil {
		return kubernetes{}, fmt.Errorf("kubernetes client: %w", err)
	}
	objects, err := cache.New(kube, cache.Options{Scheme: scheme, DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	if err != nil {
		return kubernetes{}, fmt.Errorf("kubernetes cache: %w", err)
	}
	return kubernetes{client, objects}, nil
}

// Public serves the API below /api/ and the console below everything else; the API's host shows its documentation.
func Public(service *api.Service, auth api.Authenticator, pages http.Handler, apiURL string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/", api.Handler(service, auth))
	if u, err := url.Parse(apiURL); err == nil && u.Host != "" {
		mux.Handle(u.Hostname()+"/{$}", http.RedirectHandler("/api/v1/docs", http.StatusFound))
	}
	mux.Handle("/", pages)
	return mux
}

// health serves /livez, /readyz and /metrics. Not ready is said with the reason.
func health(service *api.Service, identity *api.OIDC, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := errors.Join(identity.Ready(), service.Ready(r.Context())); err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(map[string]string{"reason": err.Error()}) // the caller has gone, then
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

func listen(ctx context.Context, address string, h http.Handler, log *slog.Logger) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; is another program using the port?", address, err)
	}
	// No time-out for a whole call: a watched negotiation streams for minutes, and every other call bounds its own dealings.
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	stopped := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(grace) // streams that don't end in time are cut
		_ = s.Close()
	})
	defer stopped()
	log.Info("serving", "address", l.Addr().String())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	return nil
}
