// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/openbao/openbao/api/v2"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const cellNamespace = "cell-shared"

// rights asks the API server what each account may do, in the platform's namespace, a cell's and others, and tries what RBAC alone cannot refuse.
func rights(t *testing.T) {
	const agent, cloudAPI = "system:serviceaccount:" + cellNamespace + ":kaphera-cell-agent", "system:serviceaccount:kaphera-system:kaphera-cloud"
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind", "escalate", "impersonate"}
	for _, c := range []struct {
		account, kind         string
		inSystem, inCell, any string
	}{
		{operatorAccount, "/secrets", "get create update patch delete deletecollection", "get list create update delete", ""},
		{operatorAccount, "/configmaps", "get list watch create patch", "create patch", ""},
		{operatorAccount, "/pods", "list", "", ""},
		{operatorAccount, "policy/poddisruptionbudgets", "create patch", "create patch", ""},
		{operatorAccount, "/resourcequotas", "", "create patch", ""},
		{operatorAccount, "/limitranges", "", "create patch", ""},
		{operatorAccount, "/pods/exec", "", "", ""},
		{operatorAccount, "/serviceaccounts", "", "create patch", ""},
		{operatorAccount, "/serviceaccounts/token", "", "", ""},
		{operatorAccount, "apps/deployments", "get list watch create patch", "create patch", ""},
		{operatorAccount, "apps/statefulsets", "get list watch create patch", "", ""},
		{operatorAccount, "apps/daemonsets", "", "", ""},
		{operatorAccount, "batch/jobs", "", "", ""},
		{operatorAccount, "edc.kaphera.io/connectors", "", "", ""},
		{operatorAccount, "rbac.authorization.k8s.io/roles", "", "create patch", ""},
		{operatorAccount, "rbac.authorization.k8s.io/clusterroles", "", "", ""},
		{operatorAccount, "rbac.authorization.k8s.io/clusterrolebindings", "", "", ""},
		{operatorAccount, "admissionregistration.k8s.io/validatingadmissionpolicies", "", "", ""},
		{operatorAccount, "admissionregistration.k8s.io/validatingadmissionpolicybindings", "", "", ""},
		// Guarded by admission, below.
		{operatorAccount, "/namespaces", "get create patch delete", "get create patch delete", "get create patch delete"},
		{operatorAccount, "rbac.authorization.k8s.io/rolebindings", "create patch", "create patch", "create patch"},
		{agent, "/secrets", "", "", ""},
		{agent, "/pods", "", "", ""},
		{agent, "coordination.k8s.io/leases", "", "create", ""}, // the others of its own only
		{agent, "apps/deployments", "", "", ""},
		{agent, "edc.kaphera.io/connectors", "", "list watch create patch delete", ""},
		{agent, "cloud.kaphera.io/cells", "", "", ""},
		{cloudAPI, "/secrets", "", "", ""},
		{cloudAPI, "/configmaps", "", "", ""},
		{cloudAPI, "cloud.kaphera.io/cells", "get list watch create update delete", "", ""},
		{cloudAPI, "cloud.kaphera.io/platforms", "get list watch", "", ""},
		{cloudAPI, "edc.kaphera.io/connectors", "", "", ""},
	} {
		for namespace, want := range map[string]string{system: c.inSystem, cellNamespace: c.inCell, "kube-system": c.any, "default": c.any, "": c.any} {
			var may []string
			for _, verb := range verbs {
				if allowed(t, c.account, verb, c.kind, namespace) {
					may = append(may, verb)
				}
			}
			if got := strings.Join(may, " "); got != want {
				t.Errorf("%s on %s in %q: may %q, want %q", c.account, c.kind, namespace, got, want)
			}
		}
	}
	t.Run("by real requests", realRequests)
	t.Run("namespaces and role bindings of cells only", admission)
}

