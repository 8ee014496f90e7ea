// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/test/tenants"
)

var schemas = []string{store.SchemaControlPlane, store.SchemaWallet, store.SchemaDataPlane, store.SchemaIssuer}

// migrated is a database with an account for each role of a connector, as its superuser sees it, and its URL for its owner.
func migrated(t *testing.T) (super *pgx.Conn, owner string, roles store.Grants) {
	t.Helper()
	owner = pgtest.NewDatabase(t)
	super = dial(t, pgtest.Superuser(t, owner))
	roles = store.Grants{}
	for _, schema := range schemas {
		roles[schema] = schema + "_" + super.Config().Database // roles belong to the server, which the package's tests share
		execute(t, super, "CREATE ROLE "+roles[schema]+" LOGIN")
		t.Cleanup(func() { execute(t, super, "DROP OWNED BY "+roles[schema]+"; DROP ROLE "+roles[schema]) })
	}
	migrate(t, owner, roles)
	return super, owner, roles
}

func migrate(t *testing.T, url string, roles store.Grants) {
	t.Helper()
	cc, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), cc, roles); err != nil {
		t.Fatal(err)
	}
}

// dial connects until the test and its clean-up end.
func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func as(url, role string) string {
	return regexp.MustCompile(`//\w+@`).ReplaceAllString(url, "//"+role+"@")
}

// Tables that belong to no participant: what is the connector's as a whole, its processes, and digests of tokens, from which nobody learns whose they were.
var shared = map[string]bool{"control_plane.profiles": true, "control_plane.used_tokens": true, "wallet.used_tokens": true, "issuer.used_tokens": true,
	"data_plane.processes": true, "audit.retention": true, "control_plane.goose_db_version": true, "wallet.goose_db_version": true, "data_plane.goose_db_version": true, "issuer.goose_db_version": true, "audit.goose_db_version": true}

// TestEveryTableOfParticipantsIsUnderForcedRowSecurity reads the catalog, so that a table that is added is covered or makes this fail. It does so on a new
// database, on one whose tables had none of it, and after its owner has changed.
func TestEveryTableOfParticipantsIsUnderForcedRowSecurity(t *testing.T) {
	super, owner, roles := migrated(t)
	check := func(name, by string) {
		t.Helper()
		rows, err := super.Query(t.Context(), `SELECT n.nspname || '.' || c.relname AS name, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'ctx') AS has,
			c.relrowsecurity AND c.relforcerowsecurity AS forced, coalesce((SELECT string_agg(format('%s %s %s: %s', p.polname, p.polcmd, p.polroles::regrole[], pg_get_expr(p.polqual, c.oid)), '; ' ORDER BY p.polname)
			FROM pg_policy p WHERE p.polrelid = c.oid), '') AS policies
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`)
		if err != nil {
			t.Fatal(err)
		}
		tables, err := pgx.CollectRows(rows, pgx.RowToStructByName[struct {
			Name, Policies string
			Has, Forced    bool
		}])
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("all_contexts * {%s}: (current_setting('kaphera.ctx'::text) = '*'::text); one_context * {-}: (ctx = current_setting('kaphera.ctx'::text))", by)
		secured := 0
		for _, table := range tables {
			switch {
			case shared[table.Name]:
				if table.Has {
					t.Errorf("%s: %s has a column ctx and is listed as shared", name, table.Name)
				}
			case !table.Has || !table.Forced || table.Policies != want:
				t.Errorf("%s: %s: has ctx %t, row security forced %t, policies %s", name, table.Name, table.Has, table.Forced, table.Policies)
			default:
				secured++
			}
		}
		if secured < 20 {
			t.Errorf("%s: only %d tables are secured", name, secured)
		}
	}
	database := super.Config().Database
	check("a new database", database)

	execute(t, super, `DO $$ DECLARE p record; BEGIN
		FOR p IN SELECT polname, polrelid::regclass AS t FROM pg_policy LOOP EXECUTE format('DROP POLICY %I ON %s', p.polname, p.t); END LOOP;
		FOR p IN SELECT oid::regclass AS t FROM pg_class WHERE relrowsecurity LOOP EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', p.t); END LOOP;
	END $$`)
	migrate(t, owner, roles)
	check("a database that had none", database)

	execute(t, super, "CREATE ROLE new_"+database+" LOGIN; GRANT CONNECT, CREATE ON DATABASE "+database+" TO new_"+database+"; REASSIGN OWNED BY "+database+" TO new_"+database)
	t.Cleanup(func() {
		execute(t, super, "REASSIGN OWNED BY new_"+database+" TO "+database+"; DROP OWNED BY new_"+database+"; DROP ROLE new_"+database)
	})
	migrate(t, as(owner, "new_"+database), roles)
	check("a database with a new owner", "new_"+database)

	for schema, role := range roles {
		var owns int
		var mighty, member bool
		if err := super.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_shdepend WHERE refobjid = r.oid AND deptype = 'o'), r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication,
			pg_has_role(r.oid, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER') FROM pg_roles r WHERE r.rolname = $1`, role).Scan(&owns, &mighty, &member); err != nil {
			t.Fatal(err)
		}
		if owns != 0 || mighty || member {
			t.Errorf("the role of %s owns %d objects, has attributes %t, is the owner %t", schema, owns, mighty, member)
		}
	}
}

