// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kaphera/kaphera/client"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const cellNamespace = "cell-shared"

// attestationCase is a supplier with a particular attestation.
type attestationCase struct {
	name string
	// claims of the attestation; nil grants none.
	claims map[string]any
	// afterwards changes the world once the credentials are held.
	afterwards func(t *testing.T, name, did string)
	allowed    bool
	// reasons are parts of what the consumer is told about the attestation.
	reasons []string
}

func TestAttestationsAreJudgedRightly(t *testing.T) {
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, -n).Format(time.RFC3339) }
	claims := func(extra map[string]any) map[string]any {
		c := map[string]any{"attestationId": "DQA-TEST", "providerName": "Prüfhaus Nord GmbH", "standardName": "ISO 14067"}
		for k, v := range extra {
			c[k] = v
		}
		return c
	}
	for _, c := range []attestationCase{
		{name: "363-days", claims: claims(map[string]any{"completedAt": day(363)[:10]}), allowed: true}, // a date without time, which is up to a day earlier
		{name: "366-days", claims: claims(map[string]any{"completedAt": day(366)}), reasons: []string{day(366)[:10]}},
		{name: "no-date", claims: claims(nil), reasons: []string{"completedAt"}},
		{name: "not-a-date", claims: claims(map[string]any{"completedAt": "last spring"}), reasons: []string{`"last spring" is not a date`}},
		{name: "none", reasons: []string{attestation}},
		{name: "revoked", claims: claims(map[string]any{"completedAt": day(30)}), afterwards: revoke, reasons: []string{"revoked"}},
		{name: "wrong-issuer", afterwards: issuedByTheAuthority, reasons: []string{"was issued by " + authorityDID(), "trusted: " + auditorDID()}},
		{name: "self-issued", afterwards: selfIssued, reasons: []string{"was issued by did:web:shared." + domain() + ":e2e-self-issued", "trusted: " + auditorDID()}},
	} {
		t.Run(c.name, func(t *testing.T) { judge(t, c) })
	}
}