// allowed asks the API server's authorizer. kind is group/resource or group/resource/subresource.
func allowed(t *testing.T, account, verb, kind, namespace string) bool {
	t.Helper()
	p := append(strings.Split(kind, "/"), "")
	r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: p[0], Resource: p[1], Subresource: p[2], Namespace: namespace,
		},
	}}
	if err := admin.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r.Status.Allowed
}

func clientAs(t *testing.T, account string) client.Client {
	t.Helper()
	c, err := client.New(as(account), client.Options{Scheme: admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func realRequests(t *testing.T) {
	operator, agent := clientAs(t, operatorAccount), clientAs(t, "system:serviceaccount:"+cellNamespace+":kaphera-cell-agent")
	cloudAPI := clientAs(t, "system:serviceaccount:kaphera-system:kaphera-cloud")
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "x"}})
	secret := func(namespace, name string) func(client.Client) error {
		return func(c client.Client) error {
			return c.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &corev1.Secret{})
		}
	}
	for _, c := range []struct {
		what string
		as   client.Client
		do   func(client.Client) error
		may  bool
	}{
		{"the operator reads a Secret of another namespace", operator, secret("kube-system", "x"), false},
		{"the operator reads a Secret of a cell", operator, secret(cellNamespace, "connector-database-owner"), true},
		{"the operator runs a Pod in kube-system", operator, func(c client.Client) error {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "p", Image: "p"}}}}
			return c.Create(t.Context(), p, client.DryRunAll)
		}, false},
		{"the operator reads EDC objects", operator, func(c client.Client) error {
			return c.List(t.Context(), &edc.ConnectorList{}, client.InNamespace(cellNamespace))
		}, false},
		{"the agent reads the connector's token", agent, secret(cellNamespace, "connector-internal"), true},
		{"the agent reads an issuer's token", agent, secret(cellNamespace, "authority-internal"), true},
		{"the operator gives the agent a right that it has not itself", operator, func(c client.Client) error {
			return c.Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: cellNamespace, Name: "tried"}, Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"pods/exec"}, Verbs: []string{"create"}}}}, client.DryRunAll)
		}, false},
		{"the agent reads another's Lease", agent, func(c client.Client) error {
			return c.Get(t.Context(), types.NamespacedName{Namespace: cellNamespace, Name: "edc-operator.kaphera.io"}, &coordinationv1.Lease{})
		}, false},
		{"the agent reads another Secret", agent, secret(cellNamespace, "connector-database-owner"), false},
		{"the agent reads the cloud's objects", agent, func(c client.Client) error {
			return c.List(t.Context(), &cloud.CellList{}, client.InNamespace(system))
		}, false},
		{"the Cloud API reads the cells' credentials", cloudAPI, secret(system, parts.SecretCellCreds), true},
		{"the Cloud API tells who has logged out", cloudAPI, func(c client.Client) error {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: parts.ConfigLogOuts}}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(m), m); err != nil {
				return err
			}
			return c.Patch(t.Context(), m, client.RawPatch(types.MergePatchType, []byte(`{"data":{"session":"2026-01-01T00:00:00Z"}}`)))
		}, true},
		{"the Cloud API reads passwords", cloudAPI, secret(system, parts.SecretPeople), false},
	} {
		if err := c.do(c.as); c.may && err != nil || !c.may && !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// admission tries, without keeping it, what the right to make namespaces and to bind would allow everywhere.
func admission(t *testing.T) {
	operator := clientAs(t, operatorAccount)
	namespace := func(name, cell, enforce string) *corev1.Namespace {
		labels := map[string]string{"pod-security.kubernetes.io/enforce": enforce}
		if cell != "" {
			labels["cloud.kaphera.io/cell"] = cell
		}
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	}
	binding := func(namespace, role, subjectNamespace, subject string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tried"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: subjectNamespace, Name: subject}},
		}
	}
	group := binding(cellNamespace, "kaphera-cell-setup", "", "")
	group.Subjects = []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts"}}
	people := func(role, kind, name string) *rbacv1.RoleBinding {
		b := binding(cellNamespace, role, "", "")
		b.Subjects = []rbacv1.Subject{{Kind: kind, APIGroup: rbacv1.GroupName, Name: name}}
		return b
	}
	nobody := people("kaphera-cell-viewer", rbacv1.GroupKind, "")
	nobody.Subjects = nil
	tokens := func(subjectNamespace, subject string) *rbacv1.RoleBinding {
		b := binding(cellNamespace, "kaphera-cell-agent-issuers", subjectNamespace, subject)
		b.RoleRef.Kind = "Role"
		return b
	}
	creating := func(o client.Object) func() error {
		return func() error {
			return operator.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll)
		}
	}
	label := func(name, patch string) func() error {
		return func() error {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			return operator.Patch(t.Context(), ns, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":`+patch+`}}`)), client.DryRunAll)
		}
	}
	remove := func(name string) func() error {
		return func() error {
			return operator.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.DryRunAll)
		}
	}
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "cell-foreign"}})
	for _, c := range []struct {
		what string
		do   func() error
		says string // empty: allowed
	}{
		{"a namespace of a cell", creating(namespace("cell-new", "new", "restricted")), ""},
		{"a namespace without the label", creating(namespace("cell-new", "", "restricted")), "carries the label"},
		{"a namespace of another name", creating(namespace("kube-extra", "new", "restricted")), "is called cell-NAME"},
		{"a namespace in which anything may run", creating(namespace("cell-new", "new", "privileged")), "enforces the Pod Security Standard"},
		{"taking over a namespace", label("cell-foreign", `{"cloud.kaphera.io/cell":"foreign","pod-security.kubernetes.io/enforce":"restricted"}`), "exists and is not a cell's"},
		{"taking over kube-system", label("kube-system", `{"cloud.kaphera.io/cell":"x"}`), "exists and is not a cell's"},
		{"opening its own namespace", label(system, `{"pod-security.kubernetes.io/enforce":"privileged"}`), "exists and is not a cell's"},
		{"opening a cell's namespace", label(cellNamespace, `{"pod-security.kubernetes.io/enforce":"privileged"}`), "enforces the Pod Security Standard"},
		{"disowning a cell's namespace", label(cellNamespace, `{"cloud.kaphera.io/cell":null}`), "carries the label"},
		{"another label of a cell's namespace", label(cellNamespace, `{"another":"label"}`), ""},
		{"deleting another namespace", remove("cell-foreign"), "exists and is not a cell's"},
		{"deleting a cell's namespace", remove(cellNamespace), ""},
		{"its own rights in a cell", creating(binding(cellNamespace, "kaphera-cell-setup", system, "cloud-operator")), ""},
		{"the EDC operator's rights in a cell", creating(binding(cellNamespace, "kaphera-edc-operator-namespace", system, "edc-operator")), ""},
		{"the agent's rights in a cell", creating(binding(cellNamespace, "kaphera-cell-agent", cellNamespace, "kaphera-cell-agent")), ""},
		{"the issuers' tokens for the agent", creating(tokens(cellNamespace, "kaphera-cell-agent")), ""},
		{"the issuers' tokens for another account", creating(tokens("default", "default")), "each its own role"},
		{"its own rights in kube-system", creating(binding("kube-system", "kaphera-cell-setup", system, "cloud-operator")), "is not a cell's"},
		{"its own rights in a namespace that is called like a cell's", creating(binding("cell-foreign", "kaphera-cell-setup", system, "cloud-operator")), "is not a cell's"},
		{"the EDC operator's rights in kube-system", creating(binding("kube-system", "kaphera-edc-operator-namespace", system, "edc-operator")), "is not a cell's"},
		{"the EDC operator's rights in its own namespace", creating(binding(system, "kaphera-edc-operator-namespace", system, "edc-operator")), "is not a cell's"},
		{"its own rights for somebody else", creating(binding(cellNamespace, "kaphera-cell-setup", "default", "default")), "each its own role"},
		{"the EDC operator's rights for itself", creating(binding(cellNamespace, "kaphera-edc-operator-namespace", system, "cloud-operator")), "each its own role"},
		{"the agent's rights for another cell's agent", creating(binding(cellNamespace, "kaphera-cell-agent", "cell-foreign", "kaphera-cell-agent")), "each its own role"},
		{"its own rights for every account", creating(group), "each its own role"},
		{"a tenant's group sees its cell", creating(people("kaphera-cell-viewer", rbacv1.GroupKind, "tier1-infrastructure")), ""},
		{"a tenant's user runs its cell", creating(people("kaphera-cell-operator", rbacv1.UserKind, "otto@tier1.example")), ""},
		{"nobody sees a cell", creating(nobody), ""},
		{"everybody sees a cell", creating(people("kaphera-cell-viewer", rbacv1.GroupKind, "system:authenticated")), "are for people"},
		{"an account sees a cell", creating(binding(cellNamespace, "kaphera-cell-viewer", "default", "default")), "are for people"},
		{"a tenant's group gets the operator's rights", creating(people("kaphera-cell-setup", rbacv1.GroupKind, "tier1-infrastructure")), "each its own role"},
		{"another role of the cluster", creating(binding(cellNamespace, "admin", system, "cloud-operator")), "each its own role"},
	} {
		// A policy counts from a moment after it was made.
		eventually(t, func(context.Context) error {
			switch err := c.do(); {
			case c.says == "" && err != nil:
				return fmt.Errorf("%s is refused: %w", c.what, err)
			case c.says != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.says)):
				return fmt.Errorf("%s is not refused with %q: %w", c.what, c.says, err)
			}
			return nil
		})
	}
}

