// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// Request is what a client gave along with a negotiation or transfer that it started.
type Request struct {
	PrivateProperties map[string]any
	Callbacks         []Callback
}

// Callback is an address that wants to be told what happens to a process.
type Callback struct {
	URI    string `db:"uri"`
	Events []string
}

// PutRequest keeps a request under the id that its process will have.
func (s *Store) PutRequest(ctx context.Context, participant, id string, r Request) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue("INSERT INTO control_plane.process_requests (ctx, process_id, private_properties) VALUES ($1, $2, $3)", participant, id, orEmpty(r.PrivateProperties))
		for i, c := range r.Callbacks {
			batch.Queue(`INSERT INTO control_plane.callbacks (ctx, process_id, position, uri, events) VALUES ($1, $2, $3, $4, $5)`,
				participant, id, i, c.URI, list(c.Events))
		}
		return tx.SendBatch(ctx, batch).Close()
	})
}

// DropRequest forgets the request of a process that did not come about.
func (s *Store) DropRequest(ctx context.Context, participant, id string) error {
	return s.exec(ctx, s.db.In(participant), "DELETE FROM control_plane.process_requests WHERE ctx = $1 AND process_id = $2", participant, id)
}

// Requests reads the requests of processes by their ids; a process that nobody here asked for has none.
func (s *Store) Requests(ctx context.Context, participant string, ids []string) (map[string]Request, error) {
	out := map[string]Request{}
	rows, err := many[struct {
		ProcessID         string `db:"process_id"`
		PrivateProperties map[string]any
	}](ctx, s.db.In(participant), "SELECT process_id, private_properties FROM control_plane.process_requests WHERE ctx = $1 AND process_id = ANY ($2)", participant, ids)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		out[r.ProcessID] = Request{PrivateProperties: r.PrivateProperties}
	}
	callbacks, err := many[struct {
		ProcessID string `db:"process_id"`
		Callback
	}](ctx, s.db.In(participant), `SELECT process_id, uri, events FROM control_plane.callbacks WHERE ctx = $1 AND process_id = ANY ($2)
		ORDER BY process_id, position`, participant, ids)
	for _, c := range callbacks {
		r := out[c.ProcessID]
		r.Callbacks = append(r.Callbacks, c.Callback)
		out[c.ProcessID] = r
	}
	return out, err
}

// DueCallback is an address that has not been told all of its process's history.
type DueCallback struct {
	Callback
	Ctx       string
	ProcessID string `db:"process_id"`
	Position  int
	Told      int
	Attempts  int
	Transfer  bool // else a negotiation
	History   []adminapi.Event
}

// LeaseCallbacks takes up to limit addresses that are to be told something, for the time of a lease.
func (s *Store) LeaseCallbacks(ctx context.Context, limit int) ([]*DueCallback, error) {
	var out []*DueCallback
	err := s.tx(ctx, s.db, func(tx pgx.Tx) (err error) {
		out, err = tenant.Across(ctx, tx, audit.NotMoving("SELECT * FROM control_plane.lease_callbacks($1, $2)"), []any{limit, s.opt.Lease},
			`SELECT c.ctx, c.process_id, c.position, c.uri, c.events, c.told, c.attempts, t.id IS NOT NULL AS transfer, coalesce(n.history, t.history, '[]') AS history
			FROM control_plane.callbacks c
			LEFT JOIN control_plane.negotiations n ON n.ctx = c.ctx AND n.id = c.process_id
			LEFT JOIN control_plane.transfers t ON t.ctx = c.ctx AND t.id = c.process_id
			WHERE c.ctx = $1 AND c.process_id = $2 AND c.position = $3`, pgx.RowToAddrOfStructByNameLax[DueCallback])
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

// TellCallback records how many entries of the history an address knows now, and how often the next one was tried; after is the pause.
// An address that knows how the process ended is done.
func (s *Store) TellCallback(ctx context.Context, c *DueCallback, after time.Duration) error {
	last := c.Told > 0 && c.Told == len(c.History)
	if last {
		end := c.History[c.Told-1].State
		last = c.Transfer && state.Transfer.Final(end) || !c.Transfer && state.Negotiation.Final(end)
	}
	return s.exec(ctx, s.db.In(c.Ctx), `UPDATE control_plane.callbacks SET told = $4, attempts = $5,
		next_attempt_at = CASE WHEN $6 THEN NULL ELSE clock_timestamp() + $7::interval END WHERE ctx = $1 AND process_id = $2 AND position = $3`,
		c.Ctx, c.ProcessID, c.Position, c.Told, c.Attempts, last, after)
}

// Reference is a data address that a consumer holds, without the address.
type Reference struct {
	ID            string `db:"id"` // of the transfer
	AgreementID   string `db:"agreement_id"`
	AssetID       string `db:"asset_id"`
	Provider      string
	NegotiationID string `db:"negotiation_id"`
	CreatedAt     time.Time
}

const selectReference = `SELECT t.id, t.agreement_id, t.asset_id, t.counterparty AS provider, a.negotiation_id, t.updated_at AS created_at
	FROM control_plane.data_addresses x
	JOIN control_plane.transfers t ON t.ctx = x.ctx AND t.id = x.transfer_id
	JOIN control_plane.agreements a ON a.ctx = t.ctx AND a.id = t.agreement_id `

// DeleteReference forgets the data address of a transfer.
func (s *Store) DeleteReference(ctx context.Context, participant, transfer string) error {
	return s.exec(ctx, s.db.In(participant), "DELETE FROM control_plane.data_addresses WHERE ctx = $1 AND transfer_id = $2", participant, transfer)
}

// DeleteNegotiation removes a negotiation that was terminated without an agreement; ErrConflict for any other.
func (s *Store) DeleteNegotiation(ctx context.Context, participant, id string) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
		n, err := one[Negotiation](ctx, tx, negotiationColumns.sel()+"WHERE ctx = $1 AND id = $2 FOR UPDATE", participant, id)
		switch {
		case err != nil:
			return err
		case n.Step != state.Terminated:
			return fmt.Errorf("%w: the negotiation is %s; only one that is TERMINATED can be deleted", ErrConflict, n.Step)
		case n.AgreementID != "":
			return fmt.Errorf("%w: the negotiation has the agreement %s", ErrConflict, n.AgreementID)
		}
		batch := &pgx.Batch{}
		batch.Queue("DELETE FROM control_plane.process_requests WHERE ctx = $1 AND process_id = $2", participant, id)
		batch.Queue("DELETE FROM control_plane.negotiations WHERE ctx = $1 AND id = $2", participant, id)
		return tx.SendBatch(ctx, batch).Close()
	})
}
