// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
)

const agreedPolicy = `{"@id":"o1","@type":"Offer","permission":[{"action":"use"}]}`

// waiting is what waits for the person of the tests.
func waiting(t *testing.T, negotiation, gateName string) client.Approval {
	t.Helper()
	policy, err := odrl.Parse(json.RawMessage(agreedPolicy))
	if err != nil {
		t.Fatal(err)
	}
	hash := gate.Terms{OfferID: "o1", AssetID: "pcf", Consumer: oemDID, Policy: policy}.Hash()
	return client.Approval{Participant: "supplier", Provider: supplierDID, Negotiation: negotiation, Counterparty: oemDID, AssetID: "pcf", OfferID: "o1", UseCase: "reviewed",
		Policy: json.RawMessage(agreedPolicy), OfferHash: hash, Verdicts: []client.PolicyVerdict{{Sentence: "The consumer is an active member.", Satisfied: true}},
		Gate: client.GateState{Name: gateName, Type: "approval", Before: "AGREED", State: "open", Deadline: noon.Add(time.Hour), Words: `gate "` + gateName + `": 0 of 1 approvals are given`, De: "de"}}
}

func TestAKeyStaysHereAndItsDecisionIsVerifiedByTheProvider(t *testing.T) {
	b := setup(t)
	var registered json.RawMessage
	b.on("POST /api/v1/approval-keys", func(w http.ResponseWriter, r *http.Request) {
		var in client.KeyRegistration
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		registered = in.PublicKey
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(client.ApprovalKey{Name: "key-1", Spec: client.ApprovalKeySpec{Subject: "sub-anna", Person: "anna", Name: "Anna Ahrens", Thumbprint: "print", PublicKey: in.PublicKey}})
	})
	b.answer("GET /api/v1/approvals", client.Approvals{Items: []client.Approval{waiting(t, "n1", "release"), waiting(t, "n2", "first"), waiting(t, "n2", "second")}, Unreachable: []string{"other"}})
	if r := b.run("approvals", "approve", "n1"); r.code != ExitFailed || !strings.Contains(r.err, "kaphera approvals key create") {
		t.Errorf("without a key: %d %s", r.code, r.err)
	}
	if r := b.run("approvals", "key", "create"); r.code != ExitOK || !strings.Contains(r.out, "Registered as Anna Ahrens's: print") {
		t.Fatalf("%d %s %s", r.code, r.out, r.err)
	}
	if strings.Contains(string(registered), `"d"`) {
		t.Error("the private half was sent")
	}
	files, err := filepath.Glob(filepath.Join(b.home, "approval-keys", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("key files: %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file is %v, %v", info.Mode(), err)
	}
	first := string(registered)
	if r := b.run("approvals", "key", "create"); r.code != ExitOK || string(registered) != first {
		t.Errorf("a second time: %d %s, registered %s", r.code, r.err, registered)
	}
	b.golden("approvals", b.run("approvals", "list"))

	var decided client.SignedDecision
	b.on("POST /api/v1/participants/supplier/negotiations/n1/decisions", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&decided); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	hash := waiting(t, "n1", "release").OfferHash
	if r := b.run("approvals", "approve", "n1", "--comment", "as discussed", "--yes", "--offer", hash); r.code != ExitOK {
		t.Fatalf("%d %s", r.code, r.err)
	}
	// The provider's side: the key that was registered, pinned with the gate.
	holds := gate.Holds([]adminapi.Gate{{Name: "release", Type: adminapi.GateApproval, Before: "AGREED", Deadline: "PT1H", Required: 1,
		Approvers: []adminapi.Approver{{ID: "sub-anna", Name: "Anna", Organization: "supplier", Keys: []json.RawMessage{registered}}}}})
	holds[0].Open(noon)
	about := gate.About{Provider: supplierDID, Negotiation: "n1", Offer: hash}
	if d, err := gate.Decide(holds, about, decided.Decision, noon); err != nil || d.Comment != "as discussed" || d.Verdict != adminapi.Approve {
		t.Errorf("the provider takes it as %+v, %v", d, err)
	}
	for name, c := range map[string]struct {
		args  []string
		code  int
		words string
	}{
		"another negotiation":  {[]string{"reject", "n9"}, ExitNotFound, "nothing of negotiation n9 waits"},
		"one of several gates": {[]string{"trigger", "n2"}, ExitUsage, "first, second"},
	} {
		if r := b.run(append([]string{"approvals"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.words) {
			t.Errorf("%s: %d %s", name, r.code, r.err)
		}
	}
	b.on("POST /api/v1/participants/supplier/negotiations/n1/decisions", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusConflict, "gate-late", "gate release had to be decided until 13:00")
	})
	if r := b.run("approvals", "approve", "n1", "--yes", "--offer", hash); r.code != ExitFailed || !strings.Contains(r.err, "had to be decided until") {
		t.Errorf("refused: %d %s", r.code, r.err)
	}
	shown := waiting(t, "n1", "release")
	shown.Policy = json.RawMessage(`{"@id":"o1","@type":"Offer","permission":[{"action":"read"}]}`)
	b.answer("GET /api/v1/approvals", client.Approvals{Items: []client.Approval{shown}})
	if r := b.run("approvals", "approve", "n1"); r.code != ExitFailed || !strings.Contains(r.err, "is not the one that its hash names") {
		t.Errorf("another offer than the hash's: %d %s", r.code, r.err)
	}
	r := b.run("approvals", "list", "-o", "json")
	var listed client.Approvals
	if err := json.Unmarshal([]byte(r.out), &listed); err != nil || len(listed.Items) != 1 || listed.Items[0].OfferHash == hash || !strings.Contains(r.err, "Decide nothing there") {
		t.Errorf("the list of it: %v, %+v %s", err, listed, r.err)
	}
	b.answer("GET /api/v1/approvals", client.Approvals{Items: []client.Approval{}})
	if r := b.run("approvals", "list"); r.code != ExitOK || !strings.Contains(r.out, "Nothing waits") {
		t.Errorf("nothing: %d %s", r.code, r.out)
	}
}

const askedPolicy = `{"@type":"Offer","permission":[{"action":"use","constraint":[{"or":[{"leftOperand":"Membership","operator":"eq","rightOperand":"active"},
	{"leftOperand":"Purpose","operator":"isAnyOf","rightOperand":["recall","\u001b[2Aaudit"]}]}],"duty":[{"action":"inform"}]}],"prohibition":[{"action":"distribute"}]}`

// TestNothingIsSignedThatWasNotShown: not without a person's yes, and where there is nobody to ask, not without the offer's hash.
func TestNothingIsSignedThatWasNotShown(t *testing.T) {
	b := setup(t)
	b.on("POST /api/v1/approval-keys", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(client.ApprovalKey{Name: "key-1", Spec: client.ApprovalKeySpec{Subject: "sub-anna", Name: "Anna Ahrens"}})
	})
	if r := b.run("approvals", "key", "create"); r.code != ExitOK {
		t.Fatalf("%d %s", r.code, r.err)
	}
	policy, err := odrl.Parse(json.RawMessage(askedPolicy))
	if err != nil {
		t.Fatal(err)
	}
	about := waiting(t, "n1", "release")
	about.Policy = policy.Raw
	about.OfferHash = gate.Terms{OfferID: about.OfferID, AssetID: about.AssetID, Consumer: about.Counterparty, Policy: policy}.Hash()
	b.answer("GET /api/v1/approvals", client.Approvals{Items: []client.Approval{about}})
	b.answer("POST /api/v1/participants/supplier/negotiations/n1/decisions", nil)
	const decisions = "POST /api/v1/participants/supplier/negotiations/n1/decisions"
	for _, c := range []struct {
		name, input string
		asks        bool
		args        []string
		code        int
		words       string
	}{
		{"nobody to ask", "y\n", false, nil, ExitUsage, "there is no terminal"},
		{"nobody to ask, the offer only", "", false, []string{"--offer", about.OfferHash}, ExitUsage, "there is no terminal"},
		{"yes to whatever it is", "", false, []string{"--yes"}, ExitUsage, "--yes needs --offer"},
		{"yes to whatever it is, at a terminal", "y\n", true, []string{"--yes"}, ExitUsage, "--yes needs --offer"},
		{"another offer", "", false, []string{"--yes", "--offer", "abcd"}, ExitFailed, "is another one than --offer names"},
		{"another offer, at a terminal", "y\n", true, []string{"--offer", "abcd"}, ExitFailed, "is another one than --offer names"},
		{"no answer", "", true, nil, ExitFailed, "nothing was signed"},
		{"no", "n\n", true, nil, ExitFailed, "nothing was signed"},
	} {
		for _, verb := range []string{"approve", "reject", "trigger"} {
			b.asks, b.input = c.asks, c.input
			if r := b.run(append([]string{"approvals", verb, "n1"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.words) {
				t.Errorf("%s, %s: %d %s", c.name, verb, r.code, r.err)
			}
		}
	}
	if sent := b.called(decisions); len(sent) > 0 {
		t.Fatalf("signed and sent: %s", sent)
	}
	b.asks, b.input = true, "y\n"
	b.golden("approve", b.run("approvals", "approve", "n1"))
	b.asks, b.input = false, ""
	if r := b.run("approvals", "reject", "n1", "--yes", "--offer", about.OfferHash, "-o", "json"); r.code != ExitOK || !json.Valid([]byte(r.out)) {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
	if sent := b.called(decisions); len(sent) != 2 {
		t.Errorf("sent %d decisions, not 2", len(sent))
	}
}

func TestKeysAreListedAndRemoved(t *testing.T) {
	b := setup(t)
	b.on("GET /api/v1/approval-keys", func(w http.ResponseWriter, r *http.Request) {
		page := client.ApprovalKeyList{Items: []client.ApprovalKey{{Name: "key-1", Spec: client.ApprovalKeySpec{Person: "anna", Thumbprint: "one"}}}, Next: "key-1"}
		if r.URL.Query().Get("after") == "key-1" {
			page = client.ApprovalKeyList{Items: []client.ApprovalKey{{Name: "key-2", Spec: client.ApprovalKeySpec{Person: "anna", Organization: "brandt-guss", Roles: []string{"viewer"}, Thumbprint: "two"}}}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(page)
	})
	b.answer("DELETE /api/v1/approval-keys/key-1", nil)
	want := "NAME   PERSON  ORGANIZATION  ROLES   THUMBPRINT\nkey-1  anna    -             -       one\nkey-2  anna    brandt-guss   viewer  two\n"
	if r := b.run("approvals", "key", "list"); r.code != ExitOK || r.out != want {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
	if r := b.run("approvals", "key", "delete", "key-1"); r.code != ExitOK || !strings.Contains(r.out, "Key key-1 removed") {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
}

func TestAnOfferThatCannotBeReadIsSaid(t *testing.T) {
	b := setup(t)
	damaged := waiting(t, "n1", "release")
	damaged.Policy, damaged.OfferHash, damaged.Unreadable = json.RawMessage("null"), "", "$.permission: must be a list"
	b.answer("GET /api/v1/approvals", client.Approvals{Items: []client.Approval{damaged, waiting(t, "n2", "release")}})
	if r := b.run("approvals", "list"); r.code != ExitOK || !strings.Contains(r.err, "n1: its offer cannot be read ($.permission") || !strings.Contains(r.out, "n2") {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
}
