// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
)

// publicKey makes a key and returns its public half.
func publicKey(t *testing.T) json.RawMessage {
	t.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := jwk.Import(raw.Public())
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const gatedUseCase = `{"profile":"automotive","title":"Reviewed","assetType":"https://w3id.org/catenax/taxonomy#PcfExchange","contractPolicy":` + contractPolicy + `,"gates":[
  {"name":"two-parties","type":"Approval","before":"AGREED","deadline":"P7D","required":2,"organizations":2,"approvers":[{"person":"berta"},{"role":"organization-admin","organization":"rheintal-motoren"}]},
  {"name":"reviewed","type":"Attestation","before":"FINALIZED","deadline":"P7D","policy":` + contractPolicy + `,"triggeredBy":[{"role":"governance-authority"}]}]}`

var renate = cloudtest.Claims("renate", "rheintal-motoren", "organization-admin")

func TestAnOfferKnowsTheKeysOfThePeopleThatItsUseCaseNames(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.want(http.StatusCreated, b.call(authority, "PUT", "/use-cases/reviewed", wrap(gatedUseCase)))
	b.operate("reviewed")
	const offer = `{"asset":"pcf","useCase":"reviewed"}`
	a := b.want(http.StatusUnprocessableEntity, b.call(brandt, "POST", "/participants/supplier/offers", offer))
	if !a.has("spec.gates[0].approvers[0]", `person "berta" has registered no key`) || !a.has("spec.gates[1].triggeredBy[0]", "nobody with the role governance-authority") {
		t.Fatalf("without keys: %s", a.body)
	}
	first := publicKey(t)
	key := decodeTo[ApprovalKey](t, b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", KeyRegistration{first})))
	if key.Spec.Subject != "sub-berta" || key.Spec.Person != "berta" || key.Spec.Organization != "brandt-guss" || !slices.Equal(key.Spec.Roles, []string{"organization-admin"}) {
		t.Errorf("registered as %+v", key.Spec)
	}
	b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", KeyRegistration{first})) // again
	if a := b.call(renate, "POST", "/approval-keys", KeyRegistration{first}); a.status != http.StatusConflict {
		t.Errorf("berta's key as renate's: %d %s", a.status, a.body)
	}
	for _, bad := range []string{`{"publicKey":"x"}`, `{"publicKey":{"kty":"oct","k":"AAAA"}}`} {
		if a := b.call(renate, "POST", "/approval-keys", bad); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	nameless := map[string]any{"sub": "sub-program", "azp": "terraform", "roles": []string{"platform-operator"}}
	if a := b.call(nameless, "POST", "/approval-keys", KeyRegistration{publicKey(t)}); a.status != http.StatusForbidden {
		t.Errorf("whoever has no user name registers a key: %d %s", a.status, a.body)
	}
	b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", KeyRegistration{publicKey(t)}))
	b.want(http.StatusCreated, b.call(renate, "POST", "/approval-keys", KeyRegistration{publicKey(t)}))
	b.want(http.StatusCreated, b.call(authority, "POST", "/approval-keys", KeyRegistration{publicKey(t)}))
	var sent adminapi.Offer
	b.connector.On("PUT brandt/offers/pcf--reviewed", func(r *http.Request) (int, any) {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		return http.StatusOK, sent
	})
	b.want(http.StatusCreated, b.call(brandt, "POST", "/participants/supplier/offers", offer))
	if len(sent.Gates) != 2 || len(sent.Gates[0].Approvers) != 2 || sent.Gates[0].Type != adminapi.GateApproval || sent.Gates[0].Organizations != 2 {
		t.Fatalf("sent %+v", sent.Gates)
	}
	if berta := sent.Gates[0].Approvers[0]; berta.ID != "sub-berta" || len(berta.Keys) != 2 || berta.Organization != "brandt-guss" {
		t.Errorf("berta is %+v", berta)
	}
	if by := sent.Gates[1].TriggeredBy; len(by) != 1 || by[0].ID != "sub-gerd" || by[0].Organization != "governance-authority" || sent.Gates[1].Policy == nil {
		t.Errorf("the second gate is %+v", sent.Gates[1])
	}
	keys := decodeTo[List[ApprovalKey]](t, b.want(http.StatusOK, b.call(renate, "GET", "/approval-keys", nil)))
	if len(keys.Items) != 1 {
		t.Errorf("renate sees %d keys of all organizations", len(keys.Items))
	}
	if a := b.call(renate, "DELETE", "/approval-keys/"+key.Name, nil); a.status != http.StatusNotFound {
		t.Errorf("renate removes berta's key: %d", a.status)
	}
	b.want(http.StatusNoContent, b.call(brandt, "DELETE", "/approval-keys/"+key.Name, nil))
}

func TestAUseCaseWithGatesThatCannotBe(t *testing.T) {
	b := setup(t)
	b.pilot()
	approval := func(more string) string {
		return `{"name":"g","type":"Approval","before":"AGREED","deadline":"P1D"` + more + `}`
	}
	for name, g := range map[string]string{
		"an approval without approvers":     approval(``),
		"an approval with a policy":         approval(`,"required":1,"approvers":[{"person":"berta"}],"policy":` + contractPolicy),
		"more organizations than approvals": approval(`,"required":1,"organizations":2,"approvers":[{"person":"berta"}]`),
		"an approver who is two things":     approval(`,"required":1,"approvers":[{"person":"berta","role":"viewer"}]`),
		"an approver who is nobody":         approval(`,"required":1,"approvers":[{}]`),
		"another state":                     strings.Replace(approval(`,"required":1,"approvers":[{"person":"berta"}]`), "AGREED", "VERIFIED", 1),
		"no deadline":                       strings.Replace(approval(`,"required":1,"approvers":[{"person":"berta"}]`), "P1D", "soon", 1),
		"an approval with a webhook":        approval(`,"required":1,"approvers":[{"person":"berta"}],"webhook":{"url":"https://x.example","system":"risk","organization":"brandt-guss","publicKey":{}}`),
		"a webhook without one":             `{"name":"g","type":"Webhook","before":"AGREED","deadline":"P1D"}`,
		"a webhook without TLS":             `{"name":"g","type":"Webhook","before":"AGREED","deadline":"P1D","webhook":{"url":"http://x.example","system":"risk","organization":"brandt-guss","publicKey":{}}}`,
		"an attestation without a policy":   `{"name":"g","type":"Attestation","before":"AGREED","deadline":"P1D"}`,
		"an operand that is not declared":   `{"name":"g","type":"Attestation","before":"AGREED","deadline":"P1D","policy":` + strings.Replace(contractPolicy, "AttestationAge", "Moon", 1) + `}`,
	} {
		spec := strings.TrimSuffix(useCaseSpec(contractPolicy), "}") + `,"gates":[` + g + `]}`
		if a := b.call(authority, "PUT", "/use-cases/bad", wrap(spec)); a.status != http.StatusUnprocessableEntity || !a.has("spec.gates[0]", "") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func TestApprovalsAreThoseThatWaitForTheCaller(t *testing.T) {
	b := setup(t)
	b.pilot()
	until := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	waits := func(negotiation string, people ...string) adminapi.Approval {
		a := adminapi.Approval{Provider: "did:web:shared.example:brandt", Negotiation: negotiation, Counterparty: "did:web:shared.example:rheintal", AssetID: "pcf", OfferID: "o",
			Policy: json.RawMessage(contractPolicy), OfferHash: "h", Verdicts: []adminapi.PolicyVerdict{}, Gate: adminapi.GateState{Name: "two-parties", State: adminapi.GateOpen, Deadline: &until}}
		for _, p := range people {
			a.Gate.WaitsFor = append(a.Gate.WaitsFor, adminapi.Approver{ID: "sub-" + p, Name: p})
		}
		return a
	}
	b.connector.Answer("GET brandt/approvals", http.StatusOK, []adminapi.Approval{waits("n-2", "berta", "renate"), waits("n-1", "renate")})
	b.connector.Answer("GET rheintal/approvals", http.StatusServiceUnavailable, nil)
	// No use case has gates: those of one that had some may still hold negotiations.
	for _, c := range []struct {
		who  map[string]any
		want []string
	}{{brandt, []string{"n-2"}}, {renate, []string{"n-1", "n-2"}}, {operator, nil}, {authority, nil}} {
		got := decodeTo[Approvals](t, b.want(http.StatusOK, b.call(c.who, "GET", "/approvals", nil)))
		var ids []string
		for _, i := range got.Items {
			if i.Participant != "supplier" {
				t.Errorf("the provider is %q", i.Participant)
			}
			ids = append(ids, i.Negotiation)
		}
		if !slices.Equal(ids, c.want) || !slices.Equal(got.Unreachable, []string{"oem"}) {
			t.Errorf("%v: got %v, unreachable %v; want %v and oem", c.who["sub"], ids, got.Unreachable, c.want)
		}
	}
}

// TestADecisionIsPassedOnAsItIs: also one of a person of another organization than the provider's; what the connector says of it comes back.
func TestADecisionIsPassedOnAsItIs(t *testing.T) {
	b := setup(t)
	b.pilot()
	const path, signed = "/participants/supplier/negotiations/n-1/decisions", `{"decision":"head.payload.signature"}`
	b.connector.Answer("POST brandt/negotiations/n-1/decisions", http.StatusOK, adminapi.Negotiation{ID: "n-1"})
	a := b.want(http.StatusNoContent, b.call(renate, "POST", path, signed))
	if len(a.body) != 0 {
		t.Errorf("somebody else's negotiation is shown: %s", a.body)
	}
	if got := b.connector.Requests(); !slices.ContainsFunc(got, func(r string) bool {
		return strings.HasPrefix(r, "POST brandt/negotiations/n-1/decisions") && strings.Contains(r, signed)
	}) {
		t.Errorf("the connector got %v", got)
	}
	b.connector.Answer("POST brandt/negotiations/n-1/decisions", http.StatusForbidden, adminapi.Error{Code: "decision-forged", Message: "the signature is not the one of berta's key"})
	if a := b.call(renate, "POST", path, signed); a.status != http.StatusForbidden || a.problem.Code != "decision-forged" || !strings.Contains(a.problem.Detail, "berta's key") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	// Whoever may not see the provider gets one answer to all else.
	const none, inactive = "/participants/nobody/negotiations/n-1/decisions", "/participants/supplier/negotiations/n-2/decisions"
	b.connector.Answer("POST brandt/negotiations/n-2/decisions", http.StatusServiceUnavailable, adminapi.Error{Code: "inactive", Message: "brandt is not active"})
	neutral := b.want(http.StatusNotFound, b.call(renate, "POST", none, signed)).problem.Detail
	same := func(what, path, negotiation string) {
		t.Helper()
		want := strings.NewReplacer("nobody", "supplier", "n-1", negotiation).Replace(neutral)
		if a := b.call(renate, "POST", path, signed); a.status != http.StatusNotFound || a.problem.Detail != want || strings.Contains(string(a.body), "shared") {
			t.Errorf("%s: %d %s, want %q", what, a.status, a.body, want)
		}
	}
	same("no such negotiation", "/participants/supplier/negotiations/n-3/decisions", "n-3")
	same("an inactive participant", inactive, "n-2")
	b.connector.Fail(cellrpc.ErrNotConnected)
	same("a cell that is cut off", path, "n-1")
	for _, who := range []map[string]any{brandt, operator} {
		if a := b.call(who, "POST", path, signed); a.status != http.StatusServiceUnavailable {
			t.Errorf("a cell that is cut off, to its people: %d %s", a.status, a.body)
		}
	}
}

// TestWhoLostTheRoleDecidesNoMore: an offer pins people with the role and the organization that they had; a decision passes only with what they have now.
func TestWhoLostTheRoleDecidesNoMore(t *testing.T) {
	b := setup(t)
	b.pilot()
	until := time.Now().Add(time.Hour)
	waits := func(name string, kind adminapi.GateType, person, organization, role string) adminapi.Approval {
		return adminapi.Approval{Negotiation: "n-1", Gate: adminapi.GateState{Name: name, Type: kind, State: adminapi.GateOpen, Deadline: &until,
			WaitsFor: []adminapi.Approver{{ID: person, Name: person, Organization: organization, Role: role}}}}
	}
	decided := waits("decided", adminapi.GateApproval, "sub-else", "rheintal-motoren", "")
	decided.Gate.Decided = []adminapi.GateDecision{{By: adminapi.Approver{ID: "sub-renate", Name: "Renate", Organization: "rheintal-motoren", Role: "viewer"}}}
	b.connector.Answer("GET brandt/approvals", http.StatusOK, []adminapi.Approval{
		waits("by-role", adminapi.GateApproval, "sub-renate", "rheintal-motoren", "organization-admin"), waits("by-name", adminapi.GateApproval, "sub-renate", "rheintal-motoren", ""),
		waits("lost", adminapi.GateApproval, "sub-renate", "rheintal-motoren", "viewer"), waits("moved", adminapi.GateApproval, "sub-renate", "brandt-guss", ""),
		waits("system", adminapi.GateWebhook, "erp", "brandt-guss", ""), waits("stranger", adminapi.GateApproval, "sub-gone", "rheintal-motoren", ""), decided})
	b.connector.Answer("POST brandt/negotiations/n-1/decisions", http.StatusOK, adminapi.Negotiation{ID: "n-1"})
	b.want(http.StatusCreated, b.call(renate, "POST", "/approval-keys", KeyRegistration{publicKey(t)}))
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jwk.Import(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		gate, person string
		passes       bool
	}{
		{"by-role", "sub-renate", true}, {"by-name", "sub-renate", true}, {"lost", "sub-renate", false}, {"moved", "sub-renate", false}, {"decided", "sub-renate", false},
		{"system", "erp", true}, {"stranger", "sub-gone", false}, {"by-role", "sub-nobody-of-the-gate", true}, {"no-gate", "sub-renate", true},
	} {
		signed, err := gate.Sign(signer, adminapi.DecisionClaims{Approver: c.person, Negotiation: "n-1", Gate: c.gate, Verdict: adminapi.Reject, ID: "1", IssuedAt: 1, Expires: 2})
		if err != nil {
			t.Fatal(err)
		}
		// By the person, whose token says what it is now; and by another one, for whom the registered key does.
		for name, caller := range map[string]map[string]any{"themselves": renate, "another": brandt} {
			want := http.StatusNoContent
			if !c.passes {
				want = http.StatusForbidden
			}
			if a := b.call(caller, "POST", "/participants/supplier/negotiations/n-1/decisions", adminapi.SignedDecision{Decision: signed}); a.status != want {
				t.Errorf("%s at gate %s, handed in by %s: %d %s", c.person, c.gate, name, a.status, a.body)
			}
		}
	}
	b.connector.Answer("GET brandt/approvals", http.StatusServiceUnavailable, nil)
	signed, err := gate.Sign(signer, adminapi.DecisionClaims{Approver: "sub-renate", Negotiation: "n-1", Gate: "by-role", Verdict: adminapi.Approve, ID: "2", IssuedAt: 1, Expires: 2})
	if err != nil {
		t.Fatal(err)
	}
	for want, who := range map[int]map[string]any{http.StatusNotFound: renate, http.StatusBadGateway: brandt} {
		if a := b.call(who, "POST", "/participants/supplier/negotiations/n-1/decisions", adminapi.SignedDecision{Decision: signed}); a.status != want {
			t.Errorf("without an answer who may decide: %d %s, want %d", a.status, a.body, want)
		}
	}
}

func TestAPersonHasAsManyKeysAsOffersTake(t *testing.T) {
	b := setup(t)
	var oldest ApprovalKey
	var last json.RawMessage
	for i := range gate.MaxKeys {
		last = publicKey(t)
		k := decodeTo[ApprovalKey](t, b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", KeyRegistration{last})))
		if i == 0 || k.Name < oldest.Name { // made within one second
			oldest = k
		}
	}
	b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", KeyRegistration{last})) // again
	if a := b.call(brandt, "POST", "/approval-keys", KeyRegistration{publicKey(t)}); a.status != http.StatusConflict || !strings.Contains(string(a.body), "may have 8") || !strings.Contains(string(a.body), "kaphera approvals key delete key-") {
		t.Fatalf("one more: %d %s", a.status, a.body)
	}
	b.want(http.StatusCreated, b.call(renate, "POST", "/approval-keys", KeyRegistration{publicKey(t)}))
	b.want(http.StatusNoContent, b.call(brandt, "DELETE", "/approval-keys/"+oldest.Name, nil))
	b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", KeyRegistration{publicKey(t)}))
}

func TestOnlyAKeyItselfIsKept(t *testing.T) {
	b := setup(t)
	var members map[string]any
	if err := json.Unmarshal(publicKey(t), &members); err != nil {
		t.Fatal(err)
	}
	members["use"], members["note"] = "sig", strings.Repeat("x", 1000)
	raw, err := json.Marshal(map[string]any{"publicKey": members})
	if err != nil {
		t.Fatal(err)
	}
	k := decodeTo[ApprovalKey](t, b.want(http.StatusCreated, b.call(brandt, "POST", "/approval-keys", string(raw))))
	var kept map[string]any
	if err := json.Unmarshal(k.Spec.PublicKey.Raw, &kept); err != nil || len(kept) != 4 || kept["x"] != members["x"] || kept["y"] != members["y"] {
		t.Errorf("kept as %s, %v", k.Spec.PublicKey.Raw, err)
	}
	program := map[string]any{"sub": "sub-ci", "azp": "ci", "preferred_username": "service-account-ci", "roles": []string{"platform-operator"}}
	if a := b.call(program, "POST", "/approval-keys", KeyRegistration{publicKey(t)}); a.status != http.StatusForbidden {
		t.Errorf("a program registers a key: %d %s", a.status, a.body)
	}
}

func TestGatesThatNoOfferCouldHaveAreRefusedWhenTheyAreWritten(t *testing.T) {
	b := setup(t)
	b.pilot()
	spec := strings.NewReplacer(`"required":2`, `"required":3`, `{"role":"organization-admin","organization":"rheintal-motoren"}`, `{"person":"renate"}`, `"before":"FINALIZED","deadline":"P7D"`, `"before":"FINALIZED","deadline":"P2Y"`).Replace(gatedUseCase)
	a := b.want(http.StatusUnprocessableEntity, b.call(authority, "PUT", "/use-cases/reviewed", wrap(spec)))
	if !a.has("spec.gates[0].required", "is 3, the gate has 2 approvers") || !a.has("spec.gates[1].deadline", "at most a year") {
		t.Errorf("refused with %s", a.body)
	}
}
