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

// TestRevokingEnds with the rotation that revokes, and no sooner.
func TestRevokingEnds(t *testing.T) {
	const first, second, third = "2026-11-28T12:00:00.5Z", "2026-11-28T13:00:00Z", "2026-11-28T14:00:00Z"
	for name, tc := range map[string]struct {
		rotate, revoke, done string
		rotation             string
		revokes              bool
	}{
		"nobody asked":                          {},
		"to rotate":                             {rotate: first, rotation: first},
		"to revoke":                             {rotate: first, revoke: first, rotation: first, revokes: true},
		"to revoke, once more":                  {rotate: second, revoke: second, done: first, rotation: second, revokes: true},
		"to rotate while it revokes":            {rotate: third, revoke: second, done: first, rotation: third, revokes: true},
		"revoked":                               {rotate: second, revoke: second, done: second, rotation: second},
		"to rotate after that":                  {rotate: third, revoke: second, done: second, rotation: third},
		"to revoke, but not to rotate":          {rotate: first, revoke: second, rotation: first},
		"what is no time":                       {rotate: "now", revoke: "now"},
		"to rotate, and to revoke what is none": {rotate: first, revoke: "now", rotation: first},
	} {
		c := &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{cloud.RotateAnnotation: tc.rotate, cloud.RevokeNowAnnotation: tc.revoke}}, Status: cloud.CellStatus{RotatedFor: tc.done}}
		r := &run{cell: c}
		if r.rotation() != tc.rotation || r.revokesNow() != tc.revokes {
			t.Errorf("%s: rotates for %q, revokes: %v", name, r.rotation(), r.revokesNow())
		}
	}
}

// TestAnAgentIsNotCutOff while it says that it still has a former key; one that says nothing is, after a while.
func TestAnAgentIsNotCutOff(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	links := NewLinks(parts.Access{}, clock)
	r := &run{Reconciler: &Reconciler{Links: links, Now: clock}, cell: &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}
	says := func(key string) { links.m["a"] = &link{report: &celllink.Report{Credential: key}, heard: now} }
	for _, step := range []struct {
		passes time.Duration
		says   string // a report is heard
		mute   bool
		want   bool
	}{
		{0, "former", false, false}, {comesOver, "former", false, false}, {time.Minute, "former", false, false},
		{time.Minute, "", false, false}, {comesOver, "", false, false}, {time.Second, "", false, true}, // an agent of before, which does not say
		{time.Second, "former", false, false}, {time.Minute, "", true, false}, {comesOver, "", true, false}, {time.Second, "", true, true},
		{time.Second, "new", false, true},
	} {
		now = now.Add(step.passes)
		if !step.mute {
			says(step.says)
		}
		if got := r.cameOver("new", true); got != step.want {
			t.Errorf("%+v: it is %v", step, got)
		}
	}
	// What is remembered of a cell is not remembered of the next one of its name.
	r.memo.lasts("a", "x", true, now)
	r.memo.forget("a")
	if d := r.memo.lasts("a", "x", true, now.Add(time.Hour)); d != 0 {
		t.Errorf("it has lasted for %s", d)
	}
}

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
