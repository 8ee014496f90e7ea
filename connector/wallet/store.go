// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// store holds the wallet's queries.
type store struct{ db tenant.DB }

type participant struct {
	ctx   string
	did   string
	trust []profile.TrustedIssuer
}

var errNoParticipant = errors.New("no such participant")

func (s *store) participant(ctx context.Context, pctx string) (participant, error) {
	p := participant{ctx: pctx}
	var trust []byte
	err := s.db.In(pctx).QueryRow(ctx, "SELECT did, trusted_issuers FROM wallet.participants WHERE ctx = $1", pctx).Scan(&p.did, &trust)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, errNoParticipant
	}
	if err == nil {
		err = json.Unmarshal(trust, &p.trust)
	}
	if err != nil {
		return p, fmt.Errorf("read participant %s: %w", pctx, err)
	}
	return p, nil
}

// State of a request.
const (
	requested = "REQUESTED"
	sent      = "SENT"
	issued    = "ISSUED"
	rejected  = "REJECTED"
)

type request struct {
	ID        string     `db:"id"`
	Ctx       string     `db:"ctx"`
	Issuer    string     `db:"issuer"`
	Type      string     `db:"type"`
	ObjectID  string     `db:"object_id"`
	Profile   string     `db:"profile"`
	Renewal   bool       `db:"renewal"`
	State     string     `db:"state"`
	Location  string     `db:"location"`
	Reason    string     `db:"reason"`
	Attempts  int        `db:"attempts"`
	CreatedAt time.Time  `db:"created_at"`
	SentAt    *time.Time `db:"sent_at"`
	UpdatedAt time.Time  `db:"updated_at"`
}

const requestColumns = "id, ctx, issuer, type, object_id, profile, renewal, state, location, reason, attempts, created_at, sent_at, updated_at"

func (r request) open() bool { return r.State == requested || r.State == sent }

// event is the body of the audit record of what became of a credential or of the request for one. It holds no claim.
type event struct {
	Event      string     `json:"event"` // delivered, renewed, rejected, revoked, suspended, resumed, renewal-stuck, expired
	Type       string     `json:"type"`
	Issuer     string     `json:"issuer"`
	Request    string     `json:"request,omitempty"`
	Credential string     `json:"credential,omitempty"`
	SHA256     string     `json:"sha256,omitempty"` // of the credential as it was delivered
	ValidUntil *time.Time `json:"validUntil,omitempty"`
	Reason     string     `json:"reason,omitempty"`
}

// record puts events on a participant's audit trail in the transaction that makes them true; last, as audit.Append wants it. A participant that the
// control plane has let go of already has no trail any more.
func record(ctx context.Context, tx pgx.Tx, participant string, events ...event) error {
	if len(events) == 0 {
		return nil
	}
	entries := make([]audit.Entry, len(events))
	for i, e := range events {
		entries[i] = audit.Entry{Type: audit.Credential, Body: e}
	}
	err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error { return audit.Append(ctx, sp, participant, entries...) })
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == audit.CodeNoChain {
		return nil
	}
	return err
}

// openRequest makes a request unless one for the same issuer and type is under way. It takes the place of those that were rejected.
func (s *store) openRequest(ctx context.Context, r request, now time.Time) error {
	_, err := s.db.In(r.Ctx).Exec(ctx, `WITH gone AS (DELETE FROM wallet.requests WHERE ctx = $2 AND issuer = $3 AND type = $4 AND state = 'REJECTED')
		INSERT INTO wallet.requests (id, ctx, issuer, type, object_id, profile, state, next_attempt_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, 'REQUESTED', $7, $7, $7) ON CONFLICT (ctx, issuer, type) WHERE state IN ('REQUESTED', 'SENT') DO NOTHING`,
		uuid.NewString(), r.Ctx, r.Issuer, r.Type, r.ObjectID, r.Profile, now)
	if err != nil {
		return fmt.Errorf("store the request for %s of %s: %w", r.Type, r.Ctx, err)
	}
	return nil
}

// requests returns the newest request for each issuer and type.
func (s *store) requests(ctx context.Context, pctx string) ([]request, error) {
	rows, err := s.db.In(pctx).Query(ctx, "SELECT DISTINCT ON (issuer, type) "+requestColumns+" FROM wallet.requests WHERE ctx = $1 ORDER BY issuer, type, created_at DESC", pctx)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[request])
}

