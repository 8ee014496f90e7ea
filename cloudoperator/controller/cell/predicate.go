// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// onboardedChanged lets a Participant through whose onboarding has ended: its connector may become active.
type onboardedChanged struct {
	predicate.Funcs
}

// Update implements predicate.Predicate.
func (onboardedChanged) Update(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*cloud.Participant)
	after, ok2 := e.ObjectNew.(*cloud.Participant)
	return ok && ok2 && onboarded(before) != onboarded(after)
}

func onboarded(p *cloud.Participant) bool {
	return apimeta.IsStatusConditionTrue(p.Status.Conditions, cloud.ConditionOnboarded)
}

func runtimeNames(runtimes []runtimeSpec) []string {
	var out []string
	for _, rt := range runtimes {
		out = append(out, rt.name)
	}
	return out
}

func probe(path string, period int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health")}},
		PeriodSeconds: period, TimeoutSeconds: 5, FailureThreshold: 6,
	}
}
