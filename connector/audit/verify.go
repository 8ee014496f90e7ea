// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxLine is how long a line of an export may be, in bytes.
const MaxLine = 16 << 20

// BadError says what is wrong with an export, and where it shows first.
type BadError struct {
	Line int   // of the file, from 1; 0: nothing in particular
	Seq  int64 // of the record; 0: no record
	Why  string

	missing bool
}

func (e *BadError) Error() string {
	switch {
	case e.Seq != 0:
		return fmt.Sprintf("record %d (line %d): %s", e.Seq, e.Line, e.Why)
	case e.Line != 0:
		return fmt.Sprintf("line %d: %s", e.Line, e.Why)
	}
	return e.Why
}

// Result is what a chain that verifies holds.
type Result struct {
	Head     Head           `json:"head"`
	Records  int64          `json:"records"`
	ByType   map[string]int `json:"byType"`
	Pruned   int64          `json:"pruned"`   // bodies that were removed, as the chain says
	Withheld int64          `json:"withheld"` // bodies that are not in this export
	Compared int            `json:"compared"` // heads known from elsewhere that the chain was compared with
	Told     int            `json:"told"`     // those of them that the participant told its counterparties
	// Witnessed are the heads of others that the chain holds, each with who told it.
	Witnessed []Witness `json:"-"`
	// Open are accesses to data whose outcome is not recorded: they are under way, or their process ended. Unknown are those of which the chain says so.
	Open    []Access `json:"open,omitempty"`
	Unknown []Access `json:"unknown,omitempty"`
}

// Access is an access to data by its intent.
type Access struct {
	Seq       int64  `json:"seq"`
	ID        string `json:"id"`
	Agreement string `json:"agreement"`
	Actor     string `json:"actor"`
}

// Verify reads an export and says whether it is a whole chain, unchanged, that agrees with every head of it that is known from elsewhere. Anything
// else is a *BadError, about the first record that is wrong. A known head of another chain of the same participant context must be one of a chain
// that is closed. So are those that the participant told its counterparties, which are counted by themselves too: see Told.
func Verify(export io.Reader, known []Head, told ...Head) (*Result, error) {
	v := verifier{known: slices.Concat(known, told), told: len(told), result: Result{ByType: map[string]int{}}, accesses: map[string]*Access{}}
	lines := bufio.NewScanner(export)
	lines.Buffer(nil, MaxLine)
	for lines.Scan() {
		v.line++
		if err := v.take(lines.Bytes()); err != nil {
			return nil, v.moved(err, lines)
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, &BadError{Line: v.line + 1, Why: fmt.Sprintf("it is longer than %d MiB", MaxLine>>20)}
		}
		return nil, err
	}
	return v.end()
}

// Told are the heads that the participant of a DID told its counterparties, who have them on record as witnesses (Result.Witnessed of their chains). What
// anybody else told is left out, whichever chain it names: it is no statement of the participant. The DID must not be taken from the chain that is to
// be verified, which could name another.
func Told(did string, witnesses []Witness) (heads []Head) {
	for _, w := range witnesses {
		if w.Counterparty == did && w.Head != nil {
			heads = append(heads, *w.Head)
		}
	}
	return heads
}

// ReadHeads reads a checkpoint, or the heads of an export.
func ReadHeads(checkpoint io.Reader) (heads []Head, err error) {
	lines := bufio.NewScanner(checkpoint)
	lines.Buffer(nil, MaxLine)
	for n := 1; lines.Scan(); n++ {
		_, h, err := ParseLine(bytes.Clone(lines.Bytes()))
		if err != nil {
			return nil, &BadError{Line: n, Why: err.Error()}
		}
		if h != nil {
			heads = append(heads, *h)
		}
	}
	return heads, lines.Err()
}

type verifier struct {
	known    []Head // those that were told last
	told     int    // how many
	line     int
	gap      int64 // the record that stands where another is missing
	last     *Record
	head     *Head
	bare     []int64 // records without a body that no record explains yet
	bareLine map[int64]int
	accesses map[string]*Access
	order    []string
	result   Result
}

