// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dataplane"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/issuer"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/management"
	"github.com/kaphera/kaphera/connector/management/edc"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/wallet"
)

// shared reports whether a role runs in this process.
func (p *process) shared(r Role) bool { return slices.Contains(p.Roles, r) }

func (p *process) startWallet(ctx context.Context) error {
	db, err := p.pool(ctx, store.SchemaWallet)
	if err != nil {
		return err
	}
	if p.wallet, err = wallet.New(wallet.Deps{DB: db, Connections: p.connections(), Requests: p.requests("wallet"), Vault: p.vault, Verifier: p.verifier, PublicURL: p.Config.PublicURL, Log: p.Log}); err != nil {
		return err
	}
	p.public.Handle("/{ctx}/dcp/", p.wallet.Public())
	internal := management.Bearer(p.walletToken, p.wallet.Internal())
	p.internal.Handle("/internal/v1/", internal)
	if p.shared(ControlPlane) {
		// Both roles have /admin/v1/participants/{ctx}; in one process the wallet's is below /wallet.
		p.internal.Handle("/wallet/", http.StripPrefix("/wallet", internal))
	} else {
		p.internal.Handle("/admin/v1/participants/", internal)
	}
	p.run = append(p.run, p.wallet.Run)
	return nil
}

func (p *process) startIssuer(ctx context.Context) error {
	db, err := p.pool(ctx, store.SchemaIssuer)
	if err != nil {
		return err
	}
	i, err := issuer.New(issuer.Deps{DB: db, Connections: p.connections(), Requests: p.requests("issuer service"), Vault: p.vault, Verifier: p.verifier, PublicURL: p.Config.PublicURL, Log: p.Log})
	if err != nil {
		return err
	}
	p.issuer = i
	p.public.Handle("/{ctx}/issuance/", i.Public())
	p.public.Handle("/{ctx}/status/", i.Public())
	p.internal.Handle("/admin/v1/issuers/", management.Bearer(p.token, i.Internal()))
	p.run = append(p.run, i.Run)
	return nil
}

// documents serves the DID documents; where wallet and issuer share a process, the one that has the context answers.
func (p *process) documents() {
	const route = "GET /{ctx}/did.json"
	switch {
	case p.wallet != nil && p.issuer != nil:
		p.public.Handle(route, either(p.wallet.Public(), p.issuer.Public()))
	case p.wallet != nil:
		p.public.Handle(route, p.wallet.Public())
	case p.issuer != nil:
		p.public.Handle(route, p.issuer.Public())
	}
}

func (p *process) startDataPlane(ctx context.Context) error {
	db, err := p.pool(ctx, store.SchemaDataPlane)
	if err != nil {
		return err
	}
	var judge dataplane.Judge
	if address := p.Config.Internal.ControlPlaneURL; address != "" {
		judge = dps.NewControlPlane(address, p.dataPlaneToken)
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	plane, err := dataplane.New(dataplane.Deps{DB: db, Judge: judge, Secrets: p.vault, PublicURL: p.Config.PublicURL, InternalToken: p.dataPlaneToken,
		Connections: p.connections(), PerParticipant: p.Config.PerParticipant.Accesses, Meter: p.limits,
		Metrics: p.metrics, Log: p.Log.With("role", DataPlane), BackendTLS: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12},
		TokenLifetime: p.Config.DataPlane.TokenLifetime.Std(), MaxDuration: p.Config.DataPlane.MaxDuration.Std(), HeaderTimeout: p.Config.DataPlane.BackendTimeout.Std(),
		Backends: p.Config.Backends(), Name: host + p.Config.Listen.Public})
	if err != nil {
		return err
	}
	p.public.Handle("/{ctx}/data/", plane.Public)
	p.internal.Handle("/dataflows/", plane.Internal)
	p.run = append(p.run, plane.Run)
	p.close = append(p.close, plane.Close)
	return nil
}

