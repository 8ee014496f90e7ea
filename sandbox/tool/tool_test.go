// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestToolOfTheMachineIsUsedWhereAnyVersionWillDo(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "terraform")
	if err := os.WriteFile(own, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	found, err := Get(t.Context(), OpenTofu, t.Output())
	if err != nil || found.Path != own || !found.Cached {
		t.Errorf("found %+v, %v, want %s", found, err, own)
	}
}

func TestCachedToolIsTakenByVersion(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("KAPHERA_CACHE", cache)
	t.Setenv("PATH", t.TempDir())
	p, err := find(OpenTofu)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "bin", p.name+"-"+p.version+"-"+runtime.Version(), p.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	found, err := Get(t.Context(), OpenTofu, t.Output())
	if err != nil || found.Path != path || !found.Cached {
		t.Errorf("found %+v, %v, want %s", found, err, path)
	}
}

func TestUnknownToolNamesTheKnown(t *testing.T) {
	if _, err := Get(t.Context(), "tofo", t.Output()); err == nil || !strings.Contains(err.Error(), `"tofo"`) || !strings.Contains(err.Error(), "tofu, golangci-lint") {
		t.Errorf("error is %v", err)
	}
}
