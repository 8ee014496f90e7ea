// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
)

const selectAgreement = `SELECT a.*, n.step, n.address, n.profile, n.use_case, n.revision FROM control_plane.agreements a
	JOIN control_plane.negotiations n ON n.ctx = a.ctx AND n.id = a.negotiation_id `

// Agreement reads one agreement, whatever became of its negotiation.
func (s *Store) Agreement(ctx context.Context, participant, id string) (*Agreement, error) {
	return one[Agreement](ctx, s.db.In(participant), selectAgreement+"WHERE a.ctx = $1 AND a.id = $2", participant, id)
}

// AgreementOf reads the agreement of a negotiation.
func (s *Store) AgreementOf(ctx context.Context, participant, negotiation string) (*Agreement, error) {
	return one[Agreement](ctx, s.db.In(participant), selectAgreement+"WHERE a.ctx = $1 AND a.negotiation_id = $2", participant, negotiation)
}

// Agreements lists concluded agreements, newest first.
func (s *Store) Agreements(ctx context.Context, participant string, limit int) ([]*Agreement, error) {
	return many[Agreement](ctx, s.db.In(participant), selectAgreement+"WHERE a.ctx = $1 AND n.state = 'FINALIZED' ORDER BY a.signed_at DESC, a.id LIMIT $2", participant, limit)
}

// DataAddress reads the address of a transfer with its token. ErrNotFound while the transfer is not started.
func (s *Store) DataAddress(ctx context.Context, participant, transfer string) (*dps.DataAddress, error) {
	row, err := one[struct{ Address dps.DataAddress }](ctx, s.db.In(participant),
		"SELECT address FROM control_plane.data_addresses WHERE ctx = $1 AND transfer_id = $2", participant, transfer)
	if err != nil {
		return nil, err
	}
	return &row.Address, nil
}

// Prune forgets ids of messages that were received longer ago than age; a counterparty has given up repeating them long before.
func (s *Store) Prune(ctx context.Context, age time.Duration) error {
	return s.tx(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT control_plane.prune_received_messages($1)", age)
		return err
	})
}

// Summary counts by state and finds the newest negotiation that failed.
func (s *Store) Summary(ctx context.Context, participant string) (adminapi.Summary, *Negotiation, error) {
	out := adminapi.Summary{Negotiations: map[string]int{}, Transfers: map[string]int{}}
	counts, err := many[struct {
		Kind, State string
		N           int
	}](ctx, s.db.In(participant), `SELECT 'n' AS kind, state, count(*) AS n FROM control_plane.negotiations WHERE ctx = $1 GROUP BY state
		UNION ALL SELECT 't', state, count(*) FROM control_plane.transfers WHERE ctx = $1 GROUP BY state
		UNION ALL SELECT 'a', '', count(*) FROM control_plane.agreements a JOIN control_plane.negotiations n ON n.ctx = a.ctx AND n.id = a.negotiation_id
			WHERE a.ctx = $1 AND n.state = 'FINALIZED'`, participant)
	if err != nil {
		return out, nil, err
	}
	for _, c := range counts {
		switch c.Kind {
		case "n":
			out.Negotiations[c.State] = c.N
		case "t":
			out.Transfers[c.State] = c.N
		default:
			out.Agreements = c.N
		}
	}
	last, err := one[Negotiation](ctx, s.db.In(participant), negotiationColumns.sel()+"WHERE ctx = $1 AND state = 'TERMINATED' ORDER BY updated_at DESC LIMIT 1", participant)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return out, last, err
}
