// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// flows keeps the data flows in the schema data_plane.
type flows struct{ db tenant.DB }

// flow is a stored data flow.
type flow struct {
	dps.Flow
	State     string
	tokenHash []byte
	ExpiresAt time.Time
	CreatedAt time.Time
}

// holds tells whether token is the flow's, in constant time.
func (f flow) holds(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], f.tokenHash) == 1
}

var errUnknownFlow = refuse(http.StatusNotFound, "not-found", "no such data flow")

// contextOf finds the participant context of a flow, which signaling messages do not name.
func (s flows) contextOf(ctx context.Context, id string) (string, error) {
	var found *string
	if err := s.db.QueryRow(ctx, "SELECT data_plane.context_of($1)", id).Scan(&found); err != nil {
		return "", fmt.Errorf("find data flow %s: %w", id, err)
	}
	if found == nil {
		return "", errUnknownFlow
	}
	return *found, nil
}

// start stores the flow as STARTED with a new token, or gives a started or suspended one a new token.
func (s flows) start(ctx context.Context, f dps.Flow, token string, expires, now time.Time) error {
	sum := sha256.Sum256([]byte(token))
	tag, err := s.db.In(f.Context).Exec(ctx, `
		INSERT INTO data_plane.flows AS f (flow_id, ctx, participant, counterparty, agreement_id, asset_id, format, source, claims,
			purposes, demands, state, token_hash, token_expires_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'STARTED', $12, $13, $14, $14)
		ON CONFLICT (flow_id) DO UPDATE SET state = 'STARTED', source = excluded.source, claims = excluded.claims,
			purposes = excluded.purposes, demands = excluded.demands,
			token_hash = excluded.token_hash, token_expires_at = excluded.token_expires_at, updated_at = excluded.updated_at
		WHERE f.state IN ('STARTED', 'SUSPENDED') AND (f.ctx, f.participant, f.counterparty, f.agreement_id, f.asset_id, f.format)
			= (excluded.ctx, excluded.participant, excluded.counterparty, excluded.agreement_id, excluded.asset_id, excluded.format)`,
		f.FlowID, f.Context, f.Participant, f.Counterparty, f.AgreementID, f.AssetID, f.Format, orEmpty(f.Source), orEmpty(f.Claims),
		append([]string{}, f.Purposes...), append([]string{}, f.Demands...), sum[:], expires, now)
	another := refuse(http.StatusConflict, "conflict", fmt.Sprintf("data flow %s exists for another agreement, asset or party", f.FlowID))
	if err != nil {
		if owner, find := s.contextOf(ctx, f.FlowID); find == nil && owner != f.Context {
			return another
		}
		return fmt.Errorf("store data flow %s: %w", f.FlowID, err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	had, err := s.get(ctx, f.Context, f.FlowID)
	if err != nil {
		return err
	}
	if had.State != dps.StateStarted && had.State != dps.StateSuspended {
		return refuse(http.StatusConflict, "conflict", fmt.Sprintf("data flow %s is %s and does not start again: make a new transfer", f.FlowID, had.State))
	}
	return another
}

// restart gives a started or suspended flow a new token.
func (s flows) restart(ctx context.Context, id, token string, expires, now time.Time) (flow, error) {
	participantCtx, err := s.contextOf(ctx, id)
	if err != nil {
		return flow{}, err
	}
	f, err := s.get(ctx, participantCtx, id)
	if err != nil {
		return flow{}, err
	}
	return f, s.start(ctx, f.Flow, token, expires, now)
}

func (s flows) get(ctx context.Context, participantCtx, id string) (flow, error) {
	var f flow
	err := s.db.In(participantCtx).QueryRow(ctx, `SELECT flow_id, ctx, participant, counterparty, agreement_id, asset_id, format, source, claims, purposes, demands, state, token_hash,
		token_expires_at, created_at FROM data_plane.flows WHERE ctx = $1 AND flow_id = $2`, participantCtx, id).Scan(&f.FlowID, &f.Context, &f.Participant, &f.Counterparty, &f.AgreementID, &f.AssetID,
		&f.Format, &f.Source, &f.Claims, &f.Purposes, &f.Demands, &f.State, &f.tokenHash, &f.ExpiresAt, &f.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return flow{}, errUnknownFlow
	}
	if err != nil {
		return flow{}, fmt.Errorf("read data flow %s: %w", id, err)
	}
	return f, nil
}

// started returns those of a participant's flows that are started.
func (s flows) started(ctx context.Context, participantCtx string, ids []string) ([]string, error) {
	rows, err := s.db.In(participantCtx).Query(ctx, "SELECT flow_id FROM data_plane.flows WHERE ctx = $1 AND flow_id = ANY ($2) AND state = 'STARTED'", participantCtx, ids)
	if err != nil {
		return nil, fmt.Errorf("read the data flows of %s: %w", participantCtx, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// move takes a flow to a state and returns the state that it then has. A flow that has ended keeps its end: ending it again is no
// error, suspending it is.
func (s flows) move(ctx context.Context, id, to string, now time.Time) (string, error) {
	ending := to != dps.StateSuspended
	participantCtx, err := s.contextOf(ctx, id)
	if errors.Is(err, errUnknownFlow) && ending {
		return to, nil // a transfer that ended before it started
	}
	if err != nil {
		return "", err
	}
	if _, err := s.db.In(participantCtx).Exec(ctx, `UPDATE data_plane.flows SET state = $3, updated_at = $4
		WHERE ctx = $1 AND flow_id = $2 AND state IN ('STARTED', 'SUSPENDED') AND state <> $3`, participantCtx, id, to, now); err != nil {
		return "", fmt.Errorf("move data flow %s to %s: %w", id, to, err)
	}
	f, err := s.get(ctx, participantCtx, id)
	switch {
	case err != nil:
		return "", err
	case !ending && f.State != to:
		return "", refuse(http.StatusConflict, "conflict", fmt.Sprintf("data flow %s is %s and can't be suspended", id, f.State))
	}
	return f.State, nil
}

// forget removes every flow of a participant context and returns their ids.
func (s flows) forget(ctx context.Context, participantCtx string) ([]string, error) {
	rows, err := s.db.In(participantCtx).Query(ctx, "DELETE FROM data_plane.flows WHERE ctx = $1 RETURNING flow_id", participantCtx)
	if err != nil {
		return nil, fmt.Errorf("remove the data flows of %s: %w", participantCtx, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
