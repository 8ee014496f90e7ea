// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"testing"
)

// FuzzRequest: whatever the cloud asks a cell for is refused, or arrives at the connector within the view of the participant that it names.
func FuzzRequest(f *testing.F) {
	for _, r := range []Request{
		{Participant: "supplier", Method: http.MethodGet, Path: "/negotiations?limit=20"},
		{Participant: "supplier", Method: http.MethodPut, Path: "/assets/urn%3Auuid%3A1%2F2", Body: json.RawMessage(`{"id":"urn:uuid:1/2"}`), Actor: "user:anna"},
		{Participant: "supplier", Method: http.MethodGet, Path: "/%2e%2e/%2e%2e/admin/v1/participants"},
		{Participant: "supplier", Method: http.MethodGet, Path: "//evil.example/"},
		{Participant: "..", Method: http.MethodDelete, Path: `/a\..\b`},
	} {
		raw, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	const host = "connector.cell.svc:8181"
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		if json.Unmarshal(data, &r) != nil {
			return
		}
		u, err := checked(r)
		if err != nil {
			return
		}
		req, err := http.NewRequest(r.Method, "http://"+host+u.String(), nil)
		if err != nil {
			return // it is not sent
		}
		var wire bytes.Buffer
		if err := req.Write(&wire); err != nil {
			return
		}
		got, err := http.ReadRequest(bufio.NewReader(&wire))
		if err != nil {
			t.Fatalf("%s is sent as what no server reads: %v", data, err)
		}
		within := "/api/" + r.Participant + "/v1/"
		if got.Host != host || !strings.HasPrefix(got.URL.Path, within) || !strings.HasPrefix(got.URL.EscapedPath(), within) || !strings.HasPrefix(path.Clean(got.URL.Path)+"/", within) {
			t.Fatalf("%s arrives at %s%s", data, got.Host, got.URL.Path)
		}
	})
}