func (v *verifier) bad(seq int64, format string, args ...any) error {
	return &BadError{Line: v.line, Seq: seq, Why: fmt.Sprintf(format, args...)}
}

// moved looks for a record that is missed further down.
func (v *verifier) moved(err error, lines *bufio.Scanner) error {
	var bad *BadError
	if !errors.As(err, &bad) || !bad.missing {
		return err
	}
	for n := bad.Line + 1; lines.Scan(); n++ {
		if r, _, err := ParseLine(bytes.Clone(lines.Bytes())); err == nil && r != nil && r.Seq == bad.Seq {
			bad.Line, bad.Why = n, fmt.Sprintf("it is out of order: it stands after record %d", v.gap)
			break
		}
	}
	return bad
}

func (v *verifier) take(line []byte) error {
	r, h, err := ParseLine(bytes.Clone(line))
	switch {
	case err != nil && r != nil:
		return v.bad(r.Seq, "%v", err)
	case err != nil:
		return v.bad(0, "the head: %v", err)
	case v.head != nil:
		return v.bad(0, "there is something after the head, which is the end")
	case h != nil:
		v.head = h
		return v.checkHead()
	}
	if err := v.checkRecord(r); err != nil {
		return err
	}
	v.last = r
	return v.read(r)
}

func (v *verifier) checkRecord(r *Record) error {
	want, prev := int64(1), zeros
	if v.last != nil {
		want, prev = v.last.Seq+1, v.last.Hash
	}
	switch {
	case r.Seq > want:
		v.gap = r.Seq
		return &BadError{Line: v.line, Seq: want, Why: fmt.Sprintf("it is missing: record %d stands there", r.Seq), missing: true}
	case r.Seq < want:
		return v.bad(r.Seq, "it stands where record %d should", want)
	case v.last != nil && (r.Chain != v.last.Chain || r.Ctx != v.last.Ctx):
		return v.bad(r.Seq, "it is of chain %s of %s, the one before of %s of %s", r.Chain, r.Ctx, v.last.Chain, v.last.Ctx)
	case (r.Body == nil) != (r.BodySHA256 != "") || r.Withheld && r.Body != nil:
		return v.bad(r.Seq, "it must have either a body or the digest of one")
	case r.Sum() != r.Hash:
		return v.bad(r.Seq, "it was changed: its hash is %s, that of its content %s", r.Hash, r.Sum())
	case r.Prev != prev:
		return v.bad(r.Seq, "it does not follow the record before: it names %s as that one's hash, which is %s", r.Prev, prev)
	case v.last != nil && r.At.Before(v.last.At):
		return v.bad(r.Seq, "its time %s is before that of the record before, %s", r.At, v.last.At)
	}
	for _, k := range v.known {
		if k.Chain == r.Chain && k.Seq == r.Seq && k.Hash != r.Hash {
			return v.bad(r.Seq, "the chain was rewritten: its hash is %s, and was %s when it was reported", r.Hash, k.Hash)
		}
	}
	return nil
}

// read keeps what the end needs to know.
func (v *verifier) read(r *Record) error {
	v.result.Records++
	v.result.ByType[r.Type]++
	switch {
	case r.Withheld:
		v.result.Withheld++
		return nil
	case r.Body == nil:
		v.result.Pruned++
		v.bare = append(v.bare, r.Seq)
		if v.bareLine == nil {
			v.bareLine = map[int64]int{}
		}
		v.bareLine[r.Seq] = v.line
		return nil
	}
	switch r.Type {
	case Pruned:
		var body struct {
			Through int64 `json:"through"`
		}
		if err := v.body(r, &body); err != nil {
			return err
		}
		v.bare = slices.DeleteFunc(v.bare, func(seq int64) bool { return seq <= body.Through })
	case DataIntent:
		var body struct {
			Access    string `json:"access"`
			Agreement string `json:"agreement"`
		}
		if err := v.body(r, &body); err != nil {
			return err
		}
		v.accesses[body.Access] = &Access{Seq: r.Seq, ID: body.Access, Agreement: body.Agreement, Actor: r.Actor}
		v.order = append(v.order, body.Access)
	case DataOutcome:
		var body struct {
			Access  string `json:"access"`
			Unknown bool   `json:"unknown"`
		}
		if err := v.body(r, &body); err != nil {
			return err
		}
		if a := v.accesses[body.Access]; a != nil && body.Unknown {
			v.result.Unknown = append(v.result.Unknown, *a)
		}
		delete(v.accesses, body.Access)
	case CounterpartyHead:
		var body Witness
		if err := v.body(r, &body); err != nil {
			return err
		}
		if body.Head != nil {
			v.result.Witnessed = append(v.result.Witnessed, body)
		}
	}
	return nil
}

