// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stream is a tar stream of the entries.
func stream(t *testing.T, entries ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := []byte(h.Name)
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func nothing(string) bool { return false }

func TestPackagesUnpackIntoOneMergedTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	r, err := newRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.mergeUsr(); err != nil {
		t.Fatal(err)
	}
	err = r.extract(stream(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./bin/dash", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "./bin/sh", Typeflag: tar.TypeSymlink, Linkname: "dash"},
		tar.Header{Name: "./lib/x/a.so", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "./usr/share/doc/dash/changelog.gz", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "./usr/share/doc/dash/copyright", Typeflag: tar.TypeReg, Mode: 0o644},
	), documentation)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "bin", "sh")); err != nil || string(data) != "./bin/dash" {
		t.Errorf("/bin/sh holds %q, %v", data, err)
	}
	layer := filepath.Join(t.TempDir(), "layer.tar")
	if err := r.writeTar(layer, map[string]int{"usr/lib/x": 7}); err != nil {
		t.Fatal(err)
	}
	var names []string
	f, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if want := map[bool]int{true: 7}[strings.HasPrefix(h.Name, "usr/lib/x")]; h.Uid != want {
			t.Errorf("%s belongs to %d, want %d", h.Name, h.Uid, want)
		}
		if h.Name == "usr/bin/dash" && h.Mode != 0o755 {
			t.Errorf("%s has mode %o: set-user-id must not get into an image", h.Name, h.Mode)
		}
	}
	for _, want := range []string{"bin", "usr/bin/dash", "usr/bin/sh", "usr/lib/x/a.so", "usr/share/doc/dash/copyright"} {
		if !slices.Contains(names, want) {
			t.Errorf("the layer lacks %s: %v", want, names)
		}
	}
	if slices.Contains(names, "usr/share/doc/dash/changelog.gz") {
		t.Error("documentation got into the layer")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestNoEntryLeavesTheRootFolder(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"by dots":   {{Name: "../outside", Typeflag: tar.TypeReg, Mode: 0o644}},
		"by a link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "l/outside", Typeflag: tar.TypeReg, Mode: 0o644}},
	} {
		t.Run(name, func(t *testing.T) {
			above := t.TempDir()
			r, err := newRootfs(filepath.Join(above, "a", "root"))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.extract(stream(t, entries...), nothing); err == nil {
				t.Error("the entry was written")
			}
			for _, dir := range []string{above, filepath.Join(above, "a")} {
				if _, err := os.Stat(filepath.Join(dir, "outside")); err == nil {
					t.Errorf("a file was written into %s, outside the root folder", dir)
				}
			}
		})
	}
}

func TestDependenciesAreReadFromAptRecords(t *testing.T) {
	p := parseRecord("Package: postgresql-15\nVersion: 15.20-0+deb12u1\nDepends: locales | locales-all, libc6 (>= 2.34), python3:any\nPre-Depends: init-system-helpers\nSHA256: abc\nDescription: x\n Depends: no\n")
	if p.name != "postgresql-15" || p.version != "15.20-0+deb12u1" || p.sha256 != "abc" || !slices.Equal(p.depends, []string{"locales", "libc6", "python3", "init-system-helpers"}) {
		t.Errorf("parsed as %+v", p)
	}
}

func TestOnlyWhatIsNeededIsPicked(t *testing.T) {
	known := map[string]pkg{
		"server":  {name: "server", depends: []string{"libc", "installer", "tool"}},
		"tool":    {name: "tool", depends: []string{"libc", "server"}}, // a circle
		"libc":    {name: "libc"},
		"perl":    {name: "perl"},
		"unasked": {name: "unasked"},
	}
	picked, err := pick(known, []string{"server"}, []string{"installer"})
	var names []string
	for _, p := range picked {
		names = append(names, p.name)
	}
	if want := []string{"libc", "server", "tool"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("picked %v, %v, want %v", names, err, want)
	}
	if _, err := pick(known, []string{"server"}, nil); err == nil || !strings.Contains(err.Error(), "installer") || !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("a missing package gives %v", err)
	}
}

func TestWrongDownloadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dist.zip")
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkSum(path, keycloakSum); err == nil || !strings.Contains(err.Error(), "dist.zip") || !strings.Contains(err.Error(), keycloakSum) {
		t.Errorf("error is %v, want the file and the sum it should have", err)
	}
	if err := checkSum(path, sum([]byte("something else"))); err != nil {
		t.Error(err)
	}
}
