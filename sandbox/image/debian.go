// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// pkg is one Debian package as the machine's package lists name it.
type pkg struct {
	name, version, sha256 string
	depends               []string // first alternative of each dependency
}

// neverInImages are packages that install or configure others. Nothing in an
// image runs their scripts, so they and what only they need stay out.
var neverInImages = []string{"dpkg", "debconf", "debianutils", "install-info", "base-files", "perl", "perl-base", "gcc-12-base", "sensible-utils", "util-linux"}

// closure returns roots and everything they depend on, without the packages
// named in prune and what only those need, sorted by name.
func closure(ctx context.Context, log io.Writer, roots, prune []string) ([]pkg, error) {
	// One question for all names that could be needed and one for their records:
	// each costs half a second.
	args := append([]string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"}, roots...)
	out, err := proc.Output(ctx, proc.Cmd{Name: "apt-cache", Args: args, Log: log})
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w: run apt-get update; the images need Debian 12 packages", strings.Join(roots, ", "), err)
	}
	names := slices.Clone(roots)
	for line := range strings.Lines(out) {
		if name := strings.TrimSpace(line); name == strings.TrimSuffix(line, "\n") && !strings.HasPrefix(name, "<") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	known, err := show(ctx, log, names)
	if err != nil {
		return nil, err
	}
	return pick(known, roots, append(slices.Clone(neverInImages), prune...))
}

// pick follows the dependencies from roots through the known packages.
func pick(known map[string]pkg, roots, prune []string) ([]pkg, error) {
	picked := map[string]bool{}
	var all []pkg
	for next := slices.Clone(roots); len(next) > 0; next = next[1:] {
		name := next[0]
		if picked[name] || slices.Contains(prune, name) {
			continue
		}
		p, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("package %s is not in this machine's package lists: run apt-get update; the images need Debian 12 packages", name)
		}
		picked[name] = true
		all = append(all, p)
		next = append(next, p.depends...)
	}
	slices.SortFunc(all, func(a, b pkg) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

func show(ctx context.Context, log io.Writer, names []string) (map[string]pkg, error) {
	args := append([]string{"show", "--no-all-versions"}, names...)
	out, err := proc.Output(ctx, proc.Cmd{Name: "apt-cache", Args: args, Log: log})
	if err != nil && out == "" {
		return nil, fmt.Errorf("look up %s: %w: run apt-get update", strings.Join(names, ", "), err)
	}
	found := map[string]pkg{}
	for record := range strings.SplitSeq(out, "\n\n") {
		if p := parseRecord(record); p.name != "" {
			found[p.name] = p
		}
	}
	return found, nil
}

func parseRecord(record string) pkg {
	var p pkg
	for line := range strings.SplitSeq(record, "\n") {
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "Package":
			p.name = value
		case "Version":
			p.version = value
		case "SHA256":
			p.sha256 = value
		case "Depends", "Pre-Depends":
			for dep := range strings.SplitSeq(value, ",") {
				first, _, _ := strings.Cut(strings.TrimSpace(dep), " ")
				first, _, _ = strings.Cut(first, ":")
				p.depends = append(p.depends, first)
			}
		}
	}
	return p
}

// versions are the inputs that the packages add to an image's key.
func versions(pkgs []pkg) string {
	var b strings.Builder
	for _, p := range pkgs {
		fmt.Fprintf(&b, "%s %s %s\n", p.name, p.version, p.sha256)
	}
	return b.String()
}

// download fetches the packages' archives into dir and returns their paths.
func download(ctx context.Context, log io.Writer, dir string, pkgs []pkg) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	args := []string{"-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download"}
	for _, p := range pkgs {
		args = append(args, p.name+"="+p.version)
	}
	if err := proc.Run(ctx, proc.Cmd{Name: "apt-get", Args: args, Dir: dir, Log: log}); err != nil {
		return nil, fmt.Errorf("download packages: %w", err)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return nil, err
	}
	if len(debs) != len(pkgs) {
		return nil, fmt.Errorf("downloaded %d of %d packages into %s", len(debs), len(pkgs), dir)
	}
	return debs, nil
}

// install downloads the packages and unpacks their files; no maintainer script runs.
func (r *rootfs) install(ctx context.Context, log io.Writer, work string, pkgs []pkg, skip func(string) bool) error {
	debs, err := download(ctx, log, filepath.Join(work, "debs"), pkgs)
	if err != nil {
		return err
	}
	if err := r.mergeUsr(); err != nil {
		return err
	}
	for _, deb := range debs {
		if err := r.unpack(ctx, deb, skip); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

func (r *rootfs) unpack(ctx context.Context, deb string, skip func(string) bool) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb) //nolint:gosec // a package just downloaded
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = r.extract(out, func(name string) bool { return documentation(name) || skip(name) })
	if err == nil {
		_, err = io.Copy(io.Discard, out) // padding after the last entry
	}
	if waitErr := cmd.Wait(); err == nil {
		err = waitErr
	}
	return err
}

// documentation says whether a path holds what only people at a terminal read.
// Licence texts stay: whoever passes the image on must pass them on.
func documentation(name string) bool {
	if strings.HasPrefix(name, "usr/share/doc/") {
		return path.Base(name) != "copyright" && strings.Count(name, "/") > 3
	}
	return below(name, "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug", "usr/share/bash-completion", "usr/share/menu", "usr/share/applications", "usr/share/gdb")
}

// below says whether name is one of the folders or inside one.
func below(name string, folders ...string) bool {
	for _, f := range folders {
		if name == f || strings.HasPrefix(name, f+"/") {
			return true
		}
	}
	return false
}
