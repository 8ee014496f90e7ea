// SPDX-License-Identifier: Apache-2.0

package dcp_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

const (
	edcConsumer = "did:web:localhost%3A18101:consumer"
	edcProvider = "did:web:localhost%3A18101:provider"
	edcIssuer   = "did:web:localhost%3A18090:issuer"
)

// recorded answers requests for DID documents from files.
type recorded struct{}

func (recorded) RoundTrip(r *http.Request) (*http.Response, error) {
	parts := strings.Split(r.URL.Path, "/")
	file, err := os.Open("testdata/identityhub/did-" + parts[1] + ".json")
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: file, Header: http.Header{}, Request: r}, nil
}

type exchange struct {
	Authorization string          `json:"authorization"`
	Query         json.RawMessage `json:"query"`
	Answer        json.RawMessage `json:"answer"`
}

func readExchange(t testing.TB) exchange {
	t.Helper()
	raw, err := os.ReadFile("testdata/identityhub/exchange.json")
	must(t, err)
	var x exchange
	must(t, json.Unmarshal(raw, &x))
	return x
}

// edcVerifier verifies as of when the exchange was recorded.
func edcVerifier(t testing.TB, relationships dcp.KeyRelationships) *dcp.Verifier {
	t.Helper()
	at := time.Date(2026, 11, 24, 20, 49, 13, 0, time.UTC)
	v, err := dcp.NewVerifier(dcp.VerifierConfig{
		HTTP: &http.Client{Transport: recorded{}}, DIDHTTP: true, Settings: dcp.Settings{KeyRelationships: relationships}, Now: func() time.Time { return at },
	})
	must(t, err)
	return v
}

func TestIdentityHubIsUnderstood(t *testing.T) {
	v, x := edcVerifier(t, dcp.RelationshipsWhenDeclared), readExchange(t)
	claims, err := v.IDToken(t.Context(), x.Authorization, edcProvider, dcp.NewMemoryReplay(10))
	must(t, err)
	if claims.Issuer != edcConsumer || claims.Token == "" {
		t.Errorf("claims %+v", claims)
	}
	var query dcp.PresentationQuery
	must(t, dcp.DecodeMessage(x.Query, dcp.TypePresentationQuery, &query))
	asked, err := query.Check()
	must(t, err)
	if len(asked) != 1 || asked[0] != (dcp.Scope{What: "MembershipCredential"}) {
		t.Errorf("scopes %+v", asked)
	}
	var answer dcp.PresentationResponse
	must(t, dcp.DecodeMessage(x.Answer, dcp.TypePresentationResponse, &answer))
	trust := []profile.TrustedIssuer{{DID: edcIssuer, Types: []string{"MembershipCredential"}}}
	good, refused, err := v.Presentation(t.Context(), answer.Presentation[0], edcConsumer, edcProvider, trust)
	must(t, err)
	if len(good) != 1 || len(refused) != 0 || good[0].Subject["memberSince"] == nil {
		t.Errorf("good %+v, refused %+v", good, refused)
	}
	doc, err := v.Resolve(t.Context(), edcConsumer)
	must(t, err)
	endpoint, err := doc.ServiceEndpoint(dcp.CredentialService)
	if err != nil || !strings.HasPrefix(endpoint, "http://localhost:18203/api/credentials/") {
		t.Errorf("endpoint %q, %v", endpoint, err)
	}
}

// Its documents list keys in no relationship, which DCP does not allow: the default refuses them and says so.
func TestIdentityHubNeedsTheSwitch(t *testing.T) {
	v, x := edcVerifier(t, dcp.RelationshipsAlways), readExchange(t)
	_, err := v.IDToken(t.Context(), x.Authorization, edcProvider, dcp.NewMemoryReplay(10))
	if !errors.Is(err, identity.ErrUnauthenticated) || !strings.Contains(err.Error(), "capabilityInvocation") {
		t.Errorf("got %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What IdentityHub 0.15.1 asks our issuer for is in expanded JSON-LD, unlike its other messages.
func TestIdentityHubRequestsCredentials(t *testing.T) {
	raw, err := os.ReadFile("testdata/identityhub/credential-request.json")
	must(t, err)
	var m dcp.CredentialRequestMessage
	must(t, dcp.DecodeMessage(raw, dcp.TypeCredentialRequest, &m))
	if m.HolderPID != "PTFUUJHEBQQPRKK5LSJSRQYVFU" || len(m.Credentials) != 2 || m.Credentials[1].ID != "urn:kaphera:credential:AttestationCredential:vc11" {
		t.Errorf("read as %+v", m)
	}
	for bad, want := range map[string]string{
		`{"@type":"https://w3id.org/dspace-dcp/v1.0/CredentialMessage"}`:                                                                     "CredentialMessage",
		`{"@type":"CredentialRequestMessage","https://w3id.org/dspace-dcp/v1.0/holderPid":[]}`:                                               "0 values",
		`{"@type":"CredentialRequestMessage","https://w3id.org/dspace-dcp/v1.0/holderPid":[{"@value":"a"},{"@value":"b"}]}`:                  "2 values",
		`{"@type":["https://w3id.org/dspace-dcp/v1.0/CredentialRequestMessage"],"https://w3id.org/dspace-dcp/v1.0/holderPid":{"@value":{}}}`: "holderPid",
		`{"@context":["https://example.org"],"@type":"https://w3id.org/dspace-dcp/v1.0/CredentialRequestMessage"}`:                           "@context",
	} {
		if err := dcp.DecodeMessage([]byte(bad), dcp.TypeCredentialRequest, &m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", bad, err, want)
		}
	}
}
