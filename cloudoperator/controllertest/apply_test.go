// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/kaphera/kaphera/cloudoperator/agent"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// TestASnapshotCostsWhatItChanges: of many objects only those are applied that the snapshot wants otherwise than before, or that are otherwise than they
// were applied.
func TestASnapshotCostsWhatItChanges(t *testing.T) {
	const namespace, cell = "cell-applied", "applied"
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	watched, err := client.NewWithWatch(adminTo, client.Options{Scheme: admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	var calls int
	counted := interceptor.NewClient(watched, interceptor.Funcs{Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
		calls++
		return c.Apply(ctx, o, opts...)
	}})
	a := agent.New(agent.Options{Client: counted, Namespace: namespace, Cell: cell})

	wanted := map[string]string{} // business partner number by context
	for i := range 20 {
		wanted[fmt.Sprint("p", i)] = fmt.Sprintf("BPNL%012d", i)
	}
	objects := func() (out []*unstructured.Unstructured) {
		for _, name := range slices.Sorted(maps.Keys(wanted)) {
			o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
				"connectorRef": map[string]any{"name": "connector"}, "context": name, "profile": "auto", "businessPartnerNumber": wanted[name]}}}
			o.SetGroupVersionKind(edc.GroupVersion.WithKind("ParticipantContext"))
			o.SetNamespace(namespace)
			o.SetName(name)
			o.SetLabels(map[string]string{snapshot.ManagedLabel: cell})
			out = append(out, o)
		}
		return out
	}
	patch := func(name, body string) {
		t.Helper()
		o := &edc.ParticipantContext{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		if err := admin.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(body))); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what    string
		do      func()
		applies int
	}{
		{"all are new", func() {}, 20},
		{"nothing is new", func() {}, 0},
		{"one is wanted otherwise", func() { wanted["p3"] = "BPNL0000000000XX" }, 1},
		{"one more", func() { wanted["more"] = "BPNL0000000000YY" }, 1},
		{"somebody changed one", func() { patch("p4", `{"spec":{"businessPartnerNumber":"BPNL0000000000ZZ"}}`) }, 1},
		{"somebody took a label away", func() { patch("p5", fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, snapshot.ManagedLabel)) }, 1},
		{"somebody deleted one", func() {
			if err := admin.Delete(t.Context(), &edc.ParticipantContext{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p6"}}); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"one is wanted no more", func() { delete(wanted, "p7") }, 0},
		{"and again", func() { wanted["p7"] = "BPNL000000000007" }, 1},
		{"nothing is new again", func() {}, 0},
	} {
		step.do()
		calls = 0
		for { // a deletion is under way until it is done
			again, err := a.Apply(t.Context(), objects())
			if err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			if !again {
				break
			}
		}
		if calls != step.applies {
			t.Errorf("%s: %d objects were applied, want %d", step.what, calls, step.applies)
		}
		var list edc.ParticipantContextList
		if err := admin.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels{snapshot.ManagedLabel: cell}); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, p := range list.Items {
			got[p.Name] = p.Spec.BusinessPartnerNumber
		}
		if !maps.Equal(got, wanted) {
			t.Errorf("%s: there is %v, want %v", step.what, got, wanted)
		}
	}
}
