// SPDX-License-Identifier: Apache-2.0

package runtimeclient

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
)

type answered struct {
	status int
	body   []byte
}

func (a answered) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r}, nil
}

// FuzzAnswer: whatever answers in a runtime's place, what is no success is an error that says so.
func FuzzAnswer(f *testing.F) {
	f.Add(http.StatusOK, []byte(`{"ctx":"supplier","did":"did:web:x","profiles":[{"name":"p"}]}`))
	f.Add(http.StatusConflict, []byte(`{"code":"conflict","message":"another key","path":"$.did"}`))
	f.Add(http.StatusBadGateway, []byte("<html>"))
	f.Add(http.StatusNotFound, []byte("[]"))
	f.Add(http.StatusNoContent, []byte(""))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 100 || status > 999 {
			return // the client's transport lets none through
		}
		c := &Client{base: "http://runtime", http: &http.Client{Transport: answered{status, body}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
		var out adminapi.Participant
		err := c.once(t.Context(), "GET /x", http.MethodGet, "/x", nil, &out)
		if err == nil && status >= http.StatusMultipleChoices {
			t.Fatalf("%d %q is no error", status, body)
		}
		if err == nil {
			return
		}
		if err.Error() == "" {
			t.Fatalf("%d %q fails without a word", status, body)
		}
		if _, refused := Refused(err); refused && !Answered(err) {
			t.Fatalf("%d %q is refused by nobody", status, body)
		}
		if e := new(Error); errors.As(err, &e) && e.Status < http.StatusMultipleChoices {
			t.Fatalf("%d %q is the error %+v", status, body, e)
		}
	})
}
