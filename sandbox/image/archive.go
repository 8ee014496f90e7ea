// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// archive is an OCI archive on disk as an image; blobs are read where they lie.
type archive struct {
	path     string
	blobs    map[string]section // by archive path
	manifest []byte
	config   []byte
	layers   []*layer
}

type section struct{ offset, size int64 }

// WithArchive calls use with the image of an archive that this package wrote;
// the image is valid only until use returns.
func WithArchive(path string, use func(v1.Image) error) error {
	img, err := readArchive(path)
	if err != nil {
		return fmt.Errorf("read the image archive %s: %w", path, err)
	}
	return use(img)
}

func readArchive(path string) (v1.Image, error) {
	a := &archive{path: path, blobs: map[string]section{}}
	if err := a.scan(); err != nil {
		return nil, err
	}
	data, err := a.read("index.json")
	if err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) == 0 {
		return nil, errors.New("its index names no image")
	}
	if a.manifest, err = a.read(blobPath(index.Manifests[0].Digest.Hex)); err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(a.manifest))
	if err != nil {
		return nil, err
	}
	if a.config, err = a.read(blobPath(manifest.Config.Digest.Hex)); err != nil {
		return nil, err
	}
	for _, d := range manifest.Layers {
		name := blobPath(d.Digest.Hex)
		a.layers = append(a.layers, &layer{hash: d.Digest, size: d.Size, open: func() (io.ReadCloser, error) { return a.open(name) }})
	}
	return a, nil
}

func (a *archive) scan() error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		a.blobs[h.Name] = section{at, h.Size}
	}
}

func (a *archive) open(name string) (io.ReadCloser, error) {
	s, ok := a.blobs[name]
	if !ok {
		return nil, fmt.Errorf("it lacks %s", name)
	}
	f, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, s.offset, s.size), f}, nil
}

func (a *archive) read(name string) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// The methods of v1.Image.

func (a *archive) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a *archive) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *archive) RawConfigFile() ([]byte, error)      { return a.config, nil }
func (a *archive) Manifest() (*v1.Manifest, error)     { return partial.Manifest(a) }
func (a *archive) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(a) }
func (a *archive) Size() (int64, error)                { return partial.Size(a) }
func (a *archive) Digest() (v1.Hash, error)            { return partial.Digest(a) }
func (a *archive) ConfigName() (v1.Hash, error)        { return partial.ConfigName(a) }

func (a *archive) Layers() ([]v1.Layer, error) {
	all := make([]v1.Layer, len(a.layers))
	for i, l := range a.layers {
		all[i] = l
	}
	return all, nil
}

// LayerByDigest also finds the configuration, as pushing an image expects.
func (a *archive) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	for _, l := range a.layers {
		if l.hash == h {
			return l, nil
		}
	}
	return partial.ConfigLayer(a)
}

// LayerByDiffID is the same: layers here are not compressed.
func (a *archive) LayerByDiffID(h v1.Hash) (v1.Layer, error) { return a.LayerByDigest(h) }
