// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dcp"
)

// Bodies of the audit records of an access: what was asked for, committed before the first byte, and what was handed out, after the last.
type (
	intent struct {
		Access       string            `json:"access"`
		Flow         string            `json:"flow"`
		Agreement    string            `json:"agreement"`
		Asset        string            `json:"asset"`
		Counterparty string            `json:"counterparty"`
		Claims       map[string]string `json:"claims,omitempty"`
		Purposes     []string          `json:"purposes,omitempty"` // of use, that the agreement allows
		Method       string            `json:"method"`
		Path         string            `json:"path"` // beneath the asset's address, with query
	}
	outcome struct {
		Access    string `json:"access"`
		Flow      string `json:"flow"`
		Agreement string `json:"agreement"`
		Status    int    `json:"status"`
		Bytes     int64  `json:"bytes"`
		SHA256    string `json:"sha256"` // of the bytes of the body that were sent
		// Whole is false when the access ended before everything was sent.
		Whole bool `json:"whole"`
	}
)

const (
	recordTimeout = 10 * time.Second
	beat          = 10 * time.Second
	aliveFor      = 30 * time.Second
	orphansAtOnce = 100
)

// errUnrecorded keeps data in: what cannot be recorded is not handed out.
var errUnrecorded = errors.New("the access could not be recorded, so no data is handed out")

// begin records an intent. Without an error it is committed, and end must follow.
func (s *server) begin(r *http.Request, f flow, rest string) (outcome, error) {
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	if r.URL.RawQuery != "" {
		rest += "?" + r.URL.RawQuery
	}
	out := outcome{Access: rand.Text(), Flow: f.FlowID, Agreement: f.AgreementID}
	e := audit.Entry{Type: audit.DataIntent, Body: intent{out.Access, f.FlowID, f.AgreementID, f.AssetID, f.Counterparty, f.Claims, f.Purposes, r.Method, rest}}
	body, err := e.JSON()
	if err != nil {
		return out, err
	}
	for range 2 {
		tag, err := s.flows.db.In(f.Context).Exec(ctx, `WITH a AS (INSERT INTO data_plane.accesses (id, ctx, boot, flow_id, agreement_id)
				SELECT $1, $2, p.boot, $4, $5 FROM data_plane.processes p WHERE p.boot = $3 AND p.alive_until > clock_timestamp() RETURNING ctx)
			SELECT audit.append(a.ctx, $6, $7, $8::json) FROM a`, out.Access, f.Context, s.boot, f.FlowID, f.AgreementID, e.Type, f.Counterparty, body)
		if err != nil {
			return out, fmt.Errorf("%w: %w", errUnrecorded, err)
		}
		if tag.RowsAffected() == 1 {
			return out, nil
		}
		if err := s.beat(ctx); err != nil { // a process that is not known to be alive would have its accesses closed
			return out, fmt.Errorf("%w: %w", errUnrecorded, err)
		}
	}
	return out, fmt.Errorf("%w: another process has taken this one's name %q", errUnrecorded, s.Name)
}

// ended is an outcome that is to be recorded.
type ended struct {
	ctx, counterparty string
	outcome
}

// end records an outcome, at once or, when the database does not answer, as soon as it does. ctx must outlive the access.
func (s *server) end(ctx context.Context, e ended) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := s.conclude(ctx, e); err != nil {
		s.Log.ErrorContext(ctx, "the outcome of a data access could not be recorded yet", "context", e.ctx, "access", e.Access, "error", err)
		s.late.Lock()
		s.late.outcomes = append(s.late.outcomes, e)
		s.late.Unlock()
	}
}

// conclude records an outcome. It counts also when the access was taken for one of a process that had ended. The participant may have been
// deleted meanwhile, and its chain closed.
func (s *server) conclude(ctx context.Context, e ended) error {
	body, err := audit.Entry{Type: audit.DataOutcome, Body: e.outcome}.JSON()
	if err != nil {
		return err
	}
	const done = "DELETE FROM data_plane.accesses WHERE ctx = $1 AND id = $2"
	_, err = s.flows.db.In(e.ctx).Exec(ctx, "WITH done AS ("+done+") SELECT audit.append($1, $3, $4, $5::json)", e.ctx, e.Access, audit.DataOutcome, e.counterparty, body)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == audit.CodeNoChain {
		_, err = s.flows.db.In(e.ctx).Exec(ctx, done, e.ctx, e.Access)
	}
	return err
}

// beat says that this process is alive. Whatever ran under its name before is not.
func (s *server) beat(ctx context.Context) error {
	_, err := s.DB.Exec(ctx, `INSERT INTO data_plane.processes (name, boot, alive_until) VALUES ($1, $2, clock_timestamp() + $3::interval)
		ON CONFLICT (name) DO UPDATE SET boot = $2, alive_until = excluded.alive_until`, s.Name, s.boot, aliveFor)
	return err
}

// Run closes the accesses of processes that have ended, as "outcome unknown", and records what could not be recorded before, until ctx ends.
func (s *server) Run(ctx context.Context) error {
	return dcp.Every(ctx, beat, nil, s.Log, "keeping record of accesses", s.keep)
}

func (s *server) keep(ctx context.Context) error {
	if err := s.beat(ctx); err != nil {
		return err
	}
	s.late.Lock()
	late := s.late.outcomes
	s.late.outcomes = nil
	s.late.Unlock()
	for _, e := range late {
		s.end(ctx, e)
	}
	for {
		var closed int
		if err := s.DB.QueryRow(ctx, "SELECT data_plane.close_orphans($1)", orphansAtOnce).Scan(&closed); err != nil {
			return err
		}
		if closed > 0 {
			s.Log.WarnContext(ctx, "accesses of ended processes were closed as outcome unknown", "count", closed)
		}
		if closed < orphansAtOnce {
			break
		}
	}
	_, err := s.DB.Exec(ctx, "DELETE FROM data_plane.processes WHERE alive_until < clock_timestamp() - interval '1 day'")
	return err
}
