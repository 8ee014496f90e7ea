// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kaphera/kaphera/connector/audit"
)

// chain makes an export as the database would.
func chain(t *rapid.T) []string {
	n := rapid.IntRange(1, 12).Draw(t, "records")
	prev, at := strings.Repeat("0", 64), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := audit.Head{Chain: "6b1f7e0c-9d57-4a59-8f0a-1f6f5a2c3d4e", Ctx: "acme", Open: true}
	var out bytes.Buffer
	for seq := int64(1); seq <= int64(n); seq++ {
		at = at.Add(time.Duration(rapid.Int64Range(0, 5e6).Draw(t, "later")) * time.Microsecond)
		raw, err := json.Marshal(map[string]string{"text": rapid.String().Draw(t, "text")})
		if err != nil {
			t.Fatal(err)
		}
		r := audit.Record{Chain: h.Chain, Seq: seq, At: at, Ctx: h.Ctx, Type: audit.Management, Actor: rapid.StringMatching(`[a-zü:]{1,9}`).Draw(t, "actor"), Body: raw, Prev: prev}
		r.Hash = r.Sum()
		prev = r.Hash
		if err := audit.WriteRecord(&out, &r); err != nil {
			t.Fatal(err)
		}
		h.Seq, h.At, h.Hash = seq, at, r.Hash
	}
	if err := audit.WriteHead(&out, h); err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// TestAnyMutationOfAnExportIsFound changes a byte, removes one, adds one, cuts the file; removes, repeats, moves and swaps lines.
func TestAnyMutationOfAnExportIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := chain(t)
		file := strings.Join(lines, "")
		if _, err := audit.Verify(strings.NewReader(file), nil); err != nil {
			t.Fatalf("unchanged: %v", err)
		}
		at := func(n int, name string) int { return rapid.IntRange(0, n-1).Draw(t, name) }
		i, j := at(len(lines), "line"), at(len(lines), "other line")
		pos := at(len(file), "position")
		changed := slices.Clone(lines)
		how := rapid.SampledFrom([]string{"byte", "removed byte", "added byte", "cut", "removed line", "repeated line", "swapped lines", "another's line"}).Draw(t, "how")
		switch how {
		case "byte":
			b := []byte(file)
			b[pos] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
			changed = []string{string(b)}
		case "removed byte":
			changed = []string{file[:pos] + file[pos+1:]}
		case "added byte":
			changed = []string{file[:pos] + string(rune(rapid.IntRange(0, 127).Draw(t, "added"))) + file[pos:]}
		case "cut":
			changed = []string{file[:pos]}
		case "removed line":
			changed = slices.Delete(changed, i, i+1)
		case "repeated line":
			changed = slices.Insert(changed, j, lines[i])
		case "swapped lines":
			changed[i], changed[j] = lines[j], lines[i]
		case "another's line":
			changed[i] = strings.Replace(lines[i], `"ctx":"acme"`, `"ctx":"acmf"`, 1)
		}
		mutated := strings.Join(changed, "")
		// A line that ends in CR LF says the same as one that ends in LF.
		if strings.ReplaceAll(mutated, "\r\n", "\n") == file {
			return
		}
		if r, err := audit.Verify(strings.NewReader(mutated), nil); err == nil {
			t.Fatalf("%s: not found: %+v\n%s", how, r, mutated)
		}
	})
}

func TestTheFirstBadRecordIsNamed(t *testing.T) {
	var lines []string
	rapid.Check(t, func(t *rapid.T) {
		if l := chain(t); len(l) > 5 {
			lines = l
		}
	})
	if lines == nil {
		t.Fatal("no chain was made")
	}
	join := func(l ...string) string { return strings.Join(l, "") }
	for name, tc := range map[string]struct {
		file, why string
		seq       int64
	}{
		"nothing":            {"", "no record and no head", 0},
		"something else":     {"hello\n", "not understood", 0},
		"no head":            {join(lines[:3]...), "its end is missing", 3},
		"two swapped":        {join(lines[0], lines[2], lines[1]) + join(lines[3:]...), "out of order: it stands after record 3", 2},
		"one twice":          {join(lines[0], lines[1], lines[1]) + join(lines[2:]...), "it stands where record 3 should", 2},
		"one missing":        {join(lines[0]) + join(lines[2:]...), "it is missing: record 3 stands there", 2},
		"written otherwise":  {strings.Replace(join(lines...), `{"chain":`, `{ "chain":`, 1), "not as an export writes it", 1},
		"one more after all": {join(lines...) + "\n" + lines[0], "after the head", 0},
	} {
		t.Run(name, func(t *testing.T) { wantBad(t, tc.file, tc.why, tc.seq) })
	}
}

func ExampleRecord_Sum() {
	r := audit.Record{Chain: "6b1f7e0c-9d57-4a59-8f0a-1f6f5a2c3d4e", Seq: 1, At: time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), Ctx: "acme",
		Type: "management", Actor: "user:anna", Body: json.RawMessage(`{"do":"asset.put"}`), Prev: strings.Repeat("0", 64)}
	fmt.Println(r.Sum())
	// Output: 6f39f459ab1ca4f3e8c8dda17a111bf178068fa138a1495306d8ea67b2242471
}
