// SPDX-License-Identifier: Apache-2.0

// Package audit is the audit trail of a connector: what is recorded, the rule that chains records, how they are appended, read, exported and
// verified. The chain itself is kept by the functions and triggers of the schema audit (connector/store/migrations/audit), so that no role of the
// connector can write another history; whoever can, the owner of the database, is found by what was reported outside (Head).
//
// Each participant context has one chain, from the moment it is made until the record that it was deleted. The hash of a record is the SHA-256 of
// these lines, joined by a line feed and in UTF-8:
//
//	kaphera-audit-1
//	id of the chain (UUID)
//	participant context
//	number of the record, from 1
//	time in microseconds since 1970-01-01 UTC
//	type
//	actor
//	SHA-256 of the body, in hexadecimal
//	hash of the record before, in hexadecimal; 64 zeros before the first
//
// The body counts by its digest, so that it can be pruned, or withheld from whoever may not read it, and the chain verifies all the same.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/connector/limits"
)

// Types of records. A body is a JSON object; what it holds is declared where it is written.
const (
	ParticipantMade    = "participant.made"
	ParticipantChanged = "participant.changed"
	ParticipantDeleted = "participant.deleted" // the last of its chain
	// ParticipantRestored is the first after an archive was imported (connector/archive): what happened since that was made is not in the chain.
	ParticipantRestored = "participant.restored"

	Profile               = "profile"    // a dataspace profile of the participant's, as it is from now on
	Management            = "management" // an action of a person or client that is no command to a process
	NegotiationTransition = "negotiation.transition"
	TransferTransition    = "transfer.transition"
	Agreement             = "agreement"
	Policy                = "policy" // one evaluation
	Gate                  = "gate"   // a decision, or that one is waited for
	Credential            = "credential"
	UseCase               = "usecase.revision" // one comes into force

	DataIntent  = "data.intent"  // before the first byte
	DataOutcome = "data.outcome" // after the last
	DataFetched = "data.fetched" // consumer: what came

	CounterpartyHead = "counterparty.head" // the head of a counterparty's chain after an agreement, or why there is none

	Pruned = "audit.pruned" // bodies up to a record were removed: {"through": n}
)

// Types lists all.
var Types = []string{ParticipantMade, ParticipantChanged, ParticipantDeleted, ParticipantRestored, Profile, Management, NegotiationTransition, TransferTransition, Agreement, Policy, Gate,
	Credential, UseCase, DataIntent, DataOutcome, DataFetched, CounterpartyHead, Pruned}

// Leaving are the types whose bodies leave a cell unless something else is configured: those that hold nothing of others' credentials.
var Leaving = slices.DeleteFunc(slices.Clone(Types), func(t string) bool { return t == Policy })

// Entry is what is to be recorded. Body marshals to a JSON object. An empty Actor is the one of the context.
type Entry struct {
	Type  string
	Actor string
	Body  any
}

// Record is an entry in its chain.
type Record struct {
	Chain string    `json:"chain"`
	Seq   int64     `json:"seq"`
	At    time.Time `json:"at"` // microseconds, UTC
	Ctx   string    `json:"ctx"`
	Type  string    `json:"type"`
	Actor string    `json:"actor"`
	// Body is absent when it was pruned or is withheld; BodySHA256 is there instead, in hexadecimal.
	Body       json.RawMessage `json:"body,omitempty"`
	BodySHA256 string          `json:"bodySha256,omitempty"`
	Withheld   bool            `json:"withheld,omitempty"` // the body exists, and is not for this reader
	Prev       string          `json:"prev"`               // hexadecimal, as Hash
	Hash       string          `json:"hash"`
}

// Head is the last record of a chain at some time. Heads that are kept outside the connector show when a chain was rewritten or cut short.
type Head struct {
	Chain string    `json:"chain"`
	Ctx   string    `json:"ctx"`
	Seq   int64     `json:"seq"` // 0: the chain has no record yet
	At    time.Time `json:"at"`
	Hash  string    `json:"hash"`
	Open  bool      `json:"open"` // false once the participant was deleted
}

