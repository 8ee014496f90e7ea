// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/lestrrat-go/jwx/v3/jwk"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/edcoperator"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/workload"
	"github.com/kaphera/kaphera/test/openbao"
)

func admin(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(cluster, client.Options{Scheme: edcoperator.Scheme()})
	must(t, err)
	return c
}

// unique is a name that no other run of the same test has used.
func unique(name string) string { return name + "-" + strings.ToLower(rand.Text()[:8]) }

// only runs the checks of one part, on a runtime that has nothing but what they look at.
func only(t *testing.T, p *preflight, names ...string) map[string]finding {
	t.Helper()
	out := map[string]finding{}
	for _, k := range kinds {
		for _, name := range names {
			if k.name == name {
				out[name] = p.try(t.Context(), k)
			}
		}
	}
	return out
}

// Each rule of the operator's rights is taken away in turn, and named.
func TestEachRightThatLacksIsNamed(t *testing.T) {
	c := admin(t)
	const namespace = "default"
	name := unique("restricted")
	rights, err := config.OperatorRights(namespace)
	must(t, err)
	subject := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: namespace}}
	must(t, client.IgnoreAlreadyExists(c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: config.Namespace}})))
	var roles []client.Object
	for i, r := range rights {
		meta := metav1.ObjectMeta{Name: name + string(rune('a'+i)), Namespace: r.Namespace}
		if r.Namespace == "" {
			roles = append(roles, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: r.Rules})
			must(t, c.Create(t.Context(), roles[i]))
			must(t, c.Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name}}))
			continue
		}
		roles = append(roles, &rbacv1.Role{ObjectMeta: meta, Rules: r.Rules})
		must(t, c.Create(t.Context(), roles[i]))
		must(t, c.Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}}))
	}
	p := newPreflight(Options{Cluster: as("system:serviceaccount:" + namespace + ":" + name), Runtime: workload.Runtime{Namespace: namespace}})
	look := func(result Outcome, detail string) {
		t.Helper()
		eventually(t, func() string { // the API server's own cache of roles follows
			f := only(t, p, "kubernetes-version", "kubernetes-permissions")["kubernetes-permissions"]
			if f.result == result && strings.Contains(f.detail, detail) {
				return ""
			}
			return string(f.result) + ": " + f.detail + ", and not " + detail
		})
	}
	look(Passed, "all ")
	for i, r := range rights {
		for j, rule := range r.Rules {
			rest := append(append([]rbacv1.PolicyRule{}, r.Rules[:j]...), r.Rules[j+1:]...)
			replace(t, c, roles[i], rest)
			look(Failed, strings.Join(slices.Sorted(slices.Values(rule.Verbs)), ", ")+" "+rule.Resources[0])
			replace(t, c, roles[i], r.Rules)
		}
	}
	look(Passed, "all ")

	// In one namespace alone it needs nothing outside of it but to read where the API server is.
	plant := unique("cell-plant")
	rights, err = config.OperatorRights(plant)
	must(t, err)
	must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: plant}}))
	subject = []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: plant}}
	grant := func(name, namespace string, rules []rbacv1.PolicyRule) {
		t.Helper()
		meta := metav1.ObjectMeta{Name: plant + "-" + name, Namespace: namespace}
		must(t, c.Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}))
		must(t, c.Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}}))
	}
	p = newPreflight(Options{Cluster: as("system:serviceaccount:" + plant + ":" + name), Runtime: workload.Runtime{Namespace: plant}, Cell: "plant"})
	var outside []rbacv1.PolicyRule
	for i, r := range rights {
		if r.Namespace == metav1.NamespaceDefault {
			outside = r.Rules
			continue
		}
		grant(string(rune('a'+i)), plant, r.Rules)
	}
	look(Failed, "this account may not: get endpointslices.discovery.k8s.io kubernetes in namespace default")
	grant("outside", metav1.NamespaceDefault, outside)
	look(Passed, "all ")

	// Where an administrator gives them, whoever installs needs others, which only the cloud knows.
	p.Cluster, p.InstallerUnknown = as("system:serviceaccount:"+plant+":installer"), "nobody is logged in"
	look(Failed, "this account may not: ")
	p.Installer = []config.Rights{{Namespace: plant, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}}}
	look(Failed, "it may not: list pods in namespace "+plant)
	subject[0].Name = "installer"
	grant("installer", plant, p.Installer[0].Rules)
	look(Passed, "all rights to install cell plant")

	p.Cluster, p.Cell = as("system:serviceaccount:"+plant+":"+name), ""
	look(Warning, "in namespace "+plant+", and not in the whole cluster: this account may not: list, patch, watch connectors.edc.kaphera.io in the whole cluster")
}

