// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/profile"
)

// Bodies of the audit records that are written here.
type (
	transition struct {
		Process         string           `json:"process"`
		Role            state.Role       `json:"role"`
		State           string           `json:"state"` // that it entered
		At              time.Time        `json:"at"`
		Counterparty    string           `json:"counterparty"`
		CounterpartyPID string           `json:"counterpartyPid,omitempty"`
		Asset           string           `json:"asset"`
		Agreement       string           `json:"agreement,omitempty"`
		Reason          *adminapi.Reason `json:"reason,omitempty"` // of an end
	}
	concluded struct {
		Agreement   string     `json:"agreement"`
		Negotiation string     `json:"negotiation"`
		Role        state.Role `json:"role"`
		Provider    string     `json:"provider"`
		Consumer    string     `json:"consumer"`
		Asset       string     `json:"asset"`
		SignedAt    time.Time  `json:"signedAt"`
		SHA256      string     `json:"sha256"` // of the agreement as it was sent
		UseCase     string     `json:"useCase,omitempty"`
		// Revision is the one of the use case that was agreed.
		Revision *adminapi.RevisionRef `json:"useCaseRevision,omitempty"`
	}
	evaluated struct {
		Process string        `json:"process"`
		Phase   profile.Phase `json:"phase"`
		Policy  string        `json:"policy"` // sha256 of the canonical policy
		At      time.Time     `json:"at"`
		By      string        `json:"by"`
		Allowed bool          `json:"allowed"`
		Checks  []checked     `json:"checks"`
	}
	checked struct {
		Path         string          `json:"path"`
		LeftOperand  string          `json:"leftOperand"`
		Operator     string          `json:"operator"`
		RightOperand json.RawMessage `json:"rightOperand"`
		Party        string          `json:"party"`
		Value        string          `json:"value"`
		Credential   string          `json:"credential,omitempty"`
		Satisfied    bool            `json:"satisfied"`
		Reason       string          `json:"reason,omitempty"`
	}
	profileIs struct {
		Profile             string                  `json:"profile"`
		SHA256              string                  `json:"sha256"` // of the whole profile
		TrustedIssuers      []profile.TrustedIssuer `json:"trustedIssuers"`
		RequiredCredentials []string                `json:"requiredCredentials"`
	}
	participantIs struct {
		DID             string             `json:"did"`
		BPN             string             `json:"businessPartnerNumber,omitempty"`
		Profile         string             `json:"profile"`
		FurtherProfiles []string           `json:"furtherProfiles,omitempty"`
		Active          bool               `json:"active"`
		SelfCheck       adminapi.SelfCheck `json:"selfCheck"`
	}
)

func hexSum(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func profileNow(p profile.Profile) (profileIs, error) {
	raw, err := json.Marshal(p)
	return profileIs{p.Name, hexSum(raw), list(p.TrustedIssuers), list(p.RequiredCredentials)}, err
}

// recording is an entry that waits for a transaction.
type recording struct {
	participant string
	entry       audit.Entry
	done        bool
}

type recordingKey struct{}

// Recording makes the first transaction that commits under the context record an entry as well, whatever it does. The context is one request's.
func Recording(ctx context.Context, participant string, e audit.Entry) context.Context {
	return context.WithValue(ctx, recordingKey{}, &recording{participant: participant, entry: e})
}

// Record commits audit records that belong to no other change in the database; without entries, only what Recording left.
func (s *Store) Record(ctx context.Context, participant string, entries ...audit.Entry) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error { return audit.Append(ctx, tx, participant, entries...) })
}

// AuditHead reads the head of a participant's chain.
func (s *Store) AuditHead(ctx context.Context, participant string) (audit.Head, error) {
	h, err := audit.HeadOf(ctx, s.db.In(participant), participant)
	return h, translate(err)
}

// AuditHeads reads the heads of all chains, also of participants that were deleted.
func (s *Store) AuditHeads(ctx context.Context) ([]audit.Head, error) {
	return audit.Heads(ctx, s.db)
}

// AuditRecords reads up to limit of the records that lead to a head, those after a number.
func (s *Store) AuditRecords(ctx context.Context, h audit.Head, after int64, limit int) ([]*audit.Record, error) {
	return audit.Records(ctx, s.db.In(h.Ctx), h, after, limit)
}

// PruneAudit takes away the bodies of audit records that are older than they are kept.
func (s *Store) PruneAudit(ctx context.Context) error {
	return audit.Prune(ctx, s.db)
}

// mark is what was on record of a process before a change.
type mark struct {
	events int
	traces []adminapi.Trace
}

func (p *Process) mark() mark { return mark{len(p.History), slices.Clone(p.Traces)} }

// entries are the audit records of a change: each state entered, each policy evaluated, the agreement, and what the caller adds.
func (p *Process) entries(table string, before mark, side Side) (out []audit.Entry) {
	for _, t := range p.Traces {
		if slices.ContainsFunc(before.traces, func(b adminapi.Trace) bool { return sameTrace(b, t) }) {
			continue
		}
		e := evaluated{Process: p.ID, Phase: t.Phase, Policy: t.Policy, At: t.At.UTC(), By: t.By, Allowed: t.Allowed, Checks: make([]checked, 0, len(t.Checks))}
		for _, c := range t.Checks {
			e.Checks = append(e.Checks, checked{c.Path, c.LeftOperand, c.Operator, c.RightOperand, c.Party, c.Value, c.Credential, c.Satisfied, c.Reason})
		}
		out = append(out, audit.Entry{Type: audit.Policy, Body: e})
	}
	if a := side.Agreement; a != nil {
		out = append(out, audit.Entry{Type: audit.Agreement, Body: concluded{a.ID, p.ID, a.Role, a.Provider, a.Consumer, a.AssetID, a.SignedAt.UTC(), hexSum(a.Agreement), a.UseCase, a.Revision}})
	}
	typ := audit.NegotiationTransition
	if table == transfers {
		typ = audit.TransferTransition
	}
	for _, ev := range p.History[min(before.events, len(p.History)):] {
		t := transition{Process: p.ID, Role: p.Role, State: ev.State, At: ev.At.UTC(), Counterparty: p.Counterparty, CounterpartyPID: p.CounterpartyPID,
			Asset: p.AssetID, Agreement: p.AgreementID}
		if ev.State == state.Terminated {
			if t.Reason = p.Reason; t.Reason != nil && t.Reason.Code == "policy-denied" && t.Reason.By == "own" { // what was seen stands in the record of the evaluation
				t.Reason = &adminapi.Reason{Code: t.Reason.Code, By: t.Reason.By}
			}
		}
		out = append(out, audit.Entry{Type: typ, Body: t})
	}
	return append(out, side.Records...)
}

// sameTrace tells evaluations apart by when, what and by whom.
func sameTrace(a, b adminapi.Trace) bool {
	return a.At.Equal(b.At) && a.Phase == b.Phase && a.Policy == b.Policy && a.By == b.By && len(a.Checks) == len(b.Checks)
}