// body reads the body of a record.
func (v *verifier) body(r *Record, into any) error {
	if err := json.Unmarshal(r.Body, into); err != nil {
		return v.bad(r.Seq, "its body is not that of a record of type %s: %v", r.Type, err)
	}
	return nil
}

func (v *verifier) checkHead() error {
	h := v.head
	last := Record{Chain: h.Chain, Ctx: h.Ctx, Hash: zeros, At: h.At}
	if v.last != nil {
		last = *v.last
	}
	switch {
	case h.Seq > last.Seq:
		return v.bad(last.Seq+1, "it is missing: the chain goes to record %d", h.Seq)
	case h.Seq < last.Seq:
		return v.bad(h.Seq+1, "it is not in the chain, whose last record is %d", h.Seq)
	case h.Chain != last.Chain || h.Ctx != last.Ctx || h.Hash != last.Hash || !h.At.Equal(last.At):
		return v.bad(0, "the head is not that of record %d", last.Seq)
	case h.Open == (v.result.ByType[ParticipantDeleted] > 0):
		return v.bad(0, "the head says open: %t, and a chain is closed by the record that its participant was deleted", h.Open)
	}
	return nil
}

func (v *verifier) end() (*Result, error) {
	switch {
	case v.head == nil && v.last == nil:
		return nil, &BadError{Why: "there is no record and no head"}
	case v.head == nil:
		return nil, &BadError{Line: v.line, Seq: v.last.Seq, Why: "the export ends with it, and has no head: its end is missing"}
	case len(v.bare) > 0:
		return nil, &BadError{Line: v.bareLine[v.bare[0]], Seq: v.bare[0], Why: "its body is missing, and no record says that it was pruned"}
	}
	for i, k := range v.known {
		switch {
		case k.Chain != v.head.Chain && k.Ctx == v.head.Ctx && k.Open && !v.closed(k.Chain):
			return nil, &BadError{Why: fmt.Sprintf("the chain was replaced: %s was reported to have chain %s with %d records, which was not closed, and this is %s", k.Ctx, k.Chain, k.Seq, v.head.Chain)}
		case k.Chain != v.head.Chain:
			continue
		case k.Ctx != v.head.Ctx:
			return nil, &BadError{Why: fmt.Sprintf("the chain was reported to be of %s, and is of %s", k.Ctx, v.head.Ctx)}
		case k.Seq > v.head.Seq:
			return nil, &BadError{Line: v.line, Seq: v.head.Seq + 1, Why: fmt.Sprintf("it is missing: the chain had %d records when it was reported, and has %d", k.Seq, v.head.Seq)}
		case !k.Open && v.head.Open:
			return nil, &BadError{Line: v.line, Why: "the chain was reported closed, and is open"}
		}
		v.result.Compared++
		if i >= len(v.known)-v.told {
			v.result.Told++
		}
	}
	v.result.Head = *v.head
	for _, id := range v.order {
		if a := v.accesses[id]; a != nil {
			v.result.Open = append(v.result.Open, *a)
		}
	}
	return &v.result, nil
}

// closed reports whether one of the known heads says that a chain was closed.
func (v *verifier) closed(chain string) bool {
	return slices.ContainsFunc(v.known, func(k Head) bool { return k.Chain == chain && !k.Open })
}
