// SPDX-License-Identifier: Apache-2.0

// Package config reads the configuration file of a connector. Secrets are never in it, only the paths of files that hold them.
// It holds data, its validation and the reading of those files; no role's behaviour.
package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/netguard"
)

// ShutdownGrace is how long the requests under way have when a process is told to end. A long poll takes less.
const ShutdownGrace = 30 * time.Second

// Config is the file given by --config. One file serves every role; a role ignores what it does not use.
type Config struct {
	// PublicURL is the base of everything public of this connector, https://shared.demo.example.
	PublicURL  string     `json:"publicURL"`
	Listen     Listen     `json:"listen"`
	Database   Database   `json:"database"`
	Vault      Vault      `json:"vault"`
	Trust      Trust      `json:"trust"`
	Internal   Internal   `json:"internal"`
	Management Management `json:"management"`
	Verifier   Verifier   `json:"verifier"`
	Protocol   Protocol   `json:"protocol"`
	DataPlane  DataPlane  `json:"dataPlane"`
	Audit      Audit      `json:"audit"`
	// PerParticipant is the share of each participant context (or issuer) of a process.
	PerParticipant PerParticipant `json:"perParticipant"`
}

// Listen holds the addresses of a process; plain HTTP, TLS ends at the gateway. Roles of one process share them.
type Listen struct {
	Public   string `json:"public"`   // default ":8080"
	Internal string `json:"internal"` // default ":8081"
	Health   string `json:"health"`   // default ":8082": /livez /readyz /metrics
	// Management serves the EDC Management API alone, for callers that must not reach the internal APIs; empty for nowhere but among these.
	Management string `json:"management"`
}

// Database is the connector's PostgreSQL database.
type Database struct {
	Host         string `json:"host"`
	Port         int    `json:"port"` // default 5432
	Name         string `json:"name"`
	User         string `json:"user"`
	PasswordFile string `json:"passwordFile"`
	SSLMode      string `json:"sslMode"` // as libpq spells it: verify-full (default), verify-ca, require or disable
	CAFile       string `json:"caFile"`
	Roles        Roles  `json:"roles"`
	MaxConns     int32  `json:"maxConnections"` // default DefaultMaxConns
}

// DefaultMaxConns is how many connections a process keeps at most.
const DefaultMaxConns = 10

// Roles names the database roles to which `connector migrate` grants each schema; empty means the migrating user serves it too.
type Roles struct {
	ControlPlane string `json:"controlPlane"`
	Wallet       string `json:"wallet"`
	DataPlane    string `json:"dataPlane"`
	Issuer       string `json:"issuer"`
}

// Vault is a Vault or OpenBao with a KV version 2 engine.
type Vault struct {
	Address   string    `json:"address"`
	Namespace string    `json:"namespace"`
	Mount     string    `json:"mount"`  // default "kv"
	Prefix    string    `json:"prefix"` // connectors/<name>
	CAFile    string    `json:"caFile"`
	Auth      VaultAuth `json:"auth"`
}

// VaultAuth says how to log in.
type VaultAuth struct {
	Method                  string `json:"method"`    // kubernetes, jwt, token or approle
	MountPath               string `json:"mountPath"` // default is the method's name
	Role                    string `json:"role"`
	TokenFile               string `json:"tokenFile"`
	ServiceAccountTokenFile string `json:"serviceAccountTokenFile"`
	RoleIDFile              string `json:"roleIDFile"` // of approle
	SecretIDFile            string `json:"secretIDFile"`
}

// Trust says which servers are spoken to and believed.
type Trust struct {
	CAFile string `json:"caFile"` // PEM; in addition to the system's
	// AllowPlainHTTP resolves did:web over plain HTTP, and takes and sends tokens to http addresses of others. For tests. A connector whose
	// own publicURL is http takes those addresses anyway.
	AllowPlainHTTP bool `json:"allowPlainHTTP"`
	// AllowPrivateNetworks lets outgoing protocol calls reach private addresses and, where plain HTTP is taken, loopback ones.
	AllowPrivateNetworks bool `json:"allowPrivateNetworks"`
}

