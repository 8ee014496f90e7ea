// SPDX-License-Identifier: Apache-2.0

// Package runtime assembles a connector process from its configuration: the roles it was asked for, their listeners, health and metrics, and
// an orderly end. What a role does lives in the role's own package.
package runtime

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/issuer"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/wallet"
)

// Role is a part of a connector that can run in a process of its own.
type Role string

// Roles.
const (
	ControlPlane Role = "control-plane"
	Wallet       Role = "wallet"
	DataPlane    Role = "data-plane"
	Issuer       Role = "issuer"
)

// Roles lists all roles.
var Roles = []Role{ControlPlane, Wallet, DataPlane, Issuer}

// ParseRoles reads a list such as "control-plane,wallet".
func ParseRoles(s string) ([]Role, error) {
	var out []Role
	for name := range strings.SplitSeq(s, ",") {
		r := Role(strings.TrimSpace(name))
		if !slices.Contains(Roles, r) {
			return nil, fmt.Errorf("role %q is not known: use %v", name, Roles)
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// Options of a process.
type Options struct {
	Config config.Config
	Roles  []Role
	Log    *slog.Logger
	// KV replaces the configured Vault, for tests.
	KV vault.KV
	// Protocol changes the protocol engine's options before it starts, for tests.
	Protocol func(*dsp.Options)
	// ConnectionPatience is how long a statement waits for its participant's share of the connections. Default 10 s.
	ConnectionPatience time.Duration
	// Listeners replace the configured addresses, for tests.
	Public, Internal, Health, Management net.Listener
}

const (
	patience   = 2 * time.Minute // for the database and the vault at the start
	retry      = 2 * time.Second
	vaultCache = time.Minute
)

// vaultAccess is what each role does in the Vault.
var vaultAccess = map[Role]vault.Access{ControlPlane: vault.StoreSecrets, Wallet: vault.UseKeys, DataPlane: vault.ReadSecrets, Issuer: vault.UseKeys}

// process is what the roles of one process share.
type process struct {
	Options
	// Bearer tokens of the internal APIs: of this process, the wallet and the data plane.
	token, walletToken, dataPlaneToken string

	roots   *x509.CertPool
	vault   *vault.Store
	metrics *prometheus.Registry
	limits  *limits.Meter
	health  *health

	verifier *dcp.Verifier
	wallet   *wallet.Wallet // when it runs here
	issuer   *issuer.Issuer // when it runs here
	public   *http.ServeMux
	internal *http.ServeMux
	edc      http.Handler // the EDC Management API, when it is served here
	run      []func(context.Context) error
	close    []func()
}

// Run serves until ctx ends, and then ends in order. Health answers from the start, the rest once database and vault are there.
func Run(ctx context.Context, opt Options) error {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	p := &process{Options: opt, metrics: prometheus.NewRegistry(), public: http.NewServeMux(), internal: http.NewServeMux()}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.limits = limits.NewMeter(p.metrics, p.Log)
	p.health = newHealth(p.metrics)
	defer func() {
		for _, f := range slices.Backward(p.close) {
			f()
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	if err := p.listen(ctx, g, "health", opt.Health, opt.Config.Listen.Health, p.health.handler(), limits.Options{}); err != nil {
		return err
	}
	g.Go(func() error {
		if err := p.assemble(ctx); err != nil {
			return err
		}
		if err := p.listen(ctx, g, "public", opt.Public, opt.Config.Listen.Public, p.public, limits.Options{Stream: streams(publicStreams)}); err != nil {
			return err
		}
		if err := p.listen(ctx, g, "internal", opt.Internal, opt.Config.Listen.Internal, p.internal, limits.Options{Stream: streams(internalStreams)}); err != nil {
			return err
		}
		if address := opt.Config.Listen.Management; address != "" && p.edc != nil {
			if err := p.listen(ctx, g, "management", opt.Management, address, p.edc, limits.Options{}); err != nil {
				return err
			}
		}
		for _, run := range p.run {
			g.Go(func() error { return run(ctx) })
		}
		p.health.started()
		p.Log.Info("ready", "roles", opt.Roles, "publicURL", opt.Config.PublicURL)
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// assemble builds what the roles need, and then the roles.
func (p *process) assemble(ctx context.Context) (err error) {
	if len(p.Roles) == 0 {
		return fmt.Errorf("no role to run: use %v", Roles)
	}
	if err := p.readTokens(); err != nil {
		return err
	}
	if p.roots, err = roots(p.Config.Trust.CAFile); err != nil {
		return err
	}
	if err := p.openVault(ctx); err != nil {
		return err
	}
	v := p.Config.Verifier
	if p.verifier, err = dcp.NewVerifier(dcp.VerifierConfig{HTTP: p.httpClient(10 * time.Second), DIDHTTP: p.Config.Trust.AllowPlainHTTP, Settings: dcp.Settings{
		ClockSkew: v.MaxClockSkew.Std(), KeyRelationships: dcp.KeyRelationships(v.KeyRelationships),
		ScopeEscalation: dcp.ScopeEscalation(v.ScopeEscalation), DeliveryFormat: dcp.DeliveryFormat(v.DeliveryFormat), SingleStatus: v.SingleStatus}}); err != nil {
		return err
	}
	start := map[Role]func(context.Context) error{Wallet: p.startWallet, Issuer: p.startIssuer, DataPlane: p.startDataPlane, ControlPlane: p.startControlPlane}
	for _, r := range []Role{Wallet, Issuer, DataPlane, ControlPlane} { // a wallet here serves the control plane here
		if slices.Contains(p.Roles, r) {
			if err := start[r](ctx); err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
		}
	}
	p.documents()
	return nil
}

func (p *process) readTokens() (err error) {
	c := p.Config.Internal
	if p.token, err = config.ReadSecret(c.TokenFile); err != nil {
		return fmt.Errorf("internal.tokenFile: %w", err)
	}
	if p.walletToken, err = config.ReadSecret(cmp.Or(c.WalletTokenFile, c.TokenFile)); err != nil {
		return fmt.Errorf("internal.walletTokenFile: %w", err)
	}
	if p.dataPlaneToken, err = config.ReadSecret(cmp.Or(c.DataPlaneTokenFile, c.TokenFile)); err != nil {
		return fmt.Errorf("internal.dataPlaneTokenFile: %w", err)
	}
	return nil
}

// httpClient makes a client for addresses that others name.
func (p *process) httpClient(timeout time.Duration) *http.Client {
	return dcp.NewHTTPClient(dcp.HTTPConfig{Roots: p.roots, Networks: p.Config.Peers(), AllowPlainHTTP: p.Config.PlainHTTP(), Timeout: timeout})
}

// roots adds the configured authorities to the system's.
func roots(caFile string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // an image without authorities of its own
	}
	if caFile == "" {
		return pool, nil
	}
	pem, err := os.ReadFile(caFile) // #nosec G304 -- the operator names the file
	if err != nil {
		return nil, fmt.Errorf("trust.caFile: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("trust.caFile %s holds no certificate in PEM form", caFile)
	}
	return pool, nil
}

func (p *process) openVault(ctx context.Context) error {
	if p.KV != nil {
		p.vault = vault.NewStore(p.KV, vaultCache)
		return nil
	}
	var access []vault.Access
	for _, r := range p.Roles {
		access = append(access, vaultAccess[r])
	}
	client, err := vaultClient(p.Config.Vault, access...)
	if err != nil {
		return err
	}
	p.health.add(adminapi.CheckVault, 30*time.Second, client.Probe)
	p.vault = vault.NewStore(client, vaultCache)
	return p.eventually(ctx, adminapi.CheckVault, client.Probe)
}

func vaultClient(c config.Vault, access ...vault.Access) (*vault.Client, error) {
	return vault.New(vault.Config{Address: c.Address, Namespace: c.Namespace, Mount: c.Mount, Prefix: c.Prefix, CAFile: c.CAFile, Access: access,
		Auth: vault.Auth{Method: c.Auth.Method, MountPath: c.Auth.MountPath, Role: c.Auth.Role, TokenFile: c.Auth.TokenFile,
			ServiceAccountTokenFile: c.Auth.ServiceAccountTokenFile, RoleIDFile: c.Auth.RoleIDFile, SecretIDFile: c.Auth.SecretIDFile}})
}

// connections is each participant's share of a role's connections. Requests are bounded by another share, so that any number waits here.
func (p *process) connections() *limits.Shares {
	return p.limits.Shares(limits.Share{Name: "statements in the database", Most: p.Config.PerParticipant.Connections, Queue: math.MaxInt, Patience: cmp.Or(p.ConnectionPatience, 10*time.Second)})
}

// requests is each participant's share of the requests to one of its APIs.
func (p *process) requests(api string) *limits.Shares {
	most := p.Config.PerParticipant.Requests
	return p.limits.Shares(limits.Share{Name: "requests to its " + api, Most: most, Queue: most, Patience: 5 * time.Second, Pause: time.Second})
}

// pool opens connections for one schema.
func (p *process) pool(ctx context.Context, schema string) (*pgxpool.Pool, error) {
	cc, err := p.Config.Database.ConnConfig()
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig, cfg.MaxConns = cc, p.Config.Database.MaxConns
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	p.close = append(p.close, pool.Close)
	return pool, p.database(ctx, schema, pool)
}

// database waits until the schema is there and readable, and watches that it stays so.
func (p *process) database(ctx context.Context, schema string, pool *pgxpool.Pool) error {
	check := func(ctx context.Context) error {
		var version int64
		var unbound bool
		err := pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0), (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) FROM "+schema+".goose_db_version").Scan(&version, &unbound)
		switch d := p.Config.Database; {
		case err != nil:
			return fmt.Errorf("database %s at %s:%d as %s: %w (has `connector migrate` run?)", d.Name, d.Host, d.Port, d.User, err)
		case unbound:
			return fmt.Errorf("database %s at %s:%d: %s is a superuser or has BYPASSRLS, so that row security would not keep participants apart: use a role that is neither", d.Name, d.Host, d.Port, d.User)
		}
		return nil
	}
	p.health.add(adminapi.CheckDatabase, 0, check)
	return p.eventually(ctx, adminapi.CheckDatabase, check)
}

// eventually repeats a check until it passes, within patience.
func (p *process) eventually(ctx context.Context, name string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 15*time.Second)
		err := check(attempt)
		done()
		if err == nil {
			return nil
		}
		p.Log.Warn("waiting", "for", name, "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retry):
		}
	}
}

// Routes that carry data, or events as they come; all others carry messages, which package limits bounds.
var (
	publicStreams   = regexp.MustCompile(`^/[^/]+/data(/|$)`)
	internalStreams = regexp.MustCompile(`^/api/[^/]+/v1/(transfers/[^/]+/data|negotiations/[^/]+/events)(/|$)`)
)

func streams(routes *regexp.Regexp) func(*http.Request) bool {
	return func(r *http.Request) bool { return routes.MatchString(r.URL.Path) }
}

// listen serves a handler within limits until ctx ends.
func (p *process) listen(ctx context.Context, g *errgroup.Group, name string, l net.Listener, address string, h http.Handler, o limits.Options) error {
	if l == nil {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address); err != nil {
			return fmt.Errorf("listen.%s %q: %w", name, address, err)
		}
	}
	server := limits.Server(h, o)
	server.ErrorLog = slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug)
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("listen.%s: %w", name, err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), config.ShutdownGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			return server.Close()
		}
		return nil
	})
	return nil
}

// Migrate brings the database of a configuration up to date and grants its schemas.
func Migrate(ctx context.Context, cfg config.Config) error {
	cc, err := cfg.Database.ConnConfig()
	if err != nil {
		return err
	}
	r := cfg.Database.Roles
	if err := store.Migrate(ctx, cc, store.Grants{store.SchemaControlPlane: r.ControlPlane, store.SchemaWallet: r.Wallet,
		store.SchemaDataPlane: r.DataPlane, store.SchemaIssuer: r.Issuer}); err != nil {
		return err
	}
	return store.KeepAuditBodies(ctx, cc, cfg.Audit.KeepBodies.Std())
}
