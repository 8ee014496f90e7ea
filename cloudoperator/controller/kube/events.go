// SPDX-License-Identifier: FSL-1.1-ALv2

package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// Object has conditions in its status.
type Object interface {
	client.Object
	GetConditions() []metav1.Condition
}

// underWay are the reasons for which nobody has to do anything: no event tells of them.
var underWay = []string{cloud.ReasonStarting, cloud.ReasonWaiting, cloud.ReasonBehind, cloud.ReasonDeleting, cloud.ReasonNever}

// maxNote keeps an event, with the condition before it, below the 1 kB of events.k8s.io/v1.
const maxNote = 900

// tell makes an event of each condition whose status or reason has changed; of Ready only when it is the only one, since it repeats the others. Its
// reason is that of the condition, or the condition itself when that is true; its action is the condition. What has not changed is not told again, also by
// another leader.
func tell(r events.EventRecorder, before, o Object) {
	var changed []metav1.Condition
	for _, is := range o.GetConditions() {
		if was := meta.FindStatusCondition(before.GetConditions(), is.Type); was == nil || was.Status != is.Status || was.Reason != is.Reason {
			changed = append(changed, is)
		}
	}
	if len(changed) > 1 {
		changed = slices.DeleteFunc(changed, func(c metav1.Condition) bool { return c.Type == cloud.ConditionReady })
	}
	for _, c := range changed {
		switch {
		case c.Status == metav1.ConditionTrue:
			r.Eventf(o, nil, corev1.EventTypeNormal, c.Type, c.Type, "%s", shortenTo(c.Message, maxNote))
		case !slices.Contains(underWay, c.Reason):
			r.Eventf(o, nil, corev1.EventTypeWarning, c.Reason, c.Type, "%s: %s", c.Type, shortenTo(c.Message, maxNote))
		}
	}
}
