// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database is migrated and has chains for acme and other.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.Superuser(t, pgtest.NewDatabase(t))) // who sees all chains, and can forge
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := store.Migrate(t.Context(), pool.Config().ConnConfig, nil); err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []string{"acme", "other"} {
		if err := audit.Open(t.Context(), pool, ctx); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

type body map[string]any

func appendTo(t *testing.T, db audit.DB, ctx string, entries ...audit.Entry) {
	t.Helper()
	if err := audit.Append(t.Context(), db, ctx, entries...); err != nil {
		t.Fatal(err)
	}
}

// export writes the whole chain of a head.
func export(t *testing.T, db audit.DB, h audit.Head) string {
	t.Helper()
	records, err := audit.Records(t.Context(), db, h, 0, 1<<20)
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
	return out.String()
}

func head(t *testing.T, db audit.DB, ctx string) audit.Head {
	t.Helper()
	h, err := audit.HeadOf(t.Context(), db, ctx)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// of is the head of a chain, open or closed.
func of(t *testing.T, db audit.DB, chain string) audit.Head {
	t.Helper()
	heads, err := audit.Heads(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		if h.Chain == chain {
			return h
		}
	}
	t.Fatalf("chain %s is gone", chain)
	return audit.Head{}
}

func verify(t *testing.T, file string, known ...audit.Head) *audit.Result {
	t.Helper()
	r, err := audit.Verify(strings.NewReader(file), known)
	if err != nil {
		t.Fatalf("%v:\n%s", err, file)
	}
	return r
}

func wantBad(t *testing.T, file, why string, seq int64, known ...audit.Head) {
	t.Helper()
	_, err := audit.Verify(strings.NewReader(file), known)
	var bad *audit.BadError
	if !errors.As(err, &bad) || !strings.Contains(bad.Why, why) || bad.Seq != seq {
		t.Errorf("error %v; want one about record %d that says %q", err, seq, why)
	}
}

func TestAChainVerifiesAsExported(t *testing.T) {
	db := database(t)
	empty := verify(t, export(t, db, head(t, db, "acme")))
	ctx := audit.WithActor(t.Context(), "user:a\nb\x00ü")
	if err := audit.Append(ctx, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": "x", "html": "<&>\u2028\x00", "ü": "€"}}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, db, "acme", audit.Entry{Type: audit.Policy, Body: body{"n": 1.5e300}}, audit.Entry{Type: audit.Gate, Actor: strings.Repeat("ü", 300), Body: body{}})
	appendTo(t, db, "other", audit.Entry{Type: audit.Management, Body: body{"do": "y"}})
	h := head(t, db, "acme")
	file := export(t, db, h)
	r := verify(t, file, h, head(t, db, "other"), empty.Head)
	if r.Records != 3 || r.Head != h || r.Compared != 2 || r.ByType[audit.Management] != 1 {
		t.Errorf("%+v", r)
	}
	if first := strings.Split(file, "\n")[0]; !strings.Contains(first, `"actor":"user:a b ü"`) || !strings.Contains(first, `"seq":1,`) {
		t.Error(first)
	}
	if heads, err := audit.ReadHeads(strings.NewReader(file)); err != nil || len(heads) != 1 || heads[0] != h {
		t.Errorf("heads of an export: %v, %v", heads, err)
	}
}

func TestAppendIsOrderedAndAllOrNothing(t *testing.T) {
	db := database(t)
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
					if err := audit.Append(t.Context(), tx, "acme", audit.Entry{Type: audit.Management, Body: body{"do": fmt.Sprint(w, " ", i)}}); err != nil {
						return err
					}
					if i%5 == 0 {
						return errRolledBack
					}
					return nil
				})
				if err != nil && !errors.Is(err, errRolledBack) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r := verify(t, export(t, db, head(t, db, "acme"))); r.Records != writers*each*4/5 {
		t.Errorf("%d records", r.Records)
	}
}

var errRolledBack = errors.New("rolled back")

func TestNobodyChangesWhatIsRecorded(t *testing.T) {
	db := database(t)
	appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": "x"}}, audit.Entry{Type: audit.Policy, Body: body{}})
	before := export(t, db, head(t, db, "acme"))
	for _, sql := range []string{ // as the owner of the tables
		"UPDATE audit.records SET actor = 'x'", "UPDATE audit.records SET body = NULL", "DELETE FROM audit.records", "DELETE FROM audit.records WHERE seq = 2",
		"TRUNCATE audit.records CASCADE", "TRUNCATE audit.chains CASCADE", "DELETE FROM audit.chains", "UPDATE audit.chains SET seq = 0", "UPDATE audit.chains SET hash = '\\x00'",
		"UPDATE audit.chains SET importing = pg_current_xact_id()", "UPDATE audit.chains SET importing = pg_current_xact_id(), open = false",
		"UPDATE audit.chains SET ctx = 'other2'", "UPDATE audit.chains SET open = false, seq = 7",
		"SELECT audit.append('nobody', 'management', 'x', '{}')", "SELECT audit.append('acme', 'Type', 'x', '{}')", "SELECT audit.append('acme', 'management', E'a\\nb', '{}')",
		"SELECT audit.append('acme', 'management', '', '{}')", "SELECT audit.append('acme', 'management', 'x', NULL)",
	} {
		if _, err := db.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was accepted", sql)
		}
	}
	if after := export(t, db, head(t, db, "acme")); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	// An insert past the functions is a record in its place all the same.
	if _, err := db.Exec(t.Context(), `INSERT INTO audit.records (chain, seq, at, ctx, type, actor, body, body_sha256, prev, hash)
		VALUES (gen_random_uuid(), 1, 'epoch', 'acme', 'gate', 'x', '{}', '', '', '')`); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, export(t, db, head(t, db, "acme"))); r.Records != 3 {
		t.Errorf("%+v", r)
	}
	// Also one that fits behind another one of the same transaction and says when it was: only a chain that is imported takes that.
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		appendTo(t, tx, "acme", audit.Entry{Type: audit.Management, Body: body{}})
		_, err := tx.Exec(t.Context(), `INSERT INTO audit.records (chain, seq, at, ctx, type, actor, body, body_sha256, prev, hash)
			SELECT c.id, c.seq + 1, x.at, c.ctx, 'gate', 'x', '{}', '', c.hash, sha256(convert_to(concat_ws(E'\n', 'kaphera-audit-1', c.id, c.ctx, c.seq + 1,
				(extract(epoch FROM x.at) * 1000000)::bigint, 'gate', 'x', encode(sha256('{}'), 'hex'), encode(c.hash, 'hex')), 'UTF8'))
			FROM audit.chains c, (SELECT now() + interval '1 day' AS at) x WHERE c.ctx = 'acme'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := verify(t, export(t, db, head(t, db, "acme"))); r.Records != 5 || r.Head.At.After(time.Now().Add(time.Hour)) {
		t.Errorf("a record of tomorrow: %+v", r)
	}
}

func TestRolesOfAConnectorOnlyAppend(t *testing.T) {
	db := database(t)
	name := db.Config().ConnConfig.Database // roles belong to the server, which the package's tests share
	grants := store.Grants{store.SchemaControlPlane: "cp_" + name, store.SchemaWallet: "wa_" + name, store.SchemaDataPlane: "dp_" + name, store.SchemaIssuer: "is_" + name}
	for _, role := range grants {
		if _, err := db.Exec(t.Context(), "CREATE ROLE "+role+" LOGIN"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := db.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
				t.Error(err)
			}
		}()
	}
	if err := store.Migrate(t.Context(), db.Config().ConnConfig, grants); err != nil {
		t.Fatal(err)
	}
	may := map[string][]string{
		"SELECT audit.append('acme', 'gate', 'x', '{}')":                                        {store.SchemaControlPlane, store.SchemaWallet, store.SchemaDataPlane},
		"SELECT audit.append('acme', 'participant.deleted', 'x', '{}')":                         nil, // a chain's own
		`SELECT audit.append('acme', 'audit.pruned', 'x', '{"through":1}')`:                     nil,
		"SELECT audit.open('new')":                                                              {store.SchemaControlPlane, store.SchemaWallet},
		"SELECT audit.prune(10)":                                                                {store.SchemaControlPlane},
		"UPDATE audit.retention SET keep = interval '1 second'":                                 nil,
		"INSERT INTO audit.retention (keep) VALUES (interval '1 second')":                       nil,
		"SELECT FROM audit.records":                                                             {store.SchemaControlPlane},
		"SELECT FROM audit.chains":                                                              {store.SchemaControlPlane},
		"INSERT INTO audit.records (ctx, type, actor, body) VALUES ('acme', 'gate', 'x', '{}')": nil,
		"UPDATE audit.records SET actor = 'x'":                                                  nil,
		"DELETE FROM audit.records":                                                             nil,
		"TRUNCATE audit.records":                                                                nil,
		"UPDATE audit.chains SET open = false":                                                  nil,
		"ALTER TABLE audit.records DISABLE TRIGGER ALL":                                         nil,
	}
	for schema, role := range grants {
		cc := db.Config().ConnConfig.Copy()
		cc.User, cc.RuntimeParams["kaphera.ctx"] = role, "acme"
		conn, err := pgx.ConnectConfig(t.Context(), cc)
		if err != nil {
			t.Fatal(err)
		}
		for sql, by := range may {
			want := false
			for _, b := range by {
				want = want || b == schema
			}
			if _, err := conn.Exec(t.Context(), sql); (err == nil) != want {
				t.Errorf("the role of %s: %s: %v", schema, sql, err)
			}
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingOfATemporarySchemaRunsAsTheOwner: the domain stands for a type that the owner's functions name, and its check would run as the owner.
func TestNothingOfATemporarySchemaRunsAsTheOwner(t *testing.T) {
	db := database(t)
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `CREATE FUNCTION pg_temp.trap(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'sprung'; END $$;
			CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.trap(VALUE));
			SELECT set_config('kaphera.ctx', 'acme', true); SELECT audit.append('acme', 'gate', 'x', '{}'); SELECT audit.open('new');
			SELECT audit.prune(10); SELECT audit.close('new', 'x')`)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	rows, err := db.Query(t.Context(), `SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname IN ('audit', 'control_plane', 'wallet', 'data_plane', 'issuer') AND (p.prosecdef OR n.nspname = 'audit')
		AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)`)
	if err != nil {
		t.Fatal(err)
	}
	loose, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(loose) > 0 {
		t.Errorf("functions that run as the owner and look into temporary schemas: %v %v", loose, err)
	}
}

// forge does what only the owner of the database can: with the guards off.
func forge(t *testing.T, db *pgxpool.Pool, sql string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SET LOCAL session_replication_role = replica; "+sql)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatTheOwnerForgesIsFound(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		sql, why string
		seq      int64
	}{
		"a changed body":               {`UPDATE audit.records SET body = '{"do":"nothing"}' WHERE seq = 2`, "was changed", 2},
		"a changed actor":              {"UPDATE audit.records SET actor = 'user:b' WHERE seq = 3", "was changed", 3},
		"a missing record":             {"DELETE FROM audit.records WHERE seq = 3", "missing: record 4", 3},
		"the beginning missing":        {"DELETE FROM audit.records WHERE seq = 1", "missing: record 2", 1},
		"the end missing":              {"DELETE FROM audit.records WHERE seq = 5", "missing: the chain goes to record 5", 5},
		"two that changed places":      {"UPDATE audit.records SET seq = 6 WHERE seq = 2; UPDATE audit.records SET seq = 2 WHERE seq = 3; UPDATE audit.records SET seq = 3 WHERE seq = 6", "was changed", 2},
		"a body gone without a word":   {"UPDATE audit.records SET body = NULL WHERE seq = 2", "no record says that it was pruned", 2},
		"a head that hides the end":    {"DELETE FROM audit.records WHERE seq > 3; UPDATE audit.chains SET seq = 3, hash = (SELECT hash FROM audit.records WHERE seq = 3), at = (SELECT at FROM audit.records WHERE seq = 3)", "had 5 records when it was reported", 4},
		"a chain closed by hand":       {"UPDATE audit.chains SET open = false", "the head says open: false", 0},
		"another chain in its place":   {"UPDATE audit.chains SET open = false WHERE ctx = 'acme'; INSERT INTO audit.chains (ctx) VALUES ('acme')", "the chain was replaced", 0},
		"the whole chain, made anew":   {"DELETE FROM audit.records; UPDATE audit.chains SET seq = 0, hash = decode(repeat('00', 32), 'hex')", "", 0},
		"a time that was put backward": {"UPDATE audit.records SET at = at - interval '1 day' WHERE seq = 4", "was changed", 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			for i := range 5 {
				appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": fmt.Sprint(i)}})
			}
			reported := head(t, db, "acme")
			verify(t, export(t, db, reported), reported)
			forge(t, db, tc.sql)
			if tc.why == "" { // rewritten as a whole, it verifies on its own
				for i := range 6 {
					appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": fmt.Sprint("anew ", i)}})
				}
				verify(t, export(t, db, head(t, db, "acme")))
				wantBad(t, export(t, db, head(t, db, "acme")), "the chain was rewritten", 5, reported)
				return
			}
			h, err := audit.HeadOf(t.Context(), db, "acme")
			if errors.Is(err, pgx.ErrNoRows) {
				h = of(t, db, reported.Chain)
			} else if err != nil {
				t.Fatal(err)
			}
			wantBad(t, export(t, db, h), tc.why, tc.seq, reported)
		})
	}
}

func TestADeletedParticipantKeepsItsChainAndTheNextBeginsAnother(t *testing.T) {
	db := database(t)
	appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": "x"}})
	first := head(t, db, "acme")
	if err := audit.Close(t.Context(), db, "acme"); err != nil {
		t.Fatal(err)
	}
	var pg *pgconn.PgError
	if err := audit.Append(t.Context(), db, "acme", audit.Entry{Type: audit.DataOutcome, Body: body{}}); !errors.As(err, &pg) || pg.Code != "KA001" {
		t.Errorf("a record after the end: %v", err)
	}
	if _, err := audit.HeadOf(t.Context(), db, "acme"); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("the head of nobody: %v", err)
	}
	if err := audit.Open(t.Context(), db, "acme"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": "y"}})
	second := head(t, db, "acme")
	closed := of(t, db, first.Chain)
	if closed.Open || closed.Seq != 2 || second.Chain == first.Chain || second.Seq != 1 {
		t.Errorf("first %+v, second %+v", closed, second)
	}
	verify(t, export(t, db, closed), first)
	verify(t, export(t, db, second), first, closed)
	wantBad(t, export(t, db, second), "the chain was replaced", 0, first)
}

// prune keeps bodies for some time, and takes the others away.
func prune(t *testing.T, db *pgxpool.Pool, keep time.Duration) error {
	t.Helper()
	return errors.Join(audit.Keep(t.Context(), db, keep), audit.Prune(t.Context(), db))
}

func TestPrunedBodiesLeaveAChainThatVerifies(t *testing.T) {
	db := database(t)
	for i := range 3 {
		appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": fmt.Sprint(i)}})
	}
	known := head(t, db, "acme")
	if err := errors.Join(audit.Keep(t.Context(), db, time.Microsecond), prune(t, db, 0)); err != nil { // for ever
		t.Fatal(err)
	}
	if err := prune(t, db, time.Hour); err != nil {
		t.Fatal(err)
	}
	if h := head(t, db, "acme"); h != known {
		t.Errorf("something was pruned before its time: %+v", h)
	}
	if err := prune(t, db, time.Microsecond); err != nil {
		t.Fatal(err)
	}
	appendTo(t, db, "acme", audit.Entry{Type: audit.Management, Body: body{"do": "later"}})
	file := export(t, db, head(t, db, "acme"))
	if r := verify(t, file, known); r.Pruned != 3 || r.Records != 5 || strings.Contains(file, `"do":"0"`) || !strings.Contains(file, `"do":"later"`) {
		t.Errorf("%+v\n%s", r, file)
	}
	if err := audit.Close(t.Context(), db, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := prune(t, db, time.Microsecond); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, export(t, db, of(t, db, known.Chain)), known); r.Pruned != 5 || r.Records != 7 {
		t.Errorf("a closed chain: %+v", r)
	}
}

func TestAccessesWithoutAnOutcomeAreReported(t *testing.T) {
	db := database(t)
	for _, id := range []string{"a", "b", "c"} {
		appendTo(t, db, "acme", audit.Entry{Type: audit.DataIntent, Actor: "did:web:buyer", Body: body{"access": id, "agreement": "ag"}})
	}
	appendTo(t, db, "acme", audit.Entry{Type: audit.DataOutcome, Body: body{"access": "a"}}, audit.Entry{Type: audit.DataOutcome, Body: body{"access": "c", "unknown": true}})
	r := verify(t, export(t, db, head(t, db, "acme")))
	if len(r.Open) != 1 || r.Open[0] != (audit.Access{Seq: 2, ID: "b", Agreement: "ag", Actor: "did:web:buyer"}) || len(r.Unknown) != 1 || r.Unknown[0].ID != "c" {
		t.Errorf("%+v", r)
	}
}

func TestAWithheldBodyLeavesAChainThatVerifies(t *testing.T) {
	db := database(t)
	appendTo(t, db, "acme", audit.Entry{Type: audit.Policy, Body: body{"value": "secret"}})
	h := head(t, db, "acme")
	records, err := audit.Records(t.Context(), db, h, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	records[0].Withhold()
	raw, err := json.Marshal(records[0])
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := audit.WriteHead(&out, h); err != nil {
		t.Fatal(err)
	}
	file := string(raw) + "\n" + out.String()
	if r := verify(t, file, h); r.Withheld != 1 || strings.Contains(file, "secret") {
		t.Errorf("%+v", r)
	}
}
