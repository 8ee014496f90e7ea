// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// Methods of logging in.
const (
	AuthKubernetes = "kubernetes"
	AuthToken      = "token"
)

// Config says where the vault is. Nothing is read from the environment.
type Config struct {
	Address   string // https://vault.example:8200
	Namespace string
	Mount     string // of the KV version 2 engine
	Prefix    string // below the mount; empty = its root
	CAFile    string // PEM; empty = the system's
	Auth      Auth
	Access    []Access // what the login is used for; Probe asks whether it may
}

// Auth says how to log in.
type Auth struct {
	Method                  string // kubernetes or token
	MountPath               string // of the Kubernetes auth method; default "kubernetes"
	Role                    string
	TokenFile               string
	ServiceAccountTokenFile string
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
	case cfg.Auth.Method == AuthKubernetes && cfg.Auth.Role == "":
		return nil, errors.New("vault.auth.role: missing; the kubernetes method needs the role to log in as")
	case cfg.Auth.Method == AuthToken && cfg.Auth.TokenFile == "":
		return nil, errors.New("vault.auth.tokenFile: missing; the token method needs a file that holds the token")
	case cfg.Auth.Method != AuthKubernetes && cfg.Auth.Method != AuthToken:
		return nil, fmt.Errorf("vault.auth.method %q: use kubernetes or token", cfg.Auth.Method)
	}
	if cfg.Auth.MountPath == "" {
		cfg.Auth.MountPath = "kubernetes"
	}
	if cfg.Auth.ServiceAccountTokenFile == "" {
		cfg.Auth.ServiceAccountTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" // #nosec G101 -- a path, no secret
	}
	cfg.Mount, cfg.Prefix = strings.Trim(cfg.Mount, "/"), strings.Trim(cfg.Prefix, "/")
	ac := api.NewConfig()
	ac.Address, ac.Timeout, ac.MaxRetries = cfg.Address, requestTimeout, maxRetries
	ac.MinRetryWait, ac.MaxRetryWait = 100*time.Millisecond, time.Second
	if err := ac.ConfigureTLS(&api.TLSConfig{CACert: cfg.CAFile}); err != nil {
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
		if err := c.login(ctx); err != nil {
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

// login makes sure of a token that lives for a while.
func (c *Client) login(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Before(c.until) {
		return nil
	}
	var ttl time.Duration
	var err error
	if c.cfg.Auth.Method == AuthKubernetes {
		ttl, err = c.loginKubernetes(ctx)
	} else {
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

func (c *Client) loginKubernetes(ctx context.Context) (time.Duration, error) {
	jwt, err := os.ReadFile(c.cfg.Auth.ServiceAccountTokenFile)
	if err != nil {
		return 0, fmt.Errorf("vault.auth.serviceAccountTokenFile: %w", err)
	}
	// A clone carries no token: one that has ended would be sent along, and other calls go on with theirs meanwhile.
	anonymous, err := c.api.Clone()
	if err != nil {
		return 0, fmt.Errorf("log in to vault %s: %w", c.cfg.Address, err)
	}
	anonymous.SetNamespace(c.cfg.Namespace)
	secret, err := anonymous.Logical().WriteWithContext(ctx, "auth/"+strings.Trim(c.cfg.Auth.MountPath, "/")+"/login",
		map[string]any{"role": c.cfg.Auth.Role, "jwt": strings.TrimSpace(string(jwt))})
	if err != nil {
		return 0, fmt.Errorf("log in to vault %s%s with the kubernetes method at auth/%s as role %q: %w; check vault.auth.mountPath, vault.auth.role and the service accounts the role is bound to",
			c.cfg.Address, c.inNamespace(), c.cfg.Auth.MountPath, c.cfg.Auth.Role, explain(err))
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return 0, fmt.Errorf("log in to vault %s at auth/%s: the answer holds no token", c.cfg.Address, c.cfg.Auth.MountPath)
	}
	c.api.SetToken(secret.Auth.ClientToken)
	return time.Duration(secret.Auth.LeaseDuration) * time.Second, nil
}

func (c *Client) loginToken(ctx context.Context) (time.Duration, error) {
	raw, err := os.ReadFile(c.cfg.Auth.TokenFile)
	if err != nil {
		return 0, fmt.Errorf("vault.auth.tokenFile: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return 0, fmt.Errorf("vault.auth.tokenFile %s is empty", c.cfg.Auth.TokenFile)
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
