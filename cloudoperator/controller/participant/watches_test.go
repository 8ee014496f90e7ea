// SPDX-License-Identifier: FSL-1.1-ALv2

package participant

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
)

// fields takes over what index registers, for the client of the tests.
type fields map[string]client.IndexerFunc

func (f fields) IndexField(_ context.Context, _ client.Object, field string, of client.IndexerFunc) error {
	f[field] = of
	return nil
}

// TestAReportReachesThoseItIsAbout, and everybody who may have been told something that it puts right.
func TestAReportReachesThoseItIsAbout(t *testing.T) {
	s := runtime.NewScheme()
	if err := cloud.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	registered := fields{}
	if err := index(t.Context(), registered); err != nil {
		t.Fatal(err)
	}
	b := kubefake.NewClientBuilder().WithScheme(s)
	for field, of := range registered {
		b = b.WithIndex(&cloud.Participant{}, field, of)
	}
	for name, cell := range map[string]string{"a": "shared", "b": "shared", "c": "shared", "elsewhere": "other"} {
		b = b.WithObjects(&cloud.Participant{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: cloud.ParticipantSpec{Cell: cell, Identity: cloud.Identity{Context: name}}})
	}
	var now heard
	r := &Reconciler{Client: b.Build(), Reports: func(string) (*celllink.Report, time.Time) { return now.report, now.at }}
	says := func(at time.Duration, status map[string]string) heard {
		report := &celllink.Report{}
		for name, s := range status {
			report.Objects = append(report.Objects, celllink.Object{Kind: "ParticipantContext", Name: name, Status: json.RawMessage(s)})
		}
		return heard{report, time.Unix(0, 0).Add(at)}
	}
	everybody := []string{"a", "b", "c"}
	for _, step := range []struct {
		what string
		now  heard
		want []string
	}{
		{"nothing is known", heard{}, everybody},
		{"the first report", says(0, map[string]string{"a": `1`, "b": `1`}), everybody},
		{"nothing new", says(time.Second, map[string]string{"b": `1`, "a": `1`}), nil},
		{"one has changed", says(2*time.Second, map[string]string{"a": `1`, "b": `2`}), []string{"b"}},
		{"one came, one went", says(3*time.Second, map[string]string{"a": `1`, "c": `1`}), []string{"b", "c"}},
		{"nothing new after a silence", says(3*time.Second+celllink.SilentAfter+time.Second, map[string]string{"a": `1`, "c": `1`}), everybody},
		{"nothing new again", says(4*time.Second+celllink.SilentAfter+time.Second, map[string]string{"a": `1`, "c": `1`}), nil},
		{"the link was closed", heard{}, everybody},
	} {
		now = step.now
		var got []string
		for _, q := range r.reportedAnew(t.Context(), &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "shared"}}) {
			got = append(got, q.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}

// TestANewLeaderTellsNobodyThatACellHasNotReported while the cell was heard by the leader before it.
func TestANewLeaderTellsNobodyThatACellHasNotReported(t *testing.T) {
	s := runtime.NewScheme()
	if err := cloud.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		what  string
		heard time.Duration // ago
		told  bool
	}{{"heard lately", 20 * time.Second, false}, {"silent", celllink.SilentAfter + time.Second, true}} {
		last := metav1.NewTime(now.Add(-c.heard))
		p := &cloud.Participant{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", Finalizers: []string{Finalizer}}, Spec: cloud.ParticipantSpec{Cell: "shared", Identity: cloud.Identity{Context: "a"}},
			Status: cloud.ParticipantStatus{Conditions: []metav1.Condition{{Type: cloud.ConditionReady, Status: metav1.ConditionTrue, Reason: cloud.ReasonReady}}}}
		cell := &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "shared"}, Status: cloud.CellStatus{LastHeard: &last}}
		registered := fields{}
		if err := index(t.Context(), registered); err != nil {
			t.Fatal(err)
		}
		b := kubefake.NewClientBuilder().WithScheme(s).WithObjects(p, cell).WithStatusSubresource(p)
		for field, of := range registered {
			b = b.WithIndex(&cloud.Participant{}, field, of)
		}
		r := &Reconciler{Client: b.Build(), Now: func() time.Time { return now }, Reports: func(string) (*celllink.Report, time.Time) { return nil, time.Time{} }}
		result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Client.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
			t.Fatal(err)
		}
		if ready := meta.IsStatusConditionTrue(p.Status.Conditions, cloud.ConditionReady); ready == c.told || !c.told && result.RequeueAfter <= 0 {
			t.Errorf("%s: ready %v, looked at again in %s", c.what, ready, result.RequeueAfter)
		}
	}
}
