// SPDX-License-Identifier: Apache-2.0

// Package tool gets the development tools that the repository's commands use:
// Go programs of pinned versions, built once into the cache. A tool that the
// machine has already is used where any version will do.
package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kaphera/kaphera/sandbox/internal/place"
	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// program is a tool: a Go package at a version, or one that a module of its
// own below sandbox/ pins.
type program struct {
	name    string
	pkg     string
	version string
	module  string // folder below sandbox/; empty builds pkg@version
	ldflags string
	onPath  []string // programs of any version that do the same
}

// OpenTofu names the tool that applies a workspace.
const OpenTofu = "tofu"

var programs = []program{
	{name: OpenTofu, pkg: "github.com/opentofu/opentofu/cmd/tofu", version: "v1.12.6", module: "tofu",
		ldflags: " -X github.com/opentofu/opentofu/version.dev=no", onPath: []string{"tofu", "terraform"}},
	{name: "golangci-lint", pkg: "github.com/golangci/golangci-lint/v2/cmd/golangci-lint", version: "v2.15.0"},
	{name: "govulncheck", pkg: "golang.org/x/vuln/cmd/govulncheck", version: "v1.9.0"},
	{name: "controller-gen", pkg: "sigs.k8s.io/controller-tools/cmd/controller-gen", version: "v0.23.0"},
	{name: "oapi-codegen", pkg: "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen", version: "v2.8.2"},
	{name: "templ", pkg: "github.com/a-h/templ/cmd/templ", version: "v0.3.1100"},
}

// Found is where a tool is.
type Found struct {
	Path   string
	Cached bool // true when nothing was built
}

// Get returns the tool, building it when neither the machine nor the cache has it.
func Get(ctx context.Context, name string, log io.Writer) (Found, error) {
	p, err := find(name)
	if err != nil {
		return Found{}, err
	}
	for _, other := range p.onPath {
		if path, err := exec.LookPath(other); err == nil {
			return Found{Path: path, Cached: true}, nil
		}
	}
	cache, err := place.Cache()
	if err != nil {
		return Found{}, err
	}
	dir := filepath.Join(cache, "bin", fmt.Sprintf("%s-%s-%s", p.name, p.version, runtime.Version()))
	path := filepath.Join(dir, p.name)
	if _, err := os.Stat(path); err == nil {
		return Found{Path: path, Cached: true}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Found{}, fmt.Errorf("make the tool cache: %w", err)
	}
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return Found{}, fmt.Errorf("make the tool cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := p.build(ctx, work, log); err != nil {
		return Found{}, fmt.Errorf("build %s %s: %w", p.name, p.version, err)
	}
	// In one step, so that an interrupted build leaves no half of a program.
	return Found{Path: path}, os.Rename(filepath.Join(work, p.name), path)
}

func find(name string) (program, error) {
	var names []string
	for _, p := range programs {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return program{}, fmt.Errorf("no tool is called %q: choose from %s", name, strings.Join(names, ", "))
}

func (p program) build(ctx context.Context, work string, log io.Writer) error {
	flags := []string{"-trimpath", "-buildvcs=false", "-ldflags", "-s -w" + p.ldflags}
	cmd := proc.Cmd{Name: "go", Log: log, Dir: work, Env: []string{"CGO_ENABLED=0", "GOFLAGS=", "GOBIN=" + work}}
	if p.module == "" {
		cmd.Args = append(append([]string{"install"}, flags...), p.pkg+"@"+p.version)
		return proc.Run(ctx, cmd)
	}
	root, err := place.Root()
	if err != nil {
		return err
	}
	cmd.Dir = filepath.Join(root, "sandbox", p.module)
	pinned, err := proc.Output(ctx, proc.Cmd{Name: "go", Args: []string{"list", "-f", "{{.Module.Version}}", p.pkg}, Dir: cmd.Dir, Log: log})
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(pinned); got != p.version {
		return errors.New("sandbox/" + p.module + "/go.mod pins " + got + ": change one of the two")
	}
	cmd.Args = append(append([]string{"build"}, flags...), "-o", filepath.Join(work, p.name), p.pkg)
	return proc.Run(ctx, cmd)
}
