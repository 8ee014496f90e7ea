// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaphera/kaphera/sandbox/cluster/staticimage"
	"github.com/kaphera/kaphera/sandbox/image"
	"github.com/kaphera/kaphera/sandbox/internal/place"
	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// kubeVersion is what the built programs say their version is: the one that
// kube/go.mod requires.
const kubeVersion = "v1.37.2"

// buildLimit is enough for a cold build on a busy machine with two cores.
const buildLimit = 40 * time.Minute

// binary is a program built from a module of its own beside this one.
type binary struct {
	module  string // folder below sandbox/
	name    string
	ldflags string
}

var (
	kubeBinary = binary{"kube", "kaphera-kube", "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=" + kubeVersion +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"}
	dnsBinary = binary{"coredns", "kaphera-coredns", "-s -w"}
)

// Artifacts are the built parts that every cluster is made of.
type Artifacts struct {
	Kube  string // the multi-call binary of Kubernetes' programs and etcd
	DNS   string
	Pause image.Built
}

// Build makes what a cluster needs and the cache lacks. A cold build takes most
// of ten minutes on two cores; with everything cached a second.
func Build(ctx context.Context, report Report) (Artifacts, error) {
	var a Artifacts
	root, err := place.Root()
	if err != nil {
		return a, err
	}
	cache, err := place.Cache()
	if err != nil {
		return a, err
	}
	if a.Kube, err = kubeBinary.build(ctx, root, cache, report); err != nil {
		return a, err
	}
	if a.DNS, err = dnsBinary.build(ctx, root, cache, report); err != nil {
		return a, err
	}
	a.Pause, err = image.Store{Dir: filepath.Join(cache, "images")}.Build(ctx, staticimage.Recipe{
		Image: "pause", Version: pauseVersion, Module: filepath.Join(root, "sandbox"), Package: "./cluster/pause", Cache: cache,
	}, io.Discard)
	return a, err
}

const (
	pauseVersion = "1"
	pauseRef     = image.Registry + "/pause:" + pauseVersion
)

// Envtest builds Kubernetes' programs if need be and links the ones that
// controller tests start; it returns the folder of the links.
func Envtest(ctx context.Context, report Report) (string, error) {
	root, err := place.Root()
	if err != nil {
		return "", err
	}
	cache, err := place.Cache()
	if err != nil {
		return "", err
	}
	kube, err := kubeBinary.build(ctx, root, cache, report)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "envtest")
	return dir, linkPrograms(dir, kube, "etcd", "kube-apiserver", "kubectl")
}

func linkPrograms(dir, target string, names ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if old, err := os.Readlink(path); err == nil && old == target {
			continue
		}
		// Replaced in one step: a test may be starting the program right now.
		tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
		if err := errors.Join(os.Symlink(target, tmp), os.Rename(tmp, path)); err != nil {
			return err
		}
	}
	return nil
}

// build returns the binary's path, named by the content of all that goes into it.
func (b binary) build(ctx context.Context, root, cache string, report Report) (string, error) {
	source := filepath.Join(root, "sandbox", b.module)
	key, err := b.key(ctx, source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, b.module, key)
	out := filepath.Join(dir, b.name)
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	unlock, err := lock(ctx, filepath.Join(cache, b.module, ".lock"), func() {
		report("waiting for another build of " + b.name)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(out); err == nil {
		return out, nil // the other build made it
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	begin := time.Now()
	report(fmt.Sprintf("building %s from source (once; up to ten minutes on two cores)", b.name))
	progress := &compileProgress{report: func(packages int) {
		report(fmt.Sprintf("building %s: %d packages compiled, %s", b.name, packages, time.Since(begin).Round(time.Second)))
	}}
	tmp := out + ".new"
	if err := proc.Run(ctx, proc.Cmd{
		Name: "go", Args: []string{"build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", b.ldflags, "-o", tmp, "."},
		Dir: source, Env: []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="}, Log: progress,
	}); err != nil {
		return "", fmt.Errorf("build %s: %w; run `go build .` in %s to see it alone", b.name, err, source)
	}
	report(fmt.Sprintf("built %s in %s", b.name, time.Since(begin).Round(time.Second)))
	return out, os.Rename(tmp, out)
}

func (b binary) key(ctx context.Context, source string) (string, error) {
	var files []string
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if name == "go.mod" || name == "go.sum" || strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("source of %s: %w", b.name, err)
	}
	version, err := proc.Output(ctx, proc.Cmd{Name: "go", Args: []string{"env", "GOVERSION", "GOOS", "GOARCH"}, Dir: source})
	if err != nil {
		return "", fmt.Errorf("the sandbox builds its programs with Go: %w", err)
	}
	h := sha256.New()
	h.Write(fmt.Appendf(nil, "%s\n%s\n", strings.TrimSpace(version), b.ldflags))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("source of %s: %w", b.name, err)
		}
		h.Write(fmt.Appendf(nil, "%s %d\n%s", filepath.Base(file), len(data), data))
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// compileProgress counts the packages that `go build -v` names, one a line.
type compileProgress struct {
	report   func(packages int)
	packages int
	last     time.Time
}

func (p *compileProgress) Write(data []byte) (int, error) {
	p.packages += bytes.Count(data, []byte("\n"))
	if now := time.Now(); p.report != nil && now.Sub(p.last) > 15*time.Second {
		p.last = now
		p.report(p.packages)
	}
	return len(data), nil
}
