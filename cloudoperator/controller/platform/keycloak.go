// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/keycloak"
)

// The realm's names.
const (
	Realm           = "kaphera"
	ClientConsole   = "kaphera-console"
	ClientCLI       = "kaphera-cli"
	ClientTerraform = "kaphera-terraform"
	Audience        = "kaphera-api"
)

// publicKeycloak are the paths that people and programs log in by. The realm master and the administration are reached inside the cluster only.
var publicKeycloak = []string{"/realms/" + Realm, "/resources"}

// keycloakDatabase is the ConfigMap of the authorities that Keycloak trusts for its database.
const (
	keycloakDatabase = "keycloak-database"
	databaseCA       = "ca.crt"
)

const (
	keycloakHTTP       = 8080
	keycloakManagement = 9000
)

// Hosts of a platform.
func consoleHost(p *cloud.Platform) string { return "console." + p.Spec.Domain }
func apiHost(p *cloud.Platform) string     { return "api." + p.Spec.Domain }
func idHost(p *cloud.Platform) string      { return "id." + p.Spec.Domain }

// IssuerURL of the realm.
func IssuerURL(p *cloud.Platform) string {
	if x := p.Spec.Keycloak.External; x != nil {
		return strings.TrimSuffix(x.URL, "/") + "/realms/" + url.PathEscape(x.Realm)
	}
	return "https://" + idHost(p) + "/realms/" + Realm
}

func keycloakWorkload(p *cloud.Platform, db parts.Endpoint, image string, optimized bool, digest string) workload {
	trust := "&sslrootcert=/etc/kaphera-ca/" + databaseCA
	if len(db.CA) == 0 { // the driver looks for a file unless it is told to trust what Java does
		trust = "&sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory"
	}
	env := []corev1.EnvVar{
		{Name: "KC_DB", Value: "postgres"},
		{Name: "KC_DB_URL", Value: "jdbc:postgresql://" + db.Address() + "/" + databaseKeycloak + "?sslmode=verify-full" + trust},
		{Name: "KC_DB_POOL_INITIAL_SIZE", Value: "2"}, {Name: "KC_DB_POOL_MAX_SIZE", Value: "20"},
		{Name: "KC_HOSTNAME", Value: "https://" + idHost(p)}, {Name: "KC_HOSTNAME_STRICT", Value: "true"},
		{Name: "KC_HTTP_ENABLED", Value: "true"}, {Name: "KC_HTTP_PORT", Value: "8080"}, {Name: "KC_PROXY_HEADERS", Value: "xforwarded"},
		{Name: "KC_HTTPS_PORT", Value: "8443"},
		{Name: "KC_HTTPS_CERTIFICATE_FILE", Value: "/etc/keycloak-tls/tls.crt"}, {Name: "KC_HTTPS_CERTIFICATE_KEY_FILE", Value: "/etc/keycloak-tls/tls.key"},
		{Name: "KC_HEALTH_ENABLED", Value: "true"}, {Name: "KC_METRICS_ENABLED", Value: "true"}, {Name: "KC_CACHE", Value: "local"},
		{Name: "KC_LOG_LEVEL", Value: "info"}, {Name: "KC_LOG_CONSOLE_OUTPUT", Value: "json"},
		{Name: "KC_BOOTSTRAP_ADMIN_CLIENT_ID", Value: parts.KeycloakClient},
		{Name: "JAVA_OPTS_KC_HEAP", Value: "-Xms96m -Xmx320m"},
		fromSecret("KC_DB_USERNAME", parts.DatabaseSecret(databaseKeycloak), parts.KeyUsername),
		fromSecret("KC_DB_PASSWORD", parts.DatabaseSecret(databaseKeycloak), parts.KeyPassword),
		fromSecret("KC_BOOTSTRAP_ADMIN_CLIENT_SECRET", parts.SecretKeycloak, parts.KeyClientSecret),
	}
	w := workload{
		name: parts.Keycloak, namespace: p.Namespace, image: image, pullSecrets: p.Spec.ImagePullSecrets, command: []string{"/opt/keycloak/bin/kc.sh"}, args: []string{"start", "--optimized"}, env: env,
		ports: map[string]int32{"http": keycloakHTTP, "https": parts.PortKeycloak},
		ready: httpProbe(corev1.URISchemeHTTPS, keycloakManagement, "/health/ready"),
		live:  httpProbe(corev1.URISchemeHTTPS, keycloakManagement, "/health/live"), startSeconds: 300, grace: 30,
		mounts: []corev1.VolumeMount{
			mount("tls", "/etc/keycloak-tls"), mount("ca", "/etc/kaphera-ca"), {Name: "data", MountPath: "/opt/keycloak/data"},
		},
		volumes: []corev1.Volume{
			secretVolume("tls", parts.TLSSecret(parts.Keycloak), corev1.TLSCertKey, corev1.TLSPrivateKeyKey), configVolume("ca", keycloakDatabase), emptyDir("data"),
		},
		requests: requests("200m", "512Mi"), memoryLimit: "896Mi", digest: digest,
	}
	if !optimized {
		// An image that was not built for these options builds itself at the start, in a copy that it may write to.
		w.args = []string{"start"}
		w.init = []corev1.Container{{
			Name: "copy", Image: image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"cp", "-a", "/opt/keycloak/.", "/copy"},
			VolumeMounts: []corev1.VolumeMount{{Name: "home", MountPath: "/copy"}},
		}}
		w.mounts = append(w.mounts[:2], corev1.VolumeMount{Name: "home", MountPath: "/opt/keycloak"})
		w.volumes = append(w.volumes[:2], emptyDir("home"))
		w.memoryLimit = "1536Mi"
	}
	return w
}

