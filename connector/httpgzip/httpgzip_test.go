// SPDX-License-Identifier: Apache-2.0

package httpgzip_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/httpgzip"
)

const limit = 64 << 10

// echo answers what it read, or says that it was too much.
var echo = httpgzip.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case len(raw) == 0:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(raw)
	}
}))

func pack(t *testing.T, plain []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func send(t *testing.T, body []byte, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	for k, v := range header {
		req.Header.Set(k, v)
	}
	rec := httptest.NewRecorder()
	echo.ServeHTTP(rec, req)
	res := rec.Result()
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, raw
}

func TestRequests(t *testing.T) {
	short := []byte(`{"a":1}`)
	for name, tc := range map[string]struct {
		body     []byte
		encoding string
		status   int
	}{
		"plain":              {short, "", 201},
		"gzip":               {pack(t, short), "gzip", 201},
		"GZIP":               {pack(t, short), " GZIP ", 201},
		"no body":            {nil, "", 204},
		"not gzip":           {short, "gzip", 400},
		"cut off":            {pack(t, short)[:12], "gzip", 400},
		"nothing as gzip":    {nil, "gzip", 400},
		"deflate":            {short, "deflate", 415},
		"as long as allowed": {pack(t, make([]byte, limit)), "gzip", 201},
		"a bomb":             {pack(t, make([]byte, 8<<20)), "gzip", 413},
	} {
		res, raw := send(t, tc.body, map[string]string{"Content-Encoding": tc.encoding})
		if res.StatusCode != tc.status {
			t.Errorf("%s: %d, want %d", name, res.StatusCode, tc.status)
		}
		if res.StatusCode == http.StatusCreated && len(raw) < limit && string(raw) != string(short) {
			t.Errorf("%s: read %q", name, raw)
		}
	}
}

func TestAnswers(t *testing.T) {
	long := []byte(strings.Repeat("0123456789", 500))
	for name, tc := range map[string]struct {
		body   []byte
		accept string
		packed bool
	}{
		"not asked for":       {long, "", false},
		"asked for":           {long, "gzip", true},
		"among others":        {long, "br, gzip;q=0.5", true},
		"anything":            {long, "*", true},
		"refused":             {long, "gzip;q=0", false},
		"nothing but another": {long, "br", false},
		"too short":           {[]byte("{}"), "gzip", false},
		"none":                {nil, "gzip", false},
	} {
		res, raw := send(t, tc.body, map[string]string{"Accept-Encoding": tc.accept})
		packed := res.Header.Get("Content-Encoding") == "gzip"
		if packed != tc.packed || res.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: headers %v", name, res.Header)
		}
		if packed {
			zr, err := gzip.NewReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			if raw, err = io.ReadAll(zr); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(raw, tc.body) {
			t.Errorf("%s: %d bytes, want %d", name, len(raw), len(tc.body))
		}
	}
}

// Whatever is sent as gzip, no more than the limit is read, and never a panic.
func FuzzRequest(f *testing.F) {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write([]byte(`{"a":1}`)); err != nil {
		f.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(append(buf.Bytes(), buf.Bytes()...))
	f.Add([]byte{0x1f, 0x8b, 8, 0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		res, raw := send(t, body, map[string]string{"Content-Encoding": "gzip"})
		if len(raw) > limit || res.StatusCode >= 500 {
			t.Errorf("%d, %d bytes", res.StatusCode, len(raw))
		}
	})
}
