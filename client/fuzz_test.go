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

// FuzzProblem: whatever is answered instead of what was asked for, the error says what it is.
func FuzzProblem(f *testing.F) {
	f.Add(http.StatusConflict, []byte(`{"status":409,"code":"conflict","detail":"it has changed","next":"read it again","errors":[{"location":"spec.x","message":"no"}]}`))
	f.Add(http.StatusBadGateway, []byte(`<html>502</html>`))
	f.Add(http.StatusNotFound, []byte(`{"detail":null}`))
	f.Add(999, []byte(`{"status":200,"detail":"fine"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := check("https://api.example", &http.Response{StatusCode: status, Status: "as sent", Body: io.NopCloser(bytes.NewReader(body))}, nil)
		if (err == nil) != (status < http.StatusMultipleChoices) {
			t.Fatalf("%d %q gives %v", status, body, err)
		}
		if e := AsError(err); err != nil && (e == nil || e.Error() == "" || e.Status != int64(status)) {
			t.Fatalf("%d %q gives %+v", status, body, err)
		}
	})
}
