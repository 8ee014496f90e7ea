// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/archive"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

func (p *place) at() archive.Place { return archive.Place{Database: p.cc, Vault: p.kv} }

func (p *place) head(t *testing.T, ctx string) audit.Head {
	t.Helper()
	h, err := audit.HeadOf(t.Context(), p.conn, ctx)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (p *place) held(t *testing.T) []string {
	t.Helper()
	return column(t, p, "SELECT ctx FROM audit.chains WHERE open AND moving")
}

// moves moves acme, and says it twice; the second time as somebody who did not hear how it ended.
func (p *place) moves(t *testing.T, to *place) audit.Head {
	t.Helper()
	var held audit.Head
	var before []audit.Head
	for n := range 2 {
		h, err := archive.Move(t.Context(), p.at(), to.at(), "acme", func(h audit.Head) error { before = append(before, h); return nil })
		if err != nil || n > 0 && h != held {
			t.Fatalf("attempt %d: %+v, not %+v: %v", n, h, held, err)
		}
		held = h
	}
	if !slices.Equal(before, []audit.Head{held}) {
		t.Errorf("told before it is there: %+v, not %+v", before, held)
	}
	return held
}

func unprepared(audit.Head) error { return nil }

func TestAParticipantMovesThereBackAndThereAgain(t *testing.T) {
	home, away := empty(t, vaulttest.New()), empty(t, vaulttest.New())
	for _, ctx := range []string{"acme", "other"} {
		home.fill(t, ctx)
	}
	away.fill(t, "third")
	neighbours := []map[string][]string{home.holds(t, "other"), away.holds(t, "third")}
	keys := home.holds(t, "acme")["vault acme"]
	rows := home.holds(t, "acme")["control_plane.agreements"]
	known := []audit.Head{home.head(t, "acme")}
	from, to := home, away
	for round := range 3 {
		held := from.moves(t, to)
		if was := from.head(t, "acme"); held != was {
			t.Errorf("round %d: held as %+v, and is %+v", round, held, was)
		}
		known = append(known, held, to.head(t, "acme"))
		if _, err := archive.Move(t.Context(), to.at(), from.at(), "acme", unprepared); !errors.Is(err, archive.ErrExists) || !strings.Contains(err.Error(), "not deleted there yet") || len(to.held(t)) > 0 {
			t.Errorf("round %d: back at once: %v, held there: %s", round, err, to.held(t))
		}
		if _, err := archive.Abort(t.Context(), from.at(), to.at(), "acme"); !errors.Is(err, archive.ErrMoved) {
			t.Errorf("round %d: aborted when it is there: %v", round, err)
		}
		from.forget(t, "acme")
		if h, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); err != nil || h != held {
			t.Errorf("round %d: said again when it is gone from here: %+v, %v", round, h, err)
		}
		if _, err := archive.Abort(t.Context(), from.at(), to.at(), "acme"); !errors.Is(err, archive.ErrMoved) {
			t.Errorf("round %d: aborted when it is gone from here: %v", round, err)
		}
		to.record(t, "acme", audit.Management)
		now := to.holds(t, "acme")
		if !slices.Equal(now["vault acme"], keys) || !slices.Equal(now["control_plane.agreements"], rows) {
			t.Errorf("round %d: keys or agreements are others", round)
		}
		from, to = to, from
	}
	if active := column(t, away, "SELECT active::text FROM control_plane.participants WHERE ctx = 'acme'"); !slices.Equal(active, []string{"false"}) {
		t.Errorf("it works at once where it came: %s", active)
	}
	if r, err := audit.Verify(away.trail(t, "acme"), known); err != nil || r.Compared != len(known) || r.ByType[audit.ParticipantRestored] != 3 {
		t.Errorf("the trail: %+v, %v", r, err)
	}
	for n, p := range []*place{home, away} {
		now := p.holds(t, []string{"other", "third"}[n])
		for _, gone := range []map[string][]string{now, neighbours[n]} { // acme's, and what all have in common
			for _, table := range []string{"vault acme", "control_plane.profiles", "control_plane.used_tokens"} {
				delete(gone, table)
			}
		}
		if !cmp.Equal(now, neighbours[n]) {
			t.Errorf("neighbours of place %d: %s", n, cmp.Diff(neighbours[n], now))
		}
	}
	if _, err := archive.Move(t.Context(), home.at(), empty(t, vaulttest.New()).at(), "acme", unprepared); !errors.Is(err, archive.ErrNoContext) {
		t.Errorf("from where it is not: %v", err)
	}
}

