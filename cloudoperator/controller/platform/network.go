// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	edc "github.com/kaphera/kaphera/edcoperator/workload"
)

func (r *run) isolate(ctx context.Context) error {
	for _, p := range networkPolicies(r.platform) {
		if err := r.apply(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// networkPolicies let in what each part is for: the pods that have an account there, and everybody where an ingress controller comes in,
// which may be anywhere; NATS, which it reaches without TLS, waits for the Platform to say where. No pod reaches another port, such as the message server's monitoring; the kubelet's checks come from no pod.
// PostgreSQL and NATS, which call nobody, cannot.
func networkPolicies(p *cloud.Platform) []*networkingv1.NetworkPolicy {
	operator, edcOperator := kube.Pods(kube.NameLabel, parts.Operator), kube.Pods(kube.NameLabel, edc.ManagedBy)
	runtimes := inCells(edc.LabelComponent, string(edc.ControlPlane), string(edc.Wallet), string(edc.DataPlane), string(edc.Issuer), string(edc.Backup), string(edc.Restore))
	migration, agents := inCells(edc.LabelComponent, string(edc.Migrate)), inCells(kube.NameLabel, parts.Agent)
	policy := func(part string, rules ...networkingv1.NetworkPolicyIngressRule) *networkingv1.NetworkPolicy {
		w := workload{name: part, namespace: p.Namespace}
		return kube.NetworkPolicy(w.meta(), w.selector(), rules...)
	}
	everything := workload{name: "default-deny", namespace: p.Namespace}
	postgresql := policy(parts.PostgreSQL, kube.Ingress(parts.PortPostgreSQL, operator, kube.Pods(kube.NameLabel, parts.Keycloak), runtimes, migration))
	nats := policy(parts.NATS, kube.Ingress(parts.PortNATS, operator, kube.Pods(kube.NameLabel, parts.Cloud), agents))
	if from := p.Spec.Ingress.ControllerNamespace; from != "" {
		controller := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: from}}}
		nats.Spec.Ingress = append(nats.Spec.Ingress, kube.Ingress(parts.PortWebSocket, controller))
	}
	for _, silent := range []*networkingv1.NetworkPolicy{postgresql, nats} {
		silent.Spec.PolicyTypes = append(silent.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
	all := []*networkingv1.NetworkPolicy{
		kube.NetworkPolicy(everything.meta(), nil), postgresql, nats,
		policy(parts.OpenBao, kube.Ingress(parts.PortOpenBao, operator, edcOperator, runtimes)), // the EDC operator asks for its health
		policy(parts.Keycloak, kube.Ingress(keycloakHTTP), kube.Ingress(parts.PortKeycloak, operator)),
		policy(parts.Cloud, kube.Ingress(cloudPublic)),
	}
	return slices.DeleteFunc(all, func(policy *networkingv1.NetworkPolicy) bool {
		_, external := parts.External(p, policy.Name)
		return external // nothing of it runs here; to where it runs, whoever needs it may go
	})
}

// inCells is the peer of pods in cells' namespaces whose label has one of the values.
func inCells(label string, values ...string) networkingv1.NetworkPolicyPeer {
	peer := kube.Pods(label, values...)
	peer.NamespaceSelector = &metav1.LabelSelector{
		MatchLabels:      map[string]string{kube.ManagedBy: kube.FieldOwner},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: parts.CellLabel, Operator: metav1.LabelSelectorOpExists}},
	}
	return peer
}
