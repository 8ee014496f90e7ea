// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/client"
)

// A cell for one organization is made and removed with the CLI. Its connector runs within its quota and takes part in the dataspace; its people
// see it; a neighbour does not reach it.
func TestADedicatedCellIsItsOrganizationsAlone(t *testing.T) {
	const cell, namespace, organization, group = "dedicated", "cell-dedicated", "zulieferer-eins", "zulieferer-eins-infrastructure"
	api := cloud(t)
	supplier, err := api.GetParticipantWithResponse(t.Context(), "supplier")
	if err != nil {
		t.Fatal(err)
	}
	own := supplier.JSON200.Spec
	own.Organization, own.Cell = organization, cell
	own.Identity = client.Identity{Context: organization, BusinessPartnerNumber: "BPNL00000000TST1"}
	mover := own
	mover.Cell, mover.Identity = "shared", client.Identity{Context: "umzug", BusinessPartnerNumber: "BPNL00000000TST3"}
	things := []map[string]any{
		{"kind": "organization", "name": organization, "spec": client.OrganizationSpec{DisplayName: "Zulieferer Eins", ContactEmail: "daten@zulieferer-eins.example"}},
		{"kind": "cell", "name": cell, "spec": client.CellSpec{
			Type: "dedicated", Organization: organization, Hostname: cell + "." + domain(), OperatingParty: "Kaphera Cloud",
			Quota: client.CellQuota{CPU: "1", Memory: "2Gi"}, Access: client.CellAccess{Operators: client.CellSubjects{Groups: []string{group}}},
		}},
		{"kind": "participant", "name": organization, "spec": own},
		{"kind": "participant", "name": "mover", "spec": mover},
	}
	args := []string{"apply"}
	for _, thing := range things {
		args = append(args, "-f", file(t, thing))
	}
	t.Cleanup(func() {
		for i := range things {
			thing := things[len(things)-1-i]
			remove(t, fmt.Sprint(thing["kind"]), fmt.Sprint(thing["name"]))
		}
	})
	must(t, "kaphera", args...)
	foreign := supplier.JSON200.Spec
	foreign.Cell, foreign.Identity = cell, client.Identity{Context: "foreign", BusinessPartnerNumber: "BPNL00000000TST2"}
	refused := file(t, map[string]any{"kind": "participant", "name": "foreign", "spec": foreign})
	for _, more := range [][]string{{"--dry-run"}, nil} {
		if _, all, code := command(t, "kaphera", append([]string{"apply", "-f", refused}, more...)...); code == 0 || !strings.Contains(all, `for participants of organization "`+organization+`" alone`) {
			t.Errorf("a participant of another organization (exit code %d):\n%s", code, all)
		}
	}
	eventually(t, "the cell is ready", func(ctx context.Context) (bool, string) {
		r, err := api.GetCellWithResponse(ctx, cell)
		if err != nil {
			return false, err.Error()
		}
		return ready(r.JSON200.Status.Conditions)
	})
	eventually(t, "its participant takes part", func(ctx context.Context) (bool, string) {
		r, err := api.GetParticipantWithResponse(ctx, organization)
		if err != nil {
			return false, err.Error()
		}
		return ready(r.JSON200.Status.Conditions)
	})
	tried := must(t, "kaphera", "cell", "counterpart", cell, "--profile", supplier.JSON200.Spec.Profile)
	if strings.Count(tried, "passed ") != 10 || !strings.Contains(tried, "in both directions") {
		t.Errorf("a try-out says:\n%s", tried)
	}
	if left := must(t, "kaphera", "get", "participants"); strings.Contains(left, "counterpart-") {
		t.Errorf("something of the try-out is left:\n%s", left)
	}

	t.Run("a participant moves to it and back", func(t *testing.T) { moves(t, "mover", cell) })

	cfg, admin := kube(t)
	quota, err := admin.CoreV1().ResourceQuotas(namespace).Get(t.Context(), "cell", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if used := quota.Status.Used[corev1.ResourcePods]; used.Value() < 4 {
		t.Errorf("the quota counts %s pods: agent, control plane, wallet and data plane run", used.String())
	}
	large := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
		RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}}}
	for i := range 4 {
		large.Spec.Containers = append(large.Spec.Containers, corev1.Container{
			Name: fmt.Sprint("c", i), Image: "none",
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			Resources:       corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}},
		})
	}
	if _, err := admin.CoreV1().Pods(namespace).Create(t.Context(), large, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota") {
		t.Errorf("what would be more than the quota: %v", err)
	}

	t.Run("its people", func(t *testing.T) {
		person := rest.CopyConfig(cfg)
		person.Impersonate = rest.ImpersonationConfig{UserName: "ivan", Groups: []string{group, "system:authenticated"}}
		cs, err := kubernetes.NewForConfig(person)
		if err != nil {
			t.Fatal(err)
		}
		wallet := func(ctx context.Context) (corev1.Pod, error) {
			pods, err := cs.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=wallet"})
			if err != nil {
				return corev1.Pod{}, err
			}
			stay := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
			if len(stay) != 1 {
				return corev1.Pod{}, fmt.Errorf("they see %d wallets that stay", len(stay))
			}
			return stay[0], nil
		}
		old, err := wallet(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cs.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("they list Secrets: %v", err)
		}
		if _, err := cs.CoreV1().Pods(cellNamespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("they see another cell: %v", err)
		}
		if err := cs.CoreV1().Pods(namespace).Delete(t.Context(), old.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("they restart the wallet: %v", err)
		}
		eventually(t, "another wallet is ready", func(ctx context.Context) (bool, string) {
			pod, err := wallet(ctx)
			if err != nil || pod.Name == old.Name {
				return false, fmt.Sprint(err)
			}
			for _, c := range pod.Status.Conditions {
				if c.Type == corev1.PodReady {
					return c.Status == corev1.ConditionTrue, c.Message
				}
			}
			return false, "it has no condition Ready"
		})
	})
	t.Run("a neighbour", func(t *testing.T) {
		probe := prober(t, cellNamespace, map[string]string{"app.kubernetes.io/component": "data-plane"})
		for name, s := range map[string]socket{
			"internal port of the control plane": {namespace, "app.kubernetes.io/component=control-plane", 8081},
			"internal port of the wallet":        {namespace, "app.kubernetes.io/component=wallet", 8081},
			"health of the agent":                {namespace, "app.kubernetes.io/name=kaphera-cell-agent", 8082},
		} {
			t.Run(name, func(t *testing.T) { probe(t, s.address(t), false) })
		}
		public := socket{namespace, "app.kubernetes.io/component=control-plane", 8080}
		probe(t, public.address(t), true) // otherwise the rest says nothing
	})
}

func ready(conditions []client.Condition) (bool, string) {
	for _, c := range conditions {
		if c.Type == "Ready" {
			return c.Status == "True", c.Message
		}
	}
	return false, "no condition Ready"
}

// file holds a thing for kaphera apply.
func file(t *testing.T, thing map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(thing)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "thing.json")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// remove deletes a thing and waits until it has gone, also after the test's own time.
func remove(t *testing.T, kind, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	objects := cloud(t).Objects(kind + "s")
	if resp, err := objects.Delete(ctx, name, client.Write{}); err == nil {
		_ = resp.Body.Close()
	} else if !client.IsNotFound(err) {
		t.Errorf("delete %s %s: %v", kind, name, err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		resp, err := objects.Get(ctx, name)
		if client.IsNotFound(err) {
			return
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			t.Errorf("%s %s is still there", kind, name)
			return
		case <-tick.C:
		}
	}
}
