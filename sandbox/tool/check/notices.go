// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// shipped are the packages whose programs are passed on to others.
var shipped = []string{"./cmd/...", "./examples/..."}

// module is one Go module in the shipped programs.
type module struct {
	Path    string  `json:"Path"`
	Version string  `json:"Version"`
	Dir     string  `json:"Dir"`
	Main    bool    `json:"Main"`
	Replace *module `json:"Replace"`
}

// Notices returns the text of NoticesFile: every third-party module in the
// shipped programs with its licence text, equal texts once.
func Notices(ctx context.Context, root string) ([]byte, error) {
	modules, err := shippedModules(ctx, root)
	if err != nil {
		return nil, err
	}
	byText := map[string][]string{}
	var order []string
	for _, m := range modules {
		text, err := licenceText(m.Dir)
		if err != nil {
			return nil, fmt.Errorf("licence of %s: %w", m.Path, err)
		}
		if _, ok := byText[text]; !ok {
			order = append(order, text)
		}
		byText[text] = append(byText[text], m.Path+" "+m.Version)
	}
	var out bytes.Buffer
	out.WriteString("<!-- SPDX-License-Identifier: Apache-2.0 -->\n<!-- Made by `make generate` from the modules that the programs are built of. Do not edit. -->\n")
	fmt.Fprintf(&out, "# Third-party notices\n\nKaphera's programs contain the Go standard library and %d modules by others, under these licences.\n", len(modules))
	for _, text := range order {
		out.WriteString("\n## " + strings.Join(byText[text], "\n## ") + "\n\n")
		for line := range strings.SplitSeq(text, "\n") {
			out.WriteString(strings.TrimRight("    "+line, " \t\r") + "\n")
		}
	}
	return out.Bytes(), nil
}

func shippedModules(ctx context.Context, root string) ([]module, error) {
	out, err := proc.Output(ctx, proc.Cmd{
		Name: "go", Args: append([]string{"list", "-deps", "-json=Module"}, shipped...), Dir: root, Env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64"},
	})
	if err != nil {
		return nil, err
	}
	byPath := map[string]module{}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var p struct {
			Module *module `json:"Module"`
		}
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if m := p.Module; m != nil && !m.Main {
			if m.Replace != nil {
				m = m.Replace
			}
			byPath[m.Path] = *m
		}
	}
	modules := make([]module, 0, len(byPath))
	for _, m := range byPath {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// licenceText joins a module's licence and notice files.
func licenceText(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var texts []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || strings.HasSuffix(name, ".GO") || !hasPrefix(name, "LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "MIT-LICENSE", "COPYRIGHT") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		texts = append(texts, strings.TrimSpace(strings.ReplaceAll(string(data), "\r\n", "\n")))
	}
	if len(texts) == 0 {
		return "", fmt.Errorf("no licence file in %s", filepath.Base(dir))
	}
	return strings.Join(texts, "\n\n"), nil
}

func hasPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
