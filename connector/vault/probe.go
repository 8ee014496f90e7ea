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
// works, the mount exists and is KV version 2, and the policy allows what Config.Access says below the prefix. The error says which of
// these fails, with the values tried and what to do. It reads no secret and writes nothing.
func (c *Client) Probe(ctx context.Context) error {
	for _, check := range []func(context.Context) error{c.checkStatus, c.Login, c.CheckMount, c.CheckPolicy} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkStatus says what is wrong with a server that does not answer, is not initialised or is sealed.
func (c *Client) checkStatus(ctx context.Context) error {
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
	return nil
}

// CheckMount looks the mount up in the list of mounts that the login may see, and names those when it is not there; a login that may not see
// the list leaves the check to CheckPolicy.
func (c *Client) CheckMount(ctx context.Context) error {
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
		if slices.Contains([]string{"system", "identity", "cubbyhole"}, kind) {
			continue // in every vault
		}
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
	// The token sees a mount when a policy of it names a path in it.
	if len(names) == 0 {
		names = []string{"none"}
	}
	sort.Strings(names)
	return fmt.Errorf("vault.mount %q: no such mount that this login can see at %s%s; it sees: %s", c.cfg.Mount, c.cfg.Address, c.inNamespace(), strings.Join(names, ", "))
}

// CheckPolicy asks which capabilities the login has on a path of each kind that it needs.
func (c *Client) CheckPolicy(ctx context.Context) error {
	var missing []string
	for _, a := range c.cfg.Access {
		for _, n := range needs[a] {
			path := strings.Join([]string{c.cfg.Mount, n.tree, c.path("probe"), n.kind, "probe"}, "/")
			got, err := c.api.Sys().CapabilitiesSelfWithContext(ctx, path)
			if err != nil {
				return fmt.Errorf("vault %s%s: asking for the capabilities of %s: %w; its policy must allow update on sys/capabilities-self", c.cfg.Address, c.inNamespace(), c.who(), explain(err))
			}
			lacking := slices.DeleteFunc(strings.Fields(n.capabilities), func(want string) bool { return slices.Contains(got, want) || slices.Contains(got, "root") })
			if len(lacking) > 0 {
				missing = append(missing, strings.Join(lacking, ", ")+" on "+path)
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("vault %s%s: the policy for %s lacks %s (the policy needs the same for every owner and name in place of \"probe\")",
			c.cfg.Address, c.inNamespace(), c.who(), strings.Join(missing, " and "))
	}
	return nil
}

// CheckConfined asks whether the login may do anything beside the prefix, in a path that begins like it, and says what that is.
func (c *Client) CheckConfined(ctx context.Context) error {
	var more []string
	for _, tree := range []string{"data", "metadata"} {
		for _, kind := range []string{"keys", "secrets"} {
			path := strings.Join([]string{c.cfg.Mount, tree, c.cfg.Prefix + "-beside/probe", kind, "probe"}, "/")
			got, err := c.api.Sys().CapabilitiesSelfWithContext(ctx, path)
			if err != nil {
				return fmt.Errorf("vault %s%s: asking for the capabilities of %s: %w; its policy must allow update on sys/capabilities-self", c.cfg.Address, c.inNamespace(), c.who(), explain(err))
			}
			if !slices.Equal(got, []string{"deny"}) {
				more = append(more, strings.Join(got, ", ")+" on "+path)
			}
		}
	}
	if len(more) > 0 {
		return fmt.Errorf("vault %s%s: the policy for %s reaches beyond %s/%s: it has %s", c.cfg.Address, c.inNamespace(), c.who(), c.cfg.Mount, c.cfg.Prefix, strings.Join(more, " and "))
	}
	return nil
}

func (c *Client) who() string {
	switch c.cfg.Auth.Method {
	case AuthKubernetes, AuthJWT:
		return fmt.Sprintf("role %q", c.cfg.Auth.Role)
	case AuthAppRole:
		return "the role id of " + c.cfg.Auth.RoleIDFile
	}
	return "the token of " + c.cfg.Auth.TokenFile
}

func (c *Client) inNamespace() string {
	if c.cfg.Namespace == "" {
		return ""
	}
	return fmt.Sprintf(" (namespace %q)", c.cfg.Namespace)
}

// AnswerError is what the vault answered to a call that it did not do.
type AnswerError struct {
	Status int
	Text   string
}

// Error implements error.
func (e *AnswerError) Error() string { return fmt.Sprintf("answered %d: %s", e.Status, e.Text) }

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
		return &AnswerError{re.StatusCode, strings.TrimSpace(text)}
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
