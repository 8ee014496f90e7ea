// SPDX-License-Identifier: FSL-1.1-ALv2

package manifest

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"
)

func TestReplicasOfTheAgent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		asked    *int32
		want     int32
		strategy appsv1.DeploymentStrategyType
	}{
		{nil, 1, appsv1.RecreateDeploymentStrategyType},
		{ptr.To[int32](0), 1, appsv1.RecreateDeploymentStrategyType}, // connectors stand still, and somebody must wake them
		{ptr.To[int32](1), 1, appsv1.RecreateDeploymentStrategyType},
		{ptr.To[int32](2), 2, appsv1.RollingUpdateDeploymentStrategyType},
	} {
		for _, o := range Cell("shared").Deployment(Agent{Replicas: c.asked}) {
			if d, ok := o.(*appsv1.Deployment); ok && (*d.Spec.Replicas != c.want || d.Spec.Strategy.Type != c.strategy) {
				t.Errorf("%d replicas: %d, %s", ptr.Deref(c.asked, -1), *d.Spec.Replicas, d.Spec.Strategy.Type)
			}
		}
	}
}
