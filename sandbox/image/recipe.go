// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// serviceUser is the user of the assembled services: what the operators run
// them as, so that the same manifests work with upstream images.
const serviceUser = 10001

// sources are part of every image's inputs: an image made by other code is
// another image.
//
//go:embed debian.go keycloak.go oci.go programs.go recipe.go rootfs.go services.go
var sources embed.FS

// recipe is an image given by its parts.
type recipe struct {
	name, tag string
	prepare   func(ctx context.Context, log io.Writer) (inputs string, fill func(r *rootfs, work string) (packing, error), err error)
}

// packing is what turns a filled root folder into an image.
type packing struct {
	config v1.Config
	own    map[string]int // owner of a path and what is below it; root when unnamed
}

func (r recipe) Name() string { return r.name }
func (r recipe) Tag() string  { return r.tag }

func (r recipe) Prepare(ctx context.Context, log io.Writer) (string, func(string) (v1.Image, error), error) {
	inputs, fill, err := r.prepare(ctx, log)
	if err != nil {
		return "", nil, err
	}
	code, err := sourcesSum()
	if err != nil {
		return "", nil, err
	}
	key := sum([]byte(strings.Join([]string{code, runtime.GOARCH, r.name, r.tag, inputs}, "\n")))[:20]
	return key, func(work string) (v1.Image, error) {
		root, err := newRootfs(filepath.Join(work, "root"))
		if err != nil {
			return nil, err
		}
		p, err := fill(root, work)
		if err != nil {
			return nil, err
		}
		layer := filepath.Join(work, "layer.tar")
		if err := root.writeTar(layer, p.own); err != nil {
			return nil, err
		}
		return newImage(runtime.GOARCH, layer, p.config)
	}, nil
}

func sourcesSum() (string, error) {
	files, err := sources.ReadDir(".")
	if err != nil {
		return "", err
	}
	var all []byte
	for _, f := range files {
		data, err := sources.ReadFile(f.Name())
		if err != nil {
			return "", err
		}
		all = append(all, data...)
	}
	return sum(all), nil
}

// checkSum fails unless the file has the SHA-256 that the recipe pins.
func checkSum(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s instead of %s: remove it and try again; if it stays so, the registry serves something else than this recipe was made for", filepath.Base(path), got, want)
	}
	return nil
}

// copyFile copies a file into the root folder.
func (r *rootfs) copyFile(from, name string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	return errors.Join(r.file(name, mode, f), f.Close())
}
