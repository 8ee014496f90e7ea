// SPDX-License-Identifier: FSL-1.1-ALv2

// Package openbao administers an OpenBao or Vault: policies, roles of the auth method by which connectors log in, and the removal of what a cell left
// behind. It writes no secret of a connector.
package openbao

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/connector/vault"
)

// Names inside the managed Vault.
const (
	Mount     = "kv"
	AuthMount = "kubernetes"
	// OperatorRole is the Cloud operator's own role and policy.
	OperatorRole = "cloud-operator"
)

const (
	// Audience of the service account tokens that log in: a token for the API server opens nothing here, and the other way round.
	Audience = "vault"
)

// ErrSealed, ErrUninitialised and ErrStandby say why a Vault that answers does not work, or that it passes on to another one what it is asked.
var (
	ErrSealed        = errors.New("is sealed")
	ErrUninitialised = errors.New("is not initialised")
	ErrStandby       = errors.New("is not active yet")
)

// Place is where in which Vault the platform is at home.
type Place struct {
	Address   string // URL
	Namespace string
	Mount     string // of the KV version 2 engine
	// Method by which connectors log in, vault.AuthKubernetes or vault.AuthJWT, and where it is.
	Method, AuthMount string
	// Platform marks the policies that are made as this platform's; those of another one are left alone.
	Platform string
}

// Managed is the Vault that the operator runs.
func Managed(address, platform string) Place {
	return Place{Address: address, Mount: Mount, Method: vault.AuthKubernetes, AuthMount: AuthMount, Platform: platform}
}

// Client is an administrator.
type Client struct {
	api     *api.Client
	place   Place
	session bool // it has a token that was made for it alone
}

// New makes a client without a token.
func New(p Place, tlsConfig *tls.Config) (*Client, error) {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, fmt.Errorf("vault client: %w", cfg.Error)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	cfg.Address, cfg.Timeout, cfg.MaxRetries = p.Address, 10*time.Second, 1
	cfg.HttpClient = &http.Client{Transport: transport, Timeout: cfg.Timeout}
	c, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("vault client for %s: %w", p.Address, err)
	}
	c.ClearToken() // the environment's token is not meant for this
	c.ClearNamespace()
	if p.Namespace != "" {
		c.SetNamespace(p.Namespace)
	}
	return &Client{api: c, place: p}, nil
}

// Health returns nil when the Vault is initialised, unsealed and active. The error wraps ErrSealed, ErrUninitialised or ErrStandby when it is that.
func (c *Client) Health(ctx context.Context) error {
	outside, err := c.api.Clone() // health is asked for outside of any namespace
	if err != nil {
		return fmt.Errorf("vault at %s: %w", c.api.Address(), err)
	}
	outside.ClearNamespace()
	h, err := outside.Sys().HealthWithContext(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("vault at %s: %w", c.api.Address(), err)
	case !h.Initialized:
		return fmt.Errorf("vault at %s %w", c.api.Address(), ErrUninitialised)
	case h.Sealed:
		return fmt.Errorf("vault at %s %w", c.api.Address(), ErrSealed)
	case h.Standby:
		return fmt.Errorf("vault at %s %w", c.api.Address(), ErrStandby)
	}
	return nil
}

// Login is how the operator proves who it is.
type Login struct {
	Method    string // of connector/vault
	MountPath string // of the auth method
	Role, JWT string // AuthKubernetes and AuthJWT: JWT is the service account's token
	// AuthAppRole.
	RoleID, SecretID string
	// AuthToken.
	Token string
}

