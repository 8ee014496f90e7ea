// SPDX-License-Identifier: Apache-2.0

// Package issuer issues credentials by DCP to the holders that its operator has registered, delivers them, and publishes their status.
// What is issued to whom, with which claims, is told by the admin API; nothing is decided here beyond that.
package issuer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dcp/keyring"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store/tenant"
	"github.com/kaphera/kaphera/connector/vault"
)

// Deps is what an issuer needs.
type Deps struct {
	DB         *pgxpool.Pool // schema issuer, migrated
	Vault      *vault.Store
	Verifier   *dcp.Verifier
	PublicURL  string           // base of everything public of this connector
	Poll       time.Duration    // between two looks for deliveries that are due; default 1 s
	MinBackoff time.Duration    // after the first delivery that failed, doubled each time up to 30 min; default 2 s
	Now        func() time.Time // default time.Now
	Log        *slog.Logger     // default slog.Default
	// Connections to the database, and Requests to the public API, that each issuer has at once; nil: not bounded.
	Connections, Requests *limits.Shares
}

// Issuer is the issuer role. One process serves any number of issuers, each under its context name.
type Issuer struct {
	store     *store
	ring      *keyring.Ring
	v         *dcp.Verifier
	replay    *dcp.PostgresReplay
	publicURL string
	poll      time.Duration
	backoff   time.Duration
	now       func() time.Time
	log       *slog.Logger
	wake      chan struct{}
	requests  *limits.Shares
}

// New makes an issuer. It connects to nothing yet.
func New(d Deps) (*Issuer, error) {
	if d.DB == nil || d.Vault == nil || d.Verifier == nil || d.PublicURL == "" {
		return nil, errors.New("the issuer needs a database, a vault, a verifier and its public address")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Poll == 0 {
		d.Poll = time.Second
	}
	if d.MinBackoff == 0 {
		d.MinBackoff = 2 * time.Second
	}
	db := tenant.DB{Pool: d.DB, Shares: d.Connections}
	return &Issuer{
		store: &store{db}, ring: keyring.New(db, d.Vault, "issuer", listLifetime+time.Hour, d.Now), v: d.Verifier, replay: dcp.NewPostgresReplay(d.DB, "issuer"),
		publicURL: strings.TrimSuffix(d.PublicURL, "/"), poll: d.Poll, backoff: d.MinBackoff, now: d.Now, log: d.Log.With("role", "issuer"), wake: make(chan struct{}, 1), requests: d.Requests,
	}, nil
}

// Public serves the DID documents, the issuer services and the status lists:
//
//	GET  /{ctx}/did.json
//	GET  /{ctx}/issuance/metadata
//	GET  /{ctx}/issuance/schemas/{type}
//	POST /{ctx}/issuance/credentials
//	GET  /{ctx}/issuance/requests/{id}
//	GET  /{ctx}/status/{list}
func (i *Issuer) Public() http.Handler {
	mux := http.NewServeMux()
	handle := func(f func(*http.Request) (any, error)) http.Handler { return dcp.Handler(i.log, i.requests, f) }
	mux.Handle("GET /{ctx}/did.json", handle(i.serveDocument))
	mux.Handle("GET /{ctx}/issuance/metadata", handle(i.serveMetadata))
	mux.Handle("GET /{ctx}/issuance/schemas/{type}", handle(i.serveSchema))
	mux.Handle("POST /{ctx}/issuance/credentials", handle(i.serveRequest))
	mux.Handle("GET /{ctx}/issuance/requests/{id}", handle(i.serveRequestStatus))
	mux.Handle("GET /{ctx}/status/{list}", handle(i.serveStatusList))
	return mux
}

// Internal serves the admin API; whoever mounts it checks the internal bearer token:
//
//	PUT, GET, DELETE /admin/v1/issuers/{ctx}                       adminapi.IssuerConfig -> adminapi.IssuerStatus
//	POST /admin/v1/issuers/{ctx}/keys/rotate                       -> adminapi.IssuerStatus
//	PUT, GET, DELETE /admin/v1/issuers/{ctx}/holders/{did, base64url}   adminapi.Holder
//	GET  /admin/v1/issuers/{ctx}/holders                           -> []adminapi.Holder
//	GET  /admin/v1/issuers/{ctx}/credentials?holder=               -> []adminapi.Issued, newest first
//	POST /admin/v1/issuers/{ctx}/credentials/{id}/{revoke,suspend,resume,deliver}   -> adminapi.Issued
//	POST /admin/v1/issuers/{ctx}/offers                            adminapi.OfferCredentials -> 200 when the holder took it
func (i *Issuer) Internal() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /admin/v1/issuers/{ctx}", i.handle(i.putIssuer))
	mux.Handle("GET /admin/v1/issuers/{ctx}", i.handle(i.getIssuer))
	mux.Handle("DELETE /admin/v1/issuers/{ctx}", i.handle(i.deleteIssuer))
	mux.Handle("POST /admin/v1/issuers/{ctx}/keys/rotate", i.handle(i.rotateKey))
	mux.Handle("PUT /admin/v1/issuers/{ctx}/holders/{did}", i.handle(i.putHolder))
	mux.Handle("GET /admin/v1/issuers/{ctx}/holders", i.handle(i.listHolders))
	mux.Handle("GET /admin/v1/issuers/{ctx}/holders/{did}", i.handle(i.getHolder))
	mux.Handle("DELETE /admin/v1/issuers/{ctx}/holders/{did}", i.handle(i.deleteHolder))
	mux.Handle("GET /admin/v1/issuers/{ctx}/credentials", i.handle(i.listIssued))
	mux.Handle("POST /admin/v1/issuers/{ctx}/credentials/{id}/{action}", i.handle(i.postAction))
	mux.Handle("POST /admin/v1/issuers/{ctx}/offers", i.handle(i.postOffer))
	return mux
}

func (i *Issuer) handle(f func(*http.Request) (any, error)) http.Handler {
	return dcp.Handler(i.log, nil, f)
}

// Run delivers what is due until ctx ends. Any number of replicas may run.
func (i *Issuer) Run(ctx context.Context) error {
	go func() { _ = i.replay.Run(ctx) }()
	var underWay deliveries
	defer underWay.Wait()
	return dcp.Every(ctx, i.poll, i.wake, i.log, "looking for deliveries", func(ctx context.Context) error { return i.work(ctx, &underWay) })
}