func replace(t *testing.T, c client.Client, role client.Object, rules []rbacv1.PolicyRule) {
	t.Helper()
	switch r := role.(type) {
	case *rbacv1.ClusterRole:
		r.Rules = rules
	case *rbacv1.Role:
		r.Rules = rules
	}
	must(t, c.Update(t.Context(), role))
}

func TestIngressClass(t *testing.T) {
	c := admin(t)
	p := newPreflight(Options{Cluster: cluster})
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "traefik", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec: networkingv1.IngressClassSpec{Controller: "example.com/ingress"}}
	must(t, c.Create(t.Context(), class))
	look := func(want string) {
		t.Helper()
		if f := only(t, p, "kubernetes-version", "ingress-class")["ingress-class"]; !strings.Contains(string(f.result)+": "+f.detail, want) {
			t.Errorf("%+v, and not %s", f, want)
		}
	}
	look("passed: none is named, and traefik is the default")
	p.Runtime.Exposure.IngressClassName = "traefik"
	look("passed: there is an ingress class traefik")
	p.Runtime.Exposure.IngressClassName = "nginx"
	look("failed: there is no ingress class \"nginx\"; there are: traefik")
	p.Cluster = as("system:serviceaccount:default:nobody")
	look("skipped: this account may not list ingressclasses")
	must(t, c.Delete(t.Context(), class))
}

// The Kubernetes method, with a Vault that asks the API server about the tokens, and the JWT method; Secrets come from the cluster.
func TestServiceAccountMethods(t *testing.T) {
	c, bao := admin(t), openbao.Start(t)
	namespace := unique("kubernetes-method")
	must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	reviewer := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "reviewer"}}
	must(t, c.Create(t.Context(), reviewer))
	must(t, c.Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "reviewer"}}}))
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}
	must(t, c.SubResource("token").Create(t.Context(), reviewer, token))
	bao.Call(t, http.MethodPost, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	bao.Call(t, http.MethodPost, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": apiServer(cluster), "kubernetes_ca_cert": string(cluster.CAData), "token_reviewer_jwt": token.Status.Token,
	})
	issuer := workload.Runtime{
		Name: "trust", Namespace: namespace, Roles: []workload.Role{workload.Issuer}, Exposure: v1alpha1.Exposure{Hostname: "localhost"},
		Database: v1alpha1.Database{Host: "127.0.0.1", Port: int32(pg.Port), Name: "postgres", SSLMode: "disable", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault:    v1alpha1.Vault{Address: bao.Address, Mount: "secret", Prefix: prefix, Auth: v1alpha1.VaultAuth{Method: "Kubernetes", Audience: "vault"}},
	}
	bao.Call(t, http.MethodPut, "sys/policies/acl/trust", map[string]any{"policy": vault.Policy("secret", prefix, vault.UseKeys)})
	bao.Call(t, http.MethodPost, "auth/kubernetes/role/trust", map[string]any{"bound_service_account_names": "trust", "bound_service_account_namespaces": namespace, "audience": "vault", "token_policies": []string{"trust"}})
	r := Run(t.Context(), Options{Runtime: issuer, Cluster: cluster})
	if got := find(t, r, "vault-credentials"); got.Result != Skipped || !strings.Contains(got.Detail, "service account "+namespace+"/trust is not there yet") {
		t.Errorf("before the operator has made it: %+v", got)
	}
	if got := find(t, r, "postgresql-credentials"); got.Result != Failed || !strings.Contains(got.Remedy, "--from-literal=username=") {
		t.Errorf("no Secret: %+v", got)
	}
	must(t, c.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "trust"}}))
	must(t, c.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "owner"}, StringData: map[string]string{"username": "postgres", "password": "of no account"}}))
	r = Run(t.Context(), Options{Runtime: issuer, Cluster: cluster})
	for name, want := range map[string]Outcome{"vault-credentials": Passed, "vault-login": Passed, "vault-mount": Passed, "vault-access": Passed, "vault-isolation": Passed, "postgresql-login": Passed, "postgresql-rights": Failed} {
		if got := find(t, r, name); got.Result != want {
			t.Errorf("%+v", got)
		}
	}
	// The JWT method, with a Vault that knows the cluster by its keys only.
	bao.Call(t, http.MethodPost, "sys/auth/frankfurt", map[string]any{"type": "jwt"})
	bao.Call(t, http.MethodPost, "auth/frankfurt/config", map[string]any{"jwt_validation_pubkeys": clusterKeys(t)})
	for role, audience := range map[string]string{"trust": "vault", "elsewhere": "another"} {
		bao.Call(t, http.MethodPost, "auth/frankfurt/role/"+role, map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{audience},
			"bound_subject": "system:serviceaccount:" + namespace + ":trust", "token_policies": []string{"trust"}})
	}
	issuer.Vault.Auth.Method, issuer.Vault.Auth.MountPath = v1alpha1.VaultMethodJWT, "frankfurt"
	r = Run(t.Context(), Options{Runtime: issuer, Cluster: cluster})
	for _, name := range []string{"vault-auth", "vault-credentials", "vault-login", "vault-mount", "vault-access", "vault-isolation"} {
		if got := find(t, r, name); got.Result != Passed {
			t.Errorf("JWT: %+v", got)
		}
	}
	issuer.Vault.Auth.Roles.Issuer = "elsewhere"
	r = Run(t.Context(), Options{Runtime: issuer, Cluster: cluster})
	if got := find(t, r, "vault-login"); got.Result != Failed || !strings.Contains(got.Detail, `jwt method at auth/frankfurt as role "elsewhere"`) || !strings.Contains(got.Detail, "audience") {
		t.Errorf("JWT, a role for another audience: %+v", got)
	}
	issuer.Vault.Auth.Method, issuer.Vault.Auth.MountPath = v1alpha1.VaultMethodKubernetes, ""
	issuer.Vault.Auth.Roles.Issuer = "another"
	r = Run(t.Context(), Options{Runtime: issuer, Cluster: cluster})
	if got := find(t, r, "vault-login"); got.Result != Failed || !strings.Contains(got.Detail, `as role "another"`) {
		t.Errorf("a role that is not there: %+v", got)
	}
	r = Run(t.Context(), Options{Runtime: issuer, Cluster: as("system:serviceaccount:default:nobody")})
	for _, name := range []string{"vault-credentials", "postgresql-credentials"} {
		if got := find(t, r, name); got.Result != Skipped || !strings.Contains(got.Detail, "may not") {
			t.Errorf("an account that may read nothing: %+v", got)
		}
	}
}

