// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/dps"
)

// FuzzAccessPath: whatever a consumer appends to an asset's address stays beneath it, however often a backend decodes it.
func FuzzAccessPath(f *testing.F) {
	for _, p := range []string{"/supplier/data/tp-1", "/supplier/data/tp-1/a/b%20c/", "/supplier/data/tp-1/%2e%2e/x", "/supplier/data/tp-1/%25252e%25252e%2f", "/a/data/b/..;/x", "//data/x", "/x/data/%00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		ctx, flow, rest, ok := splitPath(escaped)
		if !ok {
			return
		}
		if !contextForm.MatchString(ctx) || !flowForm.MatchString(flow) || !strings.HasPrefix(strings.TrimPrefix(escaped, "/"), ctx+"/data/"+flow) {
			t.Fatalf("%q gives %q, %q", escaped, ctx, flow)
		}
		src, err := parseSource(map[string]string{"type": "HttpData", "baseUrl": "https://backend.example/documents/4711", "proxyPath": "true"})
		if err != nil {
			t.Fatal(err)
		}
		if src.appendPath(rest) != nil {
			return
		}
		if src.base.Host != "backend.example" {
			t.Fatalf("%q leads to %s", escaped, src.base)
		}
		sent := src.base.EscapedPath()
		for decoded, more := sent, true; more; {
			if clean := path.Clean(decoded); clean != "/documents/4711" && !strings.HasPrefix(clean, "/documents/4711/") {
				t.Fatalf("%q leads to %q", escaped, decoded)
			}
			next, err := url.PathUnescape(decoded)
			more, decoded = err == nil && next != decoded, next
		}
	})
}

// FuzzSource: an asset's address that is taken names a server, and no secret in clear.
func FuzzSource(f *testing.F) {
	f.Add([]byte(`{"type":"HttpData","baseUrl":"https://backend.example/a?b=c","secretName":"s","authKey":"X-Key","header:A":"b","queryParams":"d=e","path":"f/g"}`))
	f.Add([]byte(`{"edc:type":"HttpData","https://w3id.org/edc/v0.0.1/ns/baseUrl":"http://u:p@x/"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var address map[string]string
		if json.Unmarshal(raw, &address) != nil {
			return
		}
		s, err := parseSource(address)
		if err != nil {
			return
		}
		if s.base.Host == "" || s.base.User != nil || (s.base.Scheme != "http" && s.base.Scheme != "https") || s.base.RawQuery != "" {
			t.Fatalf("%s gives %s", raw, s.base)
		}
		if (s.secret == "") != (s.authKey == "") {
			t.Fatalf("%s gives secret %q for header %q", raw, s.secret, s.authKey)
		}
		req, err := http.NewRequest(http.MethodGet, s.base.String(), nil)
		if err != nil {
			t.Fatalf("%s can't be asked for: %v", raw, err)
		}
		for k, v := range s.headers {
			req.Header.Set(k, v)
		}
		if err := req.Write(httptest.NewRecorder()); err != nil {
			t.Fatalf("%s can't be sent: %v", raw, err)
		}
	})
}

// FuzzToken: no header opens a flow but the one with its token.
func FuzzToken(f *testing.F) {
	const token = "QJ5Q3WYSYJQ3M7V4K6L2N8P0R2"
	sum := sha256.Sum256([]byte(token))
	holder := flow{tokenHash: sum[:]}
	for _, h := range []string{token, "Bearer " + token, "bearer  " + token + " ", "Basic " + token, "Bearer", ""} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := bearer(header); holder.holds(got) && !strings.HasSuffix(strings.TrimSpace(header), token) {
			t.Errorf("%q opens the flow", header)
		}
	})
}

// FuzzStart: a flow that is taken can be found by the address that is given out for it.
func FuzzStart(f *testing.F) {
	f.Add([]byte(`{"messageId":"m","processId":"p:1~x","participantContext":"c","participantId":"did:web:p","counterPartyId":"did:web:c","agreementId":"a","datasetId":"d","profile":"HttpData-PULL"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var msg dps.StartMessage
		if json.Unmarshal(raw, &msg) != nil || checkStart(msg) != nil {
			return
		}
		s := &server{Deps: Deps{PublicURL: "https://connector.example"}}
		u, err := url.Parse(s.started(msg.Flow, "t").DataAddress.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if ctx, flow, _, ok := splitPath(u.EscapedPath()); !ok || ctx != msg.Context || flow != msg.FlowID {
			t.Fatalf("%s is found at %s as %q, %q", msg.FlowID, u, ctx, flow)
		}
	})
}
