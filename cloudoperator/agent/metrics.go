// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/connector/audit"
)

type metrics struct {
	seen, applied     prometheus.Gauge
	apply             *prometheus.HistogramVec
	reported, waiting prometheus.Gauge
	taken             int64 // records up to the heads that the cloud took
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		seen:    gauge("kaphera_agent_revision_seen", "Revision of the snapshot that was tried last."),
		applied: gauge("kaphera_agent_revision_applied", "Revision of the newest snapshot that was applied whole."),
		apply: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kaphera_agent_apply_seconds", Help: "How long applying a snapshot took, by outcome (applied, failed).", Buckets: prometheus.ExponentialBuckets(0.01, 4, 7), // to 41 s
		}, []string{"outcome"}),
		reported: gauge("kaphera_agent_audit_records_reported", "Records of the audit trails up to the heads that the cloud took last."),
		waiting:  gauge("kaphera_agent_audit_records_waiting", "Records of the audit trails after those heads."),
	}
	if r != nil {
		r.MustRegister(m.seen, m.applied, m.apply, m.reported, m.waiting)
	}
	return m
}

func (m *metrics) tried(start time.Time, err error) {
	outcome := "applied"
	if err != nil {
		outcome = "failed"
	}
	m.apply.WithLabelValues(outcome).Observe(time.Since(start).Seconds())
}

// told notes a report with these heads, which the cloud has taken or not. It is called for one report after the other.
func (m *metrics) told(heads []audit.Head, taken bool) {
	if heads == nil {
		return // the connector did not answer
	}
	var records int64
	for _, h := range heads {
		records += h.Seq
	}
	if taken {
		m.taken = records
	}
	m.reported.Set(float64(m.taken))
	m.waiting.Set(float64(max(0, records-m.taken))) // a chain may have gone
}
