// SPDX-License-Identifier: Apache-2.0

package connector

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// setup watches what a Connector owns but for ConfigMaps, which the operator may not list, and its participants: the Ingress has a rule for each.
func setup(mgr ctrl.Manager, r reconcile.Reconciler) error {
	toConnector := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		p, ok := o.(*v1alpha1.ParticipantContext)
		if !ok {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: p.Namespace, Name: p.Spec.ConnectorRef.Name}}}
	})
	return ctrl.NewControllerManagedBy(mgr).Named(Name).
		For(&v1alpha1.Connector{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}).Owns(&batchv1.Job{}).Owns(&corev1.Service{}).Owns(&corev1.ServiceAccount{}).Owns(&networkingv1.Ingress{}).Owns(&networkingv1.NetworkPolicy{}).
		Watches(&v1alpha1.ParticipantContext{}, toConnector, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}
