// SPDX-License-Identifier: Apache-2.0

// Package store keeps the control plane's state in PostgreSQL: participants, offers, negotiations, transfers, agreements and the
// outgoing messages that are part of their rows. It also carries the migrations of every role's schema, so that one command brings a
// database up to date. It decides nothing: transitions come from connector/dsp, and the queries of the other roles live with them.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/kaphera/kaphera/connector/audit"
)

// Schemas in the order in which they are migrated; each has its own folder of migrations and its own table of versions.
const (
	SchemaControlPlane = "control_plane"
	SchemaWallet       = "wallet"
	SchemaDataPlane    = "data_plane"
	SchemaIssuer       = "issuer"
	SchemaAudit        = "audit" // last: it reads once who is there
)

//go:embed migrations/*/*.sql
var migrations embed.FS

// Grants names the database role that may read and write each role's schema. An empty role gets nothing: the migrating user serves it. What
// each of them may do in the schema audit follows from what it is.
type Grants map[string]string

// Migrate brings all schemas up to date, secures their rows and grants them. It is safe to run from several processes at once.
func Migrate(ctx context.Context, cc *pgx.ConnConfig, grants Grants) error {
	// Migrations change rows of all contexts.
	db := stdlib.OpenDB(*cc, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET kaphera.ctx = '*'")
		return err
	}))
	defer func() { _ = db.Close() }()
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("reach the database %s at %s:%d as %s: %w", cc.Database, cc.Host, cc.Port, cc.User, err)
	}
	for _, schema := range []string{SchemaControlPlane, SchemaWallet, SchemaDataPlane, SchemaIssuer, SchemaAudit} {
		if err := migrateSchema(ctx, db, schema); err != nil {
			return fmt.Errorf("migrate schema %s: %w", schema, err)
		}
		if err := secureRows(ctx, db, schema); err != nil {
			return fmt.Errorf("row security of schema %s: %w", schema, err)
		}
		if role := grants[schema]; role != "" {
			if err := grant(ctx, db, schema, role); err != nil {
				return fmt.Errorf("grant schema %s to role %s: %w", schema, role, err)
			}
		}
	}
	for schema, may := range auditGrants {
		if role := grants[schema]; role != "" {
			sql := strings.ReplaceAll("GRANT USAGE ON SCHEMA audit TO @;"+may, "@", pgx.Identifier{role}.Sanitize())
			if _, err := db.ExecContext(ctx, sql); err != nil {
				return fmt.Errorf("grant schema audit to role %s: %w", role, err)
			}
		}
	}
	return nil
}

// KeepAuditBodies says how long the bodies of audit records are kept; zero is for ever. It takes the user that migrates.
func KeepAuditBodies(ctx context.Context, cc *pgx.ConnConfig, age time.Duration) error {
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return audit.Keep(ctx, conn, age)
}

// auditGrants is what the roles may do in the schema audit: append; begin and end chains; read and prune them. None may change a record.
var auditGrants = map[string]string{
	SchemaControlPlane: "GRANT SELECT ON ALL TABLES IN SCHEMA audit TO @; GRANT EXECUTE ON FUNCTION audit.append, audit.open, audit.close, audit.prune, audit.heads, audit.moving TO @",
	SchemaWallet:       "GRANT EXECUTE ON FUNCTION audit.append, audit.open, audit.close_unused, audit.moving TO @",
	SchemaDataPlane:    "GRANT EXECUTE ON FUNCTION audit.append TO @",
}

func migrateSchema(ctx context.Context, db *sql.DB, schema string) error {
	dir, err := fs.Sub(migrations, "migrations/"+schema)
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	// Two sessions that both find no schema would both make it: the second is told so by the unique index and finds it made.
	// #nosec G202 -- one of the constants
	if _, err := db.ExecContext(ctx, "SELECT pg_advisory_lock(7301); CREATE SCHEMA IF NOT EXISTS "+schema+"; SELECT pg_advisory_unlock(7301)"); err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithTableName(schema+".goose_db_version"), goose.WithSessionLocker(locker))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

func grant(ctx context.Context, db *sql.DB, schema, role string) error {
	r := pgx.Identifier{role}.Sanitize()
	_, err := db.ExecContext(ctx, fmt.Sprintf(`GRANT USAGE ON SCHEMA %[1]s TO %[2]s;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s;
		GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %[1]s TO %[2]s;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %[1]s TO %[2]s;
		REVOKE INSERT, UPDATE, DELETE ON %[1]s.goose_db_version FROM %[2]s`, schema, r))
	return err
}
