// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// placeChanged lets a Participant through whose onboarding has ended, so that its connector may become active, or of which a cell is to run more or less.
type placeChanged struct {
	predicate.Funcs
}

// Update implements predicate.Predicate.
func (placeChanged) Update(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*cloud.Participant)
	after, ok2 := e.ObjectNew.(*cloud.Participant)
	return ok && ok2 && (onboarded(before) != onboarded(after) || before.Status.Cell != after.Status.Cell || before.Status.Hostname != after.Status.Hostname || before.Phase() != after.Phase())
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
