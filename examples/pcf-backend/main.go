// SPDX-License-Identifier: Apache-2.0

// Command pcf-backend is a small company backend that keeps JSON documents on a volume: the place from which the demo's data plane
// fetches. It knows one writer and one reader by key, and nothing of dataspaces.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], log); err != nil {
		log.Error("pcf-backend", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, log *slog.Logger) error {
	flags := flag.NewFlagSet("pcf-backend", flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "address to listen on")
	dir := flags.String("data", "/data", "directory that keeps the documents")
	writer := flags.String("writer-key-file", "/etc/pcf-backend/writer", "file with the key that may write")
	reader := flags.String("reader-key-file", "/etc/pcf-backend/reader", "file with the key that may read")
	if err := flags.Parse(args); err != nil {
		return err
	}
	keys, err := readKeys(*writer, *reader)
	if err != nil {
		return err
	}
	b := &backend{dir: *dir, keys: keys, log: log}
	if err := b.probe(); err != nil {
		return fmt.Errorf("directory %s for documents: %w: mount a writable volume there or set --data", *dir, err)
	}
	srv := &http.Server{Addr: *listen, Handler: b.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe() }()
	log.Info("serving", "address", *listen, "data", *dir)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
