// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository makes a git repository with the files.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "git", "init", "-q")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	return root
}

func TestHeadersNameTheLicenceOfTheirFolder(t *testing.T) {
	const a, f = "// SPDX-License-Identifier: Apache-2.0\n", "// SPDX-License-Identifier: FSL-1.1-ALv2\n"
	root := repository(t, map[string]string{
		"connector/good.go":        a,
		"connector/none.go":        "package connector\n",
		"connector/wrong.go":       f,
		"cloud/good.go":            f,
		"cloud/wrong.go":           a,
		"cmd/cloud-operator/a.go":  f,
		"cmd/connector/a.go":       a,
		"test/run":                 "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n",
		"late.tf":                  "a = 1\nb = 2\nc = 3\n# SPDX-License-Identifier: Apache-2.0\n",
		"data.json":                "{}",
		"x/testdata/recorded.yaml": "a: b\n",
	})
	bad, err := Headers(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range bad {
		name, _, _ := strings.Cut(b, ":")
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"cloud/wrong.go", "connector/none.go", "connector/wrong.go", "late.tf"}; !slices.Equal(names, want) {
		t.Errorf("refused are %v, want %v", bad, want)
	}
}

func TestGeneratedFilesAreToldByTheirNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a/zz_generated.deepcopy.go": true, "cloud/console/page_templ.go": true, "edcoperator/config/crd/x.yaml": true,
		"cloudoperator/config/install.yaml": true, "client/openapi.yaml": true, NoticesFile: true,
		"a/deepcopy.go": false, "cloudoperator/config/deployment.yaml": false,
	} {
		if got := isGenerated(name); got != want {
			t.Errorf("isGenerated(%s) = %t", name, got)
		}
	}
}

func TestLicenceTextsOfAModule(t *testing.T) {
	dir := repository(t, map[string]string{"LICENSE": "terms\r\n", "NOTICE.txt": "thanks\n", "license.go": "package x", "README.md": "no"})
	text, err := licenceText(dir)
	if err != nil || text != "terms\n\nthanks" {
		t.Errorf("text is %q, %v", text, err)
	}
	if _, err := licenceText(repository(t, map[string]string{"README.md": "no"})); err == nil || !strings.Contains(err.Error(), "no licence file") {
		t.Errorf("a module without a licence gives %v", err)
	}
}
