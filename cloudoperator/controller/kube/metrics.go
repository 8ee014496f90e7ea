// SPDX-License-Identifier: FSL-1.1-ALv2

package kube

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Expose serves a collector at the manager's /metrics while the manager works: of several replicas, the one that leads.
func Expose(m ctrl.Manager, c prometheus.Collector) error {
	return m.Add(manager.RunnableFunc(func(ctx context.Context) error {
		if err := metrics.Registry.Register(c); err != nil {
			log.FromContext(ctx).Error(err, "metrics are not served") // which is no reason to end
			return nil
		}
		defer metrics.Registry.Unregister(c)
		<-ctx.Done()
		return nil
	}))
}
