// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
)

// keyHeader carries the key of the writer or the reader.
const keyHeader = "X-Api-Key"

const maxDocument = 8 << 20 // bytes

type keys struct{ writer, reader [sha256.Size]byte }

func readKeys(writerFile, readerFile string) (keys, error) {
	var k keys
	for file, dst := range map[string]*[sha256.Size]byte{writerFile: &k.writer, readerFile: &k.reader} {
		raw, err := os.ReadFile(file) // #nosec G304 -- given by whoever starts the program
		if err != nil {
			return keys{}, fmt.Errorf("key: %w", err)
		}
		key := bytes.TrimSpace(raw)
		if len(key) < 16 {
			return keys{}, fmt.Errorf("key file %s: the key has %d characters, fewer than 16", file, len(key))
		}
		*dst = sha256.Sum256(key)
	}
	if k.writer == k.reader {
		return keys{}, errors.New("writer and reader have the same key: give them different ones")
	}
	return k, nil
}

type backend struct {
	dir  string
	keys keys
	log  *slog.Logger
}

// probe tells whether documents can be written.
func (b *backend) probe() error {
	f, err := os.CreateTemp(b.dir, ".probe-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (b *backend) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := b.probe(); err != nil {
			b.fail(w, r, http.StatusServiceUnavailable, "documents can't be written", err)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("PUT /documents/{id}", b.only(b.keys.writer, "write", b.put))
	mux.Handle("GET /documents/{id}", b.only(b.keys.reader, "read", b.get))
	mux.Handle("/", b.only([sha256.Size]byte{}, "", nil))
	return mux
}

// only lets the holder of one key in. Who has no known key learns nothing but that; who has another one is told what it is not for.
func (b *backend) only(key [sha256.Size]byte, what string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get(keyHeader)))
		known := subtle.ConstantTimeCompare(got[:], b.keys.writer[:]) | subtle.ConstantTimeCompare(got[:], b.keys.reader[:])
		switch {
		case known != 1:
			b.fail(w, r, http.StatusUnauthorized, "a known key is needed in the header "+keyHeader, nil)
		case next == nil:
			b.fail(w, r, http.StatusForbidden, "only PUT and GET of /documents/{id} are served here", nil)
		case subtle.ConstantTimeCompare(got[:], key[:]) != 1:
			b.fail(w, r, http.StatusForbidden, "this key may not "+what+" documents", nil)
		default:
			next(w, r)
		}
	})
}

var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func (b *backend) path(w http.ResponseWriter, r *http.Request) (string, bool) {
	id := r.PathValue("id")
	if !idForm.MatchString(id) {
		b.fail(w, r, http.StatusBadRequest, fmt.Sprintf("the document id %q is not allowed: use up to 128 letters, digits and ._-", id), nil)
		return "", false
	}
	return filepath.Join(b.dir, id+".json"), true
}

func (b *backend) put(w http.ResponseWriter, r *http.Request) {
	path, ok := b.path(w, r)
	if !ok {
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDocument))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		b.fail(w, r, http.StatusRequestEntityTooLarge, fmt.Sprintf("the document has more than %d bytes", maxDocument), nil)
		return
	case err != nil:
		b.fail(w, r, http.StatusBadRequest, "the document did not arrive whole", err)
		return
	}
	var doc map[string]json.RawMessage
	err = json.Unmarshal(raw, &doc)
	if err == nil && doc == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		b.fail(w, r, http.StatusBadRequest, "the document is not a JSON object: "+err.Error(), nil)
		return
	}
	if err := writeFile(path, raw); err != nil {
		b.fail(w, r, http.StatusInternalServerError, "the document could not be kept", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// writeFile replaces a file as a whole: a reader sees the old document or the new one, also after a crash.
func writeFile(path string, raw []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (b *backend) get(w http.ResponseWriter, r *http.Request) {
	path, ok := b.path(w, r)
	if !ok {
		return
	}
	f, err := os.Open(path) // #nosec G304 -- path() allows no separators
	if errors.Is(err, fs.ErrNotExist) {
		b.fail(w, r, http.StatusNotFound, fmt.Sprintf("there is no document %q", r.PathValue("id")), nil)
		return
	}
	if err != nil {
		b.fail(w, r, http.StatusInternalServerError, "the document can't be read", err)
		return
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		b.fail(w, r, http.StatusInternalServerError, "the document can't be read", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	b.log.Info("document read", "id", r.PathValue("id"), "agreement", r.Header.Get("Edc-Contract-Agreement-Id"), "for", r.Header.Get("Edc-Bpn"))
	http.ServeContent(w, r, "", info.ModTime(), f)
}

func (b *backend) fail(w http.ResponseWriter, r *http.Request, status int, message string, err error) {
	b.log.Warn("refused", "method", r.Method, "path", r.URL.Path, "status", status, "message", message, "error", err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message}) //nolint:errchkjson // the client may be gone
}
