// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func pod(namespace, name, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: "dns", ContainerPort: 5353, Protocol: corev1.ProtocolUDP},
		}}}},
		Status: corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning},
	}
}

func cluster(t *testing.T, policies ...string) Cluster {
	t.Helper()
	done, host := pod("a", "web", "10.0.0.8"), pod("a", "web", "10.0.0.9")
	done.Status.Phase, host.Spec.HostNetwork = corev1.PodSucceeded, true
	c := Cluster{Node: netip.MustParseAddr("10.205.0.2"),
		Pods: []*corev1.Pod{pod("b", "web", "10.0.0.4"), pod("a", "db", "10.0.0.1"), pod("a", "web", "10.0.0.2"), pod("b", "job", "10.0.0.3"), pod("a", "new", ""), done, host},
		Namespaces: []*corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"team": "one"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"team": "two"}}},
		}}
	for i, text := range policies {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprintf("p%d", i)}}
		if err := yaml.UnmarshalStrict([]byte(text), &p.Spec); err != nil {
			t.Fatal(err)
		}
		c.Policies = append(c.Policies, p)
	}
	return c
}

// chainOf returns the rules of the chain that traffic of address jumps to.
func chainOf(t *testing.T, rules, address string) []string {
	t.Helper()
	_, after, ok := strings.Cut(rules, address+" jump ")
	if !ok {
		return nil
	}
	name, _, _ := strings.Cut(after, "\n")
	_, body, ok := strings.Cut(rules, "chain "+name+" {")
	if !ok {
		t.Fatalf("chain %s is jumped to and not there:\n%s", name, rules)
	}
	body, _, _ = strings.Cut(body, "  }\n")
	var lines []string
	for line := range strings.Lines(body) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines[1:] // the first names the pod
}

func TestPoliciesBecomeRules(t *testing.T) {
	const db = "podSelector: {matchLabels: {app: db}}\n"
	dns := []string{"ip daddr 10.205.0.2 udp dport 53 return", "ip daddr 10.205.0.2 tcp dport 53 return"}
	for name, c := range map[string]struct {
		policies []string
		ingress  []string // of the pod a/db, before the final drop; nil: not restricted
		egress   []string
	}{
		"no policy":              {nil, nil, nil},
		"another pod's":          {[]string{"podSelector: {matchLabels: {app: web}}\npolicyTypes: [Ingress]"}, nil, nil},
		"deny all incoming":      {[]string{db + "policyTypes: [Ingress]"}, []string{}, nil},
		"deny all outgoing":      {[]string{db + "policyTypes: [Egress]"}, nil, dns},
		"from everywhere":        {[]string{db + "policyTypes: [Ingress]\ningress: [{}]"}, []string{"return"}, nil},
		"from pods beside it":    {[]string{db + "policyTypes: [Ingress]\ningress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]"}, []string{"ip saddr { 10.0.0.2 } return"}, nil},
		"from pods that are not": {[]string{db + "policyTypes: [Ingress]\ningress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]"}, []string{}, nil},
		"from a namespace":       {[]string{db + "policyTypes: [Ingress]\ningress: [{from: [{namespaceSelector: {matchLabels: {team: two}}}]}]"}, []string{"ip saddr { 10.0.0.3, 10.0.0.4 } return"}, nil},
		"from pods of any namespace": {[]string{db + "policyTypes: [Ingress]\ningress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]"},
			[]string{"ip saddr { 10.0.0.2, 10.0.0.4 } return"}, nil},
		"ports": {[]string{db + "policyTypes: [Ingress]\ningress: [{from: [{podSelector: {}}], ports: [{port: http}, {port: 53, protocol: UDP}, {port: 100, endPort: 200}, {protocol: UDP}, {port: absent}]}]"},
			[]string{"ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport 8080 return", "ip saddr { 10.0.0.1, 10.0.0.2 } udp dport 53 return",
				"ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport 100-200 return", "ip saddr { 10.0.0.1, 10.0.0.2 } meta l4proto udp return"}, nil},
		"ports from everywhere": {[]string{db + "policyTypes: [Ingress]\ningress: [{ports: [{port: 5432}]}]"}, []string{"tcp dport 5432 return"}, nil},
		"addresses":             {[]string{db + "policyTypes: [Egress]\negress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]"}, nil, append(slices.Clone(dns), "ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } return")},
		"IPv6 addresses":        {[]string{db + "policyTypes: [Egress]\negress: [{to: [{ipBlock: {cidr: '::/0', except: ['fe80::/10']}}]}]"}, nil, dns},
		"to a port by its name": {[]string{db + "policyTypes: [Egress]\negress: [{to: [{namespaceSelector: {matchLabels: {team: two}}}], ports: [{port: dns, protocol: UDP}]}]"}, nil,
			append(slices.Clone(dns), "ip daddr 10.0.0.3 udp dport 5353 return", "ip daddr 10.0.0.4 udp dport 5353 return")},
		"two policies add up": {[]string{db + "policyTypes: [Ingress]\ningress: [{ports: [{port: 1}]}]", db + "policyTypes: [Ingress, Egress]\ningress: [{ports: [{port: 2}]}]"},
			[]string{"tcp dport 1 return", "tcp dport 2 return"}, dns},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := cluster(t, c.policies...).Ruleset()
			if err != nil {
				t.Fatal(err)
			}
			for address, want := range map[string][]string{"daddr 10.0.0.1": c.ingress, "saddr 10.0.0.1": c.egress} {
				if want != nil {
					want = append(slices.Clone(want), "counter drop")
				}
				if got := chainOf(t, rules, address); !slices.Equal(got, want) {
					t.Errorf("%s:\n%s\nwant:\n%s", address, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

func TestTheSameClusterGivesTheSameRules(t *testing.T) {
	c := cluster(t, "podSelector: {}\npolicyTypes: [Ingress, Egress]", "podSelector: {}\npolicyTypes: [Ingress]\ningress: [{from: [{podSelector: {}}]}]",
		"podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: http}]}]")
	first, err := c.Ruleset()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		slices.Reverse(c.Pods)
		slices.Reverse(c.Policies)
		again, err := c.Ruleset()
		if err != nil || again != first {
			t.Fatalf("%v\n%s\nbefore:\n%s", err, again, first)
		}
	}
	for _, gone := range []string{"10.0.0.8", "10.0.0.9"} {
		if strings.Contains(first, gone) {
			t.Errorf("a pod without a network of its own has rules:\n%s", first)
		}
	}
}