// clusterKeys are the public keys, PEM, of the cluster's service account tokens.
func clusterKeys(t *testing.T) []string {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(cluster)
	must(t, err)
	raw, err := d.RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	must(t, err)
	set, err := jwk.Parse(raw)
	must(t, err)
	var out []string
	for i := range set.Len() {
		key, _ := set.Key(i)
		text, err := jwk.EncodePEM(key)
		must(t, err)
		out = append(out, string(text))
	}
	return out
}

func apiServer(c *rest.Config) string {
	if strings.HasPrefix(c.Host, "http") {
		return c.Host
	}
	return "https://" + c.Host
}

// Image pull secrets and the proxy's log-in are Secrets of the company's cluster.
func TestSecretsOfACompanysRegistryAndProxy(t *testing.T) {
	c := admin(t)
	namespace := unique("cell-plant")
	must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	p := newPreflight(Options{
		Cluster: cluster, Runtime: workload.Runtime{Namespace: namespace, PullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}},
		Cloud: "https://127.0.0.1:1", Proxy: "http://" + tunnels(t, "plant:"+password, func(string) bool { return true }), ProxySecret: "login",
	})
	look := func(check string, result Outcome, detail, remedy string) {
		t.Helper()
		f := only(t, p, "kubernetes-version", check)[check]
		if f.result != result || !strings.Contains(f.detail, detail) || !strings.Contains(f.remedy, remedy) || strings.Contains(f.detail+f.remedy, password) {
			t.Errorf("%s: %s: %s; %s", check, f.result, f.detail, f.remedy)
		}
	}
	secret := func(name string, kind corev1.SecretType, key, value string) {
		t.Helper()
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		must(t, client.IgnoreNotFound(c.Delete(t.Context(), s)))
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: kind, StringData: map[string]string{key: value}}
		must(t, c.Create(t.Context(), s))
	}
	look("image-pull-secrets", Failed, namespace+"/registry does not exist", "create secret docker-registry registry")
	secret("registry", corev1.SecretTypeOpaque, "token", "abc")
	look("image-pull-secrets", Failed, "type Opaque", "create secret docker-registry registry")
	secret("registry", corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, `{"auths":{}}`)
	look("image-pull-secrets", Passed, "registry", "")
	look("proxy", Failed, namespace+"/login does not exist", "--from-literal=credentials=…")
	secret("login", corev1.SecretTypeOpaque, "credentials", password)
	look("proxy", Failed, "no user:password", "user:password")
	secret("login", corev1.SecretTypeOpaque, "credentials", "plant:wrong")
	look("proxy", Failed, "407", "user and password")
	secret("login", corev1.SecretTypeOpaque, "credentials", "plant:"+password+"\n")
	look("proxy", Passed, "opens a tunnel", "")
	p.ProxyCA = "no PEM"
	look("proxy", Failed, "the proxy's authorities", "PEM")
}

