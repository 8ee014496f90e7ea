// SPDX-License-Identifier: Apache-2.0

// Command kaphera is the command line of a Kaphera platform; see package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kaphera/kaphera/cli"
)

var version = "dev" // set by the build

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], version)
	stop()
	os.Exit(code)
}
