// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

func supplier() client.Participant {
	return client.Participant{
		Name: "supplier", ManagedBy: "terraform", Revision: "1-ab",
		Spec: client.ParticipantSpec{Organization: "brandt-guss", Cell: "shared", Profile: "automotive", Identity: client.Identity{Context: "brandt-guss", BusinessPartnerNumber: "BPNL0000000CAST1"},
			Credentials: []client.HolderCredential{{Type: "MembershipCredential", Claims: json.RawMessage(`{"holderIdentifier":"BPNL0000000CAST1"}`)},
				{Type: attestation, Claims: json.RawMessage(`{"completedAt":"2026-06-01T00:00:00Z"}`)}}},
		Status: client.ParticipantStatus{DID: supplierDID,
			Checks:     []client.OnboardingCheck{{Name: "ContactNamed", State: "Passed"}, {Name: "DIDReachable", State: "Failed", Reason: "the gateway answered 404"}},
			Conditions: []client.Condition{{Type: "Ready", Status: "False", Reason: "NotOnboarded", Message: "waits for DIDReachable"}}},
	}
}

func TestGetAndDescribe(t *testing.T) {
	b := setup(t)
	b.answer("GET /api/v1/participants", client.ParticipantList{Items: []client.Participant{supplier()}})
	b.answer("GET /api/v1/participants/supplier", supplier())
	b.answer("GET /api/v1/use-cases", client.UseCaseList{Items: []client.UseCase{}})
	refused := negotiation("REQUESTED", "TERMINATED")
	refused.Traces = []client.Trace{trace("2025-09-01T00:00:00Z", false)}
	refused.Reason = client.Reason{Code: "policy-denied", By: "own", Message: "the attestation is 13 months old"}
	b.answer("GET /api/v1/participants/oem/negotiations", client.NegotiationList{Items: []client.Negotiation{refused, negotiation("REQUESTED", "AGREED", "FINALIZED")}})
	b.answer("GET /api/v1/participants/oem/negotiations/n1", refused)
	b.answer("GET /api/v1/participants/oem/agreements/a1", client.Agreement{ID: "a1", AssetID: "pcf", Policy: json.RawMessage(`{"@type":"Agreement"}`)})
	if r := b.run("describe", "agreement", "a1", "-p", "oem"); r.code != ExitOK || !strings.Contains(r.out, "'@type': Agreement") {
		t.Errorf("an agreement without its policy: %s", r.out)
	}
	b.golden("get-participants", b.run("get", "participants"))
	b.golden("get-one-yaml", b.run("get", "participant", "supplier", "-o", "yaml"))
	b.golden("get-none", b.run("get", "use-cases"))
	b.golden("get-negotiations", b.run("get", "negotiations", "--participant", "oem"))
	if r := b.run("get", "negotiations", "-p", "oem", "-o", "wide"); !strings.Contains(r.out, supplierDID) {
		t.Errorf("wide, without the DID: %s", r.out)
	}
	b.golden("describe-participant", b.run("describe", "participant", "supplier"))
	b.golden("describe-negotiation", b.run("describe", "negotiation", "n1", "-p", "oem"))
	b.tty = true
	b.golden("describe-negotiation-tty", b.run("describe", "negotiation", "n1", "-p", "oem"))
}

