// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/connector/archive"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
	"github.com/kaphera/kaphera/test/openbao"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// place is a connector's database and Vault.
type place struct {
	cc   *pgx.ConnConfig
	conn *pgx.Conn // as the owner, who sees all contexts
	kv   vault.KV
}

func empty(t *testing.T, kv vault.KV) *place {
	t.Helper()
	cc, err := pgx.ParseConfig(pgtest.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), cc, nil); err != nil {
		t.Fatal(err)
	}
	// Settings that would write values otherwise.
	for name, value := range map[string]string{"timezone": "Asia/Kathmandu", "datestyle": "SQL, DMY", "intervalstyle": "sql_standard", "bytea_output": "escape"} {
		cc.RuntimeParams[name] = value
	}
	p := &place{cc: cc, kv: kv}
	seeing := cc.Copy()
	seeing.RuntimeParams["kaphera.ctx"] = "*"
	if p.conn, err = pgx.ConnectConfig(t.Context(), seeing); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close(context.WithoutCancel(t.Context())) })
	return p
}

func (p *place) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := p.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// fill makes a row in every table for a context, with values that some way of writing them down would change.
func (p *place) fill(t *testing.T, ctx string) {
	t.Helper()
	noise := make([]byte, 150<<10) // so that an archive has several chunks
	_, _ = rand.Read(noise)
	at := func(sql string) { p.exec(t, strings.NewReplacer("@", "'"+ctx+"'", "#", ctx).Replace(sql)) }
	at(`INSERT INTO control_plane.profiles (name, profile) VALUES ('pilot', '{"name":"pilot"}'), ('further', '{}'), ('of nobody', '{}') ON CONFLICT DO NOTHING`)
	at(`INSERT INTO control_plane.participants (ctx, did, profile, further_profiles, active) VALUES (@, 'did:web:example:#', 'pilot', '{further}', true)`)
	at(`INSERT INTO control_plane.assets (ctx, id, properties, data_address) VALUES (@, 'a', '{"a":"\\ \u00e4 \" \t\n,"}', 'null')`)
	at(`INSERT INTO control_plane.policies (ctx, id, policy) VALUES (@, 'p', E'{ "b" : 1.0,\n\t"a": 1e5, "a": "\\u00e4" }')`)
	at(`INSERT INTO control_plane.contract_definitions (ctx, id, contract_policy, selector, profiles) VALUES (@, 'd', 'p', '[]', ARRAY['with, comma', '"quoted"', '', 'NULL'])`)
	at(`INSERT INTO control_plane.use_cases (ctx, id, revision) VALUES (@, 'u', '{}')`)
	at(`INSERT INTO control_plane.negotiations (ctx, profile, id, role, state, step, counterparty, address, asset_id, offer_id, offer, denial, agreement_id, message_id, next_attempt_at)
		VALUES (@, 'pilot', 'n', 'provider', 'VERIFIED', 'FINALIZING', 'did:web:other', 'https://other', 'a', 'o', '{}', 'null', 'g', 'urn:uuid:1', '2026-11-28 12:00:00.000001+00')`)
	at(`INSERT INTO control_plane.agreements (ctx, id, negotiation_id, role, provider, consumer, asset_id, agreement, signed_at) VALUES (@, 'g', 'n', 'provider', 'x', 'y', 'a', '{ }', 'infinity')`)
	at(`INSERT INTO control_plane.head_requests (ctx, agreement_id) VALUES (@, 'g')`)
	at(`INSERT INTO control_plane.transfers (ctx, profile, id, role, state, step, counterparty, address, agreement_id, asset_id, format, presented) VALUES (@, 'pilot', 't', 'provider', 'STARTED', 'STARTED', 'x', 'y', 'g', 'a', 'HttpData-PULL', '{}')`)
	at(`INSERT INTO control_plane.data_addresses (ctx, transfer_id, address) VALUES (@, 't', '{"token":"x"}')`)
	at(`INSERT INTO control_plane.received_messages (ctx, process_id, message_id) VALUES (@, 'n', 'm')`)
	at(`INSERT INTO control_plane.process_requests (ctx, process_id, private_properties) VALUES (@, 'n', '{}')`)
	at(`INSERT INTO control_plane.callbacks (ctx, process_id, position, uri, events, next_attempt_at) VALUES (@, 'n', 0, 'https://x', '{a,b}', NULL)`)
	at(`INSERT INTO control_plane.used_tokens VALUES (sha256(@), now() + interval '1 hour'), (sha256('old #'), now() - interval '1 hour')`)
	at(`INSERT INTO wallet.participants (ctx, did, updated_at) VALUES (@, 'did:web:example:#', now())`)
	at(`INSERT INTO wallet.keys (ctx, kid, public_jwk, active, created_at, retired_at) VALUES (@, 'key-1', '{}', false, now(), now()), (@, 'key-2', '{}', true, now(), NULL)`)
	at(`INSERT INTO wallet.requests (id, ctx, issuer, type, state, next_attempt_at, created_at, updated_at) VALUES ('r-#', @, 'i', 't', 'SENT', now(), now(), now())`)
	p.exec(t, `INSERT INTO wallet.credentials (ctx, digest, id, type, types, profile, issuer, raw, subject, valid_from, received_at, status_checked_at)
		VALUES ($1, '\x00ff', 'c', 't', '{t}', 'p', 'i', $2, '{"n":12345678901234567890.10}', now(), now(), now())`, ctx, base64.StdEncoding.EncodeToString(noise))
	at(`INSERT INTO data_plane.flows (flow_id, ctx, participant, counterparty, agreement_id, asset_id, format, source, claims, state, token_hash, token_expires_at, created_at, updated_at)
		VALUES ('f-#', @, 'x', 'y', 'g', 'a', 'HttpData-PULL', '{}', '{}', 'STARTED', sha256(@), now(), now(), now())`)
	at(`INSERT INTO data_plane.accesses (id, ctx, boot, flow_id, agreement_id) VALUES ('x-#', @, 'boot', 'f-#', 'g')`)
	at(`INSERT INTO issuer.issuers (ctx, did, types, updated_at) VALUES (@, 'did:web:issuer:#', '[]', now())`)
	at(`INSERT INTO issuer.keys (ctx, kid, public_jwk, active, created_at) VALUES (@, 'key-2', '{}', true, now())`)
	at(`INSERT INTO issuer.entitlements (ctx, holder, type, claims) VALUES (@, 'h', 't', '{}')`)
	at(`INSERT INTO issuer.requests (id, ctx, holder, holder_pid, objects, state, next_attempt_at, created_at, updated_at) VALUES ('q-#', @, 'h', 'p', '{o}', 'ISSUED', now(), now(), now())`)
	at(`INSERT INTO issuer.credentials (id, ctx, request_id, holder, type, profile, raw, list, idx, single, issued_at, expires_at) VALUES ('urn:#', @, 'q-#', 'h', 't', 'p', 'raw', 1, 7, true, now(), now())`)
	// A chain of a participant of that name before, and one of which bodies were pruned.
	p.record(t, ctx, audit.ParticipantMade)
	if err := audit.Close(t.Context(), p.conn, ctx); err != nil {
		t.Fatal(err)
	}
	p.record(t, ctx, append(slices.Repeat([]string{audit.Policy}, 9), audit.Management)...)
	at(`INSERT INTO audit.records (chain, ctx, type, actor, body) SELECT id, ctx, 'audit.pruned', 'connector', '{"through":1}' FROM audit.chains WHERE ctx = @ AND open`)
	at(`UPDATE audit.records SET body = NULL WHERE ctx = @ AND seq = 1 AND chain = (SELECT id FROM audit.chains WHERE ctx = @ AND open)`)
	for path, value := range map[string]map[string]string{"keys/key-1": {"jwk": "old"}, "keys/key-2": {"jwk": "private of " + ctx}, "secrets/backend": {"value": "hush of " + ctx}} {
		if err := p.kv.Create(t.Context(), ctx+"/"+path, value); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *place) record(t *testing.T, ctx string, types ...string) {
	t.Helper()
	if err := audit.Open(t.Context(), p.conn, ctx); err != nil {
		t.Fatal(err)
	}
	for _, of := range types {
		if err := audit.Append(t.Context(), p.conn, ctx, audit.Entry{Type: of, Actor: "user:ä", Body: map[string]any{"escaped": "<&>\u2028", "number": 1}}); err != nil {
			t.Fatal(err)
		}
	}
}

// holds is everything in the database and the Vault, as text; of contexts only, unless none is given.
func (p *place) holds(t *testing.T, contexts ...string) map[string][]string {
	t.Helper()
	rows, err := p.conn.Query(t.Context(), `SELECT c.table_schema || '.' || c.table_name, bool_or(column_name = 'ctx') FROM information_schema.columns c
		WHERE table_schema IN ('control_plane', 'wallet', 'data_plane', 'issuer', 'audit') AND table_name <> 'goose_db_version' GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]bool{}
	var table string
	var scoped bool
	if _, err := pgx.ForEachRow(rows, []any{&table, &scoped}, func() error { tables[table] = scoped; return nil }); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for table, scoped := range tables {
		of := ""
		if scoped && len(contexts) > 0 {
			of = " WHERE ctx IN ('" + strings.Join(contexts, "', '") + "')"
		}
		rows, err := p.conn.Query(t.Context(), "SELECT t::text FROM "+table+" t"+of+" ORDER BY 1")
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			out[table] = found
		}
	}
	for _, ctx := range []string{"acme", "other"} {
		for _, kind := range []string{"keys", "secrets"} {
			names, err := p.kv.List(t.Context(), ctx+"/"+kind)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				data, err := p.kv.Read(t.Context(), ctx+"/"+kind+"/"+name)
				if err != nil {
					t.Fatal(err)
				}
				out["vault "+ctx] = append(out["vault "+ctx], fmt.Sprint(kind, name, data))
			}
		}
		slices.Sort(out["vault "+ctx])
		if len(out["vault "+ctx]) == 0 {
			delete(out, "vault "+ctx)
		}
	}
	return out
}

var key, _ = age.GenerateX25519Identity()

func (p *place) export(t *testing.T, contexts ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, _, err := archive.Export(t.Context(), p.cc, p.kv, &out, []age.Recipient{key.Recipient()}, contexts...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (p *place) imports(t *testing.T, raw []byte) error {
	t.Helper()
	_, _, err := archive.Import(t.Context(), p.cc, p.kv, bytes.NewReader(raw), key)
	return err
}

// realVault is a client of an OpenBao with a token that may do what does says, and nothing else.
func realVault(t *testing.T, s *openbao.Server, prefix string, does ...vault.Access) *vault.Client {
	t.Helper()
	token := s.RootToken
	if len(does) > 0 {
		s.Call(t, http.MethodPut, "sys/policies/acl/of-the-test", map[string]any{"policy": vault.Policy("secret", prefix, does...)})
		auth := s.Call(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"of-the-test"}})["auth"].(map[string]any)
		token = auth["client_token"].(string)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := vault.New(vault.Config{Address: s.Address, Mount: "secret", Prefix: prefix, Access: does, Auth: vault.Auth{Method: vault.AuthToken, TokenFile: file}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAnArchiveBringsEverything: one context of two, into a database that has others, through a real Vault with the rights that the documentation names.
func TestAnArchiveBringsEverything(t *testing.T) {
	bao := openbao.Start(t)
	from := empty(t, realVault(t, bao, "from"))
	from.fill(t, "acme")
	from.fill(t, "other")
	before := from.holds(t, "acme")
	for table, rows := range from.holds(t) {
		if len(rows) == 0 {
			t.Errorf("nothing is in %s", table)
		}
	}
	reading := &place{cc: from.cc, kv: realVault(t, bao, "from", vault.Backup)}
	raw := reading.export(t, "acme")
	if now := from.holds(t, "acme"); !cmp.Equal(now, before) {
		t.Errorf("the export changed something: %s", cmp.Diff(before, now))
	}
	for _, hush := range []string{"hush", "private", "did:web"} {
		if bytes.Contains(raw, []byte(hush)) {
			t.Errorf("%q can be read in the archive", hush)
		}
	}

	to := empty(t, realVault(t, bao, "to"))
	to.exec(t, `INSERT INTO control_plane.profiles (name, profile) VALUES ('pilot', '{"name":"pilot","own":true}')`)
	writing := &place{cc: to.cc, kv: realVault(t, bao, "to", vault.Restore)}
	if err := writing.imports(t, raw); err != nil {
		t.Fatal(err)
	}
	after := to.holds(t)
	for _, gone := range []map[string][]string{before, after} { // what is compared below, or not carried
		for _, table := range []string{"control_plane.profiles", "control_plane.used_tokens", "audit.chains", "audit.records"} {
			delete(gone, table)
		}
	}
	delete(before, "vault other")
	if !cmp.Equal(after, before) {
		t.Errorf("not as it was: %s", cmp.Diff(before, after))
	}
	if got := column(t, to, `SELECT name || (profile ->> 'own' IS NOT NULL)::text FROM control_plane.profiles ORDER BY 1`); !slices.Equal(got, []string{"furtherfalse", "pilottrue"}) {
		t.Errorf("profiles: %v", got)
	}
	if got := column(t, to, `SELECT encode(digest, 'hex') FROM control_plane.used_tokens ORDER BY 1`); !slices.Equal(got, column(t, from, `SELECT encode(digest, 'hex') FROM control_plane.used_tokens WHERE expires_at > now() ORDER BY 1`)) {
		t.Errorf("tokens that were used: %v", got)
	}
	const kept = "SELECT r::text FROM audit.records r WHERE ctx = 'acme' AND type <> 'participant.restored' ORDER BY chain, seq"
	if a, b := column(t, from, kept), column(t, to, kept); !slices.Equal(a, b) || len(a) != 13 {
		t.Errorf("the audit trail: %s", cmp.Diff(a, b))
	}
	if got := column(t, to, `SELECT type FROM audit.records r WHERE ctx = 'acme' ORDER BY at DESC LIMIT 1`); got[0] != audit.ParticipantRestored {
		t.Errorf("the last record is %s", got[0])
	}
	was, err := audit.HeadOf(t.Context(), from.conn, "acme")
	if err != nil {
		t.Fatal(err)
	}
	to.record(t, "acme", audit.Management)
	if r, err := audit.Verify(to.trail(t, "acme"), []audit.Head{was}); err != nil || r.Compared != 1 || r.Head.Seq != was.Seq+2 || r.Head.Chain != was.Chain {
		t.Errorf("the chain does not go on: %+v, %v", r, err)
	}
	if err := writing.imports(t, raw); !errors.Is(err, archive.ErrExists) || !strings.Contains(err.Error(), `"acme"`) {
		t.Errorf("a second time: %v", err)
	}
	for _, table := range []string{"control_plane.participants", "wallet.participants", "issuer.issuers", "data_plane.flows", "data_plane.accesses"} {
		to.exec(t, "DELETE FROM "+table)
	}
	if err := audit.Close(t.Context(), to.conn, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := writing.imports(t, raw); !errors.Is(err, archive.ErrExists) || !strings.Contains(err.Error(), "another connector") {
		t.Errorf("where it was deleted: %v", err)
	}
}

// forget is what deleting a participant does.
func (p *place) forget(t *testing.T, ctx string) {
	t.Helper()
	for _, table := range []string{"control_plane.participants", "wallet.participants", "issuer.issuers", "data_plane.flows", "data_plane.accesses"} {
		p.exec(t, "DELETE FROM "+table+" WHERE ctx = $1", ctx)
	}
	if err := audit.Close(t.Context(), p.conn, ctx); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"keys", "secrets"} {
		names, err := p.kv.List(t.Context(), ctx+"/"+kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := p.kv.Delete(t.Context(), ctx+"/"+kind+"/"+name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAParticipantMovesAwayAndComesBack(t *testing.T) {
	home, away := empty(t, vaulttest.New()), empty(t, vaulttest.New())
	home.fill(t, "acme")
	home.fill(t, "other")
	head := func(p *place) audit.Head {
		t.Helper()
		h, err := audit.HeadOf(t.Context(), p.conn, "acme")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	refused := func(p *place, with string) {
		t.Helper()
		var pg *pgconn.PgError
		if err := audit.Append(t.Context(), p.conn, "acme", audit.Entry{Type: audit.Management}); !errors.As(err, &pg) || pg.Code != with {
			t.Errorf("a record of it: %v, not %s", err, with)
		}
	}
	first := head(home)
	if err := archive.Hold(t.Context(), home.cc, "nobody"); !errors.Is(err, archive.ErrNoContext) {
		t.Errorf("nobody is held: %v", err)
	}
	hold := func(p *place) {
		t.Helper()
		for range 2 { // it may be said again
			if err := archive.Hold(t.Context(), p.cc, "acme"); err != nil {
				t.Fatal(err)
			}
		}
	}
	hold(home)
	refused(home, audit.CodeMoving)
	if n := column(t, home, "SELECT data_plane.close_orphans(100)::text"); !slices.Equal(n, []string{"1"}) {
		t.Errorf("accesses of ended processes that are settled meanwhile, which others' are: %s", n)
	}
	home.exec(t, "SELECT control_plane.record_profile(profile, 'profile', 'connector', '{}') FROM control_plane.participants WHERE ctx = 'acme'") // which may change meanwhile
	if left := column(t, home, "SELECT ctx FROM data_plane.accesses"); !slices.Equal(left, []string{"acme"}) {
		t.Errorf("accesses that wait: %s", left)
	}
	var busy *limits.BusyError
	if err := audit.Open(t.Context(), home.conn, "acme"); !errors.As(err, &busy) {
		t.Errorf("it is set up anew: %v", err)
	}
	leased := func() []string {
		t.Helper()
		home.exec(t, "UPDATE control_plane.negotiations SET lease_until = NULL")
		defer home.exec(t, "SET kaphera.ctx = '*'") // which the functions end
		return column(t, home, "SELECT ctx FROM ("+audit.NotMoving("SELECT * FROM control_plane.lease_negotiations(9, 9, 9, 'worker', '1 minute')")+") due ORDER BY 1")
	}
	if got := leased(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("work is done for %v", got)
	}
	home.record(t, "other", audit.Management)
	if err := archive.Release(t.Context(), home.cc, "acme"); err != nil {
		t.Fatal(err)
	}
	home.record(t, "acme", audit.Management)
	if got := leased(); !slices.Equal(got, []string{"acme", "other"}) {
		t.Errorf("work is done for %v", got)
	}
	hold(home)
	held := head(home)
	raw := home.export(t, "acme")
	if heads, err := audit.Heads(t.Context(), home.conn); err != nil || slices.ContainsFunc(heads, func(h audit.Head) bool { return h.Chain == held.Chain }) {
		t.Errorf("the head of a trail that is being moved is told: %v, %v", heads, err)
	}
	if err := away.imports(t, raw); err != nil {
		t.Fatal(err)
	}
	home.forget(t, "acme")
	if last := column(t, home, "SELECT type FROM audit.records WHERE chain = '"+held.Chain+"' ORDER BY seq DESC LIMIT 1"); last[0] != audit.Management {
		t.Errorf("the trail ends here with %s, as if the participant were no more", last[0])
	}
	refused(home, audit.CodeNoChain)
	all := home.export(t) // of who is here
	away.record(t, "acme", audit.Management, audit.Management)
	if r, err := audit.Verify(away.trail(t, "acme"), []audit.Head{first, held}); err != nil || r.Head.Seq != held.Seq+3 {
		t.Errorf("the trail away: %+v, %v", r, err)
	}

	// Back home: with a copy of the time before it is refused, as with one that is another's.
	early := head(away)
	hold(away)
	late := away.export(t, "acme")
	before := home.holds(t)
	cut := rewrite(t, late, func(lines []string) []string {
		return slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, audit.ParticipantRestored) })
	})
	if err := home.imports(t, cut); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("a trail with a gap after what is here: %v", err)
	}
	if now := home.holds(t); !cmp.Equal(now, before) {
		t.Errorf("what was refused left something: %s", cmp.Diff(before, now))
	}
	if err := home.imports(t, late); err != nil {
		t.Fatal(err)
	}
	home.record(t, "acme", audit.Management)
	if r, err := audit.Verify(home.trail(t, "acme"), []audit.Head{first, held, early}); err != nil || r.Head.Seq != early.Seq+2 || r.ByType[audit.ParticipantRestored] != 2 {
		t.Errorf("the trail at home again: %+v, %v", r, err)
	}
	third := empty(t, vaulttest.New())
	for _, raw := range [][]byte{all, late} { // what moved away is none of an archive of all, and not in its own way later
		if err := third.imports(t, raw); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := audit.Verify(third.trail(t, "acme"), []audit.Head{first, held, early}); err != nil || r.Head.Seq != early.Seq+1 {
		t.Errorf("the trail at a third place: %+v, %v", r, err)
	}
	away.forget(t, "acme")
	hold(home)
	if _, _, err := archive.Export(t.Context(), home.cc, home.kv, io.Discard, []age.Recipient{key.Recipient()}); !errors.Is(err, archive.ErrMoving) || !strings.Contains(err.Error(), "acme") {
		t.Errorf("an archive of all while one is held: %v", err)
	}
	home.forget(t, "acme")
	if err := home.imports(t, raw); !errors.Is(err, archive.ErrExists) || !strings.Contains(err.Error(), "where it is now") {
		t.Errorf("from before it moved: %v", err)
	}
}

func column(t *testing.T, p *place, sql string) []string {
	t.Helper()
	rows, err := p.conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// trail is the export of an open chain.
func (p *place) trail(t *testing.T, ctx string) io.Reader {
	t.Helper()
	h, err := audit.HeadOf(t.Context(), p.conn, ctx)
	if err != nil {
		t.Fatal(err)
	}
	records, err := audit.Records(t.Context(), p.conn, h, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, r := range records {
		if err := audit.WriteRecord(&out, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := audit.WriteHead(&out, h); err != nil {
		t.Fatal(err)
	}
	return &out
}

// rewrite opens an archive, changes its lines, and seals it again as somebody would who knows the public key.
func rewrite(t *testing.T, raw []byte, change func(lines []string) []string) []byte {
	t.Helper()
	opened, err := age.Decrypt(bytes.NewReader(raw), key)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(opened)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	sealed, err := age.Encrypt(&out, key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	packed := gzip.NewWriter(sealed)
	for _, line := range change(strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")) {
		if _, err := io.WriteString(packed, line); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(packed.Close(), sealed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestWhatIsNotAsItWasWrittenChangesNothing: whatever is wrong, database and Vault are as before.
func TestWhatIsNotAsItWasWrittenChangesNothing(t *testing.T) {
	from := empty(t, vaulttest.New())
	from.fill(t, "acme")
	raw := from.export(t)
	to := empty(t, vaulttest.New())
	nothing := to.holds(t)
	refused := func(what string, raw []byte, want error, says ...string) {
		t.Helper()
		err := to.imports(t, raw)
		if !errors.Is(err, want) || err == nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		for _, s := range says {
			if err != nil && !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v does not say %q", what, err, s)
			}
		}
		if now := to.holds(t); !cmp.Equal(now, nothing) {
			t.Fatalf("%s: something was written: %s", what, cmp.Diff(nothing, now))
		}
	}
	header := bytes.Index(raw, []byte("\n--- "))
	header += 1 + bytes.IndexByte(raw[header+1:], '\n') + 1 + 16
	const chunk = 64<<10 + 16
	if len(raw) < header+2*chunk {
		t.Fatalf("the archive has %d bytes, which is one chunk", len(raw))
	}
	for _, length := range []int{0, 1, header / 2, header - 1, header, header + chunk, header + 2*chunk, len(raw) / 2, len(raw) - 17, len(raw) - 1} {
		refused(fmt.Sprintf("cut off after %d of %d bytes", length, len(raw)), raw[:length], archive.ErrDamaged)
	}
	refused("chunks in another order", slices.Concat(raw[:header], raw[header+chunk:header+2*chunk], raw[header:header+chunk], raw[header+2*chunk:]), archive.ErrDamaged)
	for _, at := range []int{header + 5, len(raw) / 2, len(raw) - 1} {
		changed := bytes.Clone(raw)
		changed[at] ^= 1
		refused(fmt.Sprintf("byte %d changed", at), changed, archive.ErrDamaged)
	}
	refused("something appended", append(bytes.Clone(raw), 'x'), archive.ErrDamaged)
	refused("no archive", []byte("hello"), archive.ErrDamaged)
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := archive.Import(t.Context(), to.cc, to.kv, bytes.NewReader(raw), stranger); !errors.Is(err, archive.ErrKey) {
		t.Errorf("another key: %v", err)
	}

	// replace changes the first line that has a text.
	replace := func(old, fresh string) func([]string) []string {
		return func(lines []string) []string {
			i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, old) })
			if i < 0 {
				t.Fatalf("no line has %s", old)
			}
			lines[i] = strings.Replace(lines[i], old, fresh, 1)
			return lines
		}
	}
	without := func(text string) func([]string) []string {
		return func(lines []string) []string {
			i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, text) })
			lines = slices.Delete(lines, i, i+1)
			var counts struct {
				End archive.Counts `json:"end"`
			}
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &counts); err != nil {
				t.Fatal(err)
			}
			lines[len(lines)-1] = fmt.Sprintf(`{"end":{"rows":%d,"secrets":%d}}`, counts.End.Rows-1, counts.End.Secrets)
			return lines
		}
	}
	for what, c := range map[string]struct {
		change func([]string) []string
		want   error
	}{
		"a row is missing": {func(l []string) []string {
			return slices.DeleteFunc(l, func(line string) bool { return strings.Contains(line, `"r-acme"`) })
		}, archive.ErrDamaged},
		"no end":                          {func(l []string) []string { return l[:len(l)-1] }, archive.ErrDamaged},
		"something after the end":         {func(l []string) []string { return append(l, "\n", l[1]) }, archive.ErrDamaged},
		"no header":                       {func(l []string) []string { return l[1:] }, archive.ErrVersion},
		"another format":                  {replace("kaphera-archive-1", "kaphera-archive-2"), archive.ErrVersion},
		"an older schema":                 {replace(`"wallet":100`, `"wallet":99`), archive.ErrVersion},
		"a table that is not known":       {replace("control_plane.assets", "control_plane.goose_db_version"), archive.ErrVersion},
		"a column that is not known":      {replace(`"data_address"`, `"data"`), archive.ErrVersion},
		"an unknown entry":                {replace(`{"end":`, `{"other":1}`+"\n"+`{"end":`), archive.ErrDamaged},
		"a row of another context":        {replace(`{"row":["acme","did:web`, `{"row":["other","did:web`), archive.ErrDamaged},
		"a row of no context":             {replace(`{"row":["acme","did:web`, `{"row":[null,"did:web`), archive.ErrDamaged},
		"a row that is too short":         {replace(`{"row":["acme","did:web:example:acme"`, `{"row":["acme"`), archive.ErrDamaged},
		"a secret beside its context":     {replace(`"acme/secrets/`, `"acme/../other/secrets/`), archive.ErrDamaged},
		"a secret below its own":          {replace(`"acme/secrets/backend`, `"acme/secrets/backend/more`), archive.ErrDamaged},
		"a secret of no name":             {replace(`"acme/secrets/backend`, `"acme/secrets/..`), archive.ErrDamaged},
		"a secret of another kind":        {replace(`"acme/secrets/`, `"acme/anything/`), archive.ErrDamaged},
		"a profile of nobody's":           {replace(`{"row":["further"`, `{"row":["strange"`), archive.ErrDamaged},
		"a secret of another context":     {replace(`"acme/secrets/`, `"other/secrets/`), archive.ErrDamaged},
		"an audit record that was edited": {replace(`"user:ä"`, `"user:b"`), archive.ErrDamaged},
		"an audit record is missing":      {without(`"management","user:`), archive.ErrDamaged},
		"the end of a chain is missing":   {without(`"audit.pruned","connector"`), archive.ErrDamaged},
		"a value that is none":            {replace(`"VERIFIED"`, `"FINE"`), nil},
	} {
		want := c.want
		err := to.imports(t, rewrite(t, raw, c.change))
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if now := to.holds(t); !cmp.Equal(now, nothing) {
			t.Fatalf("%s: something was written: %s", what, cmp.Diff(nothing, now))
		}
	}
	to.exec(t, "INSERT INTO wallet.goose_db_version (version_id, is_applied) VALUES (99999, true)")
	refused("a newer connector", raw, archive.ErrVersion, "wallet", "99999")
	to.exec(t, "DELETE FROM wallet.goose_db_version WHERE version_id = 99999")
	if err := to.kv.Create(t.Context(), "acme/keys/key-2", map[string]string{"jwk": "another"}); err != nil {
		t.Fatal(err)
	}
	nothing = to.holds(t)
	refused("another key of that name in the Vault", raw, archive.ErrExists, "acme/keys/key-2")
	if err := to.kv.Delete(t.Context(), "acme/keys/key-2"); err != nil {
		t.Fatal(err)
	}
	if err := to.imports(t, rewrite(t, raw, func(l []string) []string { return l })); err != nil {
		t.Errorf("the archive itself, opened and sealed again: %v", err)
	}
}

// breaking is a Vault that does something at one of its writes.
type breaking struct {
	vault.KV
	at  int
	now func() error
}

func (b *breaking) Create(ctx context.Context, path string, data map[string]string) error {
	if b.at--; b.at == 0 {
		if err := b.now(); err != nil {
			return err
		}
	}
	return b.KV.Create(ctx, path, data)
}

// TestAnImportThatIsCutOffIsMadeAgain, wherever the Vault or the database went away: nothing of it counts before, and all of it after the next one.
func TestAnImportThatIsCutOffIsMadeAgain(t *testing.T) {
	from := empty(t, vaulttest.New())
	from.fill(t, "acme")
	raw := from.export(t)
	for _, at := range []int{1, 2, 3} {
		for what, kill := range map[string]bool{"the Vault": false, "the database": true} {
			to := empty(t, vaulttest.New())
			tables := to.holds(t)
			whole := to.kv
			to.kv = &breaking{whole, at, func() error {
				if kill {
					to.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()")
					return nil
				}
				return errors.New("gone")
			}}
			if err := to.imports(t, raw); err == nil {
				t.Errorf("%s goes at secret %d, and nobody notices", what, at)
			}
			to.kv = whole
			now := to.holds(t)
			delete(now, "vault acme")
			if !cmp.Equal(now, tables) {
				t.Errorf("%s at %d: something counts: %s", what, at, cmp.Diff(tables, now))
			}
			if err := to.imports(t, raw); err != nil {
				t.Errorf("%s at %d, again: %v", what, at, err)
			}
			if a, b := from.holds(t)["vault acme"], to.holds(t)["vault acme"]; !slices.Equal(a, b) {
				t.Errorf("%s at %d: the Vault has %v, not %v", what, at, b, a)
			}
		}
	}
}

func TestWhatCannotBeExportedIsSaid(t *testing.T) {
	from := empty(t, vaulttest.New())
	from.fill(t, "acme")
	export := func(p *place, contexts ...string) error {
		_, _, err := archive.Export(t.Context(), p.cc, p.kv, io.Discard, []age.Recipient{key.Recipient()}, contexts...)
		return err
	}
	if err := export(from, "nobody"); !errors.Is(err, archive.ErrNoContext) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a context that is not there: %v", err)
	}
	if err := export(&place{cc: from.cc, kv: vaulttest.New()}); err == nil || !strings.Contains(err.Error(), "acme/keys/key-2") {
		t.Errorf("another Vault: %v", err)
	}
	name := from.cc.Database
	from.superuser(t, "CREATE ROLE cp_"+name+" LOGIN")
	t.Cleanup(func() { from.superuser(t, "DROP OWNED BY cp_"+name, "DROP ROLE cp_"+name) })
	if err := store.Migrate(t.Context(), from.cc, store.Grants{store.SchemaControlPlane: "cp_" + name}); err != nil {
		t.Fatal(err)
	}
	role := from.cc.Copy()
	role.User = "cp_" + name
	if err := export(&place{cc: role, kv: from.kv}); err == nil || !strings.Contains(err.Error(), "account that migrates") {
		t.Errorf("as the control plane: %v", err)
	}
}

// TestAnyLogInOfTheOwnerWill: an owner has a second log-in while its password is replaced, which works as the owner.
func TestAnyLogInOfTheOwnerWill(t *testing.T) {
	second := func(p *place) *place {
		login := p.cc.Copy()
		login.User = p.cc.User + "_2"
		p.superuser(t, "CREATE ROLE "+login.User+" LOGIN", "GRANT "+p.cc.User+" TO "+login.User, "ALTER ROLE "+login.User+" SET role = '"+p.cc.User+"'")
		t.Cleanup(func() { p.superuser(t, "DROP ROLE "+login.User) })
		if err := store.Migrate(t.Context(), login, nil); err != nil {
			t.Fatal(err)
		}
		return &place{cc: login, conn: p.conn, kv: p.kv}
	}
	from, to := second(empty(t, vaulttest.New())), second(empty(t, vaulttest.New()))
	from.fill(t, "acme")
	if err := to.imports(t, from.export(t, "acme")); err != nil {
		t.Fatal(err)
	}
	if got := to.holds(t, "acme"); len(got["control_plane.negotiations"]) != 1 {
		t.Errorf("came over: %v", got["control_plane.negotiations"])
	}
}

func (p *place) superuser(t *testing.T, statements ...string) {
	t.Helper()
	cc := p.cc.Copy()
	cc.User = "postgres"
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
