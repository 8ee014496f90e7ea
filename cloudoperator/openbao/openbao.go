// SPDX-License-Identifier: FSL-1.1-ALv2

// Package openbao administers an OpenBao or Vault: policies, roles of the Kubernetes auth method, and the removal of what a cell left
// behind. It writes no secret of a connector.
package openbao

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// Names inside the Vault that the platform fixes.
const (
	Mount     = "kv"
	AuthMount = "kubernetes"
	// OperatorRole is the Cloud operator's own role and policy.
	OperatorRole = "cloud-operator"
	// Audience of the service account tokens that log in: a token for the API server opens nothing here, and the other way round.
	Audience = "vault"
)

// ErrSealed and ErrUninitialised say why a Vault that answers does not work.
var (
	ErrSealed        = errors.New("is sealed")
	ErrUninitialised = errors.New("is not initialised")
)

// Client is an administrator.
type Client struct{ api *api.Client }

// New makes a client without a token.
func New(address string, tlsConfig *tls.Config) (*Client, error) {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, fmt.Errorf("vault client: %w", cfg.Error)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	cfg.Address, cfg.Timeout, cfg.MaxRetries = address, 10*time.Second, 1
	cfg.HttpClient = &http.Client{Transport: transport, Timeout: cfg.Timeout}
	c, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("vault client for %s: %w", address, err)
	}
	c.ClearToken() // the environment's token is not meant for this
	c.ClearNamespace()
	return &Client{api: c}, nil
}

// Health returns nil when the Vault is initialised, unsealed and active. The error wraps ErrSealed or ErrUninitialised when it is that.
func (c *Client) Health(ctx context.Context) error {
	h, err := c.api.Sys().HealthWithContext(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("vault at %s: %w", c.api.Address(), err)
	case !h.Initialized:
		return fmt.Errorf("vault at %s %w", c.api.Address(), ErrUninitialised)
	case h.Sealed:
		return fmt.Errorf("vault at %s %w", c.api.Address(), ErrSealed)
	case h.Standby:
		return fmt.Errorf("vault at %s is not active yet", c.api.Address())
	}
	return nil
}

// Login logs in with a Kubernetes service account's token.
func (c *Client) Login(ctx context.Context, role, serviceAccountToken string) error {
	path := "auth/" + AuthMount + "/login"
	s, err := c.api.Logical().WriteWithContext(ctx, path, map[string]any{"role": role, "jwt": serviceAccountToken})
	if err != nil {
		return fmt.Errorf("log in to the vault at %s as role %q: %w", c.api.Address(), role, plain(err))
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return fmt.Errorf("log in to the vault at %s as role %q: the answer has no token", c.api.Address(), role)
	}
	c.api.SetToken(s.Auth.ClientToken)
	return nil
}

// SetToken uses a token instead of logging in.
func (c *Client) SetToken(token string) { c.api.SetToken(token) }

// CheckEngines says what is missing of what connectors need: a KV engine of version 2 at Mount and the Kubernetes auth method.
func (c *Client) CheckEngines(ctx context.Context) error {
	mounts, err := c.api.Sys().ListMountsWithContext(ctx)
	if err != nil {
		return fmt.Errorf("list the vault's engines: %w", plain(err))
	}
	m := mounts[Mount+"/"]
	if m == nil || m.Type != "kv" || m.Options["version"] != "2" {
		return fmt.Errorf("the vault has no KV engine of version 2 at %q", Mount)
	}
	auths, err := c.api.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return fmt.Errorf("list the vault's auth methods: %w", plain(err))
	}
	if a := auths[AuthMount+"/"]; a == nil || a.Type != "kubernetes" {
		return fmt.Errorf("the vault has no Kubernetes auth method at %q", AuthMount)
	}
	return nil
}

// Grant is a policy and the role that gives it to service accounts of one namespace. Policy and role have the same name.
type Grant struct {
	Name            string
	Policy          string
	Namespace       string
	ServiceAccounts []string
}

