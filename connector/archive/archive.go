// SPDX-License-Identifier: Apache-2.0

// Package archive writes all that a connector keeps of participant contexts (or of issuers) into one encrypted stream, and brings it into the
// database and Vault of another connector that has nothing of them: the rows of every table with a column ctx, their audit chains record by record,
// private keys and secrets. Backup, restore and moving are this. What a context runs on (its DID's host name, configuration) is not in it.
//
// An archive is encrypted to the public keys of those who may read it (age, https://age-encryption.org/v1), which also shows whether it is whole and
// unchanged, though not who made it: whoever has a public key can write an archive for it. Inside is gzip of JSON lines, each an entry: a header; for
// each table its name and columns and then its rows, values as text that PostgreSQL reads back; the secrets; the end, with what there should have been.
package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/connector/store"
)

// format names the format and its version; what has another is refused.
const format = "kaphera-archive-1"

// Errors to tell apart.
var (
	// ErrExists: the connector has something of a context or a secret already, and nothing was changed.
	ErrExists = errors.New("exists already")
	// ErrNoContext: there is nothing of the context to be exported.
	ErrNoContext = errors.New("there is no such participant context or issuer")
	// ErrMoving: an archive of all is asked for while a context is on its way to another connector.
	ErrMoving = errors.New("it is held, to be moved: end that first, or name the contexts to export")
	// ErrMoved: a context is not released where it was, since it goes on elsewhere.
	ErrMoved = errors.New("was moved, and goes on there")
	// ErrDamaged: the archive is not whole, was changed, or holds what no export writes.
	ErrDamaged = errors.New("the archive is damaged")
	// ErrKey: the identities given do not open the archive.
	ErrKey = errors.New("none of the keys opens the archive")
	// ErrVersion: it was made by a connector with another schema.
	ErrVersion = errors.New("the archive is of another version")
)

// Header is what an archive says about itself.
type Header struct {
	Format   string           `json:"format"`
	MadeAt   time.Time        `json:"madeAt"`
	Schemas  map[string]int64 `json:"schemas"`  // the last migration of each
	Contexts []string         `json:"contexts"` // sorted
}

// Counts are what was written or read.
type Counts struct {
	Rows    int64 `json:"rows"`
	Secrets int64 `json:"secrets"`
}

// entry is one line; one of its members is set.
type entry struct {
	Header *Header   `json:"header,omitempty"`
	Table  *table    `json:"table,omitempty"`
	Row    []*string `json:"row,omitempty"` // of the table before it; null is NULL
	Secret *secret   `json:"secret,omitempty"`
	End    *Counts   `json:"end,omitempty"`
}

type table struct {
	Name    string   `json:"name"` // with its schema
	Columns []string `json:"columns"`

	types  []string
	shared string // for tables without a column ctx: which rows go along
}

type secret struct {
	Path string            `json:"path"` // <owner>/keys/<kid> or <owner>/secrets/<alias>, see package vault
	Data map[string]string `json:"data"`
}

// Tables with a meaning of their own here.
const (
	chains   = "audit.chains"
	records  = "audit.records"
	profiles = "control_plane.profiles"
)

var schemas = []string{store.SchemaControlPlane, store.SchemaWallet, store.SchemaDataPlane, store.SchemaIssuer, store.SchemaAudit}

// shared are the tables without a column ctx of which rows go along, and a condition which, by the contexts $1; tokens that were used are not
// taken again. Rows that are there stay as they are.
var shared = map[string]string{ // #nosec G101 -- names of tables, no secrets
	profiles:                    "name IN (SELECT unnest(profile || further_profiles) FROM control_plane.participants WHERE ctx = ANY ($1))",
	"control_plane.used_tokens": "expires_at > now() AND $1::text[] IS NOT NULL",
	"wallet.used_tokens":        "expires_at > now() AND $1::text[] IS NOT NULL",
	"issuer.used_tokens":        "expires_at > now() AND $1::text[] IS NOT NULL",
}

