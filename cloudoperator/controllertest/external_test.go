// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/controller/platform"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/openbao"
)

// outside is what a company runs itself: servers whose certificates, for localhost, its own authority has signed.
type outside struct {
	ca, cert pki.Pair
	postgres *pgtest.Server
	vault    *openbao.Server
	vaultURL string
	natsPort int
	dir      string
	stops    []func()
	move     func() // the message server to another port
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{dir: t.TempDir()}
	t.Cleanup(func() {
		for _, stop := range o.stops {
			stop()
		}
	})
	var err error
	if o.ca, err = pki.NewCA("the company's", time.Now()); err != nil {
		t.Fatal(err)
	}
	if o.cert, err = o.ca.Issue([]string{"localhost"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if o.postgres, err = pgtest.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.postgres.Stop)
	o.sql(t, "CREATE ROLE kaphera LOGIN CREATEDB CREATEROLE PASSWORD 'of the account'")
	if err := o.postgres.Secure(o.cert.Cert, o.cert.Key); err != nil {
		t.Fatal(err)
	}
	o.vault = openbao.Start(t)
	o.vaultURL = "https://" + o.secure(t, strings.TrimPrefix(o.vault.Address, "http://"))
	o.vault.Call(t, http.MethodPost, "sys/mounts/industrial/kv", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	o.vault.Call(t, http.MethodPost, "sys/auth/frankfurt", map[string]any{"type": "jwt"})
	o.vault.Call(t, http.MethodPost, "auth/frankfurt/config", map[string]any{"jwt_validation_pubkeys": clusterKeys(t)})
	o.vault.Call(t, http.MethodPost, "auth/frankfurt/role/kaphera", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": operatorAccount, "token_policies": []string{"kaphera"}})
	return o
}

// secure is a server on localhost that speaks TLS for one that does not.
func (o *outside) secure(t *testing.T, target string) (address string) {
	t.Helper()
	pair, err := tls.X509KeyPair(o.cert.Cert, o.cert.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				to, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", target)
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(to, conn); _ = to.Close() }()
				_, _ = io.Copy(conn, to)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "localhost:" + port
}

// nats runs a message server, until stop is called or the test ends, whose operator has given a signing key to the platform.
func (o *outside) nats(t *testing.T, op natsauth.Operator, signer nkeys.KeyPair, more string) (stop func()) {
	t.Helper()
	auth, err := op.Server()
	if err != nil {
		t.Fatal(err)
	}
	claims, err := jwt.DecodeOperatorClaims(auth.OperatorJWT)
	if err != nil {
		t.Fatal(err)
	}
	public, err1 := signer.PublicKey()
	root, err2 := nkeys.FromSeed(op.Seed)
	claims.SigningKeys.Add(public)
	token, err3 := claims.Encode(root)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if o.natsPort == 0 {
		if o.natsPort, err = freeport.Pick(); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(o.dir, name) }
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\ntls { cert_file: %q, key_file: %q }\noperator: %q\nsystem_account: %q\nresolver { type: full, dir: %q, allow_delete: true }\nresolver_preload: { %s: %q }\n%s\n",
		o.natsPort, file("tls.crt"), file("tls.key"), token, auth.SystemAccount, file("accounts"), auth.SystemAccount, auth.SystemJWT, more)
	err = errors.Join(os.WriteFile(file("tls.crt"), o.cert.Cert, 0o600), os.WriteFile(file("tls.key"), o.cert.Key, 0o600), os.WriteFile(file("nats.conf"), []byte(text), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s, err := natstest.Run(file("nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	stop = func() { s.Shutdown(); s.WaitForShutdown() }
	o.stops = append(o.stops, stop)
	return stop
}

// cell is a cell on the company's servers: its agent and its connector are told where they are, and nothing is left there when it goes.
func (o *outside) cell(t *testing.T, p *cloud.Platform) {
	cell := &cloud.Cell{ObjectMeta: named("outside"), Spec: cloud.CellSpec{Type: "shared", Hostname: "outside.external.example", OperatingParty: "Kaphera"}}
	create(t, cell)
	agentUp(t, "outside")
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionApplied, metav1.ConditionTrue, "")
	})
	c := &edc.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-outside", Name: snapshot.ConnectorName}}
	eventually(t, func(ctx context.Context) error { return admin.Get(ctx, client.ObjectKeyFromObject(c), c) })
	db, v := c.Spec.Database, c.Spec.Vault
	if db.Host != "localhost" || int(db.Port) != o.postgres.Port || db.SSLMode != "verify-full" || db.CABundle != string(o.ca.Cert) {
		t.Errorf("the connector's database: %+v", db)
	}
	if v.Address != o.vaultURL || v.Mount != "industrial/kv" || v.CABundle != string(o.ca.Cert) || v.Auth.Method != edc.VaultMethodJWT || v.Auth.MountPath != "frankfurt" {
		t.Errorf("the connector's Vault: %+v", v)
	}
	const left = "SELECT datname::text FROM pg_database WHERE datname LIKE 'cell_outside%' UNION SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'cell_outside%'"
	if got := o.sql(t, left); len(got) != 5 {
		t.Errorf("database and roles: %v", got)
	}
	policies := func() string {
		return fmt.Sprint(o.vault.Call(t, http.MethodGet, "sys/policies/acl?list=true", nil)["data"])
	}
	if got := policies(); !strings.Contains(got, "cell-outside-connector-wallet") {
		t.Errorf("policies: %s", got)
	}
	before := cell.Status.Revision
	o.move()
	change(t, p, func() { p.Spec.NATS.External.URL = fmt.Sprintf("tls://localhost:%d", o.natsPort) })
	change(t, cell, func() { cell.Spec.Replicas = ptr.To[int32](2) })
	eventually(t, func(ctx context.Context) error { // through a connection to where the server is now
		if err := admin.Get(ctx, client.ObjectKeyFromObject(cell), cell); err != nil || cell.Status.Revision > before {
			return err
		}
		return fmt.Errorf("revision %d is the newest: %s", before, message(cell, cloud.ConditionReady))
	})
	crowded := &cloud.Cell{ObjectMeta: named("crowded"), Spec: cloud.CellSpec{Type: "shared", Hostname: "crowded.external.example", OperatingParty: "Kaphera"}}
	create(t, crowded)
	eventually(t, func(ctx context.Context) error {
		if err := condition(ctx, crowded, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonRights); err != nil {
			return err
		}
		if m := message(crowded, cloud.ConditionReady); !strings.Contains(m, "no JetStream for cell crowded, or no room in it") || !strings.Contains(m, "67108864 bytes on disk for each cell") {
			return errors.New(m)
		}
		return nil
	})
	if err := admin.Delete(t.Context(), crowded); err != nil {
		t.Fatal(err)
	}
	finishCell(t, "crowded")
	if err := admin.Delete(t.Context(), cell); err != nil {
		t.Fatal(err)
	}
	finishCell(t, "outside")
	if got := o.sql(t, left); len(got) != 0 {
		t.Errorf("left in PostgreSQL: %v", got)
	}
	if got := policies(); strings.Contains(got, "cell-outside") {
		t.Errorf("left in the Vault: %s", got)
	}
}

// kubernetes lets the operator in to the company's Vault, which asks the cluster whose token it is.
func (o *outside) kubernetes(t *testing.T) {
	t.Helper()
	reviewer, err := serviceAccountToken(t.Context(), system, parts.OpenBao)
	if err != nil {
		t.Fatal(err)
	}
	o.vault.Call(t, http.MethodPost, "sys/auth/cluster", map[string]any{"type": "kubernetes"})
	o.vault.Call(t, http.MethodPost, "auth/cluster/config", map[string]any{
		"kubernetes_host": adminTo.Host, "kubernetes_ca_cert": string(adminTo.CAData), "token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true,
	})
	o.vault.Call(t, http.MethodPut, "sys/policies/acl/kaphera", map[string]any{"policy": `path "sys/mounts" { capabilities = ["read"] }`})
	o.vault.Call(t, http.MethodPost, "auth/cluster/role/kaphera", map[string]any{
		"bound_service_account_names": []string{"cloud-operator"}, "bound_service_account_namespaces": []string{system}, "audience": "vault", "token_policies": []string{"kaphera"},
	})
}

// clusterKeys are the public keys, PEM, of the cluster's service account tokens.
func clusterKeys(t *testing.T) []string {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(adminTo)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := d.RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwk.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range set.Len() {
		key, _ := set.Key(i)
		text, err := jwk.EncodePEM(key)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(text))
	}
	return out
}

// sql runs a statement as the company's administrator and returns the first column.
func (o *outside) sql(t *testing.T, statement string) []string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), o.postgres.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	rows, err := c.Query(t.Context(), statement)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// given makes the Secret with which the operator logs in.
func given(t *testing.T, name string, data map[string]string) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: named(name), StringData: data}
	create(t, s)
	t.Cleanup(func() { _ = admin.Delete(context.WithoutCancel(t.Context()), s) })
	return s
}

