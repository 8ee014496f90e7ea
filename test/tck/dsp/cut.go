// SPDX-License-Identifier: Apache-2.0

// Package dsp runs the Eclipse kit for the Dataspace Protocol against Kaphera's control plane and data plane. What is replaced is what
// the kit asks to be replaced: identities (it has no signing of its own) and the own side's decisions (each test wants a certain
// one); everything else is the product.
package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dataplane"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

const (
	participant = "cut" // participant context of the connector under test
	ownID       = "did:web:cut.example"
	kitID       = "TCK_PARTICIPANT"
	protocol    = "dataspace-protocol-http:2025-1"
	token       = "internal-token-of-the-kit-run"
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

func (anybody) Endpoint(_ context.Context, did, _ string) (string, error) {
	return "", fmt.Errorf("%s has no DID document in this test", did)
}

// noSecrets is the vault of a connector whose assets need none.
type noSecrets struct{}

func (noSecrets) Secret(_ context.Context, _, alias string) (string, error) {
	return "", fmt.Errorf("no secret %s", alias)
}

// connector is the connector under test.
type connector struct {
	url    string // base of the participant
	stop   func()
	engine *dsp.Engine
}

// startConnector brings up a connector on the database, seeded for the kit, with the trigger endpoints /trigger/{negotiation,transfer}.
func startConnector(ctx context.Context, databaseURL string, log *slog.Logger) (_ *connector, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var closers []func()
	c := &connector{stop: func() {
		cancel()
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	cc, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx, cc, store.Grants{}); err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, pc, store.Options{Owner: participant})
	if err != nil {
		return nil, err
	}
	closers = append(closers, st.Close)
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	closers = append(closers, pool.Close)
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	internal, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, public.Close())
	}
	base := "http://" + public.Addr().String()
	data, signaling, err := dataplane.New(dataplane.Deps{DB: pool, Secrets: noSecrets{}, PublicURL: base, InternalToken: token, Log: log})
	if err != nil {
		return nil, err
	}
	c.engine, err = dsp.New(dsp.Options{Store: st, Identity: anybody{}, DataPlane: dps.NewClient("http://"+internal.Addr().String(), token), PublicURL: base,
		HTTP: &http.Client{Timeout: 10 * time.Second}, Decider: script{time.Now}, Log: log})
	if err != nil {
		return nil, err
	}
	if err := seed(ctx, st); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/"+participant+"/data/", data)
	mux.Handle("POST /trigger/negotiation", c.trigger(log, c.negotiate))
	mux.Handle("POST /trigger/transfer", c.trigger(log, c.transfer))
	mux.Handle("/", c.engine.Handler())
	c.url = base + "/" + participant
	for l, h := range map[net.Listener]http.Handler{public: mux, internal: signaling} {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = srv.Serve(l) }()
		closers = append(closers, func() { _ = srv.Close() })
	}
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := c.engine.Run(ctx); err != nil && ctx.Err() == nil {
			log.Error("the engine ended", "error", err)
		}
	}()
	closers = append(closers, func() { cancel(); <-ran })
	return c, nil
}

// trigger is what the kit calls to make the connector start something as consumer.
type trigger struct {
	DatasetID        string `json:"datasetId"`
	OfferID          string `json:"offerId"`
	AgreementID      string `json:"agreementId"`
	Format           string `json:"format"`
	ProviderID       string `json:"providerId"`
	ConnectorAddress string `json:"connectorAddress"`
}

func (c *connector) trigger(log *slog.Logger, start func(context.Context, trigger) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var t trigger
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

func (c *connector) negotiate(ctx context.Context, t trigger) error {
	policy, err := odrl.Parse(json.RawMessage(usePolicy))
	if err != nil {
		return err
	}
	_, err = c.engine.RequestOffer(ctx, participant, "", t.ProviderID, t.ConnectorAddress, wire.Offer(t.OfferID, policy, t.DatasetID, t.ProviderID))
	return err
}

func (c *connector) transfer(ctx context.Context, t trigger) error {
	_, err := c.engine.RequestTransfer(ctx, participant, adminapi.TransferRequest{AgreementID: t.AgreementID, Format: t.Format}, t.ConnectorAddress)
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