// Internal is how the roles of one connector reach each other. Each token opens the internal API of one role, so that who has a role has no other.
type Internal struct {
	TokenFile string `json:"tokenFile"` // opens the internal APIs of this process
	// WalletTokenFile and DataPlaneTokenFile open those of the wallet and of the data plane, with which the data plane also asks the control plane
	// whether an access is allowed. Default tokenFile.
	WalletTokenFile    string `json:"walletTokenFile"`
	DataPlaneTokenFile string `json:"dataPlaneTokenFile"`
	WalletURL          string `json:"walletURL"`
	DataPlaneURL       string `json:"dataPlaneURL"`
	ControlPlaneURL    string `json:"controlPlaneURL"`
}

// Management is the EDC Management API. Without key and OAuth 2 it is not served.
type Management struct {
	APIKeyFile string `json:"apiKeyFile"` // opens everything
	OAuth2     OAuth2 `json:"oauth2"`
}

// OAuth2 says whose access tokens the EDC Management API accepts.
type OAuth2 struct {
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"` // that a token must be made for
	JWKSURL  string `json:"jwksURL"`  // the issuer's keys
}

// Verifier holds switches of credential verification, see dcp.Settings for what the values mean.
type Verifier struct {
	MaxClockSkew     Duration `json:"maxClockSkew"` // default 5s
	KeyRelationships string   `json:"keyRelationships"`
	ScopeEscalation  string   `json:"scopeEscalation"`
	DeliveryFormat   string   `json:"deliveryFormat"`
	SingleStatus     bool     `json:"singleStatus"`
}

// Protocol holds limits of the Dataspace Protocol's workers.
type Protocol struct {
	RequestTimeout Duration `json:"requestTimeout"` // of one outgoing message; default 20s
	RetryFor       Duration `json:"retryFor"`       // then a negotiation is terminated; default 30m
	Workers        int      `json:"workers"`        // default 32; a quarter of them at most works for one counterparty, half of that for one participant
}

// DataPlane holds limits of accesses to data. Where backends are is checked by the control plane too, when an asset is written.
type DataPlane struct {
	TokenLifetime  Duration `json:"tokenLifetime"`  // of a flow's token; default 1h
	MaxDuration    Duration `json:"maxDuration"`    // of one access; default 1h
	BackendTimeout Duration `json:"backendTimeout"` // until a backend begins to answer; default 30s
	// AllowLoopback lets backends have loopback addresses. For a connector on a single machine.
	AllowLoopback bool `json:"allowLoopback"`
	// AllowedNetworks, unless empty, are the only networks (CIDR) in which a backend may be; in DeniedNetworks none may, also within those.
	AllowedNetworks []netip.Prefix `json:"allowedNetworks"`
	DeniedNetworks  []netip.Prefix `json:"deniedNetworks"`
}

// PerParticipant is how much each participant context may have under way at once, so that one that has much to do, or that waits for somebody
// who hangs, slows nobody but itself.
type PerParticipant struct {
	Connections int `json:"connections"` // to the database, of each role; default half of database.maxConnections
	Requests    int `json:"requests"`    // to its protocol endpoints, its wallet and its management APIs, each; default 64, as many more wait
	Messages    int `json:"messages"`    // being sent, by all processes together; default a quarter of protocol.workers
	Accesses    int `json:"accesses"`    // to its data; default 128, as many more wait
}

// Audit says what becomes of audit records.
type Audit struct {
	// KeepBodies is how long the bodies of records are kept; the records themselves stay, and verify. Default: always. `connector migrate` sets it.
	KeepBodies Duration `json:"keepBodies"`
	// Leaving are the types of records whose bodies the cloud may read; of others it gets the digest. Absent: audit.Leaving.
	Leaving []string `json:"leaving"`
}

