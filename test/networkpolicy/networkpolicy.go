// SPDX-License-Identifier: Apache-2.0

// Package networkpolicy evaluates NetworkPolicies for tests of what an operator makes: who may connect to which TCP port. A cluster
// enforces them; test/e2e tries that.
package networkpolicy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Pod is one that connects or is connected to.
type Pod struct {
	Namespace string
	Labels    map[string]string
}

// Cluster is what the answer depends on. Namespaces are labels by name; each has that of its own name besides.
type Cluster struct {
	Policies   []networkingv1.NetworkPolicy
	Namespaces map[string]map[string]string
}

// Admits says whether the policies let from connect to a TCP port of to.
func (c Cluster) Admits(from, to Pod, port int32) (bool, error) {
	isolated := false
	for _, p := range c.Policies {
		concerned, err := selects(&p.Spec.PodSelector, to.Labels)
		if err != nil {
			return false, err
		}
		if p.Namespace != to.Namespace || !concerned || !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
			continue
		}
		isolated = true
		for _, rule := range p.Spec.Ingress {
			if admits, err := c.rule(p.Namespace, rule, from, port); admits || err != nil {
				return admits, err
			}
		}
	}
	return !isolated, nil
}

func (c Cluster) rule(namespace string, rule networkingv1.NetworkPolicyIngressRule, from Pod, port int32) (bool, error) {
	if len(rule.Ports) > 0 && !slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool {
		return *p.Protocol == corev1.ProtocolTCP && p.Port.IntVal == port
	}) {
		return false, nil
	}
	for _, peer := range rule.From {
		if peer.IPBlock != nil {
			return false, fmt.Errorf("address blocks are not evaluated: %v", peer.IPBlock)
		}
		admits := from.Namespace == namespace
		if peer.NamespaceSelector != nil {
			of := map[string]string{corev1.LabelMetadataName: from.Namespace}
			for k, v := range c.Namespaces[from.Namespace] {
				of[k] = v
			}
			var err error
			if admits, err = selects(peer.NamespaceSelector, of); err != nil {
				return false, err
			}
		}
		if admits && peer.PodSelector != nil {
			var err error
			if admits, err = selects(peer.PodSelector, from.Labels); err != nil {
				return false, err
			}
		}
		if admits {
			return true, nil
		}
	}
	return len(rule.From) == 0, nil
}

// MaySend says whether a pod may open any connection at all.
func (c Cluster) MaySend(from Pod) (bool, error) {
	isolated := false
	for _, p := range c.Policies {
		concerned, err := selects(&p.Spec.PodSelector, from.Labels)
		if err != nil {
			return false, err
		}
		if p.Namespace == from.Namespace && concerned && slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			isolated = true
			if len(p.Spec.Egress) > 0 {
				return true, nil
			}
		}
	}
	return !isolated, nil
}

func selects(s *metav1.LabelSelector, set map[string]string) (bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return false, err
	}
	return selector.Matches(labels.Set(set)), nil
}
