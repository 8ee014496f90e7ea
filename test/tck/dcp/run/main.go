// SPDX-License-Identifier: Apache-2.0

// Command run runs the DCP kit and prints its result; an argument selects test methods by name.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/kaphera/kaphera/test/tck/dcp"
	"github.com/kaphera/kaphera/test/tck/runner"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	only := ""
	if len(os.Args) > 1 {
		only = os.Args[1]
	}
	if err := runner.Execute(ctx, dcp.Kit("test/tck/dcp/pom.xml", dcp.Compatible), only, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}