// Login logs in. The error is a *fault.Error when the Vault refuses it.
func (c *Client) Login(ctx context.Context, l Login) error {
	path, proof := "auth/"+strings.Trim(l.MountPath, "/")+"/login", map[string]any{}
	what := fmt.Sprintf("log in to the vault at %s by %s as role %q", c.place.Address, path, l.Role)
	switch l.Method {
	case vault.AuthToken:
		c.api.SetToken(l.Token)
		what = "log in to the vault at " + c.place.Address + " by a token"
		self, err := c.api.Auth().Token().LookupSelfWithContext(ctx)
		if err != nil {
			return refused(what, err)
		}
		if renewable, err := self.TokenIsRenewable(); err == nil && renewable {
			if _, err := c.api.Auth().Token().RenewSelfWithContext(ctx, 0); err != nil {
				return refused(what+", which is to be renewed", err)
			}
		}
		return nil
	case vault.AuthAppRole:
		what = fmt.Sprintf("log in to the vault at %s by %s", c.place.Address, path)
		proof["role_id"], proof["secret_id"] = l.RoleID, l.SecretID
	default:
		proof["role"], proof["jwt"] = l.Role, l.JWT
	}
	s, err := c.api.Logical().WriteWithContext(ctx, path, proof)
	if err != nil {
		return refused(what, err)
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return fmt.Errorf("%s: the answer has no token", what)
	}
	c.api.SetToken(s.Auth.ClientToken)
	c.session = true
	return nil
}

// refused tells a login that was refused from one that failed. OpenBao refuses an unknown role id by 500 too, as it does what it cannot do.
func refused(what string, err error) error {
	var re *api.ResponseError
	if !errors.As(err, &re) || re.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s: %w", what, plain(err))
	}
	return fault.Login("check the method, its mountPath, the namespace, and that what the operator logs in with is valid and bound to it", "%s: %v", what, plain(err))
}

// Mount is the path of the KV version 2 engine.
func (c *Client) Mount() string { return c.place.Mount }

// Close ends the login.
func (c *Client) Close(ctx context.Context) {
	if c.session { // a batch token cannot be revoked, and ends soon
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = c.api.Auth().Token().RevokeSelfWithContext(ctx, "")
	}
}

// Check says what is missing of what connectors and the operator need: a KV engine of version 2, the auth method, and rights.
func (c *Client) Check(ctx context.Context) error {
	mounts, err := c.api.Sys().ListMountsWithContext(ctx)
	if err != nil {
		return cmp.Or(c.checkRights(ctx), fmt.Errorf("list the vault's engines: %w", plain(err)))
	}
	m := mounts[c.place.Mount+"/"]
	if m == nil || m.Type != "kv" || m.Options["version"] != "2" {
		return fault.Right("correct the mount, or make one there: bao secrets enable -path="+c.place.Mount+" kv-v2",
			"the vault has no KV engine of version 2 at %q; its engines are %s", c.place.Mount, strings.Join(slices.Sorted(maps.Keys(mounts)), " "))
	}
	auths, err := c.api.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return cmp.Or(c.checkRights(ctx), fmt.Errorf("list the vault's auth methods: %w", plain(err)))
	}
	if a := auths[c.place.AuthMount+"/"]; a == nil || a.Type != c.place.Method {
		return fault.Right(fmt.Sprintf("correct the mountPath of the connectors' auth method, or enable it there: bao auth enable -path=%s %s", c.place.AuthMount, c.place.Method),
			"the vault has no auth method %s at %q; its auth methods are %s", c.place.Method, c.place.AuthMount, strings.Join(slices.Sorted(maps.Keys(auths)), " "))
	}
	return c.checkRights(ctx)
}

// Grant is a policy and the role that gives it to a service account. Policy and role have the same name.
type Grant struct {
	Name           string
	Policy         string
	Namespace      string
	ServiceAccount string
	// Life of its tokens; empty is an hour, to be renewed for a day.
	Life time.Duration
}

