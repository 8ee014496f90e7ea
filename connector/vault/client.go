// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// Methods of logging in.
const (
	AuthKubernetes = "kubernetes"
	AuthToken      = "token"
	AuthAppRole    = "approle"
	AuthJWT        = "jwt" // with the service account token too, which the vault verifies by keys instead of asking the cluster
)

// Config says where the vault is. Nothing is read from the environment.
type Config struct {
	Address   string // https://vault.example:8200
	Namespace string
	Mount     string // of the KV version 2 engine
	Prefix    string // below the mount; empty = its root
	CAFile    string // PEM; empty = the system's
	CAPEM     string // the same, given as it is
	Name      string // that its certificate is for; empty = the address's
	Auth      Auth
	Access    []Access // what the login is used for; Probe asks whether it may
}

// Auth says how to log in.
type Auth struct {
	Method                  string // kubernetes, jwt, token or approle
	MountPath               string // of the auth method; default is the method's name
	Role                    string
	TokenFile               string
	ServiceAccountTokenFile string
	RoleIDFile              string // of the AppRole method
	SecretIDFile            string
	// ReadFile reads the files above; nil = os.ReadFile.
	ReadFile func(name string) ([]byte, error)
}

const (
	requestTimeout = 10 * time.Second // one attempt
	maxRetries     = 2                // after the first attempt, on connection errors and 5xx
)

// Client is a KV on a real server. It logs in when first used and again before its token ends.
type Client struct {
	cfg Config
	api *api.Client
	now func() time.Time

	mu    sync.Mutex
	until time.Time // when to log in or renew again; zero = not logged in
}

var _ KV = (*Client)(nil)

// New checks the configuration and prepares a client; it connects to nothing.
func New(cfg Config) (*Client, error) {
	switch {
	case cfg.Address == "":
		return nil, errors.New("vault.address: missing")
	case cfg.Mount == "":
		return nil, errors.New("vault.mount: missing; it is the path of the KV version 2 engine, such as kv")
	case (cfg.Auth.Method == AuthKubernetes || cfg.Auth.Method == AuthJWT) && cfg.Auth.Role == "":
		return nil, fmt.Errorf("vault.auth.role: missing; the %s method needs the role to log in as", cfg.Auth.Method)
	case cfg.Auth.Method == AuthToken && cfg.Auth.TokenFile == "":
		return nil, errors.New("vault.auth.tokenFile: missing; the token method needs a file that holds the token")
	case cfg.Auth.Method == AuthAppRole && (cfg.Auth.RoleIDFile == "" || cfg.Auth.SecretIDFile == ""):
		return nil, errors.New("vault.auth: the approle method needs roleIDFile and secretIDFile, files that hold the two")
	case !slices.Contains([]string{AuthKubernetes, AuthJWT, AuthToken, AuthAppRole}, cfg.Auth.Method):
		return nil, fmt.Errorf("vault.auth.method %q: use kubernetes, jwt, token or approle", cfg.Auth.Method)
	}
	if cfg.Auth.MountPath == "" {
		cfg.Auth.MountPath = cfg.Auth.Method
	}
	if cfg.Auth.ServiceAccountTokenFile == "" {
		cfg.Auth.ServiceAccountTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" // #nosec G101 -- a path, no secret
	}
	if cfg.Auth.ReadFile == nil {
		cfg.Auth.ReadFile = os.ReadFile
	}
	cfg.Mount, cfg.Prefix = strings.Trim(cfg.Mount, "/"), strings.Trim(cfg.Prefix, "/")
	ac := api.NewConfig()
	ac.Address, ac.Timeout, ac.MaxRetries = cfg.Address, requestTimeout, maxRetries
	ac.MinRetryWait, ac.MaxRetryWait = 100*time.Millisecond, time.Second
	if err := ac.ConfigureTLS(&api.TLSConfig{CACert: cfg.CAFile, CACertBytes: []byte(cfg.CAPEM), TLSServerName: cfg.Name}); err != nil {
		return nil, fmt.Errorf("vault.caFile %s: %w", cfg.CAFile, err)
	}
	if t, ok := ac.HttpClient.Transport.(*http.Transport); ok {
		t.Proxy = nil
	}
	client, err := api.NewClient(ac)
	if err != nil {
		return nil, fmt.Errorf("vault.address %s: %w", cfg.Address, err)
	}
	client.ClearToken()
	client.ClearNamespace()
	if cfg.Namespace != "" {
		client.SetNamespace(cfg.Namespace)
	}
	return &Client{cfg: cfg, api: client, now: time.Now}, nil
}

