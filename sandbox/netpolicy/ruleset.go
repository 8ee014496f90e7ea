// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const table = "inet kaphera_policy"

// Cluster is what the rules are computed from.
type Cluster struct {
	Node       netip.Addr
	Policies   []*networkingv1.NetworkPolicy
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
}

// Ruleset is the nftables script that replaces all earlier rules by those that
// the policies ask for. Equal clusters give equal scripts.
func (c Cluster) Ruleset() (string, error) {
	var chains, egress, ingress strings.Builder
	pods := c.addressable()
	c.Policies = slices.SortedFunc(slices.Values(c.Policies), func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for i, pod := range pods {
		for direction, jumps := range map[networkingv1.PolicyType]*strings.Builder{
			networkingv1.PolicyTypeEgress: &egress, networkingv1.PolicyTypeIngress: &ingress,
		} {
			rules, isolated, err := c.rulesOf(pod, direction)
			if err != nil {
				return "", err
			}
			if !isolated {
				continue
			}
			chain, address := fmt.Sprintf("%s_%d", strings.ToLower(string(direction)), i), "saddr"
			if direction == networkingv1.PolicyTypeIngress {
				address = "daddr"
			}
			fmt.Fprintf(jumps, "    ip %s %s jump %s\n", address, pod.Status.PodIP, chain)
			body := "  chain " + chain + " { # " + pod.Namespace + "/" + pod.Name + "\n" + strings.Join(rules, "") + "    counter drop\n  }\n"
			if direction == networkingv1.PolicyTypeEgress {
				body = strings.Replace(body, "\n", "\n"+c.dnsRules(), 1)
			}
			// A map gives no order: the chains are put in order below.
			chains.WriteString(body)
		}
	}
	out := "table " + table + " {}\ndelete table " + table + "\n"
	if chains.Len() == 0 {
		return out, nil
	}
	return out + "table " + table + " {\n" + sortChains(chains.String()) +
		"  chain egress {\n" + egress.String() + "  }\n" +
		"  chain ingress {\n" + ingress.String() + "  }\n" +
		"  chain forward {\n    type filter hook forward priority filter; policy accept;\n" +
		"    ct state established,related accept\n    jump egress\n    jump ingress\n  }\n" +
		// What a pod sends to the node itself: the gateway, the API server.
		"  chain input {\n    type filter hook input priority filter; policy accept;\n" +
		"    ct state established,related accept\n    jump egress\n  }\n}\n", nil
}

func sortChains(s string) string {
	parts := strings.SplitAfter(s, "  }\n")
	slices.Sort(parts)
	return strings.Join(parts, "")
}

// dnsRules let every pod ask the cluster's DNS, which is no pod that a policy
// could name.
func (c Cluster) dnsRules() string {
	return fmt.Sprintf("    ip daddr %[1]s udp dport 53 return\n    ip daddr %[1]s tcp dport 53 return\n", c.Node)
}

// addressable are the pods with a network of their own, by address.
func (c Cluster) addressable() []*corev1.Pod {
	pods := slices.DeleteFunc(slices.Clone(c.Pods), func(p *corev1.Pod) bool {
		_, err := netip.ParseAddr(p.Status.PodIP)
		return err != nil || p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Status.PodIP, b.Status.PodIP) })
	return pods
}

// rulesOf are the rules that let traffic of a pod pass, and whether any policy
// takes the pod's traffic in that direction out of the default, which is all.
func (c Cluster) rulesOf(pod *corev1.Pod, direction networkingv1.PolicyType) (rules []string, isolated bool, err error) {
	for _, p := range c.Policies {
		selected, err := matches(&p.Spec.PodSelector, pod.Labels)
		if err != nil {
			return nil, false, fmt.Errorf("NetworkPolicy %s/%s: %w", p.Namespace, p.Name, err)
		}
		if p.Namespace != pod.Namespace || !selected || !slices.Contains(p.Spec.PolicyTypes, direction) {
			continue
		}
		isolated = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				some, err := c.allow("saddr", p.Namespace, r.From, r.Ports, pod)
				if err != nil {
					return nil, false, fmt.Errorf("NetworkPolicy %s/%s: %w", p.Namespace, p.Name, err)
				}
				rules = append(rules, some...)
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			some, err := c.allow("daddr", p.Namespace, r.To, r.Ports, nil)
			if err != nil {
				return nil, false, fmt.Errorf("NetworkPolicy %s/%s: %w", p.Namespace, p.Name, err)
			}
			rules = append(rules, some...)
		}
	}
	return rules, isolated, nil
}

