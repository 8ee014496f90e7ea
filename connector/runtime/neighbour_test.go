// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

// endless is a server that answers nobody until it is released.
type endless struct {
	*httptest.Server
	waiting atomic.Int32
	release func()
}

func newEndless(t *testing.T) *endless {
	released := make(chan struct{})
	e := &endless{release: sync.OnceFunc(func() { close(released) })}
	e.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		e.waiting.Add(1)
		defer e.waiting.Add(-1)
		_, _ = io.Copy(io.Discard, r.Body) // so that the server notices when the caller goes
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { e.release(); e.Close() })
	return e
}

// flood sends n requests at once and counts the answers that turn them away: how they should, or otherwise. The first again of them are repeated until
// the test ends.
type flood struct{ turnedAway, wrong atomic.Int32 }

func newFlood(t *testing.T, n, again int, request func() *http.Request) *flood {
	t.Helper()
	f := &flood{}
	client := &http.Client{Transport: &http.Transport{}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{}, n)
	once := func() {
		res, err := client.Do(request().WithContext(ctx))
		if err != nil {
			return
		}
		defer func() { _ = res.Body.Close() }()
		if raw, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusServiceUnavailable {
			return
		} else if res.Header.Get("Retry-After") == "" || !strings.Contains(string(raw), `"code":"busy"`) || !strings.Contains(string(raw), "noisy has") {
			f.wrong.Add(1)
		} else {
			f.turnedAway.Add(1)
		}
	}
	for i := range n {
		go func() {
			for once(); i < again && ctx.Err() == nil; {
				once()
			}
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		stop()
		for range n {
			<-done
		}
		client.CloseIdleConnections()
	})
	return f
}