// Read implements KV.
func (c *Client) Read(ctx context.Context, path string) (map[string]string, error) {
	var out map[string]string
	err := c.do(ctx, func(kv *api.KVv2) error {
		secret, err := kv.Get(ctx, c.path(path))
		if errors.Is(err, api.ErrSecretNotFound) || (err == nil && secret.Data == nil) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		out = make(map[string]string, len(secret.Data))
		for k, v := range secret.Data {
			if s, ok := v.(string); ok {
				out[k] = s
			}
		}
		return nil
	})
	return out, err
}

// Create implements KV by check-and-set.
func (c *Client) Create(ctx context.Context, path string, data map[string]string) error {
	return c.do(ctx, func(kv *api.KVv2) error {
		_, err := kv.Put(ctx, c.path(path), anyMap(data), api.WithCheckAndSet(0))
		var re *api.ResponseError
		if errors.As(err, &re) && re.StatusCode == http.StatusBadRequest && strings.Contains(strings.Join(re.Errors, " "), "check-and-set") {
			return ErrExists
		}
		return err
	})
}

// Write implements KV.
func (c *Client) Write(ctx context.Context, path string, data map[string]string) error {
	return c.do(ctx, func(kv *api.KVv2) error {
		_, err := kv.Put(ctx, c.path(path), anyMap(data))
		return err
	})
}

// Delete implements KV.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.do(ctx, func(kv *api.KVv2) error { return kv.DeleteMetadata(ctx, c.path(path)) })
}

// List implements KV.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	var names []string
	err := c.do(ctx, func(*api.KVv2) error {
		secret, err := c.api.Logical().ListWithContext(ctx, c.cfg.Mount+"/metadata/"+c.path(path))
		if err != nil || secret == nil {
			return err
		}
		keys, _ := secret.Data["keys"].([]any)
		for _, k := range keys {
			if name, ok := k.(string); ok {
				names = append(names, name)
			}
		}
		return nil
	})
	return names, err
}

func (c *Client) path(path string) string {
	if c.cfg.Prefix == "" {
		return path
	}
	return c.cfg.Prefix + "/" + path
}

// do runs one call with a valid token, and once more after a new login when the token turns out to be refused.
func (c *Client) do(ctx context.Context, call func(*api.KVv2) error) error {
	for attempt := 0; ; attempt++ {
		if err := c.Login(ctx); err != nil {
			return err
		}
		err := call(c.api.KVv2(c.cfg.Mount))
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
			return err
		}
		if attempt == 0 && status(err) == http.StatusForbidden {
			c.mu.Lock()
			c.until = time.Time{}
			c.mu.Unlock()
			continue
		}
		return fmt.Errorf("vault %s, mount %s: %w", c.cfg.Address, c.cfg.Mount, explain(err))
	}
}

// Login makes sure of a token that lives for a while.
func (c *Client) Login(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Before(c.until) {
		return nil
	}
	var ttl time.Duration
	var err error
	switch c.cfg.Auth.Method {
	case AuthKubernetes, AuthJWT:
		ttl, err = c.loginServiceAccount(ctx)
	case AuthAppRole:
		ttl, err = c.loginAppRole(ctx)
	default:
		ttl, err = c.loginToken(ctx)
	}
	if err != nil {
		return err
	}
	if ttl <= 0 { // a token without end; look again now and then, since its file may have been replaced
		ttl = time.Hour
	}
	c.until = c.now().Add(ttl * 2 / 3)
	return nil
}

