// SPDX-License-Identifier: FSL-1.1-ALv2

package manifest

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
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

// What a company says of its proxy and registry is in what it installs.
func TestACompanysProxyAndRegistry(t *testing.T) {
	t.Parallel()
	a := Agent{
		Image: "registry.oem.example/agent:1", PullSecrets: []corev1.LocalObjectReference{{Name: "oem-registry"}}, NATSURL: "wss://nats.demo.example",
		Proxy: &cloud.CellProxy{URL: "https://proxy.oem.example:3128", CABundle: "of the proxy", CredentialsSecret: &cloud.SecretName{Name: "proxy-login"}},
	}
	objects, err := Cell("oem").Bundle(a, "registry.oem.example/edc-operator:1", "registry.oem.example/connector:1")
	if err != nil {
		t.Fatal(err)
	}
	pods := map[string]corev1.PodSpec{}
	config := map[string]string{}
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			pods[o.Name] = o.Spec.Template.Spec
		case *corev1.ConfigMap:
			config = o.Data
		case *unstructured.Unstructured:
			var d appsv1.Deployment
			if o.GetKind() == "Deployment" && runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d) == nil {
				pods[d.Name] = d.Spec.Template.Spec
			}
		}
	}
	for name, image := range map[string]string{parts.Agent: a.Image, "edc-operator": "registry.oem.example/edc-operator:1"} {
		pod, ok := pods[name]
		if !ok || pod.Containers[0].Image != image {
			t.Fatalf("%s: %+v", name, pod.Containers)
		}
		if diff := cmp.Diff(a.PullSecrets, pod.ImagePullSecrets); diff != "" {
			t.Errorf("%s pulls with others (-want +got):\n%s", name, diff)
		}
	}
	agent := pods[parts.Agent].Containers[0]
	for _, want := range []string{
		"--nats-proxy=https://proxy.oem.example:3128", "--nats-proxy-ca=/etc/kaphera/ca/proxy-ca.crt", "--nats-proxy-credentials=/etc/kaphera/proxy/credentials",
	} {
		if !slices.Contains(agent.Args, want) {
			t.Errorf("no %s in %q", want, agent.Args)
		}
	}
	if diff := cmp.Diff(map[string]string{"proxy-ca.crt": "of the proxy"}, config); diff != "" {
		t.Errorf("authorities (-want +got):\n%s", diff)
	}
	mounted := map[string]string{}
	for _, v := range pods[parts.Agent].Volumes {
		if v.Secret != nil {
			mounted[v.Name] = v.Secret.SecretName
		}
	}
	if diff := cmp.Diff(map[string]string{"nats": AgentCredentials, "proxy": "proxy-login"}, mounted); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
}
