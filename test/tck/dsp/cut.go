// SPDX-License-Identifier: Apache-2.0

// Package dsp runs the Eclipse kit for the Dataspace Protocol against Kaphera's control plane and data plane. What is replaced is what
// the kit asks to be replaced: identities (it has no signing of its own) and the own side's decisions (each test wants a certain
// one); everything else is the product.
package dsp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

const (
	participant = "cut" // participant context of the connector under test
	ownID       = "did:web:cut.example"
	kitID       = "TCK_PARTICIPANT"
	protocol    = "dataspace-protocol-http:2025-1"
	usePolicy   = `{"@type":"Set","permission":[{"action":"use"}]}`
)

// anybody is an identity.Service that takes the kit for TCK_PARTICIPANT whatever it sends.
type anybody struct{}

func (anybody) Token(context.Context, identity.Local, string, []string) (string, error) {
	return "Bearer anybody", nil
}

func (anybody) Verify(context.Context, identity.Local, string, []string) (identity.Agent, error) {
	return identity.Agent{ID: kitID}, nil
}

func (anybody) Self(_ context.Context, local identity.Local, _ []string) (identity.Agent, error) {
	return identity.Agent{ID: local.DID}, nil
}

func (anybody) Recheck(_ context.Context, _ identity.Local, holder string, _ []string) (identity.Agent, error) {
	return identity.Agent{ID: holder}, nil
}

func (anybody) SignHead(context.Context, identity.Local, string, adminapi.HeadStatement) (string, error) {
	return "", errors.New("there is no wallet in this test")
}

func (anybody) VerifyHead(context.Context, identity.Local, string, string) (adminapi.HeadStatement, error) {
	return adminapi.HeadStatement{}, errors.New("the kit signs nothing")
}

func (anybody) Endpoint(_ context.Context, did, _ string) (string, error) {
	return "", fmt.Errorf("%s has no DID document in this test", did)
}

// connector is the connector under test: control plane and data plane in one process.
type connector struct {
	url     string // base of the participant
	trigger string // base of the endpoints that make it start something as consumer
	stop    func()
	// commands gives commands as a second process of the same connector would; the one under test finds them in the database.
	commands *dsp.Engine
}

// startConnector brings up a connector on the database, seeded for the kit.
func startConnector(ctx context.Context, database config.Database, log *slog.Logger) (_ *connector, err error) {
	ctx, cancel := context.WithCancel(ctx)
	closers := []func(){cancel}
	c := &connector{stop: func() {
		for _, f := range slices.Backward(closers) {
			f()
		}
	}}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	dir, err := os.MkdirTemp("", "dsp-kit")
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { _ = os.RemoveAll(dir) })
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(rand.Text()), 0o600); err != nil {
		return nil, err
	}
	listeners := make([]net.Listener, 4) // public, internal, health, triggers
	for i := range listeners {
		if listeners[i], err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		closers = append(closers, func() { _ = listeners[i].Close() })
	}
	at := func(i int) string { return "http://" + listeners[i].Addr().String() }
	cfg := config.Config{PublicURL: at(0), Database: database, Trust: config.Trust{AllowPrivateNetworks: true},
		Internal: config.Internal{TokenFile: tokenFile, DataPlaneURL: at(1), WalletURL: at(1)},
		Protocol: config.Protocol{RequestTimeout: config.Duration(time.Minute), RetryFor: config.Duration(5 * time.Minute), Workers: 8}}
	if err := runtime.Migrate(ctx, cfg); err != nil {
		return nil, err
	}
	replaced := func(o *dsp.Options) { o.Identity, o.Decider = anybody{}, script{time.Now} }
	if err := c.openCommands(ctx, cfg, replaced, &closers); err != nil {
		return nil, err
	}
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := runtime.Run(ctx, runtime.Options{Config: cfg, Roles: []runtime.Role{runtime.ControlPlane, runtime.DataPlane}, Log: log, KV: vaulttest.New(),
			Protocol: replaced, Public: listeners[0], Internal: listeners[1], Health: listeners[2]}); err != nil {
			log.Error("the connector ended", "error", err)
		}
	}()
	closers = append(closers, func() { cancel(); <-ran })
	mux := http.NewServeMux()
	mux.Handle("POST /negotiation", c.on(log, c.negotiate))
	mux.Handle("POST /transfer", c.on(log, c.transfer))
	triggers := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = triggers.Serve(listeners[3]) }()
	closers = append(closers, func() { _ = triggers.Close() })
	c.url, c.trigger = at(0)+"/"+participant, at(3)
	return c, ready(ctx, at(2)+"/readyz", ran)
}