func (p *process) startControlPlane(ctx context.Context) error {
	db, err := p.pool(ctx, store.SchemaControlPlane)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	st, err := store.Use(ctx, db, store.Options{Owner: host + p.Config.Listen.Public, Lease: p.Config.Protocol.RequestTimeout.Std() * 2, Connections: p.connections()})
	if err != nil {
		return err
	}
	replay := dcp.NewPostgresReplay(db, store.SchemaControlPlane)
	ids, err := dcp.NewService(dcp.ServiceConfig{Verifier: p.verifier, Tokens: p.tokens(), Replay: replay,
		Trust: func(ctx context.Context, name string) ([]profile.TrustedIssuer, error) {
			f, err := st.Profile(ctx, name)
			if err != nil {
				return nil, err
			}
			return f.TrustedIssuers, nil
		}})
	if err != nil {
		return err
	}
	dataPlaneURL := p.Config.Internal.DataPlaneURL
	if dataPlaneURL == "" {
		return errors.New("internal.dataPlaneURL: missing; it is the data plane's internal address")
	}
	protocol := p.Config.Protocol
	dataPlane := dps.NewClient(dataPlaneURL, p.dataPlaneToken)
	options := dsp.Options{Store: st, Identity: ids, DataPlane: dataPlane, HTTP: p.httpClient(protocol.RequestTimeout.Std()),
		PublicURL: p.Config.PublicURL, AllowPlainHTTP: p.Config.PlainHTTP(), RequestTimeout: protocol.RequestTimeout.Std(), RetryFor: protocol.RetryFor.Std(), Workers: protocol.Workers,
		PerParticipant: p.Config.PerParticipant.Messages, Meter: p.limits, Requests: p.requests("protocol endpoints"),
		Log: p.Log.With("role", ControlPlane), Metrics: p.metrics}
	if p.Protocol != nil {
		p.Protocol(&options)
	}
	engine, err := dsp.New(options)
	if err != nil {
		return err
	}
	requests := p.requests("management APIs")
	api, err := management.New(management.Deps{Engine: engine, Requests: requests,
		Streams: p.limits.Shares(limits.Share{Name: "streams of its management API", Most: p.Config.PerParticipant.Requests}), Store: st, Secrets: p.vault, DataPlane: dataPlane, InternalToken: p.token, DataPlaneToken: p.dataPlaneToken,
		Fetch: p.httpClient(time.Hour), Backends: p.Config.Backends(), AuditLeaving: p.Config.Audit.Leaving, Log: p.Log.With("role", ControlPlane)})
	if err != nil {
		return err
	}
	p.run = append(p.run, func(ctx context.Context) error {
		return dcp.Every(ctx, time.Hour, nil, p.Log, "pruning the audit trail", st.PruneAudit)
	})
	p.public.Handle("/{ctx}/dsp/", engine.Handler())
	p.public.Handle("/{ctx}/.well-known/", engine.Handler())
	p.internal.Handle("/admin/v1/", api)
	p.internal.Handle("/api/", api)
	p.internal.Handle("/internal/v1/{ctx}/transfers/", api)
	p.run = append(p.run, engine.Run, replay.Run)
	return p.startManagement(ctx, engine, st, requests, dataPlaneURL)
}

// startManagement serves the EDC Management API, if anybody is to have access to it.
func (p *process) startManagement(ctx context.Context, engine *dsp.Engine, st *store.Store, requests *limits.Shares, dataPlaneURL string) error {
	c := p.Config.Management
	if c == (config.Management{}) {
		return nil
	}
	d := edc.Deps{Engine: engine, Requests: requests, Store: st, Secrets: p.vault, HTTP: p.httpClient(10 * time.Second), PlainHTTP: p.Config.PlainHTTP(), Backends: p.Config.Backends(), DataPlane: dataPlaneURL,
		Log: p.Log.With("role", ControlPlane)}
	if c.APIKeyFile != "" {
		var err error
		if d.Key, err = config.ReadSecret(c.APIKeyFile); err != nil {
			return err
		}
	}
	if o := c.OAuth2; o.Issuer != "" {
		// The operator names this address, which is often a private one.
		keys := dcp.NewHTTPClient(dcp.HTTPConfig{Roots: p.roots, Networks: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, AllowPlainHTTP: true})
		d.Tokens = edc.NewOIDC(ctx, o.Issuer, o.Audience, o.JWKSURL, keys, time.Now)
	}
	api, err := edc.New(d) //nolint:contextcheck // every request brings its own
	if err != nil {
		return err
	}
	p.edc = api
	p.internal.Handle("/management/", api)
	p.run = append(p.run, api.Run)
	return nil
}

// tokens is where the control plane gets its identity tokens.
func (p *process) tokens() dcp.Tokens {
	if p.wallet != nil {
		return p.wallet
	}
	return dcp.NewTokenClient(p.Config.Internal.WalletURL, func() (string, error) { return p.walletToken, nil })
}
