// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/openbao/openbao/api/v2"
)

// Probe checks everything that a connector will need, before anything depends on it: the server answers and is unsealed, the login
// works, the mount exists and is KV version 2, and the policy allows reading and writing below the prefix. The error says which of
// these fails, with the values tried and what to do. It writes nothing.
func (c *Client) Probe(ctx context.Context) error {
	outside, err := c.api.Clone() // health is asked for outside of any namespace
	if err != nil {
		return fmt.Errorf("vault.address %s: %w", c.cfg.Address, err)
	}
	outside.ClearNamespace()
	health, err := outside.Sys().HealthWithContext(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("vault.address %s: %w", c.cfg.Address, explain(err))
	case !health.Initialized:
		return fmt.Errorf("vault %s is not initialised: run its operator init first", c.cfg.Address)
	case health.Sealed:
		return fmt.Errorf("vault %s is sealed: unseal it first", c.cfg.Address)
	}
	if err := c.login(ctx); err != nil {
		return err
	}
	if err := c.probeMount(ctx); err != nil {
		return err
	}
	return c.probePolicy(ctx)
}

// probeMount reads the list of mounts that the token may see; a token that may not see it leaves the check to probePolicy.
func (c *Client) probeMount(ctx context.Context) error {
	secret, err := c.api.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts")
	if err != nil || secret == nil {
		return nil //nolint:nilerr // listing is a help, not a need
	}
	mounts, _ := secret.Data["secret"].(map[string]any)
	var names []string
	for name, m := range mounts {
		info, _ := m.(map[string]any)
		options, _ := info["options"].(map[string]any)
		kind := fmt.Sprint(info["type"])
		isKV2 := kind == "kv" && options["version"] == "2"
		if strings.Trim(name, "/") != c.cfg.Mount {
			if isKV2 {
				kind = "kv version 2"
			}
			names = append(names, strings.Trim(name, "/")+" ("+kind+")")
			continue
		}
		if !isKV2 {
			return fmt.Errorf("vault.mount %q of %s is of type %s, version %v: the connector needs a KV engine of version 2", c.cfg.Mount, c.cfg.Address, kind, options["version"])
		}
		return nil
	}
	if len(names) == 0 {
		return nil
	}
	// The token sees some mounts and not this one: it does not exist, or no policy of the token names a path in it.
	sort.Strings(names)
	return fmt.Errorf("vault.mount %q: no such mount that this login can see at %s%s; it sees: %s", c.cfg.Mount, c.cfg.Address, c.inNamespace(), strings.Join(names, ", "))
}

func (c *Client) probePolicy(ctx context.Context) error {
	path := c.cfg.Mount + "/data/" + c.path("probe/keys/probe")
	need := []string{"create", "read", "update"}
	if _, err := c.api.KVv2(c.cfg.Mount).Get(ctx, c.path("probe/keys/probe")); err != nil && !errors.Is(err, api.ErrSecretNotFound) {
		if status(err) == http.StatusForbidden {
			return fmt.Errorf("vault %s%s refuses to read %s: its policy for %s needs %s on %s/* (and delete on %s/metadata/%s/*), or vault.mount or vault.prefix is wrong",
				c.cfg.Address, c.inNamespace(), path, c.who(), strings.Join(need, ", "), strings.TrimSuffix(path, "/probe/keys/probe"), c.cfg.Mount, c.cfg.Prefix)
		}
		return fmt.Errorf("vault.mount %q, reading %s at %s%s: %w; check that the mount exists and is a KV engine of version 2", c.cfg.Mount, path, c.cfg.Address, c.inNamespace(), explain(err))
	}
	got, err := c.api.Sys().CapabilitiesSelfWithContext(ctx, path)
	if err != nil {
		return nil //nolint:nilerr // not every policy allows asking; the read above has passed
	}
	if slices.Contains(got, "root") {
		return nil
	}
	var missing []string
	for _, n := range need {
		if !slices.Contains(got, n) {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("vault %s%s: the policy for %s lacks %s on %s", c.cfg.Address, c.inNamespace(), c.who(), strings.Join(missing, ", "), path)
	}
	return nil
}

func (c *Client) who() string {
	if c.cfg.Auth.Method == AuthKubernetes {
		return fmt.Sprintf("role %q", c.cfg.Auth.Role)
	}
	return "the token of " + c.cfg.Auth.TokenFile
}

func (c *Client) inNamespace() string {
	if c.cfg.Namespace == "" {
		return ""
	}
	return fmt.Sprintf(" (namespace %q)", c.cfg.Namespace)
}

// explain turns the client's errors, which span lines and repeat the URL, into one sentence.
func explain(err error) error {
	var re *api.ResponseError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.As(err, &re):
		text := strings.Join(re.Errors, "; ")
		if text == "" {
			text = http.StatusText(re.StatusCode)
		}
		return fmt.Errorf("answered %d: %s", re.StatusCode, strings.TrimSpace(text))
	case errors.As(err, &unknown):
		return fmt.Errorf("its certificate is not signed by a known authority: set vault.caFile to the one that signed it: %w", unknown)
	case errors.As(err, &name):
		return fmt.Errorf("its certificate is for another name: %w", name)
	case errors.As(err, &dns):
		return fmt.Errorf("the host name is not known: %w", dns)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return errors.New("it answers plain HTTP: use an http:// address, or give it a certificate")
	}
	return err
}
