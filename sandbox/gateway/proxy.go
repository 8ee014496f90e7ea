// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// ReadyPath answers 200 on plain HTTP at the node's address once the gateway
// follows the cluster.
const ReadyPath = "/.sandbox/ready"

// resolver says where requests go.
type resolver interface {
	find(host, path string) (Backend, bool)
	targets(Backend) ([]string, error)
}

type backendKey struct{}

// newProxy serves the requests of all public host names.
func newProxy(r resolver, transport http.RoundTripper, log *slog.Logger) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: &balanced{next: transport},
		// Streams (events, web sockets) pass at once.
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "backend" // balanced puts the address in
			p.Out.Host = p.In.Host
			p.SetXForwarded()
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			if req.Context().Err() != nil {
				return // the client has gone
			}
			b, _ := req.Context().Value(backendKey{}).(Backend)
			status := http.StatusBadGateway
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				status = http.StatusGatewayTimeout
			}
			log.Warn("backend failed", "host", req.Host, "path", req.URL.Path, "backend", b.String(), "error", err)
			refuse(w, req, status, fmt.Sprintf("the Service %s did not answer: %v", b, err))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, ok := r.find(hostOnly(req.Host), req.URL.Path)
		if !ok {
			refuse(w, req, http.StatusNotFound, "no Ingress has this host and path")
			return
		}
		targets, err := r.targets(b)
		if err != nil {
			refuse(w, req, http.StatusServiceUnavailable, err.Error())
			return
		}
		ctx := context.WithValue(withTargets(req.Context(), targets), backendKey{}, b)
		proxy.ServeHTTP(w, req.WithContext(ctx))
	})
}

// refuse answers in plain text what was asked for and why it failed.
func refuse(w http.ResponseWriter, req *http.Request, status int, reason string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "sandbox gateway: %s\nhost: %q\npath: %q\n", reason, hostOnly(req.Host), req.URL.Path) //nolint:gosec // plain text, quoted
}

// newPlain answers on the plain HTTP port: go to HTTPS.
func newPlain(ready func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		host := hostOnly(req.Host)
		if req.URL.Path == ReadyPath && net.ParseIP(host) != nil {
			if !ready() {
				http.Error(w, "the gateway has not read the cluster yet", http.StatusServiceUnavailable)
			}
			return
		}
		w.Header().Set("Location", "https://"+host+req.URL.RequestURI())
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(host, ".")
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes that clients gave up
	}
}
