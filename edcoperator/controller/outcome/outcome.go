// SPDX-License-Identifier: Apache-2.0

// Package outcome ends a reconcile: each exit is done, waiting, terminal or transient, and becomes conditions, an event when the
// summary changed, a status patch when anything changed, and the result for the queue. It knows no kind's own logic.
package outcome

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// StopError ends a reconcile before everything is there. It is returned as an error; any other error is transient.
type StopError struct {
	// Condition that is not true because of it.
	Condition string
	Reason    string
	Message   string
	// Retry is when to look again; zero is terminal: only a change of the object or of what it watches helps.
	Retry time.Duration
}

func (s *StopError) Error() string { return s.Message }

// Terminal stops until somebody changes something.
func Terminal(condition, reason, format string, args ...any) error {
	return &StopError{Condition: condition, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Waiting stops and looks again after a while.
func Waiting(retry time.Duration, condition, reason, format string, args ...any) error {
	return &StopError{Condition: condition, Reason: reason, Message: fmt.Sprintf(format, args...), Retry: retry}
}

// Object is a custom resource with conditions.
type Object interface {
	client.Object
	GetConditions() *[]metav1.Condition
	SetObservedGeneration(int64)
}

// Set sets a condition of o as seen at its present generation.
func Set(o Object, condition string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(o.GetConditions(), metav1.Condition{
		Type: condition, Status: status, Reason: reason, Message: message, ObservedGeneration: o.GetGeneration(),
	})
}

// True sets a condition that is true.
func True(o Object, condition, reason, message string) {
	Set(o, condition, metav1.ConditionTrue, reason, message)
}

// Settler writes what a reconcile found.
type Settler struct {
	Client   client.Client
	Recorder events.EventRecorder
	// Conditions of the kind in the order in which they become true, without Ready.
	Conditions []string
	// Poll is when to look again although everything is there.
	Poll time.Duration
}

// Settle turns the end of a reconcile of o, which was before at its start, into status, event and result.
func (s *Settler) Settle(ctx context.Context, before, o Object, err error) (ctrl.Result, error) {
	if !o.GetDeletionTimestamp().IsZero() && !controllerutil.ContainsFinalizer(o, v1alpha1.Finalizer) {
		return ctrl.Result{}, err // gone, or no longer ours
	}
	// A finalizer added meanwhile is no part of the status.
	before.SetFinalizers(o.GetFinalizers())
	before.SetResourceVersion(o.GetResourceVersion())
	result, transient := s.conclude(o, err)
	o.SetObservedGeneration(o.GetGeneration())
	if !equality.Semantic.DeepEqual(before, o) {
		s.record(ctx, before, o)
		if patchErr := s.Client.Status().Patch(ctx, o, client.MergeFrom(before)); client.IgnoreNotFound(patchErr) != nil {
			return ctrl.Result{}, errors.Join(transient, fmt.Errorf("patch the status: %w", patchErr))
		}
	}
	return result, transient
}

func (s *Settler) conclude(o Object, err error) (ctrl.Result, error) {
	var stop *StopError
	switch {
	case errors.As(err, &stop):
		Set(o, stop.Condition, metav1.ConditionFalse, stop.Reason, stop.Message)
		Set(o, v1alpha1.ConditionReady, metav1.ConditionFalse, stop.Reason, stop.Message)
		s.fill(o, stop.Message)
		return ctrl.Result{RequeueAfter: stop.Retry}, nil
	case err != nil && apierrors.IsConflict(err): // somebody wrote in between: look again, nothing to tell anybody
		return ctrl.Result{RequeueAfter: time.Second}, nil
	case err != nil:
		Set(o, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonFailed, err.Error())
		s.fill(o, err.Error())
		return ctrl.Result{}, err
	}
	for _, c := range s.Conditions {
		if found := meta.FindStatusCondition(*o.GetConditions(), c); found != nil && found.Status != metav1.ConditionTrue {
			Set(o, v1alpha1.ConditionReady, metav1.ConditionFalse, found.Reason, found.Message)
			return ctrl.Result{RequeueAfter: s.Poll}, nil
		}
	}
	True(o, v1alpha1.ConditionReady, v1alpha1.ReasonReady, "everything asked for is there")
	return ctrl.Result{RequeueAfter: s.Poll}, nil
}

// fill names the conditions that were never reached, so that each is there from the first reconcile on.
func (s *Settler) fill(o Object, because string) {
	for _, c := range s.Conditions {
		if found := meta.FindStatusCondition(*o.GetConditions(), c); found == nil || found.Reason == v1alpha1.ReasonNotReached {
			Set(o, c, metav1.ConditionUnknown, v1alpha1.ReasonNotReached, "not looked at yet: "+because)
		}
	}
}

// underWay are the reasons for which nobody has to do anything.
var underWay = []string{
	v1alpha1.ReasonMigrationRunning, v1alpha1.ReasonStarting, v1alpha1.ReasonConnectorNotReady, v1alpha1.ReasonRequested,
	v1alpha1.ReasonInactive, v1alpha1.ReasonDeleting, v1alpha1.ReasonScaledToZero,
}

// record tells people of a change of the summary.
func (s *Settler) record(ctx context.Context, before, o Object) {
	was := meta.FindStatusCondition(*before.GetConditions(), v1alpha1.ConditionReady)
	is := meta.FindStatusCondition(*o.GetConditions(), v1alpha1.ConditionReady)
	if is == nil || (was != nil && was.Status == is.Status && was.Reason == is.Reason) {
		return
	}
	kind := corev1.EventTypeWarning
	if is.Status == metav1.ConditionTrue || slices.Contains(underWay, is.Reason) {
		kind = corev1.EventTypeNormal
	}
	log.FromContext(ctx).Info("readiness changed", "ready", is.Status, "reason", is.Reason, "message", is.Message)
	note := is.Message
	if len(note) > 1000 {
		note = note[:1000]
	}
	s.Recorder.Eventf(o, nil, kind, is.Reason, "Reconcile", "%s", note)
}
