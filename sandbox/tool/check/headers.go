// SPDX-License-Identifier: Apache-2.0

// Package check holds the checks of this repository that no linter brings: the
// licence named by every file, generated files that are up to date, and the
// notices of third-party code in the programs. It changes nothing but what it
// is asked to write.
package check

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// Licences by folder; Apache where none matches.
const (
	apache          = "Apache-2.0"
	sourceAvailable = "FSL-1.1-ALv2"
)

var sourceAvailableFolders = []string{"cloudoperator/", "cloud/", "cmd/cloud-operator/", "cmd/cloud/"}

// commented are the names and extensions of files that can hold a comment.
var commented = []string{
	".go", ".sh", ".tf", ".templ", ".sql", ".yaml", ".yml", ".toml", ".css", ".js", ".md", ".xml", ".svg", "Makefile", "Corefile", "run",
}

// unmarked may do without, for the reason given.
var unmarked = []struct{ suffix, reason string }{
	{".min.js", "third-party, as it came; its notice lies beside it"},
	{"_templ.go", "made from a file that has it"},
	{"LICENSE.md", "is a licence"},
}

// Headers returns the files whose first lines do not name their folder's licence.
func Headers(ctx context.Context, root string) ([]string, error) {
	files, err := tracked(ctx, root)
	if err != nil {
		return nil, err
	}
	var bad []string
	for _, name := range files {
		if !slices.ContainsFunc(commented, func(s string) bool { return strings.HasSuffix(name, s) }) ||
			slices.ContainsFunc(unmarked, func(u struct{ suffix, reason string }) bool { return strings.HasSuffix(name, u.suffix) }) {
			continue
		}
		if strings.Contains(name, "/testdata/") { // may be a recording of what others sent
			continue
		}
		want := licence(name)
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		if err != nil {
			return nil, err
		}
		lines := bytes.SplitN(data, []byte("\n"), 4)
		head := bytes.Join(lines[:min(3, len(lines))], []byte("\n"))
		if !bytes.Contains(head, []byte("SPDX-License-Identifier: "+want)) {
			bad = append(bad, fmt.Sprintf("%s: its first line must hold \"SPDX-License-Identifier: %s\"", name, want))
		}
	}
	return bad, nil
}

func licence(name string) string {
	if slices.ContainsFunc(sourceAvailableFolders, func(f string) bool { return strings.HasPrefix(name, f) }) {
		return sourceAvailable
	}
	return apache
}

// tracked are the repository's files, with those not yet committed.
func tracked(ctx context.Context, root string) ([]string, error) {
	out, err := proc.Output(ctx, proc.Cmd{Name: "git", Args: []string{"ls-files", "--cached", "--others", "--exclude-standard", "-z"}, Dir: root})
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(out, func(r rune) bool { return r == 0 }), nil
}
