// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/netguard"
)

// trail reads the supplier's chain, which must verify, as the bodies of its records with type and actor.
func (b *bundle) trail(t *testing.T) (out []map[string]any, r *audit.Result) {
	t.Helper()
	return b.trailOf(t, "supplier")
}

func (b *bundle) trailOf(t *testing.T, participant string) (out []map[string]any, r *audit.Result) {
	t.Helper()
	h, err := audit.HeadOf(t.Context(), b.super, participant)
	if err != nil {
		t.Fatal(err)
	}
	records, err := audit.Records(t.Context(), b.super, h, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	for _, rec := range records {
		body := map[string]any{"type": rec.Type, "actor": rec.Actor}
		if err := errors.Join(json.Unmarshal(rec.Body, &body), audit.WriteRecord(&file, rec)); err != nil {
			t.Fatal(err)
		}
		out = append(out, body)
	}
	if err := audit.WriteHead(&file, h); err != nil {
		t.Fatal(err)
	}
	if r, err = audit.Verify(&file, nil); err != nil {
		t.Fatal(err)
	}
	return out, r
}

// settled is trail once it has so many records.
func (b *bundle) settled(t *testing.T, records int) (out []map[string]any, r *audit.Result) {
	t.Helper()
	until(t, fmt.Sprintf("there are %d records", records), func() bool { out, r = b.trail(t); return len(out) >= records })
	if len(out) != records {
		t.Fatalf("%d records, want %d: %v", len(out), records, out)
	}
	return out, r
}

// late is how many outcomes could not be recorded.
func (b *bundle) late() int {
	b.plane.journal.mu.Lock()
	defer b.plane.journal.mu.Unlock()
	return len(b.plane.journal.late["supplier"])
}

func (b *bundle) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := b.super.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) handle(h http.HandlerFunc) { b.answer.Store(&h) }

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.After(time.Minute); !ok(); {
		select {
		case <-late:
			t.Fatalf("waited in vain until %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestEveryAccessIsRecorded(t *testing.T) {
	b := setup(t)
	content := strings.Repeat("0123456789", 10_000)
	b.handle(func(w http.ResponseWriter, _ *http.Request) {
		if got, _ := b.trail(t); len(got) != 1 || got[0]["type"] != audit.DataIntent {
			t.Errorf("when the backend is asked there is on record %v", got)
		}
		_, _ = io.WriteString(w, content)
	})
	a := b.start(t, b.flow(func(f *dps.Flow) { f.Source["proxyQueryParams"], f.Demands = "true", []string{dps.DemandRecord} }))
	if got := fetch(t, http.MethodGet, a.Endpoint+"?a=%3C1%3E", a.Properties["authorization"]); got.status != http.StatusOK || got.body != content {
		t.Fatalf("%d, %d bytes", got.status, len(got.body))
	}
	got, r := b.settled(t, 2)
	if len(r.Open)+len(r.Unknown) != 0 {
		t.Fatal(got)
	}
	sum := sha256.Sum256([]byte(content))
	for i, want := range []map[string]any{
		{"type": audit.DataIntent, "actor": "did:web:x:buyer", "flow": "tp-1", "agreement": "ag-1", "asset": "pcf-1", "counterparty": "did:web:x:buyer", "method": "GET", "path": "?a=%3C1%3E"},
		{"type": audit.DataOutcome, "actor": "did:web:x:buyer", "flow": "tp-1", "agreement": "ag-1", "status": 200.0, "bytes": float64(len(content)), "sha256": hex.EncodeToString(sum[:]), "whole": true, "access": got[0]["access"]},
	} {
		for k, v := range want {
			if got[i][k] != v {
				t.Errorf("record %d: %s is %v, want %v", i+1, k, got[i][k], v)
			}
		}
	}
	if got := fetch(t, http.MethodPost, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusMethodNotAllowed {
		t.Errorf("%+v", got)
	}
	if got, _ = b.settled(t, 4); got[3]["status"] != 405.0 {
		t.Errorf("an access that was refused is on record as %v", got[2:])
	}
	if got := fetch(t, http.MethodGet, a.Endpoint, "wrong"); got.status != http.StatusUnauthorized {
		t.Errorf("%+v", got)
	}
	if after, _ := b.trail(t); len(after) != 4 {
		t.Errorf("somebody without a token is on record: %v", after[4:])
	}
}

func TestAnAccessThatEndsEarlyIsRecordedAsSuch(t *testing.T) {
	b := setup(t)
	b.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "200000") // of which half comes
		_, _ = w.Write(make([]byte, 100_000))
		panic(http.ErrAbortHandler)
	})
	a := b.start(t, b.flow())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", a.Properties["authorization"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("%d bytes came and all was well", n)
	}
	_ = res.Body.Close()
	if got, _ := b.settled(t, 2); got[1]["whole"] != false || got[1]["bytes"] != 100_000.0 {
		t.Errorf("%v", got[1])
	}
}

