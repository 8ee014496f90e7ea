// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"

	"github.com/kaphera/kaphera/cloud/config"
)

// Ports and the user of our own programs' images.
const (
	cloudPublic       = 8080
	cloudHealth       = 8082
	programUser int64 = 65532
)

// oidcCA is the file of the authorities that the Cloud API trusts for the realm, in its ConfigMap.
const oidcCA = "gateway-ca.crt"

func issuerCA(p *cloud.Platform) string {
	if x := p.Spec.Keycloak.External; x != nil {
		return string(x.CABundle)
	}
	return p.Spec.CABundle
}

// natsCA is the file of the authorities that the Cloud API trusts for the message server, in its ConfigMap.
const natsCA = "nats-ca.crt"

func cloudConfig(p *cloud.Platform, nats parts.Endpoint) config.Config {
	c := config.Config{
		Listen:    config.Listen{Public: fmt.Sprintf(":%d", cloudPublic), Health: fmt.Sprintf(":%d", cloudHealth)},
		Namespace: p.Namespace, APIURL: "https://" + apiHost(p), ConsoleURL: "https://" + consoleHost(p),
		OIDC:    config.OIDC{Issuer: IssuerURL(p), Audience: Audience, CLIClientID: ClientCLI},
		Console: config.Console{ClientID: ClientConsole, ClientSecretFile: "/etc/kaphera/oidc/" + ClientConsole},
		NATS:    config.NATS{URL: nats.URL},
	}
	if len(nats.CA) > 0 {
		c.NATS.CAFile = "/etc/kaphera/config/" + natsCA
	}
	if issuerCA(p) != "" {
		c.OIDC.CAFile = "/etc/kaphera/config/" + oidcCA
	}
	return c
}

func cloudWorkload(p *cloud.Platform, image, digest string) workload {
	return workload{
		name: parts.Cloud, namespace: p.Namespace, image: image, pullSecrets: p.Spec.ImagePullSecrets, serviceAccount: parts.Cloud, user: programUser,
		args:  []string{"--config", "/etc/kaphera/config/config.yaml"},
		ports: map[string]int32{"http": cloudPublic},
		ready: httpProbe(corev1.URISchemeHTTP, cloudHealth, "/readyz"), live: httpProbe(corev1.URISchemeHTTP, cloudHealth, "/livez"),
		startSeconds: 120, grace: 20,
		mounts: []corev1.VolumeMount{
			mount("config", "/etc/kaphera/config"), mount("oidc", "/etc/kaphera/oidc"),
		},
		volumes: []corev1.Volume{
			configVolume("config", parts.Cloud), secretVolume("oidc", parts.SecretClients, ClientConsole),
		},
		requests: requests("20m", "48Mi"), memoryLimit: "256Mi", digest: digest,
	}
}

func (r *run) cloud(ctx context.Context) error {
	nats, err := r.access.Endpoint(ctx, r.platform, parts.NATS)
	if err != nil {
		return err
	}
	raw, err := yaml.Marshal(cloudConfig(r.platform, nats))
	if err != nil {
		return fmt.Errorf("configuration of the Cloud API: %w", err)
	}
	cm := r.configMap(parts.Cloud, map[string]string{"config.yaml": string(raw), natsCA: string(nats.CA)})
	if ca := issuerCA(r.platform); ca != "" {
		cm.Data[oidcCA] = ca
	}
	w := cloudWorkload(r.platform, r.images.Cloud, kube.Digest(cm.Data))
	objects := []clientObject{cm, r.configMap(parts.ConfigLogOuts, nil), w.service(), r.ingress("kaphera-api", w.name, apiHost(r.platform), "/"), r.ingress("kaphera-console", w.name, consoleHost(r.platform), "/")}
	if err := r.apply(ctx, objects...); err != nil {
		return err
	}
	if _, err := r.oidcSecrets(ctx); err != nil {
		return err
	}
	if err := r.apply(ctx, cloudDeployment(r.platform, w), cloudBudget(w)); err != nil {
		return err
	}
	return r.running(ctx, w.name, false)
}

// cloudDeployment spreads the replicas over zones and nodes; a pod that ends serves on while Service and Ingress may still send it somebody.
func cloudDeployment(p *cloud.Platform, w workload) *appsv1.Deployment {
	d := w.deployment()
	d.Spec.Replicas = ptr.To(ptr.Deref(p.Spec.Cloud.Replicas, 1))
	pod := &d.Spec.Template.Spec
	pod.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
	for _, topology := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
		pod.TopologySpreadConstraints = append(pod.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: topology, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: w.selector()}, MatchLabelKeys: []string{appsv1.DefaultDeploymentUniqueLabelKey},
		})
	}
	return d
}

// cloudBudget lets a node be drained of one pod at a time, also of the only one.
func cloudBudget(w workload) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{ObjectMeta: w.meta(), Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: w.selector()}, MaxUnavailable: ptr.To(intstr.FromInt32(1)), UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
	}}
}

// ingress serves paths of one host, and what is below them, from the port http of a Service.
func (r *run) ingress(name, service, host string, paths ...string) *networkingv1.Ingress {
	spec := r.platform.Spec.Ingress
	rule := &networkingv1.HTTPIngressRuleValue{}
	for _, path := range paths {
		rule.Paths = append(rule.Paths, networkingv1.HTTPIngressPath{
			Path: path, PathType: ptr.To(networkingv1.PathTypePrefix),
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Name: "http"}}},
		})
	}
	in := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.platform.Namespace, Labels: kube.Labels(name), Annotations: spec.Annotations},
		Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
			Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: rule},
		}}, TLS: []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: spec.TLSSecretName}}},
	}
	if spec.ClassName != "" {
		in.Spec.IngressClassName = ptr.To(spec.ClassName)
	}
	return in
}
