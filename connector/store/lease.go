// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// Places are how many negotiations and transfers, together and over all connector processes, may be leased at a time for one participant and for
// one counterparty, so that a slow one, or one with much under way, does not hold up the others. What one participant has with one counterparty
// takes half of the counterparty's.
type Places struct{ PerParticipant, PerCounterparty int }

// LeaseNegotiations takes up to limit due negotiations for this process, as far as there are places, those of participants that have fewest first. A
// row is leased by one worker at a time, which keeps its messages in order.
func (s *Store) LeaseNegotiations(ctx context.Context, limit int, places Places) ([]*Negotiation, error) {
	return lease[Negotiation](ctx, s, negotiationColumns, limit, places)
}

// LeaseTransfers is LeaseNegotiations for transfers.
func (s *Store) LeaseTransfers(ctx context.Context, limit int, places Places) ([]*Transfer, error) {
	return lease[Transfer](ctx, s, transferColumns, limit, places)
}

func lease[T any](ctx context.Context, s *Store, o own, limit int, places Places) (out []*T, err error) {
	err = s.tx(ctx, s.db, func(tx pgx.Tx) (err error) {
		out, err = tenant.Across(ctx, tx, audit.NotMoving("SELECT * FROM control_plane.lease_"+o.table+"($1, $2, $3, $4, $5)"),
			[]any{limit, places.PerParticipant, places.PerCounterparty, s.opt.Owner, s.opt.Lease},
			o.sel()+"WHERE ctx = $1 AND id = $2", pgx.RowToAddrOfStructByNameLax[T])
		if err == nil && len(out) == 0 {
			return unlessLeased(ctx, tx)
		}
		return err
	})
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	return out, err
}

var errNothing = errors.New("nothing is due")

// unlessLeased is errNothing when there is nothing to commit: rows of participants that are being moved are leased too, so that others have their turn.
func unlessLeased(ctx context.Context, tx pgx.Tx) error {
	var leased bool
	err := tx.QueryRow(ctx, "SELECT pg_current_xact_id_if_assigned() IS NOT NULL").Scan(&leased)
	if err == nil && !leased {
		return errNothing
	}
	return err
}

// NextDue returns how long it is until a row is due that no worker has; more than max counts as max.
func (s *Store) NextDue(ctx context.Context, limit time.Duration) (time.Duration, error) {
	var d *time.Duration
	err := s.db.QueryRow(ctx, "SELECT control_plane.next_due()").Scan(&d)
	if err != nil || d == nil {
		return limit, err
	}
	return max(0, min(*d, limit)), nil
}