// Valid reports whether h can be a head of any chain.
func (h Head) Valid() bool {
	raw, err := hex.DecodeString(h.Hash)
	return err == nil && len(raw) == sha256.Size && h.Chain != "" && h.Ctx != "" && h.Seq > 0
}

// Witness is the body of a record of type CounterpartyHead.
type Witness struct {
	Agreement    string `json:"agreement"`
	Counterparty string `json:"counterparty"` // DID
	Head         *Head  `json:"head,omitempty"`
	Signed       string `json:"signed,omitempty"` // by the counterparty: a compact JWS of the head (see connector/dsp)
	Reason       string `json:"reason,omitempty"` // why there is none
}

// zeros stands where the first record has no predecessor.
var zeros = strings.Repeat("0", 2*sha256.Size)

// bodyDigest is the digest that counts, in hexadecimal.
func (r *Record) bodyDigest() string {
	if r.Body == nil {
		return r.BodySHA256
	}
	sum := sha256.Sum256(r.Body)
	return hex.EncodeToString(sum[:])
}

// Sum is the hash that the record must have.
func (r *Record) Sum() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{"kaphera-audit-1", r.Chain, r.Ctx, strconv.FormatInt(r.Seq, 10),
		strconv.FormatInt(r.At.UnixMicro(), 10), r.Type, r.Actor, r.bodyDigest(), r.Prev}, "\n")))
	return hex.EncodeToString(sum[:])
}

// Withhold takes the body away and leaves its digest.
func (r *Record) Withhold() {
	if r.Body != nil {
		r.BodySHA256, r.Body, r.Withheld = r.bodyDigest(), nil, true
	}
}

// CodeNoChain is the SQLSTATE of an append to a participant context that has no open chain.
const CodeNoChain = "KA001"

// CodeRefused is the SQLSTATE of what would change what is recorded, and of a record of an archive that does not fit.
const CodeRefused = "KA002"

// CodeMoving is the SQLSTATE of an append to a participant context that is being moved to another connector.
const CodeMoving = "KA003"

// Self is the actor of what the connector does by itself.
const Self = "connector"

type actorKey struct{}

// WithActor says who acts in what is done with ctx: "user:<subject>" or "client:<name>" for a caller of an API, a DID for another participant.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor returns who acts; Self when nobody else does.
func Actor(ctx context.Context) string {
	if a, _ := ctx.Value(actorKey{}).(string); a != "" {
		return plain(a)
	}
	return Self
}

// plain makes an actor of one line, which the hash relies on.
func plain(actor string) string {
	actor = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(actor, " "))
	const most = 500
	for len(actor) > most {
		actor = strings.ToValidUTF8(actor[:most], "")
	}
	return actor
}

// DB is a pool, a connection, a transaction, or what runs statements in one participant context.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Append records entries in the chain of a participant context. Do it last in the transaction of what they record: it locks the chain until the
// transaction ends, and whoever waits for it holds locks already. There must be a chain (Open).
func Append(ctx context.Context, db DB, participant string, entries ...Entry) error {
	if len(entries) == 0 {
		return nil
	}
	types, actors, bodies, err := Columns(ctx, entries...)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `SELECT audit.append($1, e.type, e.actor, e.body::json)
		FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY e (type, actor, body, n) ORDER BY n`, participant, types, actors, bodies)
	return failed(participant, err)
}

// failed explains an error of the schema's functions: what is being moved is busy, to whoever asks, for as long as that takes.
func failed(participant string, err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg) && pg.Code == CodeMoving:
		return fmt.Errorf("audit: %w (%w)", &limits.BusyError{Party: participant, Moving: true}, err)
	}
	return fmt.Errorf("audit: %w", err)
}

// NotMoving leaves out of a query's rows, which have a column ctx, those of participant contexts that are being moved.
func NotMoving(query string) string {
	return "SELECT due.* FROM (" + query + ") due WHERE due.ctx NOT IN (SELECT audit.moving())"
}