// Ensure writes the grant where it differs.
func (c *Client) Ensure(ctx context.Context, g Grant) error {
	old, err := c.policy(ctx, g.Name)
	if err != nil {
		return err
	}
	if text := mark + c.place.Platform + "\n" + g.Policy; old != text {
		if err := c.api.Sys().PutPolicyWithContext(ctx, g.Name, text); err != nil {
			return fmt.Errorf("write policy %s: %w", g.Name, plain(err))
		}
	}
	want := map[string]any{"token_policies": list(g.Name), "token_no_default_policy": false}
	if c.place.Method == vault.AuthJWT {
		want["role_type"], want["user_claim"], want["bound_audiences"] = "jwt", "sub", list(Audience)
		want["bound_subject"] = "system:serviceaccount:" + g.Namespace + ":" + g.ServiceAccount
	} else {
		want["bound_service_account_names"], want["bound_service_account_namespaces"], want["audience"] = list(g.ServiceAccount), list(g.Namespace), Audience
	}
	path := "auth/" + c.place.AuthMount + "/role/" + g.Name
	s, err := c.api.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return fmt.Errorf("read role %s: %w", g.Name, plain(err))
	}
	if s != nil && contains(s.Data, want) {
		return nil
	}
	write := map[string]any{"token_ttl": "1h", "token_max_ttl": "24h"}
	if g.Life > 0 {
		write["token_ttl"], write["token_max_ttl"] = g.Life.String(), g.Life.String()
	}
	for k, v := range want {
		write[k] = v
	}
	if _, err := c.api.Logical().WriteWithContext(ctx, path, write); err != nil {
		return fmt.Errorf("write role %s: %w", g.Name, plain(err))
	}
	return nil
}

// mark and the platform are the first line of a policy.
const mark = "# Kaphera platform "

// policy reads one; empty when there is none. The error is a *fault.Error when it is another platform's.
func (c *Client) policy(ctx context.Context, name string) (string, error) {
	text, err := c.api.Sys().GetPolicyWithContext(ctx, name)
	if err != nil {
		return "", fmt.Errorf("read policy %s: %w", name, plain(err))
	}
	first, _, _ := strings.Cut(text, "\n")
	if other, marked := strings.CutPrefix(first, mark); marked && other != c.place.Platform {
		return "", fault.Right("give each platform a Vault, or a namespace, of its own", "policy %s in the vault at %s is that of platform %s", name, c.place.Address, other)
	}
	return text, nil
}

// Remove removes grants, and every secret below prefix of the mount, with all versions. What is not there, or another platform's, is no error.
func (c *Client) Remove(ctx context.Context, prefix string, grants ...string) error {
	for _, name := range grants {
		var other *fault.Error
		if _, err := c.policy(ctx, name); errors.As(err, &other) {
			return nil
		} else if err != nil {
			return err
		}
	}
	// The policies last: they say whose the secrets are.
	if err := c.deleteTree(ctx, strings.Trim(prefix, "/"), 0); err != nil {
		return err
	}
	for _, name := range grants {
		if err := c.delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Revoke takes a grant back: who is logged in with it may do nothing any more. One that is not there is no error.
func (c *Client) Revoke(ctx context.Context, name string) error {
	if text, err := c.policy(ctx, name); text == "" || err != nil {
		return err
	}
	return c.delete(ctx, name)
}

// delete deletes the role and the policy of a grant, in this order: the policy's being there says that there is something to delete.
func (c *Client) delete(ctx context.Context, grant string) error {
	if _, err := c.api.Logical().DeleteWithContext(ctx, "auth/"+c.place.AuthMount+"/role/"+grant); err != nil {
		return fmt.Errorf("delete role %s: %w", grant, plain(err))
	}
	if err := c.api.Sys().DeletePolicyWithContext(ctx, grant); err != nil {
		return fmt.Errorf("delete policy %s: %w", grant, plain(err))
	}
	return nil
}

// maxDepth bounds the walk of DeleteTree: <prefix>/<owner>/<kind>/<name> is three below the prefix.
const maxDepth = 6

func (c *Client) deleteTree(ctx context.Context, prefix string, depth int) error {
	if prefix == "" || depth > maxDepth {
		return fmt.Errorf("refuse to delete the secrets below %q", prefix)
	}
	s, err := c.api.Logical().ListWithContext(ctx, c.place.Mount+"/metadata/"+prefix)
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
		} else if _, err = c.api.Logical().DeleteWithContext(ctx, c.place.Mount+"/metadata/"+path); err != nil {
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
