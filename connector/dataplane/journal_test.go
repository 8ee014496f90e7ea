// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

func TestAccessesAtOnceAreRecordedOnceEach(t *testing.T) {
	const participants, clients, each = 3, 12, 10
	b := setup(t)
	var wg sync.WaitGroup
	for p := range participants {
		name := fmt.Sprintf("supplier-%d", p)
		if err := audit.Open(t.Context(), tenant.DB{Pool: b.deps.DB}.In(name), name); err != nil {
			t.Fatal(err)
		}
		a := b.start(t, b.flow(func(f *dps.Flow) {
			f.Context, f.FlowID, f.Source = name, "tp-"+name, map[string]string{"type": "HttpData", "baseUrl": b.backend.URL}
		}))
		for range clients {
			wg.Go(func() {
				for range each {
					if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusOK {
						t.Errorf("%s: %+v", name, got)
					}
				}
			})
		}
	}
	wg.Wait()
	b.plane.journal.close()
	for p := range participants {
		got, r := b.trailOf(t, fmt.Sprintf("supplier-%d", p))
		if len(r.Open)+len(r.Unknown) != 0 || r.ByType[audit.DataIntent] != clients*each || r.ByType[audit.DataOutcome] != clients*each {
			t.Errorf("%+v", r)
		}
		seen := map[any]int{}
		for _, record := range got {
			seen[record["access"]]++
		}
		for access, n := range seen {
			if n != 2 {
				t.Errorf("access %s has %d records", access, n)
			}
		}
	}
}

// held is a data plane whose first access waits for the chain, and others for that.
type held struct {
	*bundle
	tx      pgx.Tx // has the lock
	answers chan answer
	cancel  []context.CancelFunc
}

// hold lets several accesses begin while the chain is locked: the first is being committed, the others share the next group.
func hold(t *testing.T, accesses int) *held {
	t.Helper()
	h := &held{bundle: setup(t, func(d *Deps) { d.RecordTimeout = 10 * time.Minute }), answers: make(chan answer, accesses)}
	a := h.start(t, h.flow())
	var err error
	if h.tx, err = h.super.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.tx.Rollback(context.Background()) })
	if _, err := h.tx.Exec(t.Context(), "SELECT FROM audit.chains FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	for range accesses {
		ctx, cancel := context.WithCancel(t.Context())
		h.cancel = append(h.cancel, cancel)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", a.Properties["authorization"])
		go func() {
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				h.answers <- answer{}
				return
			}
			_ = res.Body.Close()
			h.answers <- answer{status: res.StatusCode}
		}()
		until(t, "the first access is being committed", func() (waits bool) {
			if err := h.super.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')").Scan(&waits); err != nil {
				t.Fatal(err)
			}
			return waits
		})
	}
	until(t, "the others wait", func() bool { return len(h.waiting()) == accesses-1 })
	return h
}

// waiting are the records that wait for their group.
func (h *held) waiting() []*entry {
	j := h.plane.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if q := j.queues["supplier"]; q != nil {
		return slices.Clone(q.entries)
	}
	return nil
}

func (h *held) commit(t *testing.T, sql string) {
	t.Helper()
	if _, err := h.tx.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
	if err := h.tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (h *held) statuses() map[int]int {
	got := map[int]int{}
	for range cap(h.answers) {
		got[(<-h.answers).status]++
	}
	return got
}

// TestAConsumerThatGoesTakesNobodyAlong has two of those who wait for the chain go: one before its intent is sent to the database, one after.
func TestAConsumerThatGoesTakesNobodyAlong(t *testing.T) {
	const accesses = 20
	h := hold(t, accesses)
	h.cancel[0]()
	h.cancel[7]()
	until(t, "the data plane notices", func() bool {
		return slices.ContainsFunc(h.waiting(), func(e *entry) bool { return errors.Is(e.asked.Err(), context.Canceled) })
	})
	h.commit(t, "")
	if got := h.statuses(); got[http.StatusOK] != accesses-2 || got[0] != 2 {
		t.Errorf("%v", got)
	}
	h.settled(t, 2*(accesses-1)) // all but the one that had gone before
	if _, r := h.trail(t); len(r.Open)+len(r.Unknown) != 0 {
		t.Errorf("%+v", r)
	}
	var transactions int
	if err := h.super.QueryRow(t.Context(), "SELECT count(DISTINCT xmin::text) FROM audit.records WHERE type = $1", audit.DataIntent).Scan(&transactions); err != nil || transactions != 2 {
		t.Errorf("%d transactions for the first intent and all others, %v", transactions, err)
	}
}

func TestAGroupThatCannotBeRecordedIsRefused(t *testing.T) {
	const accesses = 20
	h := hold(t, accesses)
	h.commit(t, "ALTER FUNCTION audit.append RENAME TO gone")
	if got := h.statuses(); got[http.StatusServiceUnavailable] != accesses-1 || got[http.StatusOK] != 1 {
		t.Errorf("%v", got)
	}
	until(t, "the one outcome could not be recorded", func() bool { return h.late() == 1 })
	if got, r := h.trail(t); len(got) != 1 || len(r.Open) != 1 {
		t.Errorf("%v", got)
	}
	h.exec(t, "ALTER FUNCTION audit.gone RENAME TO append")
	h.plane.journal.close() // at the end what is late is tried once more
	if got, r := h.trail(t); len(got) != 2 || len(r.Open)+len(r.Unknown) != 0 {
		t.Errorf("%v", got)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	var lock sync.Mutex
	got := map[string]int{}
	j := newJournal(func(participant string, group []*entry) []*entry {
		if len(group) > groupSize {
			t.Errorf("a group of %d", len(group))
		}
		lock.Lock()
		defer lock.Unlock()
		got[participant] += len(group)
		return nil
	})
	for range 3*groupSize + 1 {
		j.add("a", &entry{})
	}
	j.add("b", &entry{})
	j.close()
	if got["a"] != 3*groupSize+1 || got["b"] != 1 {
		t.Errorf("recorded %v", got)
	}
	j.add("a", &entry{}) // of an access that was under way too long
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.queues) > 0 {
		j.empty.Wait()
	}
	if got["a"] != 3*groupSize+2 {
		t.Errorf("recorded %v", got)
	}
}
