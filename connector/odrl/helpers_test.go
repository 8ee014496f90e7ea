// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

const (
	authority = "did:web:authority.example"
	auditor   = "did:web:auditor.example"
	supplier  = "did:web:shared.example:supplier"
	buyer     = "did:web:shared.example:buyer"
	vocab     = "https://w3id.org/kaphera/policy/"
)

var now = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

// pilot is a profile with an operand of every value type.
func pilot() profile.Profile {
	all := []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation, profile.PhaseTransfer}
	attestation := func(name, expr string, t profile.ValueType, ops ...string) profile.Operand {
		return profile.Operand{Name: vocab + name, Subject: profile.SubjectProvider, Credential: "QualityAttestationCredential", Expression: expr,
			ValueType: t, Operators: ops, Phases: all, Sentence: profile.Translation{EN: name + " of the provider: {right}", DE: name + " des Anbieters: {right}"}}
	}
	age := attestation("AttestationAge", "credential.subject.completedAt", profile.ValueAge, "lt", "lteq", "gt", "gteq")
	age.Sentence = profile.Translation{EN: "The provider's attestation is younger than {right}.", DE: "die Prüfung des Anbieters ist jünger als {right}"}
	age.Remedy = profile.Translation{EN: "Ask the auditor for a new attestation.", DE: "Beim Prüfer eine neue Prüfung beantragen."}
	age.Aliases = []string{"AttestationAge"}
	return profile.Profile{
		Name: "pilot", Protocol: "dataspace-protocol-http:2025-1",
		TrustedIssuers:      []profile.TrustedIssuer{{DID: authority, Types: []string{"MembershipCredential"}}, {DID: auditor, Types: []string{"QualityAttestationCredential"}}},
		RequiredCredentials: []string{"MembershipCredential"},
		Operands: []profile.Operand{
			age,
			attestation("Share", "credential.subject.primaryDataShare", profile.ValueNumber, "gteq", "lt", "eq", "isAnyOf"),
			attestation("Standards", "credential.subject.standards", profile.ValueStrings, "isAllOf", "hasPart", "isAnyOf", "isNoneOf", "isPartOf", "eq", "neq"),
			attestation("Accredited", "credential.subject.accredited", profile.ValueBool, "eq", "neq"),
			attestation("Completed", "timestamp(credential.subject.completedAt)", profile.ValueTimestamp, "gt", "lt"),
			{Name: vocab + "Membership", Aliases: []string{"Membership"}, Subject: profile.SubjectConsumer, Credential: "MembershipCredential",
				Expression: "credential.subject.memberOf == 'Pilot' ? 'active' : 'none'", ValueType: profile.ValueString, Operators: []string{"eq", "neq", "isAnyOf", "isNoneOf"},
				Phases: all, Sentence: profile.Translation{EN: "the buyer's membership is {right}"}},
			{Name: vocab + "Purpose", Subject: profile.SubjectConsumer, Expression: "request.purpose", ValueType: profile.ValueString, Operators: []string{"isAnyOf", "eq", "isNoneOf"},
				Phases: []profile.Phase{profile.PhaseTransfer}, Purpose: true, Sentence: profile.Translation{EN: "the purpose is one of {right}"}},
			{Name: vocab + "Method", Subject: profile.SubjectConsumer, Expression: "request.method", ValueType: profile.ValueString, Operators: []string{"isAnyOf"},
				Phases: []profile.Phase{profile.PhaseAccess}, Sentence: profile.Translation{EN: "it is fetched by {right}"}},
			{Name: vocab + "Seen", Subject: profile.SubjectConsumer, Expression: "party.id", ValueType: profile.ValueString, Operators: []string{"eq", "isNoneOf"},
				Phases: []profile.Phase{profile.PhaseCatalog}, Sentence: profile.Translation{EN: "{right} sees it"}},
			{Name: vocab + "EveryAccess", Subject: profile.SubjectConsumer, Expression: "party.id", ValueType: profile.ValueString, Operators: []string{"eq"},
				Phases: []profile.Phase{profile.PhaseAccess}, Sentence: profile.Translation{EN: "the party is {right}"}},
			{Name: vocab + "Endless", Subject: profile.SubjectConsumer, Expression: "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, a+b+c+d+e > 0)))))",
				ValueType: profile.ValueBool, Operators: []string{"eq"}, Phases: all, Sentence: profile.Translation{EN: "it ends: {right}"}},
			{Name: Namespace + "dateTime", Subject: profile.SubjectConsumer, Expression: "now", ValueType: profile.ValueTimestamp, Operators: []string{"lt", "lteq", "gt", "gteq"},
				Phases: all, Sentence: profile.Translation{EN: "the date is before {right}"}},
		},
		Duties: []profile.Duty{{Name: vocab + "recordAccess", Aliases: []string{"recordAccess"}, Fulfilment: profile.FulfilRecordAccess,
			Sentence: profile.Translation{EN: "Every access is recorded or refused.", DE: "Jeder Zugriff wird aufgezeichnet oder verweigert."}}},
	}
}

func evaluator(t testing.TB) *Evaluator {
	t.Helper()
	e, err := NewEvaluator(pilot())
	if err != nil {
		t.Fatal(err)
	}
	e.now = func() time.Time { return now }
	return e
}

func parsed(t testing.TB, raw string) *Policy {
	t.Helper()
	p, err := Parse(json.RawMessage(raw))
	if err != nil {
		t.Fatalf("parse %s: %v", raw, err)
	}
	return p
}

// permit is a Set with one permission with these constraints (JSON, comma-separated).
func permit(constraints ...string) string {
	return `{"@type":"Set","permission":[{"action":"use","constraint":[` + strings.Join(constraints, ",") + `]}]}`
}

func atom(left, op, right string) string {
	return `{"leftOperand":"` + left + `","operator":"` + op + `","rightOperand":` + right + `}`
}

func attested(claims map[string]any) *identity.Agent {
	return &identity.Agent{ID: supplier, Credentials: []identity.Credential{
		{ID: "urn:uuid:m1", Type: "MembershipCredential", Issuer: authority, Subject: map[string]any{"id": supplier, "memberOf": "Pilot"}, ValidFrom: now.AddDate(0, -1, 0)},
		{ID: "urn:uuid:a1", Type: "QualityAttestationCredential", Issuer: auditor, Subject: claims, ValidFrom: now.AddDate(0, -1, 0), ValidUntil: now.AddDate(1, 0, 0)},
	}}
}

func member() *identity.Agent {
	return &identity.Agent{ID: buyer, Credentials: []identity.Credential{
		{ID: "urn:uuid:m2", Type: "MembershipCredential", Issuer: authority, Subject: map[string]any{"id": buyer, "memberOf": "Pilot"}, ValidFrom: now.AddDate(0, -1, 0)}}}
}

// good is a subject whose every claim satisfies the operands of pilot.
func good() map[string]any {
	return map[string]any{"completedAt": "2026-01-15T09:00:00Z", "primaryDataShare": 62.5, "accredited": true, "standards": []any{"ISO 14067", "PCR 2024"}}
}

func request(t testing.TB, policy string) Request {
	t.Helper()
	return Request{Policy: parsed(t, policy), Phase: profile.PhaseNegotiation, By: buyer, Provider: attested(good()), Consumer: member(), Now: now}
}
