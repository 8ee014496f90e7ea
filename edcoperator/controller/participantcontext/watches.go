// SPDX-License-Identifier: Apache-2.0

package participantcontext

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const workers = 4 // a reconcile waits for the runtime most of its time

// SetupWithManager registers the controller: it watches ParticipantContexts, and wakes those of a Connector that changes.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	toContexts := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		contexts, err := Of(ctx, mgr.GetClient(), o.GetNamespace(), o.GetName())
		if err != nil {
			log.FromContext(ctx).Error(err, "participant contexts of a changed Connector are looked at with their next poll only")
			return nil
		}
		requests := make([]reconcile.Request, len(contexts))
		for i := range contexts {
			requests[i].NamespacedName = client.ObjectKeyFromObject(&contexts[i])
		}
		return requests
	})
	err := ctrl.NewControllerManagedBy(mgr).Named(Name).WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		For(&v1alpha1.ParticipantContext{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Connector{}, toContexts, builder.WithPredicates(predicate.Funcs{UpdateFunc: matters})).
		Complete(r)
	if err != nil {
		return fmt.Errorf("controller %s: %w", Name, err)
	}
	return nil
}

// matters reports whether participants are concerned by a Connector's change: its spec, its deletion, or whether it runs.
func matters(e event.UpdateEvent) bool {
	was, ok := e.ObjectOld.(*v1alpha1.Connector)
	is, ok2 := e.ObjectNew.(*v1alpha1.Connector)
	if !ok || !ok2 {
		return false
	}
	runs := func(c *v1alpha1.Connector) bool {
		return meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionWorkloadsReady)
	}
	return was.Generation != is.Generation || runs(was) != runs(is)
}
