// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
	"github.com/kaphera/kaphera/sandbox/tool"
)

// NoticesFile lists the third-party code in the programs.
const NoticesFile = "THIRD_PARTY_NOTICES.md"

// step makes some of the generated files.
type step struct {
	what string
	tool string // the tool it runs; empty for go
	args []string
	dir  string
	env  func(toolPath string) []string
}

func steps() []step {
	generator := func(path string) []string {
		return []string{"PATH=" + filepath.Dir(path) + string(os.PathListSeparator) + os.Getenv("PATH")}
	}
	return []step{
		{what: "deep copies and CRDs of the EDC operator", tool: "controller-gen", args: []string{
			"object:headerFile=edcoperator/boilerplate.go.txt", "crd:headerFile=edcoperator/config/boilerplate.yaml.txt",
			"paths=./edcoperator/api/...", "output:crd:dir=edcoperator/config/crd",
		}},
		{what: "deep copies and CRDs of the cloud operator", tool: "controller-gen", args: []string{
			"object:headerFile=cloudoperator/boilerplate.go.txt", "crd:headerFile=cloudoperator/config/boilerplate.yaml.txt",
			"paths=./cloudoperator/api/...", "output:crd:dir=cloudoperator/config/crd",
		}},
		{what: "deep copies of the profile", tool: "controller-gen", args: []string{"object:headerFile=edcoperator/boilerplate.go.txt", "paths=./connector/profile/..."}},
		{what: "install files", args: []string{"generate", "./edcoperator/...", "./cloudoperator/..."}},
		{what: "templates of the console", tool: "templ", args: []string{"generate", "-path", "cloud/console"}},
		{what: "client and OpenAPI document", tool: "oapi-codegen", args: []string{"generate", "./client"}, env: generator},
	}
}

// Generate makes every generated file anew.
func Generate(ctx context.Context, root string, log io.Writer) error {
	for _, s := range steps() {
		program, env := "go", []string(nil)
		if s.tool != "" {
			found, err := tool.Get(ctx, s.tool, log)
			if err != nil {
				return err
			}
			program = found.Path
			if s.env != nil { // the tool is called by what go generate runs
				program, env = "go", s.env(found.Path)
			}
		}
		_, _ = fmt.Fprintf(log, "generate: %s\n", s.what)
		if err := proc.Run(ctx, proc.Cmd{Name: program, Args: s.args, Dir: filepath.Join(root, s.dir), Env: env, Log: log}); err != nil {
			return fmt.Errorf("generate %s: %w", s.what, err)
		}
	}
	notices, err := Notices(ctx, root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, NoticesFile), notices, 0o644)
}

// Generated makes every generated file anew and returns those that had been
// out of date; they are up to date afterwards.
func Generated(ctx context.Context, root string, log io.Writer) ([]string, error) {
	before, err := generatedFiles(ctx, root)
	if err != nil {
		return nil, err
	}
	if err := Generate(ctx, root, log); err != nil {
		return nil, err
	}
	after, err := generatedFiles(ctx, root)
	if err != nil {
		return nil, err
	}
	var stale []string
	for name, content := range after {
		if !bytes.Equal(before[name], content) {
			stale = append(stale, name+": was out of date and has been made anew; commit it")
		}
	}
	return stale, nil
}

func generatedFiles(ctx context.Context, root string) (map[string][]byte, error) {
	names, err := tracked(ctx, root)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range names {
		if !isGenerated(name) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

// isGenerated tells generated files by their names, as CONTRIBUTING.md promises.
func isGenerated(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, "zz_generated") || strings.HasSuffix(base, "_templ.go") || strings.HasSuffix(base, ".gen.go") ||
		strings.Contains(name, "/config/crd/") || strings.HasSuffix(name, "/config/install.yaml") || name == "client/openapi.yaml" || name == NoticesFile
}
