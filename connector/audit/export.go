// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// An export is JSON Lines: the records of one chain in order, one a line, and then one line with the head that they lead to:
//
//	{"chain":…,"seq":1,"at":…,"ctx":…,"type":…,"actor":…,"body":{…},"prev":…,"hash":…}
//	{"head":{"chain":…,"ctx":…,"seq":1,"at":…,"hash":…,"open":true}}
//
// A line counts byte by byte as it was written. A file of head lines alone is a checkpoint.

// MediaType is that of an export: its lines count as they are, and are nothing to be decoded as one JSON document on the way.
const MediaType = "text/plain"

type headLine struct {
	Head Head `json:"head"`
}

// WriteRecord writes a record as a line.
func WriteRecord(w io.Writer, r *Record) error { return writeLine(w, r) }

// WriteHead writes a head as a line.
func WriteHead(w io.Writer, h Head) error { return writeLine(w, headLine{h}) }

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	return err
}

// ParseLine reads a line of an export: a record or a head. What does not read back as it stands there was not written by an export.
func ParseLine(line []byte) (*Record, *Head, error) {
	if bytes.HasPrefix(line, []byte(`{"head":`)) {
		var h headLine
		return nil, &h.Head, strictly(line, &h, &h.Head.At)
	}
	var r Record
	return &r, nil, strictly(line, &r, &r.At)
}

func strictly(line []byte, v any, at *time.Time) error {
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("it is not understood: %w", err)
	}
	*at = at.UTC().Truncate(time.Microsecond) // what the hash covers
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(line, again) {
		return errors.New("it is not as an export writes it")
	}
	return nil
}
