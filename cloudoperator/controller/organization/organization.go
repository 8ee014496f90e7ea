// SPDX-License-Identifier: FSL-1.1-ALv2

// Package organization keeps an Organization as long as participants name it. It makes nothing.
package organization

import (
	"context"
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
)

// Finalizer of Organizations: their participants are deleted first.
const Finalizer = "cloud.kaphera.io/organization"

// Reconciler keeps Organizations.
type Reconciler struct{ Client client.Client }

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).For(&cloud.Organization{}).
		Watches(&cloud.Participant{}, kube.EnqueueAll(r.Client, func() client.ObjectList { return &cloud.OrganizationList{} })).
		Named("organization").Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var o cloud.Organization
	if err := r.Client.Get(ctx, req.NamespacedName, &o); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := o.DeepCopy()
	ready := kube.Condition{Type: cloud.ConditionReady, OK: true, Reason: cloud.ReasonReady, Message: "may own participants"}
	if o.DeletionTimestamp.IsZero() {
		if err := kube.AddFinalizer(ctx, r.Client, &o, Finalizer); err != nil {
			return ctrl.Result{}, err
		}
		before = o.DeepCopy()
	} else {
		users, err := r.participants(ctx, &o)
		if err != nil {
			return ctrl.Result{}, err
		}
		if len(users) == 0 {
			return ctrl.Result{}, kube.RemoveFinalizer(ctx, r.Client, &o, Finalizer)
		}
		ready.OK, ready.Reason = false, cloud.ReasonInUse
		ready.Message = "deletion waits until these participants are deleted: " + kube.In(users)
	}
	kube.Set(&o.Status.Conditions, o.Generation, ready)
	o.Status.ObservedGeneration = o.Generation
	return ctrl.Result{}, kube.WriteStatus(ctx, r.Client, &o, before)
}

func (r *Reconciler) participants(ctx context.Context, o *cloud.Organization) ([]string, error) {
	var list cloud.ParticipantList
	if err := r.Client.List(ctx, &list, client.InNamespace(o.Namespace)); err != nil {
		return nil, fmt.Errorf("list the participants: %w", err)
	}
	var out []string
	for _, p := range list.Items {
		if p.Spec.Organization == o.Name {
			out = append(out, p.Name)
		}
	}
	return out, nil
}