func (c *Client) loginServiceAccount(ctx context.Context) (time.Duration, error) {
	jwt, err := c.secretFile("vault.auth.serviceAccountTokenFile", c.cfg.Auth.ServiceAccountTokenFile)
	if err != nil {
		return 0, err
	}
	return c.exchange(ctx, map[string]any{"role": c.cfg.Auth.Role, "jwt": jwt}, fmt.Sprintf("as role %q", c.cfg.Auth.Role),
		"vault.auth.role and the service accounts and audience that the role is bound to")
}

func (c *Client) loginAppRole(ctx context.Context) (time.Duration, error) {
	role, err := c.secretFile("vault.auth.roleIDFile", c.cfg.Auth.RoleIDFile)
	if err != nil {
		return 0, err
	}
	secret, err := c.secretFile("vault.auth.secretIDFile", c.cfg.Auth.SecretIDFile)
	if err != nil {
		return 0, err
	}
	return c.exchange(ctx, map[string]any{"role_id": role, "secret_id": secret}, "with the role id of "+c.cfg.Auth.RoleIDFile,
		"that the secret id has not ended, and that the role allows it from here")
}

// exchange logs in with what proves who this is, and keeps the token. as and check say in an error who that was and what to look at.
func (c *Client) exchange(ctx context.Context, proof map[string]any, as, check string) (time.Duration, error) {
	// A clone carries no token: one that has ended would be sent along, and other calls go on with theirs meanwhile.
	anonymous, err := c.api.Clone()
	if err != nil {
		return 0, fmt.Errorf("log in to vault %s: %w", c.cfg.Address, err)
	}
	anonymous.SetNamespace(c.cfg.Namespace)
	secret, err := anonymous.Logical().WriteWithContext(ctx, "auth/"+strings.Trim(c.cfg.Auth.MountPath, "/")+"/login", proof)
	if err != nil {
		return 0, fmt.Errorf("log in to vault %s%s with the %s method at auth/%s %s: %w; check vault.auth.mountPath, %s",
			c.cfg.Address, c.inNamespace(), c.cfg.Auth.Method, c.cfg.Auth.MountPath, as, explain(err), check)
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return 0, fmt.Errorf("log in to vault %s at auth/%s: the answer holds no token", c.cfg.Address, c.cfg.Auth.MountPath)
	}
	c.api.SetToken(secret.Auth.ClientToken)
	return time.Duration(secret.Auth.LeaseDuration) * time.Second, nil
}

// secretFile reads a secret of one line.
func (c *Client) secretFile(setting, path string) (string, error) {
	raw, err := c.cfg.Auth.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "", fmt.Errorf("%s %s is empty", setting, path)
	}
	return text, nil
}

func (c *Client) loginToken(ctx context.Context) (time.Duration, error) {
	token, err := c.secretFile("vault.auth.tokenFile", c.cfg.Auth.TokenFile)
	if err != nil {
		return 0, err
	}
	c.api.SetToken(token)
	self, err := c.api.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("vault %s%s refuses the token of %s: %w", c.cfg.Address, c.inNamespace(), c.cfg.Auth.TokenFile, explain(err))
	}
	if renewable, err := self.TokenIsRenewable(); err == nil && renewable {
		if renewed, err := c.api.Auth().Token().RenewSelfWithContext(ctx, 0); err == nil {
			self = renewed
		}
	}
	ttl, err := self.TokenTTL()
	if err != nil {
		return 0, fmt.Errorf("vault %s: lifetime of the token of %s: %w", c.cfg.Address, c.cfg.Auth.TokenFile, err)
	}
	return ttl, nil
}

func anyMap(in map[string]string) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

func status(err error) int {
	var re *api.ResponseError
	if errors.As(err, &re) {
		return re.StatusCode
	}
	return 0
}
