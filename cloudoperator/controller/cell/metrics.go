// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// cellMetrics tells, when it is asked, of the Cells as the cache has them and as their agents have reported.
type cellMetrics struct{ *Reconciler }

var (
	cellsMetric     = prometheus.NewDesc("kaphera_cells", "Cells by type and state (ready, waiting, silent, deleting).", []string{"type", "state"}, nil)
	heardMetric     = prometheus.NewDesc("kaphera_cell_last_heard_timestamp_seconds", "When the cell's agent has reported last, in Unix time.", []string{"cell"}, nil)
	publishedMetric = prometheus.NewDesc("kaphera_cell_revision_published", "Newest revision of the snapshot of what the cell must run.", []string{"cell"}, nil)
	appliedMetric   = prometheus.NewDesc("kaphera_cell_revision_applied", "Revision that the cell's agent has applied whole.", []string{"cell"}, nil)
)

const metricsTimeout = 5 * time.Second

// Describe implements prometheus.Collector.
func (cellMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cellsMetric, heardMetric, publishedMetric, appliedMetric} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (m cellMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsTimeout)
	defer cancel()
	var cells cloud.CellList
	if err := m.Access.Client.List(ctx, &cells, client.InNamespace(m.Access.Namespace)); err != nil {
		c <- prometheus.NewInvalidMetric(cellsMetric, fmt.Errorf("list the cells: %w", err))
		return
	}
	count := map[[2]string]int{} // by type and state
	for _, kind := range []string{cloud.Shared, cloud.Dedicated, cloud.OnPremise} {
		for _, state := range []string{ready, waiting, silent, deleting} {
			count[[2]string{kind, state}] = 0 // that there is none is said too
		}
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for i := range cells.Items {
		cell := &cells.Items[i]
		count[[2]string{cell.Spec.Type, state(cell)}]++
		applied, heard := cell.Status.AppliedRevision, time.Time{}
		if last := cell.Status.LastHeard; last != nil {
			heard = last.Time
		}
		if report, at := m.Links.Report(cell.Name); report != nil {
			applied, heard = report.AppliedRevision, at
		}
		gauge(publishedMetric, float64(cell.Status.Revision), cell.Name)
		gauge(appliedMetric, float64(applied), cell.Name)
		if !heard.IsZero() {
			gauge(heardMetric, float64(heard.UnixMilli())/1000, cell.Name)
		}
	}
	for labels, n := range count {
		gauge(cellsMetric, float64(n), labels[:]...)
	}
}

const ready, waiting, silent, deleting = "ready", "waiting", "silent", "deleting"

func state(c *cloud.Cell) string {
	connected := apimeta.FindStatusCondition(c.Status.Conditions, cloud.ConditionConnected)
	switch {
	case !c.DeletionTimestamp.IsZero():
		return deleting
	case connected != nil && connected.Reason == cloud.ReasonSilent:
		return silent
	case apimeta.IsStatusConditionTrue(c.Status.Conditions, cloud.ConditionReady):
		return ready
	}
	return waiting
}
