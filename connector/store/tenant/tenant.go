// SPDX-License-Identifier: Apache-2.0

// Package tenant runs SQL statements for one participant context (or issuer) at a time. The setting kaphera.ctx names it for the length of one
// transaction, and the row security that `connector migrate` puts on every table with a column ctx (connector/store/rowsecurity.go) lets through the rows of
// that one only, whatever a statement asks for. Work that finds out which rows of any context are due calls functions of the database, which
// return keys; the rows are then read in their own contexts (Across).
package tenant

import (
	"context"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/limits"
)

// DB are connections to the database. A statement that is run on the pool itself has no context: it reaches shared tables and functions, and no row of
// any other.
type DB struct {
	*pgxpool.Pool
	// Shares bound how many of the connections each participant context has at once; nil: all of them. Whoever has one must not want another in the
	// same context: it may be the one that it waits for.
	Shares *limits.Shares
}

// In is the database as one participant context has it.
func (d DB) In(ctx string) Scope {
	if !form.MatchString(ctx) {
		ctx = "" // which is nobody's
	}
	return Scope{d, ctx}
}

// form is that of a context's name. Nothing else reaches a statement's text, above all not "*", which functions use.
var form = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Scope runs every statement in one participant context. Its methods are those of a pool.
type Scope struct {
	db  DB
	ctx string
}

const set = "SELECT set_config('kaphera.ctx', $1, true)"

// Begin starts a transaction.
func (s Scope) Begin(ctx context.Context) (pgx.Tx, error) {
	leave, err := s.db.Shares.Enter(ctx, s.ctx)
	if err != nil {
		return nil, err
	}
	begun, err := s.db.BeginTx(ctx, pgx.TxOptions{BeginQuery: "BEGIN; SET LOCAL kaphera.ctx = '" + s.ctx + "'"})
	if err != nil {
		leave()
		return nil, err
	}
	return tx{begun, leave}, nil
}

// tx gives back its place with its connection.
type tx struct {
	pgx.Tx
	leave func()
}

func (t tx) Commit(ctx context.Context) error {
	defer t.leave()
	return t.Tx.Commit(ctx)
}

func (t tx) Rollback(ctx context.Context) error {
	defer t.leave()
	return t.Tx.Rollback(ctx)
}

// SendBatch sends statements with the setting before them, which makes all of them one transaction and takes one round trip.
func (s Scope) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	leave, err := s.db.Shares.Enter(ctx, s.ctx)
	if err != nil {
		return unsent{err}
	}
	all := &pgx.Batch{}
	all.Queue(set, s.ctx)
	all.QueuedQueries = append(all.QueuedQueries, b.QueuedQueries...)
	results := s.db.SendBatch(ctx, all)
	_, _ = results.Exec() // of the setting; an error comes back with the next result
	return sent{results, leave}
}

// sent gives back its place with its connection.
type sent struct {
	pgx.BatchResults
	leave func()
}

func (s sent) Close() error {
	defer s.leave()
	return s.BatchResults.Close()
}

// unsent are the results of statements that got no connection.
type unsent struct{ err error }

func (u unsent) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, u.err }
func (u unsent) Query() (pgx.Rows, error)         { return nil, u.err }
func (u unsent) QueryRow() pgx.Row                { return row{nil, u.err} }
func (u unsent) Close() error                     { return u.err }
func (u unsent) Tx() pgx.Tx                       { return nil }

func (s Scope) send(ctx context.Context, sql string, args []any) pgx.BatchResults {
	b := &pgx.Batch{}
	b.Queue(sql, args...)
	return s.SendBatch(ctx, b)
}

// Exec runs a statement.
func (s Scope) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	results := s.send(ctx, sql, args)
	tag, err := results.Exec()
	if end := results.Close(); err == nil {
		err = end
	}
	return tag, err
}

// Query runs a query. The rows must be read to their end or closed.
func (s Scope) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	results := s.send(ctx, sql, args)
	found, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return &rows{Rows: found, batch: results}, nil
}

// QueryRow runs a query for one row; Scan reports pgx.ErrNoRows when there is none.
func (s Scope) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	r, err := s.Query(ctx, sql, args...)
	return row{r, err}
}

// rows end their transaction with themselves.
type rows struct {
	pgx.Rows
	batch pgx.BatchResults
	end   error
}

func (r *rows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.Close()
	}
	return more
}

func (r *rows) Close() {
	r.Rows.Close()
	if err := r.batch.Close(); r.end == nil {
		r.end = err
	}
}

func (r *rows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.end
}

type row struct {
	rows pgx.Rows
	err  error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// Across runs a call of a function across contexts, which returns keys (ctx first), and reads the rows that they name, each in its own context: sql
// takes a key's columns as parameters. Rows that have gone meanwhile are left out.
func Across[T any](ctx context.Context, q interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}, call string, args []any, sql string, read pgx.RowToFunc[T],
) (out []T, err error) {
	found, err := q.Query(ctx, call, args...)
	if err != nil {
		return nil, err
	}
	keys, err := pgx.CollectRows(found, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	b := &pgx.Batch{}
	for _, key := range keys {
		b.Queue(set, key[0])
		b.Queue(sql, key...)
	}
	results := q.SendBatch(ctx, b)
	defer func() {
		if end := results.Close(); err == nil {
			err = end
		}
	}()
	for range keys {
		if _, err := results.Exec(); err != nil {
			return nil, err
		}
		found, err := results.Query()
		if err != nil {
			return nil, err
		}
		if out, err = pgx.AppendRows(out, found, read); err != nil {
			return nil, err
		}
	}
	return out, nil
}
