// SPDX-License-Identifier: Apache-2.0

package edcoperator

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/controller/connector"
	"github.com/kaphera/kaphera/edcoperator/controller/credentialissuer"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/controller/participantcontext"
	"github.com/kaphera/kaphera/edcoperator/controller/stage"
	"github.com/kaphera/kaphera/edcoperator/rights"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Options of the operator.
type Options struct {
	// ConnectorImage runs where an object names none. Required.
	ConnectorImage string
	// Namespaces to watch; empty watches all.
	Namespaces []string
	// Namespace of the operator's own Pods, which NetworkPolicies let in to the runtimes; empty when it runs outside the cluster.
	Namespace string
	// LeaderElection lets several replicas run of which one works; LeaderElectionNamespace holds the Lease, empty = the pod's own.
	LeaderElection          bool
	LeaderElectionNamespace string
	// MetricsAddress and HealthAddress to listen on, such as ":8080"; "0" is off.
	MetricsAddress, HealthAddress string
	// Dial opens connections to runtimes, Vaults and public addresses; nil is the network.
	Dial runtimeclient.DialFunc
	// Now is the clock; nil is the machine's.
	Now func() time.Time
	// SkipNameValidation allows several managers in one process. For tests.
	SkipNameValidation bool
}

// Scheme knows every kind that the operator reads or writes.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(s))
	utilruntime.Must(v1alpha1.AddToScheme(s))
	return s
}

// NewManager returns the operator, ready to be started. ctx is for the set-up only.
func NewManager(ctx context.Context, cfg *rest.Config, o Options) (ctrl.Manager, error) {
	if o.ConnectorImage == "" {
		return nil, errors.New("no image for connectors: give --connector-image or RELATED_IMAGE_CONNECTOR")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	opts := ctrl.Options{
		Scheme:                        Scheme(),
		Cache:                         cacheOptions(o.Namespaces),
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.Pod{}}}},
		Metrics:                       server.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress:        o.HealthAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              "edc-operator.kaphera.io",
		LeaderElectionNamespace:       o.LeaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true,
	}
	opts.Controller.SkipNameValidation = &o.SkipNameValidation
	mgr, err := ctrl.NewManager(cfg, opts)
	if err != nil {
		return nil, fmt.Errorf("set up the manager: %w", err)
	}
	if err := participantcontext.Index(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, fmt.Errorf("index participant contexts: %w", err)
	}
	stages := &stage.Runner{Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Dial: o.Dial, Now: o.Now, Namespace: o.Namespace}
	settler := outcome.Settler{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("edc-operator")}
	for _, r := range []interface{ SetupWithManager(ctrl.Manager) error }{
		connector.New(stages, settler, o.ConnectorImage), credentialissuer.New(stages, settler, o.ConnectorImage), participantcontext.New(stages, settler),
	} {
		if err := r.SetupWithManager(mgr); err != nil {
			return nil, err
		}
	}
	needed, err := needs(o)
	if err != nil {
		return nil, err
	}
	own, err := rights.NewOwn(cfg, needed, mgr.GetLogger())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(mgr.AddHealthzCheck("livez", healthz.Ping), mgr.AddReadyzCheck("rights", own.Check)); err != nil {
		return nil, fmt.Errorf("set up health: %w", err)
	}
	return mgr, nil
}

// needs are the operator's rights. In which namespaces it is to work, where it watches all or several, an administrator decides by what they are given,
// and their objects say what is missing there.
func needs(o Options) ([]config.Rights, error) {
	if len(o.Namespaces) == 1 && o.Namespaces[0] == o.Namespace {
		return config.OperatorRightsIn(o.Namespace)
	}
	const given = "given"
	all, err := config.OperatorRights(given)
	var out []config.Rights
	for _, r := range all {
		switch {
		case r.Namespace == given, r.Namespace == "" && len(o.Namespaces) > 0, r.Namespace == config.Namespace && !o.LeaderElection:
			continue
		case r.Namespace == config.Namespace && o.LeaderElectionNamespace != "":
			r.Namespace = o.LeaderElectionNamespace
		}
		out = append(out, r)
	}
	return out, err
}

// cacheOptions keep only what the operator made in memory, of kinds that others use too.
func cacheOptions(namespaces []string) cache.Options {
	own := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{workload.LabelManagedBy: workload.ManagedBy})}
	o := cache.Options{ByObject: map[client.Object]cache.ByObject{
		&appsv1.Deployment{}: own, &batchv1.Job{}: own, &corev1.Service{}: own, &corev1.ServiceAccount{}: own, &networkingv1.Ingress{}: own,
		&networkingv1.NetworkPolicy{}: own,
	}}
	if len(namespaces) > 0 {
		o.DefaultNamespaces = map[string]cache.Config{}
		for _, n := range namespaces {
			o.DefaultNamespaces[n] = cache.Config{}
		}
	}
	return o
}
