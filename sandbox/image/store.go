// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry is the registry part of every image name made here. It is no host:
// the images reach a cluster by loading or pushing, never by this name.
const Registry = "kaphera.local"

// keep is how many archives of one image stay in the cache.
const keep = 3

// Recipe is how one image is made.
type Recipe interface {
	// Name is the image's name below Registry, for example "connector".
	Name() string
	// Tag is the tag that names it in manifests, for example "dev" or "15".
	Tag() string
	// Prepare settles the inputs: it returns a key that changes if and only if the
	// image would, and a function that makes the image below an empty folder.
	Prepare(ctx context.Context, log io.Writer) (key string, build func(dir string) (v1.Image, error), err error)
}

// Built is an image in the cache.
type Built struct {
	Name    string `json:"name"`
	Ref     string `json:"ref"`        // kaphera.local/NAME:TAG
	Content string `json:"contentRef"` // kaphera.local/NAME:TAG-<12 hex digits of the digest>, changes with the content
	Digest  string `json:"digest"`     // sha256:... of the manifest
	Size    int64  `json:"size"`       // bytes of the archive
	Path    string `json:"path"`       // the OCI archive; it carries Ref and Content as names
	Cached  bool   `json:"-"`          // true when nothing had to be made
}

// Store is the folder of image archives.
type Store struct{ Dir string }

// Build makes the image unless the store has it.
func (s Store) Build(ctx context.Context, r Recipe, log io.Writer) (Built, error) {
	dir := filepath.Join(s.Dir, r.Name())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Built{}, fmt.Errorf("make the image cache: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return Built{}, err
	}
	defer unlock()
	key, makeImage, err := r.Prepare(ctx, log)
	if err != nil {
		return Built{}, fmt.Errorf("image %s: %w", r.Name(), err)
	}
	record := filepath.Join(dir, key+".json")
	if b, err := read(record); err == nil {
		b.Cached = true
		return b, touch(record)
	}
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		return Built{}, fmt.Errorf("image %s: %w", r.Name(), err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	img, err := makeImage(work)
	if err != nil {
		return Built{}, fmt.Errorf("image %s: %w", r.Name(), err)
	}
	b, err := s.save(img, r, filepath.Join(dir, key+".tar"))
	if err != nil {
		return Built{}, fmt.Errorf("image %s: %w", r.Name(), err)
	}
	if err := write(record, b); err != nil {
		return Built{}, fmt.Errorf("image %s: %w", r.Name(), err)
	}
	return b, prune(dir)
}

func (s Store) save(img v1.Image, r Recipe, path string) (Built, error) {
	digest, err := img.Digest()
	if err != nil {
		return Built{}, err
	}
	ref := Registry + "/" + r.Name() + ":" + r.Tag()
	b := Built{Name: r.Name(), Ref: ref, Content: ref + "-" + digest.Hex[:12], Digest: digest.String(), Path: path}
	b.Size, err = writeArchive(path, img, b.Ref, b.Content)
	return b, err
}

// List returns the newest archive of every image in the store, by name.
func (s Store) List() ([]Built, error) {
	dirs, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var all []Built
	for _, d := range dirs {
		records, err := newestFirst(filepath.Join(s.Dir, d.Name()))
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			continue
		}
		if b, err := read(records[0]); err == nil {
			all = append(all, b)
		}
	}
	return all, nil
}

// prune removes the archives beyond the newest few, and folders of builds that
// were interrupted.
func prune(dir string) error {
	records, err := newestFirst(dir)
	if err != nil {
		return err
	}
	stale, err := filepath.Glob(filepath.Join(dir, "work-*"))
	if err != nil {
		return err
	}
	for _, record := range records[min(keep, len(records)):] {
		stale = append(stale, record, strings.TrimSuffix(record, ".json")+".tar")
	}
	for _, path := range stale {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("prune the image cache: %w", err)
		}
	}
	return nil
}

func newestFirst(dir string) ([]string, error) {
	records, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	age := map[string]int64{}
	for _, r := range records {
		info, err := os.Stat(r)
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		age[r] = info.ModTime().UnixNano()
	}
	slices.SortFunc(records, func(a, b string) int { return int(age[b] - age[a]) })
	return records, nil
}

// read returns the record's image if its archive is whole.
func read(record string) (Built, error) {
	data, err := os.ReadFile(record)
	if err != nil {
		return Built{}, err
	}
	var b Built
	if err := json.Unmarshal(data, &b); err != nil {
		return Built{}, err
	}
	b.Path = strings.TrimSuffix(record, ".json") + ".tar"
	info, err := os.Stat(b.Path)
	if err != nil {
		return Built{}, err
	}
	if info.Size() != b.Size {
		return Built{}, fmt.Errorf("%s has %d bytes instead of %d", b.Path, info.Size(), b.Size)
	}
	return b, nil
}

func write(record string, b Built) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	tmp := record + ".tmp"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, record)
}

func touch(path string) error {
	now := nowFunc()
	return os.Chtimes(path, now, now)
}

// lock holds path until the returned function is called; another process that
// builds the same image waits for it.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the image cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the image cache: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
