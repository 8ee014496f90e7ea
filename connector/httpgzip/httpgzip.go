// SPDX-License-Identifier: Apache-2.0

// Package httpgzip lets a handler of messages take gzipped requests and give gzipped answers (DSP 2025-1 "HTTP Binding" allows both, and clients
// of DCP do so). It is for answers that are written at once; streams stay as they are.
package httpgzip

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// threshold is from how many bytes on an answer is worth compressing.
const threshold = 1 << 10

// Handler wraps next. A gzipped body is unpacked while next reads it, so that a limit which next puts on the body bounds what is unpacked,
// whatever the sender packed. A body in another encoding is answered 415. An answer of at least a kilobyte, written at once, is compressed
// for those who accept that.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
		case "", "identity":
		case "gzip", "x-gzip":
			r.Body = &unpacked{packed: r.Body}
			r.Header.Del("Content-Encoding")
			r.Header.Del("Content-Length")
			r.ContentLength = -1
		default:
			w.Header().Set("Accept-Encoding", "gzip")
			http.Error(w, "content encoding "+strconv.Quote(encoding)+": send gzip or none", http.StatusUnsupportedMediaType)
			return
		}
		w.Header().Add("Vary", "Accept-Encoding")
		if !accepted(r.Header.Values("Accept-Encoding")) {
			next.ServeHTTP(w, r)
			return
		}
		p := &packer{ResponseWriter: w}
		defer p.close()
		next.ServeHTTP(p, r)
	})
}

// accepted says whether a client takes gzip.
func accepted(header []string) bool {
	for _, item := range strings.Split(strings.Join(header, ","), ",") {
		coding, params, _ := strings.Cut(item, ";")
		if c := strings.TrimSpace(coding); !strings.EqualFold(c, "gzip") && c != "*" {
			continue
		}
		q, weighted := strings.CutPrefix(strings.TrimSpace(params), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !weighted || (err == nil && weight > 0)
	}
	return false
}

// unpacked begins to unpack when it is first read: its header is the sender's too, and errors belong to who reads.
type unpacked struct {
	packed io.ReadCloser
	plain  *gzip.Reader
}

func (u *unpacked) Read(p []byte) (int, error) {
	if u.plain == nil {
		zr, err := gzip.NewReader(u.packed)
		if err != nil {
			if err == io.EOF { //nolint:errorlint // an empty body is not an empty archive
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		u.plain = zr
	}
	return u.plain.Read(p)
}

func (u *unpacked) Close() error { return u.packed.Close() }

var writers = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}

// packer decides at the first write.
type packer struct {
	http.ResponseWriter
	status int // asked for and not sent yet
	begun  bool
	zw     *gzip.Writer
}

// Unwrap gives http.ResponseController the writer beneath.
func (p *packer) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *packer) WriteHeader(status int) {
	if p.begun || status < 200 {
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.status = status
}

func (p *packer) Write(b []byte) (int, error) {
	if !p.begun {
		p.begin(len(b) >= threshold)
	}
	if p.zw != nil {
		return p.zw.Write(b)
	}
	return p.ResponseWriter.Write(b)
}

func (p *packer) begin(compress bool) {
	p.begun = true
	h := p.Header()
	if compress && h.Get("Content-Encoding") == "" && p.status != http.StatusPartialContent {
		if h.Get("Content-Type") == "" {
			h.Set("Content-Type", "application/octet-stream") // else it would be guessed from the compressed bytes
		}
		h.Set("Content-Encoding", "gzip")
		h.Del("Content-Length")
		p.zw, _ = writers.Get().(*gzip.Writer)
		p.zw.Reset(p.ResponseWriter)
	}
	if p.status != 0 {
		p.ResponseWriter.WriteHeader(p.status)
	}
}

// close ends an answer, also one without a body.
func (p *packer) close() {
	if !p.begun {
		p.begin(false)
	}
	if p.zw != nil {
		_ = p.zw.Close() // the caller has gone
		p.zw.Reset(io.Discard)
		writers.Put(p.zw)
	}
}
