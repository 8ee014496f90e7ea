// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/sandbox/stage"
)

// Command is "sandbox demo".
func Command() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Build, provision and run the demo (make demo)",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return start(cmd, o, Run) },
	}
	down := &cobra.Command{
		Use:   "down",
		Short: "Remove the demo and its cluster (make demo-down)",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return start(cmd, o, Down) },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.Cluster, "cluster", Sandbox, "sandbox, kind or existing")
	f.StringVar(&o.Name, "name", "demo", "name of the cluster, and of its domain NAME.kaphera.test")
	f.StringVar(&o.Domain, "domain", "", "parent of the host names (default NAME.kaphera.test)")
	f.StringVar(&o.IngressClass, "ingress-class", "", "class of the cluster's ingress controller (kind, existing)")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (existing)")
	f.StringVar(&o.Registry, "registry", "", "where images are pushed to (existing)")
	f.StringVar(&o.CAFile, "ca-file", "", "PEM of the authority of the gateway's certificates (kind, existing)")
	cmd.Flags().BoolVar(&o.NoExchange, "no-exchange", false, "stop when the platform and the participants stand")
	cmd.AddCommand(down)
	return cmd
}

func start(cmd *cobra.Command, o Options, run func(context.Context, Options) error) error {
	o.Out = cmd.OutOrStdout()
	o.Live = stage.IsTerminal(os.Stdout)
	return run(cmd.Context(), o)
}

// report is what the stages, and then what was shown, took.
type report struct {
	stage.Report
	Showings []shown `json:"showings"`
}

// writeReport keeps the time table for those who measure.
func (d *demo) writeReport(r report) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(d.path("report.json"), append(data, '\n'), 0o644)
}
