// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// results are the checks that did not pass, with their outcome.
func results(r Report) map[string]Outcome {
	out := map[string]Outcome{}
	for _, c := range r.Checks {
		if c.Result != Passed {
			out[c.Name] = c.Result
		}
	}
	return out
}

func find(t *testing.T, r Report, name string) Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %s", name)
	}
	return r.Checks[i]
}

// dependents are the checks that need a check.
func dependents(name string) []string {
	var out []string
	for _, k := range kinds {
		if slices.Contains(k.needs, name) {
			out = append(append(out, k.name), dependents(k.name)...)
		}
	}
	return out
}

// noSecret fails the test when a report tells a secret of the world.
func (w *world) noSecret(t *testing.T, r Report) {
	t.Helper()
	raw, err := json.Marshal(r)
	must(t, err)
	for _, s := range w.Secrets {
		for _, key := range []string{"password", "token", "role-id", "secret-id"} {
			if s[key] != "" && strings.Contains(string(raw), s[key]) {
				t.Errorf("the report tells a %s: %s", key, raw)
			}
		}
	}
}

// Each thing is broken, and the check of its name says so, with the next step; what does not depend on it is as it was.
func TestEachFaultIsNamed(t *testing.T) {
	w := newWorld(t)
	r := Run(t.Context(), w.Options)
	// The API server of the test has no ingress class, and the image is not from a private registry.
	if got := results(r); len(got) != 2 || got["ingress-class"] != Warning || got["image-pull-secrets"] != Skipped {
		t.Fatalf("in good order: %v\n%+v", got, r.Checks)
	}
	w.noSecret(t, r)
	w.nothingIsLeft(t)
	for _, fault := range []struct {
		what   string
		do     func(t *testing.T, o *Options)
		check  string
		result Outcome // Failed unless it says otherwise
		detail string
		remedy string
	}{
		{what: "a Kubernetes account without rights", check: "kubernetes-permissions", detail: "create, patch deployments.apps in namespace default", remedy: "rbac.yaml",
			do: func(_ *testing.T, o *Options) { o.Cluster = as("system:serviceaccount:default:nobody") }},
		{what: "no API server there", check: "kubernetes-version", detail: "connection refused", remedy: "the kubeconfig's server",
			do: func(_ *testing.T, o *Options) { o.Cluster = &rest.Config{Host: "https://127.0.0.1:1"} }},
		{what: "an ingress class that is not there", check: "ingress-class", detail: `no ingress class "nginx"; there are: none`, remedy: "ingress controller",
			do: func(_ *testing.T, o *Options) { o.Runtime.Exposure.IngressClassName = "nginx" }},
		{what: "a host name that nobody knows", check: "hostname", result: Warning, detail: "acme.invalid", remedy: "DNS",
			do: func(_ *testing.T, o *Options) { o.Runtime.Exposure.Hostname = "acme.invalid" }},

		{what: "no Vault there", check: "vault-address", detail: "127.0.0.1:1: nobody listens", remedy: "spec.vault.address",
			do: func(_ *testing.T, o *Options) { o.Runtime.Vault.Address = "https://127.0.0.1:1" }},
		{what: "a Vault's name that nobody knows", check: "vault-address", detail: "vault.invalid is not resolved", remedy: "DNS",
			do: func(_ *testing.T, o *Options) { o.Runtime.Vault.Address = "https://vault.invalid:8200" }},
		{what: "a Vault's certificate by another authority", check: "vault-tls", detail: "an authority that spec.vault.caBundle does not hold", remedy: "spec.vault.caBundle",
			do: func(t *testing.T, o *Options) { o.Runtime.Vault.CABundle = newAuthority(t).pem }},
		{what: "a Vault's certificate that has expired", check: "vault-tls", detail: "expired", remedy: "renew",
			do: func(t *testing.T, o *Options) {
				o.Runtime.Vault.Address = w.vaultWith(t, func(c *x509.Certificate) { server(c); c.NotAfter = time.Now().Add(-time.Minute) })
			}},
		{what: "a Vault's certificate that ends soon", check: "vault-tls", result: Warning, detail: "valid until", remedy: "renew",
			do: func(t *testing.T, o *Options) {
				o.Runtime.Vault.Address = w.vaultWith(t, func(c *x509.Certificate) { server(c); c.NotAfter = time.Now().Add(24 * time.Hour) })
			}},
		{what: "a Vault's certificate for another name", check: "vault-tls", detail: "another name", remedy: "issued for this name",
			do: func(t *testing.T, o *Options) {
				o.Runtime.Vault.Address = w.vaultWith(t, func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} })
			}},
		{what: "HTTPS where the Vault speaks HTTP", check: "vault-tls", detail: "does not speak TLS", remedy: "certificate",
			do: func(_ *testing.T, o *Options) {
				o.Runtime.Vault.Address = strings.Replace(w.bao.Address, "http:", "https:", 1)
			}},
		{what: "a Vault by plain HTTP", check: "vault-tls", result: Warning, detail: "plain HTTP", remedy: "https",
			do: func(_ *testing.T, o *Options) { o.Runtime.Vault.Address = w.bao.Address }},
		{what: "a server that is no Vault", check: "vault-status", detail: "which no Vault does", remedy: "spec.vault.address",
			do: func(_ *testing.T, o *Options) { o.Runtime.Vault.Address = o.Cloud }},
		{what: "an auth mount that is not there", check: "vault-auth", detail: "no auth method at auth/elsewhere", remedy: "bao auth enable -path=elsewhere approle",
			do: func(_ *testing.T, o *Options) { o.Runtime.Vault.Auth.MountPath = "elsewhere" }},
		{what: "a Secret of the Vault without its keys", check: "vault-credentials", detail: "Secret default/vault-wallet has no key secret-id", remedy: "add it",
			do: func(_ *testing.T, o *Options) { delete(o.Secrets["vault-wallet"], "secret-id") }},
		{what: "a Secret of the Vault that is not there", check: "vault-credentials", detail: "Secret default/vault-wallet does not exist", remedy: "kubectl -n default create secret generic vault-wallet",
			do: func(_ *testing.T, o *Options) { delete(o.Secrets, "vault-wallet") }},
		{what: "a secret id that is wrong", check: "vault-login", detail: "wallet: log in to vault", remedy: "spec.vault.auth",
			do: func(_ *testing.T, o *Options) { o.Secrets["vault-wallet"]["secret-id"] = "0f0f0f0f-wrong" }},
		{what: "a mount that is not there", check: "vault-mount", detail: "it sees: old (kv), secret (kv version 2)", remedy: "bao secrets enable -path=industrial/kv",
			do: func(t *testing.T, o *Options) {
				w.oldMount(t)
				for _, role := range o.Runtime.Roles {
					w.repolicy(t, role, vault.Policy("secret", prefix, does[role])+`path "old/*" { capabilities = ["read"] }`)
				}
				o.Runtime.Vault.Mount = "industrial/kv"
			}},
		{what: "a mount that is not there, for logins that may see none", check: "vault-mount", detail: "it sees: none", remedy: "spec.vault.mount",
			do: func(t *testing.T, o *Options) {
				for _, role := range o.Runtime.Roles {
					w.repolicy(t, role, vault.Policy("industrial/kv", prefix, does[role]))
				}
				o.Runtime.Vault.Mount = "industrial/kv"
			}},
		{what: "a mount of KV version 1", check: "vault-mount", detail: "version 2", remedy: "kv-v2",
			do: func(t *testing.T, o *Options) {
				w.oldMount(t)
				for _, role := range o.Runtime.Roles {
					w.repolicy(t, role, vault.Policy("old", prefix, does[role]))
				}
				o.Runtime.Vault.Mount = "old"
			}},
		{what: "a policy that lacks something", check: "vault-access", detail: "wallet: vault", remedy: `path "secret/data/connectors/acme/+/keys/*" { capabilities = ["create", "read", "update"] }`,
			do: func(t *testing.T, _ *Options) {
				w.repolicy(t, workload.Wallet, `path "secret/data/`+prefix+`/+/keys/*" { capabilities = ["read"] } path "sys/capabilities-self" { capabilities = ["update"] }`)
			}},
		{what: "a policy that reaches too far", check: "vault-isolation", result: Warning, detail: "data-plane: vault", remedy: "below secret/",
			do: func(t *testing.T, _ *Options) {
				w.repolicy(t, workload.DataPlane, vault.Policy("secret", prefix, vault.ReadSecrets)+`path "secret/data/*" { capabilities = ["read"] }`)
			}},

		{what: "no PostgreSQL there", check: "postgresql-address", detail: "127.0.0.1:1: nobody listens", remedy: "spec.database.host",
			do: func(_ *testing.T, o *Options) { o.Runtime.Database.Port = 1 }},
		{what: "a PostgreSQL without TLS", check: "postgresql-tls", detail: "does not speak TLS", remedy: "ssl = on",
			do: func(_ *testing.T, o *Options) { o.Runtime.Database.Port = int32(pg.Port) }},
		{what: "a PostgreSQL whose TLS is not wanted", check: "postgresql-tls", result: Warning, detail: "unencrypted", remedy: "verify-full",
			do: func(_ *testing.T, o *Options) {
				o.Runtime.Database.Port, o.Runtime.Database.SSLMode = int32(pg.Port), "disable"
			}},
		{what: "a PostgreSQL whose certificate nobody looks at", check: "postgresql-tls", result: Warning, detail: "does not prove", remedy: "verify-full",
			do: func(_ *testing.T, o *Options) {
				o.Runtime.Database.SSLMode, o.Runtime.Database.CABundle = "require", ""
			}},
		{what: "a PostgreSQL's certificate by another authority", check: "postgresql-tls", detail: "spec.database.caBundle does not hold", remedy: "spec.database.caBundle",
			do: func(t *testing.T, o *Options) { o.Runtime.Database.CABundle = newAuthority(t).pem }},
		{what: "a PostgreSQL's certificate for another name", check: "postgresql-tls", detail: "another name", remedy: "issued for this name",
			do: func(_ *testing.T, o *Options) { o.Runtime.Database.Host = "localhost" }},
		{what: "a server that is no PostgreSQL", check: "postgresql-tls", detail: "does not answer as PostgreSQL", remedy: "spec.database.host",
			do: func(t *testing.T, o *Options) {
				u, err := url.Parse(o.Cloud)
				must(t, err)
				_, o.Runtime.Database.Port = split(t, u.Host)
			}},
		{what: "a Secret of the database that is not there", check: "postgresql-credentials", detail: "Secret default/owner does not exist", remedy: "--from-literal=password=",
			do: func(_ *testing.T, o *Options) { delete(o.Secrets, "owner") }},
		{what: "a wrong password", check: "postgresql-login", detail: "password authentication failed", remedy: "password in the Secret",
			do: func(_ *testing.T, o *Options) { o.Secrets["db-wallet"]["password"] = "0f0f0f0f-wrong" }},
		{what: "a database that is not there", check: "postgresql-login", detail: "does not exist", remedy: "CREATE DATABASE",
			do: func(_ *testing.T, o *Options) { o.Runtime.Database.Name = "nowhere" }},
		{what: "a role that may not connect", check: "postgresql-login", detail: "permission denied for database", remedy: "GRANT CONNECT",
			do: func(t *testing.T, _ *Options) {
				w.change(t, "REVOKE CONNECT ON DATABASE @ FROM PUBLIC", "GRANT CONNECT ON DATABASE @ TO PUBLIC")
			}},
		{what: "a database in another encoding", check: "postgresql-version", detail: "LATIN1", remedy: "ENCODING 'UTF8'",
			do: func(t *testing.T, o *Options) {
				o.Runtime.Database.Name = w.name + "_latin"
				sql(t, "postgres", "CREATE DATABASE "+o.Runtime.Database.Name+" OWNER "+w.name+" ENCODING 'LATIN1' TEMPLATE template0")
			}},
		{what: "an owner that may not make schemas", check: "postgresql-rights", detail: "permission denied for database", remedy: "ALTER DATABASE",
			do: func(t *testing.T, _ *Options) {
				w.change(t, "ALTER DATABASE @ OWNER TO postgres", "ALTER DATABASE @ OWNER TO @")
			}},
		{what: "a schema of somebody else", check: "postgresql-rights", detail: "the schemas wallet belong to another role", remedy: "ALTER SCHEMA",
			do: func(t *testing.T, _ *Options) { w.change(t, "CREATE SCHEMA wallet", "DROP SCHEMA wallet") }},
		{what: "a role that is a superuser", check: "postgresql-rights", detail: "with which wallet works, is a superuser", remedy: "NOSUPERUSER",
			do: func(t *testing.T, _ *Options) {
				w.change(t, "ALTER ROLE @_wallet SUPERUSER", "ALTER ROLE @_wallet NOSUPERUSER")
			}},
		{what: "an owner that is a superuser", check: "postgresql-rights", result: Warning, detail: "reaches beyond the database", remedy: "no superuser",
			do: func(t *testing.T, _ *Options) { w.change(t, "ALTER ROLE @ SUPERUSER", "ALTER ROLE @ NOSUPERUSER") }},
		{what: "too few connections for a role", check: "postgresql-connections", result: Warning, detail: "may open 3 more connections of the 20", remedy: "CONNECTION LIMIT",
			do: func(t *testing.T, _ *Options) {
				w.change(t, "ALTER ROLE @_wallet CONNECTION LIMIT 3", "ALTER ROLE @_wallet CONNECTION LIMIT -1")
			}},
		{what: "not one connection for each process", check: "postgresql-connections", detail: "may open 2 more connections, and each of its 4 processes", remedy: "CONNECTION LIMIT",
			do: func(t *testing.T, o *Options) {
				o.Runtime.Replicas = ptr.To[int32](3)
				w.change(t, "ALTER ROLE @_wallet CONNECTION LIMIT 2", "ALTER ROLE @_wallet CONNECTION LIMIT -1")
			}},
		{what: "a database that takes too few connections", check: "postgresql-connections", detail: "takes 3 more connections, and 6 processes and the migration", remedy: "max_connections",
			do: func(t *testing.T, _ *Options) {
				w.change(t, "ALTER DATABASE @ CONNECTION LIMIT 3", "ALTER DATABASE @ CONNECTION LIMIT -1")
			}},
		{what: "more replicas than the server takes", check: "postgresql-connections", detail: "the server takes", remedy: "max_connections",
			do: func(_ *testing.T, o *Options) { o.Runtime.Replicas = ptr.To[int32](100) }},

		{what: "a counterpart that is not there", check: "counterpart-did", detail: "connection refused", remedy: "the counterpart's address",
			do: func(_ *testing.T, o *Options) { o.Counterparts = []string{"did:web:127.0.0.1%3A1:partner"} }},
		{what: "a counterpart that does not exist there", check: "counterpart-did", detail: "answers 404", remedy: "ask the counterpart",
			do: func(_ *testing.T, o *Options) { o.Counterparts = []string{o.Counterparts[0] + "s"} }},
		{what: "a counterpart by another authority", check: "counterpart-did", detail: "spec.trust.caBundle does not hold", remedy: "spec.trust.caBundle",
			do: func(t *testing.T, o *Options) { o.Runtime.Trust.CABundle = newAuthority(t).pem }},
		{what: "a counterpart at an address that is not permitted", check: "counterpart-did", detail: "loopback", remedy: "spec.trust.allowPrivateNetworks",
			do: func(_ *testing.T, o *Options) { o.loopback = false }},
		{what: "what is no DID", check: "counterpart-did", detail: "not a did:web", remedy: "did:web:",
			do: func(_ *testing.T, o *Options) { o.Counterparts = []string{"https://partner.example"} }},
		{what: "a counterpart of another version", check: "counterpart-dsp", detail: `"2024-1"`, remedy: "DSP 2025-1",
			do: func(t *testing.T, o *Options) {
				o.Counterparts = []string{w.partner(t, "2024-1", func(http.Header) {})}
			}},
		{what: "a counterpart whose clock is wrong", check: "clock", detail: "behind", remedy: "NTP",
			do: func(t *testing.T, o *Options) {
				o.Counterparts = []string{w.partner(t, "2025-1", func(h http.Header) { h.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)) })}
			}},

		{what: "a proxy that wants another log-in", check: "proxy", detail: "407", remedy: "user and password",
			do: func(_ *testing.T, o *Options) { o.Proxy = strings.Replace(o.Proxy, password, "0f0f0f0f-wrong", 1) }},
		{what: "a proxy that does not let through", check: "proxy", detail: "refuses CONNECT to 127.0.0.1", remedy: "allow CONNECT",
			do: func(t *testing.T, o *Options) {
				o.Proxy = "http://" + tunnels(t, "", func(string) bool { return false })
			}},
		{what: "a cloud by another authority", check: "cloud", detail: "does not hold", remedy: "--ca-file",
			do: func(t *testing.T, o *Options) { o.CloudCA = newAuthority(t).pem }},
		{what: "a Vault that is sealed", check: "vault-status", detail: "is sealed", remedy: "unseal", // the last one: it stays so
			do: func(t *testing.T, _ *Options) { w.call(t, http.MethodPut, "sys/seal", nil) }},
	} {
		t.Run(fault.what, func(t *testing.T) {
			o := w.Options
			o.Secrets = map[string]map[string]string{}
			for name, s := range w.Secrets {
				o.Secrets[name] = map[string]string{}
				for k, v := range s {
					o.Secrets[name][k] = v
				}
			}
			defer w.mend()
			fault.do(t, &o)
			w.nobodyIsConnected(t)
			r := Run(t.Context(), o)
			w.noSecret(t, r)
			if raw, _ := json.Marshal(r); strings.Contains(string(raw), "0f0f0f0f-wrong") {
				t.Errorf("the report tells what is wrong with a secret by telling it: %s", raw)
			}
			if fault.result == "" {
				fault.result = Failed
			}
			got := find(t, r, fault.check)
			if got.Result != fault.result || !strings.Contains(got.Detail, fault.detail) || !strings.Contains(got.Remedy, fault.remedy) {
				t.Errorf("%+v\nwant %s, %q, remedy %q", got, fault.result, fault.detail, fault.remedy)
			}
			for name, outcome := range results(r) {
				follows := fault.result == Failed && outcome == Skipped && slices.Contains(dependents(fault.check), name)
				if name != fault.check && name != "ingress-class" && name != "image-pull-secrets" && !follows && !alsoTouched(fault.check, name) {
					t.Errorf("%s too: %+v", name, find(t, r, name))
				}
			}
		})
	}
}

