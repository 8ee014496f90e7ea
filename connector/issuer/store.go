// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// store holds the issuer's queries.
type store struct{ db tenant.DB }

type issuerRow struct {
	ctx   string
	did   string
	types []adminapi.CredentialType
}

var errNone = errors.New("no such row")

func (s *store) issuer(ctx context.Context, ictx string) (issuerRow, error) {
	row := issuerRow{ctx: ictx}
	var types []byte
	err := s.db.In(ictx).QueryRow(ctx, "SELECT did, types FROM issuer.issuers WHERE ctx = $1", ictx).Scan(&row.did, &types)
	if errors.Is(err, pgx.ErrNoRows) {
		return row, errNone
	}
	if err == nil {
		err = json.Unmarshal(types, &row.types)
	}
	if err != nil {
		return row, fmt.Errorf("read issuer %s: %w", ictx, err)
	}
	return row, nil
}

// entitlements returns the claims of a holder by credential type.
func (s *store) entitlements(ctx context.Context, ictx, holder string) (map[string]json.RawMessage, error) {
	rows, err := s.db.In(ictx).Query(ctx, "SELECT type, claims FROM issuer.entitlements WHERE ctx = $1 AND holder = $2", ictx, holder)
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	var typ string
	var claims []byte
	_, err = pgx.ForEachRow(rows, []any{&typ, &claims}, func() error {
		out[typ] = append(json.RawMessage(nil), claims...)
		return nil
	})
	return out, err
}

// holders returns everybody who may receive something, with what.
func (s *store) holders(ctx context.Context, ictx string) ([]adminapi.Holder, error) {
	rows, err := s.db.In(ictx).Query(ctx, "SELECT holder, type, claims FROM issuer.entitlements WHERE ctx = $1 ORDER BY holder, type", ictx)
	if err != nil {
		return nil, err
	}
	out := []adminapi.Holder{}
	var holder, typ string
	var claims []byte
	_, err = pgx.ForEachRow(rows, []any{&holder, &typ, &claims}, func() error {
		if len(out) == 0 || out[len(out)-1].DID != holder {
			out = append(out, adminapi.Holder{DID: holder})
		}
		last := &out[len(out)-1]
		last.Credentials = append(last.Credentials, adminapi.HolderCredential{Type: typ, Claims: append(json.RawMessage(nil), claims...)})
		return nil
	})
	return out, err
}

// putEntitlements replaces those of a holder.
func (s *store) putEntitlements(ctx context.Context, ictx string, h adminapi.Holder) error {
	return pgx.BeginFunc(ctx, s.db.In(ictx), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM issuer.entitlements WHERE ctx = $1 AND holder = $2", ictx, h.DID); err != nil {
			return err
		}
		for _, c := range h.Credentials {
			if _, err := tx.Exec(ctx, "INSERT INTO issuer.entitlements (ctx, holder, type, claims) VALUES ($1, $2, $3, $4)", ictx, h.DID, c.Type, c.Claims); err != nil {
				return err
			}
		}
		return nil
	})
}

type request struct {
	ID          string     `db:"id"`
	Ctx         string     `db:"ctx"`
	Holder      string     `db:"holder"`
	HolderPID   string     `db:"holder_pid"`
	State       string     `db:"state"`
	Reason      string     `db:"reason"`
	AccessToken string     `db:"access_token"`
	Attempts    int        `db:"attempts"`
	CreatedAt   time.Time  `db:"created_at"`
	LeasedUntil *time.Time `db:"leased_until"`
}

const requestColumns = "id, ctx, holder, holder_pid, state, reason, access_token, attempts, created_at, leased_until"

func (s *store) request(ctx context.Context, ictx, id string) (request, error) {
	rows, err := s.db.In(ictx).Query(ctx, "SELECT "+requestColumns+" FROM issuer.requests WHERE ctx = $1 AND id = $2", ictx, id)
	if err != nil {
		return request{}, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[request])
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNone
	}
	return r, err
}

// repeated finds the same request of a holder while it is not delivered, and makes it due: its sender has not seen our answer, or nothing
// has come. A delivery under way does not count any more, whatever becomes of it. It returns "" when there is none.
func (s *store) repeated(ctx context.Context, tx pgx.Tx, r request, objects []string, now time.Time) (string, error) {
	// Repeats that arrive at once wait for each other here.
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", r.Ctx+" "+r.Holder+" "+r.HolderPID); err != nil {
		return "", err
	}
	var id string
	err := tx.QueryRow(ctx, `UPDATE issuer.requests SET next_attempt_at = $6, attempts = 0, leased_until = NULL, access_token = $5, updated_at = $6
		WHERE ctx = $1 AND holder = $2 AND holder_pid = $3 AND objects = $4 AND NOT delivered RETURNING id`,
		r.Ctx, r.Holder, r.HolderPID, objects, r.AccessToken, now).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return id, err
}

