// SPDX-License-Identifier: FSL-1.1-ALv2

// Package celllink is what the cloud and the agent of a cell say to each other through the cell's NATS account: the snapshot of what the
// cell must run, and the agent's report. Both are the last message of a subject in a JetStream stream, so that either side may be away.
// Calls to a connector are in cellrpc.
package celllink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/connector/audit"
)

// Streams and subjects in the account of a cell.
const (
	StreamDesired   = "DESIRED"
	SubjectSnapshot = "desired.snapshot"
	StreamReports   = "REPORTS"
	SubjectReport   = "report.status"
)

// Intervals.
const (
	// ReportEvery is how often the agent reports when nothing changes.
	ReportEvery = 10 * time.Second
	// SilentAfter is how long an agent may be silent before the cell counts as not connected.
	SilentAfter = 45 * time.Second
)

// Storage is what the two streams may take on disk, in bytes.
const Storage = 64 << 20

// AgentPermissions let the agent take the snapshot, answer calls, report and ask for the time; nothing else.
var AgentPermissions = natsauth.Permissions{
	Publish:   []string{SubjectReport, cellrpc.SubjectTime, "$JS.API.DIRECT.GET." + StreamDesired + ".>", "$JS.API.DIRECT.GET." + StreamDesired},
	Subscribe: []string{SubjectSnapshot, cellrpc.Subject, "_INBOX.>"},
	Respond:   true, WebSocket: true,
}

// CloudPermissions allow everything in the cell's account.
var CloudPermissions = natsauth.Permissions{}

// Snapshot is what a cell must run: Objects are EDC custom resources without status. Hash is the SHA-256 of Objects as sent.
type Snapshot struct {
	Cell     string          `json:"cell"`
	Revision int64           `json:"revision"`
	Hash     string          `json:"sha256"`
	Objects  json.RawMessage `json:"objects"`
}

// HashOf is the hash of encoded objects.
func HashOf(objects []byte) string {
	sum := sha256.Sum256(objects)
	return hex.EncodeToString(sum[:])
}

// EncodeObjects encodes objects in a stable way: the same objects in the same order give the same bytes.
func EncodeObjects(objects []*unstructured.Unstructured) (json.RawMessage, error) {
	list := make([]map[string]any, len(objects))
	for i, o := range objects {
		list[i] = o.Object
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode the snapshot: %w", err)
	}
	return raw, nil
}

// ErrDamaged is wrapped when a snapshot's hash is not that of its objects.
var ErrDamaged = errors.New("the snapshot is damaged: its hash does not fit its content")

// DecodeSnapshot parses a snapshot of the cell and verifies its hash.
func DecodeSnapshot(data []byte, cell string) (Snapshot, []*unstructured.Unstructured, error) {
	var s Snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return s, nil, fmt.Errorf("the snapshot is not JSON: %w", err)
	}
	if s.Cell != cell {
		return s, nil, fmt.Errorf("the snapshot is for cell %q, this is %q", s.Cell, cell)
	}
	if HashOf(s.Objects) != s.Hash {
		return s, nil, fmt.Errorf("revision %d: %w", s.Revision, ErrDamaged)
	}
	var list []map[string]any
	if err := json.Unmarshal(s.Objects, &list); err != nil {
		return s, nil, fmt.Errorf("the snapshot's objects: %w", err)
	}
	objects := make([]*unstructured.Unstructured, len(list))
	for i, o := range list {
		objects[i] = &unstructured.Unstructured{Object: o}
	}
	return s, objects, nil
}

// Report is what the agent says about its cell.
type Report struct {
	Cell string    `json:"cell"`
	At   time.Time `json:"at"` // by the agent's clock
	// Credential is the public key with which the agent is logged in.
	Credential string `json:"credential,omitempty"`
	// AppliedRevision and AppliedHash are the newest snapshot that was applied whole; 0 before the first.
	AppliedRevision int64  `json:"appliedRevision"`
	AppliedHash     string `json:"appliedHash,omitempty"`
	// Error is why the snapshot SeenRevision could not be applied.
	SeenRevision int64  `json:"seenRevision"`
	Error        string `json:"error,omitempty"`
	// Objects are all EDC objects that the agent manages.
	Objects []Object `json:"objects"`
	// AuditHeads are the heads of all audit chains of the connector; absent when it did not answer.
	AuditHeads []audit.Head `json:"auditHeads,omitempty"`
}

// Object is the state of one EDC object.
type Object struct {
	Kind       string          `json:"kind"`
	Name       string          `json:"name"`
	Generation int64           `json:"generation"`
	Deleting   bool            `json:"deleting,omitempty"`
	Status     json.RawMessage `json:"status,omitempty"`
}

// Find returns the object of a kind and name, or nil.
func (r *Report) Find(kind, name string) *Object {
	if r == nil {
		return nil
	}
	for i := range r.Objects {
		if r.Objects[i].Kind == kind && r.Objects[i].Name == name {
			return &r.Objects[i]
		}
	}
	return nil
}

// ErrNoRoom is wrapped when the server has no JetStream for the account. A single server gives none to one whose storage it does not have, and so nobody
// answers; a cluster finds no peer for the streams.
var ErrNoRoom = errors.New("no JetStream for the account")

