// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/gate"
)

const (
	negotiations = "negotiations"
	transfers    = "transfers"
)

// Process is what negotiations and transfers have in common: one row, its own outbox.
type Process struct {
	Ctx             string
	ID              string     `db:"id"` // own process id
	Profile         string     // of the participant's, in which it takes place; empty in a new row: the default one
	Role            state.Role `db:"role"`
	State           string     // as the protocol shows it
	Step            string
	Held            bool
	Version         int64  // grows with every change
	Counterparty    string // DID
	CounterpartyPID string `db:"counterparty_pid"`
	Address         string // counterparty's DSP base
	AssetID         string `db:"asset_id"`
	AgreementID     string `db:"agreement_id"`
	Denial          *adminapi.Reason
	Reason          *adminapi.Reason
	Waiting         string
	History         []adminapi.Event
	Traces          []adminapi.Trace
	MessageID       string `db:"message_id"` // of the message under way
	Attempts        int
	SendUntil       *time.Time // when sending is given up
	LastError       string
	NextAttemptAt   *time.Time
	LeaseOwner      string
	CreatedAt       time.Time
	UpdatedAt       time.Time

	// Next, when set in an update, says when a worker takes the row: After from now, or not at all.
	Next *Next `db:"-"`
	// Release ends the lease with the update; Keep prolongs it.
	Release, Keep bool `db:"-"`
}

// Next is a time for the next piece of work. The database's clock counts.
type Next struct {
	Never bool
	After time.Duration
}

// Negotiation is a contract negotiation.
type Negotiation struct {
	Process
	OfferID       string          `db:"offer_id"`
	Offer         json.RawMessage // the last one, as sent or received
	RequestedHash string          // odrl.Hash of what the consumer requested last; as provider, of what it offered first
	Definition    string          // provider: contract definition
	UseCase       string
	Revision      *adminapi.RevisionRef // of the use case
	Gates         []gate.Hold           // provider: what holds it
	Presented     []string              // provider with gates: the consumer's credentials as presented, until the end

	// Judged says that the policy has just been evaluated again, which passed gates need.
	Judged bool `db:"-"`
}

// Transfer is a transfer process.
type Transfer struct {
	Process
	Format      string
	Flow        string           // provider: still to be told to the data plane
	SuspendedBy state.Role       `db:"suspended_by"`
	Suspension  *adminapi.Reason // why it is suspended; nil when it is not, or nobody said why
	// Presented are the consumer's credentials, as signed, that each access is judged by; provider only.
	Presented []string
}

// Agreement is a contract agreement. It can be used once its negotiation is FINALIZED.
type Agreement struct {
	Ctx           string
	ID            string `db:"id"`
	NegotiationID string `db:"negotiation_id"`
	Role          state.Role
	Provider      string
	Consumer      string
	AssetID       string `db:"asset_id"`
	Agreement     json.RawMessage
	SignedAt      time.Time
	Step          string // of the negotiation; read only
	Address       string // of the counterparty; read only
	Profile       string // of the negotiation; read only
	// UseCase and Revision of it are those of the negotiation.
	UseCase  string
	Revision *adminapi.RevisionRef
}

// Counterparty is the DID of the other party.
func (a *Agreement) Counterparty() string {
	if a.Role == state.Provider {
		return a.Consumer
	}
	return a.Provider
}

// Side holds what is written together with a process.
type Side struct {
	MessageID   string     // received message
	Agreement   *Agreement // made or received
	Address     *dps.DataAddress
	DropAddress bool
	// AskForHead has the counterparty asked for the head of its audit chain.
	AskForHead bool
	// Records are audit records besides those of what the process shows: its transitions, evaluations and agreement.
	Records []audit.Entry
}

const commonColumns = `ctx, id, profile, role, state, step, held, version, counterparty, counterparty_pid, address, asset_id, agreement_id, denial, reason,
	waiting, history, traces, message_id, attempts, send_until, last_error, next_attempt_at, lease_owner, created_at, updated_at`

// own are the columns of one kind of process.
type own struct {
	table   string
	columns []string
}

