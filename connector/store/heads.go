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

// HeadRequest is an agreement whose other party is to be asked for the head of its audit chain.
type HeadRequest struct {
	Ctx          string
	AgreementID  string    `db:"agreement_id"`
	Attempts     int       // with the one that this lease is for
	Counterparty string    // DID
	Address      string    // its DSP base
	Profile      string    // of the negotiation
	SignedAt     time.Time // of the agreement
}

// LeaseHeadRequests takes up to limit of those that are due, one of each counterparty, for the time of the lease.
func (s *Store) LeaseHeadRequests(ctx context.Context, limit int, lease time.Duration) (out []*HeadRequest, err error) {
	err = s.tx(ctx, s.db, func(tx pgx.Tx) (err error) {
		out, err = tenant.Across(ctx, tx, audit.NotMoving("SELECT * FROM control_plane.lease_head_requests($1, $2)"), []any{limit, lease},
			`SELECT h.ctx, h.agreement_id, h.attempts, n.counterparty, n.address, n.profile, a.signed_at FROM control_plane.head_requests h
				JOIN control_plane.agreements a ON a.ctx = h.ctx AND a.id = h.agreement_id
				JOIN control_plane.negotiations n ON n.ctx = a.ctx AND n.id = a.negotiation_id WHERE h.ctx = $1 AND h.agreement_id = $2`,
			pgx.RowToAddrOfStructByNameLax[HeadRequest])
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

// PostponeHeadRequest makes a request due again after a time.
func (s *Store) PostponeHeadRequest(ctx context.Context, participant, agreement string, after time.Duration) error {
	return s.exec(ctx, s.db.In(participant), "UPDATE control_plane.head_requests SET next_attempt_at = clock_timestamp() + $3::interval WHERE ctx = $1 AND agreement_id = $2",
		participant, agreement, after)
}

// EndHeadRequest removes a request and records what came of it. ErrNotFound when another process has ended it.
func (s *Store) EndHeadRequest(ctx context.Context, participant, agreement string, e audit.Entry) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM control_plane.head_requests WHERE ctx = $1 AND agreement_id = $2", participant, agreement)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		return audit.Append(ctx, tx, participant, e)
	})
}
