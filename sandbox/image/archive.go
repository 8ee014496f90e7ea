// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
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
	parsed   v1.Manifest
}

type section struct{ offset, size int64 }

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
	if err := json.Unmarshal(a.manifest, &a.parsed); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(a)
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

// The methods of partial.CompressedImageCore.

func (a *archive) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *archive) MediaType() (types.MediaType, error) { return a.parsed.MediaType, nil }
func (a *archive) RawConfigFile() ([]byte, error) {
	return a.read(blobPath(a.parsed.Config.Digest.Hex))
}
func (a *archive) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range a.parsed.Layers {
		if d.Digest == h {
			return archived{a, d}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

// archived is one layer of an archive.
type archived struct {
	*archive
	descriptor v1.Descriptor
}

func (l archived) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l archived) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l archived) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l archived) Compressed() (io.ReadCloser, error) {
	return l.open(blobPath(l.descriptor.Digest.Hex))
}
