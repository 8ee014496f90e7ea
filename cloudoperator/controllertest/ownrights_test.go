// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/config"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edcconfig "github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/rights/rightstest"
)

// In a company's cluster: each verb of each rule that the bundle gives the agent is taken away in turn. It says which it lacks, and is well when it has it back.
func TestEachRightOfTheAgentIsMissed(t *testing.T) {
	c := startCompany(t, "own-rights")
	ns := snapshot.Namespace(c.cell)
	rules, err := config.Rules(manifest.AgentRole)
	if err != nil {
		t.Fatal(err)
	}
	var bindings rbacv1.RoleBindingList
	var roles []*rbacv1.Role
	if err := c.admin.List(t.Context(), &bindings); err != nil {
		t.Fatal(err)
	}
	for _, b := range bindings.Items {
		if !slices.Contains(b.Subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: parts.Agent}) {
			continue
		}
		var role rbacv1.Role
		if err := c.admin.Get(t.Context(), client.ObjectKey{Namespace: b.Namespace, Name: b.RoleRef.Name}, &role); err != nil {
			t.Fatal(err)
		}
		roles = append(roles, &role)
	}
	account := accountOf(c.to, c.account(parts.Agent))
	rightstest.EachIsMissed(t, c.admin, account, []edcconfig.Rights{{Namespace: ns, Rules: rules}}, roles...)
	rightstest.NoSecretElsewhere(t, c.admin, account, ns)
	t.Run("an agent without rights is not ready until it has them", c.agentWithoutRights)
}

func (c *company) agentWithoutRights(t *testing.T) {
	ns, health := snapshot.Namespace(c.cell), freeAddress(t)
	messages, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(messages.Stop)
	seed, err := messages.Cell(t.Context(), c.cell)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := natsauth.Credentials(seed, "agent", celllink.AgentPermissions)
	if err != nil {
		t.Fatal(err)
	}
	file, authority := filepath.Join(t.TempDir(), "agent.creds"), filepath.Join(t.TempDir(), "ca.crt")
	if err := errors.Join(os.WriteFile(file, creds, 0o600), os.WriteFile(authority, messages.CA, 0o600)); err != nil {
		t.Fatal(err)
	}
	runAgent(t, accountOf(c.to, c.account("nobody")), c.cell, messages.WebSocketURL(), file, authority, health)
	answers := func(status int, text string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", http.NoBody)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != status || !strings.Contains(string(body), text) {
				return fmt.Errorf("%s %s, %w", resp.Status, body, err)
			}
			return nil
		})
	}
	answers(http.StatusServiceUnavailable, "the operator may not: create, delete, list, patch, watch connectors.edc.kaphera.io in namespace "+ns)
	bound := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "nobody"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: manifest.AgentRole},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "nobody"}}}
	if err := c.admin.Create(t.Context(), bound); err != nil {
		t.Fatal(err)
	}
	answers(http.StatusOK, "")
}
