// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	apimeta "k8s.io/apimachinery/pkg/api/meta"
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
