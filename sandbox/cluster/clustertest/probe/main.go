// SPDX-License-Identifier: Apache-2.0

// Command probe is what the cluster tests run in pods: a small HTTP server that
// reports what it sees of its surroundings.
//
//	GET /path...        what arrived: host, path, headers
//	GET /fetch?url=U    the status and body of U, fetched from inside the pod,
//	                    trusting the authorities in $PROBE_CA
//	GET /resolve?name=N the addresses of N, as the pod's resolver finds them
//	PUT,GET /file?name=F content of a file
//	GET /events         one server-sent event, then nothing until the client leaves
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", echo)
	mux.HandleFunc("GET /fetch", fetch)
	mux.HandleFunc("GET /resolve", resolve)
	mux.HandleFunc("GET /file", file)
	mux.HandleFunc("PUT /file", file)
	mux.HandleFunc("GET /events", events)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { <-ctx.Done(); _ = server.Close() }()
	if err := server.ListenAndServe(); ctx.Err() == nil {
		log.Fatal(err)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = fmt.Fprintf(w, "host=%s\npath=%s\nforwarded=%s %s\nmessage=%s\n", r.Host, r.URL.Path, //nolint:gosec // plain text
		r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host"), os.Getenv("PROBE_MESSAGE"))
}

func fetch(w http.ResponseWriter, r *http.Request) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(os.Getenv("PROBE_CA")))
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.FormValue("url"), nil) //nolint:gosec // fetching what the test names is its purpose
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	resp, err := client.Do(req) //nolint:gosec // fetching what the test names is its purpose
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func resolve(w http.ResponseWriter, r *http.Request) {
	addresses, err := net.DefaultResolver.LookupHost(r.Context(), r.FormValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	_, _ = fmt.Fprintln(w, strings.Join(addresses, " ")) //nolint:gosec // plain text
}

func file(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = os.WriteFile(name, data, 0o600)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		return
	}
	data, err := os.ReadFile(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	_, _ = w.Write(data) //nolint:gosec // what the test wrote
}

// events sends one event and keeps the stream open: a gateway that collects the
// answer first would never pass it on.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = fmt.Fprint(w, "data: first\n\n")
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	<-r.Context().Done() // the client leaves once it has the event
}
