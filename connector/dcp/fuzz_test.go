// SPDX-License-Identifier: Apache-2.0

package dcp_test

import (
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
)

// A DID document never makes a key or an address out of what is none, whatever it holds.
func FuzzDocument(f *testing.F) {
	for _, name := range []string{"consumer", "issuer"} {
		raw, err := os.ReadFile("testdata/identityhub/did-" + name + ".json")
		must(f, err)
		f.Add(raw)
	}
	f.Add([]byte(`{"id":"did:web:x","authentication":[{"id":"#1"}],"service":{"type":["CredentialService"],"serviceEndpoint":{}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, did := range []string{edcConsumer, edcIssuer, "did:web:x"} {
			doc, err := dcp.ParseDocument(raw, did)
			if err != nil {
				continue
			}
			if doc.ID != did {
				t.Errorf("document of %q taken for that of %q", doc.ID, did)
			}
			if key, err := doc.Key(did+"#key-1", dcp.CapabilityInvocation, dcp.RelationshipsAlways); err == nil && key == nil {
				t.Error("no key and no error")
			}
			if endpoint, err := doc.ServiceEndpoint(dcp.CredentialService); err == nil && !strings.HasPrefix(endpoint, "http") {
				t.Errorf("endpoint %q", endpoint)
			}
		}
	})
}

// No header that was not signed by the sender is accepted; every refusal is one.
func FuzzIDToken(f *testing.F) {
	x, v := readExchange(f), edcVerifier(f, dcp.RelationshipsWhenDeclared)
	f.Add(x.Authorization)
	f.Add("Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + ".e30.")
	f.Add("Bearer eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjFlMzA4fQ.AA")
	f.Fuzz(func(t *testing.T, header string) {
		_, err := v.IDToken(t.Context(), header, edcProvider, dcp.NewMemoryReplay(1))
		if err == nil && !sameToken(header, x.Authorization) {
			t.Errorf("accepted %q", header)
		}
		if err != nil && !errors.Is(err, identity.ErrUnauthenticated) && !strings.Contains(err.Error(), "no such file") {
			t.Errorf("not a refusal: %v", err)
		}
	})
}

// sameToken says whether two headers hold the same signed token: white space around it and the bits that base64 leaves unused do not count.
func sameToken(a, b string) bool {
	pa, pb := strings.Split(strings.TrimSpace(strings.TrimPrefix(a, "Bearer ")), "."), strings.Split(strings.TrimPrefix(b, "Bearer "), ".")
	return len(pa) == 3 && pa[0] == pb[0] && pa[1] == pb[1]
}

// Whatever is taken for a credential has an issuer, a type and a subject.
func FuzzCredential(f *testing.F) {
	wrap := func(payload string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".AA"
	}
	for _, payload := range []string{
		`{"iss":"did:web:x","vc":{"@context":"x","type":"A","issuer":{"id":"did:web:x"},"expirationDate":null,"credentialSubject":[{"id":"did:web:y"}]}}`,
		`{"type":["VerifiableCredential","A"],"issuer":"did:web:x","validFrom":"2026-01-01T00:00:00Z","credentialSubject":{"id":"did:web:y"},"credentialStatus":{"statusListIndex":3}}`,
		`{"iss":"did:web:x","nbf":1e99,"vc":{"credentialStatus":[[]],"credentialSubject":"x","type":[]}}`,
	} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		c, err := dcp.ParseCredential(wrap(payload))
		if err == nil && (c.Issuer == "" || len(c.Types) == 0 || len(c.Subjects) == 0) {
			t.Errorf("taken for a credential: %+v", c)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"@context":["` + dcp.Context + `",{"a":1}],"type":"PresentationQueryMessage","scope":["org.eclipse.dspace.dcp.vc.type:A:read"]}`))
	f.Add([]byte(`{"@context":["` + dcp.Context + `"],"type":"PresentationQueryMessage","presentationDefinition":null}`))
	f.Add([]byte(`{"@type":["https://w3id.org/dspace-dcp/v1.0/PresentationQueryMessage"],"https://w3id.org/dspace-dcp/v1.0/scope":[{"@value":["org.eclipse.dspace.dcp.vc.type:A:read"]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var q dcp.PresentationQuery
		if err := dcp.DecodeMessage(raw, dcp.TypePresentationQuery, &q); err != nil {
			return
		}
		if scopes, err := q.Check(); err == nil && (len(scopes) == 0 || q.Type != dcp.TypePresentationQuery) {
			t.Errorf("a query for nothing was accepted: %+v", q)
		}
	})
}

func FuzzStatusList(f *testing.F) {
	encoded, err := dcp.EncodeStatusList(dcp.ProfileVC20, []byte{1, 2, 3})
	must(f, err)
	f.Add(encoded)
	f.Add(encoded[1:] + "=")
	f.Fuzz(func(t *testing.T, s string) {
		if bits, err := dcp.DecodeStatusList(s); err == nil && len(bits) > 16<<20 {
			t.Errorf("%d bytes", len(bits))
		}
	})
}

func FuzzWebURL(f *testing.F) {
	f.Add("did:web:example.org%3A8443:a")
	f.Add("did:web:[::1]:a")
	f.Fuzz(func(t *testing.T, did string) {
		url, err := dcp.WebURL(did, false)
		if err == nil && (!strings.HasPrefix(url, "https://") || !strings.HasSuffix(url, "/did.json") || strings.Contains(url, "..") || strings.ContainsAny(url, "?# \n")) {
			t.Errorf("%q gives %q", did, url)
		}
	})
}