// TestTheSettingDecidesWhatIsSeen: whoever connects, without the setting nothing is to be had, with it one participant's, and only the owner's functions have all.
func TestTheSettingDecidesWhatIsSeen(t *testing.T) {
	super, owner, roles := migrated(t)
	execute(t, super, `INSERT INTO control_plane.profiles VALUES ('p', '{}'); INSERT INTO control_plane.participants (ctx, did, profile, active) VALUES ('acme', 'a', 'p', true), ('beta', 'b', 'p', true)`)
	for name, tc := range map[string]struct {
		url string
		all int
	}{"the owner, who may use it": {owner, 2}, "a role": {as(owner, roles[store.SchemaControlPlane]), 0}} {
		conn := dial(t, tc.url)
		for setting, want := range map[string]int{"acme": 1, "": 0, "nobody": 0, "*": tc.all} {
			var n int
			err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "SELECT set_config('kaphera.ctx', $1, true)", setting); err != nil {
					return err
				}
				return tx.QueryRow(t.Context(), "SELECT count(*) FROM control_plane.participants").Scan(&n)
			})
			if err != nil || n != want {
				t.Errorf("%s sees %d participants under %q, want %d; %v", name, n, setting, want, err)
			}
		}
		var refused *pgconn.PgError
		if _, err := dial(t, tc.url).Exec(t.Context(), "SELECT count(*) FROM control_plane.participants"); !errors.As(err, &refused) || refused.Code != "42704" {
			t.Errorf("%s without the setting: %v", name, err)
		}
		for _, sql := range []string{"UPDATE control_plane.participants SET ctx = 'beta' WHERE ctx = 'acme'",
			"INSERT INTO control_plane.assets (ctx, id, properties, data_address) VALUES ('beta', 'x', '{}', '{}')"} {
			if _, err := conn.Exec(t.Context(), "SET kaphera.ctx = 'acme'; "+sql); !errors.As(err, &refused) || refused.Code != "42501" {
				t.Errorf("%s: %s: %v", name, sql, err)
			}
		}
	}
}

