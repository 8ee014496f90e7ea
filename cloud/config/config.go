// SPDX-License-Identifier: FSL-1.1-ALv2

// Package config is the configuration of the cloud program (Cloud API and console): one YAML file, secrets only as file names.
// rbac.yaml holds the least Kubernetes rights that the program needs.
package config

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// RBAC is the Role that the program's service account needs in the platform's namespace.
//
//go:embed rbac.yaml
var RBAC []byte

// Config is the file given by --config.
type Config struct {
	// Listen addresses. Public serves the API and the console over plain HTTP (TLS ends at the gateway); Health serves /livez, /readyz
	// and /metrics.
	Listen Listen `json:"listen"`
	// Namespace of the Platform and all its objects.
	Namespace string `json:"namespace"`
	// APIURL and ConsoleURL are the public addresses, https://api.<domain> and https://console.<domain>.
	APIURL     string  `json:"apiURL"`
	ConsoleURL string  `json:"consoleURL"`
	OIDC       OIDC    `json:"oidc"`
	Console    Console `json:"console"`
	NATS       NATS    `json:"nats"`
}

// Listen holds addresses such as ":8080".
type Listen struct {
	Public string `json:"public"` // default ":8080"
	Health string `json:"health"` // default ":8082"
}

// OIDC is the identity provider's realm.
type OIDC struct {
	Issuer   string `json:"issuer"`   // https://id.<domain>/realms/kaphera
	Audience string `json:"audience"` // default "kaphera-api"
	CAFile   string `json:"caFile"`   // PEM; only these authorities are trusted; empty trusts the system's
	// CLIClientID is told to the CLI for its device flow; default "kaphera-cli".
	CLIClientID string `json:"cliClientID"`
}

// Console is the console's OIDC client (authorization code with PKCE).
type Console struct {
	ClientID         string `json:"clientID"` // default "kaphera-console"
	ClientSecretFile string `json:"clientSecretFile"`
}

// NATS is the way to the cells. The cloud's credentials for each cell's account come from the Secret cellrpc.CredentialsSecret in Namespace.
type NATS struct {
	URL    string `json:"url"`    // nats://host:4222 or tls://host:4222
	CAFile string `json:"caFile"` // PEM of the server's authority, for tls; empty trusts the system's
}

// Load reads, completes and checks a file. Every mistake is told at once, by field.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path) //nolint:gosec // the path is the operator's
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := parse(raw)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func parse(raw []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict(raw, &c); err != nil {
		return Config{}, err
	}
	for field, fallback := range map[*string]string{
		&c.Listen.Public: ":8080", &c.Listen.Health: ":8082", &c.OIDC.Audience: "kaphera-api", &c.OIDC.CLIClientID: "kaphera-cli",
		&c.Console.ClientID: "kaphera-console",
	} {
		if *field == "" {
			*field = fallback
		}
	}
	return c, c.check()
}

func (c Config) check() error {
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"namespace", c.Namespace}, {"apiURL", c.APIURL}, {"consoleURL", c.ConsoleURL}, {"oidc.issuer", c.OIDC.Issuer},
		{"console.clientSecretFile", c.Console.ClientSecretFile}, {"nats.url", c.NATS.URL},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", f.name))
		}
	}
	for _, f := range []struct{ name, value string }{{"apiURL", c.APIURL}, {"consoleURL", c.ConsoleURL}, {"oidc.issuer", c.OIDC.Issuer}} {
		if u, err := url.Parse(f.value); f.value != "" && (err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "127.0.0.1")) {
			errs = append(errs, fmt.Errorf("%s %q is not an https URL", f.name, f.value))
		}
		if strings.HasSuffix(f.value, "/") {
			errs = append(errs, fmt.Errorf("%s %q must not end with a slash", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}
