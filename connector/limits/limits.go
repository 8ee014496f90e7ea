// SPDX-License-Identifier: Apache-2.0

// Package limits bounds what a caller may cost a connector: bytes, nesting and time of every request on every listener of every role. It is the
// one place for that, and knows nothing of what the requests mean. Who counts as one party (Shares) is said by connector/dsp and
// connector/dataplane.
package limits

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/kaphera/kaphera/connector/httpgzip"
	"github.com/kaphera/kaphera/connector/jsondepth"
)

// Options are the bounds; zero values stand for the defaults.
type Options struct {
	Header     time.Duration // until a request's header is there; default 10 s
	Idle       time.Duration // between two requests of a connection; default 2 min
	Body       time.Duration // until a message's body is there; default 30 s
	Handle     time.Duration // until a message's answer is ready; default 1 min
	Write      time.Duration // of one piece of an answer: a caller that takes nothing is cut off; default 30 s
	HeaderSize int           // bytes; default 64 KiB
	BodySize   int64         // bytes of a message, after decompression; default 2 MiB
	Depth      int           // nesting of a message in JSON; default jsondepth.Max
	// Stream says which requests carry or fetch data instead of messages. They have no bounds of size and depth, and of time only from one piece
	// to the next; what serves them bounds the whole.
	Stream func(*http.Request) bool
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Header, 10*time.Second)
	def(&o.Idle, 2*time.Minute)
	def(&o.Body, 30*time.Second)
	def(&o.Handle, time.Minute)
	def(&o.Write, 30*time.Second)
	if o.HeaderSize == 0 {
		o.HeaderSize = 64 << 10
	}
	if o.BodySize == 0 {
		o.BodySize = 2 << 20
	}
	if o.Depth == 0 {
		o.Depth = jsondepth.Max
	}
	if o.Stream == nil {
		o.Stream = func(*http.Request) bool { return false }
	}
	return o
}

// Server makes a server whose every request is within the bounds.
func Server(next http.Handler, o Options) *http.Server {
	o = o.withDefaults()
	return &http.Server{Handler: Handler(next, o), ReadHeaderTimeout: o.Header, IdleTimeout: o.Idle, MaxHeaderBytes: o.HeaderSize}
}

// Handler bounds the requests to next, and unpacks and packs their messages. A body that is too long, too deep or too slow fails while it is read:
// too long with an *http.MaxBytesError, too deep with a *DepthError.
func Handler(next http.Handler, o Options) http.Handler {
	o = o.withDefaults()
	// What is unpacked is bounded as what came.
	messages := httpgzip.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = &depth{ReadCloser: http.MaxBytesReader(w, r.Body, o.BodySize), most: o.Depth}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answer{ResponseWriter: w, conn: http.NewResponseController(w), time: o.Write}
		out.extend()
		defer out.extend() // for what the server still holds
		// A copy of the request: the server goes by the body in its own to end a connection properly.
		ctx, cancel := context.WithTimeout(r.Context(), o.Handle)
		defer cancel()
		stream := o.Stream(r)
		if stream {
			ctx = r.Context()
		}
		r = r.WithContext(ctx)
		if r.Body != nil && r.Body != http.NoBody {
			in := &body{ReadCloser: r.Body, conn: out.conn, time: o.Body, stream: stream}
			in.extend()
			r.Body = in
		}
		if stream {
			next.ServeHTTP(out, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, o.BodySize)
		messages.ServeHTTP(out, r)
	})
}

// DepthError is a message that is nested too deep.
type DepthError struct{ Limit int }

func (e *DepthError) Error() string {
	return fmt.Sprintf("the message is nested more than %d deep", e.Limit)
}

// depth reads JSON and fails where it is nested too deep. What is not JSON passes.
type depth struct {
	io.ReadCloser
	most, now int
	begun     bool
	other     bool // not JSON
	text, esc bool // inside a string, after a backslash
}

func (d *depth) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	for _, c := range p[:n] {
		switch {
		case d.other:
			return n, err
		case d.esc:
			d.esc = false
		case d.text:
			d.esc, d.text = c == '\\', c != '"'
		case c == '"':
			d.text = true
		case c == '{' || c == '[':
			if d.now++; d.now > d.most {
				return 0, &DepthError{d.most}
			}
		case c == '}' || c == ']':
			d.now--
		}
		if !d.begun && c > ' ' {
			d.begun, d.other = true, c != '{' && c != '[' && c != '"'
		}
	}
	return n, err
}

// body gives a request's body its time: a message all of it, a stream each piece. Once it is read, the connection's time is its handler's.
type body struct {
	io.ReadCloser
	conn   *http.ResponseController
	time   time.Duration
	stream bool
}

func (b *body) extend() { _ = b.conn.SetReadDeadline(time.Now().Add(b.time)) } // a recorder in tests has no connection

func (b *body) Read(p []byte) (int, error) {
	if b.stream {
		b.extend()
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) { // otherwise the rest, which the server skips, has no more time than the body had
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// answer gives each piece of an answer its time.
type answer struct {
	http.ResponseWriter
	conn *http.ResponseController
	time time.Duration
}

func (a *answer) extend() { _ = a.conn.SetWriteDeadline(time.Now().Add(a.time)) } // as above

func (a *answer) Write(p []byte) (int, error) {
	a.extend()
	return a.ResponseWriter.Write(p)
}

// FlushError makes http.ResponseController flush.
func (a *answer) FlushError() error {
	a.extend()
	return a.conn.Flush()
}

// Unwrap gives http.ResponseController the writer beneath.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
