// SPDX-License-Identifier: Apache-2.0

package jsondepth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/jsondepth"
)

func TestCheck(t *testing.T) {
	for raw, ok := range map[string]bool{
		"":                                     true,
		`{"a":["b"]}`:                          true,
		strings.Repeat("[", 64):                true,
		strings.Repeat("[", 65):                false,
		strings.Repeat(`{"`, 65):               true, // an open string holds no brackets
		strings.Repeat("[]", 500):              true,
		`"` + strings.Repeat("[", 500) + `"`:   true,
		`"\"` + strings.Repeat("[", 500) + `"`: true,
		strings.Repeat(`{"a":`, 65) + "1":      false,
	} {
		if err := jsondepth.Check([]byte(raw)); (err == nil) != ok {
			t.Errorf("%.40s: %v", raw, err)
		}
	}
}

func TestTwice(t *testing.T) {
	for raw, want := range map[string]string{
		`{"a":1,"b":[{"c":1},{"c":2}]}`:       " ",
		`{"a":1,"b":2,"a":1}`:                 "$ a",
		`{"a":[0,{"b":{"c":1,"c":1}}]}`:       "$.a[1].b c",
		`{"a":{"b":1},"c":{"b":1},"b":1}`:     " ",
		`{"a":1,"\u0061":2}`:                  "$ a",
		`[1 2]`:                               " ",
		`{"a":1`:                              " ",
		`{"a" "a"}`:                           " ",
		`"{\"a\":1,\"a\":2}"`:                 " ",
		strings.Repeat("[", 5000) + `{"a":1}`: " ",
	} {
		if path, name := jsondepth.Twice([]byte(raw)); path+" "+name != want {
			t.Errorf("%.40s: %q in %q, want %q", raw, name, path, want)
		}
	}
}

// It refuses exactly the documents that are deeper than Max, as the decoder counts.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"a":[{"b":"\"[["}]}`))
	f.Add([]byte(strings.Repeat("[", 64) + strings.Repeat("]", 64)))
	f.Add([]byte(strings.Repeat(`{"\\":`, 65) + "1" + strings.Repeat("}", 65)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		if got, deepest := jsondepth.Check(raw) == nil, depth(t, raw); got != (deepest <= jsondepth.Max) {
			t.Errorf("depth %d, passed: %t", deepest, got)
		}
	})
}

func depth(t *testing.T, raw []byte) int {
	now, deepest := 0, 0
	for dec := json.NewDecoder(bytes.NewReader(raw)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return deepest
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			now++
			deepest = max(deepest, now)
		case json.Delim('}'), json.Delim(']'):
			now--
		}
	}
}
