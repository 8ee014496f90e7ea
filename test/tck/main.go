// SPDX-License-Identifier: Apache-2.0

// Command tck runs the Eclipse dataspace kits against the connector and prints one summary line for each. Needed on PATH: java (17 or
// later), mvn for the first run, PostgreSQL's server programs.
//
//	go run ./test/tck            all kits
//	go run ./test/tck dsp        one kit
//	go run ./test/tck dsp cn_01_02   one test of it
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kaphera/kaphera/test/tck/dcp"
	"github.com/kaphera/kaphera/test/tck/dsp"
	"github.com/kaphera/kaphera/test/tck/runner"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root := flag.String("root", ".", "root of the repository")
	flag.Parse()
	kits := []runner.Kit{
		dsp.Kit(filepath.Join(*root, "test", "tck", "dsp", "pom.xml")),
		dcp.Kit(filepath.Join(*root, "test", "tck", "dcp", "pom.xml"), dcp.Compatible),
	}
	names := make([]string, len(kits))
	for i, k := range kits {
		names[i] = strings.ToLower(k.Name)
	}
	if name := flag.Arg(0); name != "" && !slices.Contains(names, name) {
		return fmt.Errorf("there is no kit %q: use %s", name, strings.Join(names, ", "))
	}
	var errs []error
	for i, k := range kits {
		if name := flag.Arg(0); name == "" || name == names[i] {
			errs = append(errs, runner.Execute(ctx, k, flag.Arg(1), os.Stdout))
		}
	}
	return errors.Join(errs...)
}
