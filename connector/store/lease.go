// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// LeaseNegotiations takes up to limit due negotiations for this process, at most perCounterparty processes of either kind at a time for one
// counterparty over all connector processes, so that a slow one, or one with much under way, does not hold up the others. A row is leased by one
// worker at a time, which keeps its messages in order.
func (s *Store) LeaseNegotiations(ctx context.Context, limit, perCounterparty int) ([]*Negotiation, error) {
	return lease[Negotiation](ctx, s, negotiationColumns, limit, perCounterparty)
}

// LeaseTransfers is LeaseNegotiations for transfers.
func (s *Store) LeaseTransfers(ctx context.Context, limit, perCounterparty int) ([]*Transfer, error) {
	return lease[Transfer](ctx, s, transferColumns, limit, perCounterparty)
}

// lease looks at the counterparties with due rows one by one (a walk over the index), and at no more rows of each than it may get.
func lease[T any](ctx context.Context, s *Store, o own, limit, perCounterparty int) ([]*T, error) {
	sql := fmt.Sprintf(`WITH RECURSIVE party AS (
			(SELECT counterparty FROM control_plane.%[1]s WHERE next_attempt_at IS NOT NULL ORDER BY counterparty LIMIT 1)
			UNION ALL
			SELECT (SELECT p.counterparty FROM control_plane.%[1]s p WHERE p.next_attempt_at IS NOT NULL AND p.counterparty > party.counterparty
				ORDER BY p.counterparty LIMIT 1) FROM party WHERE party.counterparty IS NOT NULL
		), busy AS (
			SELECT counterparty, count(*) AS n FROM (
				SELECT counterparty FROM control_plane.%[2]s WHERE lease_until > clock_timestamp() UNION ALL
				SELECT counterparty FROM control_plane.%[3]s WHERE lease_until > clock_timestamp()) leased GROUP BY counterparty
		), fair AS (
			SELECT due.ctx, due.id, row_number() OVER (PARTITION BY due.counterparty ORDER BY due.next_attempt_at) + coalesce(busy.n, 0) AS rank
			FROM party CROSS JOIN LATERAL (
				SELECT p.ctx, p.id, p.counterparty, p.next_attempt_at FROM control_plane.%[1]s p
				WHERE p.counterparty = party.counterparty AND p.next_attempt_at <= clock_timestamp() AND (p.lease_until IS NULL OR p.lease_until <= clock_timestamp())
				ORDER BY p.next_attempt_at LIMIT $2
			) due LEFT JOIN busy ON busy.counterparty = due.counterparty
		), picked AS (
			SELECT p.ctx, p.id FROM control_plane.%[1]s p JOIN fair USING (ctx, id)
			WHERE fair.rank <= $2 AND p.next_attempt_at <= clock_timestamp() AND (p.lease_until IS NULL OR p.lease_until <= clock_timestamp())
			ORDER BY fair.rank, p.next_attempt_at LIMIT $1 FOR UPDATE OF p SKIP LOCKED
		), taken AS (
			UPDATE control_plane.%[1]s p SET lease_owner = $3, lease_until = clock_timestamp() + $4::interval
			FROM picked WHERE p.ctx = picked.ctx AND p.id = picked.id RETURNING p.*
		) `, o.table, negotiations, transfers) + o.selFrom("taken")
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