func (s *store) request(ctx context.Context, pctx, id string) (request, error) {
	rows, err := s.db.In(pctx).Query(ctx, "SELECT "+requestColumns+" FROM wallet.requests WHERE ctx = $1 AND id = $2", pctx, id)
	if err != nil {
		return request{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[request])
}

// lease takes requests that are due, for a minute; a worker that dies leaves them to the others.
func (s *store) lease(ctx context.Context, now time.Time, limit int) ([]request, error) {
	due, err := tenant.Across(ctx, s.db, audit.NotMoving("SELECT * FROM wallet.lease_requests($1, $2)"), []any{now, limit},
		"SELECT "+requestColumns+" FROM wallet.requests WHERE ctx = $1 AND id = $2", pgx.RowToStructByName[request])
	if err != nil {
		return nil, fmt.Errorf("lease requests: %w", err)
	}
	return due, nil
}

// moveRequest ends a lease. It changes nothing when a delivery has ended the request meanwhile.
func (s *store) moveRequest(ctx context.Context, r request, next, now time.Time) error {
	err := s.end(ctx, r, `UPDATE wallet.requests SET state = $3, location = $4, reason = $5, attempts = $6, next_attempt_at = $7, sent_at = $8,
		updated_at = $9, leased_until = NULL WHERE ctx = $1 AND id = $2 AND state IN ('REQUESTED', 'SENT') RETURNING noted`,
		r.Ctx, r.ID, r.State, r.Location, r.Reason, r.Attempts, next, r.SentAt, now)
	if err != nil {
		return fmt.Errorf("store the state of request %s: %w", r.ID, err)
	}
	return nil
}

// end runs an update of a request and records that it was rejected: of a renewal, which is asked for again and again, once for each reason.
func (s *store) end(ctx context.Context, r request, update string, args ...any) error {
	return pgx.BeginFunc(ctx, s.db.In(r.Ctx), func(tx pgx.Tx) error {
		var noted string
		err := tx.QueryRow(ctx, update, args...).Scan(&noted)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil || r.State != rejected || noted == r.Reason {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE wallet.requests SET noted = $3 WHERE ctx = $1 AND id = $2", r.Ctx, r.ID, r.Reason); err != nil {
			return err
		}
		return record(ctx, tx, r.Ctx, event{Event: "rejected", Type: r.Type, Issuer: r.Issuer, Request: r.ID, Reason: r.Reason})
	})
}

// reject ends a request on the issuer's word; a credential that has come stays.
func (s *store) reject(ctx context.Context, r request, reason string, now time.Time) error {
	r.State, r.Reason = rejected, reason
	err := s.end(ctx, r, `UPDATE wallet.requests SET state = 'REJECTED', reason = $3, updated_at = $4, leased_until = NULL
		WHERE ctx = $1 AND id = $2 AND state IN ('REQUESTED', 'SENT') RETURNING noted`, r.Ctx, r.ID, reason, now)
	if err != nil {
		return fmt.Errorf("store the rejection of request %s: %w", r.ID, err)
	}
	return nil
}

type held struct {
	Digest       []byte          `db:"digest"`
	Ctx          string          `db:"ctx"`
	ID           string          `db:"id"`
	Type         string          `db:"type"`
	Types        []string        `db:"types"`
	Profile      string          `db:"profile"`
	Issuer       string          `db:"issuer"`
	Raw          string          `db:"raw"`
	Subject      json.RawMessage `db:"subject"`
	ValidFrom    time.Time       `db:"valid_from"`
	ValidUntil   *time.Time      `db:"valid_until"`
	Status       string          `db:"status"`
	StatusReason string          `db:"status_reason"`
	Noted        string          `db:"noted"` // renewal-stuck or expired, once that is on record
}

const heldColumns = "digest, ctx, id, type, types, profile, issuer, raw, subject, valid_from, valid_until, status, status_reason, noted"

// deliver stores credentials and ends the request they answer, together. What is held already stays as it is.
func (s *store) deliver(ctx context.Context, r request, credentials []*dcp.Credential, now time.Time) error {
	return pgx.BeginFunc(ctx, s.db.In(r.Ctx), func(tx pgx.Tx) error {
		var events []event
		for _, c := range credentials {
			subject, err := json.Marshal(c.Subjects[0])
			if err != nil {
				return fmt.Errorf("store credential %s: %w", c.ID, err)
			}
			from := c.ValidFrom
			if from.IsZero() {
				from = now
			}
			var until *time.Time
			if !c.ValidUntil.IsZero() {
				until = &c.ValidUntil
			}
			typ := c.Types[0]
			if slices.Contains(c.Types, r.Type) {
				typ = r.Type
			}
			digest := sha256.Sum256([]byte(c.Raw))
			e := event{Event: "delivered", Type: typ, Issuer: c.Issuer, Request: r.ID, Credential: c.ID, SHA256: hex.EncodeToString(digest[:]), ValidUntil: until}
			var another bool
			err = tx.QueryRow(ctx, `INSERT INTO wallet.credentials (ctx, digest, id, type, types, profile, issuer, raw, subject, valid_from, valid_until, received_at, status_checked_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'epoch') ON CONFLICT DO NOTHING
				RETURNING EXISTS (SELECT FROM wallet.credentials c WHERE c.ctx = $1 AND c.issuer = $7 AND c.type = $4)`, // as it was before
				r.Ctx, digest[:], c.ID, typ, c.Types, c.Profile, c.Issuer, c.Raw, subject, from, until, now).Scan(&another)
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				continue
			case err != nil:
				return fmt.Errorf("store credential %s: %w", c.ID, err)
			case another:
				e.Event = "renewed"
			}
			events = append(events, e)
		}
		_, err := tx.Exec(ctx, "UPDATE wallet.requests SET state = 'ISSUED', reason = '', noted = '', updated_at = $3, leased_until = NULL WHERE ctx = $1 AND id = $2", r.Ctx, r.ID, now)
		if err != nil {
			return err
		}
		return record(ctx, tx, r.Ctx, events...)
	})
}