// TestAMoveIsRefusedWhereTheNameIsTaken, and changes nothing in either place.
func TestAMoveIsRefusedWhereTheNameIsTaken(t *testing.T) {
	from := empty(t, vaulttest.New())
	from.fill(t, "acme")
	for what, take := range map[string]func(p *place){
		"by another participant": func(p *place) { p.fill(t, "acme") },
		"by one that is being deleted": func(p *place) {
			p.exec(t, "INSERT INTO wallet.participants (ctx, did, updated_at) VALUES ('acme', 'did:web:other', now())")
		},
	} {
		to := empty(t, vaulttest.New())
		if err := to.kv.Create(t.Context(), "acme/keys/its-own", map[string]string{"jwk": "its own"}); err != nil {
			t.Fatal(err)
		}
		take(to)
		before, there := from.holds(t), to.holds(t)
		if _, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); !errors.Is(err, archive.ErrExists) || !strings.Contains(err.Error(), `"acme"`) {
			t.Errorf("taken %s: %v", what, err)
		}
		if now := from.holds(t); !cmp.Equal(now, before) {
			t.Errorf("taken %s: something changed here: %s", what, cmp.Diff(before, now))
		}
		if now := to.holds(t); !cmp.Equal(now, there) {
			t.Errorf("taken %s: something changed there: %s", what, cmp.Diff(there, now))
		}
	}
}

// TestAMoveThatIsCutOffIsMadeAgain, wherever Vault or database went away, also when the participant went on meanwhile with other secrets.
func TestAMoveThatIsCutOffIsMadeAgain(t *testing.T) {
	for what, cut := range map[string]func(from, to *place, now func() error){
		"the Vault, read":             func(from, _ *place, now func() error) { from.kv = &failing{from.kv, 2, now} },
		"the Vault, at its first key": func(_, to *place, now func() error) { to.kv = &breaking{to.kv, 1, now} },
		"the Vault, at its last key":  func(_, to *place, now func() error) { to.kv = &breaking{to.kv, 3, now} },
	} {
		for how, kill := range map[string]bool{"an error": false, "the database of both": true} {
			from, to := empty(t, vaulttest.New()), empty(t, vaulttest.New())
			from.fill(t, "acme")
			wholeFrom, wholeTo := from.kv, to.kv
			tables := to.holds(t)
			cut(from, to, func() error {
				if !kill {
					return errors.New("gone")
				}
				for _, p := range []*place{from, to} {
					p.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
				}
				return nil
			})
			if _, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); err == nil {
				t.Errorf("%s, %s: nobody notices", what, how)
			}
			from.kv, to.kv = wholeFrom, wholeTo
			now := to.holds(t)
			delete(now, "vault acme")
			if !cmp.Equal(now, tables) || len(from.held(t)) != 1 {
				t.Errorf("%s, %s: something counts, or it is not held: %s", what, how, cmp.Diff(tables, now))
			}
			for range 2 {
				if _, err := archive.Abort(t.Context(), from.at(), to.at(), "acme"); err != nil {
					t.Errorf("%s, %s: abort: %v", what, how, err)
				}
			}
			if now := to.holds(t); !cmp.Equal(now, tables) || len(from.held(t)) != 0 {
				t.Errorf("%s, %s: the abort leaves something: %s", what, how, cmp.Diff(tables, now))
			}
			from.record(t, "acme", audit.Management)
			// What an attempt before left in the Vault, after which the secret changed and a key was replaced.
			for path, data := range map[string]map[string]string{"acme/keys/key-0": {"jwk": "an older one"}, "acme/secrets/backend": {"value": "of then"}} {
				if err := to.kv.Write(t.Context(), path, data); err != nil {
					t.Fatal(err)
				}
			}
			from.moves(t, to)
			if a, b := from.holds(t)["vault acme"], to.holds(t)["vault acme"]; !slices.Equal(a, b) {
				t.Errorf("%s, %s: the Vault has %v, not %v", what, how, b, a)
			}
		}
	}
}

