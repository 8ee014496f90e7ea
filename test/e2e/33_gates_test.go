// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
)

// held starts a negotiation under a use case with one gate, and waits until the provider holds it, or its deadline has passed meanwhile. It returns the
// consumer's and the provider's id.
func held(t *testing.T, useCase, asset string) (consumers, providers string) {
	t.Helper()
	api := cloud(t)
	a := client.Asset{ID: asset, Properties: map[string]any{"name": asset}, DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.supplier-backend.svc:8080/documents/none"}}
	if _, err := api.PutAssetWithResponse(t.Context(), "supplier", asset, a); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a revision of "+useCase+" in force, to offer "+asset+" under", func(ctx context.Context) (bool, string) {
		_, err := api.CreateOfferWithResponse(ctx, "supplier", client.OfferCreate{ID: "offer-" + asset, Asset: asset, UseCase: useCase})
		return err == nil, fmt.Sprint(err)
	})
	n := startNegotiation(t, api, "oem", "supplier", asset)
	eventually(t, "a gate that holds negotiation "+n.ID, func(ctx context.Context) (bool, string) {
		r, err := api.GetNegotiationWithResponse(ctx, "oem", n.ID)
		if err != nil {
			return false, err.Error()
		}
		n = *r.JSON200
		if n.CounterpartyPid == "" {
			return false, n.State
		}
		r, err = api.GetNegotiationWithResponse(ctx, "supplier", n.CounterpartyPid)
		if err != nil {
			return false, err.Error()
		}
		gates := r.JSON200.Gates
		return len(gates) == 1 && (gates[0].State == string(adminapi.GateOpen) || gates[0].State == string(adminapi.GateLate)), string(r.Body)
	})
	return n.ID, n.CounterpartyPid
}

// atProvider is a negotiation as its provider has it.
func atProvider(t *testing.T, id string) client.Negotiation {
	t.Helper()
	r, err := cloud(t).GetNegotiationWithResponse(t.Context(), "supplier", id)
	if err != nil {
		t.Fatal(err)
	}
	return *r.JSON200
}

func becomes(t *testing.T, participant, id, state string) (n client.Negotiation) {
	t.Helper()
	eventually(t, participant+"'s negotiation "+id+" in "+state, func(ctx context.Context) (bool, string) {
		r, err := cloud(t).GetNegotiationWithResponse(ctx, participant, id)
		if err != nil {
			return false, err.Error()
		}
		n = *r.JSON200
		return n.State == state, string(r.Body)
	})
	return n
}

// The authority lets a carbon footprint pass by hand; until then it waits, and says for whom.
func TestTheAuthorityTriggersByHand(t *testing.T) {
	decider(t, "gabriel")
	consumers, providers := held(t, "carbon-footprint", "e2e-by-hand")
	g := atProvider(t, providers).Gates[0]
	if g.Name != "release" || !g.ByHand || len(g.WaitsFor) != 1 || g.WaitsFor[0].Name != "Gabriel Okafor" || !strings.Contains(g.Words, "Gabriel Okafor (governance-authority) must let it pass") {
		t.Errorf("the gate is %+v", g)
	}
	if out := must(t, "kaphera", "describe", "negotiation", providers, "--participant", "supplier"); !strings.Contains(out, "Gabriel Okafor") {
		t.Errorf("the CLI does not say for whom it waits:\n%s", out)
	}
	decide(t, "gabriel", "trigger", providers)
	becomes(t, "oem", consumers, "FINALIZED")
	becomes(t, "supplier", providers, "FINALIZED")
}

