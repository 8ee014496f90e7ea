// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// Service of a role: 80 is its public port, 8081 the internal one, 8083 that of the EDC Management API where it has a host name.
func (r Runtime) Service(role Role) *corev1.Service {
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: r.meta(r.ObjectName(role), role),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: r.Selector(role),
			Ports: []corev1.ServicePort{
				{Name: "public", Port: 80, TargetPort: intstr.FromString("public"), Protocol: corev1.ProtocolTCP},
				{Name: "internal", Port: InternalPort, TargetPort: intstr.FromString("internal"), Protocol: corev1.ProtocolTCP},
			},
		},
	}
	if r.exposesManagement(role) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "management", Port: ManagementPort, TargetPort: intstr.FromString("management"), Protocol: corev1.ProtocolTCP})
	}
	return s
}

func (r Runtime) exposesManagement(role Role) bool {
	return role == ControlPlane && r.Management.Hostname != ""
}

// Tenant is a context that a runtime serves, at one of its FurtherHosts or, where Hostname is empty, at its own.
type Tenant struct{ Context, Hostname string }

// Ingress routes the public paths of the given contexts, of each at its host to the role that serves it; everything else is not found.
// The EDC Management API has its own host, if any. It is nil when there is nothing to route: an Ingress without a rule would be refused.
func (r Runtime) Ingress(tenants []Tenant) *networkingv1.Ingress {
	paths := map[string][]networkingv1.HTTPIngressPath{}
	for _, t := range slices.SortedFunc(slices.Values(tenants), func(a, b Tenant) int { return strings.Compare(a.Context, b.Context) }) {
		host := cmp.Or(t.Hostname, r.Exposure.Hostname)
		paths[host] = append(paths[host], r.paths(t.Context)...)
	}
	ing := &networkingv1.Ingress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"}, ObjectMeta: r.meta(r.Name, ""),
	}
	serve := func(hostname, tlsSecret string, paths ...networkingv1.HTTPIngressPath) {
		ing.Spec.TLS = append(ing.Spec.TLS, networkingv1.IngressTLS{Hosts: []string{hostname}, SecretName: tlsSecret})
		ing.Spec.Rules = append(ing.Spec.Rules, networkingv1.IngressRule{
			Host: hostname, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: paths}},
		})
	}
	secrets := map[string]string{}
	for _, h := range r.FurtherHosts {
		secrets[h.Hostname] = h.TLSSecretName
	}
	for _, host := range slices.Sorted(maps.Keys(paths)) {
		serve(host, cmp.Or(secrets[host], r.Exposure.TLSSecretName), paths[host]...)
	}
	if r.Management.Hostname != "" {
		serve(r.Management.Hostname, r.Management.TLSSecretName, networkingv1.HTTPIngressPath{
			Path: "/management", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: r.backend(ControlPlane, ManagementPort),
		})
	}
	if len(ing.Spec.Rules) == 0 {
		return nil
	}
	ing.Annotations = r.Exposure.Annotations
	if r.Exposure.IngressClassName != "" {
		ing.Spec.IngressClassName = ptr.To(r.Exposure.IngressClassName)
	}
	return ing
}

func (r Runtime) paths(id string) []networkingv1.HTTPIngressPath {
	path := func(kind networkingv1.PathType, suffix string, role Role) networkingv1.HTTPIngressPath {
		return networkingv1.HTTPIngressPath{Path: "/" + id + suffix, PathType: ptr.To(kind), Backend: r.backend(role, 80)}
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

func (r Runtime) backend(role Role, port int32) networkingv1.IngressBackend {
	return networkingv1.IngressBackend{
		Service: &networkingv1.IngressServiceBackend{Name: r.ObjectName(role), Port: networkingv1.ServiceBackendPort{Number: port}},
	}
}

// NetworkPolicies let in what a runtime's Pods are for and nothing else: everybody at the public port and at that of an exposed EDC Management API, the operator and the roles of the
// same runtime at the internal ones. Outwards they reach what participants, backends, database and Vault may be, which is everything but
// the Kubernetes API and link-local addresses. Policies add up: who else may come in is for whoever runs the namespace to say.
func (r Runtime) NetworkPolicies() []*networkingv1.NetworkPolicy {
	isolation := r.networkPolicy(r.Name+"-isolation", "", networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{LabelName: r.App, LabelInstance: r.Name}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Egress:      r.egress(),
	})
	out := []*networkingv1.NetworkPolicy{isolation}
	for _, role := range r.Roles {
		ingress := []networkingv1.NetworkPolicyIngressRule{{Ports: tcp(PublicPort)}} // an ingress controller may be anywhere
		if r.exposesManagement(role) {
			ingress = append(ingress, networkingv1.NetworkPolicyIngressRule{Ports: tcp(ManagementPort)})
		}
		allow := func(port int32, peers []networkingv1.NetworkPolicyPeer) {
			if len(peers) > 0 { // a rule without any would let everybody in
				ingress = append(ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: tcp(port)})
			}
		}
		allow(InternalPort, r.callers(role))
		allow(HealthPort, r.operator())
		out = append(out, r.networkPolicy(r.ObjectName(role), role, networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: r.Selector(role)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: ingress,
		}))
	}
	return out
}

