// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

// revisionOf is a revision of a use case with a policy.
func revisionOf(t *testing.T, number int, previous, policy string) client.Revision {
	t.Helper()
	text, hash, err := usecase.Write(usecase.Content{UseCase: "footprint", Number: number, Previous: previous, Profile: "automotive", AssetType: "urn:pcf", ContractPolicy: json.RawMessage(policy),
		Signers: []usecase.Person{{Role: "governance-authority"}}})
	if err != nil {
		t.Fatal(err)
	}
	return client.Revision{UseCase: "footprint", Number: int64(number), Hash: hash, Content: text, MadeAt: noon, MadeBy: "Gerd Gerecht", Explanation: client.Explanation{En: []string{}, De: []string{}}}
}

func TestARevisionIsReadBeforeItIsSignedOff(t *testing.T) {
	b := setup(t)
	first := revisionOf(t, 1, "", `{"@type":"Set","permission":[{"action":"use"}]}`)
	first.InForce, first.SignOff = true, client.SignOff{Signed: "x", Name: "Gerd Gerecht", At: noon}
	second := revisionOf(t, 2, first.Hash, `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"purpose","operator":"eq","rightOperand":"recall"}]}]}`)
	second.WaitsFor = "everybody with the role governance-authority"
	var registered json.RawMessage
	b.on("POST /api/v1/approval-keys", func(w http.ResponseWriter, r *http.Request) {
		var in client.KeyRegistration
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		registered = in.PublicKey
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(client.ApprovalKey{Name: "key-1", Spec: client.ApprovalKeySpec{Subject: "sub-gerd", Name: "Gerd Gerecht"}})
	})
	const path = "/api/v1/use-cases/footprint/revisions"
	b.answer("GET "+path, client.RevisionList{Items: []client.Revision{second, first}})
	b.answer("GET "+path+"/2", second)
	if r := b.run("usecase", "sign-off", "footprint", "--revision", "2"); r.code != ExitFailed || !strings.Contains(r.err, "kaphera approvals key create") {
		t.Errorf("without a key: %d %s", r.code, r.err)
	}
	if r := b.run("approvals", "key", "create"); r.code != ExitOK {
		t.Fatalf("%d %s", r.code, r.err)
	}
	signer := adminapi.Approver{ID: "sub-gerd", Name: "Gerd", Organization: "authority", Keys: []json.RawMessage{registered}}
	second.NextSigners = []client.Signer{{Subject: "sub-gerd", Name: "Gerd Gerecht", Organization: "governance-authority", Keys: []string{thumbprint(t, registered)}}}
	b.answer("GET "+path+"/2", second)
	if r := b.run("usecase", "revisions", "footprint"); r.code != ExitOK || !strings.Contains(r.out, "waits") || !strings.Contains(r.out, "in force") || !strings.Contains(r.out, second.Hash) {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
	if r := b.run("usecase", "diff", "footprint"); r.code != ExitOK || !strings.Contains(r.out, "- Agreed by both: use is permitted without condition") || !strings.Contains(r.out, "+ Agreed by both: purpose") {
		t.Errorf("%d %s %s", r.code, r.out, r.err)
	}
	var sent client.SignedOff
	b.on("POST "+path+"/2/sign-off", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(second)
	})
	for name, c := range map[string]struct {
		asks  bool
		input string
		args  []string
		code  int
		words string
	}{
		"nobody to ask":                {false, "y\n", nil, ExitUsage, "there is no terminal"},
		"yes to whatever it is":        {true, "y\n", []string{"--yes"}, ExitUsage, "--yes needs --hash"},
		"another content":              {false, "", []string{"--yes", "--hash", first.Hash}, ExitFailed, "another one than --hash names"},
		"no":                           {true, "n\n", nil, ExitFailed, "nothing was signed"},
		"a language that is not there": {true, "y\n", []string{"--language", "fr"}, ExitUsage, "en or de"},
	} {
		b.asks, b.input = c.asks, c.input
		if r := b.run(append([]string{"usecase", "sign-off", "footprint", "--revision", "2"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.words) {
			t.Errorf("%s: %d %s", name, r.code, r.err)
		}
	}
	if sent.Signed != "" {
		t.Fatal("it was signed all the same")
	}
	b.asks, b.input = true, "y\n"
	r := b.run("usecase", "sign-off", "footprint", "--revision", "2", "--language", "de")
	if r.code != ExitOK || !strings.Contains(r.err, "Von beiden vereinbart") || !strings.Contains(r.err, "May sign the next revision: Gerd Gerecht") {
		t.Fatalf("%d %s %s", r.code, r.out, r.err)
	}
	// As the provider's connector takes it, and as the Cloud API checks what was read.
	wire := adminapi.UseCaseRevision{UseCase: "footprint", Number: 2, Hash: second.Hash, Content: second.Content, SignOff: sent.Signed, Signers: []adminapi.Approver{signer}}
	if _, _, err := usecase.Accept(nil, wire); err != nil {
		t.Error(err)
	}
	signed, err := usecase.ParseSignOff(sent.Signed)
	if err != nil {
		t.Fatal(err)
	}
	words, err := revisionShown(second, "de")
	if err != nil || signed.Claims.Read != usecase.ReadHash(words) || signed.Claims.Language != "de" || signed.Claims.IssuedAt != noon.Unix() {
		t.Errorf("signed %+v, %v", signed.Claims, err)
	}
	b.asks, b.input = false, ""
	if r := b.run("usecase", "sign-off", "footprint", "--revision", "2", "--yes", "--hash", second.Hash); r.code != ExitOK {
		t.Errorf("%d %s", r.code, r.err)
	}
	changed := second
	changed.Content = strings.Replace(second.Content, "recall", "anything", 1)
	b.answer("GET "+path+"/2", changed)
	if r := b.run("usecase", "sign-off", "footprint", "--revision", "2", "--yes", "--hash", second.Hash); r.code != ExitFailed || !strings.Contains(r.err, "was changed after it was made") {
		t.Errorf("another content than the hash's: %d %s", r.code, r.err)
	}
}

func thumbprint(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	thumb, _, err := gate.PublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return thumb
}
