// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

// neighbours are participants with due rows: acme has them all due before the others'.
func neighbours(t *testing.T, s *store.Store, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := s.PutParticipant(t.Context(), name, adminapi.Participant{DID: "did:web:" + name, Profile: "pilot", Active: true}); err != nil {
			t.Fatal(err)
		}
		n := negotiation("quiet", "did:web:busy")
		n.Ctx = name
		insert(t, s, n, store.Side{})
	}
}

// leased counts what was leased by participant.
func leased(t *testing.T, s *store.Store, slots int, places store.Places) map[string]int {
	t.Helper()
	rows, err := s.LeaseNegotiations(t.Context(), slots, places)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, n := range rows {
		count[n.Ctx]++
	}
	return count
}

func TestEveryParticipantGetsItsTurn(t *testing.T) {
	for name, tc := range map[string]struct {
		counterparty func(i int) string
		places       store.Places
		slots        int
		want         string // the first lease, and the second, with the rest still under way
	}{
		"with one counterparty in common":    {func(int) string { return "did:web:busy" }, store.Places{PerParticipant: 100, PerCounterparty: 8}, 16, "acme:4 beta:1 gamma:1, none"},
		"with many counterparties":           {func(i int) string { return fmt.Sprint("did:web:", i) }, store.Places{PerParticipant: 4, PerCounterparty: 8}, 16, "acme:4 beta:1 gamma:1, none"},
		"when there is room for one of each": {func(i int) string { return fmt.Sprint("did:web:", i) }, store.Places{PerParticipant: 4, PerCounterparty: 8}, 3, "acme:1 beta:1 gamma:1, acme:3"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, store.Options{Owner: "one"})
			for i := range 300 {
				insert(t, s, negotiation(fmt.Sprint("noisy", i), tc.counterparty(i)), store.Side{})
			}
			neighbours(t, s, "beta", "gamma")
			var got []string
			for range 2 {
				var each []string
				for name, n := range leased(t, s, tc.slots, tc.places) {
					each = append(each, fmt.Sprint(name, ":", n))
				}
				if slices.Sort(each); each == nil {
					each = []string{"none"}
				}
				got = append(got, strings.Join(each, " "))
			}
			if strings.Join(got, ", ") != tc.want {
				t.Errorf("leased %s, want %s", strings.Join(got, ", "), tc.want)
			}
		})
	}
}

// TestWhatHangsInOneContext: transactions of one participant that are stuck take its share of the connections, and its next one is told so; another
// participant reads and writes, and so does what belongs to none.
func TestWhatHangsInOneContext(t *testing.T) {
	const most = 2
	s, _ := open(t, store.Options{Owner: "one", Connections: limits.NewShares(limits.Share{Name: "statements", Most: most, Queue: 100})})
	insert(t, s, negotiation("n1", "did:web:busy"), store.Side{})
	ctx, stop := context.WithCancel(t.Context())
	stuck, ended := make(chan struct{}, most), make(chan error, most)
	defer stop()
	for i := range most {
		go func() {
			_, err := s.UpdateNegotiation(ctx, "acme", "n1", fmt.Sprint("m", i), func(*store.Negotiation, bool) (store.Side, error) {
				stuck <- struct{}{}
				<-ctx.Done()
				return store.Side{}, ctx.Err()
			})
			ended <- err
		}()
	}
	<-stuck
	var busy *limits.BusyError
	var err error
	for !errors.As(err, &busy) { // once the second one waits for the row, too
		if _, err = s.Negotiation(t.Context(), "acme", "n1"); err != nil && !errors.As(err, &busy) {
			t.Fatal(err)
		}
	}
	if busy.Party != "acme" || !strings.Contains(err.Error(), "acme has 2 statements under way") {
		t.Error(err)
	}
	neighbours(t, s, "beta")
	if n, err := s.Negotiation(t.Context(), "beta", "quiet"); err != nil || n.Ctx != "beta" {
		t.Error(err)
	}
	if got := leased(t, s, 10, store.Places{PerParticipant: 10, PerCounterparty: 10}); got["beta"] != 1 {
		t.Errorf("leased %v", got)
	}
	stop()
	for range most {
		if err := <-ended; err == nil {
			t.Error("what was stuck has ended well")
		}
	}
	if _, err := s.Negotiation(t.Context(), "acme", "n1"); err != nil {
		t.Errorf("its places are not given back: %v", err)
	}
}

// BenchmarkLease is what a lease costs while one participant has 100 000 due rows with as many counterparties as named, and another one row.
func BenchmarkLease(b *testing.B) {
	for _, counterparties := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(counterparties), func(b *testing.B) {
			dsn := pgtest.NewDatabase(b)
			s := connect(b, dsn, store.Options{Owner: "one"})
			db, err := pgx.Connect(b.Context(), pgtest.Superuser(b, dsn))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = db.Close(context.WithoutCancel(b.Context())) }()
			for _, sql := range []string{
				"INSERT INTO control_plane.profiles (name, profile) VALUES ('pilot', '{}')",
				"INSERT INTO control_plane.participants (ctx, did, profile, active) SELECT c, 'did:web:' || c, 'pilot', true FROM unnest(ARRAY['acme', 'beta']) c",
				fmt.Sprintf(`INSERT INTO control_plane.negotiations (ctx, id, profile, role, state, step, counterparty, address, asset_id, offer_id, offer, next_attempt_at)
					SELECT CASE WHEN i = 0 THEN 'beta' ELSE 'acme' END, i::text, 'pilot', 'provider', 'REQUESTED', 'REQUESTED', 'did:web:' || (i %% %d), 'https://peer', 'asset', 'offer', '{}',
						clock_timestamp() - interval '1 hour' + i * interval '1 ms' FROM generate_series(0, 100000) i`, counterparties),
				"ANALYZE",
			} {
				if _, err := db.Exec(b.Context(), sql); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				rows, err := s.LeaseNegotiations(b.Context(), 16, store.Places{PerParticipant: 8, PerCounterparty: 8})
				if err != nil || len(rows) < 2 {
					b.Fatal(len(rows), err)
				}
				b.StopTimer()
				if _, err := db.Exec(b.Context(), "UPDATE control_plane.negotiations SET lease_until = NULL WHERE lease_until IS NOT NULL"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
