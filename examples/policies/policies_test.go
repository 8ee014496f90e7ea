// SPDX-License-Identifier: Apache-2.0

// Package policies_test judges the example policies on allowed and denied cases.
package policies_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func read(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

type holder struct {
	ID          string `json:"id"`
	Credentials []struct {
		ID, Type, Issuer      string
		Claims                map[string]any
		ValidFrom, ValidUntil time.Time
	} `json:"credentials"`
}

func (h holder) agent() *identity.Agent {
	a := &identity.Agent{ID: h.ID}
	for _, c := range h.Credentials {
		a.Credentials = append(a.Credentials, identity.Credential{ID: c.ID, Type: c.Type, Issuer: c.Issuer, Subject: c.Claims, ValidFrom: c.ValidFrom, ValidUntil: c.ValidUntil})
	}
	return a
}

// without takes a credential away.
func without(a *identity.Agent, credentialType string) {
	a.Credentials = slices.DeleteFunc(a.Credentials, func(c identity.Credential) bool { return c.Type == credentialType })
}

func claim(a *identity.Agent, credentialType, name string, value any) {
	for i, c := range a.Credentials {
		if c.Type == credentialType {
			a.Credentials[i].Subject[name] = value
		}
	}
}

func TestUseCases(t *testing.T) {
	var p profile.Profile
	read(t, "profile.yaml", &p)
	evaluator, err := odrl.NewEvaluator(p)
	if err != nil {
		t.Fatal(err)
	}
	all := []profile.Phase{profile.PhaseNegotiation, profile.PhaseTransfer, profile.PhaseAccess}
	const attestation = "DataQualityAttestationCredential"
	for _, c := range []struct {
		use, name string
		change    func(r *odrl.Request)
		denied    []profile.Phase
		reason    string
	}{
		{use: "carbon-footprint", name: "as it should be"},
		{use: "carbon-footprint", name: "an attestation of twelve months", change: func(r *odrl.Request) { claim(r.Provider, attestation, "completedAt", "2025-11-01T12:00:00Z") }, denied: all[:2], reason: "counted until 2026-11-01"},
		{use: "carbon-footprint", name: "an attestation a second younger", change: func(r *odrl.Request) { claim(r.Provider, attestation, "completedAt", "2025-11-01T12:00:01Z") }},
		{use: "carbon-footprint", name: "no attestation", change: func(r *odrl.Request) { without(r.Provider, attestation) }, denied: all[:2], reason: "presented no " + attestation},
		{use: "carbon-footprint", name: "an attestation of one's own", change: func(r *odrl.Request) { r.Provider.Credentials[1].Issuer = r.Provider.ID }, denied: all[:2], reason: "does not trust for it"},
		{use: "carbon-footprint", name: "the consumer's attestation does not count", change: func(r *odrl.Request) {
			r.Consumer.Credentials = append(r.Consumer.Credentials, r.Provider.Credentials[1])
			without(r.Provider, attestation)
		}, denied: all[:2], reason: "presented no " + attestation},
		{use: "carbon-footprint", name: "for a recall", change: func(r *odrl.Request) { r.Purposes = []string{"cx.core.qualityNotifications:1"} }, denied: all, reason: "seen cx.core.qualityNotifications:1, needed one of cx.pcf.base:1"},

		{use: "quality-recall", name: "as it should be"},
		{use: "quality-recall", name: "for another purpose", change: func(r *odrl.Request) { r.Purposes = []string{"cx.pcf.base:1"} }, denied: all, reason: "seen cx.pcf.base:1, needed one of cx.core.qualityNotifications:1"},
		{use: "quality-recall", name: "for no purpose", change: func(r *odrl.Request) { r.Purposes = []string{} }, denied: all, reason: "purpose was not stated"},
		{use: "quality-recall", name: "by somebody who is no member", change: func(r *odrl.Request) { without(r.Consumer, "MembershipCredential") }, denied: all[:2], reason: "presented no MembershipCredential"},
		{use: "quality-recall", name: "under an older framework agreement", change: func(r *odrl.Request) { claim(r.Consumer, "DataExchangeGovernanceCredential", "contractVersion", "0.9") }, denied: all[:2], reason: "seen DataExchangeGovernance:0.9"},

		{use: "digital-product-passport", name: "as it should be"},
		{use: "digital-product-passport", name: "read by HEAD", change: func(r *odrl.Request) { r.Request["method"] = "HEAD" }},
		{use: "digital-product-passport", name: "written", change: func(r *odrl.Request) { r.Request["method"] = "PUT" }, denied: all[2:], reason: "seen PUT"},
		{use: "digital-product-passport", name: "for another purpose", change: func(r *odrl.Request) { r.Purposes = []string{"marketing"} }, denied: all, reason: "seen marketing"},
	} {
		t.Run(c.use+", "+c.name, func(t *testing.T) {
			var raw json.RawMessage
			read(t, c.use+".json", &raw)
			policy, err := odrl.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := evaluator.Check(policy); err != nil {
				t.Fatal(err)
			}
			var parties struct{ Provider, Consumer holder }
			read(t, "parties.json", &parties)
			req := odrl.Request{Policy: policy, Provider: parties.Provider.agent(), Consumer: parties.Consumer.agent(), Now: now, Request: map[string]string{"method": "GET"}}
			if c.change != nil {
				c.change(&req)
			}
			for _, phase := range all {
				req.Phase = phase
				trace := evaluator.Evaluate(t.Context(), req)
				if want := !slices.Contains(c.denied, phase); trace.Allowed != want {
					t.Errorf("%s: allowed %v, want %v: %+v", phase, trace.Allowed, want, trace.Checks)
				} else if reason := odrl.Reason(trace, ""); !strings.Contains(reason, c.reason) && !want {
					t.Errorf("%s: reason %q, want %q", phase, reason, c.reason)
				}
			}
		})
	}
}

// TestChainOfCustody: only the product passport's accesses have to be recorded, and no phase forgets to say so.
func TestChainOfCustody(t *testing.T) {
	var p profile.Profile
	read(t, "profile.yaml", &p)
	evaluator, err := odrl.NewEvaluator(p)
	if err != nil {
		t.Fatal(err)
	}
	for use, want := range map[string]bool{"carbon-footprint": false, "quality-recall": false, "digital-product-passport": true} {
		var raw json.RawMessage
		read(t, use+".json", &raw)
		policy, err := odrl.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := evaluator.Recorded(policy); got != want {
			t.Errorf("%s: recorded %v", use, got)
		}
		trace := evaluator.Evaluate(t.Context(), odrl.Request{Policy: policy, Phase: profile.PhaseAccess, Consumer: &identity.Agent{ID: "did:web:x"}, Request: map[string]string{"method": "GET"}, Now: now})
		promised := slices.ContainsFunc(trace.Checks, func(c adminapi.Check) bool {
			return strings.HasPrefix(c.Sentence, "Every access to the data is recorded") && c.Satisfied
		})
		if promised != want || !trace.Allowed {
			t.Errorf("%s: %+v", use, trace)
		}
	}
}

// TestOlderSpelling: the terms of Catena-X from before 2025/9 mean the same.
func TestOlderSpelling(t *testing.T) {
	var p profile.Profile
	read(t, "profile.yaml", &p)
	evaluator, err := odrl.NewEvaluator(p)
	if err != nil {
		t.Fatal(err)
	}
	var raw json.RawMessage
	read(t, "quality-recall.json", &raw)
	for _, spelling := range []string{"https://w3id.org/catenax/policy/", "cx-policy:", ""} {
		policy, err := odrl.Parse(json.RawMessage(strings.ReplaceAll(string(raw), "https://w3id.org/catenax/2025/9/policy/", spelling)))
		if err != nil {
			t.Fatal(err)
		}
		if err := evaluator.Check(policy); err != nil || !slices.Equal(evaluator.Purposes(policy), []string{"cx.core.qualityNotifications:1"}) {
			t.Errorf("%q: %v, purposes %q", spelling, err, evaluator.Purposes(policy))
		}
	}
}
