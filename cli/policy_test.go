// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
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
		Valid  bool    `json:"valid"`
		Faults []fault `json:"faults"`
	}
	if err := json.Unmarshal([]byte(r.out), &said); err != nil || said.Valid || len(said.Faults) != 2 || r.code != ExitFailed {
		t.Errorf("%v: %+v", err, r)
	}
	impossible := written(t, `{"permission":[{"action":"use","constraint":[{"leftOperand":"UsagePurpose","operator":"eq","rightOperand":"a"},{"leftOperand":"UsagePurpose","operator":"eq","rightOperand":"b"}]}]}`)
	if r := lint(impossible); r.code != ExitFailed || !strings.Contains(r.out, "nobody can satisfy this policy") {
		t.Errorf("%+v", r)
	}
	if r := lint(written(t, `{"permission":[{"action":"use","constraint":[]}],"permission":[{"action":"use"}]}`)); r.code != ExitFailed || !strings.Contains(r.err, `"permission" already set`) {
		t.Errorf("%+v", r)
	}
	if r := lint(written(t, `{"permission":[{"action":"use","assignee":"did:web:only.this"}]}`)); r.code != ExitFailed || !strings.Contains(r.out, "$.permission[0].assignee") {
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
		Purposes []string `json:"purposes"`
		Phases   []struct {
			Phase    string   `json:"phase"`
			Consumer []string `json:"consumer"`
		} `json:"phases"`
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

// livePlatform answers what a live test asks for; the negotiation ends as given.
func livePlatform(b *bundle, end client.Negotiation) {
	raw, err := os.ReadFile(policies + "profile.yaml")
	if err != nil {
		b.Fatal(err)
	}
	var spec client.DataspaceProfileSpec
	if err := yaml.Unmarshal(raw, &spec); err != nil {
		b.Fatal(err)
	}
	spec.Issuers = []client.Issuer{{Name: "a", Hostname: "authority.example", CredentialTypes: []client.CredentialType{{Type: "MembershipCredential"}, {Type: "DataExchangeGovernanceCredential"}, {Type: "DataQualityAttestationCredential"}}}}
	b.answer("GET /api/v1/dataspace-profiles/automotive", client.DataspaceProfile{Name: "automotive", Spec: spec})
	const name = "policy-test-id-1"
	b.answer("PUT /api/v1/use-cases/"+name, client.UseCase{Name: name})
	b.answer("DELETE /api/v1/use-cases/"+name, nil)
	b.disposable(name+"-provider", name+"-consumer")
	provider, consumer := "/api/v1/participants/"+name+"-provider", "/api/v1/participants/"+name+"-consumer"
	b.answer("PUT "+provider+"/assets/policy-test", client.Asset{ID: "policy-test"})
	b.answer("POST "+provider+"/offers", client.Offer{ID: "o1", State: "Offered"})
	b.answer("GET "+consumer+"/catalog", client.CatalogItemList{Items: []client.CatalogItem{{OfferID: "o1", AssetID: "policy-test", UseCase: name}}})
	b.answer("POST "+consumer+"/negotiations", negotiation("REQUESTED"))
	b.on("GET "+consumer+"/negotiations/n1/events", events(negotiation("REQUESTED"), end))
	b.answer("GET "+consumer+"/negotiations/n1", end)
	b.answer("GET "+provider+"/negotiations", client.NegotiationList{Items: []client.Negotiation{end}})
	b.answer("GET "+provider+"/negotiations/n1", end)
	b.answer("POST "+consumer+"/transfers", client.Transfer{ID: "t1", State: "STARTED"})
}

// disposable are participants that are made and removed.
func (b *bundle) disposable(names ...string) {
	for _, p := range names {
		there := true
		b.answer("PUT /api/v1/organizations/"+p, client.Organization{Name: p})
		b.answer("DELETE /api/v1/organizations/"+p, nil)
		b.answer("PUT /api/v1/participants/"+p, client.Participant{Name: p})
		b.on("GET /api/v1/participants/"+p, func(w http.ResponseWriter, _ *http.Request) {
			if !there {
				refuse(w, http.StatusNotFound, "not-found", "there is no participant "+p)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(client.Participant{Name: p, Status: client.ParticipantStatus{DID: "did:web:" + p, Conditions: []client.Condition{{Type: "Active", Status: "True"}, {Type: "CredentialsHeld", Status: "True"}}}})
		})
		b.on("DELETE /api/v1/participants/"+p, func(w http.ResponseWriter, _ *http.Request) {
			there = false
			w.WriteHeader(http.StatusAccepted)
		})
		b.answer("GET /api/v1/participants/"+p+"/partners", client.PartnerList{Items: []client.Partner{{Name: p, DID: "did:web:" + p}}})
	}
}

func TestPolicyTestLive(t *testing.T) {
	live := []string{"policy", "test", policies + "carbon-footprint.json", "--profile", "automotive", "--credentials", policies + "parties.json", "--live", "--cell", "shared"}
	end := negotiation("REQUESTED", "AGREED", "FINALIZED")
	end.Traces = []client.Trace{trace("2026-09-01T00:00:00Z", true)}
	refused := negotiation("REQUESTED", "TERMINATED")
	refused.Reason = client.Reason{Code: "policy-denied", By: "own", Message: "the attestation is 13 months old"}
	for _, c := range []struct {
		name string
		end  client.Negotiation
		code int
		says string
	}{{"concluded", end, ExitOK, "Agreement agreement-1 and transfer t1 came about"}, {"refused", refused, ExitRefused, "policy-test-id-1 is removed"}} {
		t.Run(c.name, func(t *testing.T) {
			b := setup(t)
			livePlatform(b, c.end)
			r := b.run(live...)
			if r.code != c.code || !strings.Contains(r.out, c.says) {
				t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
			}
			if put := b.called("PUT /api/v1/participants/policy-test-id-1-provider "); len(put) != 1 || !strings.Contains(put[0], `"completedAt":"2026-08-14"`) || !strings.Contains(put[0], `"cell":"shared"`) || !strings.Contains(put[0], "BPNL0000000CAST1") {
				t.Errorf("the provider was made with %v", put)
			}
			if put := b.called("PUT /api/v1/use-cases/policy-test-id-1 "); len(put) != 1 || !strings.Contains(put[0], "DataQualityAttestationAge") {
				t.Errorf("the use case was made with %v", put)
			}
			for _, gone := range []string{"participants/policy-test-id-1-provider", "participants/policy-test-id-1-consumer", "organizations/policy-test-id-1-provider", "organizations/policy-test-id-1-consumer", "use-cases/policy-test-id-1"} {
				if len(b.called("DELETE /api/v1/"+gone)) == 0 {
					t.Errorf("%s stays", gone)
				}
			}
		})
	}
	// What a test can't do live is said before anything is made.
	b := setup(t)
	for _, wrong := range [][]string{{"--now", "2026-11-01T12:00:00Z"}, {"--access-policy"}, {"--as", "provider"}} {
		livePlatform(b, end)
		if r := b.run(append(live, wrong...)...); r.code == ExitOK || len(b.called("PUT ")) > 0 {
			t.Errorf("%v: %+v", wrong, r)
		}
	}
}
