// SPDX-License-Identifier: Apache-2.0

package dps

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzMessages: a signaling message that is read is written and read the same again; an address always says what it is.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(started))
	f.Add([]byte(`{"messageId":"m","processId":"p","participantContext":"c","profile":"HttpData-PULL","source":{"type":"HttpData"},"claims":null}`))
	f.Add([]byte(`{"dataAddress":{"endpointType":"t","endpointProperties":[{"name":"a","value":"b"},{"name":"a","value":"c"}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var status StatusMessage
		if json.Unmarshal(raw, &status) == nil {
			if a := status.DataAddress; a != nil && a.EndpointType == "" {
				t.Fatalf("an address without a type: %+v", a)
			}
			again(t, status)
		}
		var start StartMessage
		if json.Unmarshal(raw, &start) == nil {
			again(t, start)
		}
	})
}

func again[T any](t *testing.T, v T) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	first, _ := json.Marshal(back)
	if diff := cmp.Diff(string(raw), string(first)); diff != "" {
		t.Fatal(diff)
	}
}
