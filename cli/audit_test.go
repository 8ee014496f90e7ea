// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/audit"
)

// chainOf is the trail of a participant with these bodies by type.
func chainOf(t *testing.T, bodies ...[2]string) (lines []string, h audit.Head) {
	t.Helper()
	return chainIn(t, "6b1f7e0c-9d57-4a59-8f0a-1f6f5a2c3d4e", "supplier", bodies...)
}

func chainIn(t *testing.T, chain, participant string, bodies ...[2]string) (lines []string, h audit.Head) {
	t.Helper()
	h = audit.Head{Chain: chain, Ctx: participant, Hash: strings.Repeat("0", 64), At: noon, Open: true}
	var out bytes.Buffer
	for i, b := range bodies {
		r := audit.Record{Chain: h.Chain, Seq: int64(i + 1), At: noon.Add(time.Duration(i) * time.Minute), Ctx: h.Ctx, Type: b[0], Actor: oemDID, Body: json.RawMessage(b[1]), Prev: h.Hash}
		r.Hash = r.Sum()
		h.Seq, h.At, h.Hash = r.Seq, r.At, r.Hash
		if r.Type == audit.Policy {
			r.Withhold()
		}
		if err := audit.WriteRecord(&out, &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := audit.WriteHead(&out, h); err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n"), h
}

// trail answers the calls for a participant's trail, two records at a time.
func (b *bundle) trail(lines []string) {
	b.on("GET /api/v1/participants/supplier/audit", func(w http.ResponseWriter, r *http.Request) {
		n := len(lines) - 1
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		if last, _ := strconv.Atoi(r.URL.Query().Get("last")); last > 0 {
			after = max(0, n-last)
		}
		w.Header().Set("Content-Type", audit.MediaType)
		_, _ = w.Write([]byte(strings.Join(lines[after:min(n, after+2)], "") + lines[n] + "\n"))
	})
}

var aTrail = [][2]string{{audit.Management, `{"do":"PUT /assets/pcf"}`}, {audit.Policy, `{"allowed":true}`}, {audit.Agreement, `{"agreement":"a1","asset":"pcf"}`},
	{audit.DataIntent, `{"access":"x1","agreement":"a1","asset":"pcf","method":"GET"}`}, {audit.DataOutcome, `{"access":"x1","status":200,"bytes":1234,"sha256":"ab","whole":true}`}}

func TestTheTrailIsShownExportedAndVerified(t *testing.T) {
	b := setup(t)
	lines, h := chainOf(t, aTrail...)
	b.trail(lines)
	b.golden("audit-tail", b.run("audit", "tail", "supplier", "-n", "2"))
	if r := b.run("audit", "tail", "supplier", "-n", "2", "--type", "data.intent", "-o", "json"); r.code != ExitOK || !strings.Contains(r.out, `"seq": 4`) || strings.Contains(r.out, `"seq": 5`) {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("audit", "tail", "supplier", "-n", "4", "-o", "json"); r.code != ExitOK || strings.Contains(r.out, `"seq": 1,`) || !strings.Contains(r.out, `"seq": 2,`) || !strings.Contains(r.out, `"seq": 5,`) {
		t.Errorf("more than one page of last records: %d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("audit", "tail", "supplier", "--type", "gossip"); r.code != ExitUsage {
		t.Errorf("a type that there is not: %d %s", r.code, r.err)
	}
	file := filepath.Join(b.home, "supplier.jsonl")
	if r := b.run("audit", "export", "supplier", "--to", file); r.code != ExitOK || !strings.Contains(r.out+r.err, "6 lines") {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written) != strings.Join(lines, "")+"\n" {
		t.Fatalf("%v: %s", err, written)
	}
	b.answer("GET /api/v1/participants/supplier/audit/heads", client.HeadList{Items: []client.Head{{Chain: h.Chain, Ctx: h.Ctx, Seq: h.Seq, At: h.At, Hash: h.Hash, Open: true}}})
	b.golden("audit-verify", b.run("audit", "verify", file, "--participant", "supplier"))
	if r := b.run("audit", "verify", file, "-o", "json"); r.code != ExitOK || !strings.Contains(r.out, `"verified": true`) {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("audit", "verify", file); r.code != ExitOK || !strings.Contains(r.out, "--checkpoint") {
		t.Errorf("without heads from elsewhere: %d %s%s", r.code, r.out, r.err)
	}
}

func TestATamperedTrailDoesNotVerify(t *testing.T) {
	b := setup(t)
	lines, h := chainOf(t, aTrail...)
	checkpoint := filepath.Join(b.home, "heads")
	b.answer("GET /api/v1/participants/supplier/audit/heads", client.HeadList{Items: []client.Head{{Chain: h.Chain, Ctx: h.Ctx, Seq: h.Seq, At: h.At, Hash: h.Hash, Open: true}}})
	if r := b.run("audit", "heads", "supplier", "--to", checkpoint); r.code != ExitOK {
		t.Fatalf("%d %s%s", r.code, r.out, r.err)
	}
	shorter, _ := chainOf(t, aTrail[:3]...)
	rewritten, _ := chainOf(t, append([][2]string{{audit.Management, `{"do":"PUT /assets/other"}`}}, aTrail[1:]...)...)
	for name, c := range map[string]struct{ file, words string }{
		"changed":   {strings.Replace(strings.Join(lines, ""), `"bytes":1234`, `"bytes":12`, 1), "record 5 (line 5): it was changed"},
		"missing":   {lines[0] + strings.Join(lines[2:], ""), "record 2 (line 2): it is missing"},
		"reordered": {lines[1] + lines[0] + strings.Join(lines[2:], ""), "record 1 (line 2): it is out of order"},
		"truncated": {strings.Join(shorter, ""), "record 4 (line 4): it is missing: the chain had 5 records when it was reported, and has 3"},
		"rewritten": {strings.Join(rewritten, ""), "record 5 (line 5): the chain was rewritten"},
	} {
		t.Run(name, func(t *testing.T) {
			b.input = c.file
			if r := b.run("audit", "verify", "-", "--checkpoint", checkpoint); r.code != ExitFailed || !strings.Contains(r.err, c.words) {
				t.Errorf("%d %s%s", r.code, r.out, r.err)
			}
			if r := b.run("audit", "verify", "-", "--checkpoint", checkpoint, "-o", "json"); r.code != ExitFailed || !strings.Contains(r.out, `"verified": false`) {
				t.Errorf("%d %s%s", r.code, r.out, r.err)
			}
		})
	}
}

// What counterparties have on record finds what the cloud's heads would, without them.
func TestATrailIsComparedWithThatOfACounterparty(t *testing.T) {
	b := setup(t)
	made := [2]string{audit.ParticipantMade, `{"did":"` + supplierDID + `"}`}
	trail := append([][2]string{made}, aTrail...)
	lines, h := chainOf(t, trail...)
	const other = "0c5f1f0e-2f0b-4f57-9a55-1f6f5a2c3d4e"
	witness := func(name string, told ...audit.Witness) string {
		t.Helper()
		var bodies [][2]string
		for _, w := range told {
			raw, err := json.Marshal(w)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, [2]string{audit.CounterpartyHead, string(raw)})
		}
		theirs, _ := chainIn(t, other, "oem", bodies...)
		file := filepath.Join(b.home, name)
		if err := os.WriteFile(file, []byte(strings.Join(theirs, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	b.answer("GET /api/v1/participants/supplier", client.Participant{Name: "supplier", Status: client.ParticipantStatus{DID: supplierDID}})
	b.answer("GET /api/v1/participants/supplier/audit/heads", client.HeadList{Items: []client.Head{}})
	oem := witness("oem.jsonl", audit.Witness{Agreement: "a1", Counterparty: supplierDID, Head: &h})
	none := witness("none.jsonl", audit.Witness{Agreement: "a1", Counterparty: supplierDID, Reason: "it does not tell"})
	// What others tell is no statement of the supplier: it neither accuses a trail, nor clears one.
	const elsewhere = "did:web:elsewhere:supplier"
	namesake, poison, closed := h, h, h
	namesake.Chain, poison.Hash, closed.Open = other, strings.Repeat("1", 64), false
	stranger := witness("stranger.jsonl", audit.Witness{Agreement: "a1", Counterparty: elsewhere, Head: &namesake})
	poisoned := witness("poisoned.jsonl", audit.Witness{Agreement: "a1", Counterparty: supplierDID, Head: &h}, audit.Witness{Agreement: "a2", Counterparty: elsewhere, Head: &poison})
	whitewashed := witness("whitewashed.jsonl", audit.Witness{Agreement: "a1", Counterparty: supplierDID, Head: &h}, audit.Witness{Agreement: "a2", Counterparty: elsewhere, Head: &closed})
	shorter, _ := chainOf(t, trail[:3]...)
	rewritten, _ := chainOf(t, append(append([][2]string{}, trail[:5]...), [2]string{audit.DataOutcome, `{"access":"x1","bytes":1}`})...)
	replaced, _ := chainIn(t, "11111111-9d57-4a59-8f0a-1f6f5a2c3d4e", "supplier", trail...)
	renamed, _ := chainIn(t, "11111111-9d57-4a59-8f0a-1f6f5a2c3d4e", "supplier", append([][2]string{{audit.ParticipantMade, `{"did":"` + elsewhere + `"}`}}, aTrail...)...)
	moved, _ := chainIn(t, "11111111-9d57-4a59-8f0a-1f6f5a2c3d4e", "supplier2", trail...)
	const none1, none0 = "that " + supplierDID + " told; of other chains they have 1", "that " + supplierDID + " told; of other chains they have 0"
	for name, c := range map[string]struct{ file, witness, words string }{
		"as it was":                       {strings.Join(lines, ""), oem, "agrees with 1 heads from elsewhere"},
		"truncated":                       {strings.Join(shorter, ""), oem, "it is missing: the chain had 6 records when it was reported, and has 3"},
		"rewritten":                       {strings.Join(rewritten, ""), oem, "record 6 (line 6): the chain was rewritten"},
		"replaced":                        {strings.Join(replaced, ""), oem, "the chain was replaced"},
		"no head was told":                {strings.Join(shorter, ""), none, none0},
		"of another of the same name":     {strings.Join(lines, ""), stranger, none0},
		"replaced by one of another DID":  {strings.Join(renamed, ""), oem, "the chain was replaced"},
		"replaced by one of another name": {strings.Join(moved, ""), oem, none1},
		"poisoned by a third":             {strings.Join(lines, ""), poisoned, "agrees with 1 heads from elsewhere"},
		"whitewashed by a third":          {strings.Join(replaced, ""), whitewashed, "the chain was replaced"},
		"a witness that is tampered with": {strings.Join(lines, ""), oem + ".bad", "witness"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(c.witness, ".bad") {
				raw, err := os.ReadFile(oem)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(c.witness, bytes.Replace(raw, []byte(`"agreement":"a1"`), []byte(`"agreement":"a2"`), 1), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, whose := range [][]string{{"--did", supplierDID}, {"--participant", "supplier"}} {
				b.input = c.file
				r := b.run(append([]string{"audit", "verify", "-", "--witness", c.witness}, whose...)...)
				if good := strings.HasPrefix(c.words, "agrees"); good != (r.code == ExitOK) || !good && r.code != ExitFailed || !strings.Contains(r.out+r.err, c.words) {
					t.Errorf("%s: %d %s%s", whose, r.code, r.out, r.err)
				}
			}
		})
	}
	b.input = strings.Join(lines, "")
	if r := b.run("audit", "verify", "-", "--witness", oem); r.code != ExitUsage || !strings.Contains(r.err, "--did") {
		t.Errorf("whose trail it is from nowhere but the file: %d %s%s", r.code, r.out, r.err)
	}
	b.input = strings.Join(lines, "")
	if r := b.run("audit", "verify", "-", "--witness", none, "--did", supplierDID, "-o", "json"); r.code != ExitFailed || !strings.Contains(r.out, `"verified": false`) {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
}
