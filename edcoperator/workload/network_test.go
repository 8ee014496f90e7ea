// SPDX-License-Identifier: Apache-2.0

package workload_test

import (
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
	"github.com/kaphera/kaphera/test/networkpolicy"
)

func admits(t *testing.T, policies []networkingv1.NetworkPolicy, from, to networkpolicy.Pod, port int32) bool {
	t.Helper()
	ok, err := networkpolicy.Cluster{Policies: policies}.Admits(from, to, port)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func deref(policies []*networkingv1.NetworkPolicy) (out []networkingv1.NetworkPolicy) {
	for _, p := range policies {
		out = append(out, *p)
	}
	return out
}

func TestWhoMayConnectToAConnector(t *testing.T) {
	t.Parallel()
	r, issuer, neighbour := runtime(), runtime(), runtime()
	issuer.Name, issuer.App, issuer.Roles = "authority", "credential-issuer", []workload.Role{workload.Issuer}
	neighbour.Name = "neighbour"
	var policies []networkingv1.NetworkPolicy
	for _, rt := range []*workload.Runtime{&r, &issuer} {
		rt.OperatorNamespace = "operators"
		policies = append(policies, deref(rt.NetworkPolicies())...)
	}
	pods := map[string]networkpolicy.Pod{
		"operator":                {Namespace: "operators", Labels: map[string]string{workload.LabelName: "edc-operator"}},
		"false operator":          {Namespace: "elsewhere", Labels: map[string]string{workload.LabelName: "edc-operator"}},
		"stranger":                {Namespace: "elsewhere", Labels: nil},
		"beside":                  {Namespace: "cell", Labels: map[string]string{"app": "x"}},
		"control plane":           {Namespace: "cell", Labels: r.Labels(workload.ControlPlane)},
		"wallet":                  {Namespace: "cell", Labels: r.Labels(workload.Wallet)},
		"data plane":              {Namespace: "cell", Labels: r.Labels(workload.DataPlane)},
		"another control plane":   {Namespace: "cell", Labels: neighbour.Labels(workload.ControlPlane)},
		"its name elsewhere":      {Namespace: "elsewhere", Labels: r.Labels(workload.ControlPlane)},
		"migration":               {Namespace: "cell", Labels: r.Labels(workload.Migrate)},
		"issuer":                  {Namespace: "cell", Labels: issuer.Labels(workload.Issuer)},
		"another part's operator": {Namespace: "operators", Labels: map[string]string{workload.LabelName: "cloud-operator"}},
	}
	internal := map[string][]string{"control plane": {"operator", "data plane"}, "wallet": {"operator", "control plane"}, "data plane": {"control plane"}, "issuer": {"operator"}}
	for to, callers := range internal {
		for from, pod := range pods {
			for port, want := range map[int32]bool{
				workload.PublicPort: true, workload.InternalPort: slices.Contains(callers, from), workload.HealthPort: from == "operator", 22: false,
			} {
				if got := admits(t, policies, pod, pods[to], port); got != want {
					t.Errorf("%s to port %d of %s: %v", from, port, to, got)
				}
			}
		}
	}
	for from, pod := range pods {
		if admits(t, policies, pod, pods["migration"], workload.PublicPort) {
			t.Errorf("%s may connect to the migration", from)
		}
	}
	outside := runtime() // an operator outside the cluster is no peer, and lets nobody else in
	for from, pod := range pods {
		if from != "control plane" && admits(t, deref(outside.NetworkPolicies()), pod, pods["wallet"], workload.InternalPort) {
			t.Errorf("without a namespace of the operator %s may connect to the wallet", from)
		}
	}
}

func TestTheManagementAPIHasItsOwnHost(t *testing.T) {
	t.Parallel()
	r := runtime()
	anybody, controlPlane := networkpolicy.Pod{Namespace: "elsewhere"}, networkpolicy.Pod{Namespace: "cell", Labels: r.Labels(workload.ControlPlane)}
	wallet := networkpolicy.Pod{Namespace: "cell", Labels: r.Labels(workload.Wallet)}
	if admits(t, deref(r.NetworkPolicies()), anybody, controlPlane, workload.ManagementPort) || r.Ingress(nil) != nil || len(r.Service(workload.ControlPlane).Spec.Ports) != 2 {
		t.Error("it is open without a host name")
	}
	r.Management.Hostname, r.Management.TLSSecretName = "management.example", "certificate"
	for pod, want := range map[*networkpolicy.Pod]bool{&controlPlane: true, &wallet: false} {
		if got := admits(t, deref(r.NetworkPolicies()), anybody, *pod, workload.ManagementPort); got != want {
			t.Errorf("anybody to the port of %v: %t", pod.Labels, got)
		}
	}
	if admits(t, deref(r.NetworkPolicies()), anybody, controlPlane, workload.InternalPort) {
		t.Error("the internal port is open")
	}
	for _, contexts := range [][]workload.Tenant{nil, {{Context: "acme"}}} {
		rules := 1 + len(contexts)
		ing := r.Ingress(contexts)
		if len(ing.Spec.Rules) != rules || len(ing.Spec.TLS) != rules {
			t.Fatalf("contexts %v: %+v", contexts, ing.Spec)
		}
		rule, tls := ing.Spec.Rules[rules-1], ing.Spec.TLS[rules-1]
		path := rule.HTTP.Paths[0]
		if rule.Host != "management.example" || len(rule.HTTP.Paths) != 1 || path.Path != "/management" || path.Backend.Service.Name != r.ObjectName(workload.ControlPlane) ||
			path.Backend.Service.Port.Number != workload.ManagementPort || tls.SecretName != "certificate" || tls.Hosts[0] != rule.Host {
			t.Errorf("contexts %v: %+v, %+v", contexts, rule, tls)
		}
	}
	cfg, err := config.Parse([]byte(r.ConfigMap().Data["control-plane.yaml"]))
	if err != nil || cfg.Listen.Management != ":8083" {
		t.Errorf("the control plane listens at %q: %v", cfg.Listen.Management, err)
	}
}

func TestMovedParticipantsAreServedAtTheirOwnHost(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.Exposure.TLSSecretName = "own-tls"
	r.FurtherHosts = []v1alpha1.FurtherHost{{Hostname: "old.example", TLSSecretName: "old-tls"}, {Hostname: "older.example"}, {Hostname: "unused.example"}}
	ing := r.Ingress([]workload.Tenant{{Context: "steel"}, {Context: "brandt", Hostname: "old.example"}, {Context: "acme", Hostname: "old.example"},
		{Context: "own", Hostname: r.Exposure.Hostname}, {Context: "first", Hostname: "older.example"}})
	got := map[string][]string{}
	for i, rule := range ing.Spec.Rules {
		if tls := ing.Spec.TLS[i]; len(tls.Hosts) != 1 || tls.Hosts[0] != rule.Host {
			t.Errorf("TLS of %s: %+v", rule.Host, tls)
		}
		got[rule.Host] = []string{ing.Spec.TLS[i].SecretName}
		for _, p := range rule.HTTP.Paths {
			got[rule.Host] = append(got[rule.Host], p.Path)
		}
	}
	want := map[string][]string{
		r.Exposure.Hostname: append([]string{"own-tls"}, append(paths("own"), paths("steel")...)...),
		"older.example":     append([]string{"own-tls"}, paths("first")...),
		"old.example":       append([]string{"old-tls"}, append(paths("acme"), paths("brandt")...)...),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func paths(context string) (out []string) {
	for _, p := range []string{"/.well-known", "/did.json", "/data", "/dcp", "/dsp"} {
		out = append(out, "/"+context+p)
	}
	return out
}

func TestAConnectorIsKeptFromTheKubernetesAPI(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.APIServers = []netip.AddrPort{netip.MustParseAddrPort("10.205.0.2:6443"), netip.MustParseAddrPort("[fd00::2]:6443"), netip.MustParseAddrPort("10.205.0.3:65535")}
	var egress []networkingv1.NetworkPolicyEgressRule
	for _, p := range r.NetworkPolicies() {
		for role := range map[workload.Role]bool{workload.ControlPlane: true, workload.Wallet: true, workload.DataPlane: true, workload.Migrate: true} {
			for k, v := range p.Spec.PodSelector.MatchLabels {
				if len(p.Spec.Egress) > 0 && r.Labels(role)[k] != v {
					t.Errorf("%s does not concern %s", p.Name, role)
				}
			}
		}
		egress = append(egress, p.Spec.Egress...)
	}
	reaches := func(address string, port int32) bool {
		a := netip.MustParseAddr(address)
		return slices.ContainsFunc(egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			portOK := len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool {
				return *p.Protocol == corev1.ProtocolTCP && p.Port.IntVal <= port && port <= ptr.Deref(p.EndPort, p.Port.IntVal)
			})
			return portOK && (len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
				return peer.IPBlock != nil && netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(a) &&
					!slices.ContainsFunc(peer.IPBlock.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(a) })
			}))
		})
	}
	type target struct {
		address string
		port    int32
	}
	got, want := map[target]bool{}, map[target]bool{
		{"10.205.0.2", 6443}: false, {"10.205.0.2", 443}: true, {"10.205.0.2", 65535}: true, {"10.205.0.3", 65535}: false, {"10.205.0.3", 6443}: true,
		{"fd00::2", 6443}: false, {"fd00::2", 443}: true, {"169.254.169.254", 80}: false, {"169.254.20.10", 53}: true, {"fe80::1", 80}: false, {"fd00:ec2::254", 80}: false,
		{"8.8.8.8", 443}: true, {"2606:4700::1", 443}: true, {"10.1.0.9", 5432}: true,
	}
	for to := range want {
		got[to] = reaches(to.address, to.port)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBackendNetworksReachTheRolesThatAskForThem(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.DataPlane.DeniedNetworks, r.DataPlane.AllowedNetworks = []string{"10.96.0.0/12"}, []string{"10.0.0.0/8", "fd00::/8"}
	denied, allowed := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, role := range []workload.Role{workload.ControlPlane, workload.DataPlane} {
		file, err := config.Parse([]byte(r.ConfigMap().Data[string(role)+".yaml"]))
		if err != nil {
			t.Fatal(err)
		}
		if c := file.DataPlane; !slices.Equal(c.DeniedNetworks, denied) || !slices.Equal(c.AllowedNetworks, allowed) {
			t.Errorf("%s reads %v, %v", role, c.DeniedNetworks, c.AllowedNetworks)
		}
	}
}

func TestWhatBecomesOfAuditRecordsReachesWhoeverSeesToIt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spec v1alpha1.Audit
		want config.Audit
	}{
		"as the schema has it":        {v1alpha1.Audit{KeepBodies: "8760h", Leaving: []string{audit.Agreement}}, config.Audit{KeepBodies: config.Duration(8760 * time.Hour), Leaving: []string{audit.Agreement}}},
		"all bodies stay in the cell": {v1alpha1.Audit{Leaving: []string{}}, config.Audit{Leaving: []string{}}},
		"the defaults of the runtime": {},
	} {
		r := runtime()
		r.Audit = tc.spec
		for role, want := range map[workload.Role]config.Audit{workload.Migrate: {KeepBodies: tc.want.KeepBodies}, workload.ControlPlane: {Leaving: tc.want.Leaving}} {
			file, err := config.Parse([]byte(r.ConfigMap().Data[string(role)+".yaml"]))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, file.Audit); diff != "" {
				t.Errorf("%s, %s: %s", name, role, diff)
			}
		}
	}
}

func TestWhatAParticipantMayHaveUnderWayReachesEveryRole(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.PerParticipant = v1alpha1.PerParticipant{Connections: 3, Requests: 20, Messages: 4, Accesses: 30}
	for _, role := range r.Roles {
		file, err := config.Parse([]byte(r.ConfigMap().Data[string(role)+".yaml"]))
		if err != nil {
			t.Fatal(err)
		}
		if want := (config.PerParticipant{Connections: 3, Requests: 20, Messages: 4, Accesses: 30}); file.PerParticipant != want {
			t.Errorf("%s reads %+v", role, file.PerParticipant)
		}
	}
}

// The schema names the types of records that there are.
func TestTypesOfAuditRecordsInTheSchema(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../config/crd/edc.kaphera.io_connectors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range audit.Types {
		if !strings.Contains(string(raw), " - "+typ+"\n") {
			t.Errorf("spec.audit.leaving does not take %s", typ)
		}
	}
}