var (
	negotiationColumns = own{negotiations, []string{"offer_id", "offer", "requested_hash", "definition", "use_case", "revision", "gates", "presented"}}
	transferColumns    = own{transfers, []string{"format", "flow", "suspended_by", "suspension", "presented"}}
)

func (o own) sel() string { return o.selFrom("control_plane." + o.table) }

func (o own) selFrom(from string) string {
	return "SELECT " + commonColumns + ", " + strings.Join(o.columns, ", ") + " FROM " + from + " "
}

func (n *Negotiation) values() []any {
	return []any{n.OfferID, n.Offer, n.RequestedHash, n.Definition, n.UseCase, n.Revision, list(n.Gates), list(n.Presented)}
}
func (t *Transfer) values() []any {
	return []any{t.Format, t.Flow, t.SuspendedBy, t.Suspension, list(t.Presented)}
}

// Negotiation reads one negotiation by its own process id.
func (s *Store) Negotiation(ctx context.Context, participant, id string) (*Negotiation, error) {
	return one[Negotiation](ctx, s.db.In(participant), negotiationColumns.sel()+"WHERE ctx = $1 AND id = $2", participant, id)
}

// Transfer reads one transfer by its own process id.
func (s *Store) Transfer(ctx context.Context, participant, id string) (*Transfer, error) {
	return one[Transfer](ctx, s.db.In(participant), transferColumns.sel()+"WHERE ctx = $1 AND id = $2", participant, id)
}

// Page is a part of a list, newest first.
type Page struct {
	State  string    // empty: all
	Before time.Time // zero: from the newest
	Limit  int       // 0: 100
}