// begin starts a transaction that sees all contexts and reads and writes values as text of one form.
func begin(ctx context.Context, cc *pgx.ConnConfig, options pgx.TxOptions) (*pgx.Conn, pgx.Tx, error) {
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, nil, fmt.Errorf("reach the database %s at %s:%d as %s: %w", cc.Database, cc.Host, cc.Port, cc.User, err)
	}
	tx, err := conn.BeginTx(ctx, options)
	if err == nil {
		_, err = tx.Exec(ctx, "SET LOCAL kaphera.ctx = '*'; SET LOCAL lock_timeout = '30s'; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'iso_8601'; SET LOCAL bytea_output = 'hex'")
	}
	var owner bool
	if err == nil {
		err = tx.QueryRow(ctx, "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)", chains).Scan(&owner)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = errors.New("has `connector migrate` run? There is no audit trail")
	case err == nil && !owner:
		err = errors.New("use the account that migrates: others see nothing across participants")
	case err == nil:
		return conn, tx, nil
	}
	_ = conn.Close(context.WithoutCancel(ctx))
	return nil, nil, fmt.Errorf("database %s at %s:%d as %s: %w", cc.Database, cc.Host, cc.Port, cc.User, err)
}

// busy says of an error that it comes from waiting too long for a lock.
func busy(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "55P03" {
		return fmt.Errorf("another move or import of it, or a long transaction of its connector, is under way: try again: %w", err)
	}
	return err
}

func versions(ctx context.Context, tx pgx.Tx) (map[string]int64, error) {
	out := map[string]int64{}
	for _, s := range schemas {
		var version int64
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+s+".goose_db_version").Scan(&version); err != nil {
			return nil, fmt.Errorf("version of schema %s: %w", s, err)
		}
		out[s] = version
	}
	return out, nil
}

// tables are those of the database of which rows go along, each after those that it refers to; audit.chains without its marks of what is on its way.
func tables(ctx context.Context, tx pgx.Tx) ([]table, error) {
	var names []string
	for name := range shared {
		names = append(names, name)
	}
	rows, err := tx.Query(ctx, `SELECT n.nspname || '.' || c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
			array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types,
			ARRAY(SELECT DISTINCT fn.nspname || '.' || f.relname FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace
				WHERE k.conrelid = c.oid AND k.contype = 'f') AS after
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE n.nspname = ANY ($1) AND a.attname NOT IN ('importing', 'moving') AND c.relkind IN ('r', 'p') GROUP BY c.oid, n.nspname, c.relname
		HAVING bool_or(a.attname = 'ctx') OR n.nspname || '.' || c.relname = ANY ($2) ORDER BY 1`, schemas, names)
	if err != nil {
		return nil, err
	}
	type found struct {
		Name                  string
		Columns, Types, After []string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[found])
	if err != nil {
		return nil, err
	}
	var out []table
	done := map[string]bool{}
	for len(out) < len(all) {
		before := len(out)
		for _, f := range all {
			ready := !done[f.Name]
			for _, other := range f.After {
				ready = ready && done[other]
			}
			if ready {
				done[f.Name] = true
				out = append(out, table{Name: f.Name, Columns: f.Columns, types: f.Types, shared: shared[f.Name]})
			}
		}
		if len(out) == before {
			return nil, errors.New("tables refer to each other in a circle")
		}
	}
	return out, nil
}

// in is the condition that chooses rows by the contexts $1. An audit trail that was moved away is an archive's of where it goes on.
func (t *table) in() string {
	switch {
	case t.shared != "":
		return t.shared
	case t.Name == chains:
		return "ctx = ANY ($1) AND (open OR NOT moving)"
	case t.Name == records:
		return "ctx = ANY ($1) AND NOT EXISTS (SELECT FROM audit.chains c WHERE c.id = records.chain AND c.moving AND NOT c.open)"
	}
	return "ctx = ANY ($1)"
}

func (t *table) identifier() string { return pgx.Identifier(strings.Split(t.Name, ".")).Sanitize() }
