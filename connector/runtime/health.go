// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// checkTimeout bounds one readiness check.
const checkTimeout = 4 * time.Second

// health answers /livez, /readyz and /metrics.
type health struct {
	mu       sync.Mutex
	starting bool
	names    []string
	checks   map[string]*check
	metrics  http.Handler
}

// check is one thing that the roles need. Its outcome is believed for a while where asking costs.
type check struct {
	mu    sync.Mutex
	run   []func(context.Context) error
	every time.Duration
	at    time.Time
	err   error
}

func newHealth(r *prometheus.Registry) *health {
	return &health{starting: true, checks: map[string]*check{}, metrics: promhttp.HandlerFor(r, promhttp.HandlerOpts{})}
}

// add adds a check; several of one name must all pass.
func (h *health) add(name string, every time.Duration, run func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks[name] == nil {
		h.checks[name] = &check{every: every}
		h.names = append(h.names, name)
	}
	h.checks[name].mu.Lock()
	defer h.checks[name].mu.Unlock()
	h.checks[name].run = append(h.checks[name].run, run)
}

func (h *health) started() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.starting = false
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", h.metrics)
	return mux
}

func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	h.mu.Lock()
	starting, names := h.starting, append([]string{}, h.names...)
	h.mu.Unlock()
	out, status := adminapi.Readiness{Checks: []adminapi.ReadinessCheck{}}, http.StatusOK
	add := func(name, text string) {
		out.Checks = append(out.Checks, adminapi.ReadinessCheck{Name: name, Error: text})
		if text != "" {
			status = http.StatusServiceUnavailable
		}
	}
	for _, name := range names {
		text := ""
		if err := h.checks[name].result(ctx); err != nil {
			text = err.Error()
		}
		add(name, text)
	}
	if starting && status == http.StatusOK {
		add("start", "the process is starting")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) //nolint:errchkjson // the caller may be gone
}

func (c *check) result(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.every > 0 && c.err == nil && time.Since(c.at) < c.every {
		return nil
	}
	c.err = nil
	for _, run := range c.run {
		if err := run(ctx); err != nil {
			c.err = err
			break
		}
	}
	c.at = time.Now()
	return c.err
}

// either asks the first handler, and the second where the first knows nothing of it (404).
func either(first, second http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		first.ServeHTTP(rec, r)
		if rec.status == http.StatusNotFound {
			second.ServeHTTP(w, r)
			return
		}
		for k, v := range rec.header {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.status)
		_, _ = w.Write(rec.body.Bytes())
	})
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