// fill gives a participant something in every table; both that are filled have the same ids, so that only the context tells their rows apart.
func fill(t *testing.T, s *store.Store, ctx string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.PutParticipant(t.Context(), ctx, adminapi.Participant{DID: "did:web:" + ctx, BPN: ctx, Profile: "pilot", Active: true}))
	for _, id := range []string{"asset", "free"} {
		must(s.PutAsset(t.Context(), store.Asset{Ctx: ctx, ID: id, Properties: map[string]any{"name": ctx}, DataAddress: map[string]string{"baseUrl": ctx}}))
	}
	access, raw := "access", json.RawMessage(fmt.Sprintf(`{"of":%q}`, ctx))
	must(s.PutDefinition(t.Context(), store.Definition{Ctx: ctx, ID: "def", AccessPolicyID: &access, AccessPolicy: raw, ContractPolicyID: "use", ContractPolicy: raw,
		Selector: store.SelectAssets([]string{"asset"}), UseCase: ctx}))
	must(s.BringIntoForce(t.Context(), ctx, "footprint", store.Terms{}, revision(ctx)))
	must(s.SavePolicy(t.Context(), store.Put, &store.Policy{Ctx: ctx, ID: "spare", Policy: raw}))
	happened := []adminapi.Event{{At: time.Now(), State: state.Requested}}
	for _, n := range []*store.Negotiation{
		{Process: store.Process{ID: "n1", State: state.Finalized, Step: state.Finalized, AgreementID: "a1"}},
		{Process: store.Process{ID: "n2", State: state.Terminated, Step: state.Terminated, Reason: &adminapi.Reason{Message: ctx}}},
		{Process: store.Process{ID: "n3", State: state.Requested, Step: state.Requested, Held: true, Next: &store.Next{}}},
	} {
		must(s.PutRequest(t.Context(), ctx, n.ID, store.Request{PrivateProperties: map[string]any{"of": ctx}, Callbacks: []store.Callback{{URI: "https://" + ctx, Events: []string{"contract"}}}}))
		n.Ctx, n.Role, n.Counterparty, n.CounterpartyPID, n.Address, n.AssetID, n.History = ctx, state.Provider, "did:web:peer", "peer-"+n.ID, "https://"+ctx, "asset", happened
		n.OfferID, n.Offer, n.UseCase = ctx, raw, ctx
		side := store.Side{MessageID: "m"}
		if n.AgreementID != "" {
			side.AskForHead = true
			side.Agreement = &store.Agreement{ID: "a1", Role: state.Provider, Provider: "did:web:" + ctx, Consumer: "did:web:peer", AssetID: "asset", Agreement: raw, SignedAt: time.Now()}
		}
		insert(t, s, n, side)
	}
	for _, id := range []string{"t1", "t2"} {
		_, _, err := s.InsertTransfer(t.Context(), &store.Transfer{Format: ctx, Process: store.Process{Ctx: ctx, ID: id, Role: state.Consumer, State: state.Started, Step: state.Started,
			Counterparty: "did:web:peer", CounterpartyPID: "peer-" + id, Address: "https://" + ctx, AssetID: "asset", AgreementID: "a1", Next: &store.Next{}}},
			store.Side{Address: &dps.DataAddress{Endpoint: "https://" + ctx, Properties: map[string]string{"authorization": ctx}}})
		must(err)
	}
}

// revision takes the place of any other.
func revision(of string) func(*adminapi.UseCaseRevision) (adminapi.UseCaseRevision, error) {
	return func(*adminapi.UseCaseRevision) (adminapi.UseCaseRevision, error) {
		return adminapi.UseCaseRevision{UseCase: "footprint", Number: 1, Hash: "h", Content: of}, nil
	}
}

// call is what a participant's request leads to in the store.
type call struct {
	name string
	kind int
	do   func(s *store.Store) (any, error)
}

const (
	reads   = iota // by a condition
	writes         // by a condition
	inserts        // by the key alone
	beyond         // the work of the connector as a whole, or no data at all: not asked by a participant
)

var page = store.Query{Limit: 100}

