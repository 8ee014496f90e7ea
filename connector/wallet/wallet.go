// SPDX-License-Identifier: Apache-2.0

// Package wallet holds the credentials of a connector's participants: it publishes their DID documents, makes their tokens, asks issuers for
// credentials and renews them, and presents them to whom the owner permitted. Verification of what others present lives in connector/dcp.
package wallet

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

// Deps is what a wallet needs.
type Deps struct {
	DB        *pgxpool.Pool // schema wallet, migrated
	Vault     *vault.Store
	Verifier  *dcp.Verifier
	PublicURL string // base of everything public of this connector
	Timing    Timing
	Now       func() time.Time // default time.Now
	Log       *slog.Logger     // default slog.Default
	// Connections to the database, and Requests to the public API, that each participant has at once; nil: not bounded.
	Connections, Requests *limits.Shares
}

// Timing holds the waits of the wallet's work; zero values take the defaults.
type Timing struct {
	Poll           time.Duration // between two looks for work that is due; default 2 s
	StatusPoll     time.Duration // between two looks at a credential's status; default 1 min
	MinBackoff     time.Duration // after the first failed attempt, doubled each time; default 2 s
	MaxBackoff     time.Duration // default 5 min
	NeverDelivered time.Duration // after which a request without a credential counts as never delivered; default 10 min
	RenewalStuck   time.Duration // after which a renewal that does not come counts as stuck; default 1 h
	RenewalRetry   time.Duration // after a rejected renewal; default 15 min
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Poll, 2 * time.Second}, {&t.StatusPoll, time.Minute}, {&t.MinBackoff, 2 * time.Second}, {&t.MaxBackoff, 5 * time.Minute},
		{&t.NeverDelivered, 10 * time.Minute}, {&t.RenewalStuck, time.Hour}, {&t.RenewalRetry, 15 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Wallet is the wallet role.
type Wallet struct {
	store     *store
	ring      *keyring.Ring
	v         *dcp.Verifier
	replay    *dcp.PostgresReplay
	publicURL string
	timing    Timing
	now       func() time.Time
	log       *slog.Logger
	wake      chan struct{}
	requests  *limits.Shares
}

var _ dcp.Tokens = (*Wallet)(nil)

// New makes a wallet. It connects to nothing yet.
func New(d Deps) (*Wallet, error) {
	if d.DB == nil || d.Vault == nil || d.Verifier == nil || d.PublicURL == "" {
		return nil, errors.New("the wallet needs a database, a vault, a verifier and its public address")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	db := tenant.DB{Pool: d.DB, Shares: d.Connections}
	return &Wallet{
		store: &store{db}, ring: keyring.New(db, d.Vault, "wallet", time.Hour, d.Now), // its tokens live for minutes
		v: d.Verifier, replay: dcp.NewPostgresReplay(d.DB, "wallet"), publicURL: strings.TrimSuffix(d.PublicURL, "/"),
		timing: d.Timing.withDefaults(), now: d.Now, log: d.Log.With("role", "wallet"), wake: make(chan struct{}, 1), requests: d.Requests,
	}, nil
}

// Public serves the DID documents and the credential services:
//
//	GET  /{ctx}/did.json
//	POST /{ctx}/dcp/presentations/query
//	POST /{ctx}/dcp/credentials
//	POST /{ctx}/dcp/offers
func (w *Wallet) Public() http.Handler {
	mux := http.NewServeMux()
	handle := func(f func(*http.Request) (any, error)) http.Handler { return dcp.Handler(w.log, w.requests, f) }
	mux.Handle("GET /{ctx}/did.json", handle(w.serveDocument))
	mux.Handle("POST /{ctx}/dcp/presentations/query", handle(w.serveQuery))
	mux.Handle("POST /{ctx}/dcp/credentials", handle(w.serveCredentials))
	mux.Handle("POST /{ctx}/dcp/offers", handle(w.serveOffer))
	return mux
}

// Internal serves the admin API and the tokens; whoever mounts it checks the internal bearer token:
//
//	PUT, GET, DELETE /admin/v1/participants/{ctx}              adminapi.WalletParticipant -> adminapi.WalletParticipantStatus
//	POST /admin/v1/participants/{ctx}/keys/rotate              -> adminapi.WalletParticipantStatus
//	POST /admin/v1/participants/{ctx}/credential-requests      adminapi.CredentialRequest -> adminapi.HeldCredential
//	GET  /admin/v1/participants/{ctx}/credentials              -> []adminapi.HeldCredential
//	POST /internal/v1/{ctx}/token                              adminapi.TokenRequest -> adminapi.TokenResponse
func (w *Wallet) Internal() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /admin/v1/participants/{ctx}", w.handle(w.putParticipant))
	mux.Handle("GET /admin/v1/participants/{ctx}", w.handle(w.getParticipant))
	mux.Handle("DELETE /admin/v1/participants/{ctx}", w.handle(w.deleteParticipant))
	mux.Handle("POST /admin/v1/participants/{ctx}/keys/rotate", w.handle(w.rotateKey))
	mux.Handle("POST /admin/v1/participants/{ctx}/credential-requests", w.handle(w.postRequest))
	mux.Handle("GET /admin/v1/participants/{ctx}/credentials", w.handle(w.listCredentials))
	mux.Handle("POST /internal/v1/{ctx}/token", w.handle(w.postToken))
	return mux
}

func (w *Wallet) handle(f func(*http.Request) (any, error)) http.Handler {
	return dcp.Handler(w.log, nil, f)
}

// Run does the work that is due (requests, renewals, statuses) until ctx ends. Any number of replicas may run.
func (w *Wallet) Run(ctx context.Context) error {
	go func() { _ = w.replay.Run(ctx) }()
	return dcp.Every(ctx, w.timing.Poll, w.wake, w.log, "looking for work", w.work)
}