// PlainHTTP says whether tokens may be sent to http addresses.
func (c Config) PlainHTTP() bool {
	return c.Trust.AllowPlainHTTP || strings.HasPrefix(c.PublicURL, "http://")
}

// Peers guards calls to addresses that other participants name.
func (c Config) Peers() netguard.Guard {
	return netguard.Guard{AllowPrivate: c.Trust.AllowPrivateNetworks, AllowLoopback: c.allowLoopback()}
}

// Backends guards calls to the backends of assets: what whoever writes an asset names.
func (c Config) Backends() netguard.Guard {
	g := netguard.Guard{AllowPrivate: true, AllowLoopback: c.DataPlane.AllowLoopback || c.allowLoopback(),
		Allowed: c.DataPlane.AllowedNetworks, Denied: c.DataPlane.DeniedNetworks}
	if c.Database.Host != "" && !strings.HasPrefix(c.Database.Host, "/") { // else a socket
		g.Own = append(g.Own, net.JoinHostPort(c.Database.Host, strconv.Itoa(c.Database.Port)))
	}
	if host := os.Getenv("KUBERNETES_SERVICE_HOST"); host != "" {
		g.Own = append(g.Own, net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT")))
	}
	for _, address := range []string{c.Vault.Address, c.Internal.ControlPlaneURL, c.Internal.WalletURL, c.Internal.DataPlaneURL} {
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			g.Own = append(g.Own, net.JoinHostPort(u.Hostname(), strconv.Itoa(int(netguard.Port(u)))))
		}
	}
	return g
}

// allowLoopback holds for parties that share a machine.
func (c Config) allowLoopback() bool { return c.Trust.AllowPrivateNetworks && c.PlainHTTP() }

// Duration is a time.Duration written as "20s".
type Duration time.Duration

// UnmarshalText parses a Go duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// MarshalText writes a Go duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Load reads and validates a file and fills in defaults. Unknown keys are refused by name.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path) // #nosec G304 -- the operator names the file
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	cfg, err := Parse(raw)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

// Parse is Load on bytes.
func Parse(raw []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict(raw, &c); err != nil {
		return Config{}, err
	}
	c.defaults()
	return c, c.validate()
}

func (c *Config) defaults() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	setDuration := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	set(&c.Listen.Public, ":8080")
	set(&c.Listen.Internal, ":8081")
	set(&c.Listen.Health, ":8082")
	set(&c.Database.SSLMode, "verify-full")
	set(&c.Vault.Mount, "kv")
	set(&c.Vault.Auth.MountPath, c.Vault.Auth.Method)
	set(&c.Vault.Auth.ServiceAccountTokenFile, "/var/run/secrets/kubernetes.io/serviceaccount/token")
	if c.Database.Port == 0 {
		c.Database.Port = 5432
	}
	if c.Database.MaxConns == 0 {
		c.Database.MaxConns = DefaultMaxConns
	}
	setDuration(&c.Verifier.MaxClockSkew, 5*time.Second)
	setDuration(&c.Protocol.RequestTimeout, 20*time.Second)
	setDuration(&c.Protocol.RetryFor, 30*time.Minute)
	setDuration(&c.DataPlane.TokenLifetime, time.Hour)
	setDuration(&c.DataPlane.MaxDuration, time.Hour)
	setDuration(&c.DataPlane.BackendTimeout, 30*time.Second)
	if c.Protocol.Workers == 0 {
		c.Protocol.Workers = 32
	}
	for share, n := range map[*int]int{&c.PerParticipant.Connections: int(c.Database.MaxConns+1) / 2, &c.PerParticipant.Requests: 64,
		&c.PerParticipant.Messages: max(1, c.Protocol.Workers/4), &c.PerParticipant.Accesses: 128} {
		if *share == 0 {
			*share = n
		}
	}
}

