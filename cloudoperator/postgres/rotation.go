// SPDX-License-Identifier: FSL-1.1-ALv2

package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A role has one password, and whoever still has the former one when it changes is refused. So a role has two log-ins, itself and its Second, of which one
// is used: another password is given to the one that is free, and the former log-in is retired once nobody uses it.

const maxName = 63 // bytes of a name

// Second is the name of a role's other log-in.
func Second(role string) string {
	const suffix = "_2"
	if len(role)+len(suffix) <= maxName {
		return role + suffix
	}
	sum := sha256.Sum256([]byte(role))
	return role[:maxName-len(suffix)-9] + "_" + hex.EncodeToString(sum[:4]) + suffix
}

// Free is the log-in of a role that opens nothing, or is not there yet; empty when both open something.
func (a *Admin) Free(ctx context.Context, role string) (string, error) {
	logins := []string{role, Second(role)}
	open, err := a.open(ctx, logins)
	if err != nil {
		return "", err
	}
	for _, l := range logins {
		if !slices.Contains(open, l) {
			return l, nil
		}
	}
	return "", nil
}

// open are those of some log-ins that open something.
func (a *Admin) open(ctx context.Context, logins []string) ([]string, error) {
	return a.names(ctx, "SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND rolname = ANY($1)", logins)
}

func (a *Admin) names(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := a.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Former are the log-ins of a database's roles that these have no longer and that still open it.
type Former struct {
	Logins []string
	Used   bool // somebody is connected by one of them
	Taken  bool // each role but the owner, which migrates only, is connected by the log-in that it has
}

// Former looks for them.
func (a *Admin) Former(ctx context.Context, d Database) (f Former, err error) {
	var former []string
	for _, r := range append([]Role{d.Owner}, d.Roles...) {
		former = append(former, slices.DeleteFunc([]string{r.Name, Second(r.Name)}, func(l string) bool { return l == r.login() })...)
	}
	if f.Logins, err = a.open(ctx, former); err != nil || len(f.Logins) == 0 {
		return f, err
	}
	connected, err := a.names(ctx, "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE datname = $1 AND usename IS NOT NULL", d.Name)
	if err != nil {
		return f, err
	}
	f.Used = slices.ContainsFunc(f.Logins, func(l string) bool { return slices.Contains(connected, l) })
	f.Taken = !slices.ContainsFunc(d.Roles, func(r Role) bool { return !slices.Contains(connected, r.login()) })
	return f, nil
}

// Retire lets nobody in by these log-ins any more and ends the connections that were opened by them.
func (a *Admin) Retire(ctx context.Context, logins ...string) error {
	for _, l := range logins {
		if err := a.exec(ctx, "ALTER ROLE "+quote(l)+" WITH NOLOGIN PASSWORD NULL"); err != nil {
			return fmt.Errorf("retire role %s: %w", l, err)
		}
	}
	if _, err := a.conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY($1)", logins); err != nil {
		return fmt.Errorf("end the connections of %s: %w", strings.Join(logins, ", "), err)
	}
	return nil
}

// ensureSecond gives the Second of a role what the role has. That of an owner works as the owner: what it makes is the owner's.
func (a *Admin) ensureSecond(ctx context.Context, r Role, owner bool) error {
	if r.login() == r.Name {
		return nil
	}
	var member bool
	if err := a.conn.QueryRow(ctx, "SELECT pg_has_role($1, $2, 'MEMBER')", r.login(), r.Name).Scan(&member); err != nil || member {
		return err
	}
	sql := "GRANT " + quote(r.Name) + " TO " + quote(r.login())
	if owner {
		sql += "; ALTER ROLE " + quote(r.login()) + " SET role = '" + strings.ReplaceAll(r.Name, "'", "''") + "'"
	}
	return a.exec(ctx, sql) // one transaction
}
