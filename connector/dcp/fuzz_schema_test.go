// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answers gives every request the same answer and keeps what was asked for.
type answers struct {
	body  []byte
	asked []string
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.URL.String())
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r}, nil
}

// FuzzSchema: a schema that a credential names is read, or refused, with few requests, none of them but over http(s).
func FuzzSchema(f *testing.F) {
	for _, schema := range []string{
		`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["id"],"properties":{"id":{"type":"string","pattern":"^did:"}}}`,
		`{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"a":{"$ref":"#/definitions/a"}},"$ref":"#/definitions/a"}`,
		`{"allOf":[{"$ref":"file:///etc/passwd"},{"$ref":"https://other.example/1"},{"$ref":"https://other.example/2#/$defs/x"}]}`,
		`{"$id":"https://x.example/schema","$dynamicRef":"#x","$defs":{"x":{"$dynamicAnchor":"x","not":{"$ref":"#"}}}}`,
		`{"$schema":"https://x.example/schema","$vocabulary":{"https://x.example/v":true}}`,
		`{"pattern":"(a{1000}){1000}","properties":[],"minimum":1e400}`,
		`true`,
	} {
		f.Add([]byte(schema))
	}
	f.Fuzz(func(t *testing.T, schema []byte) {
		sent := &answers{body: schema}
		v, err := NewVerifier(VerifierConfig{HTTP: &http.Client{Transport: sent}, Now: func() time.Time { return time.Unix(0, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		c := &Credential{Schemas: []SchemaRef{{ID: "https://x.example/schema", Type: "JsonSchema"}},
			whole: map[string]any{"id": "did:web:x", "credentialSubject": map[string]any{"id": "did:web:y", "a": []any{"b", nil, true}}}}
		if err := v.checkSchemas(t.Context(), c); err != nil && err.Error() == "" {
			t.Fatal("refused without a word")
		}
		if len(sent.asked) > maxSchemaLoads {
			t.Fatalf("%s asks for %q", schema, sent.asked)
		}
		for _, address := range sent.asked {
			if !strings.HasPrefix(address, "https://") && !strings.HasPrefix(address, "http://") {
				t.Fatalf("%s asks for %q", schema, address)
			}
		}
	})
}
