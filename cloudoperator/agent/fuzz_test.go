// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"encoding/json"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// FuzzSnapshot: whatever the cloud wants applied is refused, or is of the kinds, the namespace and the label that are the agent's, and reads the same again.
func FuzzSnapshot(f *testing.F) {
	a := applier{namespace: "cell", cell: "plant"}
	add := func(cell string, objects string) {
		raw, err := json.Marshal(celllink.Snapshot{Cell: cell, Revision: 7, Hash: celllink.HashOf([]byte(objects)), Objects: json.RawMessage(objects)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	object := func(kind, namespace string) string {
		return `{"apiVersion":"` + edc.GroupVersion.String() + `","kind":"` + kind + `","metadata":{"name":"x","namespace":"` + namespace + `","labels":{"` + snapshot.ManagedLabel + `":"plant"}},"spec":{"replicas":1.5}}`
	}
	add("plant", `[`+object("Connector", "cell")+`,`+object("ParticipantContext", "cell")+`]`)
	add("plant", `[`+object("Secret", "cell")+`]`)
	add("plant", `[`+object("Connector", "kube-system")+`]`)
	add("plant", `[null,{"metadata":[]},{"metadata":{"labels":"x"}}]`)
	add("other", `[]`)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, objects, err := celllink.DecodeSnapshot(data, a.cell)
		if err != nil || a.check(objects) != nil {
			return
		}
		if s.Cell != a.cell || celllink.HashOf(s.Objects) != s.Hash {
			t.Fatalf("taken: %s", data)
		}
		for _, o := range objects {
			if o.GetNamespace() != a.namespace || o.GetAPIVersion() != edc.GroupVersion.String() || o.GetLabels()[snapshot.ManagedLabel] != a.cell {
				t.Fatalf("%s would be applied", o.Object)
			}
			_ = o.DeepCopy()
		}
		again, err := celllink.EncodeObjects(objects)
		if err != nil {
			t.Fatal(err)
		}
		s.Objects, s.Hash = again, celllink.HashOf(again)
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, back, err := celllink.DecodeSnapshot(raw, a.cell); err != nil || !reflect.DeepEqual(objects, append([]*unstructured.Unstructured{}, back...)) {
			t.Fatalf("reads otherwise again: %v: %s", err, raw)
		}
	})
}
