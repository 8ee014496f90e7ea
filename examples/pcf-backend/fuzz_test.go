// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"testing"
)

// FuzzPut: what is kept is a JSON object, under its own name only, and is given out as it came.
func FuzzPut(f *testing.F) {
	for _, id := range []string{"pcf-4711", "..", "a/b", ".new-1", "%2e%2e%2fx", "x.json"} {
		f.Add(id, []byte(`{"v":1.000001}`))
	}
	f.Add("pcf", []byte(`[]`))
	f.Add("pcf", []byte(`{"a":1}{"b":2}`))
	f.Add("pcf", []byte("null"))
	k, err := readKeys(keyFiles(f, writerKey))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id string, doc []byte) {
		b := &backend{dir: t.TempDir(), keys: k, log: slog.New(slog.DiscardHandler)}
		address := "/documents/" + url.PathEscape(id)
		put := call(b, http.MethodPut, address, writerKey, string(doc))
		files, err := os.ReadDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		if put.Code != http.StatusNoContent {
			if len(files) > 0 || put.Code/100 == 5 {
				t.Fatalf("%q, refused with %d, leaves %v", id, put.Code, files)
			}
			return
		}
		if len(files) != 1 || files[0].Name() != id+".json" {
			t.Fatalf("%q is kept as %v", id, files)
		}
		var object map[string]any
		if got := call(b, http.MethodGet, address, readerKey, ""); got.Code != http.StatusOK || got.Body.String() != string(doc) || json.Unmarshal(doc, &object) != nil || object == nil {
			t.Fatalf("%q is given out as %d %q", doc, got.Code, got.Body)
		}
	})
}