func (s *store) insertRequest(ctx context.Context, tx pgx.Tx, r request, objects []string, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO issuer.requests (id, ctx, holder, holder_pid, objects, state, reason, access_token, next_attempt_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9)`, r.ID, r.Ctx, r.Holder, r.HolderPID, objects, r.State, r.Reason, r.AccessToken, now)
	return err
}

type credential struct {
	ID        string    `db:"id"`
	Holder    string    `db:"holder"`
	Type      string    `db:"type"`
	Profile   string    `db:"profile"`
	Raw       string    `db:"raw"`
	Revoked   bool      `db:"revoked"`
	Suspended bool      `db:"suspended"`
	IssuedAt  time.Time `db:"issued_at"`
	ExpiresAt time.Time `db:"expires_at"`
}

const credentialColumns = "id, holder, type, profile, raw, revoked, suspended, issued_at, expires_at" // #nosec G101 -- names of columns

const (
	listSize = 131_072 // entries of a status list: the least that W3C allows
	listFill = listSize / 2
)

// reserve inserts a credential that is yet to be signed at a free random place of a status list; neighbours in a list say nothing that way.
func (s *store) reserve(ctx context.Context, tx pgx.Tx, ictx, requestID string, c credential, single bool) (list, index int, err error) {
	if err := tx.QueryRow(ctx, "SELECT count(*) / $2 FROM issuer.credentials WHERE ctx = $1", ictx, listFill).Scan(&list); err != nil {
		return 0, 0, err
	}
	for range 50 {
		index = rand.IntN(listSize) // #nosec G404 -- to spread, not to hide
		tag, err := tx.Exec(ctx, `INSERT INTO issuer.credentials (id, ctx, request_id, holder, type, profile, raw, list, idx, issued_at, expires_at, single)
			VALUES ($1, $2, $3, $4, $5, $6, '', $7, $8, $9, $10, $11) ON CONFLICT (ctx, list, idx) DO NOTHING`,
			c.ID, ictx, requestID, c.Holder, c.Type, c.Profile, list, index, c.IssuedAt, c.ExpiresAt, single)
		if err != nil || tag.RowsAffected() == 1 {
			return list, index, err
		}
	}
	return 0, 0, fmt.Errorf("found no free place in status list %d of %s", list, ictx)
}

func (s *store) issuedFor(ctx context.Context, ictx, requestID string) ([]credential, error) {
	rows, err := s.db.In(ictx).Query(ctx, "SELECT "+credentialColumns+" FROM issuer.credentials WHERE ctx = $1 AND request_id = $2 ORDER BY type", ictx, requestID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[credential])
}

// issued lists the credentials of an issuer, newest first; an empty holder is everybody.
func (s *store) issued(ctx context.Context, ictx, holder string) ([]credential, error) {
	rows, err := s.db.In(ictx).Query(ctx, "SELECT "+credentialColumns+" FROM issuer.credentials WHERE ctx = $1 AND ($2 = '' OR holder = $2) ORDER BY issued_at DESC, id LIMIT 1000", ictx, holder)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[credential])
}

// actions are what may be done with an issued credential. One that is revoked stays so, and as it was.
var actions = map[string]string{
	"revoke":  "UPDATE issuer.credentials SET revoked = true WHERE ctx = $1 AND id = $2 RETURNING " + credentialColumns,
	"suspend": "UPDATE issuer.credentials SET suspended = suspended OR NOT revoked WHERE ctx = $1 AND id = $2 RETURNING " + credentialColumns,
	"resume":  "UPDATE issuer.credentials SET suspended = suspended AND revoked WHERE ctx = $1 AND id = $2 RETURNING " + credentialColumns,
	"deliver": `WITH due AS (UPDATE issuer.requests SET delivered = false, attempts = 0, leased_until = NULL, next_attempt_at = now(), created_at = now()
			WHERE ctx = $1 AND id = (SELECT request_id FROM issuer.credentials WHERE ctx = $1 AND id = $2 AND NOT revoked))
		SELECT ` + credentialColumns + " FROM issuer.credentials WHERE ctx = $1 AND id = $2",
}

func (s *store) act(ctx context.Context, ictx, id, action string) (credential, error) {
	rows, err := s.db.In(ictx).Query(ctx, actions[action], ictx, id)
	if err != nil {
		return credential{}, err
	}
	c, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[credential])
	if errors.Is(err, pgx.ErrNoRows) {
		return c, errNone
	}
	return c, err
}

// bits says by purpose which credentials have their bit set.
var bits = map[string]string{
	dcp.PurposeRevocation: "SELECT idx FROM issuer.credentials WHERE ctx = $1 AND list = $2 AND (revoked OR (suspended AND single))",
	dcp.PurposeSuspension: "SELECT idx FROM issuer.credentials WHERE ctx = $1 AND list = $2 AND suspended",
}

// setIndexes returns the places of a list whose bit is set.
func (s *store) setIndexes(ctx context.Context, ictx, purpose string, list int) ([]int, error) {
	rows, err := s.db.In(ictx).Query(ctx, bits[purpose], ictx, list)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

// keepTrying is how long a delivery is tried; a repeat of the request starts it anew.
const keepTrying = 7 * 24 * time.Hour

// lease takes deliveries that are due, for a minute.
func (s *store) lease(ctx context.Context, now time.Time, limit int) ([]request, error) {
	var due []request
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) (err error) { // so that the lease that is read is the one that was taken
		due, err = tenant.Across(ctx, tx, "SELECT * FROM issuer.lease_deliveries($1, $2, $3)", []any{now, now.Add(-keepTrying), limit},
			"SELECT "+requestColumns+" FROM issuer.requests WHERE ctx = $1 AND id = $2", pgx.RowToStructByName[request])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lease deliveries: %w", err)
	}
	return due, nil
}

// settle ends a lease, unless another has begun; failure is empty when the delivery was taken.
func (s *store) settle(ctx context.Context, r request, failure string, next, now time.Time) error {
	_, err := s.db.In(r.Ctx).Exec(ctx, `UPDATE issuer.requests SET delivered = $3, last_error = $4, next_attempt_at = $5, updated_at = $6, leased_until = NULL,
		access_token = CASE WHEN $3 THEN '' ELSE access_token END WHERE ctx = $1 AND id = $2 AND leased_until = $7`, r.Ctx, r.ID, failure == "", failure, next, now, r.LeasedUntil)
	if err != nil {
		return fmt.Errorf("store the delivery of request %s: %w", r.ID, err)
	}
	return nil
}
