// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

// Environment of the process that is the connector: its configuration file, its roles, and whether identities are EDC's mock.
const (
	connectorConfig = "INTEROP_CONNECTOR"
	connectorRoles  = "INTEROP_ROLES"
	mockIdentity    = "INTEROP_MOCK"
)

// Main runs the tests of a package that uses StartKaphera and returns the exit code. In a process that was started to be a connector, it is that.
func Main(m *testing.M) int {
	file := os.Getenv(connectorConfig)
	if file == "" {
		return m.Run()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := serve(ctx, file)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return 0
}

// serve is that process: the product's runtime with a Vault in memory.
func serve(ctx context.Context, file string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	roles, err := runtime.ParseRoles(os.Getenv(connectorRoles))
	if err != nil {
		return err
	}
	if err := runtime.Migrate(ctx, cfg); err != nil {
		return err
	}
	opt := runtime.Options{Config: cfg, Roles: roles, KV: vaulttest.New(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if os.Getenv(mockIdentity) != "" {
		opt.Protocol = func(o *dsp.Options) { o.Identity, o.Decider = mock{}, hesitant{} }
	}
	return runtime.Run(ctx, opt)
}

// mock proves identities as EDC's iam-mock does: everybody says who they are.
type mock struct{}

type mockToken struct {
	Region   string `json:"region"`
	Audience string `json:"audience"`
	ClientID string `json:"clientId"`
}

func (mock) Token(_ context.Context, local identity.Local, audience string, _ []string) (string, error) {
	raw, err := json.Marshal(mockToken{"eu", audience, local.DID})
	return string(raw), err
}

func (mock) Verify(_ context.Context, _ identity.Local, authorization string, _ []string) (identity.Agent, error) {
	var token mockToken
	if err := json.Unmarshal([]byte(authorization), &token); err != nil || token.ClientID == "" {
		return identity.Agent{}, identity.Unauthenticated("%q is not a token of the mock", authorization)
	}
	return identity.Agent{ID: token.ClientID}, nil
}

func (mock) Self(_ context.Context, local identity.Local, _ []string) (identity.Agent, error) {
	return identity.Agent{ID: local.DID}, nil
}

func (mock) Recheck(_ context.Context, _ identity.Local, holder string, _ []string) (identity.Agent, error) {
	return identity.Agent{ID: holder}, nil
}

func (mock) SignHead(context.Context, identity.Local, string, adminapi.HeadStatement) (string, error) {
	return "", errors.New("there is no wallet in this test")
}

func (mock) VerifyHead(context.Context, identity.Local, string, string) (adminapi.HeadStatement, error) {
	return adminapi.HeadStatement{}, errors.New("a mock signs nothing")
}

func (mock) Endpoint(_ context.Context, did, _ string) (string, error) {
	return "", fmt.Errorf("%s has no DID document in this test", did)
}

// Held begins the names of assets about which a negotiation waits for a person: as provider before it agrees, as consumer before it verifies.
const Held = "held-"

// hesitant decides as the product does, except for held assets.
type hesitant struct{ dsp.AtOnce }

func (h hesitant) Negotiation(n *store.Negotiation) dsp.Decision {
	if strings.HasPrefix(n.AssetID, Held) {
		return dsp.Decision{Waiting: "a person"}
	}
	return h.AtOnce.Negotiation(n)
}

// Kaphera is our connector as a process of its own.
type Kaphera struct {
	Process                      *Process
	public, internal, token, key string
}

// StartKaphera starts one with a PostgreSQL of its own, in the roles given.
func StartKaphera(t *testing.T, name, roles string, cfg config.Config, environment ...string) *Kaphera {
	t.Helper()
	server, err := pgtest.Start()
	Must(t, err)
	t.Cleanup(server.Stop)
	Must(t, server.Create("kaphera"))
	k := &Kaphera{token: rand.Text(), key: rand.Text()}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	cfg.Listen = config.Listen{Public: address(), Internal: address(), Health: address()}
	k.public, k.internal = "http://"+cfg.Listen.Public, "http://"+cfg.Listen.Internal
	cfg.PublicURL, cfg.Database = k.public, config.Database{Host: "127.0.0.1", Port: server.Port, Name: "kaphera", User: "kaphera", SSLMode: "disable"}
	cfg.Trust = config.Trust{AllowPlainHTTP: true, AllowPrivateNetworks: true}
	cfg.Internal = config.Internal{TokenFile: secret(t, k.token), DataPlaneURL: k.internal, WalletURL: k.internal}
	cfg.Management.APIKeyFile = secret(t, k.key)
	cfg.Protocol = config.Protocol{RequestTimeout: config.Duration(time.Minute), RetryFor: config.Duration(2 * time.Minute)} // EDC is slow to warm up
	raw, err := json.Marshal(cfg)
	Must(t, err)
	file := filepath.Join(t.TempDir(), "config.json")
	Must(t, os.WriteFile(file, raw, 0o600))
	self, err := os.Executable()
	Must(t, err)
	cmd := exec.Command(self) // #nosec G204
	cmd.Env = append(os.Environ(), append(environment, connectorConfig+"="+file, connectorRoles+"="+roles)...)
	k.Process = start(t, name, cmd)
	k.Process.Ready(t, func() error {
		status, body, err := Send(http.MethodGet, "http://"+cfg.Listen.Health+"/readyz", nil, nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	return k
}

func secret(t *testing.T, value string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	Must(t, os.WriteFile(file, []byte(value), 0o600))
	return file
}

// Call uses the internal API.
func (k *Kaphera) Call(t *testing.T, method, path string, in, out any) {
	t.Helper()
	status, raw, err := Send(method, k.internal+path, map[string]string{"Authorization": "Bearer " + k.token}, in)
	Must(t, err)
	if status/100 != 2 {
		t.Fatalf("Kaphera: %s %s answered %d: %s", method, path, status, raw)
	}
	if out != nil {
		Must(t, json.Unmarshal(raw, out))
	}
}

// DID is the identifier of a participant.
func (k *Kaphera) DID(participant string) string {
	return "did:web:" + strings.Replace(strings.TrimPrefix(k.public, "http://"), ":", "%3A", 1) + ":" + participant
}

// As is a participant of it.
func (k *Kaphera) As(participant string) *Connector {
	return &Connector{Name: "Kaphera", ID: k.DID(participant), Address: k.public + "/" + participant + "/dsp/2025-1", Process: k.Process,
		management: k.internal + "/management/" + participant + "/v3", key: k.key,
		own: func(t *testing.T, method, path string, in, out any) {
			t.Helper()
			k.Call(t, method, "/api/"+participant+"/v1"+path, in, out)
		}}
}

// MockKaphera is our connector with the mock identity and one participant.
func MockKaphera(t *testing.T, name string) *Connector {
	t.Helper()
	return MockParticipants(t, name, name)[0]
}

// MockParticipants are participants of one connector with the mock identity.
func MockParticipants(t *testing.T, name string, participants ...string) (of []*Connector) {
	t.Helper()
	k := StartKaphera(t, name, "control-plane,data-plane", config.Config{}, mockIdentity+"=1")
	k.Call(t, http.MethodPut, "/admin/v1/profiles/open", profile.Profile{Name: "open", Protocol: Protocol}, nil)
	for _, ctx := range participants {
		k.Call(t, http.MethodPut, "/admin/v1/participants/"+ctx, adminapi.Participant{DID: k.DID(ctx), Profile: "open", Active: true}, nil)
		of = append(of, k.As(ctx))
	}
	return of
}
