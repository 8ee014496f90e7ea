// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/gate/gatetest"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
	"github.com/kaphera/kaphera/connector/usecase"
)

const purposePolicy = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/policy/purpose","operator":"isAnyOf","rightOperand":["recall"]}]}]}`

// signs makes a key, and what signs revisions with it.
func signs(t *testing.T, id string) func(r adminapi.UseCaseRevision, at time.Time) adminapi.UseCaseRevision {
	t.Helper()
	key, raw := gatetest.NewKey(t)
	thumb, _, err := gate.PublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return func(r adminapi.UseCaseRevision, at time.Time) adminapi.UseCaseRevision {
		r.Signers = []adminapi.Approver{{ID: id, Name: id, Organization: "authority", Keys: []json.RawMessage{raw}}}
		r.SignOff, err = gate.SignJWS(key, usecase.Type, adminapi.SignOffClaims{Signer: id, UseCase: r.UseCase, Number: r.Number, Hash: r.Hash, Read: "00", Language: "en",
			Signers: []string{thumb}, IssuedAt: at.Unix()})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func revisionOf(t *testing.T, c usecase.Content) adminapi.UseCaseRevision {
	t.Helper()
	text, hash, err := usecase.Write(c)
	if err != nil {
		t.Fatal(err)
	}
	return adminapi.UseCaseRevision{UseCase: c.UseCase, Number: c.Number, Hash: hash, Content: text}
}

// purposeful is the pilot's profile with the operand of purposePolicy.
func purposeful(authority string) profile.Profile {
	f := pilot(authority)
	f.Operands = append(f.Operands, profile.Operand{Name: "https://example.org/policy/purpose", Subject: profile.SubjectConsumer, Expression: "request.purpose", ValueType: profile.ValueString,
		Operators: []string{"isAnyOf"}, Phases: []profile.Phase{profile.PhaseNegotiation, profile.PhaseTransfer, profile.PhaseAccess}, Purpose: true, Sentence: profile.Translation{EN: "it is for {right}"}})
	return f
}

// TestOnlyASignedRevisionChangesOffersAndNoneChangesAgreements: the runtime proves the sign-off itself.
func TestOnlyASignedRevisionChangesOffersAndNoneChangesAgreements(t *testing.T) {
	authority := start(t, []runtime.Role{runtime.Issuer})
	c := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet, runtime.DataPlane})
	authority.call(http.MethodPut, authority.admin(runtime.Issuer, "/issuers/authority"), adminapi.IssuerConfig{DID: authority.did("authority"),
		Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P365D"}}}, nil)
	f := purposeful(authority.did("authority"))
	for _, ctx := range []string{"supplier", "buyer"} {
		c.join(ctx, authority, f, map[string]any{"MembershipCredential": map[string]any{"member": true}})
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"data"`) }))
	defer backend.Close()
	c.call(http.MethodPut, c.api("supplier", "/assets/parts"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": backend.URL}}, nil)

	previous, number := "", 0
	revise := func(policy string) adminapi.UseCaseRevision {
		t.Helper()
		number++
		content, err := usecase.Make(usecase.Content{UseCase: "recall", Number: number, Previous: previous, AssetType: "urn:parts", ContractPolicy: json.RawMessage(policy),
			Signers: []usecase.Person{{Role: "governance-authority"}}}, f)
		if err != nil {
			t.Fatal(err)
		}
		r := revisionOf(t, content)
		previous = r.Hash
		return r
	}
	bring := func(r adminapi.UseCaseRevision, status int, code string) {
		t.Helper()
		for _, ctx := range []string{"supplier", "buyer"} {
			var e adminapi.Error
			if got := c.status(http.MethodPut, c.api(ctx, "/use-cases/recall"), r, &e); got != status || code != "" && e.Code != code {
				t.Errorf("revision %d for %s: %d %+v, want %d %s", r.Number, ctx, got, e, status, code)
			}
		}
	}
	offered := func() (entry adminapi.CatalogEntry) {
		t.Helper()
		var all []adminapi.CatalogEntry
		c.call(http.MethodGet, c.api("buyer", "/catalog?counterparty="+url.QueryEscape(c.did("supplier"))), nil, &all)
		if len(all) != 1 {
			t.Fatalf("catalog %+v", all)
		}
		return all[0]
	}
	agree := func() (a adminapi.Agreement) {
		t.Helper()
		var n adminapi.Negotiation
		c.call(http.MethodPost, c.api("buyer", "/negotiations"), adminapi.NegotiationRequest{Counterparty: c.did("supplier"), OfferID: offered().OfferID}, &n)
		if n = c.follow("buyer", n.ID); n.State != "FINALIZED" {
			t.Fatalf("negotiation %+v", n)
		}
		c.call(http.MethodGet, c.api("buyer", "/agreements/"+n.AgreementID), nil, &a)
		return a
	}
	transfer := func(a adminapi.Agreement) (tr adminapi.Transfer) {
		t.Helper()
		c.call(http.MethodPost, c.api("buyer", "/transfers"), adminapi.TransferRequest{AgreementID: a.ID}, &tr)
		c.until("STARTED", func() bool {
			c.call(http.MethodGet, c.api("buyer", "/transfers/"+tr.ID), nil, &tr)
			return tr.State == "STARTED"
		})
		return tr
	}
	ada, eve, now := signs(t, "ada"), signs(t, "eve"), time.Now()
	first := revise(purposePolicy)
	bring(first, http.StatusConflict, usecase.CodeUnsigned)
	bring(ada(first, now), http.StatusOK, "")
	var e adminapi.Error
	other := adminapi.Offer{Assets: []string{"parts"}, UseCase: "recall", ContractPolicy: json.RawMessage(policy)}
	if status := c.status(http.MethodPut, c.api("supplier", "/offers/parts"), other, &e); status != http.StatusConflict || e.Code != "not-in-force" {
		t.Errorf("an offer with another policy than the use case's: %d %+v", status, e)
	}
	other.ContractPolicy = json.RawMessage(purposePolicy)
	c.call(http.MethodPut, c.api("supplier", "/offers/parts"), other, nil)
	before := agree()
	running := transfer(before)

	second := revise(strings.Replace(purposePolicy, "recall", "passport", 1))
	standing := offered().OfferID
	bring(second, http.StatusConflict, usecase.CodeUnsigned)
	bring(eve(second, now.Add(time.Second)), http.StatusConflict, usecase.CodeForged)
	if offered().OfferID != standing {
		t.Error("a revision that is not signed off has changed the offer")
	}
	bring(ada(second, now.Add(time.Second)), http.StatusOK, "")
	bring(ada(second, now.Add(time.Second)), http.StatusOK, "") // again is no error
	bring(ada(first, now), http.StatusConflict, usecase.CodeOlder)
	if o := offered(); o.OfferID == standing || !strings.Contains(string(o.Policy), "passport") {
		t.Errorf("the signed revision does not show in the catalog: %s", o.Policy)
	}
	after := agree()
	for number, a := range map[int]adminapi.Agreement{1: before, 2: after} {
		var sold adminapi.Agreement
		c.until("the supplier's agreement", func() bool {
			return c.status(http.MethodGet, c.api("supplier", "/agreements/"+a.ID), nil, &sold) == http.StatusOK
		})
		for who, seen := range map[string]adminapi.Agreement{"buyer": a, "supplier": sold} {
			if want := map[int]string{1: first.Hash, 2: second.Hash}[number]; seen.UseCase != "recall" || seen.UseCaseRevision == nil || *seen.UseCaseRevision != (adminapi.RevisionRef{Number: number, Hash: want}) {
				t.Errorf("the %s's agreement under revision %d names %s %+v", who, number, seen.UseCase, seen.UseCaseRevision)
			}
		}
	}
	// Every access is judged by the policy that was agreed, in a transfer that runs and in a new one.
	for _, tr := range []adminapi.Transfer{running, transfer(before)} {
		var data string
		c.call(http.MethodGet, c.api("buyer", "/transfers/"+tr.ID+"/data"), nil, &data)
		if data != "data" {
			t.Errorf("under the first agreement came %q", data)
		}
	}
	var revisions []string
	records, _ := c.trail("supplier", "", "")
	for _, r := range records {
		if r.Type == audit.UseCase {
			var body struct {
				SHA256  string   `json:"sha256"`
				SignOff string   `json:"signOff"`
				Offers  []string `json:"offers"`
			}
			if err := json.Unmarshal(r.Body, &body); err != nil || body.SignOff == "" {
				t.Errorf("record %s: %v", r.Body, err)
			}
			revisions = append(revisions, body.SHA256+strings.Join(body.Offers, ","))
		}
	}
	if len(revisions) != 2 || revisions[0] != first.Hash || revisions[1] != second.Hash+"parts" {
		t.Errorf("on record are %v", revisions)
	}

	// What was signed off is not what the profile means from now on: nothing new is agreed, agreements stand.
	var made adminapi.Negotiation
	toBuyer := adminapi.OfferRequest{Counterparty: c.did("buyer")}
	c.call(http.MethodPost, c.api("supplier", "/offers/parts/negotiations"), toBuyer, &made)
	c.until("the offer at the buyer", func() bool {
		c.call(http.MethodGet, c.api("supplier", "/negotiations/"+made.ID), nil, &made)
		return made.Step == state.Offered && made.CounterpartyPID != ""
	})
	f.Operands[len(f.Operands)-1].Expression = `"" + request.purpose`
	c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/profiles/"+f.Name), f, nil)
	var all []adminapi.CatalogEntry
	if c.call(http.MethodGet, c.api("buyer", "/catalog?counterparty="+url.QueryEscape(c.did("supplier"))), nil, &all); len(all) != 0 {
		t.Errorf("offered is %+v", all)
	}
	const says = "https://example.org/policy/purpose another meaning since revision 2 of use case recall was signed off"
	if status := c.status(http.MethodPost, c.api("supplier", "/offers/parts/negotiations"), toBuyer, &e); status != http.StatusConflict || e.Code != "not-in-force" || !strings.Contains(e.Message, says) {
		t.Errorf("an offer is made: %d %+v", status, e)
	}
	c.call(http.MethodPost, c.api("buyer", "/negotiations/"+made.CounterpartyPID+"/accept"), nil, nil)
	if made = c.follow("supplier", made.ID); made.State != state.Terminated || made.Reason == nil || made.Reason.Code != "not-in-force" || !strings.Contains(made.Reason.Message, says) {
		t.Errorf("an offer of before is accepted: %s %+v", made.State, made.Reason)
	}
	var data string
	if c.call(http.MethodGet, c.api("buyer", "/transfers/"+running.ID+"/data"), nil, &data); data != "data" {
		t.Errorf("under the first agreement came %q", data)
	}
	bring(ada(revise(strings.Replace(purposePolicy, "recall", "passport", 1)), now.Add(2*time.Second)), http.StatusOK, "")
	agree()
}

// TestARevisionMeansWhatItsProfileMeans: whatever was signed, a connector takes no revision that it would judge otherwise, or that is signed in the future, and
// puts no offer of another profile under it.
func TestARevisionMeansWhatItsProfileMeans(t *testing.T) {
	c := start(t, []runtime.Role{runtime.ControlPlane, runtime.Wallet})
	f := purposeful(c.did("authority"))
	f.RequiredCredentials = nil
	other := f
	other.Name = "other"
	for _, p := range []profile.Profile{f, other} {
		c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/profiles/"+p.Name), p, nil)
	}
	c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/participants/supplier"), adminapi.Participant{DID: c.did("supplier"), Profile: f.Name, FurtherProfiles: []string{other.Name}, Active: true}, nil)
	c.call(http.MethodPut, c.admin(runtime.Wallet, "/participants/supplier"), adminapi.WalletParticipant{DID: c.did("supplier"), TrustedIssuers: f.TrustedIssuers}, nil)
	c.call(http.MethodPut, c.api("supplier", "/assets/parts"), adminapi.Asset{DataAddress: map[string]string{"type": "HttpData", "baseUrl": "https://backend.example"}}, nil)
	ada, now := signs(t, "ada"), time.Now()
	made := func(change func(*usecase.Content)) adminapi.UseCaseRevision {
		t.Helper()
		content, err := usecase.Make(usecase.Content{UseCase: "recall", Number: 1, AssetType: "urn:parts", ContractPolicy: json.RawMessage(purposePolicy),
			Signers: []usecase.Person{{Role: "governance-authority"}}}, f)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&content)
		}
		return revisionOf(t, content)
	}
	for _, tc := range []struct {
		name       string
		r          adminapi.UseCaseRevision
		status     int
		code, says string
	}{
		{"an operand of another meaning", ada(made(func(c *usecase.Content) { c.Operands[0].Expression = "'recall'" }), now), http.StatusConflict, usecase.CodeChanged, "policy/purpose"},
		{"an operand that is left out", ada(made(func(c *usecase.Content) { c.Operands = nil }), now), http.StatusConflict, usecase.CodeChanged, "policy/purpose"},
		{"a sign-off of tomorrow", ada(made(nil), now.AddDate(0, 0, 1)), http.StatusConflict, usecase.CodeForged, "yet to come"},
		{"what is signed and meant", ada(made(nil), now), http.StatusOK, "", ""},
	} {
		var e adminapi.Error
		if status := c.status(http.MethodPut, c.api("supplier", "/use-cases/recall"), tc.r, &e); status != tc.status || e.Code != tc.code || !strings.Contains(e.Message, tc.says) {
			t.Errorf("%s: %d %+v, want %d %s", tc.name, status, e, tc.status, tc.code)
		}
	}
	for _, tc := range []struct {
		name     string
		profiles []string
		status   int
	}{
		{"in the default profile", nil, http.StatusOK}, {"in the use case's", []string{f.Name}, http.StatusOK},
		{"in another", []string{other.Name}, http.StatusConflict}, {"in both", []string{f.Name, other.Name}, http.StatusConflict},
	} {
		var e adminapi.Error
		o := adminapi.Offer{Assets: []string{"parts"}, UseCase: "recall", Profiles: tc.profiles, ContractPolicy: json.RawMessage(purposePolicy)}
		if status := c.status(http.MethodPut, c.api("supplier", "/offers/parts"), o, &e); status != tc.status || status != http.StatusOK && (e.Code != "not-in-force" || !strings.Contains(e.Message, "profile other")) {
			t.Errorf("an offer %s: %d %+v, want %d", tc.name, status, e, tc.status)
		}
	}
}