// alsoTouched are checks that one fault touches besides the one that names it.
func alsoTouched(check, other string) bool {
	return check == "proxy" && other == "cloud" || check == "kubernetes-permissions" && other == "ingress-class"
}

// mend takes back what a fault has changed.
func (w *world) mend() {
	for _, f := range slices.Backward(w.undo) {
		f()
	}
	w.undo = nil
}

// nothingIsLeft of the probes, in the Vault and in the database.
func (w *world) nothingIsLeft(t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.bao.Address+"/v1/secret/metadata/"+prefix+"?list=true", nil)
	must(t, err)
	req.Header.Set("X-Vault-Token", w.bao.RootToken)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the Vault lists something below the prefix: %s", resp.Status)
	}
	sql(t, w.name, "DO $$ BEGIN IF EXISTS (SELECT FROM pg_namespace WHERE nspname LIKE 'kaphera%') THEN RAISE 'a schema is left'; END IF; END $$")
}

// nobodyIsConnected waits until the server has noticed that the connections of earlier runs are closed.
func (w *world) nobodyIsConnected(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	must(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	eventually(t, func() string {
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = $1", w.name).Scan(&n); err != nil || n > 0 {
			return fmt.Sprintf("%d connections, %v", n, err)
		}
		return ""
	})
}

