// SPDX-License-Identifier: Apache-2.0

package dcp_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
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

// sameToken says whether two headers hold the same signed token, white space around it aside.
func sameToken(a, b string) bool {
	pa, pb := strings.Split(strings.TrimSpace(strings.TrimPrefix(a, "Bearer ")), "."), strings.Split(strings.TrimPrefix(b, "Bearer "), ".")
	return slices.Equal(pa, pb)
}

// Whatever is taken for a credential has an issuer, a type and a subject, and is never believed without its issuer's signature.
func FuzzCredential(f *testing.F) {
	v := edcVerifier(f, dcp.RelationshipsWhenDeclared)
	trust := []profile.TrustedIssuer{{DID: edcIssuer, Types: []string{"MembershipCredential"}}}
	for _, payload := range []string{
		`{"iss":"did:web:x","vc":{"@context":"x","type":"A","issuer":{"id":"did:web:x"},"expirationDate":null,"credentialSubject":[{"id":"did:web:y"}]}}`,
		`{"type":["VerifiableCredential","A"],"issuer":"did:web:x","validFrom":"2026-01-01T00:00:00Z","credentialSubject":{"id":"did:web:y"},"credentialStatus":{"statusListIndex":3}}`,
		`{"iss":"did:web:x","nbf":1e99,"vc":{"credentialStatus":[[]],"credentialSubject":"x","type":[]}}`,
		`{"iss":"` + edcIssuer + `","vc":{"type":["VerifiableCredential","MembershipCredential"],"credentialSubject":{"id":"` + edcConsumer + `"}}}`,
		`{"issuer":"` + edcIssuer + `","type":["VerifiableCredential","MembershipCredential"],"validUntil":"2027-01-01T00:00:00","credentialSubject":{"id":"` + edcConsumer + `"},"credentialSchema":[{"id":"x","type":"JsonSchema"}]}`,
	} {
		f.Add(`{"alg":"ES256","kid":"k"}`, payload)
		f.Add(`{"alg":"EdDSA","kid":"`+edcIssuer+`#key","typ":"vc+jwt"}`, payload)
	}
	f.Fuzz(func(t *testing.T, header, payload string) {
		raw := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".AA"
		c, err := dcp.ParseCredential(raw)
		if err != nil {
			return
		}
		if c.Issuer == "" || len(c.Types) == 0 || len(c.Subjects) == 0 {
			t.Errorf("taken for a credential: %+v", c)
		}
		if good, refusal := v.Credential(t.Context(), raw, edcConsumer, trust); refusal == nil {
			t.Errorf("believed without a signature: %+v", good)
		}
	})
}

