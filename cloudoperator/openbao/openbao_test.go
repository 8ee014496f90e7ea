// SPDX-License-Identifier: FSL-1.1-ALv2

package openbao_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwt"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/connector/vault"
	bao "github.com/kaphera/kaphera/test/openbao"
)

// company is a Vault in which the platform has a place, which knows a cluster by the key of its service account tokens.
type company struct {
	*bao.Server
	place openbao.Place
	key   *ecdsa.PrivateKey
}

const operator = "system:serviceaccount:kaphera-system:cloud-operator"

func start(t *testing.T) *company {
	t.Helper()
	c := &company{Server: bao.Start(t)}
	c.place = openbao.Place{Address: c.Address, Mount: "industrial/kv", Method: vault.AuthJWT, AuthMount: "frankfurt", Platform: "one.example"}
	var err error
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(c.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c.Call(t, http.MethodPost, "sys/mounts/industrial/kv", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	c.Call(t, http.MethodPost, "sys/auth/frankfurt", map[string]any{"type": "jwt"})
	c.Call(t, http.MethodPost, "auth/frankfurt/config", map[string]any{"jwt_validation_pubkeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))}})
	c.Call(t, http.MethodPost, "auth/frankfurt/role/cloud-operator", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "bound_subject": operator, "token_policies": []string{"cloud-operator"},
	})
	c.policy(t, c.place.OperatorPolicy())
	return c
}

func (c *company) policy(t *testing.T, text string) {
	t.Helper()
	c.Call(t, http.MethodPut, "sys/policies/acl/cloud-operator", map[string]any{"policy": text})
}

// token is a service account's.
func (c *company) token(t *testing.T, account, audience string) string {
	t.Helper()
	made, err := jwt.NewBuilder().Subject(account).Audience([]string{audience}).IssuedAt(time.Now()).Expiration(time.Now().Add(time.Hour)).Build()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Sign(made, jwt.WithKey(jwa.ES256(), c.key))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

func (c *company) client(t *testing.T) *openbao.Client {
	t.Helper()
	v, err := openbao.New(c.place, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// in logs in as the operator.
func (c *company) in(t *testing.T) *openbao.Client {
	t.Helper()
	v := c.client(t)
	if err := v.Login(t.Context(), openbao.Login{Method: vault.AuthJWT, MountPath: "frankfurt", Role: openbao.OperatorRole, JWT: c.token(t, operator, "vault")}); err != nil {
		t.Fatal(err)
	}
	return v
}

func reason(err error) string {
	var e *fault.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Reason
}

func TestTheOperatorLogsInByEachMethod(t *testing.T) {
	c := start(t)
	c.Call(t, http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"})
	c.Call(t, http.MethodPost, "auth/approle/role/cloud-operator", map[string]any{"token_policies": []string{"cloud-operator"}})
	roleID := c.Call(t, http.MethodGet, "auth/approle/role/cloud-operator/role-id", nil)["data"].(map[string]any)["role_id"].(string)
	secretID := c.Call(t, http.MethodPost, "auth/approle/role/cloud-operator/secret-id", map[string]any{})["data"].(map[string]any)["secret_id"].(string)
	made := c.Call(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"cloud-operator"}, "no_default_policy": true, "ttl": "1h"})
	token := made["auth"].(map[string]any)["client_token"].(string)
	for what, l := range map[string]openbao.Login{
		"token": {Method: vault.AuthToken, Token: token}, "AppRole": {Method: vault.AuthAppRole, MountPath: "approle", RoleID: roleID, SecretID: secretID},
		"JWT": {Method: vault.AuthJWT, MountPath: "frankfurt", Role: "cloud-operator", JWT: c.token(t, operator, "vault")},
	} {
		v := c.client(t)
		if err := v.Login(t.Context(), l); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := v.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		v.Close(t.Context())
		if err := v.Check(t.Context()); (err == nil) != (l.Method == vault.AuthToken) {
			t.Errorf("%s, after Close: %v", what, err)
		}
	}
	for what, l := range map[string]openbao.Login{
		"token": {Method: vault.AuthToken, Token: "hvs.hush"}, "AppRole": {Method: vault.AuthAppRole, MountPath: "approle", RoleID: roleID, SecretID: "hush"},
		"JWT of another": {Method: vault.AuthJWT, MountPath: "frankfurt", Role: "cloud-operator", JWT: c.token(t, "system:serviceaccount:elsewhere:cloud-operator", "vault")},
		"no such mount":  {Method: vault.AuthJWT, MountPath: "jwt", Role: "cloud-operator", JWT: c.token(t, operator, "vault")},
	} {
		if err := c.client(t).Login(t.Context(), l); reason(err) != cloud.ReasonLogin || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWhatTheVaultLacksIsNamed(t *testing.T) {
	c := start(t)
	right := c.place
	c.place.Mount = "kv"
	if err := c.in(t).Check(t.Context()); reason(err) != cloud.ReasonRights || !strings.Contains(err.Error(), `no KV engine of version 2 at "kv"; its engines are`) || !strings.Contains(err.Error(), "industrial/kv/") {
		t.Errorf("a wrong mount: %v", err)
	}
	c.place = right
	c.place.AuthMount = "kubernetes"
	if err := c.in(t).Check(t.Context()); reason(err) != cloud.ReasonRights || !strings.Contains(err.Error(), `no auth method jwt at "kubernetes"; its auth methods are frankfurt/`) {
		t.Errorf("a wrong auth method: %v", err)
	}
	c.place = right
	lines := strings.SplitAfter(strings.TrimSpace(c.place.OperatorPolicy()), "\n")
	for i, line := range lines {
		if strings.Contains(line, "auth/token/") || strings.Contains(line, "capabilities-self") { // the policy default has them
			continue
		}
		c.policy(t, strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), ""))
		if err := c.in(t).Check(t.Context()); reason(err) != cloud.ReasonRights || !strings.Contains(err.Error(), strings.TrimSpace(line)) {
			t.Errorf("without %s: %v", line, err)
		}
	}
}

// A connector's role is bound to one service account, and is written once.
func TestGrantsByJWT(t *testing.T) {
	c := start(t)
	g := openbao.Grant{Name: "cell-a-connector-wallet", Policy: vault.Policy(c.place.Mount, "cells/a/connector", vault.UseKeys), Namespace: "cell-a", ServiceAccount: "connector-wallet"}
	if err := c.in(t).Ensure(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	// Who may only read finds nothing to write.
	reads := strings.NewReplacer(`"create", `, "", `"update", `, "", `, "delete"`, "").Replace(c.place.OperatorPolicy())
	c.policy(t, reads)
	if err := c.in(t).Ensure(t.Context(), g); err != nil {
		t.Errorf("a second time it writes: %v", err)
	}
	c.policy(t, c.place.OperatorPolicy())
	account := "system:serviceaccount:cell-a:connector-wallet"
	for _, l := range []struct {
		account, audience string
		may               bool
	}{{account, "vault", true}, {account, "kubernetes", false}, {"system:serviceaccount:cell-b:connector-wallet", "vault", false}, {"system:serviceaccount:cell-a:connector-data-plane", "vault", false}} {
		err := c.client(t).Login(t.Context(), openbao.Login{Method: vault.AuthJWT, MountPath: "frankfurt", Role: g.Name, JWT: c.token(t, l.account, l.audience)})
		if (err == nil) != l.may {
			t.Errorf("%+v: %v", l, err)
		}
	}
	restore := openbao.Grant{Name: "cell-a-connector-restore", Policy: vault.Policy(c.place.Mount, "cells/a/connector", vault.Restore), Namespace: "cell-a", ServiceAccount: "connector-restore"}
	for range 2 { // also where there is none
		if err := c.in(t).Revoke(t.Context(), restore.Name); err != nil {
			t.Error(err)
		}
		if err := c.in(t).Ensure(t.Context(), restore); err != nil {
			t.Error(err)
		}
	}
	login := openbao.Login{Method: vault.AuthJWT, MountPath: "frankfurt", Role: restore.Name, JWT: c.token(t, "system:serviceaccount:cell-a:connector-restore", "vault")}
	if err := c.client(t).Login(t.Context(), login); err != nil {
		t.Error(err)
	}
	if err := c.in(t).Revoke(t.Context(), restore.Name); err != nil {
		t.Error(err)
	}
	if err := c.client(t).Login(t.Context(), login); err == nil {
		t.Error("a grant that was taken back lets in")
	}
	c.Call(t, http.MethodPost, "industrial/kv/data/cells/a/connector/acme/keys/key-1", map[string]any{"data": map[string]any{"jwk": "x"}})
	// Another platform whose cell has the same name leaves it alone.
	own := c.place
	c.place.Platform = "two.example"
	other := g
	other.Policy = vault.Policy(c.place.Mount, "cells/a/connector", vault.ReadSecrets)
	if err := c.in(t).Ensure(t.Context(), other); reason(err) != cloud.ReasonRights || !strings.Contains(err.Error(), "is that of platform one.example") {
		t.Errorf("another platform's policy: %v", err)
	}
	if err := c.in(t).Remove(t.Context(), "cells/a/connector", g.Name); err != nil {
		t.Error(err)
	}
	c.place = own
	if err := c.in(t).Ensure(t.Context(), g); err != nil {
		t.Error(err)
	}
	c.Call(t, http.MethodGet, "industrial/kv/data/cells/a/connector/acme/keys/key-1", nil)
	if err := c.in(t).Remove(t.Context(), "cells/a/connector", g.Name); err != nil {
		t.Fatal(err)
	}
	kv, err := vault.New(vault.Config{Address: c.Address, Mount: c.place.Mount, Prefix: "cells/a/connector", Auth: vault.Auth{
		Method: vault.AuthToken, TokenFile: "root", ReadFile: func(string) ([]byte, error) { return []byte(c.RootToken), nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Read(t.Context(), "acme/keys/key-1"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a secret is left: %v", err)
	}
	if err := c.client(t).Login(t.Context(), openbao.Login{Method: vault.AuthJWT, MountPath: "frankfurt", Role: g.Name, JWT: c.token(t, account, "vault")}); err == nil {
		t.Error("a role that was taken away lets in")
	}
}
