// SPDX-License-Identifier: Apache-2.0

package openbao_test

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/test/openbao"
)

// config is a good configuration with a token that may do what a connector needs.
func config(t *testing.T, s *openbao.Server) vault.Config {
	t.Helper()
	all := []vault.Access{vault.UseKeys, vault.StoreSecrets, vault.ReadSecrets}
	s.Call(t, http.MethodPut, "sys/policies/acl/connector", map[string]any{"policy": vault.Policy("secret", "connectors/demo", vault.UseKeys, vault.StoreSecrets) +
		`path "secret/data/connectors/demo/+/secrets/*" { capabilities = ["create", "read", "update"] }`})
	return vault.Config{Address: s.Address, Mount: "secret", Prefix: "connectors/demo", Access: all, Auth: vault.Auth{Method: vault.AuthToken, TokenFile: tokenFile(t, token(t, s))}}
}

func token(t *testing.T, s *openbao.Server) string {
	t.Helper()
	auth := s.Call(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"connector"}, "period": "1h"})["auth"].(map[string]any)
	return auth["client_token"].(string)
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificate is any certificate.
func certificate(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func client(t *testing.T, cfg vault.Config) *vault.Client {
	t.Helper()
	c, err := vault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProbeSaysWhatIsWrong(t *testing.T) {
	s := openbao.Start(t)
	good := config(t, s)
	s.Call(t, http.MethodPost, "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
	s.Call(t, http.MethodPost, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	s.Call(t, http.MethodPost, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": "https://127.0.0.1:1", "disable_local_ca_jwt": true, "kubernetes_ca_cert": certificate(t),
	})
	if err := client(t, good).Probe(t.Context()); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for name, tc := range map[string]struct {
		change func(*vault.Config)
		want   []string
	}{
		"nobody there":      {func(c *vault.Config) { c.Address = "http://127.0.0.1:1" }, []string{"127.0.0.1:1", "refused"}},
		"TLS where is none": {func(c *vault.Config) { c.Address = strings.Replace(s.Address, "http:", "https:", 1) }, []string{"plain HTTP"}},
		"a wrong mount":     {func(c *vault.Config) { c.Mount = "kv" }, []string{`"kv"`, "secret (kv version 2)"}},
		"a wrong mount as root": {func(c *vault.Config) { c.Mount, c.Auth.TokenFile = "kv", tokenFile(t, s.RootToken) },
			[]string{`"kv"`, "secret (kv version 2)", "old (kv)"}},
		"a mount of version 1":    {func(c *vault.Config) { c.Mount, c.Auth.TokenFile = "old", tokenFile(t, s.RootToken) }, []string{`"old"`, "version 2"}},
		"a prefix without policy": {func(c *vault.Config) { c.Prefix = "connectors/other" }, []string{"create, read, update on secret/data/connectors/other/probe/keys/probe", "policy"}},
		"a token that is none":    {func(c *vault.Config) { c.Auth.TokenFile = tokenFile(t, "s.nothing") }, []string{"refuses the token", "403"}},
		"an empty token":          {func(c *vault.Config) { c.Auth.TokenFile = tokenFile(t, "") }, []string{"empty"}},
		"no token file":           {func(c *vault.Config) { c.Auth.TokenFile = "/nowhere/token" }, []string{"/nowhere/token"}},
		"a namespace that is not": {func(c *vault.Config) { c.Namespace = "team" }, []string{"team"}},
		"a wrong role": {func(c *vault.Config) {
			c.Auth = vault.Auth{Method: vault.AuthKubernetes, Role: "nobody", ServiceAccountTokenFile: tokenFile(t, "e30.e30.e30")}
		}, []string{`role "nobody"`, "auth/kubernetes", "vault.auth.role"}},
		"a wrong path of the method": {func(c *vault.Config) {
			c.Auth = vault.Auth{Method: vault.AuthKubernetes, MountPath: "k8s", Role: "connector", ServiceAccountTokenFile: tokenFile(t, "e30.e30.e30")}
		}, []string{"auth/k8s", "vault.auth.mountPath"}},
	} {
		cfg := good
		tc.change(&cfg)
		err := client(t, cfg).Probe(t.Context())
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the message is not one line: %q", name, err)
		}
	}
	s.Call(t, http.MethodPut, "sys/seal", nil)
	if err := client(t, good).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("sealed: %v", err)
	}
}

// TestAppRole logs in with a role of its own mount, again when its token has ended, and says what is wrong with an id that is no longer valid.
func TestAppRole(t *testing.T) {
	s := openbao.Start(t)
	cfg := config(t, s)
	s.Call(t, http.MethodPost, "sys/auth/industrial", map[string]any{"type": "approle"})
	s.Call(t, http.MethodPost, "auth/industrial/role/connector", map[string]any{"token_policies": []string{"connector"}, "token_ttl": "1h"})
	data := func(method, path string) map[string]any {
		return s.Call(t, method, path, nil)["data"].(map[string]any)
	}
	role := tokenFile(t, data(http.MethodGet, "auth/industrial/role/connector/role-id")["role_id"].(string))
	secret := tokenFile(t, data(http.MethodPost, "auth/industrial/role/connector/secret-id")["secret_id"].(string))
	cfg.Auth = vault.Auth{Method: vault.AuthAppRole, MountPath: "industrial", RoleIDFile: role, SecretIDFile: secret}
	store := vault.NewStore(client(t, cfg), 0)
	for range 2 {
		if err := store.PutSecret(t.Context(), "acme", "backend", "x"); err != nil {
			t.Fatalf("a good configuration: %v", err)
		}
		s.Call(t, http.MethodPut, "sys/leases/revoke-prefix/auth/industrial/login", nil)
	}
	for name, tc := range map[string]struct {
		change func(*vault.Auth)
		want   string
	}{
		"another mount":     {func(a *vault.Auth) { a.MountPath = "approle" }, "approle method at auth/approle"},
		"a wrong secret id": {func(a *vault.Auth) { a.SecretIDFile = tokenFile(t, "no-such-id") }, "that the secret id has not ended"},
		"an empty role id":  {func(a *vault.Auth) { a.RoleIDFile = tokenFile(t, "") }, "vault.auth.roleIDFile"},
		"no secret id":      {func(a *vault.Auth) { a.SecretIDFile = "/nowhere/id" }, "vault.auth.secretIDFile"},
	} {
		bad := cfg
		tc.change(&bad.Auth)
		if err := client(t, bad).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "no-such-id") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReplicasAgreeOnAKey(t *testing.T) {
	s := openbao.Start(t)
	cfg := config(t, s)
	for _, alg := range []jwa.SignatureAlgorithm{jwa.ES256(), jwa.EdDSA()} {
		type made struct {
			key jwk.Key
			err error
		}
		keys := make(chan made)
		for range 6 {
			store := vault.NewStore(client(t, cfg), time.Minute)
			go func() {
				key, err := store.CreateKey(t.Context(), "acme", "key-"+alg.String(), alg)
				keys <- made{key, err}
			}()
		}
		var first jwk.Key
		for range 6 {
			m := <-keys
			if m.err != nil {
				t.Fatal(m.err)
			}
			if first == nil {
				first = m.key
			}
			if !jwk.Equal(first, m.key) {
				t.Errorf("%s: two replicas have two keys", alg)
			}
		}
	}
	raw := s.Call(t, http.MethodGet, "secret/data/connectors/demo/acme/keys/key-ES256", nil)
	if raw["data"].(map[string]any)["metadata"].(map[string]any)["version"] != 1.0 {
		t.Errorf("the key was written more than once: %v", raw["data"].(map[string]any)["metadata"])
	}
}

func TestSecretsAreApartAndGone(t *testing.T) {
	s := openbao.Start(t)
	cfg := config(t, s)
	store, other := vault.NewStore(client(t, cfg), time.Hour), vault.NewStore(client(t, cfg), 0)
	for range 2 { // the second time from the cache
		if _, err := store.Secret(t.Context(), "acme", "backend", time.Time{}); !errors.Is(err, vault.ErrNotFound) {
			t.Fatalf("a secret that is not there: %v", err)
		}
	}
	check := func(want string) {
		t.Helper()
		for _, st := range []*vault.Store{store, other} {
			if got, err := st.Secret(t.Context(), "acme", "backend", time.Time{}); err != nil || got != want {
				t.Fatalf("got %q, %v; want %q", got, err, want)
			}
		}
	}
	for _, value := range []string{"one", "two"} {
		if err := store.PutSecret(t.Context(), "acme", "backend", value); err != nil {
			t.Fatal(err)
		}
		check(value)
	}
	if _, err := store.Secret(t.Context(), "globex", "backend", time.Time{}); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("another owner's: %v", err)
	}
	for _, bad := range []string{"../acme", "a/b", "", "..", "a\nb"} {
		if _, err := store.Secret(t.Context(), bad, "backend", time.Time{}); err == nil || errors.Is(err, vault.ErrNotFound) {
			t.Errorf("owner %q: %v", bad, err)
		}
		if err := store.PutSecret(t.Context(), "acme", bad, "x"); err == nil {
			t.Errorf("alias %q was taken", bad)
		}
	}
	for range 2 {
		if err := store.DeleteSecrets(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
	}
	for _, st := range []*vault.Store{store, other} {
		if _, err := st.Secret(t.Context(), "acme", "backend", time.Time{}); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("a deleted secret: %v", err)
		}
	}
	// Deleting removes every version, and a new one may be made.
	if err := store.PutSecret(t.Context(), "acme", "backend", "three"); err != nil {
		t.Fatal(err)
	}
	check("three")
	// What is remembered does not count for whoever came later.
	if err := other.PutSecret(t.Context(), "acme", "backend", "four"); err != nil {
		t.Fatal(err)
	}
	since := func(at time.Time, want string) {
		t.Helper()
		if got, err := store.Secret(t.Context(), "acme", "backend", at); err != nil || got != want {
			t.Errorf("since %s: %q, %v; want %q", at, got, err, want)
		}
	}
	since(time.Time{}, "three")
	since(time.Now(), "four")
}

// The token's file is replaced while the client runs, and the old token ends.
func TestTokenIsReplaced(t *testing.T) {
	s := openbao.Start(t)
	cfg := config(t, s)
	store := vault.NewStore(client(t, cfg), 0)
	if err := store.PutSecret(t.Context(), "acme", "backend", "x"); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(cfg.Auth.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	fresh := token(t, s)
	s.Call(t, http.MethodPost, "auth/token/revoke", map[string]any{"token": strings.TrimSpace(string(old))})
	if _, err := store.Secret(t.Context(), "acme", "backend", time.Time{}); err == nil || !strings.Contains(err.Error(), cfg.Auth.TokenFile) {
		t.Fatalf("with a token that has ended: %v", err)
	}
	if err := os.WriteFile(cfg.Auth.TokenFile, []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Secret(t.Context(), "acme", "backend", time.Time{}); err != nil || got != "x" {
		t.Errorf("with the new token: %q, %v", got, err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for want, cfg := range map[string]vault.Config{
		"vault.address":        {Mount: "kv", Auth: vault.Auth{Method: "token", TokenFile: "x"}},
		"vault.mount":          {Address: "http://x", Auth: vault.Auth{Method: "token", TokenFile: "x"}},
		"vault.auth.method":    {Address: "http://x", Mount: "kv", Auth: vault.Auth{Method: "userpass"}},
		"vault.auth.role":      {Address: "http://x", Mount: "kv", Auth: vault.Auth{Method: "kubernetes"}},
		"vault.auth.tokenFile": {Address: "http://x", Mount: "kv", Auth: vault.Auth{Method: "token"}},
		"vault.caFile":         {Address: "https://x", Mount: "kv", CAFile: "/nowhere/ca.crt", Auth: vault.Auth{Method: "token", TokenFile: "x"}},
	} {
		if _, err := vault.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error that names %s, got %v", want, err)
		}
	}
}
