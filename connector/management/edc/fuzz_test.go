// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

// FuzzRead: whatever a client sends is read or refused, and what was read can be shown in every version.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/recorded/*/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("recordings %v, %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var r struct {
			Request json.RawMessage `json:"request"`
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(r.Request), false)
		f.Add([]byte(r.Request), true)
	}
	participant := &store.Participant{Ctx: "acme", Profile: profile.Profile{Operands: []profile.Operand{{Name: member}}}}
	f.Fuzz(func(t *testing.T, raw []byte, newer bool) {
		checkRead(t, map[bool]Version{false: V3, true: V4}[newer], raw, participant)
	})
}

// checkRead reads a body as each kind of object, and shows what it holds in every version.
func checkRead(t *testing.T, version Version, raw []byte, participant *store.Participant) (understood bool) {
	t.Helper()
	for _, typ := range []string{"Asset", "PolicyDefinition", "ContractRequest", "QuerySpec"} {
		doc, err := read(version, raw, typ)
		if err != nil {
			continue
		}
		c := &call{body: doc, participant: participant}
		var shown []map[string]any
		if a, err := readAsset(c, "a"); err == nil {
			view, err := assetDoc(a)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, view)
		}
		if p, err := c.policy(); err == nil {
			view, err := policyDoc(p)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, map[string]any{"@type": "PolicyDefinition", "policy": inODRL(view)})
		}
		if q, err := querySpec(doc, "$"); err == nil {
			shown = append(shown, map[string]any{"@type": "ContractDefinition", "assetsSelector": criteriaDocs(q.Filter)})
		}
		_, _ = c.request(true)
		for _, v := range []Version{V3, V4} {
			if _, err := write(v, shown...); err != nil {
				t.Fatalf("%s can't be shown in %s: %v: %v", raw, v, err, shown)
			}
		}
		understood = true
	}
	return understood
}
