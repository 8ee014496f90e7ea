// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/client/install"
)

// cellInstall is what kaphera cell install and uninstall were called with.
type cellInstall struct {
	kubeconfig, kubeContext string
	print, rotateKey        bool
	patience                time.Duration
}

// InstallReport is what an installation came to.
type InstallReport struct {
	Cell      string   `json:"cell"`
	Namespace string   `json:"namespace"`         // in the company's cluster
	AgentKey  string   `json:"agentKey"`          // public
	Written   []string `json:"written,omitempty"` // objects that were not as they should be
	Connected bool     `json:"connected"`
}

func (f *cellInstall) flags(cmd *cobra.Command, patience time.Duration) {
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cell's cluster (default: KUBECONFIG, then ~/.kube/config)")
	cmd.Flags().StringVar(&f.kubeContext, "kube-context", "", "context of the kubeconfig (default: its current one)")
	cmd.Flags().DurationVar(&f.patience, "timeout", patience, "how long to wait")
}

func (a *app) cellInstallCommand() *cobra.Command {
	var f cellInstall
	cmd := &cobra.Command{
		Use: "install CELL", Short: "Install an on-premise cell in its company's cluster", Args: cobra.ExactArgs(1),
		Long: "Installs the agent and the EDC operator of an on-premise cell in the cluster of the kubeconfig, and waits until the agent is connected to the cloud.\n" +
			"The agent's private key is made here and put into a Secret of that cluster; the cloud gets the public half. Nothing is deployed when a check of the\n" +
			"cluster fails or its API server would refuse an object. Repeated, it puts back what was changed or removed, and keeps the key.\n" +
			"kaphera cell check tells beforehand whether Vault, database and the ways to others are as they must be.",
		Example: "  kaphera cell install oem-frankfurt --kubeconfig frankfurt.kubeconfig\n  kaphera cell install oem-frankfurt --rotate-key -o json\n  kaphera cell install oem-frankfurt --print > bundle.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.print {
				return a.printInstallation(cmd.Context(), args[0])
			}
			return a.installCell(cmd.Context(), args[0], f)
		},
	}
	f.flags(cmd, 5*time.Minute)
	cmd.Flags().BoolVar(&f.print, "print", false, "print the Kubernetes objects (without the Secret of the agent's key) and do nothing")
	cmd.Flags().BoolVar(&f.rotateKey, "rotate-key", false, "give the agent a new key; the one before opens nothing any more")
	return cmd
}

func (a *app) cellUninstallCommand() *cobra.Command {
	var f cellInstall
	cmd := &cobra.Command{
		Use: "uninstall CELL", Short: "Remove an on-premise cell from its company's cluster", Args: cobra.ExactArgs(1),
		Long: "Takes down the cell's connector, removes both operators and the agent's key, and has the cloud admit no agent any more. Participants must have been removed\n" +
			"before. The namespace with the company's own Secrets, the kinds of the EDC operator and the rights stay: they are the administrator's.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), f.patience)
			defer cancel()
			c, err := a.client()
			if err != nil {
				return err
			}
			i, err := a.installation(ctx, c, args[0], f)
			if err != nil {
				return err
			}
			if err := i.Remove(ctx, c, install.Options{Progress: a.progress}); err != nil {
				return installFailure(err)
			}
			if done, err := a.structured(InstallReport{Cell: i.Cell, Namespace: i.Namespace}); done {
				return err
			}
			fprintf(a.out, "Cell %s is uninstalled. Its namespace stays: kubectl delete namespace %s\n", i.Cell, i.Namespace)
			return nil
		},
	}
	f.flags(cmd, 5*time.Minute)
	return cmd
}

func (a *app) cellPermissionsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "permissions CELL", Short: "Write what a cluster's administrator applies before an on-premise cell is installed", Args: cobra.ExactArgs(1),
		Long: "Writes the cell's namespace, the kinds and rights of both operators, and a service account with what kaphera cell install needs and nothing else.\n" +
			"docs/on-premise.md lists its rights verb by verb. An administrator who installs the cell himself needs none of it.",
		Example: "  kaphera cell permissions oem-frankfurt | kubectl apply --server-side -f -\n  kubectl -n cell-oem-frankfurt create token " + install.Account,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			i, err := install.Open(cmd.Context(), c, args[0], nil)
			if err != nil {
				return err
			}
			objects, err := i.AdministratorsPart()
			if err != nil {
				return err
			}
			return a.printObjects(objects)
		},
	}
}

// progress is for whoever watches; what programs read is on standard output.
func (a *app) progress(format string, args ...any) { fprintf(a.err, format+"\n", args...) }

// installation opens the cell in the cluster that was named.
func (a *app) installation(ctx context.Context, c *client.API, cell string, f cellInstall) (*install.Installation, error) {
	cluster, _, err := a.cluster(f.kubeconfig, f.kubeContext)
	if err != nil {
		return nil, err
	}
	if cluster == nil {
		return nil, usage("no kubeconfig: name the company's cluster with --kubeconfig")
	}
	return install.Open(ctx, c, cell, cluster)
}

func (a *app) printInstallation(ctx context.Context, cell string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	i, err := install.Open(ctx, c, cell, nil)
	if err != nil {
		return err
	}
	return a.printObjects(i.Objects())
}

// printObjects prints Kubernetes objects as kubectl takes them: YAML documents, or a List with -o json.
func (a *app) printObjects(objects []*unstructured.Unstructured) error {
	if a.output == "json" {
		_, err := a.structured(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
		return err
	}
	for _, o := range objects {
		raw, err := yaml.Marshal(o.Object)
		if err != nil {
			return fmt.Errorf("%s: %w", install.ID(o), err)
		}
		fprintf(a.out, "---\n%s", raw)
	}
	return nil
}

func (a *app) installCell(ctx context.Context, cell string, f cellInstall) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	i, err := a.installation(ctx, c, cell, f)
	if err != nil {
		return err
	}
	report, err := i.Check(ctx, c, install.CheckOptions{})
	if err != nil {
		return err
	}
	if bad := report.Failed(); len(bad) > 0 {
		return fail(ExitFailed, bad[0].Remedy, "nothing was deployed: %s: %s", bad[0].Name, bad[0].Detail)
	}
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	o := install.Options{RotateKey: f.rotateKey, Progress: a.progress}
	out := InstallReport{Cell: i.Cell, Namespace: i.Namespace}
	if out.Written, err = i.Apply(ctx, c, o); err != nil {
		return installFailure(err)
	}
	out.AgentKey = i.AgentKey
	waited := i.Wait(ctx, c, o)
	out.Connected = waited == nil
	if done, err := a.structured(out); done && err != nil {
		return err
	} else if !done && waited == nil {
		fprintf(a.out, "Cell %s is installed in namespace %s and connected (%s written).\n", i.Cell, i.Namespace, count(len(out.Written), "object"))
	}
	if waited != nil {
		return fail(ExitFailed, "kubectl -n "+i.Namespace+" get pods,events; then repeat, it goes on where it was", "%s", waited)
	}
	return nil
}

// installFailure adds what to do.
func installFailure(err error) error {
	var refused *install.RefusedError
	if errors.As(err, &refused) {
		return fail(ExitFailed, refused.Next(), "%s", refused)
	}
	return err
}
