// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/test/networkpolicy"
)

// closed: each port of the platform and of a cell lets in those who have an account there, everybody at the public ones, and nobody else.
func closed(t *testing.T) {
	const cell = "cell-shared"
	var ns corev1.Namespace
	if err := admin.Get(t.Context(), types.NamespacedName{Name: cell}, &ns); err != nil {
		t.Fatal(err)
	}
	cluster := networkpolicy.Cluster{Namespaces: map[string]map[string]string{cell: ns.Labels, "pretender": {parts.CellLabel: "shared"}, "ingress": {corev1.LabelMetadataName: "ingress"}}}
	p := &cloud.Platform{ObjectMeta: named("kaphera")}
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{system, cell} {
		var list networkingv1.NetworkPolicyList
		if err := admin.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		cluster.Policies = append(cluster.Policies, list.Items...)
		for i := range list.Items {
			if namespace == system && !metav1.IsControlledBy(&list.Items[i], p) {
				t.Errorf("policy %s would stay behind", list.Items[i].Name)
			}
		}
	}
	of := func(namespace, name, component string) networkpolicy.Pod {
		l := map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "kaphera"}
		if component != "" {
			l["app.kubernetes.io/component"], l["app.kubernetes.io/managed-by"] = component, "edc-operator"
		}
		return networkpolicy.Pod{Namespace: namespace, Labels: l}
	}
	pods := map[string]networkpolicy.Pod{
		"cloud operator": of(system, "cloud-operator", ""), "EDC operator": of(system, "edc-operator", ""), "Keycloak": of(system, "keycloak", ""),
		"Cloud API": of(system, "kaphera-cloud", ""), "PostgreSQL": of(system, "postgresql", ""), "OpenBao": of(system, "openbao", ""), "NATS": of(system, "nats", ""),
		"something else": of(system, "debug", ""), "agent": of(cell, "kaphera-cell-agent", ""), "control plane": of(cell, "connector", "control-plane"),
		"wallet": of(cell, "connector", "wallet"), "data plane": of(cell, "connector", "data-plane"), "migration": of(cell, "connector", "migrate"), "backup": of(cell, "connector", "backup"), "restore": of(cell, "connector", "restore"),
		"issuer": of(cell, "credential-issuer", "issuer"), "stranger": of("elsewhere", "connector", "data-plane"), "pretender": of("pretender", "connector", "data-plane"),
		"ingress controller": of("ingress", "controller", ""),
	}
	roles := []string{"control plane", "wallet", "data plane", "issuer"}
	all := []string{"*"}
	for _, c := range []struct {
		to   string
		port int32
		from []string
	}{
		{"PostgreSQL", 5432, append([]string{"cloud operator", "Keycloak", "migration", "backup", "restore"}, roles...)},
		{"OpenBao", 8200, append([]string{"cloud operator", "EDC operator", "backup", "restore"}, roles...)},
		{"OpenBao", 8201, nil},
		{"NATS", 4222, []string{"cloud operator", "Cloud API", "agent"}},
		{"NATS", 8080, []string{"ingress controller"}},
		{"NATS", 8222, nil},
		{"Keycloak", 8443, []string{"cloud operator"}},
		{"Keycloak", 8080, all},
		{"Keycloak", 9000, nil},
		{"Cloud API", 8080, all},
		{"Cloud API", 8082, nil},
		{"cloud operator", 8080, nil},
		{"EDC operator", 8080, nil},
		{"something else", 80, nil},
		{"agent", 8082, nil},
		{"control plane", 8081, []string{"agent"}}, // and whom the EDC operator lets in
		{"issuer", 8081, []string{"agent"}},
		{"wallet", 8081, nil},
	} {
		for from, pod := range pods {
			got, err := cluster.Admits(pod, pods[c.to], c.port)
			if err != nil {
				t.Fatal(err)
			}
			if want := slices.Equal(c.from, all) || slices.Contains(c.from, from); got != want {
				t.Errorf("%s to port %d of %s: %v", from, c.port, c.to, got)
			}
		}
	}
	for name, want := range map[string]bool{"PostgreSQL": false, "NATS": false, "OpenBao": true, "Keycloak": true} {
		if got, err := cluster.MaySend(pods[name]); err != nil || got != want {
			t.Errorf("%s may open connections: %v, %v", name, got, err)
		}
	}
}