func fromSecret(env, secret, key string) corev1.EnvVar {
	return corev1.EnvVar{Name: env, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: key,
	}}}
}

// keycloakLogin is the account that owns Keycloak's database.
func (r *run) keycloakLogin(ctx context.Context) (map[string][]byte, error) {
	return r.access.Ensure(ctx, parts.DatabaseSecret(databaseKeycloak), map[string]kube.Make{
		parts.KeyUsername: kube.Text(databaseKeycloak), parts.KeyPassword: kube.Password,
	})
}

func (r *run) keycloak(ctx context.Context) error {
	if x := r.platform.Spec.Keycloak.External; x != nil {
		return r.externalKeycloak(ctx, x)
	}
	admin, err := r.access.Ensure(ctx, parts.SecretKeycloak, map[string]kube.Make{parts.KeyClientSecret: kube.Password})
	if err != nil {
		return err
	}
	database, err := r.keycloakLogin(ctx)
	if err != nil {
		return err
	}
	cert, err := r.certificate(ctx, parts.Keycloak)
	if err != nil {
		return err
	}
	db, err := r.access.Endpoint(ctx, r.platform, parts.PostgreSQL)
	if err != nil {
		return err
	}
	w := keycloakWorkload(r.platform, db, r.images.Keycloak, r.KeycloakOptimized, kube.Digest(cert.Cert, admin, database, db))
	trust := r.configMap(keycloakDatabase, map[string]string{databaseCA: string(db.CA)})
	if err := r.apply(ctx, trust, w.service(), r.ingress(parts.Keycloak, parts.Keycloak, idHost(r.platform), publicKeycloak...)); err != nil {
		return err
	}
	if !r.ok[cloud.ConditionPostgreSQLReady] && !r.exists(ctx, w.name) {
		return waiting("PostgreSQL, where it keeps its data")
	}
	if err := r.apply(ctx, w.deployment()); err != nil {
		return err
	}
	if err := r.running(ctx, w.name, false); err != nil {
		return err
	}
	return r.realm(ctx)
}

// RealmEvery is how often the realm is compared with what it should be, and approval keys with their people, when nothing of the Platform has changed.
const RealmEvery = 5 * time.Minute

func (r *run) realm(ctx context.Context) error {
	clients, err := r.oidcSecrets(ctx)
	if err != nil {
		return err
	}
	people, err := r.people(ctx)
	if err != nil {
		return err
	}
	want := realm(r.platform, clients)
	want.People = people.want
	digest := kube.Digest(want, people.gone)
	memo := r.realms.get(r.key())
	kc, err := r.access.OpenKeycloak(ctx, r.platform)
	if err != nil {
		return err
	}
	if memo.digest == digest && r.Now().Sub(memo.at) < RealmEvery {
		return nil
	}
	if err := kc.Ensure(ctx, want); err != nil {
		return fmt.Errorf("%s: %w", Realm, err)
	}
	for _, name := range people.gone {
		if err := kc.DeletePerson(ctx, Realm, name); err != nil {
			return fmt.Errorf("remove person %s: %w", name, err)
		}
	}
	if err := r.forget(ctx, people.gone); err != nil {
		return err
	}
	standing := func(ctx context.Context, person string) (keycloak.Standing, error) {
		return kc.Standing(ctx, Realm, person)
	}
	if err := refreshKeys(ctx, r.access.Reader, r.client, r.platform.Namespace, standing); err != nil {
		return fmt.Errorf("approval keys: %w", err)
	}
	if len(people.made) == 0 && len(people.gone) == 0 {
		r.realms.set(r.key(), memoEntry{digest: digest, at: r.Now()})
	}
	return nil
}