// TestANoisyNeighbourSlowsOnlyItself: two participants of a connector have one counterparty. One of them has thousands of messages due to servers that
// never answer, readers of its data whose backend never answers, and more requests than there are places, which are stuck in the database. The other one
// negotiates, transfers and exchanges data in both directions meanwhile. Nothing of the first ends before that, so that whatever waited for it would
// wait for ever.
func TestANoisyNeighbourSlowsOnlyItself(t *testing.T) {
	const places = 2
	authority := start(t, []runtime.Role{runtime.Issuer})
	shared := startWith(t, vaulttest.New(), pgtest.NewDatabase(t), func(o *runtime.Options) {
		o.Config.Protocol.Workers = 4 * places
		o.Config.Protocol.RequestTimeout, o.Config.DataPlane.BackendTimeout = config.Duration(time.Hour), config.Duration(time.Hour)
		o.Config.PerParticipant = config.PerParticipant{Connections: places, Requests: 4 * places, Messages: places, Accesses: places}
	}, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	partner := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f, member := pilot(authority.did("authority")), map[string]any{"MembershipCredential": map[string]any{"member": true}}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data") }))
	t.Cleanup(backend.Close)
	hanging := newEndless(t)
	for ctx, c := range map[string]*connector{"noisy": shared, "quiet": shared, "partner": partner} {
		c.join(ctx, authority, f, member)
		source := backend.URL
		if ctx == "noisy" {
			source = hanging.URL
		}
		c.call(http.MethodPut, c.api(ctx, "/assets/pcf"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": source}}, nil)
		c.call(http.MethodPut, c.api(ctx, "/offers/pcf"), adminapi.Offer{Assets: []string{"pcf"}, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}, nil)
	}

	// Its data, read by somebody who has no share of the connector.
	address := partner.address(partner.transfer("partner", shared.did("noisy")).ID)
	readers := newFlood(t, 20*places, 2*places, func() *http.Request {
		req, err := http.NewRequest(http.MethodGet, address.Endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", address.Properties["authorization"])
		return req
	})
	shared.until("as many readers wait for the backend as may, and the others are told", func() bool {
		return hanging.waiting.Load() == places && readers.turnedAway.Load() >= 18*places
	})

	// Its messages.
	db, err := pgx.Connect(t.Context(), shared.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	deaf := newEndless(t)
	exec(`INSERT INTO control_plane.negotiations (ctx, id, profile, role, state, step, counterparty, counterparty_pid, address, asset_id, offer_id, offer, message_id, next_attempt_at)
		SELECT 'noisy', 'flood-' || i, $1, 'provider', 'REQUESTED', 'TERMINATING', CASE WHEN i % 2 = 0 THEN $2 ELSE 'did:web:deaf-' || i END, 'pid-' || i, $3, 'pcf', 'pcf', '{}',
			'urn:uuid:' || gen_random_uuid(), clock_timestamp() - interval '1 day' FROM generate_series(1, 3000) i`, f.Name, partner.did("partner"), deaf.URL)
	shared.until("its messages take its places", func() bool { return deaf.waiting.Load() == places })

	// Its watchers, who leave room for its requests.
	watchers := newFlood(t, 16*places, 0, func() *http.Request {
		req, err := http.NewRequest(http.MethodGet, shared.api("noisy", "/negotiations/flood-1/events"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+internalToken)
		return req
	})
	shared.until("as many watch as may, and the others are told", func() bool { return watchers.turnedAway.Load() == 12*places })
	shared.call(http.MethodGet, shared.api("noisy", "/negotiations/flood-1"), nil, nil)

	// Its requests, for each of which a record is made: as long as db holds the chain, they are stuck.
	exec("BEGIN")
	exec("SELECT FROM audit.chains WHERE ctx = 'noisy' FOR UPDATE")
	stuck := func() (n int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	requests := newFlood(t, 100, 8*places, func() *http.Request {
		req, err := http.NewRequest(http.MethodPut, shared.api("noisy", "/secrets/backend"), strings.NewReader(`{"value":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+internalToken)
		return req
	})
	shared.until("its requests hang in the database, and the others are told", func() bool { return stuck() == places && requests.turnedAway.Load() > 0 })

	for range 3 {
		for ctx, of := range map[string]struct {
			consumer *connector
			provider string
		}{"partner": {partner, shared.did("quiet")}, "quiet": {shared, partner.did("partner")}} {
			tr := of.consumer.transfer(ctx, of.provider)
			if got := string(of.consumer.read(of.consumer.api(ctx, "/transfers/"+tr.ID+"/data"), "")); got != "data" {
				t.Errorf("%s reads %q", ctx, got)
			}
		}
	}

	shared.until("the noise goes on", func() bool { return stuck() == places && hanging.waiting.Load() > 0 && deaf.waiting.Load() == places })
	if n := readers.wrong.Load() + watchers.wrong.Load() + requests.wrong.Load(); n > 0 {
		t.Errorf("%d requests were turned away without saying why, or for how long", n)
	}
	metrics := string(shared.read(shared.parts[runtime.ControlPlane].health+"/metrics", ""))
	for _, limit := range []string{"requests to its management APIs", "statements in the database", "data accesses of a participant", "messages to send"} {
		if !strings.Contains(metrics, `kaphera_share_used_up_total{limit="`+limit+`",outcome="waited"}`) {
			t.Errorf("no metric says that %s were used up", limit)
		}
	}
	exec("ROLLBACK")
	deaf.release()
	hanging.release()
	shared.until("the noise is over", func() bool {
		return shared.status(http.MethodPut, shared.api("noisy", "/secrets/backend"), adminapi.Secret{Value: "x"}, nil)/100 == 2
	})
}

// address is where the data of a transfer is, as its consumer keeps it.
func (c *connector) address(transfer string) (a dps.DataAddress) {
	c.t.Helper()
	db, err := pgx.Connect(c.t.Context(), c.database)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(c.t.Context())) }()
	if err := db.QueryRow(c.t.Context(), "SELECT address FROM control_plane.data_addresses WHERE transfer_id = $1", transfer).Scan(&a); err != nil {
		c.t.Fatal(err)
	}
	return a
}
