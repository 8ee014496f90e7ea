// SPDX-License-Identifier: FSL-1.1-ALv2

package postgres_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func server(t *testing.T) postgres.Server {
	t.Helper()
	u, err := url.Parse(pgtest.Superuser(t, pgtest.NewDatabase(t)))
	if err != nil {
		t.Fatal(err)
	}
	return postgres.Server{Address: u.Host, User: u.User.Username()}
}

func admin(t *testing.T, s postgres.Server) *postgres.Admin {
	t.Helper()
	a, err := postgres.Connect(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(t.Context()) })
	return a
}

func rows(t *testing.T, s postgres.Server, query string, args ...any) []string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), "postgres://"+s.User+"@"+s.Address+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	r, err := c.Query(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(r, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEnsureIsIdempotentAndPutsRight(t *testing.T) {
	t.Parallel()
	s := server(t)
	a := admin(t, s)
	d := postgres.Database{
		Name: `odd"name`, Owner: postgres.Role{Name: "ensure_owner", Password: "first"}, Roles: []postgres.Role{{Name: "ensure_role", Password: "it's"}},
	}
	const verifiers = "SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'ensure_%' ORDER BY rolname"
	var before []string
	for range 2 {
		if err := a.Ensure(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		got := rows(t, s, verifiers)
		if len(got) != 2 || !postgres.Matches(got[0], "first") || !postgres.Matches(got[1], "it's") {
			t.Fatalf("the passwords are not set: %d verifiers", len(got))
		}
		if before != nil && (before[0] != got[0] || before[1] != got[1]) {
			t.Error("a second time sets a password that was right")
		}
		before = got
	}
	d.Owner.Password = "second"
	if err := a.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, s, verifiers); !postgres.Matches(got[0], "second") || got[1] != before[1] {
		t.Error("a new password is not set, or another role's is")
	}
	if got := rows(t, s, "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = $1", d.Name); len(got) != 1 || got[0] != "ensure_owner" {
		t.Errorf("owner is %v", got)
	}
	if got := rows(t, s, "SELECT 'public' FROM pg_database, aclexplode(datacl) x WHERE datname = $1 AND x.grantee = 0", d.Name); len(got) != 0 {
		t.Error("everybody may connect")
	}
	for database, may := range map[string]bool{d.Name: true, "postgres": false, "template1": false} {
		cfg, err := pgx.ParseConfig("postgres://ensure_role@" + s.Address + "/?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Database, cfg.Password = database, "it's"
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err == nil {
			err = c.Close(t.Context())
		}
		if (err == nil) != may {
			t.Errorf("a role connects to %s: %v", database, err)
		}
	}
	for range 2 {
		if err := a.Drop(t.Context(), d.Name, "ensure_owner", "ensure_role"); err != nil {
			t.Fatal(err)
		}
	}
	if got := rows(t, s, verifiers); len(got) != 0 {
		t.Errorf("%d roles are left", len(got))
	}
}

// account starts a server that takes nobody without TLS and a password, and makes an account with these attributes on it. query reads as superuser.
func account(t *testing.T, attributes string) (s postgres.Server, query func(sql string, args ...any) []string) {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := pki.ClientTLS(ca.Cert, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	started, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.Stop)
	super := postgres.Server{Address: fmt.Sprintf("127.0.0.1:%d", started.Port), User: "postgres"}
	query = func(sql string, args ...any) []string { return rows(t, super, sql, args...) }
	query("CREATE ROLE kaphera LOGIN " + attributes + " PASSWORD 'admin'")
	if err := started.Secure(cert.Cert, cert.Key); err != nil {
		t.Fatal(err)
	}
	return postgres.Server{Address: super.Address, User: "kaphera", Password: "admin", TLS: tlsConfig}, query
}

func TestAnAccountThatIsNoSuperuserMakesAndDropsDatabases(t *testing.T) {
	t.Parallel()
	s, query := account(t, "CREATEDB CREATEROLE")
	a := admin(t, s)
	d := postgres.Database{Name: "of_a_cell", Owner: postgres.Role{Name: "cell_owner", Password: "first"}, Roles: []postgres.Role{{Name: "cell_role", Password: "it's"}}}
	const verifiers = "SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'cell_%' ORDER BY rolname"
	var before []string
	for range 2 {
		if err := a.Ensure(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		got := query(verifiers)
		if len(got) != 2 || !postgres.Matches(got[0], "first") || !postgres.Matches(got[1], "it's") {
			t.Fatalf("the passwords are not set: %d verifiers", len(got))
		}
		if before != nil && (before[0] != got[0] || before[1] != got[1]) {
			t.Error("a second time sets a password that was right")
		}
		before = got
	}
	d.Owner.Password = "second"
	if err := a.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := query(verifiers); !postgres.Matches(got[0], "second") || got[1] != before[1] {
		t.Error("a new password is not set, or another role's is")
	}
	if got := query("SELECT pg_get_userbyid(datdba) || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'of_a_cell'"); len(got) != 1 || got[0] != "cell_owner UTF8" {
		t.Errorf("the database is %v", got)
	}
	if got := query("SELECT rolname::text FROM pg_roles WHERE has_database_privilege(oid, 'of_a_cell', 'CONNECT') AND NOT rolsuper AND rolcanlogin ORDER BY 1"); !slices.Equal(got, []string{"cell_owner", "cell_role", "kaphera"}) {
		t.Errorf("these may connect: %v", got)
	}
	// What the connector has open does not keep the database.
	cfg, err := pgx.ParseConfig("postgres://cell_role@" + s.Address + "/of_a_cell")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password, cfg.TLSConfig, cfg.Fallbacks = "it's", s.TLS, nil
	open, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close(t.Context()) }()
	for range 2 {
		if err := a.Drop(t.Context(), d.Name, "cell_owner", "cell_role"); err != nil {
			t.Fatal(err)
		}
	}
	if got := query("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'cell_%' UNION SELECT datname::text FROM pg_database WHERE datname = 'of_a_cell'"); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestARightThatTheAccountLacksIsNamed(t *testing.T) {
	t.Parallel()
	s, query := account(t, "CREATEDB CREATEROLE")
	for _, c := range []struct{ without, detail, remedy string }{
		{"NOCREATEROLE", "account kaphera may not make roles", `ALTER ROLE "kaphera" CREATEROLE`},
		{"NOCREATEDB", "account kaphera may not make databases", `ALTER ROLE "kaphera" CREATEDB`},
		{"NOINHERIT", "account kaphera does not have the rights of the roles that it makes", `ALTER ROLE "kaphera" INHERIT`},
	} {
		query("ALTER ROLE kaphera " + c.without)
		_, err := postgres.Connect(t.Context(), s)
		var missing *fault.Error
		if !errors.As(err, &missing) || missing.Detail != c.detail || missing.Remedy != c.remedy {
			t.Errorf("%s: %v", c.without, err)
		}
		query("ALTER ROLE kaphera CREATEROLE CREATEDB INHERIT")
	}
	admin(t, s)
	s.Password = "wrong"
	if _, err := postgres.Connect(t.Context(), s); !postgres.Refused(err) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
}

// Two platforms whose cells have the same names meet on one server: the second one is refused, and neither password nor database of the first changes.
func TestADatabaseOfAnotherPlatformIsLeftAlone(t *testing.T) {
	t.Parallel()
	s, query := account(t, "CREATEDB CREATEROLE")
	d := postgres.Database{Name: "cell_shared", Owner: postgres.Role{Name: "shared_owner", Password: "first"}}
	s.Platform = "one.example"
	one := admin(t, s)
	if err := one.Ensure(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	s.Platform = "two.example"
	two := admin(t, s)
	d.Owner.Password = "second"
	var refused *fault.Error
	if err := two.Ensure(t.Context(), d); !errors.As(err, &refused) || !strings.Contains(err.Error(), "is that of platform one.example") {
		t.Errorf("another platform: %v", err)
	}
	if err := two.Drop(t.Context(), "cell_shared", "shared_owner"); err != nil {
		t.Error(err)
	}
	if got := query("SELECT rolpassword FROM pg_authid, pg_database WHERE rolname = 'shared_owner' AND datname = 'cell_shared'"); len(got) != 1 || !postgres.Matches(got[0], "first") {
		t.Error("another platform has changed the password, or dropped the database")
	}
	if err := one.Drop(t.Context(), "cell_shared", "shared_owner"); err != nil {
		t.Error(err)
	}
	if err := two.Ensure(t.Context(), d); err != nil {
		t.Errorf("once it is gone: %v", err)
	}
}

// A password is not set again and again where it is pg_hba.conf that keeps the role out.
func TestARoleThatIsNotLetInIsNamed(t *testing.T) {
	t.Parallel()
	s, query := account(t, "CREATEDB CREATEROLE")
	file := query("SHOW hba_file")[0]
	rules, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	let := func(rules string) {
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil { // #nosec G703 -- the test's own server
			t.Fatal(err)
		}
		loaded := query("SELECT pg_conf_load_time()::text")[0]
		query("SELECT pg_reload_conf()::text")
		for query("SELECT pg_conf_load_time()::text")[0] == loaded {
			runtime.Gosched()
		}
	}
	a := admin(t, s)
	d := postgres.Database{Name: "of_a_cell", Owner: postgres.Role{Name: "hba_owner", Password: "first"}}
	var missing *fault.Error
	let(strings.Replace(string(rules), "hostssl all all", "hostssl postgres kaphera", 1))
	for range 2 { // the role is made, and then is there
		if err := a.Ensure(t.Context(), d); !errors.As(err, &missing) || !strings.Contains(err.Error(), "pg_hba.conf does not let role hba_owner in to database of_a_cell") {
			t.Errorf("a role that is not let in: %v", err)
		}
	}
	let(string(rules))
	if err := a.Ensure(t.Context(), d); err != nil {
		t.Error(err)
	}
	let("host all postgres 127.0.0.1/32 trust\n")
	if _, err := postgres.Connect(t.Context(), s); !errors.As(err, &missing) || !strings.Contains(err.Error(), "role kaphera in to database postgres") {
		t.Errorf("the account is not let in: %v", err)
	}
}

func TestDatabasesAreMadeAtOnce(t *testing.T) {
	t.Parallel()
	s := server(t)
	var group errgroup.Group
	for i := range 8 {
		a := admin(t, s)
		group.Go(func() error {
			name := fmt.Sprintf("at_once_%d", i)
			for range 20 {
				if err := a.Ensure(t.Context(), postgres.Database{Name: name, Owner: postgres.Role{Name: name, Password: "secret"}}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestRoleWithoutPasswordIsRefused(t *testing.T) {
	t.Parallel()
	a := admin(t, server(t))
	if err := a.Ensure(t.Context(), postgres.Database{Name: "x", Owner: postgres.Role{Name: "nobody_else"}}); err == nil {
		t.Error("a role without a password is made")
	}
}

func TestUnreachableServerIsNamed(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:1", "no-port", "127.0.0.1:high"} {
		if a, err := postgres.Connect(t.Context(), postgres.Server{Address: address, User: "postgres"}); err == nil {
			a.Close(t.Context())
			t.Errorf("%s is reached", address)
		}
	}
}

func TestVerifier(t *testing.T) {
	t.Parallel()
	v, err := postgres.Verifier("secret")
	if err != nil {
		t.Fatal(err)
	}
	if !postgres.Matches(v, "secret") || postgres.Matches(v, "Secret") {
		t.Error("a verifier does not fit its password, or fits another")
	}
	for _, bad := range []string{"", "md5abc", "SCRAM-SHA-256$x:y$z:w", "SCRAM-SHA-256$4096:!!$a:b", "SCRAM-SHA-256$0:$:"} {
		if postgres.Matches(bad, "secret") {
			t.Errorf("%q fits", bad)
		}
	}
}
