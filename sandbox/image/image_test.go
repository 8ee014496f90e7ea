// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// source makes a repository with one program in it and returns its root.
func source(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.test/p\n\ngo 1.26.0\n")
	write("cmd/connector/main.go", "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\""+text+"\") }\n")
	return root
}

func build(t *testing.T, s Store, r Recipe) Built {
	t.Helper()
	b, err := s.Build(t.Context(), r, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// valid checks that the parts of an image say of each other what they are.
func valid(img v1.Image) error {
	if err := validate.Image(img, validate.Fast); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	for i, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		got, _, err := v1.SHA256(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if want, err := l.Digest(); err != nil || got != want || got != config.RootFS.DiffIDs[i] {
			return fmt.Errorf("layer %d is %s, the manifest says %s, the configuration %s (%w)", i, got, want, config.RootFS.DiffIDs[i], err)
		}
	}
	return nil
}

func TestProgramImageIsReproducibleAndNamedByItsContent(t *testing.T) {
	root := source(t, "hello")
	first := build(t, Store{Dir: t.TempDir()}, Program("connector", root, t.TempDir()))
	again := build(t, Store{Dir: t.TempDir()}, Program("connector", root, t.TempDir()))
	other := build(t, Store{Dir: t.TempDir()}, Program("connector", source(t, "changed"), t.TempDir()))

	if first.Digest != again.Digest || first.Content != again.Content {
		t.Errorf("the same source made %s and %s", first.Digest, again.Digest)
	}
	a, errA := os.ReadFile(first.Path)
	b, errB := os.ReadFile(again.Path)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("archives of the same source differ (%v, %v)", errA, errB)
	}
	if other.Content == first.Content || other.Ref != first.Ref {
		t.Errorf("changed source is called %s and %s, first was %s and %s", other.Ref, other.Content, first.Ref, first.Content)
	}
	if first.Ref != "kaphera.local/connector:dev" || !strings.HasPrefix(first.Content, first.Ref+"-") {
		t.Errorf("names are %s and %s", first.Ref, first.Content)
	}
}

func TestProgramImageRunsItsProgramAsNobodyElse(t *testing.T) {
	b := build(t, Store{Dir: t.TempDir()}, Program("connector", source(t, "hello"), t.TempDir()))
	err := WithArchive(b.Path, func(img v1.Image) error {
		if err := valid(img); err != nil {
			t.Errorf("the image is not valid: %v", err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			return err
		}
		if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/app"}) {
			t.Errorf("user %q, entrypoint %v", config.Config.User, config.Config.Entrypoint)
		}
		layers, err := img.Layers()
		if err != nil {
			return err
		}
		if len(layers) != 1 {
			t.Fatalf("%d layers, want 1", len(layers))
		}
		r, err := layers[0].Uncompressed()
		if err != nil {
			return err
		}
		app := filepath.Join(t.TempDir(), "app")
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if h.Uid != 0 || !h.ModTime.Equal(epoch) || h.Mode&0o022 != 0 && h.Name != "tmp/" {
				t.Errorf("%s belongs to %d, is from %s, mode %o", h.Name, h.Uid, h.ModTime, h.Mode)
			}
			if h.Name == "app" {
				data, err := io.ReadAll(tr)
				if err := errors.Join(err, os.WriteFile(app, data, 0o700)); err != nil {
					return err
				}
			}
		}
		out, err := exec.CommandContext(t.Context(), app).Output()
		if string(out) != "hello" {
			t.Errorf("the program in the image printed %q, %v", out, err)
		}
		return r.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecondBuildTakesTheArchiveOfTheFirst(t *testing.T) {
	store, root, binaries := Store{Dir: t.TempDir()}, source(t, "hello"), t.TempDir()
	first := build(t, store, Program("connector", root, binaries))
	second := build(t, store, Program("connector", root, binaries))
	if first.Cached || !second.Cached || second.Path != first.Path || second.Digest != first.Digest {
		t.Errorf("first %+v, second %+v", first, second)
	}
	listed, err := store.List()
	if err != nil || len(listed) != 1 || listed[0].Digest != first.Digest {
		t.Errorf("the list is %+v, %v", listed, err)
	}
}

func TestDamagedArchiveIsMadeAgain(t *testing.T) {
	store, root, binaries := Store{Dir: t.TempDir()}, source(t, "hello"), t.TempDir()
	first := build(t, store, Program("connector", root, binaries))
	if err := os.Truncate(first.Path, 100); err != nil {
		t.Fatal(err)
	}
	second := build(t, store, Program("connector", root, binaries))
	if second.Cached || second.Digest != first.Digest {
		t.Errorf("second %+v", second)
	}
	if err := WithArchive(second.Path, valid); err != nil {
		t.Error(err)
	}
}

func TestOldArchivesArePruned(t *testing.T) {
	store, binaries := Store{Dir: t.TempDir()}, t.TempDir()
	for _, text := range []string{"a", "b", "c", "d", "e"} {
		build(t, store, Program("connector", source(t, text), binaries))
	}
	archives, err := filepath.Glob(filepath.Join(store.Dir, "connector", "*.tar"))
	if err != nil || len(archives) != keep {
		t.Errorf("%d archives are left, want %d (%v)", len(archives), keep, err)
	}
}

func TestCompileErrorReachesTheDeveloper(t *testing.T) {
	root := source(t, `" + undefinedName + "`)
	_, err := Store{Dir: t.TempDir()}.Build(t.Context(), Program("connector", root, t.TempDir()), t.Output())
	if err == nil || !strings.Contains(err.Error(), "undefinedName") {
		t.Errorf("error is %v, want the compiler's", err)
	}
}

func TestUnknownImageNamesTheKnown(t *testing.T) {
	c := &Catalog{recipes: map[string]Recipe{"nats": NATS("/"), "connector": Program("connector", "/", "/")}}
	_, err := c.Recipe("natz")
	if err == nil || !strings.Contains(err.Error(), `"natz"`) || !strings.Contains(err.Error(), "connector, nats") {
		t.Errorf("error is %v", err)
	}
}