func TestNoRecordMeansNoData(t *testing.T) {
	for name, sql := range map[string]string{
		"the record cannot be written": "ALTER FUNCTION audit.append RENAME TO gone",
		"the participant has no chain": "SET kaphera.ctx = 'supplier'; SELECT audit.close('supplier', 'x')",
		"the access cannot be noted":   "ALTER TABLE data_plane.accesses RENAME TO gone",
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			a := b.start(t, b.flow())
			b.exec(t, sql)
			if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusServiceUnavailable || b.got.Load() != nil {
				t.Errorf("%+v, backend asked: %t", got, b.got.Load() != nil)
			}
		})
	}
}

func TestAnOutcomeIsRecordedOnceTheDatabaseAnswers(t *testing.T) {
	b := setup(t)
	a := b.start(t, b.flow())
	b.handle(func(http.ResponseWriter, *http.Request) { b.exec(t, "ALTER FUNCTION audit.append RENAME TO gone") })
	if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	until(t, "the outcome could not be recorded", func() bool { return b.late() > 0 })
	if _, r := b.trail(t); len(r.Open) != 1 {
		t.Fatalf("%+v", r)
	}
	b.exec(t, "ALTER FUNCTION audit.gone RENAME TO append")
	b.run(t, b.plane.Run)
	until(t, "the outcome is on record", func() bool { _, r := b.trail(t); return len(r.Open) == 0 })
	if got, r := b.trail(t); len(got) != 2 || len(r.Unknown) != 0 || got[1]["status"] != 200.0 {
		t.Errorf("%v", got)
	}
}

// run runs a data plane's own work until the test ends.
func (b *bundle) run(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// childEnv makes this test binary a data plane on the database that it names.
const childEnv = "KAPHERA_DATA_PLANE_CHILD"

func child(dsn string) {
	db, err := pgxpool.New(context.Background(), dsn)
	if err != nil {
		panic(err)
	}
	p, err := New(Deps{DB: db, Secrets: secrets{"supplier/backend": backendKey}, InternalToken: internalToken, PublicURL: "http://child", Name: "data-plane-0",
		Log: slog.New(slog.DiscardHandler), Backends: netguard.Guard{AllowPrivate: true, AllowLoopback: true}})
	if err != nil {
		panic(err)
	}
	fmt.Println(httptest.NewServer(p.Public).URL)
	panic(p.Run(context.Background()))
}

// TestAKilledProcessLeavesAnUnknownOutcome kills a data plane in the middle of an access. The next one of its name closes the access; one of
// another name does so once the dead one has not been heard of for a while.
func TestAKilledProcessLeavesAnUnknownOutcome(t *testing.T) {
	for name, next := range map[string]struct{ name, first string }{
		"it starts again":            {"data-plane-0", ""},
		"another one is still there": {"data-plane-1", "UPDATE data_plane.processes SET alive_until = 'epoch' WHERE name = 'data-plane-0'"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, func(d *Deps) { d.Name = "data-plane-1"; d.Now = time.Now })
			b.handle(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "the first bytes")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			a := b.start(t, b.flow())
			cmd := exec.CommandContext(t.Context(), os.Args[0]) // #nosec G204 G702 -- this test itself
			cmd.Env = append(os.Environ(), childEnv+"="+b.deps.DB.Config().ConnString())
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			url, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSpace(url)+"/supplier/data/tp-1", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", a.Properties["authorization"])
			res, err := http.DefaultClient.Do(req)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res, err)
			}
			defer func() { _ = res.Body.Close() }()
			if _, err := io.ReadFull(res.Body, make([]byte, len("the first bytes"))); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if _, r := b.trail(t); len(r.Open) != 1 || r.Open[0].Agreement != "ag-1" || r.Open[0].Actor != "did:web:x:buyer" {
				t.Fatalf("%+v", r)
			}
			if next.first != "" {
				b.exec(t, next.first)
			}
			b.deps.Name, b.deps.Metrics = next.name, nil
			p, err := New(b.deps)
			if err != nil {
				t.Fatal(err)
			}
			b.run(t, p.Run)
			until(t, "the access is closed", func() bool { _, r := b.trail(t); return len(r.Open) == 0 })
			got, r := b.trail(t)
			if len(got) != 2 || len(r.Unknown) != 1 || got[1]["unknown"] != true || got[1]["actor"] != audit.Self || got[1]["flow"] != "tp-1" || got[1]["access"] != got[0]["access"] {
				t.Errorf("%v, %+v", got, r)
			}
			var left int
			if err := b.super.QueryRow(t.Context(), "SELECT count(*) FROM data_plane.accesses").Scan(&left); err != nil || left != 0 {
				t.Errorf("%d accesses are still noted, %v", left, err)
			}
		})
	}
}