// fault waits until a part's condition has the reason and its message the words.
func fault(t *testing.T, p *cloud.Platform, condition, reason string, words ...string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		c := apimeta.FindStatusCondition(p.Status.Conditions, condition)
		if c == nil || c.Reason != reason || c.ObservedGeneration != p.Generation {
			return fmt.Errorf("%s is %+v, and not %s", condition, c, reason)
		}
		for _, w := range words {
			if !strings.Contains(c.Message, w) {
				return fmt.Errorf("%s says %q, and not %q", condition, c.Message, w)
			}
		}
		return nil
	})
}

// stays checks that a part which is external does not become managed.
func stays(t *testing.T, p *cloud.Platform, part string, manage func(*cloud.PlatformSpec)) {
	t.Helper()
	other := p.DeepCopy()
	manage(&other.Spec)
	if err := admin.Update(t.Context(), other, client.DryRunAll); err == nil || !strings.Contains(err.Error(), part+" cannot change between managed and external") {
		t.Errorf("%s becomes managed: %v", part, err)
	}
}

// notMade checks that nothing runs here of a part that somebody else runs.
func notMade(t *testing.T, part string) {
	t.Helper()
	for _, o := range []client.Object{
		&appsv1.StatefulSet{ObjectMeta: named(part)}, &appsv1.Deployment{ObjectMeta: named(part)}, &corev1.Service{ObjectMeta: named(part)}, &networkingv1.NetworkPolicy{ObjectMeta: named(part)},
		&corev1.Secret{ObjectMeta: named(parts.TLSSecret(part))}, &corev1.PersistentVolumeClaim{ObjectMeta: named("data-" + part + "-0")},
	} {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			t.Errorf("%T %s: %v", o, o.GetName(), err)
		}
	}
}

