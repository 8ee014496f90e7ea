// SPDX-License-Identifier: FSL-1.1-ALv2

// Package usecase checks the policies of a UseCase against its DataspaceProfile and says in plain words what they demand. It publishes
// nothing: the Cloud API reads the policies from the UseCase when a participant offers.
package usecase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/odrl"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
)

// Reconciler checks UseCases.
type Reconciler struct{ Client client.Client }

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).For(&cloud.UseCase{}).
		Watches(&cloud.DataspaceProfile{}, kube.EnqueueAll(r.Client, func() client.ObjectList { return &cloud.UseCaseList{} })).
		Named("usecase").Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var u cloud.UseCase
	if err := r.Client.Get(ctx, req.NamespacedName, &u); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !u.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	before := u.DeepCopy()
	var p cloud.DataspaceProfile
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: u.Namespace, Name: u.Spec.Profile}, &p)
	if err != nil && !apierrors.IsNotFound(err) {
		return ctrl.Result{}, fmt.Errorf("read dataspace profile %s: %w", u.Spec.Profile, err)
	}
	var valid kube.Condition
	if err != nil {
		valid = kube.Condition{Reason: cloud.ReasonMissing, Message: fmt.Sprintf("$.spec.profile: there is no dataspace profile %q", u.Spec.Profile)}
		u.Status.PolicyHash, u.Status.Sentences = "", nil
	} else {
		valid = judge(&u, p)
	}
	valid.Type = cloud.ConditionPolicyValid
	ready := valid
	ready.Type = cloud.ConditionReady
	if ready.OK {
		ready.Message = "may be offered"
	}
	kube.Set(&u.Status.Conditions, u.Generation, valid, ready)
	u.Status.ObservedGeneration = u.Generation
	return ctrl.Result{}, kube.WriteStatus(ctx, r.Client, &u, before)
}

// judge checks the policies, those of gates too, and fills the status from the contract policy.
func judge(u *cloud.UseCase, p cloud.DataspaceProfile) kube.Condition {
	u.Status.PolicyHash, u.Status.Sentences = "", nil
	e, err := odrl.NewEvaluator(snapshot.Resolve(p))
	if err != nil {
		return kube.Condition{Reason: cloud.ReasonWaiting, Message: fmt.Sprintf("dataspace profile %s is not valid: %v", p.Name, err)}
	}
	contract, err := check(u.Spec.ContractPolicy.Raw, "$.spec.contractPolicy", e.Check)
	var accessErr error // and those of gates
	if u.Spec.AccessPolicy != nil {
		_, accessErr = check(u.Spec.AccessPolicy.Raw, "$.spec.accessPolicy", e.CheckAccess)
	}
	for i, g := range u.Spec.Gates {
		if g.Policy != nil {
			_, gateErr := check(g.Policy.Raw, fmt.Sprintf("$.spec.gates[%d].policy", i), e.Check)
			accessErr = errors.Join(accessErr, gateErr)
		}
	}
	if contract != nil && err == nil {
		u.Status.PolicyHash, u.Status.Sentences = odrl.Hash(contract), e.Sentences(contract, "en")
	}
	if err := errors.Join(err, accessErr); err != nil {
		return kube.Condition{Reason: cloud.ReasonInvalid, Message: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return kube.Condition{OK: true, Reason: cloud.ReasonReady, Message: "every term of the policies is in the profile's vocabulary"}
}

// check parses and checks one policy; the paths in errors start at root.
func check(raw []byte, root string, judge func(*odrl.Policy) error) (*odrl.Policy, error) {
	p, err := odrl.Parse(json.RawMessage(raw))
	if err == nil {
		err = judge(p)
	}
	return p, at(root, err)
}

// at puts the path of a policy within its object before the paths in err.
func at(root string, err error) error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, at(root, e))
		}
		return errors.Join(out...)
	}
	var oe *odrl.Error
	if errors.As(err, &oe) {
		return &odrl.Error{Path: root + strings.TrimPrefix(oe.Path, "$"), Message: oe.Message}
	}
	return fmt.Errorf("%s: %w", root, err)
}
