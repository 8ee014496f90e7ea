// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of every file and image made here: nothing in an image may
// depend on when it was made.
var epoch = time.Unix(0, 0).UTC()

var nowFunc = time.Now

// annotations by which container engines read an archive's image names.
const (
	annotationRefName        = "org.opencontainers.image.ref.name"
	annotationContainerdName = "io.containerd.image.name"
)

// newImage is an image of one uncompressed layer, the tar file at layerPath.
func newImage(arch, layerPath string, config v1.Config) (v1.Image, error) {
	layer, err := openLayer(layerPath)
	if err != nil {
		return nil, err
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: v1.Time{Time: epoch}, Config: config, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, layer)
}

// layer is a tar file as it is: loading it into a cluster on the same machine
// costs less than compressing it would.
type layer struct {
	hash v1.Hash
	size int64
	open func() (io.ReadCloser, error)
}

func openLayer(path string) (*layer, error) {
	l := &layer{open: func() (io.ReadCloser, error) { return os.Open(path) }}
	f, err := l.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	l.hash, l.size, err = v1.SHA256(f)
	return l, err
}

func (l *layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return l.open() }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.open() }

// writeArchive writes img as an OCI archive that carries the names, replacing
// path in one step, and returns its size in bytes.
func writeArchive(path string, img v1.Image, names ...string) (int64, error) {
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(tmp) }()
	err = writeLayout(tar.NewWriter(f), img, names)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(tmp)
	if err != nil {
		return 0, err
	}
	return info.Size(), os.Rename(tmp, path)
}

func writeLayout(w *tar.Writer, img v1.Image, names []string) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	for _, name := range names {
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: digest,
			Platform:    &v1.Platform{Architecture: file.Architecture, OS: file.OS},
			Annotations: map[string]string{annotationRefName: name, annotationContainerdName: name},
		})
	}
	indexJSON, err := json.Marshal(index)
	if err != nil {
		return err
	}
	blobs := [][2]any{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", indexJSON},
		{blobPath(digest.Hex), manifest},
		{blobPath(sum(config)), config},
	}
	for _, b := range blobs {
		data := b[1].([]byte)
		if err := writeFile(w, b[0].(string), int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := writeLayer(w, l); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeLayer(w *tar.Writer, l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	return writeFile(w, blobPath(digest.Hex), size, r)
}

func writeFile(w *tar.Writer, name string, size int64, r io.Reader) error {
	h := &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: epoch, Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func blobPath(hex string) string { return "blobs/sha256/" + hex }

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}
