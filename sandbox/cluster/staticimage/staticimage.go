// SPDX-License-Identifier: Apache-2.0

// Package staticimage makes images that hold one static program of the sandbox
// itself and nothing else. Images of the project's programs and of services are
// package image's.
package staticimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// user is whom the program runs as when a pod does not say.
const user = "65532:65532"

// Recipe is an image of one program; it is an image.Recipe.
type Recipe struct {
	Image, Version string
	Module         string // folder of the Go module
	Package        string // the program's package, as in "./cluster/pause"
	Cache          string // folder for what is built
}

// Name is the image's name.
func (r Recipe) Name() string { return r.Image }

// Tag is the image's tag.
func (r Recipe) Tag() string { return r.Version }

// Prepare builds the program; its content is the image's key.
func (r Recipe) Prepare(ctx context.Context, log io.Writer) (string, func(dir string) (v1.Image, error), error) {
	out := filepath.Join(r.Cache, "build", r.Image)
	if err := proc.Run(ctx, proc.Cmd{
		Name: "go", Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, r.Package},
		Dir: r.Module, Env: []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="}, Log: log,
	}); err != nil {
		return "", nil, err
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(program)
	return hex.EncodeToString(sum[:10]), func(dir string) (v1.Image, error) {
		path := filepath.Join(dir, "layer.tar")
		if err := writeLayer(path, program); err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromFile(path)
		if err != nil {
			return nil, err
		}
		img, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			return nil, err
		}
		file, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		file = file.DeepCopy()
		file.OS, file.Architecture = "linux", runtime.GOARCH
		file.Config = v1.Config{Entrypoint: []string{"/app"}, User: user, WorkingDir: "/"}
		return mutate.ConfigFile(img, file)
	}, nil
}

// writeLayer writes a layer that holds the program as /app; its bytes depend on
// nothing else.
func writeLayer(path string, program []byte) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := &tar.Header{Name: "app", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(program)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}