// Two companies approve: one approval is not enough, a second person of the same company does not count, and what is forged, replayed, or about
// something else is refused by the provider's connector, whoever hands it in.
func TestTwoCompaniesApprove(t *testing.T) {
	for _, person := range []string{"renate", "robert", "berta"} {
		decider(t, person)
	}
	consumers, providers := held(t, "quality-recall", "e2e-two-companies")
	about := awaited(t, "berta", providers)
	key := map[string]jwk.Key{}
	claims := func(person string) adminapi.DecisionClaims {
		k, subject := privateKey(t, person)
		key[person] = k
		now := time.Now()
		return adminapi.DecisionClaims{Approver: subject, Provider: about.Provider, Negotiation: providers, Offer: about.OfferHash, Gate: about.Gate.Name, Verdict: adminapi.Approve,
			IssuedAt: now.Unix(), Expires: now.Add(10 * time.Minute).Unix(), ID: uuid.NewString()}
	}
	renate, robert, berta := claims("renate"), claims("robert"), claims("berta")
	other := berta
	other.Offer = strings.Repeat("0", 64)
	late := berta
	late.IssuedAt, late.Expires = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	for _, c := range []struct {
		name   string
		signer string
		claims adminapi.DecisionClaims
		want   string
	}{
		{"berta's, signed with renate's key", "renate", berta, "decision-forged"},
		{"about another offer", "berta", other, "other-offer"},
		{"of an hour ago", "berta", late, "decision-expired"},
		{"renate's", "renate", renate, ""},
		{"renate's again", "renate", renate, "decision-replayed"},
		{"of a second person of renate's company", "robert", robert, "same-organization"},
	} {
		if got := handIn(t, "supplier", key[c.signer], c.claims); got != c.want {
			t.Errorf("a decision %s: %q, want %q", c.name, got, c.want)
		}
	}
	n := atProvider(t, providers)
	if n.State != "VERIFIED" || !strings.Contains(n.Gates[0].Words, "1 of 2 approvals are given, from 1 of 2 organizations; it waits for Berta Wolff (brandt-guss)") {
		t.Errorf("after one approval it is %s: %s", n.State, n.Gates[0].Words)
	}
	decide(t, "berta", "approve", providers)
	becomes(t, "oem", consumers, "FINALIZED")
	if got := handIn(t, "supplier", key["robert"], robert); got != "gate-closed" {
		t.Errorf("after the end: %q", got)
	}
}

func TestOneRejectionEndsIt(t *testing.T) {
	decider(t, "renate")
	decider(t, "berta")
	consumers, providers := held(t, "quality-recall", "e2e-rejected")
	decide(t, "renate", "approve", providers)
	decide(t, "berta", "reject", providers)
	if n := becomes(t, "supplier", providers, "TERMINATED"); n.Reason.Code != "gate-rejected" || !strings.Contains(n.Gates[0].Words, "Berta Wolff (brandt-guss) rejected it") {
		t.Errorf("it ended with %+v: %s", n.Reason, n.Gates[0].Words)
	}
	if n := becomes(t, "oem", consumers, "TERMINATED"); n.Reason.By != "counterparty" || strings.Contains(n.Reason.Message, "Berta") {
		t.Errorf("the consumer is told %+v", n.Reason)
	}
}