func (p Page) args(participant string) (string, []any) {
	if p.Limit <= 0 || p.Limit > 1000 {
		p.Limit = 100
	}
	if p.Before.IsZero() {
		p.Before = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return "WHERE ctx = $1 AND ($2 = '' OR state = $2) AND created_at < $3 ORDER BY created_at DESC, id LIMIT $4", []any{participant, p.State, p.Before, p.Limit}
}

// Negotiations lists negotiations.
func (s *Store) Negotiations(ctx context.Context, participant string, p Page) ([]*Negotiation, error) {
	where, args := p.args(participant)
	return many[Negotiation](ctx, s.db.In(participant), negotiationColumns.sel()+where, args...)
}

// Held lists the negotiations that a gate holds now: the oldest of each counterparty, then the second of each, and so on, so that however many one of
// them begins, they hide nobody else's.
func (s *Store) Held(ctx context.Context, participant string, limit int) ([]*Negotiation, error) {
	return many[Negotiation](ctx, s.db.In(participant), negotiationColumns.sel()+
		"WHERE ctx = $1 AND held ORDER BY row_number() OVER (PARTITION BY counterparty ORDER BY created_at, id), created_at, id LIMIT $2", participant, limit)
}

// Transfers lists transfers.
func (s *Store) Transfers(ctx context.Context, participant string, p Page) ([]*Transfer, error) {
	where, args := p.args(participant)
	return many[Transfer](ctx, s.db.In(participant), transferColumns.sel()+where, args...)
}

// insert writes a new row and reports whether it did: not when its id, or the counterparty's process id, is there already.
func insert(ctx context.Context, tx pgx.Tx, o own, p *Process, values []any) (bool, error) {
	var marks strings.Builder
	const first = 23
	for i := range o.columns {
		fmt.Fprintf(&marks, ", $%d", first+i)
	}
	sql := fmt.Sprintf(`INSERT INTO control_plane.%s (ctx, id, role, state, step, held, counterparty, counterparty_pid, address, asset_id, agreement_id,
		denial, reason, waiting, history, traces, message_id, last_error, send_until, next_attempt_at, profile, %s)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
		CASE WHEN $20 THEN clock_timestamp() + $21::interval END,
		CASE WHEN $22 = '' THEN (SELECT profile FROM control_plane.participants WHERE ctx = $1) ELSE $22 END%s) ON CONFLICT DO NOTHING`, o.table, strings.Join(o.columns, ", "), marks.String())
	due, after := p.Next != nil && !p.Next.Never, time.Duration(0)
	if due {
		after = p.Next.After
	}
	args := append([]any{p.Ctx, p.ID, p.Role, p.State, p.Step, p.Held, p.Counterparty, p.CounterpartyPID, p.Address, p.AssetID, p.AgreementID,
		p.Denial, p.Reason, p.Waiting, list(p.History), list(p.Traces), p.MessageID, p.LastError, p.SendUntil, due, after, p.Profile}, values...)
	tag, err := tx.Exec(ctx, sql, args...)
	return err == nil && tag.RowsAffected() == 1, err
}

func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// InsertNegotiation stores a new negotiation, or returns the one that has its id or the same counterparty's process id (false).
func (s *Store) InsertNegotiation(ctx context.Context, n *Negotiation, side Side) (*Negotiation, bool, error) {
	return insertRow(ctx, s, negotiationColumns, n, side)
}

// InsertTransfer stores a new transfer, or returns the one that has its id or the same counterparty's process id (false).
func (s *Store) InsertTransfer(ctx context.Context, t *Transfer, side Side) (*Transfer, bool, error) {
	return insertRow(ctx, s, transferColumns, t, side)
}

// row is a pointer to a negotiation or a transfer.
type row[T any] interface {
	*T
	common() *Process
	values() []any
}

func (p *Process) common() *Process { return p }

func insertRow[T any, R row[T]](ctx context.Context, s *Store, o own, in R, side Side) (out *T, made bool, err error) {
	p := in.common()
	err = s.tx(ctx, s.db.In(p.Ctx), func(tx pgx.Tx) (err error) {
		if made, err = insert(ctx, tx, o, p, in.values()); err != nil {
			return err
		}
		if made {
			if err := writeSide(ctx, tx, p, side); err != nil {
				return err
			}
		}
		if out, err = one[T](ctx, tx, o.sel()+existing, p.Ctx, p.ID, p.Role, p.Counterparty, p.CounterpartyPID); err != nil || !made {
			return err
		}
		return audit.Append(ctx, tx, p.Ctx, p.entries(o.table, mark{}, side)...)
	})
	return out, made, err
}

// FindNegotiation finds a negotiation by the counterparty's process id.
func (s *Store) FindNegotiation(ctx context.Context, participant string, role state.Role, counterparty, pid string) (*Negotiation, error) {
	return one[Negotiation](ctx, s.db.In(participant), negotiationColumns.sel()+existing, participant, "", role, counterparty, pid)
}

// FindTransfer finds a transfer by the counterparty's process id.
func (s *Store) FindTransfer(ctx context.Context, participant string, role state.Role, counterparty, pid string) (*Transfer, error) {
	return one[Transfer](ctx, s.db.In(participant), transferColumns.sel()+existing, participant, "", role, counterparty, pid)
}

const existing = "WHERE ctx = $1 AND (id = $2 OR ($5 <> '' AND role = $3 AND counterparty = $4 AND counterparty_pid = $5))"

// UpdateNegotiation locks a negotiation and lets fn change it; what fn returns is written in the same transaction. seen tells whether
// messageID was received before. An error of fn leaves everything as it was and is returned.
func (s *Store) UpdateNegotiation(ctx context.Context, participant, id, messageID string, fn func(n *Negotiation, seen bool) (Side, error)) (*Negotiation, error) {
	return updateRow(ctx, s, negotiationColumns, participant, id, messageID, fn)
}

// UpdateTransfer is UpdateNegotiation for transfers.
func (s *Store) UpdateTransfer(ctx context.Context, participant, id, messageID string, fn func(t *Transfer, seen bool) (Side, error)) (*Transfer, error) {
	return updateRow(ctx, s, transferColumns, participant, id, messageID, fn)
}

func updateRow[T any, R row[T]](ctx context.Context, s *Store, o own, participant, id, messageID string, fn func(r R, seen bool) (Side, error)) (out R, err error) {
	err = s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
		r, err := one[T](ctx, tx, o.sel()+"WHERE ctx = $1 AND id = $2 FOR UPDATE", participant, id)
		if err != nil {
			return err
		}
		out = r
		p := out.common()
		before := p.mark()
		var seen bool
		if messageID != "" {
			if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM control_plane.received_messages WHERE ctx = $1 AND process_id = $2 AND message_id = $3)",
				p.Ctx, p.ID, messageID).Scan(&seen); err != nil {
				return err
			}
		}
		side, err := fn(out, seen)
		if err != nil {
			return err
		}
		if err := s.update(ctx, tx, o, p, out.values(), side); err != nil {
			return err
		}
		return audit.Append(ctx, tx, p.Ctx, p.entries(o.table, before, side)...)
	})
	return out, err
}

