// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
)

func TestMetricsOfCells(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := cloud.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	cell := func(name, kind string, condition ...metav1.Condition) *cloud.Cell {
		heard := metav1.NewTime(time.Unix(1000, 0))
		return &cloud.Cell{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kaphera-system", Name: name}, Spec: cloud.CellSpec{Type: kind},
			Status: cloud.CellStatus{Conditions: condition, Revision: 7, AppliedRevision: 6, LastHeard: &heard},
		}
	}
	works := metav1.Condition{Type: cloud.ConditionReady, Status: metav1.ConditionTrue}
	goes := cell("goes", cloud.Dedicated, works)
	goes.Finalizers = []string{Finalizer}
	fresh := cell("fresh", cloud.Shared)
	fresh.Status = cloud.CellStatus{}
	r := &Reconciler{Access: parts.Access{Namespace: "kaphera-system", Client: kubefake.NewClientBuilder().WithScheme(scheme).WithObjects(
		cell("works", cloud.Shared, works), fresh, goes,
		cell("quiet", cloud.OnPremise, works, metav1.Condition{Type: cloud.ConditionConnected, Status: metav1.ConditionFalse, Reason: cloud.ReasonSilent}),
	).Build()}}
	r.Links = NewLinks(r.Access, time.Now)
	r.Links.m["works"] = &link{report: &celllink.Report{AppliedRevision: 7}, heard: time.UnixMilli(2000500)}
	if err := r.Access.Client.Delete(t.Context(), goes); err != nil {
		t.Fatal(err)
	}
	const want = `
# HELP kaphera_cell_last_heard_timestamp_seconds When the cell's agent has reported last, in Unix time.
# TYPE kaphera_cell_last_heard_timestamp_seconds gauge
kaphera_cell_last_heard_timestamp_seconds{cell="goes"} 1000
kaphera_cell_last_heard_timestamp_seconds{cell="quiet"} 1000
kaphera_cell_last_heard_timestamp_seconds{cell="works"} 2000.5
# HELP kaphera_cell_revision_applied Revision that the cell's agent has applied whole.
# TYPE kaphera_cell_revision_applied gauge
kaphera_cell_revision_applied{cell="fresh"} 0
kaphera_cell_revision_applied{cell="goes"} 6
kaphera_cell_revision_applied{cell="quiet"} 6
kaphera_cell_revision_applied{cell="works"} 7
# HELP kaphera_cell_revision_published Newest revision of the snapshot of what the cell must run.
# TYPE kaphera_cell_revision_published gauge
kaphera_cell_revision_published{cell="fresh"} 0
kaphera_cell_revision_published{cell="goes"} 7
kaphera_cell_revision_published{cell="quiet"} 7
kaphera_cell_revision_published{cell="works"} 7
# HELP kaphera_cells Cells by type and state (ready, waiting, silent, deleting).
# TYPE kaphera_cells gauge
kaphera_cells{state="deleting",type="dedicated"} 1
kaphera_cells{state="deleting",type="on-premise"} 0
kaphera_cells{state="deleting",type="shared"} 0
kaphera_cells{state="ready",type="dedicated"} 0
kaphera_cells{state="ready",type="on-premise"} 0
kaphera_cells{state="ready",type="shared"} 1
kaphera_cells{state="silent",type="dedicated"} 0
kaphera_cells{state="silent",type="on-premise"} 1
kaphera_cells{state="silent",type="shared"} 0
kaphera_cells{state="waiting",type="dedicated"} 0
kaphera_cells{state="waiting",type="on-premise"} 0
kaphera_cells{state="waiting",type="shared"} 1
`
	if err := testutil.CollectAndCompare(cellMetrics{r}, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
