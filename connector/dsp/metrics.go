// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	out *prometheus.CounterVec
	in  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		out: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaphera_dsp_messages_sent_total", Help: "Protocol messages sent, by type and outcome (taken, refused, failed)."}, []string{"type", "outcome"}),
		in:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaphera_dsp_messages_received_total", Help: "Protocol requests received, by route and status."}, []string{"route", "status"}),
	}
	if r != nil {
		r.MustRegister(m.out, m.in)
	}
	return m
}

func (m *metrics) sent(messageType string, err error) {
	outcome := "taken"
	var refused *refusedError
	if errors.As(err, &refused) {
		outcome = "refused"
	} else if err != nil {
		outcome = "failed"
	}
	m.out.WithLabelValues(messageType, outcome).Inc()
}
