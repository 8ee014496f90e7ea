// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/identity"
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

func (mock) Endpoint(_ context.Context, did, _ string) (string, error) {
	return "", fmt.Errorf("%s has no DID document in this test", did)
}

// held begins the names of assets about which a negotiation waits for a person: as provider before it agrees, as consumer before it verifies.
const held = "held-"

// hesitant decides as the product does, except for held assets.
type hesitant struct{ dsp.AtOnce }

func (h hesitant) Negotiation(n *store.Negotiation) dsp.Decision {
	if strings.HasPrefix(n.AssetID, held) {
		return dsp.Decision{Waiting: "a person"}
	}
	return h.AtOnce.Negotiation(n)
}

// kaphera is our connector as a process of its own.
type kaphera struct {
	public, internal, token, key string
	process                      *process
}

func startKaphera(t *testing.T, name, roles string, cfg config.Config, environment ...string) *kaphera {
	t.Helper()
	server, err := pgtest.Start()
	must(t, err)
	t.Cleanup(server.Stop)
	k := &kaphera{token: rand.Text(), key: rand.Text()}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	cfg.Listen = config.Listen{Public: address(), Internal: address(), Health: address()}
	k.public, k.internal = "http://"+cfg.Listen.Public, "http://"+cfg.Listen.Internal
	cfg.PublicURL, cfg.Database = k.public, config.Database{Host: "127.0.0.1", Port: server.Port, Name: "postgres", User: "postgres", SSLMode: "disable"}
	cfg.Trust = config.Trust{AllowPlainHTTP: true, AllowPrivateNetworks: true}
	cfg.Internal = config.Internal{TokenFile: secret(t, k.token), DataPlaneURL: k.internal, WalletURL: k.internal}
	cfg.Management.APIKeyFile = secret(t, k.key)
	cfg.Protocol = config.Protocol{RequestTimeout: config.Duration(time.Minute), RetryFor: config.Duration(2 * time.Minute)} // EDC is slow to warm up
	raw, err := json.Marshal(cfg)
	must(t, err)
	file := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(file, raw, 0o600))
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self) // #nosec G204
	cmd.Env = append(os.Environ(), append(environment, connectorConfig+"="+file, connectorRoles+"="+roles)...)
	k.process = start(t, name, cmd)
	k.process.ready(t, func() error {
		status, body, err := send(http.MethodGet, "http://"+cfg.Listen.Health+"/readyz", nil, nil)
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
	must(t, os.WriteFile(file, []byte(value), 0o600))
	return file
}

// call uses the internal API.
func (k *kaphera) call(t *testing.T, method, path string, in, out any) {
	t.Helper()
	status, raw, err := send(method, k.internal+path, map[string]string{"Authorization": "Bearer " + k.token}, in)
	must(t, err)
	if status/100 != 2 {
		t.Fatalf("Kaphera: %s %s answered %d: %s", method, path, status, raw)
	}
	if out != nil {
		must(t, json.Unmarshal(raw, out))
	}
}

func (k *kaphera) did(participant string) string {
	return "did:web:" + strings.Replace(strings.TrimPrefix(k.public, "http://"), ":", "%3A", 1) + ":" + participant
}

// as is a participant of it.
func (k *kaphera) as(participant string) *connector {
	return &connector{name: "Kaphera", id: k.did(participant), address: k.public + "/" + participant + "/dsp/2025-1",
		management: k.internal + "/management/" + participant + "/v3", key: k.key, process: k.process}
}