func (r Runtime) networkPolicy(name string, role Role, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}, ObjectMeta: r.meta(name, role), Spec: spec,
	}
}

// callers of a role's internal API.
func (r Runtime) callers(role Role) []networkingv1.NetworkPolicyPeer {
	controlPlane := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: r.Selector(ControlPlane)}}
	switch role {
	case ControlPlane: // the data plane asks about accesses
		return append(r.operator(), networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: r.Selector(DataPlane)}})
	case DataPlane:
		return []networkingv1.NetworkPolicyPeer{controlPlane}
	case Wallet:
		return append(r.operator(), controlPlane)
	default:
		return r.operator()
	}
}

// operator is the peer of the operator's own Pods; none when it runs outside the cluster.
func (r Runtime) operator() []networkingv1.NetworkPolicyPeer {
	if r.OperatorNamespace == "" {
		return nil
	}
	return []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: r.OperatorNamespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{LabelName: ManagedBy}},
	}}
}

// Addresses that lead to a node's own services, of each IP version: link-local ones, where clouds serve machine credentials, and the one of
// them that is not link-local.
var linkLocal = map[string][]string{"0.0.0.0/0": {"169.254.0.0/16"}, "::/0": {"fe80::/10", "fd00:ec2::254/128"}}

func (r Runtime) egress() []networkingv1.NetworkPolicyEgressRule {
	const dns, lastPort = 53, 65535
	block := func(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
	}
	except := map[string][]string{"0.0.0.0/0": slices.Clone(linkLocal["0.0.0.0/0"]), "::/0": slices.Clone(linkLocal["::/0"])}
	var besideAPI []networkingv1.NetworkPolicyEgressRule // what else is at the API servers' addresses, such as an ingress controller
	for _, api := range r.APIServers {
		own := netip.PrefixFrom(api.Addr(), api.Addr().BitLen()).String()
		if api.Addr().Is4() {
			except["0.0.0.0/0"] = append(except["0.0.0.0/0"], own)
		} else {
			except["::/0"] = append(except["::/0"], own)
		}
		besideAPI = append(besideAPI, networkingv1.NetworkPolicyEgressRule{
			To:    []networkingv1.NetworkPolicyPeer{block(own)},
			Ports: append(portRange(1, int32(api.Port())-1), portRange(int32(api.Port())+1, lastPort)...),
		})
	}
	return append([]networkingv1.NetworkPolicyEgressRule{
		{Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, dns), port(corev1.ProtocolTCP, dns)}},
		{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}, block("0.0.0.0/0", except["0.0.0.0/0"]...), block("::/0", except["::/0"]...)}},
	}, besideAPI...)
}

func tcp(number int32) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, number)}
}

func port(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Protocol: ptr.To(protocol), Port: ptr.To(intstr.FromInt32(number))}
}

// portRange is empty when first is after last.
func portRange(first, last int32) []networkingv1.NetworkPolicyPort {
	if first > last {
		return nil
	}
	p := port(corev1.ProtocolTCP, first)
	p.EndPort = ptr.To(last)
	return []networkingv1.NetworkPolicyPort{p}
}

func shortHash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])[:8]
}
