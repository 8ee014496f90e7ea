// SPDX-License-Identifier: Apache-2.0

// Command edc-operator runs the EDC operator. It parses flags, wires and runs; everything else is in edcoperator.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kaphera/kaphera/edcoperator"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "edc-operator: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	var o edcoperator.Options
	var namespaces string
	var level slog.Level
	fs := flag.NewFlagSet("edc-operator", flag.ContinueOnError)
	fs.StringVar(&o.ConnectorImage, "connector-image", os.Getenv("RELATED_IMAGE_CONNECTOR"), "image of connectors that name none (RELATED_IMAGE_CONNECTOR)")
	fs.StringVar(&namespaces, "namespaces", "", "comma-separated namespaces to watch; empty watches all")
	fs.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the operator's own pods, which may call the connectors' internal ports (POD_NAMESPACE)")
	fs.BoolVar(&o.LeaderElection, "leader-election", true, "let one of several replicas work")
	fs.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", os.Getenv("POD_NAMESPACE"), "namespace of the Lease; empty is the pod's own (POD_NAMESPACE)")
	fs.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "address of /metrics; 0 is off")
	fs.StringVar(&o.HealthAddress, "health-address", ":8082", "address of /healthz and /readyz")
	fs.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	for n := range strings.SplitSeq(namespaces, ",") {
		if n = strings.TrimSpace(n); n != "" {
			o.Namespaces = append(o.Namespaces, n)
		}
	}
	handler := slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	ctx := ctrl.SetupSignalHandler()
	mgr, err := edcoperator.NewManager(ctx, cfg, o)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}