// A person approves in the browser, with a key that the browser made.
func TestApprovingInTheBrowser(t *testing.T) {
	decider(t, "renate")
	b := newBrowser(t, "en")
	b.logIn("/approvals", "berta")
	b.check("approvals-without-key")
	b.do("make a key", click("[data-key]"))
	b.await("[data-approvals] [data-message]", "Your key is registered")
	consumers, providers := held(t, "quality-recall", "e2e-browser")
	decide(t, "renate", "approve", providers)
	b.open("/participants/supplier/negotiations/"+providers, "negotiation-held")
	if got := b.text(".waiting"); !strings.Contains(got, "Waits for a decision") || !strings.Contains(got, "it waits for Berta Wolff (brandt-guss)") {
		t.Errorf("the negotiation's page says: %s", got)
	}
	b.open("/approvals", "approvals")
	item := `.approval[data-negotiation="` + providers + `"]`
	for _, words := range []string{"e2e-browser", "1 of 2 approvals", "cx.core.qualityNotifications:1", "Renate Vogt (rheintal-motoren): approves"} {
		if got := b.text(item); !strings.Contains(got, words) {
			t.Errorf("the approval does not show %q: %s", words, got)
		}
	}
	b.do("approve", chromedp.SendKeys(chromedp.CSS(item+" input[name=comment]"), "seen in the browser"), click(item+" button[value=approve]"), chromedp.WaitNotPresent(chromedp.CSS(item)))
	b.check("approvals-decided")
	becomes(t, "oem", consumers, "FINALIZED")
	var comments []string
	for _, d := range atProvider(t, providers).Gates[0].Decided {
		comments = append(comments, d.By.Name+": "+d.Comment)
	}
	if got := strings.Join(comments, ", "); got != "Renate Vogt: e2e, Berta Wolff: seen in the browser" {
		t.Errorf("decided: %s", got)
	}
	german := newBrowser(t, "de")
	german.logIn("/approvals", "berta")
	german.check("approvals-de")
}

// A gate that nobody decides at ends the negotiation when its time is over.
func TestADeadlinePasses(t *testing.T) {
	decider(t, "gabriel")
	api := cloud(t)
	u, err := api.GetUseCaseWithResponse(t.Context(), "carbon-footprint")
	if err != nil {
		t.Fatal(err)
	}
	short := u.JSON200.Spec
	short.Signers = nil // at once
	short.Gates = []client.UseCaseGate{{Name: "soon", Type: "Approval", Before: "AGREED", Deadline: "PT20S", Required: 1, Approvers: []client.ApproverRef{{Person: "gabriel"}}}}
	if _, err := api.PutUseCaseWithResponse(t.Context(), "e2e-deadline", &client.PutUseCaseParams{}, client.UseCase{Spec: short}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := api.DeleteUseCaseWithResponse(context.WithoutCancel(t.Context()), "e2e-deadline", &client.DeleteUseCaseParams{Force: true}); err != nil {
			t.Error(err)
		}
	})
	_, providers := held(t, "e2e-deadline", "e2e-deadline")
	if n := becomes(t, "supplier", providers, "TERMINATED"); n.Reason.Code != "gate-late" || n.AgreementID != "" {
		t.Errorf("it ended with %+v, agreement %q", n.Reason, n.AgreementID)
	}
}

// What happened is on the trail, which verifies with the heads that the cloud keeps, and not once a record of it was changed.
func TestTheAuditTrailOfTheCluster(t *testing.T) {
	var records []struct {
		Type string `json:"type"`
		Seq  int64  `json:"seq"`
	}
	if err := json.Unmarshal([]byte(must(t, "kaphera", "audit", "tail", "supplier", "-n", "1000", "--type", "gate", "-o", "json")), &records); err != nil {
		t.Fatal(err)
	}
	if len(records) == 0 {
		t.Error("no decision at a gate is on record")
	}
	dir := t.TempDir()
	trail, heads := dir+"/supplier.jsonl", dir+"/supplier.heads"
	eventually(t, "an export that heads of the cloud agree with", func(context.Context) (bool, string) {
		// Again if the cloud keeps a head meanwhile that is newer than the export.
		must(t, "kaphera", "audit", "heads", "supplier", "--to", heads)
		must(t, "kaphera", "audit", "export", "supplier", "--to", trail)
		for _, with := range [][]string{{"--participant", "supplier"}, {"--checkpoint", heads}} {
			if _, all, code := command(t, "kaphera", append([]string{"audit", "verify", trail}, with...)...); code != 0 || !strings.Contains(all, "heads from elsewhere") {
				return false, all
			}
		}
		return true, ""
	})
	if out := must(t, "kaphera", "demo", "run", "audit"); !strings.Contains(out, "Found.") {
		t.Errorf("the changed record is not found:\n%s", out)
	}
}
