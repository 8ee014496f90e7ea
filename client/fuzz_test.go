// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
)

// FuzzEvents: whatever comes as a stream of events, it is at an end only when the negotiation that was seen last is.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: negotiation\ndata: {\"id\":\"n\",\"state\":\"REQUESTED\"}\n\n: still here\n\nevent: negotiation\ndata: {\"id\":\"n\",\"state\":\"FINALIZED\",\"traces\":[{\"allowed\":true}]}\n\n"))
	f.Add([]byte("event: problem\ndata: {\"status\":503,\"code\":\"cell-not-connected\",\"detail\":\"x\"}\n\n"))
	f.Add([]byte("data: {}\nevent: negotiation\r\ndata: {\"state\":\"TERMINATED\"}"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		last := ""
		err := readEvents(&http.Response{Body: io.NopCloser(bytes.NewReader(stream))}, "https://api.example", func(n Negotiation) error {
			last = n.State
			return nil
		})
		if err == nil && last != "FINALIZED" && last != "TERMINATED" {
			t.Fatalf("%q ends in state %q", stream, last)
		}
		if e := new(Error); errors.As(err, &e) && e.Error() == "" {
			t.Fatalf("%q fails without a word", stream)
		}
	})
}
