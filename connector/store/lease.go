// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// LeaseNegotiations takes up to limit due negotiations for this process, at most perCounterparty at a time for one counterparty over
// all processes, so that a slow one does not hold up the others. A row is leased by one worker at a time, which keeps its messages in order.
func (s *Store) LeaseNegotiations(ctx context.Context, limit, perCounterparty int) ([]*Negotiation, error) {
	return lease[Negotiation](ctx, s, negotiationColumns, limit, perCounterparty)
}

// LeaseTransfers is LeaseNegotiations for transfers.
func (s *Store) LeaseTransfers(ctx context.Context, limit, perCounterparty int) ([]*Transfer, error) {
	return lease[Transfer](ctx, s, transferColumns, limit, perCounterparty)
}

// candidates is how many due rows are looked at for one lease.
const candidates = 500

func lease[T any](ctx context.Context, s *Store, o own, limit, perCounterparty int) ([]*T, error) {
	sql := fmt.Sprintf(`WITH busy AS (
			SELECT counterparty, count(*) AS n FROM control_plane.%[1]s WHERE lease_until > clock_timestamp() GROUP BY counterparty
		), due AS (
			SELECT ctx, id, counterparty, next_attempt_at FROM control_plane.%[1]s
			WHERE next_attempt_at <= clock_timestamp() AND (lease_until IS NULL OR lease_until <= clock_timestamp())
			ORDER BY next_attempt_at LIMIT %[2]d
		), fair AS (
			SELECT due.ctx, due.id, row_number() OVER (PARTITION BY due.counterparty ORDER BY due.next_attempt_at) + coalesce(busy.n, 0) AS rank
			FROM due LEFT JOIN busy USING (counterparty)
		), picked AS (
			SELECT p.ctx, p.id FROM control_plane.%[1]s p JOIN fair USING (ctx, id)
			WHERE fair.rank <= $2 AND p.next_attempt_at <= clock_timestamp() AND (p.lease_until IS NULL OR p.lease_until <= clock_timestamp())
			ORDER BY fair.rank, p.next_attempt_at LIMIT $1 FOR UPDATE OF p SKIP LOCKED
		), taken AS (
			UPDATE control_plane.%[1]s p SET lease_owner = $3, lease_until = clock_timestamp() + $4::interval
			FROM picked WHERE p.ctx = picked.ctx AND p.id = picked.id RETURNING p.*
		) `, o.table, candidates) + o.selFrom("taken")
	var out []*T
	err := s.tx(ctx, func(tx pgx.Tx) (err error) {
		if out, err = many[T](ctx, tx, sql, limit, perCounterparty, s.opt.Owner, s.opt.Lease); err == nil && len(out) == 0 {
			return errNothing // nothing to commit
		}
		return err
	})
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	return out, err
}

var errNothing = errors.New("nothing is due")

// NextDue returns how long it is until a row is due that no worker has; more than max counts as max.
func (s *Store) NextDue(ctx context.Context, limit time.Duration) (time.Duration, error) {
	var d *time.Duration
	err := s.pool.QueryRow(ctx, `SELECT min(at) - clock_timestamp() FROM (
			SELECT min(greatest(next_attempt_at, coalesce(lease_until, next_attempt_at))) AS at FROM control_plane.negotiations WHERE next_attempt_at IS NOT NULL
			UNION ALL
			SELECT min(greatest(next_attempt_at, coalesce(lease_until, next_attempt_at))) FROM control_plane.transfers WHERE next_attempt_at IS NOT NULL) t`).Scan(&d)
	if err != nil || d == nil {
		return limit, err
	}
	return max(0, min(*d, limit)), nil
}
