// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

// FuzzObject: what the Cloud API answers is refused, or becomes a model that asks for the same again: no plan shows a change that nobody made.
func FuzzObject(f *testing.F) {
	for _, raw := range []string{
		`{"name":"supplier","revision":"7","generation":2,"spec":{"organization":"brandt-guss","cell":"shared","profile":"automotive","identity":{"context":"supplier","businessPartnerNumber":"BPNL00000000SUPP"},"credentials":[{"type":"MembershipCredential","claims":{"memberOf":"x"}}]},"status":{"did":"did:web:x:supplier","conditions":[{"type":"Ready","status":"True","observedGeneration":2}]}}`,
		`{"name":"automotive","spec":{"protocol":"dataspace-protocol-http:2025-1","issuers":[{"name":"a","cell":"shared","credentialTypes":[{"type":"T","schema":{}}]}],"operands":[{"name":"n","valueType":"age","operators":["lt"],"phases":["negotiation"],"sentence":{"en":"x"}}]}}`,
		`{"name":"pcf","spec":{"profile":"automotive","title":"t","contractPolicy":{"permission":[{"action":"use"}]},"gates":[{"name":"g","type":"Approval"}],"signers":[{"role":"governance-authority"}]}}`,
		`{"name":"plant","spec":{"mode":"Dedicated","organization":"o","hostname":"h.example","quota":{},"access":{"subjects":{"groups":["g"]}},"audit":{}}}`,
		`{"name":"o","spec":{"displayName":"O","businessPartnerNumber":"B"},"status":{"conditions":{}}}`,
		`{"spec":null}`,
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := answer(&http.Response{Body: io.NopCloser(bytes.NewReader(raw))}, nil)
		if err != nil {
			return
		}
		if done, waitsFor := conditionsTrue(o, "Ready"); done != (waitsFor == "") {
			t.Fatalf("%s is settled: %v, and waits for %q", raw, done, waitsFor)
		}
		asksForTheSame[cellModel](t, o)
		asksForTheSame[profileModel](t, o)
		asksForTheSame[organizationModel](t, o)
		asksForTheSame[participantModel](t, o)
		var useCase useCaseSpec
		if json.Unmarshal(o.Spec, &useCase) == nil && useCase.ContractPolicy != nil { // which each use case has
			asksForTheSame[useCaseModel](t, o)
		}
	})
}

func asksForTheSame[M any, P modelOf[M]](t *testing.T, o object) {
	t.Helper()
	spec := func(o object) (json.RawMessage, bool) {
		m := P(new(M))
		if m.read(o).HasError() {
			return nil, false
		}
		raw, err := json.Marshal(m.spec())
		if err != nil {
			t.Fatalf("%s: %v", o.Spec, err)
		}
		return raw, true
	}
	first, ok := spec(o)
	if !ok {
		return
	}
	o.Spec = first
	if second, ok := spec(o); !ok || !bytes.Equal(first, second) {
		t.Fatalf("%s asks for %s", first, second)
	}
}