// vaultLogin logs in to the Vault as a pod with a service account does, with its token for the audience; none is for the API server.
func vaultLogin(t *testing.T, namespace, account, role string, audience ...string) (*api.Client, error) {
	t.Helper()
	var ca corev1.ConfigMap
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &ca); err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := pki.ClientTLS([]byte(ca.Data["ca.crt"]), parts.Host(parts.OpenBao, system))
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.DefaultConfig()
	cfg.Address, cfg.HttpClient = "https://"+node.addresses()[parts.OpenBao], &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig}, Timeout: patience}
	token, err := serviceAccountToken(t.Context(), namespace, account, audience...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.ClearToken()
	s, err := c.Logical().WriteWithContext(t.Context(), "auth/"+openbao.AuthMount+"/login", map[string]any{"role": role, "jwt": token})
	if err != nil {
		return nil, err
	}
	c.SetToken(s.Auth.ClientToken)
	return c, nil
}

// vaultRoles logs in as the pods of the cell do.
func vaultRoles(t *testing.T) {
	resources := snapshot.ConnectorResources("shared")
	for _, role := range []string{snapshot.ControlPlane, snapshot.DataPlane, snapshot.Wallet, snapshot.Backup, snapshot.Restore} {
		account := snapshot.ConnectorName + "-" + role
		create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: cellNamespace, Name: account}})
		for name, audience := range map[string][]string{"for the API server": nil, "for something else": {"elsewhere"}} {
			if _, err := vaultLogin(t, cellNamespace, account, resources.Grants[role], audience...); err == nil {
				t.Errorf("%s logs in with a token %s", role, name)
			}
		}
		for other, name := range resources.Grants {
			if _, err := vaultLogin(t, cellNamespace, account, name, openbao.Audience); (err == nil) != (other == role && role != snapshot.Restore) {
				t.Errorf("%s logs in as %s: %v", role, other, err)
			}
		}
	}
	if _, err := vaultLogin(t, system, "cloud-operator", openbao.OperatorRole); err == nil {
		t.Error("the operator logs in with a token for the API server")
	}
	secret := openbao.Mount + "/data/" + resources.Prefix + "/supplier/secrets/backend"
	as := func(role string) *api.Logical {
		t.Helper()
		c, err := vaultLogin(t, cellNamespace, snapshot.ConnectorName+"-"+role, resources.Grants[role], openbao.Audience)
		if err != nil {
			t.Fatal(err)
		}
		return c.Logical()
	}
	if _, err := as(snapshot.ControlPlane).WriteWithContext(t.Context(), secret, map[string]any{"data": map[string]any{"value": "hush"}}); err != nil {
		t.Errorf("the control plane stores a secret: %v", err)
	}
	for role, may := range map[string]bool{snapshot.ControlPlane: false, snapshot.Wallet: false, snapshot.DataPlane: true, snapshot.Backup: true} {
		if s, err := as(role).ReadWithContext(t.Context(), secret); (err == nil && s != nil) != may {
			t.Errorf("%s reads the secret of a backend: %v", role, err)
		}
	}
	if _, err := as(snapshot.Backup).WriteWithContext(t.Context(), secret, map[string]any{"data": map[string]any{"value": "forged"}}); err == nil {
		t.Error("what writes archives writes a secret")
	}
	restores(t, resources, secret)
	operator, err := vaultLogin(t, system, "cloud-operator", openbao.OperatorRole, openbao.Audience)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := operator.Logical().ReadWithContext(t.Context(), secret); err == nil {
		t.Errorf("the operator reads the secret of a backend: %v", s != nil)
	}
}

