// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/test/networkpolicy"
)

const tier1 = "cell-tier1"

func dedicatedCell(name, organization string) *cloud.Cell {
	return &cloud.Cell{ObjectMeta: named(name), Spec: cloud.CellSpec{
		Type: cloud.Dedicated, Organization: organization, Hostname: name + ".demo.example", OperatingParty: "Kaphera",
		Quota: &cloud.CellQuota{CPU: "1", Memory: "2Gi"},
		Access: &cloud.CellAccess{
			Viewers: cloud.CellSubjects{Groups: []string{"tier1-audit"}}, Operators: cloud.CellSubjects{Groups: []string{"tier1-infrastructure"}, Users: []string{"otto@tier1.example"}},
		},
	}}
}

// dedicated makes a second cell, for one organization, and tries to cross the line to it from the shared one.
func dedicated(t *testing.T) {
	organization := &cloud.Organization{ObjectMeta: named("tier1"), Spec: cloud.OrganizationSpec{DisplayName: "Tier 1", ContactEmail: "data@tier1.example"}}
	cell := dedicatedCell("tier1", "tier1")
	participant := func(name, organization string) *cloud.Participant {
		return &cloud.Participant{ObjectMeta: named(name), Spec: cloud.ParticipantSpec{
			Organization: organization, Identity: cloud.Identity{Context: "parts", BusinessPartnerNumber: "BPNL000000000003"}, Cell: "tier1", Profile: "auto",
		}}
	}
	foreign, own := participant("a-foreign", "supplier"), participant("tier1", "tier1")
	for _, o := range []client.Object{organization, cell, foreign, own} {
		create(t, o)
	}
	agentUp(t, "tier1")
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionApplied, metav1.ConditionTrue, "")
	})
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, foreign, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonRefused)
	})
	for _, c := range foreign.Status.Conditions {
		if strings.Contains(c.Message, "organization tier1") {
			t.Errorf("another organization is told whose cell it is: %s", c.Message)
		}
	}
	eventually(t, func(ctx context.Context) error {
		var pc edc.ParticipantContext
		err := admin.Get(ctx, types.NamespacedName{Namespace: tier1, Name: "parts"}, &pc)
		if whose := pc.Labels[snapshot.ParticipantLabel]; err == nil && whose != "tier1" {
			err = fmt.Errorf("the context is that of %q", whose)
		}
		return err
	})
	t.Run("what it takes is bounded", bounded)
	t.Run("its people see it, and no Secret", tenantsRights)
	t.Run("no pod of a neighbour gets in", neighboursNetwork)
	t.Run("no account of a neighbour reads its Secrets", neighboursSecrets)
	t.Run("no role of a neighbour opens its database", func(t *testing.T) {
		databaseRoles(t, "shared", snapshot.ConnectorResources("tier1").Database)
		databaseRoles(t, "tier1", snapshot.ConnectorResources("shared").Database)
	})
	t.Run("no account of a neighbour opens its part of the Vault", neighboursVault)
	t.Run("what is kept of a participant is brought from cell to cell", transfers)
	t.Run("a participant moves from the shared cell and back", moves)
	t.Run("who is taken out of the spec is out", func(t *testing.T) {
		if err := admin.Patch(t.Context(), cell, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"access":null}}`))); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(context.Context) error {
			if personMay(t, "otto@tier1.example", "", "list", "/pods", tier1) {
				return errors.New("still in")
			}
			return nil
		})
	})
	for _, o := range []client.Object{organization, foreign, own} {
		if err := admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []client.Object{foreign, own} {
		eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
	}
	eventually(t, func(ctx context.Context) error {
		err := condition(ctx, organization, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonInUse)
		if m := organization.Status.Conditions; err == nil && !strings.Contains(m[0].Message, ": cell tier1") {
			err = fmt.Errorf("the organization waits for something else: %s", m[0].Message)
		}
		return err
	})
	if err := admin.Delete(t.Context(), cell); err != nil {
		t.Fatal(err)
	}
	cellGone(t, "tier1")
	eventually(t, func(ctx context.Context) error { return absent(ctx, organization) })
}

func bounded(t *testing.T) {
	var quota corev1.ResourceQuota
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: tier1, Name: "cell"}, &quota); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[corev1.ResourceName]string{corev1.ResourceRequestsCPU: "1", corev1.ResourceLimitsMemory: "2Gi", corev1.ResourcePods: "20"} {
		if got := quota.Spec.Hard[name]; got.Cmp(resource.MustParse(want)) != 0 {
			t.Errorf("%s is bounded by %s, want %s", name, got.String(), want)
		}
	}
	c := corev1.Container{Name: "p", Image: "p", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: tier1, Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
	if err := admin.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "512Mi") {
		t.Errorf("a container that is too large: %v", err)
	}
}

func tenantsRights(t *testing.T) {
	const everything = "edc.kaphera.io/connectors /pods apps/deployments /events networking.k8s.io/networkpolicies policy/poddisruptionbudgets /configmaps /resourcequotas"
	may := func(who [2]string, verb, kind string) {
		t.Helper()
		eventually(t, func(context.Context) error {
			if !personMay(t, who[0], who[1], verb, kind, tier1) {
				return fmt.Errorf("%v may not %s %s", who, verb, kind)
			}
			return nil
		})
	}
	for who, restarts := range map[[2]string]bool{{"anna", "tier1-audit"}: false, {"ivan", "tier1-infrastructure"}: true, {"otto@tier1.example", ""}: true} {
		for _, kind := range strings.Fields(everything) {
			may(who, "list", kind)
			for _, verb := range []string{"create", "update", "patch", "delete"} {
				if restarts && verb == "delete" && kind == "/pods" {
					may(who, verb, kind)
				} else if personMay(t, who[0], who[1], verb, kind, tier1) {
					t.Errorf("%v may %s %s", who, verb, kind)
				}
			}
			if personMay(t, who[0], who[1], "list", kind, cellNamespace) || personMay(t, who[0], who[1], "list", kind, system) {
				t.Errorf("%v may list %s of others", who, kind)
			}
		}
		for _, kind := range []string{"/secrets", "/pods/exec", "/pods/portforward", "/pods/proxy", "/serviceaccounts/token", "/pods/ephemeralcontainers"} {
			for _, verb := range []string{"get", "list", "watch", "create", "patch"} {
				if personMay(t, who[0], who[1], verb, kind, tier1) {
					t.Errorf("%v may %s %s", who, verb, kind)
				}
			}
		}
	}
	if personMay(t, "eve", "another-group", "list", "/pods", tier1) {
		t.Error("somebody else sees the cell")
	}
}

// personMay asks the API server's authorizer about a person of a group.
func personMay(t *testing.T, user, group, verb, kind, namespace string) bool {
	t.Helper()
	p := append(strings.Split(kind, "/"), "")
	r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: []string{group, "system:authenticated"}, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: p[0], Resource: p[1], Subresource: p[2], Namespace: namespace,
		},
	}}
	if err := admin.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r.Status.Allowed
}

func neighboursNetwork(t *testing.T) {
	cluster := networkpolicy.Cluster{Namespaces: map[string]map[string]string{}}
	for _, namespace := range []string{cellNamespace, tier1} {
		var ns corev1.Namespace
		var list networkingv1.NetworkPolicyList
		if err := errors.Join(admin.Get(t.Context(), types.NamespacedName{Name: namespace}, &ns), admin.List(t.Context(), &list, client.InNamespace(namespace))); err != nil {
			t.Fatal(err)
		}
		cluster.Namespaces[namespace] = ns.Labels
		cluster.Policies = append(cluster.Policies, list.Items...)
	}
	pod := func(namespace, name, component string) networkpolicy.Pod {
		return networkpolicy.Pod{Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/component": component, "app.kubernetes.io/managed-by": "edc-operator"}}
	}
	to := pod(tier1, "connector", "control-plane")
	for _, from := range []networkpolicy.Pod{
		pod(cellNamespace, "kaphera-cell-agent", ""), pod(cellNamespace, "connector", "control-plane"), pod(cellNamespace, "connector", "data-plane"), pod(cellNamespace, "debug", ""),
		pod(tier1, "kaphera-cell-agent", ""),
	} {
		for _, port := range []int32{8081, 8082, 9999} {
			got, err := cluster.Admits(from, to, port)
			if err != nil {
				t.Fatal(err)
			}
			if want := from.Namespace == tier1 && port == 8081; got != want {
				t.Errorf("%v of %s to port %d of the dedicated cell's control plane: %v", from.Labels, from.Namespace, port, got)
			}
		}
	}
}

func neighboursSecrets(t *testing.T) {
	for _, account := range []string{"kaphera-cell-agent", "connector-control-plane", "connector-data-plane", "connector-wallet"} {
		c := clientAs(t, "system:serviceaccount:"+cellNamespace+":"+account)
		for _, name := range []string{"connector-internal", "cell-agent-nats", "connector-database-owner"} {
			if err := c.Get(t.Context(), types.NamespacedName{Namespace: tier1, Name: name}, &corev1.Secret{}); !apierrors.IsForbidden(err) {
				t.Errorf("%s reads %s: %v", account, name, err)
			}
		}
		if err := c.List(t.Context(), &edc.ConnectorList{}, client.InNamespace(tier1)); !apierrors.IsForbidden(err) {
			t.Errorf("%s lists connectors: %v", account, err)
		}
	}
}

// neighboursVault: the accounts of the shared cell, which vaultRoles made, neither log in with a role of the dedicated cell, nor reach its path
// with their own.
func neighboursVault(t *testing.T) {
	theirs, ours := snapshot.ConnectorResources("tier1"), snapshot.ConnectorResources("shared")
	account := snapshot.ConnectorName + "-" + snapshot.ControlPlane
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tier1, Name: account}})
	own, err := vaultLogin(t, tier1, account, theirs.Grants[snapshot.ControlPlane], openbao.Audience)
	if err != nil {
		t.Fatal(err)
	}
	secret := openbao.Mount + "/data/" + theirs.Prefix + "/parts/secrets/backend"
	if _, err := own.Logical().WriteWithContext(t.Context(), secret, map[string]any{"data": map[string]any{"value": "hush"}}); err != nil {
		t.Fatal(err)
	}
	for role, grant := range theirs.Grants {
		if _, err := vaultLogin(t, cellNamespace, snapshot.ConnectorName+"-"+role, grant, openbao.Audience); err == nil {
			t.Errorf("the neighbour's %s logs in as the dedicated cell's", role)
		}
	}
	for role, grant := range ours.Grants {
		if role == snapshot.Restore {
			continue // nobody's, while the cell runs
		}
		c, err := vaultLogin(t, cellNamespace, snapshot.ConnectorName+"-"+role, grant, openbao.Audience)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := c.Logical().ReadWithContext(t.Context(), secret); err == nil {
			t.Errorf("the neighbour's %s reads: %v", role, s != nil)
		}
		if _, err := c.Logical().WriteWithContext(t.Context(), secret, map[string]any{"data": map[string]any{"value": "forged"}}); err == nil {
			t.Errorf("the neighbour's %s writes", role)
		}
		list := openbao.Mount + "/metadata/" + theirs.Prefix
		if s, err := c.Logical().ListWithContext(t.Context(), list); err == nil && s != nil {
			t.Errorf("the neighbour's %s lists: %v", role, s.Data)
		}
	}
}