// Whatever is taken for a message is of the type and has the members that its receiver relies on.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"@type":["https://w3id.org/dspace-dcp/v1.0/PresentationQueryMessage"],"https://w3id.org/dspace-dcp/v1.0/scope":[{"@value":["org.eclipse.dspace.dcp.vc.type:A:read"]}]}`))
	x := readExchange(f)
	f.Add([]byte(x.Query))
	f.Add([]byte(x.Answer))
	for _, message := range []string{
		`"type":"PresentationQueryMessage","scope":["org.eclipse.dspace.dcp.vc.type:A:read"]`,
		`"type":"PresentationQueryMessage","presentationDefinition":null`,
		`"type":"PresentationQueryMessage","presentationDefinition":{ }`,
		`"type":"PresentationQueryMessage","presentationDefinition":{"id":"x"}`,
		`"type":"CredentialRequestMessage","holderPid":"x","credentials":[{"id":"y"}]`,
		`"type":"CredentialMessage","issuerPid":"x","holderPid":"y","status":"ISSUED","credentials":[{"credentialType":"A","payload":"z","format":"VC1_0_JWT"}]`,
		`"type":"CredentialMessage","issuerPid":"x","holderPid":"y","status":"REJECTED","rejectionReason":"no"`,
		`"type":"CredentialOfferMessage","issuer":"did:web:x","credentials":[{"id":"a","type":"CredentialObject","profiles":["vc11-sl2021/jwt"],"issuancePolicy":{}}]`,
		`"type":"CredentialStatus","issuerPid":"x","holderPid":"y","status":"RECEIVED"`,
		`"type":"IssuerMetadata","issuer":"did:web:x","credentialsSupported":[{"id":"a","type":"CredentialObject","bindingMethods":["did:web"]}]`,
	} {
		f.Add([]byte(`{"@context":["` + dcp.Context + `",{"a":1}],` + message + `}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for typ, into := range map[string]any{
			dcp.TypePresentationQuery: &dcp.PresentationQuery{}, dcp.TypePresentationResponse: &dcp.PresentationResponse{},
			dcp.TypeCredentialRequest: &dcp.CredentialRequestMessage{}, dcp.TypeCredentialMessage: &dcp.CredentialMessage{},
			dcp.TypeCredentialOffer: &dcp.CredentialOffer{}, dcp.TypeCredentialStatus: &dcp.CredentialStatusMessage{}, dcp.TypeIssuerMetadata: &dcp.IssuerMetadata{},
		} {
			if err := dcp.DecodeMessage(raw, typ, into); err != nil {
				continue
			}
			var head dcp.Head
			if again, err := json.Marshal(into); err != nil || json.Unmarshal(again, &head) != nil || head.Type != typ || len(head.Context) != 1 {
				t.Errorf("taken for a %s: %+v, %v", typ, into, err)
			}
			if q, ok := into.(*dcp.PresentationQuery); ok {
				if scopes, err := q.Check(); err == nil && len(scopes) == 0 {
					t.Errorf("a query for nothing was accepted: %+v", q)
				}
			}
		}
	})
}

// Only what the holder signed counts, and what is in it only if the issuer signed that.
func FuzzPresentation(f *testing.F) {
	x, v := readExchange(f), edcVerifier(f, dcp.RelationshipsWhenDeclared)
	var answer dcp.PresentationResponse
	must(f, dcp.DecodeMessage(x.Answer, dcp.TypePresentationResponse, &answer))
	var signed string
	must(f, json.Unmarshal(answer.Presentation[0], &signed))
	f.Add([]byte(answer.Presentation[0]))
	f.Add([]byte(`{"id":"data:application/vp+jwt,` + signed + `","type":"EnvelopedVerifiablePresentation"}`))
	f.Add([]byte(`{"id":"data:application/vp+jwt;base64,e30="}`))
	f.Add([]byte(`{"verifiableCredential":[{"id":"data:application/vc+jwt,x"}]}`))
	trust := []profile.TrustedIssuer{{DID: edcIssuer, Types: []string{"MembershipCredential"}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		good, refused, err := v.Presentation(t.Context(), raw, edcConsumer, edcProvider, trust)
		if err != nil {
			return
		}
		var text string
		if json.Unmarshal(raw, &text) != nil {
			var o struct {
				ID string `json:"id"`
			}
			_ = json.Unmarshal(raw, &o)
			_, text, _ = strings.Cut(o.ID, ",")
		}
		if !sameToken("Bearer "+text, "Bearer "+signed) && !strings.Contains(string(raw), "base64") {
			t.Errorf("accepted %s: %+v, %+v", raw, good, refused)
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

func FuzzScope(f *testing.F) {
	f.Add("org.eclipse.dspace.dcp.vc.type:Member:read")
	f.Add("org.eclipse.dspace.dcp.vc.id:urn:uuid:1")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := dcp.ParseScope(text); err == nil && (s.What == "" || strings.ContainsAny(s.What, " \t\r\n")) {
			t.Errorf("%q gives %+v", text, s)
		}
	})
}

func FuzzWebURL(f *testing.F) {
	f.Add("did:web:example.org%3A8443:a")
	f.Add("did:web:[::1]:a")
	f.Fuzz(func(t *testing.T, did string) {
		url, err := dcp.WebURL(did, false)
		if err == nil && (!strings.HasPrefix(url, "https://") || !strings.HasSuffix(url, "/did.json") || strings.Contains(url, "/../") || strings.Contains(url, "/./") || strings.ContainsAny(url, "?# \n")) {
			t.Errorf("%q gives %q", did, url)
		}
	})
}