// calls are all methods of the store, in the name of acme, reading before writing and deleting last.
func calls(ctx context.Context) []call {
	const acme = "acme"
	result := func(err error) (any, error) { return nil, err }
	return []call{
		{"Participant", reads, func(s *store.Store) (any, error) { return s.Participant(ctx, acme) }},
		{"Asset", reads, func(s *store.Store) (any, error) { return s.Asset(ctx, acme, "asset") }},
		{"Assets", reads, func(s *store.Store) (any, error) { return s.Assets(ctx, acme) }},
		{"Policy", reads, func(s *store.Store) (any, error) { return s.Policy(ctx, acme, "use") }},
		{"Policies", reads, func(s *store.Store) (any, error) { return s.Policies(ctx, acme) }},
		{"Definition", reads, func(s *store.Store) (any, error) { return s.Definition(ctx, acme, "def") }},
		{"Definitions", reads, func(s *store.Store) (any, error) { return s.Definitions(ctx, acme) }},
		{"UseCase", reads, func(s *store.Store) (any, error) { return s.UseCase(ctx, acme, "footprint") }},
		{"UseCases", reads, func(s *store.Store) (any, error) { return s.UseCases(ctx, acme) }},
		{"Negotiation", reads, func(s *store.Store) (any, error) { return s.Negotiation(ctx, acme, "n1") }},
		{"Negotiations", reads, func(s *store.Store) (any, error) { return s.Negotiations(ctx, acme, store.Page{}) }},
		{"Held", reads, func(s *store.Store) (any, error) { return s.Held(ctx, acme, 10) }},
		{"FindNegotiation", reads, func(s *store.Store) (any, error) {
			return s.FindNegotiation(ctx, acme, state.Provider, "did:web:peer", "peer-n1")
		}},
		{"Transfer", reads, func(s *store.Store) (any, error) { return s.Transfer(ctx, acme, "t1") }},
		{"Transfers", reads, func(s *store.Store) (any, error) { return s.Transfers(ctx, acme, store.Page{}) }},
		{"FindTransfer", reads, func(s *store.Store) (any, error) {
			return s.FindTransfer(ctx, acme, state.Consumer, "did:web:peer", "peer-t1")
		}},
		{"Agreement", reads, func(s *store.Store) (any, error) { return s.Agreement(ctx, acme, "a1") }},
		{"AgreementOf", reads, func(s *store.Store) (any, error) { return s.AgreementOf(ctx, acme, "n1") }},
		{"Agreements", reads, func(s *store.Store) (any, error) { return s.Agreements(ctx, acme, 100) }},
		{"DataAddress", reads, func(s *store.Store) (any, error) { return s.DataAddress(ctx, acme, "t1") }},
		{"Summary", reads, func(s *store.Store) (any, error) {
			sum, last, err := s.Summary(ctx, acme)
			if err == nil && (sum.Agreements != 1 || sum.Negotiations[state.Finalized] != 1 || sum.Transfers[state.Started] != 2) {
				err = fmt.Errorf("summary of more than one participant: %+v", sum)
			}
			return last, err
		}},
		{"Requests", reads, func(s *store.Store) (any, error) { return s.Requests(ctx, acme, []string{"n1"}) }},
		{"QueryAssets", reads, func(s *store.Store) (any, error) { return s.QueryAssets(ctx, acme, page) }},
		{"QueryPolicies", reads, func(s *store.Store) (any, error) { return s.QueryPolicies(ctx, acme, page) }},
		{"QueryDefinitions", reads, func(s *store.Store) (any, error) { return s.QueryDefinitions(ctx, acme, page) }},
		{"QueryNegotiations", reads, func(s *store.Store) (any, error) { return s.QueryNegotiations(ctx, acme, page) }},
		{"QueryTransfers", reads, func(s *store.Store) (any, error) { return s.QueryTransfers(ctx, acme, page) }},
		{"QueryAgreements", reads, func(s *store.Store) (any, error) { return s.QueryAgreements(ctx, acme, page) }},
		{"QueryReferences", reads, func(s *store.Store) (any, error) {
			refs, err := s.QueryReferences(ctx, acme, page)
			if err == nil && len(refs) != 2 {
				err = fmt.Errorf("%d references", len(refs))
			}
			return refs, err
		}},
		{"AuditHead", reads, func(s *store.Store) (any, error) { return s.AuditHead(ctx, acme) }},
		{"AuditRecords", inserts, func(s *store.Store) (any, error) { // by the chain, which is one participant's
			h, err := s.AuditHead(ctx, acme)
			if err != nil {
				return nil, err
			}
			return s.AuditRecords(ctx, h, 0, 100)
		}},

		{"PutParticipant", inserts, func(s *store.Store) (any, error) {
			return result(s.PutParticipant(ctx, acme, adminapi.Participant{DID: "did:web:acme", Profile: "pilot", Active: false}))
		}},
		{"PutAsset", inserts, func(s *store.Store) (any, error) { return result(s.PutAsset(ctx, store.Asset{Ctx: acme, ID: "asset"})) }},
		{"SaveAsset", writes, func(s *store.Store) (any, error) {
			return result(s.SaveAsset(ctx, store.Update, &store.Asset{Ctx: acme, ID: "asset"}))
		}},
		{"SavePolicy", writes, func(s *store.Store) (any, error) {
			return result(s.SavePolicy(ctx, store.Update, &store.Policy{Ctx: acme, ID: "spare", Policy: json.RawMessage(`{}`)}))
		}},
		{"PutDefinition", inserts, func(s *store.Store) (any, error) {
			return result(s.PutDefinition(ctx, store.Definition{Ctx: acme, ID: "def", ContractPolicyID: "use", Selector: store.SelectAssets(nil)}))
		}},
		{"BringIntoForce", inserts, func(s *store.Store) (any, error) {
			return result(s.BringIntoForce(ctx, acme, "footprint", store.Terms{}, revision(acme)))
		}},
		{"SaveDefinition", writes, func(s *store.Store) (any, error) {
			return result(s.SaveDefinition(ctx, store.Update, &store.Definition{Ctx: acme, ID: "def", ContractPolicyID: "use", Selector: store.SelectAssets(nil)}))
		}},
		{"PutRequest", inserts, func(s *store.Store) (any, error) { return result(s.PutRequest(ctx, acme, "n9", store.Request{})) }},
		{"InsertNegotiation", inserts, func(s *store.Store) (any, error) {
			n, _, err := s.InsertNegotiation(ctx, negotiation("n3", "did:web:peer"), store.Side{}) // which is there
			return n, err
		}},
		{"InsertTransfer", inserts, func(s *store.Store) (any, error) {
			tr, _, err := s.InsertTransfer(ctx, &store.Transfer{Process: store.Process{Ctx: acme, ID: "t1", Role: state.Consumer, State: state.Started, Step: state.Started, AgreementID: "a1"}}, store.Side{})
			return tr, err
		}},
		{"UpdateNegotiation", writes, func(s *store.Store) (any, error) {
			return s.UpdateNegotiation(ctx, acme, "n3", "m2", func(n *store.Negotiation, _ bool) (store.Side, error) {
				n.LastError = "changed"
				return store.Side{MessageID: "m2"}, nil
			})
		}},
		{"UpdateTransfer", writes, func(s *store.Store) (any, error) {
			return s.UpdateTransfer(ctx, acme, "t2", "", func(*store.Transfer, bool) (store.Side, error) { return store.Side{DropAddress: true}, nil })
		}},
		{"TellCallback", writes, func(s *store.Store) (any, error) {
			return result(s.TellCallback(ctx, &store.DueCallback{Ctx: acme, ProcessID: "n1", Told: 1}, time.Hour))
		}},
		{"Record", inserts, func(s *store.Store) (any, error) {
			return result(s.Record(ctx, acme, audit.Entry{Type: audit.Management, Body: map[string]string{"do": "x"}}))
		}},

		{"PostponeHeadRequest", writes, func(s *store.Store) (any, error) { return result(s.PostponeHeadRequest(ctx, acme, "a1", time.Hour)) }},
		{"EndHeadRequest", writes, func(s *store.Store) (any, error) {
			return result(s.EndHeadRequest(ctx, acme, "a1", audit.Entry{Type: audit.CounterpartyHead, Body: audit.Witness{}}))
		}},
		{"DropRequest", writes, func(s *store.Store) (any, error) { return result(s.DropRequest(ctx, acme, "n1")) }},
		{"DeleteNegotiation", writes, func(s *store.Store) (any, error) { return result(s.DeleteNegotiation(ctx, acme, "n2")) }},
		{"DeleteReference", writes, func(s *store.Store) (any, error) { return result(s.DeleteReference(ctx, acme, "t1")) }},
		{"DeleteUnusedAsset", writes, func(s *store.Store) (any, error) { return result(s.DeleteUnusedAsset(ctx, acme, "free")) }},
		{"DeleteAsset", writes, func(s *store.Store) (any, error) { return result(s.DeleteAsset(ctx, acme, "asset")) }},
		{"DeletePolicy", writes, func(s *store.Store) (any, error) { return result(s.DeletePolicy(ctx, acme, "spare")) }},
		{"DeleteDefinition", writes, func(s *store.Store) (any, error) { return result(s.DeleteDefinition(ctx, acme, "def", "use")) }},
		{"DeleteParticipant", writes, func(s *store.Store) (any, error) { return result(s.DeleteParticipant(ctx, acme)) }},

		{"LeaseNegotiations", beyond, nil},
		{"LeaseTransfers", beyond, nil},
		{"LeaseCallbacks", beyond, nil},
		{"LeaseHeadRequests", beyond, nil},
		{"NextDue", beyond, nil},
		{"Prune", beyond, nil},
		{"AuditHeads", beyond, nil},
		{"PruneAudit", beyond, nil},
		{"Profile", beyond, nil},
		{"PutProfile", beyond, nil},
		{"DeleteProfile", beyond, nil},
		{"Ping", beyond, nil},
		{"Close", beyond, nil},
	}
}

