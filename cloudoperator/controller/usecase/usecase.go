// SPDX-License-Identifier: FSL-1.1-ALv2

// Package usecase checks the policies of a UseCase against its DataspaceProfile, says in plain words what they demand, and keeps each change of what the
// use case demands as a revision. It publishes nothing: the Cloud API delivers the revision in force to the participants.
package usecase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/usecase"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/revision"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
)

// Reconciler checks UseCases.
type Reconciler struct {
	Client client.Client
	Events events.EventRecorder
	// Reader reads from the API server itself: a stale cache would make a revision twice.
	Reader client.Reader
	Now    func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).For(&cloud.UseCase{}).Owns(&cloud.UseCaseRevision{}).
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
	h, err := r.revise(ctx, &u, p, valid.OK)
	if err != nil {
		return ctrl.Result{}, err
	}
	signed := signedOff(&u, h)
	ready := valid
	if ready.OK {
		ready = kube.Condition{OK: u.Status.InForce != nil, Reason: signed.Reason, Message: signed.Message}
		if ready.OK {
			ready.Reason, ready.Message = cloud.ReasonReady, fmt.Sprintf("revision %d may be offered", u.Status.InForce.Number)
		}
	}
	ready.Type = cloud.ConditionReady
	kube.Set(&u.Status.Conditions, u.Generation, valid, signed, ready)
	u.Status.ObservedGeneration = u.Generation
	return ctrl.Result{}, kube.WriteStatus(ctx, r.Client, r.Events, &u, before)
}

// revise makes a revision of what the use case demands now, unless the newest says the same.
func (r *Reconciler) revise(ctx context.Context, u *cloud.UseCase, p cloud.DataspaceProfile, valid bool) (revision.History, error) {
	h, err := revision.Read(ctx, r.Reader, u.Namespace, u.Name)
	if err != nil || !valid || h.Err != nil {
		return h, err
	}
	now, err := revision.Demands(u, snapshot.Resolve(p))
	if err != nil {
		return h, err
	}
	now.Number = 1
	by := u.Annotations[cloud.ChangedByAnnotation]
	if newest := h.Newest(); newest != nil {
		before, err := usecase.Read(newest.Spec.Content)
		if err != nil {
			return h, fmt.Errorf("revision %s: %w", newest.Name, err)
		}
		if usecase.Same(before, now) {
			return h, nil
		}
		now.Number, now.Previous = newest.Spec.Number+1, newest.Spec.Hash
		if u.Generation == u.Status.ObservedGeneration { // it is the vocabulary that has changed
			by = p.Annotations[cloud.ChangedByAnnotation]
		}
	}
	made := &cloud.UseCaseRevision{Spec: cloud.UseCaseRevisionSpec{UseCase: u.Name, Number: now.Number, MadeBy: by, MadeAt: metav1.NewTime(r.Now().UTC())}}
	made.Namespace, made.Name = u.Namespace, revision.Name(u.Name, now.Number)
	if made.Spec.Content, made.Spec.Hash, err = usecase.Write(now); err != nil {
		return h, err
	}
	if err := ctrl.SetControllerReference(u, made, r.Client.Scheme()); err != nil {
		return h, fmt.Errorf("owner of revision %s: %w", made.Name, err)
	}
	if err := r.Client.Create(ctx, made); err != nil {
		return h, fmt.Errorf("make revision %s: %w", made.Name, err)
	}
	return revision.Of(append(h.All, *made), u.Name), nil
}

// signedOff says which revision is in force, in the status too, and what the newest waits for.
func signedOff(u *cloud.UseCase, h revision.History) kube.Condition {
	out := kube.Condition{Type: cloud.ConditionSignedOff, Reason: cloud.ReasonWaiting}
	newest := h.Newest()
	u.Status.Revision, u.Status.InForce = show(newest), show(h.InForce())
	switch {
	case h.Err != nil:
		out.Reason, out.Message = cloud.ReasonInvalid, h.Err.Error()+"; none is in force"
	case newest == nil:
		out.Message = "there is no revision yet: the policies are not valid"
	case u.Status.InForce == nil:
		out.Message = fmt.Sprintf("revision %d waits for the sign-off of %s, and nothing can be offered until then: kaphera usecase sign-off %s --revision %d",
			newest.Spec.Number, signers(h), u.Name, newest.Spec.Number)
	case u.Status.InForce.Number != newest.Spec.Number:
		out.Message = fmt.Sprintf("revision %d waits for the sign-off of %s; revision %d stays in force until then: kaphera usecase sign-off %s --revision %d",
			newest.Spec.Number, signers(h), u.Status.InForce.Number, u.Name, newest.Spec.Number)
	case u.Status.InForce.SignedBy == "":
		out.OK, out.Reason, out.Message = true, cloud.ReasonReady, fmt.Sprintf("revision %d took effect at once: the use case names no signers", newest.Spec.Number)
	default:
		out.OK, out.Reason, out.Message = true, cloud.ReasonReady, fmt.Sprintf("revision %d is in force, signed off by %s", newest.Spec.Number, u.Status.InForce.SignedBy)
	}
	return out
}

func show(r *cloud.UseCaseRevision) *cloud.RevisionStatus {
	if r == nil {
		return nil
	}
	out := &cloud.RevisionStatus{Number: r.Spec.Number, Hash: r.Spec.Hash, MadeBy: r.Spec.MadeBy, MadeAt: r.Spec.MadeAt}
	if s := r.Spec.SignOff; s != nil {
		out.SignedBy, out.SignedAt = s.By, &s.At
	}
	return out
}

// signers says who may sign the newest revision.
func signers(h revision.History) string {
	who, err := h.Signers()
	if err != nil {
		return "nobody: " + err.Error()
	}
	return usecase.People(who, "en")
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