func TestEveryKindIsListedAndRead(t *testing.T) {
	b := setup(t)
	for _, n := range (&app{}).nouns() {
		path, flags := "/api/v1/"+n.name, []string{}
		if n.ofParty {
			path, flags = "/api/v1/participants/oem/"+n.name, []string{"-p", "oem"}
		}
		b.on("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"items":[{"name":"one","id":"one"}]}`))
		})
		b.on("GET "+path+"/one", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"name":"one","id":"one"}`))
		})
		for _, args := range [][]string{{"get", n.name}, {"get", n.aliases[0], "one"}, {"describe", n.name, "one"}} {
			r := b.run(append(args, flags...)...)
			lines := strings.Split(r.out, "\n")
			if r.code != ExitOK || len(lines) < 2 || !strings.HasPrefix(lines[1], "one") || len(strings.Split(lines[0], "  ")) < len(n.columns) {
				t.Errorf("%v: exit %d\n%s%s", args, r.code, r.out, r.err)
			}
		}
	}
}

func TestAllPagesAreRead(t *testing.T) {
	b := setup(t)
	b.on("GET /api/v1/organizations", func(w http.ResponseWriter, r *http.Request) {
		page := client.OrganizationList{Items: []client.Organization{{Name: "a"}}, Next: "a"}
		if r.URL.Query().Get("after") == "a" {
			page = client.OrganizationList{Items: []client.Organization{{Name: "b"}}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(page)
	})
	if r := b.run("get", "organizations"); strings.Count(r.out, "\n") != 3 {
		t.Errorf("got %s", r.out)
	}
}

func TestOffersAndAssets(t *testing.T) {
	b := setup(t)
	file := filepath.Join(t.TempDir(), "asset.yaml")
	if err := os.WriteFile(file, []byte("id: pcf\nproperties: {name: PCF}\ndataAddress: {type: HttpData, baseUrl: https://backend.example}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.answer("PUT /api/v1/participants/supplier/assets/pcf", client.Asset{ID: "pcf"})
	b.answer("DELETE /api/v1/participants/supplier/assets/pcf", nil)
	b.answer("DELETE /api/v1/participants/supplier/offers/o1", nil)
	b.answer("POST /api/v1/participants/supplier/offers", client.Offer{ID: "pcf--carbon-footprint", State: "Offered", Assets: []string{"pcf"}})
	for _, c := range []struct {
		args []string
		out  string
	}{
		{[]string{"asset", "put", "supplier", "-f", file}, "Asset pcf put."},
		{[]string{"offer", "create", "supplier", "--asset", "pcf", "--use-case", "carbon-footprint"}, "Offer pcf--carbon-footprint: Offered"},
		{[]string{"offer", "withdraw", "supplier", "o1"}, "Offer o1 withdrawn"},
		{[]string{"asset", "delete", "supplier", "pcf"}, "Asset pcf removed"},
	} {
		if r := b.run(c.args...); r.code != ExitOK || !strings.Contains(r.out, c.out) {
			t.Errorf("%v: %d %s%s", c.args, r.code, r.out, r.err)
		}
	}
	b.input = `{"id":"pcf","dataAddress":{"type":"HttpData"},"properties":{}}`
	if r := b.run("asset", "put", "supplier", "-f", "-"); r.code != ExitOK {
		t.Errorf("from standard input: %d %s", r.code, r.err)
	}
	b.input = "id: pcf\ncolour: red\n"
	if r := b.run("asset", "put", "supplier", "-f", "-"); r.code != ExitUsage || !strings.Contains(r.err, "colour") {
		t.Errorf("an unknown field: %d %s", r.code, r.err)
	}
	b.on("POST /api/v1/participants/supplier/offers", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, client.Problem{Status: 403, Code: "policy-denied", Title: "Forbidden", Detail: "the attestation is 13 months old", Trace: trace("2025-09-01T00:00:00Z", false)})
	})
	b.golden("offer-refused", b.run("offer", "create", "supplier", "--asset", "pcf", "--use-case", "carbon-footprint"))
}

func TestEndingAProcessTellsTheReason(t *testing.T) {
	b := setup(t)
	for _, what := range []string{"negotiation", "transfer"} {
		call := "POST /api/v1/participants/oem/" + what + "s/x1/terminate"
		b.on(call, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		r := b.run("terminate", what, "x1", "-p", "oem", "--reason", "ordered by mistake")
		if got := b.called(call); r.code != ExitOK || len(got) != 1 || !strings.Contains(got[0], `{"reason":"ordered by mistake"}`) {
			t.Errorf("%s: %d %s %v", what, r.code, r.err, got)
		}
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusConflict, "conflict", "it has ended")
		})
		if r := b.run("terminate", what, "x1", "-p", "oem", "--reason", "again"); r.code != ExitFailed || !strings.Contains(r.err, "it has ended") {
			t.Errorf("%s that has ended: %d %s", what, r.code, r.err)
		}
		if r := b.run("terminate", what, "x1", "-p", "oem"); r.code != ExitUsage {
			t.Errorf("%s without a reason: %d %s", what, r.code, r.err)
		}
	}
}

func TestDecidingOnTerms(t *testing.T) {
	b := setup(t)
	file := filepath.Join(t.TempDir(), "terms.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("'@type': Set\npermission:\n- action: use\n")
	counter, accept, send := "POST /api/v1/participants/oem/negotiations/n1/counter", "POST /api/v1/participants/oem/negotiations/n1/accept", "POST /api/v1/participants/oem/offers/pcf/negotiations"
	for call, args := range map[string][]string{counter: {"counter", "n1", "-p", "oem", "--policy", file, "--offer", "o2"}, accept: {"accept", "n1", "-p", "oem", "--terms", "5f3a"},
		send: {"offer", "send", "oem", "pcf", "--to", "supplier", "--policy", file}} {
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if call == send {
				w.WriteHeader(http.StatusCreated)
			}
			_ = json.NewEncoder(w).Encode(negotiation("OFFERED"))
		})
		r := b.run(args...)
		got := b.called(call)
		if r.code != ExitOK || len(got) != 1 || !strings.Contains(r.out, "kaphera describe negotiation") {
			t.Errorf("%s: %d %s%s %v", args[0], r.code, r.out, r.err, got)
		}
		if call == counter && !strings.Contains(got[0], `{"offerId":"o2","policy":{"@type":"Set","permission":[{"action":"use"}]}}`) {
			t.Errorf("sent %s", got[0])
		}
		if call == accept && !strings.Contains(got[0], `{"termsHash":"5f3a"}`) {
			t.Errorf("sent %s", got[0])
		}
		if call == send && !strings.Contains(got[0], `{"counterparty":"supplier","id":"id-1","policy":{"@type":"Set","permission":[{"action":"use"}]}}`) {
			t.Errorf("sent %s", got[0])
		}
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusConflict, "conflict", "it has ended")
		})
		if r := b.run(args...); r.code != ExitFailed || !strings.Contains(r.err, "it has ended") {
			t.Errorf("%s after the end: %d %s", args[0], r.code, r.err)
		}
	}
	write("permission: [")
	if r := b.run("counter", "n1", "-p", "oem", "--policy", file); r.code != ExitUsage || !strings.Contains(r.err, "terms.yaml") {
		t.Errorf("a file that is no policy: %d %s", r.code, r.err)
	}
	if r := b.run("counter", "n1", "-p", "oem"); r.code != ExitUsage {
		t.Errorf("without terms: %d %s", r.code, r.err)
	}
}

func TestASecretIsStoredAndNeverShown(t *testing.T) {
	b := setup(t)
	const call = "PUT /api/v1/participants/supplier/secrets/key"
	b.answer(call, nil)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("from a file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		input string
		args  []string
		want  string
	}{"standard input": {"s3cret\n", nil, "s3cret"}, "a file": {"", []string{"--from-file", file}, "from a file"}} {
		b.input = c.input
		r := b.run(append([]string{"secret", "put", "supplier", "key"}, c.args...)...)
		got := b.called(call)
		if r.code != ExitOK || !strings.HasSuffix(got[len(got)-1], `{"value":"`+c.want+`"}`) {
			t.Errorf("%s: %d %s %v", name, r.code, r.err, got)
		}
		if strings.Contains(r.out+r.err, c.want) {
			t.Errorf("%s: it is shown: %s%s", name, r.out, r.err)
		}
	}
	for name, input := range map[string]string{"nothing": "\n", "too much": strings.Repeat("x", secretLimit+1)} {
		if b.input = input; b.run("secret", "put", "supplier", "key").code != ExitUsage {
			t.Errorf("%s was accepted", name)
		}
	}
	if r := b.run("secret", "put", "supplier", "key", "--from-file", "/absent"); r.code != ExitUsage || !strings.Contains(r.err, "/absent") {
		t.Errorf("no such file: %d %s", r.code, r.err)
	}
}