// twoTenants is a database with the same things of acme and of beta, and how beta's look to the superuser.
func twoTenants(t *testing.T) (owner string, roles store.Grants, beta func() string) {
	t.Helper()
	super, owner, roles := migrated(t)
	s := connect(t, owner, store.Options{})
	if err := s.PutProfile(t.Context(), profile.Profile{Name: "pilot"}); err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []string{"acme", "beta"} {
		fill(t, s, ctx)
	}
	rows, err := super.Query(t.Context(), "SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attname = 'ctx' AND relkind = 'r' AND relnamespace::regnamespace::text IN ('control_plane', 'audit') ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		var n int
		if err := super.QueryRow(t.Context(), "SELECT count(*) FROM "+table+" WHERE ctx = 'beta'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Errorf("nothing of beta in %s: fill it", table)
		}
	}
	return owner, roles, func() string {
		var out strings.Builder
		for _, table := range tables {
			var content string
			if err := super.QueryRow(t.Context(), "SELECT coalesce(string_agg(r::text, E'\n' ORDER BY r::text), '') FROM "+table+" r WHERE ctx = 'beta'").Scan(&content); err != nil {
				t.Fatal(err)
			}
			out.WriteString(table + "\n" + content + "\n")
		}
		return out.String()
	}
}

// withoutConditions is a store whose statements lose their conditions on the participant context on their way to the database.
func withoutConditions(t *testing.T, url string) (s *store.Store, removed *atomic.Int64) {
	t.Helper()
	url, removed = tenants.WithoutConditions(t, url)
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(t.Context(), cfg, store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, removed
}

// leaks says whether something of beta is in a result.
func leaks(t *testing.T, out any) bool {
	t.Helper()
	raw, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(raw), "beta")
}

