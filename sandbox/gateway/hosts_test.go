// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceBlock(t *testing.T) {
	begin, end := marks("demo")
	block := func(lines string) string { return begin + "\n" + lines + end + "\n" }
	otherBegin, otherEnd := marks("demo2")
	other := otherBegin + "\n10.206.0.2 x.test\n" + otherEnd + "\n"
	for name, c := range map[string]struct {
		text  string
		hosts []string
		want  string
	}{
		"first time":              {"127.0.0.1 localhost\n", []string{"b.test", "a.test"}, "127.0.0.1 localhost\n" + block("10.205.0.2 a.test\n10.205.0.2 b.test\n")},
		"no newline at the end":   {"127.0.0.1 localhost", []string{"a.test"}, "127.0.0.1 localhost\n" + block("10.205.0.2 a.test\n")},
		"empty file":              {"", []string{"a.test"}, block("10.205.0.2 a.test\n")},
		"twice the same host":     {"", []string{"a.test", "a.test"}, block("10.205.0.2 a.test\n")},
		"replaced":                {"1.1.1.1 x\n" + block("10.205.0.2 old.test\n") + "2.2.2.2 y\n", []string{"a.test"}, "1.1.1.1 x\n2.2.2.2 y\n" + block("10.205.0.2 a.test\n")},
		"removed":                 {"1.1.1.1 x\n" + block("10.205.0.2 old.test\n"), nil, "1.1.1.1 x\n"},
		"another cluster's":       {other + block("10.205.0.2 old.test\n"), nil, other},
		"end missing":             {begin + "\n10.205.0.2 old.test\n127.0.0.1 mine\n", nil, "127.0.0.1 mine\n"},
		"end missing, comment":    {begin + "\n10.205.0.2 old.test\n# mine\n10.205.0.2 keep\n", nil, "# mine\n10.205.0.2 keep\n"},
		"end missing, then other": {begin + "\n10.205.0.2 old.test\n" + other, nil, other},
		"nothing there":           {"1.1.1.1 x\n", nil, "1.1.1.1 x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := replaceBlock(c.text, "demo", "10.205.0.2", c.hosts)
			if got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
			if again := replaceBlock(got, "demo", "10.205.0.2", c.hosts); again != got {
				t.Errorf("the second time changes it:\n%s", again)
			}
		})
	}
}

func TestHostsFileIsPutBackAsItWas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	const before = "127.0.0.1 localhost\n::1 localhost\n"
	must(t, os.WriteFile(file, []byte(before), 0o640))
	must(t, SyncHosts(file, "demo", "10.205.0.2", []string{"a.test"}))
	must(t, RemoveHosts(file, "demo"))
	after, err := os.ReadFile(file)
	must(t, err)
	info, err := os.Stat(file)
	must(t, err)
	if string(after) != before || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, content:\n%s", info.Mode(), after)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
