// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"errors"
	"testing"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
)

// TestANewLeaderKeepsWhatWasSaidOfTheAgent as long as it has not read the report itself and the agent was heard from lately.
func TestANewLeaderKeepsWhatWasSaidOfTheAgent(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		heard            time.Duration // ago
		err              error
		connected, ready metav1.ConditionStatus
	}{
		"heard lately":             {20 * time.Second, nil, metav1.ConditionTrue, metav1.ConditionTrue},
		"heard lately, but failed": {20 * time.Second, errors.New("no database"), metav1.ConditionTrue, metav1.ConditionFalse},
		"silent":                   {celllink.SilentAfter + time.Second, nil, metav1.ConditionFalse, metav1.ConditionFalse},
	} {
		c := &cloud.Cell{Spec: cloud.CellSpec{Type: cloud.Shared}, Status: cloud.CellStatus{LastHeard: &metav1.Time{Time: now.Add(-tc.heard)}}}
		for _, condition := range []string{cloud.ConditionConnected, cloud.ConditionApplied, cloud.ConditionReady} {
			apimeta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: cloud.ReasonReady})
		}
		clock := func() time.Time { return now }
		r := &run{Reconciler: &Reconciler{Links: NewLinks(parts.Access{}, clock), Now: clock}, cell: c}
		r.describe(tc.err)
		for condition, want := range map[string]metav1.ConditionStatus{cloud.ConditionConnected: tc.connected, cloud.ConditionReady: tc.ready} {
			if got := apimeta.FindStatusCondition(c.Status.Conditions, condition); got.Status != want {
				t.Errorf("%s: %s is %s: %s", name, condition, got.Status, got.Message)
			}
		}
	}
}
