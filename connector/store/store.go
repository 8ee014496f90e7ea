// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// Errors that callers map to an answer.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
	// ErrText: nothing in the database has such a name, and it cannot be written.
	ErrText = errors.New("the request holds the character U+0000 or bytes that are no UTF-8, which is no text")
)

// Hooks run around every commit of a writing transaction. They exist for tests that end the process there; nil does nothing.
type Hooks struct{ BeforeCommit, AfterCommit func() }

// Options of a store.
type Options struct {
	// Owner names this process in leases. A process that starts again under the same name frees what it held at once.
	Owner string
	// Lease is how long a worker may keep a row without a sign of life; longer than the longest outgoing call. Default 40 s.
	Lease time.Duration
	Hooks Hooks
	// Connections bounds how many connections each participant context has; nil: all of them.
	Connections *limits.Shares
}

// Store is the control plane's database.
type Store struct {
	db  tenant.DB
	opt Options
}

// Open connects and frees leases that a former process of the same name left.
func Open(ctx context.Context, cfg *pgxpool.Config, opt Options) (*Store, error) {
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s, err := Use(ctx, pool, opt)
	if err != nil {
		pool.Close()
	}
	return s, err
}

// Use is Open on connections that the caller closes.
func Use(ctx context.Context, pool *pgxpool.Pool, opt Options) (*Store, error) {
	if opt.Lease == 0 {
		opt.Lease = 40 * time.Second
	}
	s := &Store{db: tenant.DB{Pool: pool, Shares: opt.Connections}, opt: opt}
	err := s.tx(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT control_plane.free_leases($1)", opt.Owner)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("database: %w (has `connector migrate` run?)", err)
	}
	return s, nil
}

// Close closes all connections.
func (s *Store) Close() { s.db.Close() }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

// tx runs fn in a transaction of a scope and commits it when fn returns nil.
func (s *Store) tx(ctx context.Context, in scope, fn func(pgx.Tx) error) error {
	tx, err := in.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := fn(tx); err != nil {
		return translate(err)
	}
	r, _ := ctx.Value(recordingKey{}).(*recording)
	if _, one := in.(tenant.Scope); !one {
		r = nil // not in anybody's context
	}
	if r != nil && !r.done {
		if err := audit.Append(ctx, tx, r.participant, r.entry); err != nil {
			return err
		}
	}
	if s.opt.Hooks.BeforeCommit != nil {
		s.opt.Hooks.BeforeCommit()
	}
	if err := tx.Commit(ctx); err != nil {
		return translate(err)
	}
	if r != nil {
		r.done = true
	}
	if s.opt.Hooks.AfterCommit != nil {
		s.opt.Hooks.AfterCommit()
	}
	return nil
}

// exec runs one writing statement and reports ErrNotFound when it touched no row.
func (s *Store) exec(ctx context.Context, in scope, sql string, args ...any) error {
	return s.tx(ctx, in, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// translate names the database errors that a caller can do something about.
func translate(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case errors.As(err, &pg) && pg.Code == "23505":
		return fmt.Errorf("%w: there is one already, says %s", ErrConflict, pg.ConstraintName) // row security keeps the values
	case errors.As(err, &pg) && pg.Code == "23503":
		return fmt.Errorf("%w: it is referred to, or refers to something that does not exist: %s", ErrConflict, pg.Detail)
	case errors.As(err, &pg) && (pg.Code == "22021" || pg.Code == "22P05"):
		return ErrText
	}
	return err
}

// one reads exactly one row into a struct by column name.
func one[T any](ctx context.Context, q queryer, sql string, args ...any) (*T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, translate(err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByNameLax[T])
	return v, translate(err)
}

// many reads rows into structs by column name.
func many[T any](ctx context.Context, q queryer, sql string, args ...any) ([]*T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, translate(err)
	}
	v, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByNameLax[T])
	return v, translate(err)
}

// scope is one participant context (tenant.Scope), or what belongs to none (tenant.DB).
type scope interface {
	queryer
	Begin(ctx context.Context) (pgx.Tx, error)
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}