// What needs a cluster is skipped without one, and says so.
func TestWithoutACluster(t *testing.T) {
	r := Run(t.Context(), Options{Runtime: workload.Runtime{
		Name: "acme", Namespace: "default", Roles: []workload.Role{workload.Issuer}, Exposure: v1alpha1.Exposure{Hostname: "localhost"},
		Database: v1alpha1.Database{Host: "127.0.0.1", Port: 1, Name: "acme", SSLMode: "disable", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault:    v1alpha1.Vault{Address: "http://127.0.0.1:1", Mount: "kv", Prefix: "acme", Auth: v1alpha1.VaultAuth{Method: "Kubernetes"}},
	}})
	for name, detail := range map[string]string{
		"kubernetes-version": "no cluster is given", "kubernetes-permissions": "needs kubernetes-version, which was skipped", "ingress-class": "needs kubernetes-version",
		"vault-credentials": "the cluster is not reached from here", "postgresql-credentials": "Secret default/owner is not in the manifest",
		"counterpart-did": "no counterpart is given", "proxy": "no proxy is given", "cloud": "no address of the cloud", "clock": "no other clock was seen",
	} {
		if got := find(t, r, name); got.Result != Skipped || !strings.Contains(got.Detail, detail) {
			t.Errorf("%+v, and not %q", got, detail)
		}
	}
}

// What Read makes of a manifest is what the API server makes of it: its defaults are those of the schema.
func TestReadFillsInWhatTheSchemaDoes(t *testing.T) {
	const manifest = `
apiVersion: edc.kaphera.io/v1alpha1
kind: Connector
metadata: {name: acme}
spec:
  exposure: {hostname: acme.example}
  database: {host: db.example, name: acme, ownerSecret: {name: owner}}
  vault: {address: "https://vault.example:8200", prefix: acme, auth: {method: Kubernetes}}
---
apiVersion: v1
kind: Secret
metadata: {name: owner}
data: {username: YWNtZQ==, password: b2xk}
stringData: {password: new}
---
apiVersion: v1
kind: Secret
metadata: {name: owner, namespace: elsewhere}
stringData: {password: another}
---
apiVersion: v1
kind: Service
metadata: {name: other}
`
	o, err := Read(strings.NewReader(manifest), "default")
	must(t, err)
	rt, secrets := o.Runtime, o.Secrets
	if diff := cmp.Diff(map[string]map[string]string{"owner": {"username": "acme", "password": "new"}}, secrets); diff != "" {
		t.Error(diff)
	}
	c := admin(t)
	made := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Name: "acme", Namespace: "default"}, Spec: v1alpha1.ConnectorSpec{
		Exposure: v1alpha1.Exposure{Hostname: "acme.example"}, Database: v1alpha1.Database{Host: "db.example", Name: "acme", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault: v1alpha1.Vault{Address: "https://vault.example:8200", Prefix: "acme", Auth: v1alpha1.VaultAuth{Method: "Kubernetes"}},
	}}
	must(t, c.Create(t.Context(), made, client.DryRunAll))
	rt.Replicas = made.Spec.Replicas // Run takes one where none is said
	if diff := cmp.Diff(workload.Connector(made, ""), rt, cmpopts.IgnoreFields(workload.Runtime{}, "Owner")); diff != "" {
		t.Error(diff)
	}
}

