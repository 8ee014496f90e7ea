// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/sandbox/cluster"
)

// reporter prints what is going on with the time since the command began.
func reporter(w io.Writer) cluster.Report {
	begin := time.Now()
	return func(line string) {
		_, _ = fmt.Fprintf(w, "%6.1fs  %s\n", time.Since(begin).Seconds(), line)
	}
}

func newUpCommand() *cobra.Command {
	var o cluster.Options
	c := &cobra.Command{
		Use: "up NAME", Short: "Make a cluster, or repair it, and wait until it is ready", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Name = args[0]
			info, err := cluster.Up(c.Context(), o, reporter(c.ErrOrStderr()))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "cluster %s is ready\n  kubeconfig  %s\n  hosts       *.%s at %s, authority %s\n",
				info.Name, info.Kubeconfig, info.Domain, info.Node, info.CAFile)
			return err
		},
	}
	c.Flags().StringVar(&o.Domain, "domain", "", "parent of the cluster's public host names (default NAME.kaphera.test)")
	c.Flags().StringVar(&o.Cloud, "cloud", "", "another cluster: this one plays a company behind a firewall, which lets it out to that one's gateway only")
	return c
}

func newDownCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down NAME", Short: "Remove a cluster and everything of it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return cluster.Down(c.Context(), args[0], reporter(c.ErrOrStderr()))
		},
	}
}

func newKubeconfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig NAME", Short: "Print the path of a cluster's kubeconfig", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := cluster.Kubeconfig(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), path)
			return err
		},
	}
}

func newCACommand() *cobra.Command {
	return &cobra.Command{
		Use: "ca NAME", Short: "Print the certificate that signs a cluster's public host names", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := cluster.CAFile(args[0])
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(data)
			return err
		},
	}
}

func newLoadCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "load [NAME] ARCHIVE...", Short: "Put images (OCI or docker archives) on a cluster's node", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" {
				name, args = args[0], args[1:]
			}
			if len(args) == 0 {
				return fmt.Errorf("no image archive given for cluster %q", name)
			}
			return cluster.Load(c.Context(), name, args, reporter(c.ErrOrStderr()))
		},
	}
	c.Flags().StringVar(&name, "name", "", "the cluster; then every argument is an archive")
	return c
}

func newEnvtestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "envtest", Short: "Build etcd, kube-apiserver and kubectl for controller tests and print their folder", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := cluster.Envtest(c.Context(), reporter(c.ErrOrStderr()))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), dir)
			return err
		},
	}
}

func newBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use: "build", Short: "Build what clusters are made of, so that `up` need not", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := cluster.Build(c.Context(), reporter(c.ErrOrStderr()))
			return err
		},
	}
}

func newStatusCommand() *cobra.Command {
	var components bool
	c := &cobra.Command{
		Use: "status", Short: "List the clusters on this machine", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := cluster.List(c.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			_, _ = fmt.Fprintln(w, "NAME\tSTATE\tNODE\tDOMAIN\tMEMORY\tREASON")
			for _, s := range list {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d MB\t%s\n", s.Name, s.State, s.Node, s.Domain, s.Memory>>20, s.Reason)
				if components {
					for _, name := range sortedKeys(s.Components) {
						_, _ = fmt.Fprintf(w, "  %s\t\t\t\t%d MB\t\n", name, s.Components[name]>>20)
					}
				}
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&components, "components", false, "show every program of each cluster")
	return c
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func newKubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use: "kubectl NAME ARG...", Short: "Run the built kubectl on a cluster", DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
				return c.Help()
			}
			kubeconfig, err := cluster.Kubeconfig(args[0])
			if err != nil {
				return err
			}
			vpn, err := cluster.VPN(args[0])
			if err != nil {
				return err
			}
			dir, err := cluster.Envtest(c.Context(), reporter(c.ErrOrStderr()))
			if err != nil {
				return err
			}
			argv := append([]string{dir + "/kubectl", "--kubeconfig=" + kubeconfig}, args[1:]...)
			if vpn != "" {
				argv = append([]string{"nsenter", "--net=" + vpn, "--"}, argv...)
			}
			cmd := exec.CommandContext(c.Context(), argv[0], argv[1:]...) //nolint:gosec // what was asked for
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			return cmd.Run()
		},
	}
}

func newFirewallCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "firewall NAME", Short: "Print, as JSON, what went through the firewall of a company's cluster", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			seen, err := cluster.Firewall(c.Context(), args[0])
			if err != nil {
				return err
			}
			e := json.NewEncoder(c.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(seen)
		},
	}
	c.AddCommand(
		&cobra.Command{
			Use: "cut NAME [POD-ADDRESS ...]", Short: "Drop all between a company's cluster and its cloud, or what is of some pods; for trials of faults", Args: cobra.MinimumNArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return cluster.Cut(c.Context(), args[0], args[1:]...) },
		},
		&cobra.Command{
			Use: "heal NAME", Short: "End what cut began", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return cluster.Heal(c.Context(), args[0]) },
		})
	return c
}

func newSignalCommand() *cobra.Command {
	return &cobra.Command{
		Use: "signal NAME COMPONENT stop|cont", Short: "Stop a program of a cluster as if it hung, or let it go on; for trials of faults",
		Example: "  sandbox signal demo kube-apiserver stop", Args: cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			signals := map[string]syscall.Signal{"stop": syscall.SIGSTOP, "cont": syscall.SIGCONT}
			signal, ok := signals[args[2]]
			if !ok {
				return fmt.Errorf("signal %q: use stop or cont", args[2])
			}
			return cluster.Signal(args[0], args[1], signal)
		},
	}
}

// newAgentCommand is started by `up`, not by people.
func newAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use: cluster.AgentCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			return cluster.Agent(c.Context(), args, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}