func (c *Config) validate() error {
	var errs []error
	if u, err := url.Parse(c.PublicURL); err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || strings.ContainsAny(c.PublicURL, "?#") {
		errs = append(errs, fmt.Errorf("publicURL %q: must be the http(s) base under which others reach this connector, such as https://connector.example", c.PublicURL))
	}
	for name, v := range map[string]string{"host": c.Database.Host, "name": c.Database.Name, "user": c.Database.User} {
		if v == "" {
			errs = append(errs, fmt.Errorf("database.%s: missing", name))
		}
	}
	if m := c.Database.SSLMode; !slices.Contains([]string{"verify-full", "verify-ca", "require", "disable"}, m) {
		errs = append(errs, fmt.Errorf("database.sslMode %q: must be verify-full, verify-ca, require or disable", m))
	}
	if m := c.Vault.Auth.Method; !slices.Contains([]string{"", "kubernetes", "jwt", "token", "approle"}, m) {
		errs = append(errs, fmt.Errorf("vault.auth.method %q: must be kubernetes, jwt, token or approle", m))
	}
	if o := c.Management.OAuth2; o != (OAuth2{}) && (o.Issuer == "" || o.Audience == "" || o.JWKSURL == "") {
		errs = append(errs, errors.New("management.oauth2: issuer, audience and jwksURL go together"))
	}
	for _, t := range c.Audit.Leaving {
		if !slices.Contains(audit.Types, t) {
			errs = append(errs, fmt.Errorf("audit.leaving %q: must be types of %s", t, strings.Join(audit.Types, ", ")))
		}
	}
	for name, d := range map[string]Duration{
		"audit.keepBodies": c.Audit.KeepBodies, "verifier.maxClockSkew": c.Verifier.MaxClockSkew, "protocol.requestTimeout": c.Protocol.RequestTimeout,
		"protocol.retryFor": c.Protocol.RetryFor, "dataPlane.tokenLifetime": c.DataPlane.TokenLifetime, "dataPlane.maxDuration": c.DataPlane.MaxDuration,
		"dataPlane.backendTimeout": c.DataPlane.BackendTimeout,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s %s: must not be negative", name, d.Std()))
		}
	}
	for name, n := range map[string]int{"database.port": c.Database.Port, "database.maxConnections": int(c.Database.MaxConns), "protocol.workers": c.Protocol.Workers,
		"perParticipant.connections": c.PerParticipant.Connections, "perParticipant.requests": c.PerParticipant.Requests,
		"perParticipant.messages": c.PerParticipant.Messages, "perParticipant.accesses": c.PerParticipant.Accesses} {
		if n < 0 || n > math.MaxUint16 {
			errs = append(errs, fmt.Errorf("%s %d: must be between 1 and %d", name, n, math.MaxUint16))
		}
	}
	if n := c.PerParticipant.Connections; n > int(c.Database.MaxConns) {
		errs = append(errs, fmt.Errorf("perParticipant.connections %d: must not be more than database.maxConnections, which is %d", n, c.Database.MaxConns))
	}
	return errors.Join(errs...)
}

// ConnConfig returns how to connect to the database.
func (d Database) ConnConfig() (*pgx.ConnConfig, error) {
	u := url.URL{Scheme: "postgres", User: url.User(d.User), Host: fmt.Sprintf("%s:%d", d.Host, d.Port), Path: "/" + d.Name}
	q := url.Values{"sslmode": {d.SSLMode}, "connect_timeout": {"10"}, "application_name": {"kaphera-connector"}}
	if d.CAFile != "" {
		q.Set("sslrootcert", d.CAFile)
	}
	u.RawQuery = q.Encode()
	cc, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if d.PasswordFile != "" {
		if cc.Password, err = ReadSecret(d.PasswordFile); err != nil {
			return nil, fmt.Errorf("database.passwordFile: %w", err)
		}
	}
	return cc, nil
}

// ReadSecret reads a secret from a file and trims the line end. An empty secret is an error.
func ReadSecret(path string) (string, error) {
	raw, err := os.ReadFile(path) // #nosec G304 -- the operator names the file
	if err != nil {
		return "", err
	}
	s := strings.TrimRight(string(raw), "\r\n")
	if s == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return s, nil
}