// Columns are what the function audit.append takes of each entry.
func Columns(ctx context.Context, entries ...Entry) (types, actors, bodies []string, err error) {
	for _, e := range entries {
		raw, err := e.JSON()
		if err != nil {
			return nil, nil, nil, err
		}
		if e.Actor == "" {
			e.Actor = Actor(ctx)
		}
		types, actors, bodies = append(types, e.Type), append(actors, plain(e.Actor)), append(bodies, raw)
	}
	return types, actors, bodies, nil
}

// JSON is the body as it is recorded.
func (e Entry) JSON() (string, error) {
	raw, err := json.Marshal(e.Body)
	if err != nil {
		return "", fmt.Errorf("audit record %s: %w", e.Type, err)
	}
	return string(raw), nil
}

// Open begins the chain of a participant context, unless it has one.
func Open(ctx context.Context, db DB, participant string) error {
	_, err := db.Exec(ctx, "SELECT audit.open($1)", participant)
	return failed(participant, err)
}

// Close ends the chain of a participant context with the record that it was deleted. The chain stays.
func Close(ctx context.Context, db DB, participant string) error {
	_, err := db.Exec(ctx, "SELECT audit.close($1, $2)", participant, plain(Actor(ctx)))
	return err
}

// CloseUnused ends the chain of a participant context of which only the wallet knew; others are the control plane's to close.
func CloseUnused(ctx context.Context, db DB, participant string) error {
	_, err := db.Exec(ctx, "SELECT audit.close_unused($1, $2)", participant, plain(Actor(ctx)))
	return err
}

// Keep says how long the bodies of records are kept: a matter of the owner of the database. Zero is for ever.
func Keep(ctx context.Context, db DB, age time.Duration) error {
	if _, err := db.Exec(ctx, "DELETE FROM audit.retention WHERE keep <> $1::interval", age); err != nil || age == 0 {
		return err
	}
	_, err := db.Exec(ctx, "INSERT INTO audit.retention (keep) VALUES ($1::interval) ON CONFLICT DO NOTHING", age)
	return err
}

// Prune takes away the bodies of records that are older than they are kept. Each time it did so it says so in the chain.
func Prune(ctx context.Context, db DB) error {
	const atOnce = 1000
	for {
		rows, err := db.Query(ctx, "SELECT audit.prune($1)", atOnce)
		if err != nil {
			return err
		}
		if n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64]); err != nil || n == 0 {
			return err
		}
	}
}

// HeadOf returns the head of the open chain of a participant context; pgx.ErrNoRows when there is none.
func HeadOf(ctx context.Context, db DB, participant string) (Head, error) {
	rows, err := db.Query(ctx, selectHead+"WHERE ctx = $1 AND open", participant)
	if err != nil {
		return Head{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scanHead)
}

const (
	headColumns = "SELECT id::text, ctx, seq, at, encode(hash, 'hex'), open FROM "
	selectHead  = headColumns + "audit.chains "
)

// Heads returns the heads of all chains, open and closed.
func Heads(ctx context.Context, db DB) ([]Head, error) {
	rows, err := db.Query(ctx, headColumns+"audit.heads() ORDER BY ctx, id")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanHead)
}

func scanHead(row pgx.CollectableRow) (h Head, err error) {
	err = row.Scan(&h.Chain, &h.Ctx, &h.Seq, &h.At, &h.Hash, &h.Open)
	h.At = h.At.UTC()
	return h, err
}

// Records returns up to limit of the records that lead to a head, those after a number, in order.
func Records(ctx context.Context, db DB, h Head, after int64, limit int) ([]*Record, error) {
	rows, err := db.Query(ctx, `SELECT chain::text, seq, at, ctx, type, actor, body::text, encode(body_sha256, 'hex'), encode(prev, 'hex'), encode(hash, 'hex')
		FROM audit.records WHERE chain = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4`, h.Chain, after, h.Seq, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Record, error) {
		var r Record
		var body *string
		err := row.Scan(&r.Chain, &r.Seq, &r.At, &r.Ctx, &r.Type, &r.Actor, &body, &r.BodySHA256, &r.Prev, &r.Hash)
		r.At = r.At.UTC()
		if body != nil {
			r.Body, r.BodySHA256 = json.RawMessage(*body), ""
		}
		return &r, err
	})
}
