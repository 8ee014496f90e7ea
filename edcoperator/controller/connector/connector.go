// SPDX-License-Identifier: Apache-2.0

// Package connector reconciles Connectors: the roles of one connector image with their database, Vault and routes. What a
// participant needs inside the runtime lives in controller/participantcontext.
package connector

import (
	"context"
	"fmt"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/controller/participantcontext"
	"github.com/kaphera/kaphera/edcoperator/controller/stage"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Name of the controller, for its queue and metrics.
const Name = "connector"

const (
	// poll finds rotated Secrets, which are not watched.
	poll = 5 * time.Minute
	// farewell is how long a deleted Connector waits for its deleted participants to leave the runtime.
	farewell = 2 * time.Minute
)

// Reconciler brings Connectors about.
type Reconciler struct {
	Stages  *stage.Runner
	Settler outcome.Settler
	// Image runs when a Connector names none.
	Image string
}

// New returns a Reconciler.
func New(stages *stage.Runner, settler outcome.Settler, image string) *Reconciler {
	settler.Conditions = []string{v1alpha1.ConditionVaultReady, v1alpha1.ConditionDatabaseReady, v1alpha1.ConditionWorkloadsReady}
	settler.Poll = poll
	return &Reconciler{Stages: stages, Settler: settler, Image: image}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
	var c v1alpha1.Connector
	if err := r.Stages.Client.Get(ctx, req.NamespacedName, &c); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := c.DeepCopy()
	defer func() { result, err = r.Settler.Settle(ctx, before, &c, err) }()
	contexts, err := participantcontext.Of(ctx, r.Stages.Client, c.Namespace, c.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !c.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.leave(ctx, &c, contexts)
	}
	return ctrl.Result{}, r.run(ctx, &c, participantcontext.Holding(&c, contexts))
}

func (r *Reconciler) run(ctx context.Context, c *v1alpha1.Connector, tenants []workload.Tenant) error {
	if err := outcome.AddFinalizer(ctx, r.Stages.Client, c); err != nil {
		return err
	}
	rt := workload.Connector(c, r.Image)
	c.Status.PublicURL = workload.PublicURL(c.Spec.Exposure)
	c.Status.InternalURL, c.Status.WalletURL = rt.InternalURL(workload.ControlPlane), rt.InternalURL(workload.Wallet)
	c.Status.InternalSecret = rt.InternalSecret(workload.ControlPlane)
	c.Status.Participants = int32(len(tenants))
	return r.Stages.Run(ctx, &rt, c, rt.Ingress(tenants))
}

// leave lets participants that are being deleted with their Connector leave the runtime while it still runs. Everything that runs
// is deleted by its owner reference; the database and the Vault keep what the runtime wrote.
func (r *Reconciler) leave(ctx context.Context, c *v1alpha1.Connector, contexts []v1alpha1.ParticipantContext) error {
	leaving := 0
	for i := range contexts {
		if !contexts[i].DeletionTimestamp.IsZero() {
			leaving++
		}
	}
	if leaving > 0 && r.Stages.Now().Sub(c.DeletionTimestamp.Time) < farewell {
		return outcome.Waiting(stage.RetrySoon, v1alpha1.ConditionReady, v1alpha1.ReasonDeleting,
			"being deleted: waits up to %s for %d participant contexts to leave the runtime", farewell, leaving)
	}
	return outcome.RemoveFinalizer(ctx, r.Stages.Client, c)
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := setup(mgr, r); err != nil {
		return fmt.Errorf("controller %s: %w", Name, err)
	}
	return nil
}