// TestNothingLeaksWithoutTheConditionsOfTheQueries: with every condition on the participant context taken out of every statement, no method of the store shows
// acme anything of beta or changes anything there; and they all do for acme what they do with their conditions.
func TestNothingLeaksWithoutTheConditionsOfTheQueries(t *testing.T) {
	for _, who := range []string{"the owner", "the role of the control plane"} {
		t.Run("as "+who, func(t *testing.T) {
			owner, roles, beta := twoTenants(t)
			if who != "the owner" {
				owner = as(owner, roles[store.SchemaControlPlane])
			}
			s, removed := withoutConditions(t, owner)
			methods := map[string]bool{}
			for m := range reflect.TypeOf(s).Methods() {
				methods[m.Name] = true
			}
			before := beta()
			for _, c := range calls(t.Context()) {
				if !methods[c.name] {
					t.Errorf("the store has no method %s", c.name)
				}
				delete(methods, c.name)
				if c.kind == beyond {
					continue
				}
				out, err := c.do(s)
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if leaks(t, out) {
					t.Errorf("%s shows %+v", c.name, out)
				}
				if after := beta(); after != before {
					t.Fatalf("%s changed what is beta's from\n%s\nto\n%s", c.name, before, after)
				}
			}
			for m := range methods {
				t.Errorf("method %s is not tried here: add it", m)
			}
			if removed.Load() < 40 {
				t.Errorf("only %d statements lost a condition", removed.Load())
			}
			if _, err := s.Participant(t.Context(), "acme"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("acme was deleted, and is still there: %v", err)
			}
		})
	}
}