func (s *Store) update(ctx context.Context, tx pgx.Tx, o own, p *Process, values []any, side Side) error {
	if err := writeSide(ctx, tx, p, side); err != nil {
		return err
	}
	var sets strings.Builder
	const first = 24
	for i, c := range o.columns {
		fmt.Fprintf(&sets, ", %s = $%d", c, first+i)
	}
	sql := fmt.Sprintf(`UPDATE control_plane.%s SET state = $3, step = $4, held = $5, counterparty_pid = $6, address = $7, agreement_id = $8,
		denial = $9, reason = $10, waiting = $11, history = $12, traces = $13, message_id = $14, attempts = $15, send_until = $16, last_error = $17,
		next_attempt_at = CASE $18 WHEN 'keep' THEN next_attempt_at WHEN 'never' THEN NULL ELSE clock_timestamp() + $19::interval END,
		lease_owner = CASE WHEN $20 THEN '' ELSE lease_owner END,
		lease_until = CASE WHEN $20 THEN NULL WHEN $21 THEN clock_timestamp() + $22::interval ELSE lease_until END,
		asset_id = $23, version = version + 1, updated_at = clock_timestamp()%s WHERE ctx = $1 AND id = $2
		RETURNING version, updated_at, next_attempt_at, lease_owner`, o.table, sets.String())
	next, after := "keep", time.Duration(0)
	if p.Next != nil {
		next, after = "at", p.Next.After
		if p.Next.Never {
			next = "never"
		}
	}
	args := append([]any{p.Ctx, p.ID, p.State, p.Step, p.Held, p.CounterpartyPID, p.Address, p.AgreementID, p.Denial, p.Reason, p.Waiting,
		list(p.History), list(p.Traces), p.MessageID, p.Attempts, p.SendUntil, p.LastError, next, after, p.Release, p.Keep, s.opt.Lease, p.AssetID}, values...)
	return tx.QueryRow(ctx, sql, args...).Scan(&p.Version, &p.UpdatedAt, &p.NextAttemptAt, &p.LeaseOwner)
}

func writeSide(ctx context.Context, tx pgx.Tx, p *Process, side Side) error {
	batch := &pgx.Batch{}
	if side.MessageID != "" {
		batch.Queue("INSERT INTO control_plane.received_messages (ctx, process_id, message_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", p.Ctx, p.ID, side.MessageID)
	}
	if a := side.Agreement; a != nil {
		batch.Queue(`INSERT INTO control_plane.agreements (ctx, id, negotiation_id, role, provider, consumer, asset_id, agreement, signed_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (ctx, negotiation_id) DO UPDATE SET id = excluded.id, agreement = excluded.agreement, signed_at = excluded.signed_at`, p.Ctx, a.ID, p.ID, a.Role, a.Provider, a.Consumer, a.AssetID, a.Agreement, a.SignedAt)
	}
	if side.AskForHead {
		batch.Queue("INSERT INTO control_plane.head_requests (ctx, agreement_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", p.Ctx, p.AgreementID)
	}
	if side.DropAddress {
		batch.Queue("DELETE FROM control_plane.data_addresses WHERE ctx = $1 AND transfer_id = $2", p.Ctx, p.ID)
	}
	if side.Address != nil {
		batch.Queue(`INSERT INTO control_plane.data_addresses (ctx, transfer_id, address) VALUES ($1, $2, $3)
			ON CONFLICT (ctx, transfer_id) DO UPDATE SET address = $3`, p.Ctx, p.ID, side.Address)
	}
	if batch.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, batch).Close()
}