// noRoom are the codes of such an answer: insufficient resources of three kinds.
var noRoom = []jetstream.ErrorCode{jetstream.JSErrCodeJetStreamNotEnabledForAccount, jetstream.JSErrCodeJetStreamNotEnabled, 10005, 10023, 10047}

// EnsureStreams makes the account's streams; the cloud's side calls it.
func EnsureStreams(ctx context.Context, nc *nats.Conn) error {
	err := ensureStreams(ctx, nc)
	var answer jetstream.JetStreamError
	if errors.Is(err, nats.ErrNoResponders) || errors.As(err, &answer) && answer.APIError() != nil && slices.Contains(noRoom, answer.APIError().ErrorCode) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

func ensureStreams(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	if err := ensureHeads(ctx, nc); err != nil {
		return err
	}
	for name, subject := range map[string]string{StreamDesired: SubjectSnapshot, StreamReports: SubjectReport} {
		cfg := jetstream.StreamConfig{
			Name: name, Subjects: []string{subject}, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
			MaxMsgsPerSubject: 1, MaxBytes: Storage / 4, AllowDirect: true, Duplicates: time.Second,
		}
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return nil
}

// ensureHeads makes the stream of audit heads.
func ensureHeads(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	cfg := jetstream.StreamConfig{
		Name: cellrpc.StreamHeads, Subjects: []string{cellrpc.SubjectHeads + "*"}, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		Discard: jetstream.DiscardOld, MaxBytes: Storage / 4, DenyDelete: true, DenyPurge: true,
	}
	if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("stream %s: %w", cellrpc.StreamHeads, err)
	}
	return nil
}

// KeepHeadAfter adds a head to the stream if the last one of its participant is that of a sequence in it, or 0 for none.
func KeepHeadAfter(ctx context.Context, nc *nats.Conn, k cellrpc.Kept, sequence uint64) (uint64, error) {
	data, err := json.Marshal(k)
	if err != nil {
		return 0, fmt.Errorf("encode an audit head: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, fmt.Errorf("jetstream: %w", err)
	}
	ack, err := js.Publish(ctx, cellrpc.SubjectHeads+k.Ctx, data, jetstream.WithExpectLastSequencePerSubject(sequence))
	if err != nil {
		return 0, fmt.Errorf("keep an audit head of %s: %w", k.Ctx, err)
	}
	return ack.Sequence, nil
}

// KeepHead adds a head to the stream.
func KeepHead(ctx context.Context, nc *nats.Conn, h audit.Head) error {
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode an audit head: %w", err)
	}
	return publish(ctx, nc, cellrpc.SubjectHeads+h.Ctx, data)
}

// Last returns the last message of a subject with its time; nil when there is none.
func Last(ctx context.Context, nc *nats.Conn, stream, subject string) ([]byte, time.Time, error) {
	msg, err := nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the last message of %s: %w", subject, err)
	}
	if status := msg.Header.Get("Status"); status != "" {
		if status == "404" {
			return nil, time.Time{}, nil
		}
		return nil, time.Time{}, fmt.Errorf("read the last message of %s: the server answered %s %s", subject, status, msg.Header.Get("Description"))
	}
	at, err := time.Parse(time.RFC3339Nano, msg.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("time of the last message of %s: %w", subject, err)
	}
	return msg.Data, at, nil
}

// Publish publishes the snapshot with these objects when it differs from the last one, and returns the newest revision. least is a
// revision that was published before, as far as the caller remembers: revisions never go back, even when the stream was lost.
func Publish(ctx context.Context, nc *nats.Conn, cell string, least int64, objects []*unstructured.Unstructured) (int64, string, error) {
	raw, err := EncodeObjects(objects)
	if err != nil {
		return 0, "", err
	}
	data, _, err := Last(ctx, nc, StreamDesired, SubjectSnapshot)
	if err != nil {
		return 0, "", err
	}
	s := Snapshot{Cell: cell, Revision: least, Hash: HashOf(raw), Objects: raw}
	if data != nil {
		var last Snapshot
		if err := json.Unmarshal(data, &last); err != nil {
			return 0, "", fmt.Errorf("the last snapshot is not JSON: %w", err)
		}
		if last.Hash == s.Hash && last.Cell == cell && last.Revision >= least {
			return last.Revision, s.Hash, nil
		}
		s.Revision = max(least, last.Revision)
	}
	s.Revision++
	encoded, err := json.Marshal(s)
	if err != nil {
		return 0, "", fmt.Errorf("encode the snapshot: %w", err)
	}
	if size := int64(len(encoded)); nc.MaxPayload() > 0 && size > nc.MaxPayload() {
		return 0, "", fmt.Errorf("the snapshot of cell %s has %d bytes, more than a message may have (%d): move participants to another cell", cell, size, nc.MaxPayload())
	}
	return s.Revision, s.Hash, publish(ctx, nc, SubjectSnapshot, encoded)
}

// SendReport publishes a report.
func SendReport(ctx context.Context, nc *nats.Conn, r Report) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	return publish(ctx, nc, SubjectReport, data)
}

// publish waits for the stream's word that it has the message.
func publish(ctx context.Context, nc *nats.Conn, subject string, data []byte) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	if _, err := js.Publish(ctx, subject, data); err != nil {
		return fmt.Errorf("publish %s: %w", subject, err)
	}
	return nil
}
