// SPDX-License-Identifier: Apache-2.0

// Command sandbox makes real Kubernetes clusters on a bare Linux machine, for
// the demo and the end-to-end tests. It is a development tool: nothing that
// Kaphera ships imports it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/sandbox/demo"
	"github.com/kaphera/kaphera/sandbox/image"
	"github.com/kaphera/kaphera/sandbox/tool"
	"github.com/kaphera/kaphera/sandbox/tool/check"
)

// commands makes every subcommand; add a constructor here.
var commands = []func() *cobra.Command{
	newUpCommand,
	newDownCommand,
	newStatusCommand,
	newKubeconfigCommand,
	newCACommand,
	newLoadCommand,
	newKubectlCommand,
	newFirewallCommand,
	newSignalCommand,
	newBuildCommand,
	newEnvtestCommand,
	newAgentCommand,
	demo.Command,
	image.Command,
	tool.Command,
	check.Command,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "sandbox",
		Short:         "Real Kubernetes clusters on this machine, for development",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	for _, newCommand := range commands {
		root.AddCommand(newCommand())
	}
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox: "+err.Error())
		os.Exit(1)
	}
}