// openCommands seeds the database and opens the engine that gives commands.
func (c *connector) openCommands(ctx context.Context, cfg config.Config, replaced func(*dsp.Options), closers *[]func()) error {
	cc, err := cfg.Database.ConnConfig()
	if err != nil {
		return err
	}
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		return err
	}
	pc.ConnConfig = cc
	st, err := store.Open(ctx, pc, store.Options{Owner: "kit"})
	if err != nil {
		return err
	}
	*closers = append(*closers, st.Close)
	if err := seed(ctx, st); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	o := dsp.Options{Store: st, DataPlane: dps.NewClient(cfg.Internal.DataPlaneURL, "unused"), PublicURL: cfg.PublicURL, AllowPlainHTTP: true, HTTP: http.DefaultClient}
	replaced(&o)
	c.commands, err = dsp.New(o)
	return err
}

// ready waits until the connector is.
func ready(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return errors.New("the connector ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("the connector is not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// request is what the kit posts to make the connector start something as consumer.
type request struct {
	DatasetID        string `json:"datasetId"`
	OfferID          string `json:"offerId"`
	AgreementID      string `json:"agreementId"`
	Format           string `json:"format"`
	ProviderID       string `json:"providerId"`
	ConnectorAddress string `json:"connectorAddress"`
}

func (c *connector) on(log *slog.Logger, start func(context.Context, request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var t request
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&t)
		if err == nil {
			err = start(r.Context(), t)
		}
		if err != nil {
			log.Error("trigger", "path", r.URL.Path, "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (c *connector) negotiate(ctx context.Context, t request) error {
	policy, err := odrl.Parse(json.RawMessage(usePolicy))
	if err != nil {
		return err
	}
	_, err = c.commands.RequestOffer(ctx, participant, "", "", t.ProviderID, t.ConnectorAddress, wire.Offer(t.OfferID, policy, t.DatasetID, t.ProviderID))
	return err
}

func (c *connector) transfer(ctx context.Context, t request) error {
	_, err := c.commands.RequestTransfer(ctx, participant, adminapi.TransferRequest{AgreementID: t.AgreementID, Format: t.Format}, t.ConnectorAddress)
	return err
}

// seed makes what the kit expects to be there: the participant, the data sets that it asks for, and the agreements under which it transfers.
func seed(ctx context.Context, st *store.Store) error {
	if err := st.PutProfile(ctx, profile.Profile{Name: "tck", Protocol: protocol}); err != nil {
		return err
	}
	if err := st.PutParticipant(ctx, participant, adminapi.Participant{DID: ownID, Profile: "tck", Active: true}); err != nil {
		return err
	}
	for _, id := range datasets() {
		a := store.Asset{Ctx: participant, ID: id, Properties: map[string]any{"name": id}, DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://backend.example/" + id}}
		if err := st.PutAsset(ctx, a); err != nil {
			return err
		}
	}
	if err := st.PutDefinition(ctx, store.Definition{Ctx: participant, ID: definition, ContractPolicyID: "use", ContractPolicy: json.RawMessage(usePolicy), Selector: store.SelectAssets(datasets())}); err != nil {
		return err
	}
	for id := range providerScript {
		if err := seedAgreement(ctx, st, id, state.Provider); err != nil {
			return err
		}
	}
	for id := range consumerScript {
		if err := seedAgreement(ctx, st, id, state.Consumer); err != nil {
			return err
		}
	}
	return nil
}

func seedAgreement(ctx context.Context, st *store.Store, id string, role state.Role) error {
	if id[:3] != "ATP" {
		return nil
	}
	policy, err := odrl.Parse(json.RawMessage(usePolicy))
	if err != nil {
		return err
	}
	const asset = "ACN0101"
	provider, consumer, now := ownID, kitID, time.Now().UTC()
	if role == state.Consumer {
		provider, consumer = kitID, ownID
	}
	agreement := wire.Agreement(id, policy, asset, provider, consumer, now)
	n := &store.Negotiation{OfferID: "seeded", Offer: wire.Offer("seeded", policy, asset, provider), Process: store.Process{Ctx: participant, ID: "seed-" + id,
		Role: role, State: state.Finalized, Step: state.Finalized, Counterparty: kitID, CounterpartyPID: "kit-" + id, AssetID: asset, AgreementID: id,
		History: []adminapi.Event{{At: now, State: state.Finalized}}}}
	_, made, err := st.InsertNegotiation(ctx, n, store.Side{Agreement: &store.Agreement{ID: id, Role: role, Provider: provider, Consumer: consumer, AssetID: asset, Agreement: agreement, SignedAt: now}})
	if err == nil && !made {
		err = fmt.Errorf("agreement %s is there already", id)
	}
	return err
}
