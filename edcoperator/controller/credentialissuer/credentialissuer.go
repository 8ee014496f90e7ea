// SPDX-License-Identifier: Apache-2.0

// Package credentialissuer reconciles CredentialIssuers: the connector image in the issuer role, and who may receive what from it.
package credentialissuer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/controller/stage"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Name of the controller, for its queue and metrics.
const Name = "credentialissuer"

const (
	poll    = time.Minute // repairs what was changed behind the operator's back, and finds rotated Secrets
	timeout = 10 * time.Second
)

// Reconciler brings CredentialIssuers about. It needs no finalizer: all that it makes is owned by the object, and credentials that
// were issued stay valid without their issuer until they expire.
type Reconciler struct {
	Stages  *stage.Runner
	Settler outcome.Settler
	// Image runs when a CredentialIssuer names none.
	Image string
}

// New returns a Reconciler.
func New(stages *stage.Runner, settler outcome.Settler, image string) *Reconciler {
	settler.Conditions = []string{
		v1alpha1.ConditionVaultReady, v1alpha1.ConditionDatabaseReady, v1alpha1.ConditionWorkloadsReady, v1alpha1.ConditionDIDPublished,
	}
	settler.Poll = poll
	return &Reconciler{Stages: stages, Settler: settler, Image: image}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
	var i v1alpha1.CredentialIssuer
	if err := r.Stages.Client.Get(ctx, req.NamespacedName, &i); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !i.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	before := i.DeepCopy()
	defer func() { result, err = r.Settler.Settle(ctx, before, &i, err) }()
	return ctrl.Result{}, r.run(ctx, &i)
}

func (r *Reconciler) run(ctx context.Context, i *v1alpha1.CredentialIssuer) error {
	rt := workload.CredentialIssuer(i, r.Image)
	i.Status.DID = workload.DID(i.Spec.Exposure, i.Spec.Context)
	i.Status.InternalURL, i.Status.InternalSecret = rt.InternalURL(workload.Issuer), rt.InternalSecret(workload.Issuer)
	if err := r.Stages.Run(ctx, &rt, i, rt.Ingress([]workload.Tenant{{Context: i.Spec.Context}})); err != nil {
		return err
	}
	issuer := runtimeclient.New(i.Status.InternalURL, rt.Tokens[workload.Issuer], r.Stages.Dial, timeout)
	if err := configure(ctx, issuer, i); err != nil {
		return err
	}
	if problem := r.Stages.Published(ctx, i.Spec.Exposure, i.Spec.Trust, i.Spec.Context); problem != "" {
		return outcome.Waiting(stage.RetrySoon, v1alpha1.ConditionDIDPublished, v1alpha1.ReasonNotPublished, "%s", problem)
	}
	outcome.True(i, v1alpha1.ConditionDIDPublished, v1alpha1.ReasonPublished, i.Status.DID+" answers at "+workload.DIDURL(i.Spec.Exposure, i.Spec.Context))
	return nil
}

// configure says what the issuer issues and to whom. Whoever is not in the spec is entitled to nothing.
func configure(ctx context.Context, issuer *runtimeclient.Client, i *v1alpha1.CredentialIssuer) error {
	fail := func(err error) error { return stage.RuntimeError(v1alpha1.ConditionDIDPublished, "the issuer", err) }
	cfg := adminapi.IssuerConfig{DID: i.Status.DID, Types: make([]adminapi.CredentialType, len(i.Spec.CredentialTypes)),
		Key: adminapi.Key{Algorithm: i.Spec.Key.Algorithm, Generation: int(i.Spec.Key.Generation)}}
	for n, t := range i.Spec.CredentialTypes {
		cfg.Types[n] = adminapi.CredentialType{Type: t.Type, Validity: t.Validity, RequiredClaims: t.RequiredClaims}
	}
	status, err := issuer.PutIssuer(ctx, i.Spec.Context, cfg)
	if err != nil {
		return fail(err)
	}
	i.Status.KeyID = status.KeyID
	there, err := issuer.Holders(ctx, i.Spec.Context)
	if err != nil {
		return fail(err)
	}
	has := make(map[string]adminapi.Holder, len(there))
	for _, h := range there {
		has[h.DID] = h
	}
	for _, h := range i.Spec.Holders {
		want := holder(h)
		if got, ok := has[h.DID]; !ok || !same(got, want) { // of many holders one is new
			if err := issuer.PutHolder(ctx, i.Spec.Context, want); err != nil {
				return fail(err)
			}
		}
		delete(has, h.DID)
	}
	for did := range has {
		if err := issuer.DeleteHolder(ctx, i.Spec.Context, did); err != nil {
			return fail(err)
		}
	}
	i.Status.Holders = int32(len(i.Spec.Holders))
	return nil
}

// same tells whether two holders are entitled to the same, in whatever order and spelling of the claims.
func same(a, b adminapi.Holder) bool {
	claims := func(h adminapi.Holder) map[string]any {
		out := make(map[string]any, len(h.Credentials))
		for _, c := range h.Credentials {
			d := json.NewDecoder(bytes.NewReader(c.Claims))
			d.UseNumber()
			var v any
			if _, twice := out[c.Type]; twice || d.Decode(&v) != nil {
				return nil
			}
			out[c.Type] = v
		}
		return out
	}
	x, y := claims(a), claims(b)
	return x != nil && reflect.DeepEqual(x, y)
}

func holder(h v1alpha1.Holder) adminapi.Holder {
	out := adminapi.Holder{DID: h.DID, Credentials: make([]adminapi.HolderCredential, len(h.Credentials))}
	for n, c := range h.Credentials {
		out.Credentials[n] = adminapi.HolderCredential{Type: c.Type, Claims: json.RawMessage("{}")}
		if c.Claims != nil && len(c.Claims.Raw) > 0 {
			out.Credentials[n].Claims = json.RawMessage(c.Claims.Raw)
		}
	}
	return out
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).Named(Name).
		For(&v1alpha1.CredentialIssuer{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}).Owns(&batchv1.Job{}).Owns(&corev1.Service{}).Owns(&corev1.ServiceAccount{}).Owns(&networkingv1.Ingress{}).Owns(&networkingv1.NetworkPolicy{}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("controller %s: %w", Name, err)
	}
	return nil
}
