// SPDX-License-Identifier: FSL-1.1-ALv2

// Package platform brings up a Kaphera cloud in the Platform's own namespace: PostgreSQL, OpenBao, NATS, Keycloak, the Cloud API and the
// console. Each part has its own condition. What the parts are named and how they are reached is in controller/parts; what a cell
// needs of them is the cell controller's business.
package platform

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/fault"
)

// Finalizer of Platforms: cells are taken down first, and the data policy is carried out.
const Finalizer = "cloud.kaphera.io/platform"

// How often a Platform is looked at when nothing happens.
const (
	everyWhileStarting = 2 * time.Second
	everyWhenReady     = time.Minute
	// partTimeout bounds one look at one part.
	partTimeout = 60 * time.Second
)

// Reconciler brings up Platforms.
type Reconciler struct {
	Access parts.Access // Namespace is the Platform's
	// Defaults are the images of parts whose image the Platform does not name.
	Defaults cloud.PlatformImages
	// KeycloakOptimized says that the Keycloak image was built for PostgreSQL with health and metrics.
	KeycloakOptimized bool
	// ServiceAccount is the operator's own; the Vault knows it by it.
	ServiceAccount string
	Events         events.EventRecorder
	Now            func() time.Time

	realms        memo
	announcements memo                 // of the next authority
	expiry        *prometheus.GaugeVec // of certificates, by Secret
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	r.expiry = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kaphera_certificate_expiration_timestamp_seconds", Help: "When a certificate that the operator makes ends, in Unix time, by its Secret.",
	}, []string{"secret"})
	if err := kube.Expose(m, r.expiry); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).For(&cloud.Platform{}).
		Owns(&appsv1.StatefulSet{}).Owns(&appsv1.Deployment{}).Owns(&corev1.Service{}).Owns(&corev1.ConfigMap{}).Owns(&networkingv1.Ingress{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Named("platform").Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var p cloud.Platform
	if err := r.Access.Client.Get(ctx, req.NamespacedName, &p); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !p.DeletionTimestamp.IsZero() {
		return r.delete(ctx, &p)
	}
	if err := kube.AddFinalizer(ctx, r.Access.Client, &p, Finalizer); err != nil {
		return ctrl.Result{}, err
	}
	before := p.DeepCopy()
	ready := r.newRun(&p).all(ctx)
	p.Status.ObservedGeneration = p.Generation
	p.Status.ConsoleURL, p.Status.APIURL, p.Status.IssuerURL = "https://"+consoleHost(&p), "https://"+apiHost(&p), IssuerURL(&p)
	p.Status.Images = Images(&p, r.Defaults)
	if err := kube.WriteStatus(ctx, r.Access.Client, r.Events, &p, before); err != nil {
		return ctrl.Result{}, err
	}
	if ready {
		return ctrl.Result{RequeueAfter: everyWhenReady}, nil
	}
	return ctrl.Result{RequeueAfter: everyWhileStarting}, nil
}

// run is one reconcile of one Platform.
type run struct {
	*Reconciler
	access         parts.Access
	client         client.Client
	platform       *cloud.Platform
	images         cloud.PlatformImages
	serviceAccount string
	ok             map[string]bool // conditions that are true in this run
}

type clientObject = client.Object

func (r *Reconciler) newRun(p *cloud.Platform) *run {
	return &run{
		Reconciler: r, access: r.Access, client: r.Access.Client, platform: p, images: Images(p, r.Defaults),
		serviceAccount: r.ServiceAccount, ok: map[string]bool{},
	}
}

func (r *run) key() types.NamespacedName { return client.ObjectKeyFromObject(r.platform) }

// all looks at every part, whatever the others do, and sets the conditions.
func (r *run) all(ctx context.Context) bool {
	steps := []struct {
		condition, what, part string
		do                    func(context.Context) error
	}{
		{cloud.ConditionPostgreSQLReady, "PostgreSQL", parts.PostgreSQL, r.postgresql},
		{cloud.ConditionVaultReady, "OpenBao", parts.OpenBao, r.vault},
		{cloud.ConditionNATSReady, "NATS", parts.NATS, r.nats},
		{cloud.ConditionKeycloakReady, "Keycloak", parts.Keycloak, r.keycloak},
		{cloud.ConditionCloudReady, "Cloud API", parts.Cloud, r.cloud},
	}
	conditions, generation := &r.platform.Status.Conditions, r.platform.Generation
	err := r.isolate(ctx) // before any pod runs
	if err == nil {
		err = r.authority(ctx)
	}
	var missing []string
	for _, s := range steps {
		stepErr := err
		if stepErr == nil {
			stepCtx, cancel := context.WithTimeout(ctx, partTimeout)
			stepErr = s.do(stepCtx)
			cancel()
		}
		c := describe(s.condition, s.what, stepErr)
		if host, external := parts.External(r.platform, s.part); external && c.OK {
			c.Message = "external: " + host + " answers"
		} else if external {
			c.Message = "external: " + c.Message
		}
		if c.Reason == cloud.ReasonFailed {
			log.FromContext(ctx).Info("part is not ready", "part", s.what, "cause", c.Message)
		}
		kube.Set(conditions, generation, c)
		r.ok[s.condition] = c.OK
		if !c.OK {
			missing = append(missing, fmt.Sprintf("%s (%s)", s.what, c.Message))
		}
	}
	ready := kube.Condition{Type: cloud.ConditionReady, OK: len(missing) == 0, Reason: cloud.ReasonReady, Message: "every part works"}
	if len(missing) > 0 {
		ready.Reason, ready.Message = cloud.ReasonWaiting, "not ready: "+strings.Join(missing, "; ")
	}
	kube.Set(conditions, generation, ready)
	return ready.OK
}

// startingError, waitingError and invalidError are the ways in which a part is not ready that are no failure of an attempt.
type startingError struct{ message string }

func (e *startingError) Error() string { return e.message }

type waitingError struct{ what string }

func (e *waitingError) Error() string { return "waits for " + e.what }

func waiting(what string) error { return &waitingError{what} }

type invalidError struct{ path, value, what string }

func (e *invalidError) Error() string { return fmt.Sprintf("%s: %q %s", e.path, e.value, e.what) }

func describe(condition, what string, err error) kube.Condition {
	c := kube.Condition{Type: condition, Reason: cloud.ReasonFailed}
	var starting *startingError
	var wait *waitingError
	var invalid *invalidError
	var known *fault.Error
	switch {
	case err == nil:
		return kube.Condition{Type: condition, OK: true, Reason: cloud.ReasonReady, Message: what + " works"}
	case errors.As(err, &starting):
		c.Reason = cloud.ReasonStarting
	case errors.As(err, &wait):
		c.Reason = cloud.ReasonWaiting
	case errors.As(err, &invalid):
		c.Reason = cloud.ReasonInvalid
	case errors.As(err, &known):
		c.Reason = known.Reason
	}
	c.Message = err.Error()
	return c
}

func specName(workload string) string {
	if workload == parts.OpenBao {
		return "vault"
	}
	return workload
}

// memo remembers when a realm was last compared.
type memo struct {
	mu sync.Mutex
	m  map[types.NamespacedName]memoEntry
}

type memoEntry struct {
	digest string
	at     time.Time
}

func (m *memo) get(k types.NamespacedName) memoEntry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[k]
}

func (m *memo) set(k types.NamespacedName, e memoEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = map[types.NamespacedName]memoEntry{}
	}
	m.m[k] = e
}
