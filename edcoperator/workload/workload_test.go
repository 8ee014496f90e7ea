// SPDX-License-Identifier: Apache-2.0

package workload_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

func runtime() workload.Runtime {
	return workload.Runtime{
		Name: "shared", Namespace: "cell", App: "connector", Image: "connector:1", Owner: metav1.OwnerReference{UID: "1"},
		Roles:    []workload.Role{workload.ControlPlane, workload.Wallet, workload.DataPlane},
		Exposure: v1alpha1.Exposure{Hostname: "shared.example"},
		Database: v1alpha1.Database{Host: "db.example", Port: 5432, Name: "shared", SSLMode: "verify-full", CABundle: "db ca", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault:    v1alpha1.Vault{Address: "https://vault.example", Mount: "kv", Prefix: "p", Auth: v1alpha1.VaultAuth{Method: v1alpha1.VaultMethodKubernetes, Audience: "vault"}},
		Accounts: map[workload.Role]workload.Credentials{
			workload.Migrate: {User: "owner", Password: "o"}, workload.ControlPlane: {User: "cp", Password: "c"},
			workload.Wallet: {User: "owner", Password: "o"}, workload.DataPlane: {User: "owner", Password: "o"},
		},
		Tokens: map[workload.Role]string{workload.ControlPlane: "token", workload.Wallet: "w", workload.DataPlane: "d"}, ManagementKey: "key",
	}
}

func TestIdentifiers(t *testing.T) {
	t.Parallel()
	plain, odd := v1alpha1.Exposure{Hostname: "a.example", Port: 443}, v1alpha1.Exposure{Hostname: "a.example", Port: 8443}
	for got, want := range map[string]string{
		workload.DID(plain, "x"):               "did:web:a.example:x",
		workload.DID(odd, "x"):                 "did:web:a.example%3A8443:x",
		workload.DIDURL(odd, "x"):              "https://a.example:8443/x/did.json",
		workload.ProtocolURL(plain, "x"):       "https://a.example/x/dsp/2025-1",
		runtime().InternalURL(workload.Wallet): "http://shared-wallet.cell.svc:8081",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A Pod is replaced if and only if something that it reads at its start has changed.
func TestHashFollowsWhatARoleReads(t *testing.T) {
	t.Parallel()
	hash := func(r workload.Runtime, role workload.Role) string {
		return r.Deployment(role).Spec.Template.Annotations[workload.AnnotationHash]
	}
	for name, tc := range map[string]struct {
		change     func(*workload.Runtime)
		cp, wallet bool
	}{
		"the password of the control plane": {func(r *workload.Runtime) {
			r.Accounts[workload.ControlPlane] = workload.Credentials{User: "cp", Password: "new"}
		}, true, false},
		"an authority": {func(r *workload.Runtime) { r.Trust.CABundle = "ca" }, true, true},
		"the token of the Vault": {func(r *workload.Runtime) {
			r.VaultLogins = map[workload.Role]string{workload.ControlPlane: "new", workload.Wallet: "new"}
		}, true, true},
		"the wallet's secret id":         {func(r *workload.Runtime) { r.VaultLogins = map[workload.Role]string{workload.Wallet: "new"} }, false, true},
		"the token of the wallet":        {func(r *workload.Runtime) { r.Tokens[workload.Wallet] = "new" }, true, true},
		"the token of the data plane":    {func(r *workload.Runtime) { r.Tokens[workload.DataPlane] = "new" }, true, false},
		"the management API's key":       {func(r *workload.Runtime) { r.ManagementKey = "new" }, true, false},
		"the role in the Vault":          {func(r *workload.Runtime) { r.Vault.Auth.Roles.Wallet = "w" }, false, true},
		"the annotations of the Ingress": {func(r *workload.Runtime) { r.Exposure.Annotations = map[string]string{"a": "b"} }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := runtime(), runtime()
			tc.change(&after)
			if changed := hash(before, workload.ControlPlane) != hash(after, workload.ControlPlane); changed != tc.cp {
				t.Errorf("control plane replaced: %v", changed)
			}
			if changed := hash(before, workload.Wallet) != hash(after, workload.Wallet); changed != tc.wallet {
				t.Errorf("wallet replaced: %v", changed)
			}
		})
	}
}

func TestMigrationRunsAgainWhenItMatters(t *testing.T) {
	t.Parallel()
	name := func(change func(*workload.Runtime)) string {
		r := runtime()
		change(&r)
		return r.MigrateJob().Name
	}
	same := name(func(*workload.Runtime) {})
	if got := name(func(r *workload.Runtime) {
		r.Vault.Prefix, r.Vault.CABundle, r.Trust.CABundle = "other", "other", "other"
	}); got != same {
		t.Errorf("what no migration reads starts one: %s", got)
	}
	if len(same) > 63 {
		t.Errorf("name %s is too long", same)
	}
	for what, change := range map[string]func(*workload.Runtime){
		"image":    func(r *workload.Runtime) { r.Image = "connector:2" },
		"database": func(r *workload.Runtime) { r.Database.Name = "other" },
		"password": func(r *workload.Runtime) {
			r.Accounts[workload.Migrate] = workload.Credentials{User: "owner", Password: "new"}
		},
		"grants": func(r *workload.Runtime) {
			r.Accounts[workload.Wallet] = workload.Credentials{User: "wallet", Password: "w"}
		},
	} {
		if name(change) == same {
			t.Errorf("another %s does not migrate", what)
		}
	}
}

// Each role gets its own secrets and no other's.
func TestSecretsOfARole(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.Database.RoleSecrets.ControlPlane = "cp"
	files := func(spec corev1.PodSpec) map[string]string {
		out := map[string]string{}
		for _, s := range spec.Volumes[1].Projected.Sources {
			if s.Secret != nil {
				for _, item := range s.Secret.Items {
					out[item.Path] = s.Secret.Name + "/" + item.Key
				}
			} else {
				out[s.ServiceAccountToken.Path] = "audience " + s.ServiceAccountToken.Audience
			}
		}
		return out
	}
	for role, want := range map[workload.Role]map[string]string{
		workload.ControlPlane: {
			"database-password": "cp/password", "management-key": "shared-internal/management-key", "vault-token": "audience vault",
			"control-plane-token": "shared-internal/token", "wallet-token": "shared-wallet-internal/token", "data-plane-token": "shared-data-plane-internal/token",
		},
		workload.Wallet:    {"database-password": "owner/password", "wallet-token": "shared-wallet-internal/token", "vault-token": "audience vault"},
		workload.DataPlane: {"database-password": "owner/password", "data-plane-token": "shared-data-plane-internal/token", "vault-token": "audience vault"},
	} {
		if diff := cmp.Diff(want, files(r.Deployment(role).Spec.Template.Spec)); diff != "" {
			t.Errorf("%s: %s", role, diff)
		}
	}
	if diff := cmp.Diff(map[string]string{"database-password": "owner/password"}, files(r.MigrateJob().Spec.Template.Spec)); diff != "" {
		t.Errorf("migration: %s", diff)
	}
	for _, role := range []workload.Role{workload.Backup, workload.Restore} {
		pod := r.ArchivePod(role, time.Hour)
		if diff := cmp.Diff(map[string]string{"database-password": "owner/password", "vault-token": "audience vault"}, files(pod.Spec)); diff != "" || pod.Spec.ServiceAccountName != "shared-"+string(role) {
			t.Errorf("%s under account %s: %s", role, pod.Spec.ServiceAccountName, diff)
		}
	}
}

func TestTokensForTheManagementAPIConcernTheControlPlaneOnly(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.Management.OAuth2 = &v1alpha1.OAuth2{Issuer: "https://id.example", Audience: "connector", JWKSURL: "https://id.example/jwks"}
	for role, want := range map[workload.Role]config.OAuth2{workload.ControlPlane: {Issuer: "https://id.example", Audience: "connector", JWKSURL: "https://id.example/jwks"}, workload.DataPlane: {}} {
		got, err := config.Parse([]byte(r.ConfigMap().Data[string(role)+".yaml"]))
		if err != nil || got.Management.OAuth2 != want {
			t.Errorf("%s: %+v, %v", role, got.Management, err)
		}
	}
}

func TestConfigurationLeavesDefaultsToTheRuntime(t *testing.T) {
	t.Parallel()
	text := runtime().ConfigMap().Data["wallet.yaml"]
	got, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if got.Listen.Public != ":8080" || got.Database.MaxConns != 10 || got.Database.CAFile != "/etc/kaphera/database-ca.pem" || got.Management.APIKeyFile != "" {
		t.Errorf("%+v of\n%s", got, text)
	}
}

func TestEveryPodPullsWithTheSecretsOfTheSpec(t *testing.T) {
	t.Parallel()
	r := runtime()
	r.PullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	pods := map[string]corev1.PodSpec{"migration": r.MigrateJob().Spec.Template.Spec}
	for _, role := range r.Roles {
		pods[string(role)] = r.Deployment(role).Spec.Template.Spec
	}
	for name, pod := range pods {
		if !slices.Equal(pod.ImagePullSecrets, r.PullSecrets) {
			t.Errorf("%s pulls with %v", name, pod.ImagePullSecrets)
		}
	}
}
