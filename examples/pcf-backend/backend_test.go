// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	writerKey = "writer-key-0123456789"
	readerKey = "reader-key-0123456789"
)

func keyFiles(t testing.TB, writer string) (string, string) {
	t.Helper()
	dir := t.TempDir()
	w, r := filepath.Join(dir, "writer"), filepath.Join(dir, "reader")
	for file, key := range map[string]string{w: writer, r: readerKey} {
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w, r
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	k, err := readKeys(keyFiles(t, writerKey))
	if err != nil {
		t.Fatal(err)
	}
	return &backend{dir: t.TempDir(), keys: k, log: slog.New(slog.DiscardHandler)}
}

func call(b *backend, method, path, key, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if key != "" {
		req.Header.Set(keyHeader, key)
	}
	rec := httptest.NewRecorder()
	b.handler().ServeHTTP(rec, req)
	return rec
}

func TestWriteAndRead(t *testing.T) {
	b := newBackend(t)
	for _, doc := range []string{`{"v":1.000001}`, `{"v":2}`} {
		if rec := call(b, http.MethodPut, "/documents/pcf-4711", writerKey, doc); rec.Code != http.StatusNoContent {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		rec := call(b, http.MethodGet, "/documents/pcf-4711", readerKey, "")
		if rec.Code != http.StatusOK || rec.Body.String() != doc || rec.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
	files, err := os.ReadDir(b.dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%v left behind: %v", files, err)
	}
}

func TestRefused(t *testing.T) {
	b := newBackend(t)
	for _, c := range []struct {
		name, method, path, key, body string
		status                        int
		want                          string
	}{
		{"read without key", "GET", "/documents/a", "", "", 401, "a known key is needed"},
		{"read with an unknown key", "GET", "/documents/a", "x", "", 401, "a known key is needed"},
		{"read with the writer's key", "GET", "/documents/a", writerKey, "", 403, "may not read"},
		{"write without key", "PUT", "/documents/a", "", "{}", 401, "a known key is needed"},
		{"write with the reader's key", "PUT", "/documents/a", readerKey, "{}", 403, "may not write"},
		{"delete", "DELETE", "/documents/a", writerKey, "", 403, "only PUT and GET"},
		{"delete without key", "DELETE", "/documents/a", "", "", 401, "a known key is needed"},
		{"list", "GET", "/documents/", readerKey, "", 403, "only PUT and GET"},
		{"elsewhere", "GET", "/", "", "", 401, "a known key is needed"},
		{"not there", "GET", "/documents/a", readerKey, "", 404, `no document \"a\"`},
		{"hidden", "GET", "/documents/.probe-1", readerKey, "", 400, "is not allowed"},
		{"out of the directory", "GET", "/documents/..%2f..%2fetc%2fpasswd", readerKey, "", 400, "is not allowed"},
		{"not JSON", "PUT", "/documents/a", writerKey, "footprint", 400, "not a JSON object"},
		{"no object", "PUT", "/documents/a", writerKey, "[1]", 400, "not a JSON object"},
		{"too large", "PUT", "/documents/a", writerKey, `{"a":"` + strings.Repeat("x", maxDocument) + `"}`, 413, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if rec := call(b, c.method, c.path, c.key, c.body); rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
		})
	}
	files, err := os.ReadDir(b.dir)
	if err != nil || len(files) != 0 {
		t.Errorf("%v left behind: %v", files, err)
	}
}

func TestHealth(t *testing.T) {
	b := newBackend(t)
	if call(b, http.MethodGet, "/livez", "", "").Code != 200 || call(b, http.MethodGet, "/readyz", "", "").Code != 200 {
		t.Error("not healthy")
	}
	b.dir = filepath.Join(b.dir, "gone")
	if call(b, http.MethodGet, "/livez", "", "").Code != 200 || call(b, http.MethodGet, "/readyz", "", "").Code != 503 {
		t.Error("ready without its volume")
	}
	if rec := call(b, http.MethodPut, "/documents/a", writerKey, "{}"); rec.Code != 500 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestRun(t *testing.T) {
	w, r := keyFiles(t, writerKey)
	same, _ := keyFiles(t, readerKey)
	short, _ := keyFiles(t, "short")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	for want, args := range map[string][]string{
		"no such file":              {"--writer-key-file=/none"},
		"fewer than 16":             {"--writer-key-file", short, "--reader-key-file", r},
		"have the same key":         {"--writer-key-file", same, "--reader-key-file", r},
		"mount a writable volume":   {"--writer-key-file", w, "--reader-key-file", r, "--data=/none"},
		"address already in use":    {"--writer-key-file", w, "--reader-key-file", r, "--data", t.TempDir(), "--listen", busy.Addr().String()},
		"flag provided but not def": {"--nonsense"},
	} {
		if err := run(t.Context(), args, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"--writer-key-file", w, "--reader-key-file", r, "--data", t.TempDir(), "--listen", "127.0.0.1:0"}, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("stopped: %v", err)
	}
}