// TestWithoutConditionsAndRowSecurityEverythingLeaks holds the test above to its word: the superuser, whom row security does not bind, gets to see and change it all.
func TestWithoutConditionsAndRowSecurityEverythingLeaks(t *testing.T) {
	owner, _, beta := twoTenants(t)
	s, _ := withoutConditions(t, pgtest.Superuser(t, owner))
	for _, c := range calls(t.Context()) {
		switch c.kind {
		case reads:
			if out, err := c.do(s); err == nil && !leaks(t, out) {
				t.Errorf("%s shows nothing of beta: %+v", c.name, out)
			}
		case writes:
			before := beta()
			if _, err := c.do(s); err == nil && beta() == before {
				t.Errorf("%s changed nothing of beta", c.name)
			}
		}
	}
}

// TestWorkAcrossParticipantsReadsEachRowInItsOwnContext: what is due is found among all, and every row is that of the context that it is said to be of.
func TestWorkAcrossParticipantsReadsEachRowInItsOwnContext(t *testing.T) {
	owner, roles, _ := twoTenants(t)
	s, _ := withoutConditions(t, as(owner, roles[store.SchemaControlPlane]))
	if d, err := s.NextDue(t.Context(), time.Hour); err != nil || d != 0 {
		t.Errorf("due in %s, %v", d, err)
	}
	negotiations, err := s.LeaseNegotiations(t.Context(), 10, store.Places{PerParticipant: 10, PerCounterparty: 10})
	if err != nil {
		t.Fatal(err)
	}
	transfers, err := s.LeaseTransfers(t.Context(), 10, store.Places{PerParticipant: 10, PerCounterparty: 10})
	if err != nil {
		t.Fatal(err)
	}
	callbacks, err := s.LeaseCallbacks(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, n := range negotiations {
		got["negotiation "+n.ID+" of "+n.Ctx+", "+n.UseCase]++
	}
	for _, tr := range transfers {
		got["transfer of "+tr.Ctx+", "+tr.Format]++
	}
	for _, c := range callbacks {
		got["callback of "+c.Ctx+", "+c.URI]++
	}
	for what, n := range map[string]int{"negotiation n3 of acme, acme": 1, "negotiation n3 of beta, beta": 1, "transfer of acme, acme": 2, "transfer of beta, beta": 2,
		"callback of acme, https://acme": 3, "callback of beta, https://beta": 3} {
		if got[what] != n {
			t.Errorf("%d times %s, want %d: %v", got[what], what, n, got)
		}
	}
	heads, err := s.AuditHeads(t.Context())
	if err != nil || len(heads) != 2 || heads[0].Ctx != "acme" || heads[1].Ctx != "beta" {
		t.Errorf("heads %v, %v", heads, err)
	}
	before, err := s.AuditHead(t.Context(), "beta")
	if err != nil {
		t.Fatal(err)
	}
	cc, err := pgx.ParseConfig(owner)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.KeepAuditBodies(t.Context(), cc, time.Microsecond), s.PruneAudit(t.Context())); err != nil {
		t.Fatal(err)
	}
	if after, err := s.AuditHead(t.Context(), "beta"); err != nil || after.Seq != before.Seq+1 {
		t.Errorf("after pruning %+v, %v", after, err)
	}
	if err := s.Prune(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []string{"acme", "beta"} {
		if _, err := s.UpdateNegotiation(t.Context(), ctx, "n1", "m", func(_ *store.Negotiation, seen bool) (store.Side, error) {
			if seen {
				t.Errorf("%s: a message id was not pruned", ctx)
			}
			return store.Side{}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
