// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/client/install"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/edcoperator/preflight"
	"github.com/kaphera/kaphera/test/apiserver"
	"github.com/kaphera/kaphera/test/openbao"
)

const cellManifest = `
apiVersion: edc.kaphera.io/v1alpha1
kind: CredentialIssuer
metadata: {name: trust}
spec:
  exposure: {hostname: localhost}
  credentialTypes: [{type: MembershipCredential}]
  database: {host: 127.0.0.1, port: %d, name: %[2]s, sslMode: disable, ownerSecret: {name: owner}}
  vault: {address: %[3]q, mount: %[4]s, prefix: trust, auth: {method: Token, tokenSecret: {name: vault}}}
---
{apiVersion: v1, kind: Secret, metadata: {name: owner}, stringData: {username: %[2]s, password: unused-here}}
---
{apiVersion: v1, kind: Secret, metadata: {name: vault}, stringData: {token: %[5]s}}
`

// Through the whole command, with a real Vault and a real PostgreSQL: what is in order, and a mount that is not there.
func TestCellCheck(t *testing.T) {
	bao := openbao.Start(t)
	pg, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	if err := pg.Create("trust"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // no cluster, also in a Pod
	b := setup(t)
	b.input = fmt.Sprintf(cellManifest, pg.Port, "trust", bao.Address, "secret", bao.RootToken)
	r := b.run("cell", "check", "-f", "-")
	for _, want := range []string{"CHECK", "kubernetes-version", "Skipped", "no cluster is given", "vault-access", "Passed", "next: bind the logins to policies"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the table does not say %q", want)
		}
	}
	if r.code != ExitOK || !strings.Contains(r.err, "postgresql-rights passed\n") {
		t.Errorf("in order: %d\n%s%s", r.code, r.out, r.err)
	}

	file := filepath.Join(t.TempDir(), "issuer.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, cellManifest, pg.Port, "trust", bao.Address, "industrial/kv", bao.RootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	r = b.run("cell", "check", "-f", file, "-o", "json")
	var got preflight.Report
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != ExitFailed {
		t.Fatalf("%d %v %s%s", r.code, err, r.out, r.err)
	}
	bad := got.Failed()
	if len(bad) != 1 || bad[0].Name != "vault-mount" || !strings.Contains(bad[0].Detail, "it sees: secret (kv version 2)") || bad[0].Remedy == "" {
		t.Errorf("a wrong mount: %+v", bad)
	}
	if !strings.Contains(r.err, "1 required check failed: vault-mount") || strings.Contains(r.err, "vault-mount failed") || strings.Contains(r.out+r.err, bao.RootToken) {
		t.Errorf("a wrong mount: %s", r.err)
	}
}

// What cannot be a key is refused before anything is asked of a cluster, and a private key is in no message.
func TestCellBackupKeys(t *testing.T) {
	b := setup(t)
	secret := "AGE-SECRET-KEY-1NOTAKEY"
	identity := b.file(secret)
	for _, args := range [][]string{
		{"backup", "foundry", "--to", "archives", "--recipient", "age1nokey"},
		{"backup", "foundry", "--to", "archives", "--recipient", secret},
		{"restore", "foundry", "--from", "archives", "--identity", identity},
		{"restore", "foundry", "--from", "archives", "--identity", identity + ".absent"},
		{"backup", "foundry", "--to", "archives"},
	} {
		if r := b.run(append([]string{"cell"}, args...)...); r.code != ExitUsage || strings.Contains(r.out+r.err, secret) {
			t.Errorf("%v: %d %s%s", args, r.code, r.out, r.err)
		}
	}
}

// Who may not give the operators their rights is asked for those of an installer, which the cloud knows.
func TestCellCheckOfAnInstaller(t *testing.T) {
	env, err := apiserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin, err := ctrl.New(env.Config, ctrl.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t)
	is := client.CellInstallation{Cell: "foundry", Namespace: "cell-foundry", Objects: []json.RawMessage{}}
	b.answer("GET /api/v1/cells/foundry/install", is)
	i := &install.Installation{CellInstallation: is}
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: i.Namespace}}); err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Name: "installer", Namespace: i.Namespace}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: i.Rights()[0].Rules}
	for _, o := range []ctrl.Object{role, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "ina"}}}} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(api.Config{CurrentContext: "c", Contexts: map[string]*api.Context{"c": {Cluster: "c", AuthInfo: "ina"}},
		Clusters:  map[string]*api.Cluster{"c": {Server: env.Config.Host, CertificateAuthorityData: env.Config.CAData}},
		AuthInfos: map[string]*api.AuthInfo{"ina": {Impersonate: "ina", ClientCertificateData: env.Config.CertData, ClientKeyData: env.Config.KeyData}},
	}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	manifest := b.file(`{kind: cell, name: foundry, spec: {hostname: localhost, database: {host: 127.0.0.1, port: 1, name: d, ownerSecret: {name: owner}},
		vault: {address: "https://127.0.0.1:1", prefix: p, auth: {method: Kubernetes}}}}`)
	check := func(name, want string) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; { // the authorizer hears of a change of rights a little later
			r := b.run("cell", "check", "-f", manifest, "--kubeconfig", kubeconfig, "-o", "json")
			var got preflight.Report
			if err := json.Unmarshal([]byte(r.out), &got); err != nil {
				t.Fatalf("%v: %s%s", err, r.out, r.err)
			}
			at := slices.IndexFunc(got.Checks, func(c preflight.Check) bool { return c.Name == name })
			if said := fmt.Sprintf("%s: %s; %s", got.Checks[at].Result, got.Checks[at].Detail, got.Checks[at].Remedy); strings.Contains(said, want) {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%s, and not %q", said, want)
			}
		}
	}
	check("kubernetes-permissions", "passed: all rights to install cell foundry")
	role.Rules = role.Rules[1:]
	if err := admin.Update(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	check("kubernetes-permissions", "it may not: list pods in namespace cell-foundry")
	is.Objects = append(is.Objects, json.RawMessage(
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"agent","namespace":"cell-foundry"},"spec":{"template":{"spec":{"containers":[{"name":"agent","args":["--nats-url=wss://127.0.0.1:9"]}]}}}}`))
	b.answer("GET /api/v1/cells/foundry/install", is)
	check("cloud", "127.0.0.1:9")                  // where agents connect to
	b.on("GET /api/v1/cells/foundry/install", nil) // the cell is not described yet
	check("kubernetes-permissions", "could not be found out: there is no GET /api/v1/cells/foundry/install")
}

func TestCellCheckUsage(t *testing.T) {
	b := setup(t)
	b.input = fmt.Sprintf(cellManifest, 1, "trust", "https://vault.example:8200", "kv", "a-token")
	missing := filepath.Join(t.TempDir(), "nowhere")
	for want, args := range map[string][]string{
		`required flag(s) "filename" not set`: {"cell", "check"},
		"nowhere":                             {"cell", "check", "-f", "-", "--kubeconfig", missing},
		"holds 2 connectors":                  {"cell", "check", "-f", "-", "-f", b.file(b.input)},
		`context "elsewhere" does not exist`:  {"cell", "check", "-f", b.file(b.input), "--kube-context", "elsewhere"},
	} {
		if r := b.run(args...); r.code != ExitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%v: %d %s, and not %q", args, r.code, r.err, want)
		}
	}
}

// file is a file with a text.
func (b *bundle) file(text string) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "file.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return name
}