// failing is a Vault in which something happens at one of its reads.
type failing struct {
	vault.KV
	at  int
	now func() error
}

func (f *failing) Read(ctx context.Context, path string) (map[string]string, error) {
	if f.at--; f.at == 0 {
		if err := f.now(); err != nil {
			return nil, err
		}
	}
	return f.KV.Read(ctx, path)
}

// TestOneOfMoveAndAbortWins: there is never a participant in both places, nor in none.
func TestOneOfMoveAndAbortWins(t *testing.T) {
	from, to := empty(t, vaulttest.New()), empty(t, vaulttest.New())
	from.fill(t, "acme")
	whole, there := from.kv, to.kv
	before := to.holds(t)
	from.kv = &failing{whole, 1, func() error { return archive.Release(t.Context(), from.cc, "acme") }}
	if _, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); err == nil || !strings.Contains(err.Error(), "released meanwhile") {
		t.Errorf("released under way: %v", err)
	}
	if now := to.holds(t); !cmp.Equal(now, before) {
		t.Errorf("released under way, and something is there: %s", cmp.Diff(before, now))
	}
	from.record(t, "acme", audit.Management)
	from.kv = &failing{whole, 1, func() error { // an archive of before
		if err := archive.Release(t.Context(), from.cc, "acme"); err != nil {
			return err
		}
		from.record(t, "acme", audit.Management)
		return archive.Hold(t.Context(), from.cc, "acme")
	}}
	if _, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); err == nil || !strings.Contains(err.Error(), "released meanwhile") {
		t.Errorf("released and held again under way: %v", err)
	}

	ended := map[string]chan error{"abort": make(chan error, 1), "move": make(chan error, 1)}
	to.kv = &breaking{there, 1, func() error {
		go func() {
			_, err := archive.Move(t.Context(), from.at(), archive.Place{Database: to.cc, Vault: there}, "acme", unprepared)
			ended["move"] <- err
		}()
		go func() {
			_, err := archive.Abort(t.Context(), from.at(), archive.Place{Database: to.cc, Vault: there}, "acme")
			ended["abort"] <- err
		}()
		const waiting = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for len(column(t, to, waiting))+len(column(t, from, waiting)) < 2 && len(ended["move"])+len(ended["abort"]) == 0 {
			select {
			case <-ctx.Done():
				return errors.New("they do not wait for each other")
			case <-time.After(20 * time.Millisecond):
			}
		}
		return nil
	}}
	if _, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); err != nil {
		t.Error(err)
	}
	if err := <-ended["move"]; err != nil {
		t.Errorf("the other move: %v", err)
	}
	if err := <-ended["abort"]; !errors.Is(err, archive.ErrMoved) {
		t.Errorf("aborted meanwhile: %v", err)
	}
	if len(from.held(t)) != 1 || len(to.held(t)) != 0 || to.head(t, "acme").Seq != from.head(t, "acme").Seq+1 {
		t.Error("it is not held here and open there, once")
	}
}

// lossy is a connection to a database that breaks after the answer to a COMMIT was sent, before anybody has read it.
type lossy struct {
	net.Conn
	committing atomic.Bool
}

func (l *lossy) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("commit")) {
		l.committing.Store(true)
	}
	return l.Conn.Write(b)
}

func (l *lossy) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err == nil && l.committing.Load() {
		_ = l.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestACommitOfWhichNobodyHears(t *testing.T) {
	from, to := empty(t, vaulttest.New()), empty(t, vaulttest.New())
	from.fill(t, "acme")
	var lost atomic.Int32
	losing := to.cc.Copy()
	losing.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		lost.Add(1)
		conn, err := to.cc.DialFunc(ctx, network, address)
		return &lossy{Conn: conn}, err
	}
	held, err := archive.Move(t.Context(), from.at(), archive.Place{Database: losing, Vault: to.kv}, "acme", unprepared)
	if err != nil || lost.Load() == 0 || to.head(t, "acme").Seq != held.Seq+1 {
		t.Errorf("%+v, %v", held, err)
	}
	if again, err := archive.Move(t.Context(), from.at(), to.at(), "acme", unprepared); err != nil || again != held {
		t.Errorf("again: %+v, %v", again, err)
	}
}
