// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
)

// recorded is an export with accesses to data, a body that was pruned and one that is withheld.
func recorded(t testing.TB) (file string, head audit.Head) {
	t.Helper()
	prev, at := strings.Repeat("0", 64), time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
	head = audit.Head{Chain: "6b1f7e0c-9d57-4a59-8f0a-1f6f5a2c3d4e", Ctx: "acme", Open: true}
	var out bytes.Buffer
	for _, r := range []audit.Record{
		{Type: audit.Management, Actor: "user:anna", BodySHA256: strings.Repeat("1", 64)},
		{Type: audit.DataIntent, Actor: "did:web:oem", Body: []byte(`{"access":"a","agreement":"g"}`)},
		{Type: audit.DataOutcome, Actor: "did:web:oem", Body: []byte(`{"access":"a","unknown":true}`)},
		{Type: audit.DataIntent, Actor: "did:web:oem", Body: []byte(`{"access":"b","agreement":"g"}`)},
		{Type: audit.Pruned, Actor: "runtime", Body: []byte(`{"through":1}`)},
		{Type: audit.Management, Actor: "user:anna", BodySHA256: strings.Repeat("2", 64), Withheld: true},
	} {
		head.Seq++
		r.Chain, r.Ctx, r.Seq, r.At, r.Prev = head.Chain, head.Ctx, head.Seq, at, prev
		r.Hash = r.Sum()
		prev, head.Hash, head.At = r.Hash, r.Hash, at
		if err := audit.WriteRecord(&out, &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := audit.WriteHead(&out, head); err != nil {
		t.Fatal(err)
	}
	return out.String(), head
}

// FuzzVerify: next to a head that is known from elsewhere, no other export of that chain verifies, but that a body is withheld.
func FuzzVerify(f *testing.F) {
	file, head := recorded(f)
	f.Add([]byte(file))
	f.Add([]byte(strings.ReplaceAll(file, "\n", "\r\n")))
	f.Add([]byte(strings.Replace(file, `"open":true`, `"open":false`, 1)))
	f.Add([]byte(`{"head":{"chain":"c","ctx":"x","seq":0,"at":"2026-01-01T00:00:00Z","hash":"` + strings.Repeat("0", 64) + `","open":true}}`))
	f.Fuzz(func(t *testing.T, export []byte) {
		got, err := audit.Verify(bytes.NewReader(export), []audit.Head{head})
		if bad := new(audit.BadError); err != nil && !errors.As(err, &bad) {
			t.Fatalf("not a finding: %v", err)
		}
		heads, headsErr := audit.ReadHeads(bytes.NewReader(export))
		if err != nil {
			return
		}
		if headsErr != nil || len(heads) != 1 || heads[0] != got.Head {
			t.Fatalf("its head is %+v, and read as %+v, %v", got.Head, heads, headsErr)
		}
		if got.Head.Chain == head.Chain && plainly(string(export)) != plainly(file) {
			t.Fatalf("another export verifies:\n%s", export)
		}
	})
}

// plainly takes away what no hash covers.
func plainly(export string) string {
	export = strings.ReplaceAll(export, "\r\n", "\n")
	return strings.TrimSuffix(strings.ReplaceAll(export, `,"withheld":true`, ""), "\n")
}
