// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// Service of a role: 80 is its public port, 8081 the internal one.
func (r Runtime) Service(role Role) *corev1.Service {
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: r.meta(r.ObjectName(role), role),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: r.Selector(role),
			Ports: []corev1.ServicePort{
				{Name: "public", Port: 80, TargetPort: intstr.FromString("public"), Protocol: corev1.ProtocolTCP},
				{Name: "internal", Port: InternalPort, TargetPort: intstr.FromString("internal"), Protocol: corev1.ProtocolTCP},
			},
		},
	}
}

// Ingress routes the public paths of the given contexts, of each to the role that serves it; everything else is not found.
// It is nil when there are none: an Ingress without a rule would be refused.
func (r Runtime) Ingress(contexts []string) *networkingv1.Ingress {
	if len(contexts) == 0 {
		return nil
	}
	var paths []networkingv1.HTTPIngressPath
	for _, c := range slices.Sorted(slices.Values(contexts)) {
		paths = append(paths, r.paths(c)...)
	}
	ing := &networkingv1.Ingress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"}, ObjectMeta: r.meta(r.Name, ""),
		Spec: networkingv1.IngressSpec{
			TLS: []networkingv1.IngressTLS{{Hosts: []string{r.Exposure.Hostname}, SecretName: r.Exposure.TLSSecretName}},
			Rules: []networkingv1.IngressRule{{
				Host:             r.Exposure.Hostname,
				IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: paths}},
			}},
		},
	}
	ing.Annotations = r.Exposure.Annotations
	if r.Exposure.IngressClassName != "" {
		ing.Spec.IngressClassName = ptr.To(r.Exposure.IngressClassName)
	}
	return ing
}

func (r Runtime) paths(id string) []networkingv1.HTTPIngressPath {
	path := func(kind networkingv1.PathType, suffix string, role Role) networkingv1.HTTPIngressPath {
		return networkingv1.HTTPIngressPath{Path: "/" + id + suffix, PathType: ptr.To(kind), Backend: networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: r.ObjectName(role), Port: networkingv1.ServiceBackendPort{Number: 80}},
		}}
	}
	if slices.Contains(r.Roles, Issuer) {
		return []networkingv1.HTTPIngressPath{
			path(networkingv1.PathTypePrefix, "/issuance", Issuer),
			path(networkingv1.PathTypeExact, "/did.json", Issuer),
			path(networkingv1.PathTypePrefix, "/status", Issuer),
		}
	}
	return []networkingv1.HTTPIngressPath{
		path(networkingv1.PathTypePrefix, "/.well-known", ControlPlane),
		path(networkingv1.PathTypeExact, "/did.json", Wallet),
		path(networkingv1.PathTypePrefix, "/data", DataPlane),
		path(networkingv1.PathTypePrefix, "/dcp", Wallet),
		path(networkingv1.PathTypePrefix, "/dsp", ControlPlane),
	}
}

func shortHash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])[:8]
}
