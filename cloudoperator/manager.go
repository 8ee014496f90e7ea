// SPDX-License-Identifier: FSL-1.1-ALv2

package cloudoperator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/cell"
	"github.com/kaphera/kaphera/cloudoperator/controller/dataspaceprofile"
	"github.com/kaphera/kaphera/cloudoperator/controller/organization"
	"github.com/kaphera/kaphera/cloudoperator/controller/participant"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/controller/platform"
	"github.com/kaphera/kaphera/cloudoperator/controller/usecase"
	"github.com/kaphera/kaphera/cloudoperator/transfer"
)

// Options of the operator in mode platform.
type Options struct {
	// Namespace of the Platform and of everything that belongs to it.
	Namespace string
	// ServiceAccount of the operator, and the file of its token for the Vault.
	ServiceAccount, TokenFile string
	Images                    cloud.PlatformImages
	KeycloakOptimized         bool
	LeaderElection            bool
	// MetricsAddress and HealthAddress; "0" is off.
	MetricsAddress, HealthAddress string
	// Dial overrides the addresses of parts (host:port by part), for an operator outside the cluster.
	Dial map[string]string
	// DID checks participants' DID documents; nil is the real check over HTTPS.
	DID participant.DIDCheck
	Now func() time.Time
	// SkipNameValidation allows several managers in one process, as in tests.
	SkipNameValidation *bool
}

// Scheme knows the kinds that the operator works with.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), cloud.AddToScheme(s)); err != nil {
		return nil, fmt.Errorf("kubernetes types: %w", err)
	}
	return s, nil
}

// NewManager assembles the operator in mode platform.
func NewManager(cfg *rest.Config, o Options) (ctrl.Manager, error) {
	if o.Namespace == "" {
		return nil, errors.New("the operator's namespace is not known: set --namespace or POD_NAMESPACE")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DID == nil {
		o.DID = participant.FetchDID
	}
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	mo := ctrl.Options{
		Scheme: scheme, LeaderElection: o.LeaderElection, LeaderElectionID: "cloud-operator.kaphera.io", LeaderElectionNamespace: o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       server.Options{BindAddress: o.MetricsAddress}, HealthProbeBindAddress: o.HealthAddress,
		Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{o.Namespace: {}}},
		// Secrets, and everything in cells' namespaces, are read when needed and never kept.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{
			&corev1.Secret{}, &corev1.Namespace{}, &corev1.Pod{}, &rbacv1.RoleBinding{}, &corev1.ServiceAccount{}, &corev1.PersistentVolumeClaim{},
		}}},
	}
	mo.Controller.SkipNameValidation = o.SkipNameValidation
	m, err := ctrl.NewManager(cfg, mo)
	if err != nil {
		return nil, fmt.Errorf("assemble the operator: %w", err)
	}
	events := m.GetEventRecorder("cloud-operator")
	access := parts.Access{Reader: m.GetAPIReader(), Client: m.GetClient(), Namespace: o.Namespace, Dial: o.Dial, TokenFile: o.TokenFile}
	links := cell.NewLinks(access, o.Now)
	reportOf := func(name string) *celllink.Report { r, _ := links.Report(name); return r }
	err = errors.Join(
		(&platform.Reconciler{Access: access, Defaults: o.Images, KeycloakOptimized: o.KeycloakOptimized, ServiceAccount: o.ServiceAccount, Events: events, Now: o.Now}).SetupWithManager(m),
		(&cell.Reconciler{Access: access, Links: links, Defaults: o.Images, ServiceAccount: o.ServiceAccount, Events: events, Now: o.Now}).SetupWithManager(m),
		(&dataspaceprofile.Reconciler{Client: m.GetClient(), Events: events, Reports: reportOf, Reported: links.Events()}).SetupWithManager(m),
		(&usecase.Reconciler{Client: m.GetClient(), Events: events, Reader: m.GetAPIReader(), Now: o.Now}).SetupWithManager(m),
		(&organization.Reconciler{Client: m.GetClient(), Events: events}).SetupWithManager(m),
		(&participant.Reconciler{Client: m.GetClient(), Reader: m.GetAPIReader(), Events: events, Reports: links.Report, Reported: links.Events(), DID: o.DID, Now: o.Now, Transfer: &transfer.Transfer{Access: access, ServiceAccount: o.ServiceAccount}}).SetupWithManager(m),
		m.AddHealthzCheck("ping", healthz.Ping),
		m.AddReadyzCheck("caches", func(req *http.Request) error {
			ctx, cancel := context.WithTimeout(req.Context(), time.Second)
			defer cancel()
			if !m.GetCache().WaitForCacheSync(ctx) {
				return errors.New("the caches are not filled yet")
			}
			return nil
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("assemble the operator: %w", err)
	}
	return m, nil
}