// collectGarbage deletes what Platforms owned that were deleted before: there is no garbage collector here.
func collectGarbage(t *testing.T) {
	t.Helper()
	for _, o := range []client.Object{&appsv1.StatefulSet{}, &appsv1.Deployment{}, &networkingv1.NetworkPolicy{}, &networkingv1.Ingress{}, &corev1.Service{}, &corev1.ConfigMap{}} {
		if err := admin.DeleteAllOf(t.Context(), o, client.InNamespace(system), client.MatchingLabels{kube.PartOfLabel: kube.PartOf, kube.ManagedBy: kube.FieldOwner}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExternalParts has a platform whose parts a company runs.
func TestExternalParts(t *testing.T) {
	collectGarbage(t)
	o := newOutside(t)
	other, err := pki.NewCA("another", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	closed, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	whole := t // what a part is given is there for the parts after it
	p := &cloud.Platform{ObjectMeta: named("external"), Spec: cloud.PlatformSpec{Domain: "external.example", DataPolicy: "Delete"}}
	p.Spec.PostgreSQL.External = &cloud.ExternalPostgreSQL{Host: "localhost", Port: int32(closed), CABundle: cloud.CABundle(other.Cert), CredentialsSecret: cloud.SecretName{Name: "our-postgresql"}}
	p.Spec.Vault.External = &cloud.ExternalVault{
		Address: fmt.Sprintf("https://localhost:%d", closed), Mount: "kv", CABundle: cloud.CABundle(other.Cert), Connectors: cloud.ConnectorsVaultAuth{Method: "JWT", MountPath: "frankfurt"},
		Auth: cloud.ExternalVaultAuth{Method: "Token", CredentialsSecret: &cloud.SecretName{Name: "our-vault"}},
	}
	p.Spec.Keycloak.External = &cloud.ExternalKeycloak{URL: fmt.Sprintf("https://localhost:%d", closed), Realm: "indystry", CABundle: cloud.CABundle(other.Cert), CredentialsSecret: cloud.SecretName{Name: "our-keycloak"}}
	p.Spec.People = []cloud.Person{{Username: "olga", Roles: []string{"organization-admin", "viewer"}, Organization: "oem"}, {Username: "paul", Roles: []string{"viewer"}}}
	p.Spec.NATS.External = &cloud.ExternalNATS{URL: fmt.Sprintf("tls://localhost:%d", closed), CABundle: cloud.CABundle(other.Cert), CredentialsSecret: cloud.SecretName{Name: "our-nats"}}
	create(t, p)

	t.Run("PostgreSQL", func(t *testing.T) {
		const ready = cloud.ConditionPostgreSQLReady
		fault(t, p, ready, cloud.ReasonMissing, "Secret our-postgresql, which has no key username", "kubectl -n "+system+" create secret generic our-postgresql")
		s := given(whole, "our-postgresql", map[string]string{"username": "kaphera", "password": "wrong"})
		fault(t, p, ready, cloud.ReasonUnreachable, fmt.Sprintf("localhost:%d", closed), "nobody listens there", "check the port")
		change(t, p, func() { p.Spec.PostgreSQL.External.Port = int32(o.postgres.Port) })
		fault(t, p, ready, cloud.ReasonUntrusted, "signed by an authority that $.spec.postgresql.external.caBundle does not hold", "put the certificate of the authority")
		change(t, p, func() { p.Spec.PostgreSQL.External.CABundle = cloud.CABundle(o.ca.Cert) })
		fault(t, p, ready, cloud.ReasonLogin, "password authentication failed", "correct Secret our-postgresql")
		o.sql(t, "ALTER ROLE kaphera NOCREATEDB")
		change(t, s, func() { s.Data["password"] = []byte("of the account") })
		fault(t, p, ready, cloud.ReasonRights, "account kaphera may not make databases", `ALTER ROLE "kaphera" CREATEDB`)
		o.sql(t, "ALTER ROLE kaphera CREATEDB")
		fault(t, p, ready, cloud.ReasonReady, "external: localhost answers")
		if got := o.sql(t, "SELECT datname::text FROM pg_database WHERE datname = 'keycloak'"); len(got) > 0 {
			t.Errorf("with an external Keycloak, databases are made: %v", got)
		}
		notMade(t, parts.PostgreSQL)
		stays(t, p, "postgresql", func(s *cloud.PlatformSpec) { s.PostgreSQL.External = nil })
	})

	t.Run("Vault", func(t *testing.T) {
		const ready = cloud.ConditionVaultReady
		fault(t, p, ready, cloud.ReasonUnreachable, fmt.Sprintf("localhost:%d", closed), "nobody listens there")
		change(t, p, func() { p.Spec.Vault.External.Address = o.vaultURL })
		fault(t, p, ready, cloud.ReasonUntrusted, "signed by an authority that $.spec.vault.external.caBundle does not hold")
		change(t, p, func() { p.Spec.Vault.External.CABundle = cloud.CABundle(o.ca.Cert) })
		fault(t, p, ready, cloud.ReasonMissing, "Secret our-vault, which has no key token")
		s := given(whole, "our-vault", map[string]string{"token": "of nobody"})
		fault(t, p, ready, cloud.ReasonLogin, "by a token")
		o.vault.Call(t, http.MethodPut, "sys/policies/acl/kaphera", map[string]any{"policy": `path "sys/mounts" { capabilities = ["read"] }`})
		made := o.vault.Call(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"kaphera"}})
		change(t, s, func() { s.Data["token"] = []byte(made["auth"].(map[string]any)["client_token"].(string)) })
		fault(t, p, ready, cloud.ReasonRights, `no KV engine of version 2 at "kv"`, "industrial/kv/")
		change(t, p, func() { p.Spec.Vault.External.Mount = "industrial/kv" })
		fault(t, p, ready, cloud.ReasonRights, `path "auth/frankfurt/role/cell-*"`)
		o.vault.Call(t, http.MethodPut, "sys/policies/acl/kaphera", map[string]any{"policy": parts.VaultPlace(p, parts.Endpoint{}).OperatorPolicy()})
		fault(t, p, ready, cloud.ReasonReady, "external: localhost answers")
		change(t, p, func() {
			p.Spec.Vault.External.Auth = cloud.ExternalVaultAuth{Method: "JWT", MountPath: "frankfurt", Role: "kaphera"}
		})
		fault(t, p, ready, cloud.ReasonReady, "external: localhost answers")
		notMade(t, parts.OpenBao)
		stays(t, p, "vault", func(s *cloud.PlatformSpec) { s.Vault.External = nil })
	})

	t.Run("NATS", func(t *testing.T) {
		const ready = cloud.ConditionNATSReady
		op, err := natsauth.NewOperator()
		if err != nil {
			t.Fatal(err)
		}
		strange, err := natsauth.NewOperator()
		if err != nil {
			t.Fatal(err)
		}
		system := func(op natsauth.Operator) string {
			creds, err := natsauth.Credentials(op.SystemSeed, "the platform", natsauth.Permissions{Publish: []string{"$SYS.REQ.CLAIMS.>", "$SYS.REQ.SERVER.PING.JSZ"}, Subscribe: []string{"_INBOX.>"}})
			if err != nil {
				t.Fatal(err)
			}
			return string(creds)
		}
		signer, err := nkeys.CreateOperator()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := signer.Seed()
		if err != nil {
			t.Fatal(err)
		}
		stop := o.nats(t, op, signer, "")
		again := func(more string) {
			stop()
			stop = o.nats(t, op, signer, more)
		}
		fault(t, p, ready, cloud.ReasonMissing, "Secret our-nats, which has no key system.creds")
		s := given(whole, "our-nats", map[string]string{"operator.seed": string(strange.Seed), "system.creds": system(strange)})
		fault(t, p, ready, cloud.ReasonUnreachable, fmt.Sprintf("localhost:%d", closed), "nobody listens there")
		change(t, p, func() { p.Spec.NATS.External.URL = fmt.Sprintf("tls://localhost:%d", o.natsPort) })
		fault(t, p, ready, cloud.ReasonUntrusted, "signed by an authority that $.spec.nats.external.caBundle does not hold")
		change(t, p, func() { p.Spec.NATS.External.CABundle = cloud.CABundle(o.ca.Cert) })
		fault(t, p, ready, cloud.ReasonLogin, "correct system.creds in Secret our-nats")
		change(t, s, func() { s.Data["system.creds"] = []byte(system(op)) })
		fault(t, p, ready, cloud.ReasonRights, "does not take what the operator signs", "put the seed of this server's operator")
		change(t, s, func() { s.Data["operator.seed"] = seed })
		fault(t, p, ready, cloud.ReasonRights, "runs without JetStream", "jetstream { store_dir: … }")
		const stream = "jetstream { store_dir: %q, max_file_store: %s }\n"
		again(fmt.Sprintf(stream, filepath.Join(o.dir, "js"), "10MB"))
		fault(t, p, ready, cloud.ReasonRights, "may keep 10485760 bytes on disk", "67108864 for each cell")
		again(fmt.Sprintf(stream, filepath.Join(o.dir, "js"), "100MB"))
		fault(t, p, ready, cloud.ReasonRights, "at most 1048576 bytes", "max_payload: 4MB")
		again(fmt.Sprintf(stream, filepath.Join(o.dir, "js"), "100MB") + "max_payload: 4MB")
		fault(t, p, ready, cloud.ReasonReady, "external: localhost answers")
		o.move = func() {
			o.natsPort = 0
			again(fmt.Sprintf(stream, filepath.Join(o.dir, "js"), "100MB") + "max_payload: 4MB")
		}
		notMade(t, parts.NATS)
		stays(t, p, "nats", func(s *cloud.PlatformSpec) { s.NATS.External = nil })
	})

	r := o.realm(whole)
	var before object
	t.Run("Keycloak", func(t *testing.T) { before = o.keycloak(t, whole, p, r) })
	t.Run("nothing of the four runs here", func(t *testing.T) {
		var sets appsv1.StatefulSetList
		if err := admin.List(t.Context(), &sets, client.InNamespace(system)); err != nil || len(sets.Items) > 0 {
			t.Errorf("%d StatefulSets, %v", len(sets.Items), err)
		}
		var deployments appsv1.DeploymentList
		if err := admin.List(t.Context(), &deployments, client.InNamespace(system)); err != nil {
			t.Fatal(err)
		}
		for _, d := range deployments.Items {
			if d.Name != parts.Cloud && d.Name != parts.Operator {
				t.Errorf("Deployment %s", d.Name)
			}
		}
	})

	t.Run("a cell on them", func(t *testing.T) { o.cell(t, p) })

	if err := admin.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
	r.t = whole
	r.same(t, before)
	for _, name := range []string{platform.ClientConsole, platform.ClientCLI, platform.ClientTerraform, platform.ClientRoles, platform.ClientOrganizations} {
		if r.client(name) != "" {
			t.Errorf("client %s is left in the company's realm", name)
		}
	}
}

// TestMixedParts has platforms of which a company runs some parts: the others are made here, and know where those are.
func TestMixedParts(t *testing.T) {
	collectGarbage(t)
	o := newOutside(t)
	closed, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	given(t, "our-postgresql", map[string]string{"username": "kaphera", "password": "of the account"})
	given(t, "our-keycloak", map[string]string{"client-id": "kaphera", "client-secret": "of the platform"})
	ca := cloud.CABundle(o.ca.Cert)
	mixed := func(name string, spec cloud.PlatformSpec, here ...string) *cloud.Platform {
		spec.Domain, spec.DataPolicy = "mixed.example", "Delete"
		p := &cloud.Platform{ObjectMeta: named(name), Spec: spec}
		create(t, p)
		for _, part := range []string{parts.PostgreSQL, parts.OpenBao, parts.NATS, parts.Keycloak} {
			if !slices.Contains(here, part) {
				continue
			}
			eventually(t, func(ctx context.Context) error {
				return errors.Join(admin.Get(ctx, client.ObjectKey{Namespace: system, Name: part}, &corev1.Service{}), admin.Get(ctx, client.ObjectKey{Namespace: system, Name: part}, &networkingv1.NetworkPolicy{}))
			})
		}
		eventually(t, func(ctx context.Context) error { // one look at all parts is over
			if err := admin.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
				return err
			}
			if p.Status.ObservedGeneration != p.Generation {
				return errors.New("it has not been looked at")
			}
			return nil
		})
		for _, part := range []string{parts.PostgreSQL, parts.OpenBao, parts.NATS, parts.Keycloak} {
			if !slices.Contains(here, part) {
				notMade(t, part)
			}
		}
		return p
	}

	t.Run("PostgreSQL is the company's", func(t *testing.T) {
		p := mixed("postgresql-outside", cloud.PlatformSpec{PostgreSQL: cloud.PostgreSQLPart{External: &cloud.ExternalPostgreSQL{
			Host: "localhost", Port: int32(o.postgres.Port), CABundle: ca, CredentialsSecret: cloud.SecretName{Name: "our-postgresql"},
		}}}, parts.OpenBao, parts.NATS, parts.Keycloak)
		fault(t, p, cloud.ConditionPostgreSQLReady, cloud.ReasonReady, "external: localhost answers")
		var c corev1.ConfigMap
		eventually(t, func(ctx context.Context) error {
			var d appsv1.Deployment
			if err := admin.Get(ctx, client.ObjectKey{Namespace: system, Name: parts.Keycloak}, &d); err != nil {
				return err
			}
			want := fmt.Sprintf("jdbc:postgresql://localhost:%d/keycloak?sslmode=verify-full&sslrootcert=", o.postgres.Port)
			for _, e := range d.Spec.Template.Spec.Containers[0].Env {
				if e.Name == "KC_DB_URL" && strings.HasPrefix(e.Value, want) {
					return admin.Get(ctx, client.ObjectKey{Namespace: system, Name: "keycloak-database"}, &c)
				}
			}
			return fmt.Errorf("Keycloak's environment is %v", d.Spec.Template.Spec.Containers[0].Env)
		})
		if c.Data["ca.crt"] != string(o.ca.Cert) {
			t.Error("Keycloak does not trust the company's authority")
		}
		if err := admin.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
	})

	collectGarbage(t)
	t.Run("the Vault is the company's, and asks this cluster whom a token belongs to", func(t *testing.T) {
		p := mixed("vault-outside", cloud.PlatformSpec{Vault: cloud.VaultPart{External: &cloud.ExternalVault{
			Address: o.vaultURL, Mount: "industrial/kv", CABundle: ca, Auth: cloud.ExternalVaultAuth{Method: "Kubernetes", MountPath: "cluster", Role: "kaphera"},
			Connectors: cloud.ConnectorsVaultAuth{Method: "Kubernetes", MountPath: "cluster"},
		}}}, parts.PostgreSQL, parts.NATS, parts.Keycloak)
		fault(t, p, cloud.ConditionVaultReady, cloud.ReasonLogin, "cluster")
		o.kubernetes(t)
		fault(t, p, cloud.ConditionVaultReady, cloud.ReasonRights, `path "auth/cluster/role/cell-*"`)
		o.vault.Call(t, http.MethodPut, "sys/policies/acl/kaphera", map[string]any{"policy": parts.VaultPlace(p, parts.Endpoint{}).OperatorPolicy()})
		fault(t, p, cloud.ConditionVaultReady, cloud.ReasonReady, "external: localhost answers")
		if err := admin.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
	})

	collectGarbage(t)
	t.Run("NATS and Keycloak are the company's, and do not answer", func(t *testing.T) {
		p := mixed("two-outside", cloud.PlatformSpec{
			NATS:     cloud.NATSPart{External: &cloud.ExternalNATS{URL: fmt.Sprintf("tls://localhost:%d", closed), CABundle: ca, CredentialsSecret: cloud.SecretName{Name: "our-nats"}}},
			Keycloak: cloud.KeycloakPart{External: &cloud.ExternalKeycloak{URL: fmt.Sprintf("https://localhost:%d", closed), Realm: "industry", CABundle: ca, CredentialsSecret: cloud.SecretName{Name: "our-keycloak"}}},
		}, parts.PostgreSQL, parts.OpenBao)
		fault(t, p, cloud.ConditionKeycloakReady, cloud.ReasonUnreachable, "nobody listens there")
		if err := admin.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		fault(t, p, cloud.ConditionKeycloakReady, cloud.ReasonUnreachable, "deletion waits until what the platform has in the realm is removed")
		change(t, p, func() { p.Spec.DataPolicy = "Retain" })
		eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
		ours := client.MatchingLabels{kube.PartOfLabel: kube.PartOf, kube.ManagedBy: kube.FieldOwner}
		if err := admin.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(system), ours); err != nil {
			t.Fatal(err)
		}
	})
}