// Ensure writes the grant where it differs.
func (c *Client) Ensure(ctx context.Context, g Grant) error {
	old, err := c.api.Sys().GetPolicyWithContext(ctx, g.Name)
	if err != nil {
		return fmt.Errorf("read policy %s: %w", g.Name, plain(err))
	}
	if old != g.Policy {
		if err := c.api.Sys().PutPolicyWithContext(ctx, g.Name, g.Policy); err != nil {
			return fmt.Errorf("write policy %s: %w", g.Name, plain(err))
		}
	}
	want := map[string]any{
		"bound_service_account_names":      list(g.ServiceAccounts...),
		"bound_service_account_namespaces": list(g.Namespace),
		"audience":                         Audience,
		"token_policies":                   list(g.Name),
		"token_no_default_policy":          false,
	}
	path := "auth/" + AuthMount + "/role/" + g.Name
	s, err := c.api.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return fmt.Errorf("read role %s: %w", g.Name, plain(err))
	}
	if s != nil && contains(s.Data, want) {
		return nil
	}
	write := map[string]any{"token_ttl": "1h", "token_max_ttl": "24h"}
	for k, v := range want {
		write[k] = v
	}
	if _, err := c.api.Logical().WriteWithContext(ctx, path, write); err != nil {
		return fmt.Errorf("write role %s: %w", g.Name, plain(err))
	}
	return nil
}

// Revoke removes a grant; a missing one is no error.
func (c *Client) Revoke(ctx context.Context, name string) error {
	if _, err := c.api.Logical().DeleteWithContext(ctx, "auth/"+AuthMount+"/role/"+name); err != nil {
		return fmt.Errorf("delete role %s: %w", name, plain(err))
	}
	if err := c.api.Sys().DeletePolicyWithContext(ctx, name); err != nil {
		return fmt.Errorf("delete policy %s: %w", name, plain(err))
	}
	return nil
}

// Grants lists the names of the policies that start with prefix.
func (c *Client) Grants(ctx context.Context, prefix string) ([]string, error) {
	names, err := c.api.Sys().ListPoliciesWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the vault's policies: %w", plain(err))
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) }), nil
}

// maxDepth bounds the walk of DeleteTree: <prefix>/<owner>/<kind>/<name> is three below the prefix.
const maxDepth = 6

// DeleteTree removes every secret below prefix of the mount, with all versions.
func (c *Client) DeleteTree(ctx context.Context, prefix string) error {
	return c.deleteTree(ctx, strings.Trim(prefix, "/"), 0)
}

func (c *Client) deleteTree(ctx context.Context, prefix string, depth int) error {
	if prefix == "" || depth > maxDepth {
		return fmt.Errorf("refuse to delete the secrets below %q", prefix)
	}
	s, err := c.api.Logical().ListWithContext(ctx, Mount+"/metadata/"+prefix)
	if err != nil {
		return fmt.Errorf("list the secrets below %s: %w", prefix, plain(err))
	}
	if s == nil {
		return nil
	}
	keys, _ := s.Data["keys"].([]any)
	for _, k := range keys {
		name, _ := k.(string)
		path := prefix + "/" + strings.TrimSuffix(name, "/")
		if strings.HasSuffix(name, "/") {
			err = c.deleteTree(ctx, path, depth+1)
		} else if _, err = c.api.Logical().DeleteWithContext(ctx, Mount+"/metadata/"+path); err != nil {
			err = fmt.Errorf("delete secret %s: %w", path, plain(err))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func list(s ...string) []any {
	out := make([]any, len(s))
	for i, v := range s {
		out[i] = v
	}
	return out
}

func contains(have, want map[string]any) bool {
	for k, v := range want {
		if !reflect.DeepEqual(have[k], v) {
			return false
		}
	}
	return true
}

// plain shortens the client's errors, which repeat the request over several lines.
func plain(err error) error {
	var re *api.ResponseError
	if !errors.As(err, &re) {
		return err
	}
	text := strings.TrimSpace(strings.Join(re.Errors, "; "))
	if text == "" {
		text = http.StatusText(re.StatusCode)
	}
	return fmt.Errorf("answered %d: %s", re.StatusCode, text)
}