// credentials returns everything that a participant holds, the newest first.
func (s *store) credentials(ctx context.Context, pctx string) ([]held, error) {
	rows, err := s.db.In(pctx).Query(ctx, "SELECT "+heldColumns+" FROM wallet.credentials WHERE ctx = $1 ORDER BY valid_from DESC, received_at DESC", pctx)
	if err != nil {
		return nil, fmt.Errorf("read the credentials of %s: %w", pctx, err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[held])
}

// leaseStatuses takes credentials whose status has not been looked at since before.
func (s *store) leaseStatuses(ctx context.Context, before, now time.Time, limit int) ([]held, error) {
	due, err := tenant.Across(ctx, s.db, audit.NotMoving("SELECT * FROM wallet.lease_statuses($1, $2, $3)"), []any{before, now, limit},
		"SELECT "+heldColumns+" FROM wallet.credentials WHERE ctx = $1 AND digest = $2", pgx.RowToStructByName[held])
	if err != nil {
		return nil, fmt.Errorf("lease credentials: %w", err)
	}
	return due, nil
}

// become stores what a credential has become, unless somebody else has changed it since it was read, and records it.
func (s *store) become(ctx context.Context, h, now held, why string) error {
	if now.Status == h.Status && now.StatusReason == h.StatusReason && now.Noted == h.Noted {
		return nil
	}
	var events []event
	add := func(name, reason string) {
		sum := hex.EncodeToString(h.Digest)
		events = append(events, event{Event: name, Type: h.Type, Issuer: h.Issuer, Credential: h.ID, SHA256: sum, ValidUntil: h.ValidUntil, Reason: reason})
	}
	switch was := h.Status == "revoked" || h.Status == "suspended"; {
	case now.Status == h.Status:
	case now.Status == "revoked" || now.Status == "suspended":
		add(now.Status, now.StatusReason)
	case was:
		add("resumed", now.StatusReason)
	}
	if now.Noted != h.Noted && why != "" {
		add(now.Noted, why)
	}
	err := pgx.BeginFunc(ctx, s.db.In(h.Ctx), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE wallet.credentials SET status = $3, status_reason = $4, noted = $5
			WHERE ctx = $1 AND digest = $2 AND status = $6 AND noted = $7`, h.Ctx, h.Digest, now.Status, now.StatusReason, now.Noted, h.Status, h.Noted)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return record(ctx, tx, h.Ctx, events...)
	})
	if err != nil {
		return fmt.Errorf("store what became of credential %s: %w", h.ID, err)
	}
	return nil
}

// openRenewals makes a request for every credential whose renewal is due (wallet.open_renewals), and says how many. Several replicas may do so at
// once. A request that is under way or was answered less than retry ago is enough.
func (s *store) openRenewals(ctx context.Context, now time.Time, retry time.Duration) (opened int64, err error) {
	if err = s.db.QueryRow(ctx, "SELECT wallet.open_renewals($1, $2)", now, retry).Scan(&opened); err != nil {
		return 0, fmt.Errorf("open renewals: %w", err)
	}
	return opened, nil
}