// allow makes the rules of one entry of a policy. The names of ports are those
// of the pod that is connected to: to for incoming traffic, else each peer.
func (c Cluster) allow(address, namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, to *corev1.Pod) ([]string, error) {
	var rules []string
	add := func(match string, target *corev1.Pod) {
		if len(ports) == 0 {
			rules = append(rules, "    "+strings.TrimSpace(match+" return")+"\n")
		}
		for _, port := range ports {
			if expr, ok := portMatch(port, target); ok {
				rules = append(rules, "    "+strings.TrimSpace(match+" "+expr+" return")+"\n")
			}
		}
	}
	named := slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.Type == intstr.String })
	if len(peers) == 0 {
		add("", to)
		if to == nil && named {
			for _, pod := range c.addressable() {
				add("ip daddr "+pod.Status.PodIP, pod)
			}
		}
		return rules, nil
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if strings.Contains(peer.IPBlock.CIDR, ":") {
				continue // pods here have no IPv6 addresses
			}
			match := "ip " + address + " " + peer.IPBlock.CIDR
			if len(peer.IPBlock.Except) > 0 {
				match += " ip " + address + " != { " + strings.Join(peer.IPBlock.Except, ", ") + " }"
			}
			add(match, to)
			continue
		}
		pods, err := c.peers(namespace, peer)
		if err != nil {
			return nil, err
		}
		if to == nil && named {
			for _, pod := range pods {
				add("ip daddr "+pod.Status.PodIP, pod)
			}
			continue
		}
		if len(pods) > 0 {
			add("ip "+address+" { "+strings.Join(podIPs(pods), ", ")+" }", to)
		}
	}
	return rules, nil
}

func podIPs(pods []*corev1.Pod) []string {
	ips := make([]string, 0, len(pods))
	for _, p := range pods {
		ips = append(ips, p.Status.PodIP)
	}
	return slices.Compact(ips)
}

// peers are the pods that a peer's selectors name.
func (c Cluster) peers(namespace string, peer networkingv1.NetworkPolicyPeer) ([]*corev1.Pod, error) {
	in := map[string]bool{namespace: peer.NamespaceSelector == nil}
	for _, ns := range c.Namespaces {
		if peer.NamespaceSelector == nil {
			break
		}
		ok, err := matches(peer.NamespaceSelector, ns.Labels)
		if err != nil {
			return nil, err
		}
		in[ns.Name] = ok
	}
	var found []*corev1.Pod
	for _, pod := range c.addressable() {
		if !in[pod.Namespace] {
			continue
		}
		ok := true
		if peer.PodSelector != nil {
			var err error
			if ok, err = matches(peer.PodSelector, pod.Labels); err != nil {
				return nil, err
			}
		}
		if ok {
			found = append(found, pod)
		}
	}
	return found, nil
}

func matches(selector *metav1.LabelSelector, set map[string]string) (bool, error) {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, fmt.Errorf("selector: %w", err)
	}
	return s.Matches(labels.Set(set)), nil
}

// portMatch is the match of a port; false when the target has no port of that name.
func portMatch(p networkingv1.NetworkPolicyPort, target *corev1.Pod) (string, bool) {
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	l4 := strings.ToLower(string(protocol))
	switch {
	case p.Port == nil:
		return "meta l4proto " + l4, true
	case p.Port.Type == intstr.Int && p.EndPort != nil:
		return fmt.Sprintf("%s dport %d-%d", l4, p.Port.IntVal, *p.EndPort), true
	case p.Port.Type == intstr.Int:
		return fmt.Sprintf("%s dport %d", l4, p.Port.IntVal), true
	case target == nil:
		return "", false
	}
	for _, container := range target.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == p.Port.StrVal && cmp.Or(port.Protocol, corev1.ProtocolTCP) == protocol {
				return fmt.Sprintf("%s dport %d", l4, port.ContainerPort), true
			}
		}
	}
	return "", false
}
