// SPDX-License-Identifier: FSL-1.1-ALv2

package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/kaphera/kaphera/cloudoperator/postgres"
)

// TestAPasswordIsReplacedWithoutAGap: two programs write with a new connection each time, and get the new password one after the other, while the owner
// migrates with its own. No write is refused; the former log-ins are, once they are retired.
func TestAPasswordIsReplacedWithoutAGap(t *testing.T) {
	t.Parallel()
	superuser := server(t)
	other, query := account(t, "CREATEROLE CREATEDB")
	for name, c := range map[string]struct {
		s     postgres.Server
		query func(sql string, args ...any) []string
	}{
		"a superuser": {superuser, func(sql string, args ...any) []string { return rows(t, superuser, sql, args...) }},
		"another one": {other, query},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := admin(t, c.s)
			d := postgres.Database{Name: "turn", Owner: postgres.Role{Name: "turn_owner", Password: "o1"}, Roles: []postgres.Role{{Name: "turn_role", Password: "r1"}}}
			t.Cleanup(func() {
				if err := a.Drop(context.WithoutCancel(t.Context()), "turn", "turn_owner", "turn_role"); err != nil {
					t.Error(err)
				}
				if left := c.query("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'turn%'"); len(left) > 0 {
					t.Errorf("roles are left: %v", left)
				}
			})
			connect := func(r postgres.Role) (*pgx.Conn, error) {
				cfg, err := pgx.ParseConfig("postgres://" + c.s.Address + "/turn?sslmode=disable")
				if err != nil {
					return nil, err
				}
				cfg.User, cfg.Password, cfg.TLSConfig = r.Login, r.Password, c.s.TLS
				if r.Login == "" {
					cfg.User = r.Name
				}
				return pgx.ConnectConfig(t.Context(), cfg)
			}
			run := func(r postgres.Role, sql string) error {
				conn, err := connect(r)
				if err != nil {
					return err
				}
				_, err = conn.Exec(t.Context(), sql)
				return errors.Join(err, conn.Close(t.Context()))
			}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(a.Ensure(t.Context(), d))
			// As connector migrate does: the tables are the owner's, and who may use them is said with the log-in.
			migrate := func(table string) error {
				role := d.Roles[0].Login
				if role == "" {
					role = d.Roles[0].Name
				}
				return run(d.Owner, "CREATE TABLE public."+table+" (n int); GRANT INSERT ON public."+table+" TO "+role)
			}
			must(run(d.Owner, "CREATE SCHEMA IF NOT EXISTS public"))
			must(migrate("t0"))

			var pods [2]atomic.Pointer[postgres.Role]
			var written atomic.Int64
			stop := make(chan struct{})
			var g errgroup.Group
			for i := range pods {
				first := d.Roles[0]
				pods[i].Store(&first)
				g.Go(func() error {
					for {
						select {
						case <-stop:
							return nil
						default:
						}
						if err := run(*pods[i].Load(), "INSERT INTO public.t0 VALUES (1)"); err != nil {
							return err
						}
						written.Add(1)
					}
				})
			}
			for turn, next := range []struct{ owner, role, table string }{{"turn_owner_2", "turn_role_2", "t1"}, {"turn_owner", "turn_role", "t2"}} {
				former := d
				former.Roles = slices.Clone(d.Roles)
				free, err := a.Free(t.Context(), "turn_owner")
				must(err)
				if free != next.owner {
					t.Fatalf("turn %d: %q is free", turn, free)
				}
				d.Owner = postgres.Role{Name: "turn_owner", Login: next.owner, Password: "o2" + next.owner}
				d.Roles = []postgres.Role{{Name: "turn_role", Login: next.role, Password: "r2" + next.role}}
				for range 2 {
					must(a.Ensure(t.Context(), d))
				}
				if free, err = a.Free(t.Context(), "turn_owner"); err != nil || free != "" {
					t.Errorf("%q is free while both are used: %v", free, err)
				}
				must(migrate(next.table))
				one, err := connect(former.Roles[0])
				must(err)
				f, err := a.Former(t.Context(), d)
				must(err)
				if len(f.Logins) != 2 || !f.Used || f.Taken {
					t.Errorf("before the pods have come over: %+v", f)
				}
				for i := range pods {
					pods[i].Store(&d.Roles[0])
				}
				before := written.Load()
				for end := time.After(time.Minute); written.Load() < before+10; {
					select {
					case <-end:
						t.Fatal("nothing is written")
					case <-time.After(time.Millisecond):
					}
				}
				must(one.Close(t.Context()))
				two, err := connect(d.Roles[0])
				must(err)
				deadline := time.After(time.Minute) // the server takes a moment to forget a connection
				for f, err = a.Former(t.Context(), d); err != nil || f.Used || !f.Taken; f, err = a.Former(t.Context(), d) {
					select {
					case <-deadline:
						t.Fatalf("after the pods have come over: %+v, %v", f, err)
					case <-time.After(10 * time.Millisecond):
					}
				}
				late, err := connect(former.Roles[0])
				must(err)
				must(a.Retire(t.Context(), f.Logins...))
				if _, err := late.Exec(t.Context(), "SELECT 1"); err == nil {
					t.Error("a connection by a log-in that was retired goes on")
				}
				_ = late.Close(t.Context())
				for _, r := range []postgres.Role{former.Owner, former.Roles[0]} {
					if conn, err := connect(r); !postgres.Refused(err) {
						t.Errorf("the former log-in of %s: %v, %v", r.Name, conn, err)
					}
				}
				must(two.Close(t.Context()))
				must(run(d.Roles[0], "INSERT INTO public."+next.table+" VALUES (1)"))
				must(a.Ensure(t.Context(), d))
				if f, err = a.Former(t.Context(), d); err != nil || len(f.Logins) > 0 {
					t.Errorf("after it: %+v, %v", f, err)
				}
			}
			close(stop)
			if err := g.Wait(); err != nil {
				t.Errorf("after %d writes: %v", written.Load(), err)
			}
			owners, err := connect(d.Owner)
			must(err)
			defer func() { _ = owners.Close(t.Context()) }()
			var of string
			must(owners.QueryRow(t.Context(), "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'").Scan(&of))
			if of != "turn_owner" {
				t.Errorf("the tables are of %s", of)
			}
		})
	}
}

func TestSecondLogIn(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 63)
	for role, want := range map[string]string{"cell_a_cp": "cell_a_cp_2", long: "", long[:61]: long[:61] + "_2"} {
		got := postgres.Second(role)
		if len(got) > 63 || got == role || want != "" && got != want {
			t.Errorf("of %s: %s", role, got)
		}
	}
	if postgres.Second(long) == postgres.Second(long[:62]+"y") {
		t.Error("two roles have one second log-in")
	}
}
