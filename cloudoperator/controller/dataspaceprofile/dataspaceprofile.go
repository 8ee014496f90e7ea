// SPDX-License-Identifier: FSL-1.1-ALv2

// Package dataspaceprofile checks a DataspaceProfile and says whether its trust anchors are up. The cell controller makes them.
package dataspaceprofile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kaphera/kaphera/connector/odrl"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/cell"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
)

// Finalizer of DataspaceProfiles: participants and use cases of it are deleted first.
const Finalizer = "cloud.kaphera.io/dataspace-profile"

// Reports returns what the agent of a cell last said; nil when nothing is known.
type Reports func(cell string) *celllink.Report

// Reconciler checks DataspaceProfiles.
type Reconciler struct {
	Client  client.Client
	Events  events.EventRecorder
	Reports Reports
	// Reported gets a Cell whenever its agent has reported.
	Reported <-chan event.GenericEvent
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	all := kube.EnqueueAll(r.Client, func() client.ObjectList { return &cloud.DataspaceProfileList{} })
	b := ctrl.NewControllerManagedBy(m).For(&cloud.DataspaceProfile{}).
		Watches(&cloud.Cell{}, all).Watches(&cloud.Participant{}, all).Watches(&cloud.UseCase{}, all)
	if r.Reported != nil {
		b = b.WatchesRawSource(source.Channel(r.Reported, all))
	}
	return b.Named("dataspaceprofile").Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var p cloud.DataspaceProfile
	if err := r.Client.Get(ctx, req.NamespacedName, &p); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if p.DeletionTimestamp.IsZero() {
		if err := kube.AddFinalizer(ctx, r.Client, &p, Finalizer); err != nil {
			return ctrl.Result{}, err
		}
	} else {
		users, err := r.users(ctx, &p)
		if err != nil {
			return ctrl.Result{}, err
		}
		if len(users) == 0 {
			return ctrl.Result{}, kube.RemoveFinalizer(ctx, r.Client, &p, Finalizer)
		}
		before := p.DeepCopy()
		kube.Set(&p.Status.Conditions, p.Generation, kube.Condition{
			Type: cloud.ConditionReady, Reason: cloud.ReasonInUse, Message: "deletion waits until these are deleted: " + kube.In(users),
		})
		return ctrl.Result{}, kube.WriteStatus(ctx, r.Client, r.Events, &p, before)
	}
	before := p.DeepCopy()
	resolved := snapshot.Resolve(p)
	p.Status.TrustedIssuers = resolved.TrustedIssuers
	valid := kube.Condition{Type: cloud.ConditionPolicyValid, OK: true, Reason: cloud.ReasonReady, Message: "the vocabulary is valid"}
	if _, err := odrl.NewEvaluator(resolved); err != nil {
		valid.OK, valid.Reason, valid.Message = false, cloud.ReasonInvalid, strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	ready := valid
	if valid.OK {
		var err error
		if ready, err = r.issuers(ctx, &p); err != nil {
			return ctrl.Result{}, err
		}
	}
	ready.Type = cloud.ConditionReady
	kube.Set(&p.Status.Conditions, p.Generation, valid, ready)
	p.Status.ObservedGeneration = p.Generation
	return ctrl.Result{}, kube.WriteStatus(ctx, r.Client, r.Events, &p, before)
}

// issuers says whether every trust anchor is up.
func (r *Reconciler) issuers(ctx context.Context, p *cloud.DataspaceProfile) (kube.Condition, error) {
	var cells cloud.CellList
	var profiles cloud.DataspaceProfileList
	err := errors.Join(r.Client.List(ctx, &cells, client.InNamespace(p.Namespace)), r.Client.List(ctx, &profiles, client.InNamespace(p.Namespace)))
	if err != nil {
		return kube.Condition{}, fmt.Errorf("list cells and profiles: %w", err)
	}
	known := map[string]*cloud.Cell{}
	for i := range cells.Items {
		known[cells.Items[i].Name] = &cells.Items[i]
	}
	var waiting []string
	for i, issuer := range p.Spec.Issuers {
		in := known[issuer.Cell]
		if in == nil {
			return kube.Condition{Reason: cloud.ReasonMissing, Message: fmt.Sprintf("$.spec.issuers[%d].cell: there is no cell %q", i, issuer.Cell)}, nil
		}
		if o := in.Spec.Organization; o != "" {
			return kube.Condition{Reason: cloud.ReasonRefused, Message: fmt.Sprintf("$.spec.issuers[%d].cell: cell %s is for participants of organization %s alone; issuers run in shared cells", i, in.Name, o)}, nil
		}
		for _, placed := range snapshot.Issuers(in, profiles.Items) {
			if placed.Issuer.Name == issuer.Name && placed.Profile != p.Name {
				return kube.Condition{Reason: cloud.ReasonTaken, Message: fmt.Sprintf(
					"$.spec.issuers[%d].name: cell %s runs an issuer %q for dataspace profile %s already; choose another name", i, issuer.Cell, issuer.Name, placed.Profile)}, nil
			}
		}
		o := r.Reports(issuer.Cell).Find("CredentialIssuer", issuer.Name)
		switch c := cell.ReadyOf(o); {
		case o == nil:
			waiting = append(waiting, fmt.Sprintf("issuer %s is not in cell %s yet", issuer.Name, issuer.Cell))
		case c == nil:
			waiting = append(waiting, fmt.Sprintf("issuer %s has no status yet", issuer.Name))
		case c.Status != metav1.ConditionTrue:
			waiting = append(waiting, fmt.Sprintf("issuer %s: %s", issuer.Name, c.Message))
		}
	}
	if len(waiting) > 0 {
		return kube.Condition{Reason: cloud.ReasonWaiting, Message: strings.Join(waiting, "; ")}, nil
	}
	return kube.Condition{OK: true, Reason: cloud.ReasonReady, Message: "every issuer is up"}, nil
}

func (r *Reconciler) users(ctx context.Context, p *cloud.DataspaceProfile) ([]string, error) {
	var participants cloud.ParticipantList
	var useCases cloud.UseCaseList
	err := errors.Join(r.Client.List(ctx, &participants, client.InNamespace(p.Namespace)), r.Client.List(ctx, &useCases, client.InNamespace(p.Namespace)))
	if err != nil {
		return nil, fmt.Errorf("list what uses the profile: %w", err)
	}
	var out []string
	for _, q := range participants.Items {
		if slices.Contains(q.Spec.Profiles(), p.Name) {
			out = append(out, "participant "+q.Name)
		}
	}
	for _, u := range useCases.Items {
		if u.Spec.Profile == p.Name {
			out = append(out, "use case "+u.Name)
		}
	}
	return out, nil
}