// restores: what brings in archives may do so while the cell runs nothing, and nothing of it with the same log-in afterwards.
func restores(t *testing.T, resources snapshot.Resources, there string) {
	cell := &cloud.Cell{ObjectMeta: named("shared")}
	login := func() (*api.Client, error) {
		return vaultLogin(t, cellNamespace, snapshot.ConnectorName+"-"+snapshot.Restore, resources.Grants[snapshot.Restore], openbao.Audience)
	}
	fresh := func(name string) string {
		return openbao.Mount + "/data/" + resources.Prefix + "/restored/keys/" + name
	}
	content := map[string]any{"data": map[string]any{"value": "hush"}}
	change(t, cell, func() { cell.Spec.Replicas = ptr.To[int32](0) })
	var c *api.Client
	eventually(t, func(context.Context) (err error) { c, err = login(); return err })
	if _, err := c.Logical().WriteWithContext(t.Context(), fresh("one"), content); err != nil {
		t.Errorf("it restores a key: %v", err)
	}
	if _, err := c.Logical().WriteWithContext(t.Context(), there, content); err == nil {
		t.Error("it writes over a secret that is there")
	}
	change(t, cell, func() { cell.Spec.Replicas = ptr.To[int32](1) })
	eventually(t, func(context.Context) error {
		if _, err := login(); err == nil {
			return errors.New("the cell runs again, and it logs in")
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error { // the policy goes after the role
		if _, err := c.Logical().WriteWithContext(ctx, fresh("two"), content); err == nil {
			return errors.New("the cell runs again, and it restores another key")
		}
		return nil
	})
}

// databaseRoles connects as every role of the cell to every database of the platform, and to others.
func databaseRoles(t *testing.T, cell string, others ...string) {
	t.Helper()
	resources := snapshot.ConnectorResources(cell)
	for _, role := range []string{"", snapshot.ControlPlane, snapshot.DataPlane, snapshot.Wallet} {
		var s corev1.Secret
		if err := admin.Get(t.Context(), types.NamespacedName{Namespace: snapshot.Namespace(cell), Name: snapshot.DatabaseSecret(snapshot.ConnectorName, role)}, &s); err != nil {
			t.Fatal(err)
		}
		for _, database := range append([]string{resources.Database, "postgres", "template1", "template0", "keycloak"}, others...) {
			server := superuser(t)
			cfg, err := pgx.ParseConfig("postgres://" + string(s.Data[parts.KeyUsername]) + "@" + server.Address + "/" + database)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Password, cfg.TLSConfig, cfg.Fallbacks = string(s.Data[parts.KeyPassword]), server.TLS, nil
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if err == nil {
				err = c.Close(t.Context())
			}
			if (err == nil) != (database == resources.Database) {
				t.Errorf("role %q connects to %s: %v", s.Data[parts.KeyUsername], database, err)
			}
		}
	}
}
