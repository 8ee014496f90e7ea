// SPDX-License-Identifier: FSL-1.1-ALv2

// Package organization keeps an Organization as long as participants and cells name it. It makes nothing.
package organization

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
)

// Finalizer of Organizations: their participants and cells are deleted first.
const Finalizer = "cloud.kaphera.io/organization"

// Reconciler keeps Organizations.
type Reconciler struct {
	Client client.Client
	Events events.EventRecorder
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	all := kube.EnqueueAll(r.Client, func() client.ObjectList { return &cloud.OrganizationList{} })
	return ctrl.NewControllerManagedBy(m).For(&cloud.Organization{}).Watches(&cloud.Participant{}, all).
		Watches(&cloud.Cell{}, all, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
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
		users, err := r.users(ctx, &o)
		if err != nil {
			return ctrl.Result{}, err
		}
		if len(users) == 0 {
			return ctrl.Result{}, kube.RemoveFinalizer(ctx, r.Client, &o, Finalizer)
		}
		ready.OK, ready.Reason = false, cloud.ReasonInUse
		ready.Message = "deletion waits until these are deleted: " + kube.In(users)
	}
	kube.Set(&o.Status.Conditions, o.Generation, ready)
	o.Status.ObservedGeneration = o.Generation
	return ctrl.Result{}, kube.WriteStatus(ctx, r.Client, r.Events, &o, before)
}

func (r *Reconciler) users(ctx context.Context, o *cloud.Organization) ([]string, error) {
	var participants cloud.ParticipantList
	var cells cloud.CellList
	in := client.InNamespace(o.Namespace)
	if err := errors.Join(r.Client.List(ctx, &participants, in), r.Client.List(ctx, &cells, in)); err != nil {
		return nil, fmt.Errorf("list what belongs to the organization: %w", err)
	}
	var out []string
	for _, p := range participants.Items {
		if p.Spec.Organization == o.Name {
			out = append(out, "participant "+p.Name)
		}
	}
	for _, c := range cells.Items {
		if c.Spec.Organization == o.Name {
			out = append(out, "cell "+c.Name)
		}
	}
	return out, nil
}