// refreshKeys gives approval keys the roles and the organization that their people have now.
func refreshKeys(ctx context.Context, reader client.Reader, writer client.Writer, namespace string, standing func(ctx context.Context, person string) (keycloak.Standing, error)) error {
	var keys cloud.ApprovalKeyList
	if err := reader.List(ctx, &keys, client.InNamespace(namespace)); err != nil {
		return err
	}
	known := map[string]keycloak.Standing{}
	for _, k := range keys.Items {
		now, ok := known[k.Spec.Subject]
		if !ok {
			var err error
			if now, err = standing(ctx, k.Spec.Subject); err != nil {
				return err
			}
			known[k.Spec.Subject] = now
		}
		before := k.DeepCopy()
		k.Spec.Organization, k.Spec.Roles = now.Organization, nil
		for _, role := range []string{RolePlatformOperator, RoleGovernanceAuthority, RoleOrganizationAdmin, RoleViewer} { // the order in which the Cloud API registers them
			if slices.Contains(now.Roles, role) {
				k.Spec.Roles = append(k.Spec.Roles, role)
			}
		}
		if k.Spec.Organization == before.Spec.Organization && slices.Equal(k.Spec.Roles, before.Spec.Roles) {
			continue
		}
		if err := writer.Patch(ctx, &k, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("%s of %s: %w", k.Name, k.Spec.Person, err)
		}
	}
	return nil
}

// oidcSecrets are the secrets of the confidential clients.
func (r *run) oidcSecrets(ctx context.Context) (map[string][]byte, error) {
	return r.access.Ensure(ctx, parts.SecretClients, map[string]kube.Make{ClientConsole: kube.Password, ClientTerraform: kube.Password})
}

type peopleState struct {
	want []keycloak.Person
	made []string // whose password was made in this run
	gone []string // in the Secret and no longer in the spec
}

// people makes the initial passwords. A password that was lost is made anew and set.
func (r *run) people(ctx context.Context) (peopleState, error) {
	var st peopleState
	wanted := map[string]kube.Make{}
	for _, p := range r.platform.Spec.People {
		wanted[p.Username] = func() ([]byte, error) {
			st.made = append(st.made, p.Username)
			return kube.Password()
		}
	}
	passwords, err := r.access.Ensure(ctx, parts.SecretPeople, wanted)
	if err != nil {
		return st, err
	}
	for _, p := range r.platform.Spec.People {
		rep := keycloak.Rep{
			"firstName": p.FirstName, "lastName": p.LastName, "emailVerified": true, "requiredActions": []any{},
			"attributes": keycloak.Rep{"organization": organizations(p)},
		}
		if p.Email != "" {
			rep["email"] = p.Email
		}
		made := false
		for _, m := range st.made {
			made = made || m == p.Username
		}
		st.want = append(st.want, keycloak.Person{Username: p.Username, Rep: rep, Roles: p.Roles, Password: string(passwords[p.Username]), Reset: made})
	}
	for _, name := range kube.SortedKeys(passwords) {
		if wanted[name] == nil {
			st.gone = append(st.gone, name)
		}
	}
	return st, nil
}

func organizations(p cloud.Person) []any {
	if p.Organization == "" {
		return []any{}
	}
	return []any{p.Organization}
}

// forget removes the passwords of people who were removed.
func (r *run) forget(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var s corev1.Secret
	key := r.key()
	key.Name = parts.SecretPeople
	if err := r.access.Reader.Get(ctx, key, &s); err != nil {
		return fmt.Errorf("read secret %s: %w", key, err)
	}
	for _, n := range names {
		delete(s.Data, n)
	}
	if err := r.client.Update(ctx, &s); err != nil {
		return fmt.Errorf("write secret %s: %w", key, err)
	}
	return nil
}
