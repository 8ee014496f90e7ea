// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	imageNamespace = "k8s.io" // containerd's namespace that kubelet looks into
	importLimit    = 5 * time.Minute
)

// loaded records what an archive put into containerd: image name to digest.
type loaded map[string]string

// Load imports OCI or docker image archives into the cluster's node. An archive
// whose images are there already, with the same content, is skipped.
func Load(ctx context.Context, name string, archives []string, report Report) error {
	l, err := newLayout(name)
	if err != nil {
		return err
	}
	if _, err := readState(l); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no cluster %q; make it with `sandbox up %s`", name, name)
		}
		return err
	}
	for _, archive := range archives {
		begin := time.Now()
		imported, err := load(ctx, l, archive)
		if err != nil {
			return fmt.Errorf("load %s into cluster %q: %w", archive, name, err)
		}
		if imported {
			report(fmt.Sprintf("%s loaded (%.1f s)", archive, time.Since(begin).Seconds()))
		} else {
			report(archive + " is there already")
		}
	}
	return nil
}

func load(ctx context.Context, l layout, archive string) (imported bool, err error) {
	sum, err := fileSum(archive)
	if err != nil {
		return false, err
	}
	record := l.path("run", "images", sum)
	before, err := l.images(ctx)
	if err != nil {
		return false, err
	}
	var known loaded
	if data, err := os.ReadFile(record); err == nil && json.Unmarshal(data, &known) == nil && known.in(before) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, importLimit)
	defer cancel()
	out, err := output(ctx, nil, "ctr", l.ctrArgs("images", "import", archive)...)
	if err != nil {
		return false, err
	}
	after, err := l.images(ctx)
	if err != nil {
		return false, err
	}
	known = loaded{}
	for _, name := range importedNames(out) {
		known[name] = after[name]
	}
	if len(known) == 0 || !known.in(after) {
		return false, fmt.Errorf("containerd imported no image with a name from it; is it an OCI or docker archive? It said: %s", strings.TrimSpace(out))
	}
	return true, writeJSON(record, known)
}

// in tells whether every image is in containerd with the recorded content.
func (k loaded) in(have map[string]string) bool {
	for name, digest := range k {
		if digest == "" || have[name] != digest {
			return false
		}
	}
	return len(k) > 0
}

// importedNames reads the lines "unpacking NAME (DIGEST)...done" of an import.
func importedNames(out string) []string {
	var names []string
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "unpacking "); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	return names
}

// images maps the name of every image on the node to its digest.
func (l layout) images(ctx context.Context) (map[string]string, error) {
	out, err := l.ctr(ctx, "images", "list")
	if err != nil {
		return nil, err
	}
	return parseImages(out), nil
}

func parseImages(out string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[2], "sha256:") {
			all[f[0]] = f[2]
		}
	}
	return all
}

func (l layout) ctr(ctx context.Context, args ...string) (string, error) {
	return toolOutput(ctx, nil, "ctr", l.ctrArgs(args...)...)
}

func (l layout) ctrArgs(args ...string) []string {
	return append([]string{"--address", l.containerdSocket(), "--namespace", imageNamespace}, args...)
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
