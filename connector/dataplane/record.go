// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

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
	beat          = 10 * time.Second
	recheck       = time.Second
	aliveFor      = 30 * time.Second
	orphansAtOnce = 100
)

// errUnrecorded keeps data in: what cannot be recorded is not handed out.
var errUnrecorded = errors.New("the access could not be recorded, so no data is handed out")

// begin records an intent. Without an error it is committed, and end must follow.
func (s *server) begin(r *http.Request, f flow, rest string) (outcome, error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.RecordTimeout)
	defer cancel()
	if r.URL.RawQuery != "" {
		rest += "?" + r.URL.RawQuery
	}
	out := outcome{Access: rand.Text(), Flow: f.FlowID, Agreement: f.AgreementID}
	e := &entry{outcome: out, asked: ctx, answer: make(chan error, 1)}
	e.Entry = audit.Entry{Type: audit.DataIntent, Actor: f.Counterparty,
		Body: intent{out.Access, f.FlowID, f.AgreementID, f.AssetID, f.Counterparty, f.Claims, f.Purposes, r.Method, rest}}
	s.journal.add(f.Context, e)
	if err := <-e.answer; err != nil { // also after ctx: what is committed needs its outcome
		return out, fmt.Errorf("%w: %w", errUnrecorded, err)
	}
	return out, nil
}

// end records an outcome, soon or, when the database does not answer, once it does.
func (s *server) end(f flow, out outcome) {
	s.journal.add(f.Context, &entry{outcome: out, Entry: audit.Entry{Type: audit.DataOutcome, Actor: f.Counterparty, Body: out}})
}

// commit records a group of one participant's and answers its intents. It returns the outcomes that could not be recorded, unless the participant was
// deleted meanwhile, and its chain closed.
func (s *server) commit(participant string, group []*entry) (late []*entry) {
	ctx, cancel := context.WithTimeout(context.Background(), s.RecordTimeout)
	defer cancel()
	group = slices.DeleteFunc(group, func(e *entry) bool {
		gone := e.answer != nil && e.asked.Err() != nil
		if gone {
			e.answer <- e.asked.Err()
		}
		return gone
	})
	left, err := s.record(ctx, participant, group)
	if err == nil && len(left) > 0 { // a process that is not known to be alive would have its accesses closed
		if err = s.beat(ctx); err == nil {
			left, err = s.record(ctx, participant, left)
		}
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("another process has taken this one's name %q", s.Name)
	}
	for _, e := range left {
		if e.answer != nil {
			e.answer <- err
		} else {
			late = append(late, e)
		}
	}
	if len(late) == 0 {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == audit.CodeNoChain {
		if _, err = s.flows.db.In(participant).Exec(ctx, endAccesses, participant, accesses(late)); err == nil {
			return nil
		}
	}
	s.Log.ErrorContext(ctx, "outcomes of data accesses could not be recorded yet", "context", participant, "accesses", accesses(late), "error", err)
	return late
}

// record commits a group in one transaction and answers its intents. It returns what is not recorded: everything, with an error, or the intents of a
// process that is not known to be alive. An outcome counts also when the access was taken for one of a process that had ended.
func (s *server) record(ctx context.Context, participant string, group []*entry) (left []*entry, err error) {
	if len(group) == 0 {
		return nil, nil
	}
	var entries []audit.Entry
	var flows, agreements []string
	for _, e := range group {
		entries, flows, agreements = append(entries, e.Entry), append(flows, e.Flow), append(agreements, e.Agreement)
	}
	types, actors, bodies, err := audit.Columns(ctx, entries...)
	if err != nil {
		return group, err
	}
	ids, recorded := accesses(group), map[string]bool{}
	b := &pgx.Batch{} // the chain last: whoever waits for it holds locks already
	b.Queue(endAccesses, participant, accesses(slices.DeleteFunc(slices.Clone(group), func(e *entry) bool { return e.answer != nil })))
	b.Queue(`INSERT INTO data_plane.accesses (id, ctx, boot, flow_id, agreement_id) SELECT e.id, $1, p.boot, e.flow, e.agreement
		FROM data_plane.processes p, unnest($3::text[], $4::text[], $5::text[], $6::text[]) e (id, type, flow, agreement)
		WHERE p.boot = $2 AND p.alive_until > clock_timestamp() AND e.type = $7`, participant, s.boot, ids, types, flows, agreements, audit.DataIntent)
	b.Queue(`SELECT e.id, audit.append($1, e.type, e.actor, e.body::json)
		FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY e (id, type, actor, body, n)
		WHERE e.type <> $6 OR EXISTS (SELECT FROM data_plane.accesses a WHERE a.ctx = $1 AND a.id = e.id) ORDER BY n`,
		participant, ids, types, actors, bodies, audit.DataIntent).Query(func(rows pgx.Rows) error {
		var id string
		_, err := pgx.ForEachRow(rows, []any{&id, nil}, func() error { recorded[id] = true; return nil })
		return err
	})
	if err := s.flows.db.In(participant).SendBatch(ctx, b).Close(); err != nil {
		return group, err
	}
	for _, e := range group {
		switch {
		case !recorded[e.Access]:
			left = append(left, e)
		case e.answer != nil:
			e.answer <- nil
		}
	}
	return left, nil
}

const endAccesses = "DELETE FROM data_plane.accesses WHERE ctx = $1 AND id = ANY ($2)"

func accesses(group []*entry) []string {
	ids := make([]string, len(group))
	for i, e := range group {
		ids[i] = e.Access
	}
	return ids
}

// beat says that this process is alive. Whatever ran under its name before is not.
func (s *server) beat(ctx context.Context) error {
	s.beats.Lock() // two at once would be in each other's way
	defer s.beats.Unlock()
	_, err := s.DB.Exec(ctx, `INSERT INTO data_plane.processes (name, boot, alive_until) VALUES ($1, $2, clock_timestamp() + $3::interval)
		ON CONFLICT (name) DO UPDATE SET boot = $2, alive_until = excluded.alive_until`, s.Name, s.boot, aliveFor)
	return err
}

// Run closes the accesses of processes that have ended, as "outcome unknown", records what could not be recorded before, and ends accesses to
// flows that were ended through another replica, until ctx ends.
func (s *server) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return dcp.Every(ctx, beat, nil, s.Log, "keeping record of accesses", s.keep) })
	g.Go(func() error { return dcp.Every(ctx, recheck, nil, s.Log, "ending accesses", s.stopEnded) })
	return g.Wait()
}

func (s *server) keep(ctx context.Context) error {
	if err := s.beat(ctx); err != nil {
		return err
	}
	s.journal.again()
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
