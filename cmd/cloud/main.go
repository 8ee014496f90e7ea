// SPDX-License-Identifier: FSL-1.1-ALv2

// Command cloud serves the Kaphera Cloud API and the console on one port.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/kaphera/kaphera/cloud/config"
	"github.com/kaphera/kaphera/cloud/serve"
)

var version = "dev" // set by the build

func main() {
	path := flag.String("config", "/etc/kaphera/cloud.yaml", "configuration `file`")
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *path, log); err != nil {
		fmt.Fprintln(os.Stderr, "cloud: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, log *slog.Logger) error {
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	return serve.Run(ctx, c, version, log)
}
