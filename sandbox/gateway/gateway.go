// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	networklisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kaphera/kaphera/sandbox/pki"
)

// Class is the IngressClass that the gateway serves.
const Class = "sandbox"

// Config is what a gateway serves and where.
type Config struct {
	Cluster   string // names the block in the hosts file
	Domain    string
	Address   netip.Addr // listens here on 80 and 443
	HostsFile string
	Authority *pki.Authority
	Client    kubernetes.Interface
	Log       *slog.Logger
}

// Gateway is one running gateway.
type Gateway struct {
	Config
	table     atomic.Pointer[Table]
	synced    atomic.Bool
	changed   chan struct{}
	ingresses networklisters.IngressLister
	services  corelisters.ServiceLister
	slices    discoverylisters.EndpointSliceLister
}

// Run serves until ctx ends. It starts the informers that it needs from factory.
func Run(ctx context.Context, c Config, factory informers.SharedInformerFactory) error {
	g := &Gateway{
		Config: c, changed: make(chan struct{}, 1),
		ingresses: factory.Networking().V1().Ingresses().Lister(),
		services:  factory.Core().V1().Services().Lister(),
		slices:    factory.Discovery().V1().EndpointSlices().Lister(),
	}
	g.table.Store(NewTable(Class, nil))
	informer := factory.Networking().V1().Ingresses().Informer()
	poke := func(any) {
		select {
		case g.changed <- struct{}{}:
		default: // one round is due already
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: poke, UpdateFunc: func(_, now any) { poke(now) }, DeleteFunc: poke,
	}); err != nil {
		return err
	}
	synced := []cache.InformerSynced{informer.HasSynced,
		factory.Core().V1().Services().Informer().HasSynced, factory.Discovery().V1().EndpointSlices().Informer().HasSynced}
	factory.Start(ctx.Done())

	certs := &certificates{authority: c.Authority, domain: c.Domain, now: time.Now, made: map[string]*tls.Certificate{},
		knows: func(host string) bool { return g.table.Load().Knows(host) }}
	secure := newServer(newProxy(g, newTransport(), c.Log), c.Log)
	secure.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get}
	plain := newServer(newPlain(g.synced.Load), c.Log)
	failed := make(chan error, 2)
	for server, port := range map[*http.Server]string{secure: "443", plain: "80"} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(c.Address.String(), port))
		if err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
		go func() {
			if server.TLSConfig != nil {
				failed <- server.ServeTLS(listener, "", "")
			} else {
				failed <- server.Serve(listener)
			}
		}()
		defer func() { _ = server.Close() }()
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return context.Cause(ctx)
	}
	return g.follow(ctx, failed)
}

// follow keeps table, hosts file and Ingress status in step with the cluster.
func (g *Gateway) follow(ctx context.Context, failed <-chan error) error {
	retry := time.NewTicker(30 * time.Second)
	defer retry.Stop()
	for {
		if err := g.sync(ctx); err != nil {
			g.Log.Warn("following the Ingress objects; tried again soon", "error", err)
		}
		g.synced.Store(true)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("gateway: %w", err)
		case <-g.changed:
		case <-retry.C: // somebody else may have edited the hosts file
		}
	}
}

func (g *Gateway) sync(ctx context.Context) error {
	ingresses, err := g.ingresses.List(labels.Everything())
	if err != nil {
		return err
	}
	table := NewTable(Class, ingresses)
	g.table.Store(table)
	hosts := append(table.Hosts(), g.Domain)
	errs := []error{SyncHosts(g.HostsFile, g.Cluster, g.Address.String(), hosts)}
	for _, ingress := range ingresses {
		if ingress.Spec.IngressClassName != nil && *ingress.Spec.IngressClassName == Class {
			errs = append(errs, g.publish(ctx, ingress))
		}
	}
	return errors.Join(errs...)
}

// publish writes the gateway's address into the status of an Ingress.
func (g *Gateway) publish(ctx context.Context, ingress *networkingv1.Ingress) error {
	want := []networkingv1.IngressLoadBalancerIngress{{IP: g.Address.String()}}
	if slices.EqualFunc(ingress.Status.LoadBalancer.Ingress, want, func(a, b networkingv1.IngressLoadBalancerIngress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname
	}) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ingress = ingress.DeepCopy()
	ingress.Status.LoadBalancer.Ingress = want
	_, err := g.Client.NetworkingV1().Ingresses(ingress.Namespace).UpdateStatus(ctx, ingress, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("status of Ingress %s/%s: %w", ingress.Namespace, ingress.Name, err)
	}
	return nil
}

func (g *Gateway) find(host, path string) (Backend, bool) { return g.table.Load().Find(host, path) }

func (g *Gateway) targets(b Backend) ([]string, error) {
	service, err := g.services.Services(b.Namespace).Get(b.Service)
	if err != nil {
		service = nil // the cache's only error: not found
	}
	var found []*discoveryv1.EndpointSlice
	if service != nil {
		found, err = g.slices.EndpointSlices(b.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: b.Service}))
		if err != nil {
			return nil, err
		}
	}
	return endpoints(b, service, found)
}