// A cell is read as `kaphera apply` and the Kubernetes API have it; what is checked is its connector.
func TestReadACell(t *testing.T) {
	const spec = `
spec:
  type: on-premise
  organization: rheintal-motoren
  hostname: oem.example
  operatingParty: Rheintal Motoren AG
  replicas: 2
  ingress: {className: nginx}
  database: {host: db.example, name: edc, ownerSecret: {name: owner}}
  vault: {address: "https://vault.example:8200", mount: industrial/kv, prefix: edc, auth: {method: Kubernetes, mountPath: frankfurt}}
`
	want := Options{Cell: "oem-frankfurt", PlatformTrust: true, Secrets: map[string]map[string]string{}, Runtime: workload.Runtime{
		Name: "connector", Namespace: "cell-oem-frankfurt", Roles: connectorRoles, Replicas: ptr.To[int32](2),
		Exposure: v1alpha1.Exposure{Hostname: "oem.example", IngressClassName: "nginx"}, Trust: v1alpha1.Trust{AllowPrivateNetworks: true},
		Database: v1alpha1.Database{Host: "db.example", Port: 5432, Name: "edc", SSLMode: "verify-full", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault:    v1alpha1.Vault{Address: "https://vault.example:8200", Mount: "industrial/kv", Prefix: "edc", Auth: v1alpha1.VaultAuth{Method: "Kubernetes", MountPath: "frankfurt", Audience: "vault"}},
	}}
	for _, head := range []string{"kind: cell\nname: oem-frankfurt", "apiVersion: cloud.kaphera.io/v1alpha1\nkind: Cell\nmetadata: {name: oem-frankfurt}"} {
		got, err := Read(strings.NewReader(head+spec), "default")
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Options{})); diff != "" {
			t.Error(diff)
		}
	}
	if own, err := Read(strings.NewReader("kind: cell\nname: oem-frankfurt"+spec+"  trust: {allowPrivateNetworks: true}\n"), "default"); err != nil || own.PlatformTrust || own.Runtime.Trust.CABundle != "" {
		t.Errorf("a cell with trust of its own: %+v, %v", own.Runtime.Trust, err)
	}
	if _, err := Read(strings.NewReader("kind: cell\nname: shared\nspec: {type: shared, hostname: shared.example}"), "default"); err == nil || !strings.Contains(err.Error(), "spec.database.host: missing") {
		t.Errorf("a cell that stands on the platform's parts: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	const head = "apiVersion: edc.kaphera.io/v1alpha1\nkind: Connector\nmetadata: {name: a}\nspec:\n  exposure: {hostname: a.example}\n  database: {host: db, name: a, ownerSecret: {name: owner}}\n"
	for manifest, want := range map[string]string{
		"":                     "holds 0 connectors",
		"{":                    "no YAML",
		head + "  vautl: {}\n": `unknown field "vautl"`,
		head:                   "spec.vault.address: missing",
		head + "  vault: {address: \"https://v\", prefix: a, auth: {method: UserPass}}\n":                                           "use Kubernetes, JWT, Token or AppRole",
		head + "  vault: {address: \"https://v\", prefix: a, auth: {method: Token}}\n":                                              "spec.vault.auth.tokenSecret: missing",
		head + "  vault: {address: \"https://v\", prefix: a, auth: {method: AppRole}}\n":                                            "spec.vault.auth.appRoleSecrets: missing",
		head + "  vault: {address: \"https://v\", prefix: a, auth: {method: AppRole, appRoleSecrets: {wallet: w, dataPlane: d}}}\n": "names no Secret for control-plane",
		"kind: Secret\napiVersion: v1\ndata: {password: s3cret!}\n":                                                                 "data is base64",
	} {
		_, err := Read(strings.NewReader(manifest), "default")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, and not %q", manifest, err, want)
		}
	}
}

// docs/preflight.md has a row for each check, in their order, and says which are required.
func TestDocsAndCodeNameTheSameChecks(t *testing.T) {
	raw, err := os.ReadFile("../../docs/preflight.md")
	must(t, err)
	var documented, code []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (yes|no) \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(string(raw), -1) {
		documented = append(documented, row[1]+" "+row[2])
	}
	for _, k := range kinds {
		code = append(code, k.name+" "+map[bool]string{true: "yes", false: "no"}[k.required])
	}
	if diff := cmp.Diff(code, documented); diff != "" {
		t.Error(diff)
	}
}

// A result that nobody can read by machine is none: the names of members are fixed.
func TestJSON(t *testing.T) {
	raw, err := json.Marshal(Report{Checks: []Check{{Name: "clock", Result: Failed, Required: true, Detail: "d", Remedy: "r"}}})
	must(t, err)
	if want := `{"checks":[{"name":"clock","result":"failed","required":true,"detail":"d","remedy":"r"}]}`; string(raw) != want {
		t.Errorf("%s", raw)
	}
}
