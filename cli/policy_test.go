// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
)

const policies = "../examples/policies/"

// written writes a policy to a file and returns its name.
func written(t *testing.T, policy string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPolicyLint(t *testing.T) {
	b := setup(t)
	profile := []string{"--profile-file", policies + "profile.yaml"}
	lint := func(file string, more ...string) result {
		return b.run(append(append([]string{"policy", "lint", file}, profile...), more...)...)
	}
	for _, use := range []string{"carbon-footprint", "quality-recall", "digital-product-passport"} {
		if r := lint(policies + use + ".json"); r.code != ExitOK || !strings.Contains(r.out, "nothing is wrong") {
			t.Errorf("%s: %+v", use, r)
		}
	}
	bad := written(t, `{"permission":[{"action":"use","constraint":[{"leftOperand":"Region","operator":"eq","rightOperand":"EU"},{"leftOperand":"DataQualityAttestationAge","operator":"eq","rightOperand":"P12M"}]}]}`)
	if r := lint(bad); r.code != ExitFailed || !strings.Contains(r.out, "$.permission[0].constraint[0].leftOperand") || !strings.Contains(r.out, "$.permission[0].constraint[1].operator") || !strings.Contains(r.err, "2 faults") {
		t.Errorf("%+v", r)
	}
	r := lint(bad, "-o", "json")
	var said struct {
		Valid  bool
		Faults []fault
	}
	if err := json.Unmarshal([]byte(r.out), &said); err != nil || said.Valid || len(said.Faults) != 2 || r.code != ExitFailed {
		t.Errorf("%v: %+v", err, r)
	}
	impossible := written(t, `{"permission":[{"action":"use","constraint":[{"leftOperand":"UsagePurpose","operator":"eq","rightOperand":"a"},{"leftOperand":"UsagePurpose","operator":"eq","rightOperand":"b"}]}]}`)
	if r := lint(impossible); r.code != ExitFailed || !strings.Contains(r.out, "nobody can satisfy this policy") {
		t.Errorf("%+v", r)
	}
	if r := lint(policies+"carbon-footprint.json", "--access-policy"); r.code != ExitFailed || !strings.Contains(r.out, "an access policy is about the consumer") {
		t.Errorf("%+v", r)
	}
	if r := lint(written(t, `{"permission":`)); r.code != ExitFailed || strings.Contains(r.out, "nothing is wrong") {
		t.Errorf("%+v", r)
	}
	if r := b.run("policy", "lint", bad); r.code != ExitUsage {
		t.Errorf("without a profile: %+v", r)
	}
}

// TestPolicyByTheProfileOfThePlatform reads the profile from the API and from what "get" printed of it.
func TestPolicyByTheProfileOfThePlatform(t *testing.T) {
	b := setup(t)
	raw, err := os.ReadFile(policies + "profile.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var spec client.DataspaceProfileSpec
	if err := yaml.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Issuers = []client.Issuer{
		{Name: "a", Hostname: "authority.example", CredentialTypes: []client.CredentialType{{Type: "MembershipCredential"}, {Type: "DataExchangeGovernanceCredential"}}},
		{Name: "b", Hostname: "auditor.example", CredentialTypes: []client.CredentialType{{Type: "DataQualityAttestationCredential"}}},
	}
	b.answer("GET /api/v1/dataspace-profiles/automotive", client.DataspaceProfile{Name: "automotive", Spec: spec})
	printed := b.run("get", "profile", "automotive", "-o", "json")
	file := written(t, printed.out)
	for _, from := range [][]string{{"--profile", "automotive"}, {"--profile-file", file}} {
		r := b.run(append([]string{"policy", "test", policies + "digital-product-passport.json", "--credentials", policies + "parties.json", "--now", "2026-11-01T12:00:00Z"}, from...)...)
		if r.code != ExitOK || !strings.Contains(r.out, "Every access to the data is recorded") {
			t.Errorf("%v: %+v", from, r)
		}
	}
	if r := b.run("policy", "lint", policies+"carbon-footprint.json", "--profile", "other"); r.code != ExitNotFound {
		t.Errorf("%+v", r)
	}
}

func TestPolicyExplain(t *testing.T) {
	b := setup(t)
	b.golden("policy-explain", b.run("policy", "explain", policies+"digital-product-passport.json", "--profile-file", policies+"profile.yaml"))
	b.golden("policy-explain-de", b.run("policy", "explain", policies+"carbon-footprint.json", "--profile-file", policies+"profile.yaml", "--lang", "de"))
	r := b.run("policy", "explain", policies+"quality-recall.json", "--profile-file", policies+"profile.yaml", "-o", "json")
	var said struct {
		Purposes []string
		Phases   []struct {
			Phase              string
			Provider, Consumer []string
		}
	}
	if err := json.Unmarshal([]byte(r.out), &said); err != nil || len(said.Purposes) != 1 || len(said.Phases) != 3 || said.Phases[2].Phase != "access" || len(said.Phases[2].Consumer) != 1 {
		t.Errorf("%v: %s", err, r.out)
	}
	if r := b.run("policy", "explain", policies+"quality-recall.json", "--profile-file", policies+"profile.yaml", "--lang", "fr"); r.code != ExitUsage {
		t.Errorf("%+v", r)
	}
}

func TestPolicyTest(t *testing.T) {
	b := setup(t)
	try := func(use string, more ...string) result {
		return b.run(append([]string{"policy", "test", policies + use + ".json", "--profile-file", policies + "profile.yaml", "--credentials", policies + "parties.json"}, more...)...)
	}
	b.golden("policy-test", try("carbon-footprint", "--now", "2026-11-01T12:00:00Z"))
	b.golden("policy-test-denied", try("carbon-footprint", "--now", "2027-09-01T12:00:00Z", "--as", "provider", "--phase", "negotiation"))
	r := try("quality-recall", "--now", "2026-11-01T12:00:00Z", "--purpose", "cx.pcf.base:1", "-o", "json")
	var traces []client.Trace
	if err := json.Unmarshal([]byte(r.out), &traces); err != nil || r.code != ExitRefused || len(traces) != 4 || traces[0].Phase != "catalog" || !traces[0].Allowed || traces[3].Allowed {
		t.Errorf("%v: %+v", err, r)
	}
	if r := try("digital-product-passport", "--now", "2026-11-01T12:00:00Z", "--method", "PUT"); r.code != ExitRefused || !strings.Contains(r.err, "denies: access") {
		t.Errorf("%+v", r)
	}
	for _, wrong := range [][]string{{"--as", "both"}, {"--phase", "dawn"}, {"--now", "today"}} {
		if r := try("quality-recall", wrong...); r.code != ExitUsage {
			t.Errorf("%v: %+v", wrong, r)
		}
	}
	if r := b.run("policy", "test", policies+"quality-recall.json", "--profile-file", policies+"profile.yaml", "--credentials", "HOME"); r.code != ExitFailed {
		t.Errorf("%+v", r)
	}
}
