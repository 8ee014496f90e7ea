// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
)

const custodyPolicy = `{"@type":"Set","permission":[{"action":"use","constraint":[
	{"leftOperand":"https://example.org/policy/purpose","operator":"isAnyOf","rightOperand":["recall"]},
	{"leftOperand":"https://example.org/policy/member","operator":"eq","rightOperand":"true"},
	{"leftOperand":"https://example.org/policy/path","operator":"neq","rightOperand":"secret"}],
	"duty":[{"action":"https://example.org/policy/recordAccess"}]}]}`

// TestEachAccessIsJudged: with real DSP, DCP and roles apart, a policy for each access lets one through and refuses another, and the consumer whose
// membership is revoked gets no more under a token that is good otherwise.
func TestEachAccessIsJudged(t *testing.T) {
	authority := start(t, []runtime.Role{runtime.Issuer})
	supplier := start(t, []runtime.Role{runtime.ControlPlane}, []runtime.Role{runtime.Wallet}, []runtime.Role{runtime.DataPlane})
	buyer := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f := pilot(authority.did("authority"))
	consumer := func(name, expression, credential string, t profile.ValueType, phases ...profile.Phase) profile.Operand {
		return profile.Operand{Name: "https://example.org/policy/" + name, Subject: profile.SubjectConsumer, Credential: credential, Expression: expression, ValueType: t,
			Operators: []string{"eq", "neq"}, Phases: phases, Sentence: profile.Translation{EN: name + " is as agreed: {right}"}}
	}
	purpose := consumer("purpose", "request.purpose", "", profile.ValueString, profile.PhaseNegotiation, profile.PhaseTransfer, profile.PhaseAccess)
	purpose.Purpose, purpose.Operators = true, []string{"isAnyOf"}
	f.Operands = append(f.Operands, purpose, consumer("path", "request.path", "", profile.ValueString, profile.PhaseAccess),
		consumer("member", "credential.subject.member", "MembershipCredential", profile.ValueBool, profile.PhaseNegotiation, profile.PhaseAccess))
	f.Duties = []profile.Duty{{Name: "https://example.org/policy/recordAccess", Fulfilment: profile.FulfilRecordAccess, Sentence: profile.Translation{EN: "every access is recorded"}}}
	member := map[string]any{"MembershipCredential": map[string]any{"member": true}}
	supplier.join("supplier", authority, f, member)
	buyer.join("buyer", authority, f, member)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer backend.Close()
	supplier.call(http.MethodPut, supplier.api("supplier", "/assets/dpp"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": backend.URL, "proxyPath": "true"}}, nil)
	supplier.call(http.MethodPut, supplier.api("supplier", "/offers/dpp"), adminapi.Offer{Assets: []string{"dpp"}, ContractPolicy: json.RawMessage(custodyPolicy)}, nil)
	tr := buyer.transfer("buyer", supplier.did("supplier"))
	fetch := func(path string) int {
		return buyer.status(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID+"/data/"+path), nil, nil)
	}
	if status := fetch("passport"); status != http.StatusOK {
		t.Fatalf("allowed access: %d", status)
	}
	var refusal adminapi.Error
	denied := func(path, why string) bool {
		status := buyer.status(http.MethodGet, buyer.api("buyer", "/transfers/"+tr.ID+"/data/"+path), nil, &refusal)
		return status == http.StatusForbidden && refusal.Code == "policy-denied" && strings.Contains(refusal.Message, why)
	}
	for _, spelling := range []string{"secret", "%73ecret", "secret/"} {
		if !denied(spelling, "seen secret") {
			t.Errorf("%s, a path that the policy excludes: %+v", spelling, refusal)
		}
	}

	var issued []adminapi.Issued
	list := authority.admin(runtime.Issuer, "/issuers/authority/credentials")
	authority.call(http.MethodGet, list+"?holder="+url.QueryEscape(buyer.did("buyer")), nil, &issued)
	if len(issued) != 1 {
		t.Fatalf("issued %+v", issued)
	}
	authority.call(http.MethodPost, list+"/"+url.PathEscape(issued[0].ID)+"/revoke", nil, nil)
	buyer.until("denial for the revoked membership", func() bool { return denied("passport", "revoked") })

	var transfers []adminapi.Transfer
	supplier.call(http.MethodGet, supplier.api("supplier", "/transfers"), nil, &transfers)
	supplier.call(http.MethodGet, supplier.api("supplier", "/transfers/"+transfers[0].ID), nil, &transfers[0])
	var verdicts []bool
	for _, trace := range transfers[0].Traces {
		if trace.Phase == profile.PhaseAccess {
			verdicts = append(verdicts, trace.Allowed)
			if trace.Allowed && !slices.Equal(trace.Purposes, []string{"recall"}) {
				t.Errorf("allowed for %q", trace.Purposes)
			}
		}
	}
	if len(verdicts) < 3 || !verdicts[0] || verdicts[1] || verdicts[len(verdicts)-1] {
		t.Errorf("verdicts kept with the transfer: %v", verdicts)
	}
}
