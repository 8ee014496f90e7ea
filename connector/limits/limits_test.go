// SPDX-License-Identifier: Apache-2.0

package limits_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/limits"
)

// serve runs a server whose handler tells what became of the body.
func serve(t *testing.T, o limits.Options) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = limits.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var tooLong *http.MaxBytesError
		var tooDeep *limits.DepthError
		w.Header().Set("Content-Type", "application/json")
		switch {
		case errors.As(err, &tooLong):
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		case errors.As(err, &tooDeep):
			w.WriteHeader(http.StatusBadRequest)
		case err != nil:
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
		_, _ = fmt.Fprintf(w, `{"bytes":%d}`, len(raw))
		_, _ = io.WriteString(w, strings.Repeat(" ", 5000))
	}), o)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func packed(raw string) string {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	_, _ = io.WriteString(gz, raw)
	_ = gz.Close()
	return b.String()
}

func TestBodies(t *testing.T) {
	s := serve(t, limits.Options{BodySize: 1000, Depth: 8, Stream: func(r *http.Request) bool { return r.URL.Path == "/stream" }})
	for name, tc := range map[string]struct {
		path, encoding, body string
		status               int
	}{
		"a message":                  {"/", "", `{"a":["b"]}`, 200},
		"none":                       {"/", "", "", 200},
		"as long as allowed":         {"/", "", strings.Repeat("a", 1000), 200},
		"too long":                   {"/", "", strings.Repeat("a", 1001), 413},
		"as deep as allowed":         {"/", "", " " + strings.Repeat("[", 8), 200},
		"too deep":                   {"/", "", strings.Repeat("[", 9), 400},
		"too deep in objects":        {"/", "", strings.Repeat(`{"a":`, 9), 400},
		"deep by what is in texts":   {"/", "", `{"a":"` + strings.Repeat(`[{\"`, 20) + `","b":"\\"}`, 200},
		"wide":                       {"/", "", "[" + strings.Repeat("[],", 100) + "[]]", 200},
		"no JSON":                    {"/", "", strings.Repeat("a=[[[[", 20), 200},
		"packed":                     {"/", "gzip", packed(`{"a":1}`), 200},
		"packed, as long as allowed": {"/", "gzip", packed(strings.Repeat("a", 1000)), 200},
		"packed, one more":           {"/", "gzip", packed(strings.Repeat("a", 1001)), 413},
		"a bomb":                     {"/", "gzip", packed(strings.Repeat("a", 500_000)), 413},
		"packed and deep":            {"/", "gzip", packed(strings.Repeat("[", 9)), 400},
		"not packed after all":       {"/", "gzip", `{"a":1}`, 422},
		"cut off":                    {"/", "gzip", packed(`{"a":1}`)[:20], 422},
		"another encoding":           {"/", "br", `{"a":1}`, 415},
		"data, long and deep":        {"/stream", "", strings.Repeat("[", 100_000), 200},
		"data, packed":               {"/stream", "br", "x", 200},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Encoding", tc.encoding)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != tc.status {
				t.Errorf("answers %d, want %d", res.StatusCode, tc.status)
			}
		})
	}
}

// TestSlowCallersAreCutOff: each of them stops in the middle and stays connected; the server ends the connection.
func TestSlowCallersAreCutOff(t *testing.T) {
	const short = 50 * time.Millisecond
	inHeaders := limits.Options{Header: short, Idle: short}
	// Their header always comes in time.
	inMessages := limits.Options{Header: time.Minute, Body: short, Write: short, Stream: func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/stream") }}
	for name, tc := range map[string]struct {
		request string
		o       limits.Options
		told    bool // the handler begins, and is told
	}{
		"half a header":        {"GET / HTTP/1.1\r\nHost: x\r\nA: ", inHeaders, false},
		"half a message":       {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", inMessages, true},
		"half a stream":        {"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", inMessages, true},
		"no end of chunks":     {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", inMessages, true},
		"an answer not taken":  {"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", inMessages, true},
		"a stream not taken":   {"GET /stream/endless HTTP/1.1\r\nHost: x\r\n\r\n", inMessages, true},
		"nothing at all":       {"", inHeaders, false},
		"a header without end": {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 1<<20), inHeaders, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(nil)
			read := make(chan error, 1)
			s.Config = limits.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				for err == nil && strings.HasSuffix(r.URL.Path, "/endless") {
					_, err = w.Write(make([]byte, 1<<20))
				}
				read <- err
			}), tc.o)
			s.Start()
			defer s.Close()
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, tc.request) // the server may end it before it has all
			if tc.told {
				select {
				case err := <-read:
					if err == nil {
						t.Error("the handler took it for whole")
					}
				case <-time.After(time.Minute):
					t.Fatal("the handler was not told")
				}
			}
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, conn)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Error("the connection is still open")
			}
		})
	}
}

// TestLongHandlersKeepTheirConnection: the time for the body is over long before the handler is.
func TestLongHandlersKeepTheirConnection(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	o := limits.Options{Body: time.Second, Write: time.Second, Stream: func(*http.Request) bool { return true }}
	release := make(chan struct{})
	s.Config = limits.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "a")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-release:
			_, _ = io.WriteString(w, "b")
		}
	}), o)
	s.Start()
	defer s.Close()
	res, err := http.Post(s.URL, "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	first := make([]byte, 1)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*o.Body, func() { close(release) })
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "b" {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestABodyThatNobodyAskedFor: a caller that waits to be asked for its body gets the answer instead.
func TestABodyThatNobodyAskedFor(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.Config = limits.Server(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), limits.Options{})
	s.Start()
	defer s.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("never sent"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Hour}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		t.Errorf("answers %d", res.StatusCode)
	}
}

func FuzzDepth(f *testing.F) {
	for _, s := range []string{`{"a":[1,"]\"\\",{}]}`, `[[[[[[[[[[`, `"[[[["`, `x[[[[[`, "\t[\"\\"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, s string, chunk int) {
		var read []byte
		h := limits.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			buf := make([]byte, max(1, chunk%64))
			for {
				n, err := r.Body.Read(buf)
				read = append(read, buf[:n]...)
				var deep *limits.DepthError
				if errors.As(err, &deep) {
					if strings.Count(s, "[")+strings.Count(s, "{") <= 4 {
						t.Errorf("%q is not that deep", s)
					}
					return
				}
				if err != nil {
					if string(read) != s {
						t.Errorf("%q was read as %q", s, read)
					}
					return
				}
			}
		}), limits.Options{Depth: 4})
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(s)))
	})
}
