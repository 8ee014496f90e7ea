// SPDX-License-Identifier: Apache-2.0

package credentialissuer

import (
	"encoding/json"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// TestWhoIsEntitledToTheSame: a holder is written again only when its entitlements differ; a difference must never pass for none.
func TestWhoIsEntitledToTheSame(t *testing.T) {
	holder := func(pairs ...string) adminapi.Holder {
		h := adminapi.Holder{DID: "did:web:a"}
		for i := 0; i < len(pairs); i += 2 {
			h.Credentials = append(h.Credentials, adminapi.HolderCredential{Type: pairs[i], Claims: json.RawMessage(pairs[i+1])})
		}
		return h
	}
	for name, c := range map[string]struct {
		a, b adminapi.Holder
		same bool
	}{
		"nothing":               {holder(), holder(), true},
		"the same":              {holder("A", `{"x":1}`), holder("A", `{"x":1}`), true},
		"another order":         {holder("A", `{"x":1,"y":[2]}`, "B", `{}`), holder("B", `{ }`, "A", `{"y":[2],"x":1}`), true},
		"another value":         {holder("A", `{"x":1}`), holder("A", `{"x":2}`), false},
		"another long number":   {holder("A", `{"x":9007199254740992}`), holder("A", `{"x":9007199254740993}`), false},
		"text for a number":     {holder("A", `{"x":1}`), holder("A", `{"x":"1"}`), false},
		"one more":              {holder("A", `{}`), holder("A", `{}`, "B", `{}`), false},
		"one less":              {holder("A", `{}`, "B", `{}`), holder("A", `{}`), false},
		"another type":          {holder("A", `{}`), holder("B", `{}`), false},
		"one type twice":        {holder("A", `{"x":1}`, "A", `{}`), holder("A", `{"x":2}`, "A", `{}`), false},
		"claims that are none":  {holder("A", `{`), holder("A", `{`), false},
		"a list in other order": {holder("A", `{"x":[1,2]}`), holder("A", `{"x":[2,1]}`), false},
	} {
		if got := same(c.a, c.b); got != c.same {
			t.Errorf("%s: %v", name, got)
		}
	}
}