// judge lets a supplier offer with its own check on, and then off, and the OEM negotiate.
func judge(t *testing.T, c attestationCase) {
	api := cloud(t)
	decider(t, "gabriel")
	name := "e2e-" + c.name
	did := supplier(t, api, name, c.claims, "Enforce", "Active", "CredentialsHeld")
	if c.afterwards != nil {
		c.afterwards(t, name, did)
	}
	asset := client.Asset{
		ID:          "pcf-" + c.name,
		Properties:  map[string]any{"name": "Footprint " + c.name, "dct:type": "https://w3id.org/catenax/taxonomy#PcfExchange"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.supplier-backend.svc:8080/documents/none"},
	}
	if _, err := api.PutAssetWithResponse(t.Context(), name, asset.ID, asset); err != nil {
		t.Fatal(err)
	}
	offer := client.OfferCreate{ID: "offer-" + c.name, Asset: asset.ID, UseCase: "carbon-footprint"}
	_, err := api.CreateOfferWithResponse(t.Context(), name, offer)
	if c.allowed {
		if err != nil {
			t.Fatalf("the supplier may offer, but: %v", err)
		}
	} else {
		e := client.AsError(err)
		if e == nil || e.Code != "policy-denied" || !denies(e.Trace, c.reasons) {
			t.Fatalf("the offer must be refused with the attestation's reasons (%q); got %v %+v", c.reasons, err, e)
		}
		// A connector that does not check itself offers all the same.
		supplier(t, api, name, c.claims, "Off", "Active") // a revoked credential is not held any more
		eventually(t, "offer without self-check", func(ctx context.Context) (bool, string) {
			_, err := api.CreateOfferWithResponse(ctx, name, offer)
			if err != nil {
				return false, err.Error()
			}
			return true, ""
		})
	}
	n := negotiate(t, api, "oem", name, asset.ID)
	switch {
	case c.allowed && n.State != "FINALIZED":
		t.Errorf("negotiation ended %s: %s", n.State, n.Reason.Message)
	case !c.allowed && n.State != "TERMINATED":
		t.Errorf("the consumer accepted: %s", n.State)
	case !c.allowed:
		found := false
		for _, tr := range n.Traces {
			found = found || denies(tr, c.reasons)
		}
		if n.Reason.Code != "policy-denied" || !found {
			t.Errorf("refused for another reason: %+v, traces %+v", n.Reason, n.Traces)
		}
	}
}

// denies reports whether a trace denies because of the attestation, with reason and remedy for people.
func denies(tr client.Trace, reasons []string) bool {
	if tr.Allowed {
		return false
	}
	for _, ch := range tr.Checks {
		if !ch.Satisfied && strings.HasSuffix(ch.LeftOperand, "DataQualityAttestationAge") {
			missing := func(r string) bool { return !strings.Contains(ch.Value+" "+ch.Reason, r) }
			return !slices.ContainsFunc(reasons, missing) && ch.Remedy != ""
		}
	}
	return false
}

// supplier creates or changes a participant and waits until conditions hold. It returns its DID.
func supplier(t *testing.T, api *client.API, name string, claims map[string]any, selfCheck string, conditions ...string) string {
	t.Helper()
	spec := client.ParticipantSpec{
		Organization: "brandt-guss", Cell: "shared", Profile: "automotive", SelfCheck: selfCheck,
		Identity: client.Identity{Context: name, BusinessPartnerNumber: "BPNL00000000TEST"},
		Credentials: []client.HolderCredential{{Type: "MembershipCredential", Claims: raw(t, map[string]any{
			"holderIdentifier": "BPNL00000000TEST", "memberOf": "Automotive pilot", "membershipStartDate": "2026-01-01T00:00:00Z",
		})}},
	}
	if claims != nil {
		spec.Credentials = append(spec.Credentials, client.HolderCredential{Type: attestation, Claims: raw(t, claims)})
	}
	written, err := api.PutParticipantWithResponse(t.Context(), name, &client.PutParticipantParams{}, client.Participant{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	var object client.Participant // 200 or 201
	if err := json.Unmarshal(written.Body, &object); err != nil {
		t.Fatal(err)
	}
	generation := object.Generation
	t.Cleanup(func() { removeParticipant(t, api, name) })
	var did string
	eventually(t, "participant "+name+": "+strings.Join(conditions, ", "), func(ctx context.Context) (bool, string) {
		p, err := api.GetParticipantWithResponse(ctx, name)
		if err != nil {
			return false, err.Error()
		}
		did = p.JSON200.Status.DID
		met := 0
		for _, c := range p.JSON200.Status.Conditions {
			if slices.Contains(conditions, c.Type) && c.Status == "True" && c.ObservedGeneration >= generation {
				met++
			}
		}
		return met == len(conditions), string(p.Body)
	})
	return did
}

func removeParticipant(t *testing.T, api *client.API, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if _, err := api.DeleteParticipantWithResponse(ctx, name, &client.DeleteParticipantParams{}); err != nil && !client.IsNotFound(err) {
		t.Errorf("remove participant %s: %v", name, err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for { // the tests after this one count participants
		_, err := api.GetParticipantWithResponse(ctx, name)
		if client.IsNotFound(err) {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("participant %s is not removed: %v", name, err)
			return
		case <-tick.C:
		}
	}
}

// negotiate finds the asset's offer in a participant's catalog, negotiates, and waits for the end. The authority lets it pass, by hand; a gate that finds the
// attestation wanting then, as when it was taken back after the consumer looked, would wait for days: the provider ends that.
func negotiate(t *testing.T, api *client.API, consumer, provider, asset string) client.Negotiation {
	t.Helper()
	last := startNegotiation(t, api, consumer, provider, asset)
	eventually(t, "end of negotiation "+last.ID, func(ctx context.Context) (bool, string) {
		n, err := api.GetNegotiationWithResponse(ctx, consumer, last.ID)
		if err != nil {
			return false, err.Error()
		}
		last = *n.JSON200
		if last.State != "VERIFIED" {
			return last.State == "FINALIZED" || last.State == "TERMINATED", string(n.Body)
		}
		held, err := api.GetNegotiationWithResponse(ctx, provider, last.CounterpartyPid)
		if err != nil {
			return false, err.Error()
		}
		for _, g := range held.JSON200.Gates {
			switch {
			case g.State != "open":
			case g.ByHand:
				decide(t, "gabriel", "trigger", last.CounterpartyPid)
			case !strings.Contains(g.Words, "has not been checked yet"):
				if _, err := api.TerminateNegotiationWithResponse(ctx, provider, last.CounterpartyPid, client.TerminationReason{Reason: g.Words}); err != nil {
					return false, err.Error() // it may have ended by itself
				}
			}
		}
		return false, string(held.Body)
	})
	return last
}

// startNegotiation finds the offer of an asset and asks for it.
func startNegotiation(t *testing.T, api *client.API, consumer, counterparty, asset string) client.Negotiation {
	t.Helper()
	var offerID string
	eventually(t, "offer of "+asset+" in the catalog", func(ctx context.Context) (bool, string) {
		catalog, err := api.GetCatalogWithResponse(ctx, consumer, &client.GetCatalogParams{Counterparty: counterparty})
		if err != nil {
			return false, err.Error()
		}
		for _, item := range catalog.JSON200.Items {
			if item.AssetID == asset {
				offerID = item.OfferID
				return true, ""
			}
		}
		return false, string(catalog.Body)
	})
	started, err := api.StartNegotiationWithResponse(t.Context(), consumer, client.NegotiationStart{Counterparty: counterparty, OfferID: offerID})
	if err != nil {
		t.Fatal(err)
	}
	var last client.Negotiation
	if err := json.Unmarshal(started.Body, &last); err != nil {
		t.Fatal(err)
	}
	return last
}

// revoke revokes the attestation of a participant.
func revoke(t *testing.T, name, _ string) {
	t.Helper()
	must(t, "kaphera", "credential", "revoke", name, heldAttestation(t, name), "--yes")
}

// heldAttestation is the id of the attestation that a participant's wallet holds.
func heldAttestation(t *testing.T, name string) (id string) {
	t.Helper()
	eventually(t, "the attestation in the list", func(context.Context) (bool, string) {
		out := must(t, "kaphera", "credential", "list", name, "-o", "json")
		var list client.Credentials
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, c := range list.Items {
			if c.Type == attestation && c.ID != "" && c.IssuerState == "Issued" {
				id = c.ID
			}
		}
		return id != "", out
	})
	return id
}

// TestCredentialsAreTakenBackAndGivenBack: the governance authority suspends, resumes and revokes an attestation; contracts that need it stop, come back and stop.
func TestCredentialsAreTakenBackAndGivenBack(t *testing.T) {
	api := cloud(t)
	const name, asset = "e2e-lifecycle", "pcf-lifecycle"
	claims := map[string]any{"attestationId": "DQA-TEST", "providerName": "Prüfhaus Nord GmbH", "standardName": "ISO 14067", "completedAt": time.Now().UTC().AddDate(0, 0, -30).Format(time.RFC3339)}
	decider(t, "gabriel")
	supplier(t, api, name, claims, "Off", "Active", "CredentialsHeld")
	if _, err := api.PutAssetWithResponse(t.Context(), name, asset, client.Asset{ID: asset, Properties: map[string]any{"name": "Footprint"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.supplier-backend.svc:8080/documents/none"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateOfferWithResponse(t.Context(), name, client.OfferCreate{Asset: asset, UseCase: "carbon-footprint"}); err != nil {
		t.Fatal(err)
	}
	ends := func(after, state string) {
		t.Helper()
		eventually(t, "a negotiation that ends "+state+" after "+after, func(context.Context) (bool, string) {
			n := negotiate(t, api, "oem", name, asset)
			return n.State == state && (state == "FINALIZED" || n.Reason.Code == "policy-denied" && slices.ContainsFunc(n.Traces, func(tr client.Trace) bool { return denies(tr, nil) })), n.State + ": " + n.Reason.Message
		})
	}
	id := heldAttestation(t, name)
	ends("the issue", "FINALIZED")
	for _, step := range []struct{ verb, says, then string }{
		{"suspend", "suspended at its issuer", "TERMINATED"}, {"resume", "issued at its issuer", "FINALIZED"},
		{"redeliver", "issued at its issuer", "FINALIZED"}, {"revoke", "revoked at its issuer", "TERMINATED"},
	} {
		args := []string{"credential", step.verb, name, id}
		if step.verb == "revoke" {
			args = append(args, "--yes")
		}
		if out := must(t, "kaphera", args...); !strings.Contains(out, step.says) {
			t.Errorf("%s says %s", step.verb, out)
		}
		ends(step.verb, step.then)
	}
	if _, out, code := command(t, "kaphera", "credential", "resume", name, id); code == 0 || !strings.Contains(out, "final") {
		t.Errorf("resuming what is revoked: exit code %d\n%s", code, out)
	}
}

// issuerName finds the CredentialIssuer whose host name starts with prefix.
func issuerName(t *testing.T, cs *kubernetes.Clientset, prefix string) string {
	t.Helper()
	var list edc.CredentialIssuerList
	getInto(t, cs, "/apis/edc.kaphera.io/v1alpha1/namespaces/"+cellNamespace+"/credentialissuers", &list)
	for _, i := range list.Items {
		if strings.HasPrefix(i.Spec.Exposure.Hostname, prefix) {
			return i.Name
		}
	}
	t.Fatalf("no CredentialIssuer with a host name that starts with %q", prefix)
	return ""
}

func getInto(t *testing.T, cs *kubernetes.Clientset, path string, into any) {
	t.Helper()
	raw, err := cs.RESTClient().Get().AbsPath(path).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
	var status metav1.Status
	if json.Unmarshal(raw, &status) == nil && status.Kind == "Status" {
		t.Fatalf("%s: %s", path, status.Message)
	}
}
