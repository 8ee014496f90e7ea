// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// programUser is the user of the project's own images.
const programUser = 65532

// buildFlags are the linker's: no symbol table, which halves a binary.
const buildFlags = "-s -w"

// programs are the project's own images and the packages that they are built from.
var programs = map[string]string{
	"connector":      "./cmd/connector",
	"edc-operator":   "./cmd/edc-operator",
	"cloud-operator": "./cmd/cloud-operator",
	"cloud":          "./cmd/cloud",
	"pcf-backend":    "./examples/pcf-backend",
}

// Program is the image of one of the project's programs; source is the
// repository's root, binaries a folder that keeps what was built.
func Program(name, source, binaries string) Recipe {
	return recipe{name: name, tag: "dev", prepare: func(ctx context.Context, log io.Writer) (string, func(*rootfs, string) (packing, error), error) {
		binary := filepath.Join(binaries, name)
		if err := os.MkdirAll(binaries, 0o755); err != nil {
			return "", nil, err
		}
		// The go command leaves a binary that is up to date alone, so this costs a
		// second when nothing changed; the binary's content decides the rest.
		if err := goBuild(ctx, log, source, binary, programs[name]); err != nil {
			return "", nil, err
		}
		l, err := openLayer(binary)
		if err != nil {
			return "", nil, err
		}
		return l.hash.String(), func(r *rootfs, _ string) (packing, error) {
			return packing{config: v1.Config{
				User: fmt.Sprintf("%d:%d", programUser, programUser), Entrypoint: []string{"/app"}, WorkingDir: "/",
			}}, r.copyFile(binary, "app", 0o755)
		}, nil
	}}
}

// goBuild builds a static binary that depends on nothing but the sources.
func goBuild(ctx context.Context, log io.Writer, dir, out, pkg string) error {
	err := proc.Run(ctx, proc.Cmd{
		Name: "go", Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", buildFlags, "-o", out, pkg},
		Dir: dir, Env: []string{"CGO_ENABLED=0"}, Log: log,
	})
	if err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}
