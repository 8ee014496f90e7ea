// SPDX-License-Identifier: Apache-2.0

// Package jsondepth refuses JSON that is nested deeper than any message has reason to be, before it is decoded: decoding, expanding and
// comparing it recurse. It also finds members that stand in an object twice, of which decoding keeps the last in silence.
package jsondepth

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Max is how deep a message may be nested. The deepest that the specifications show have ten levels.
const Max = 64

// Check says whether raw is nested deeper than Max; whether it is JSON is for the decoder to find out.
func Check(raw []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > Max {
				return fmt.Errorf("it is nested deeper than %d levels", Max)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// Twice returns the first member that stands in its object twice and the object's JSON path; no name when there is none, or raw is no JSON.
func Twice(raw []byte) (path, name string) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	path, name, _ = twice(dec, "$")
	return path, name
}

func twice(dec *json.Decoder, at string) (path, name string, err error) {
	t, err := dec.Token()
	if err != nil || t != json.Delim('[') && t != json.Delim('{') {
		return "", "", err
	}
	seen := map[string]bool{}
	for i := 0; dec.More(); i++ {
		member := fmt.Sprintf("%s[%d]", at, i)
		if t == json.Delim('{') {
			key, err := dec.Token()
			if err != nil {
				return "", "", err
			}
			k, _ := key.(string)
			if seen[k] {
				return at, k, nil
			}
			seen[k], member = true, at+"."+k
		}
		if path, name, err = twice(dec, member); err != nil || name != "" {
			return path, name, err
		}
	}
	_, err = dec.Token() // the end of it
	return "", "", err
}