// vaultWith is the address of the world's Vault behind another certificate.
func (w *world) vaultWith(t *testing.T, change func(*x509.Certificate)) string {
	t.Helper()
	return "https://" + secure(t, w.ca.issue(t, change), strings.TrimPrefix(w.bao.Address, "http://"), false)
}

// oldMount mounts a KV engine of version 1 at old until mend.
func (w *world) oldMount(t *testing.T) {
	t.Helper()
	w.call(t, http.MethodPost, "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
	w.undo = append(w.undo, func() { w.call(t, http.MethodDelete, "sys/mounts/old", nil) })
}

// repolicy changes a role's policy until mend.
func (w *world) repolicy(t *testing.T, role workload.Role, text string) {
	t.Helper()
	w.policy(t, role, text)
	w.undo = append(w.undo, func() { w.policy(t, role, vault.Policy("secret", prefix, does[role])) })
}

// change runs a statement in the database until mend, when undo is run; @ is the name of the database and of its owner.
func (w *world) change(t *testing.T, statement, undo string) {
	t.Helper()
	sql(t, w.name, strings.ReplaceAll(statement, "@", w.name))
	w.undo = append(w.undo, func() { sql(t, w.name, strings.ReplaceAll(undo, "@", w.name)) })
}

// as is the test's cluster with the rights of an account and no other.
func as(account string) *rest.Config {
	cfg := rest.CopyConfig(cluster)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return cfg
}
