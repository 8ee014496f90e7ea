// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kaphera/kaphera/client/install"
	"github.com/kaphera/kaphera/edcoperator/preflight"
)

// cellCheck is what kaphera cell check was called with.
type cellCheck struct {
	files                              []string
	kubeconfig, kubeContext, namespace string
	counterparts                       []string
	cloud, proxy                       string
}

func (a *app) cellCheckCommand() *cobra.Command {
	var f cellCheck
	cmd := &cobra.Command{
		Use: "check -f FILE", Short: "Check what a connector stands on, before it is deployed", Args: cobra.NoArgs,
		Long: "Checks the cluster, the Vault, PostgreSQL, the ways to counterparts and to the cloud, and the clocks for a Connector or a CredentialIssuer of the\n" +
			"EDC operator (edc.kaphera.io), or for an on-premise cell, as the manifest has it. Each check has a result, what was seen, and the next step; docs/preflight.md describes them.\n" +
			"Run it where the connector is to run, or in the same network: it looks from here. Secrets that the manifest names are taken from the files too, or\n" +
			"else from the cluster; what needs a cluster is skipped where none is given. Nothing is deployed.\n" +
			"Exit code 0 when no required check failed, 1 otherwise.",
		Example: "  kaphera cell check -f connector.yaml --counterpart did:web:partner.example:acme\n" +
			"  kaphera cell check -f connector.yaml -f secrets.yaml --cloud https://nats.dataspace.example --proxy http://proxy.example:3128 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cellCheck(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "manifest (YAML or JSON; - for standard input); may be given several times")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&f.kubeContext, "kube-context", "", "context of the kubeconfig (default: its current one)")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of objects that name none (default: the kubeconfig's)")
	flags.StringArrayVar(&f.counterparts, "counterpart", nil, "DID of a participant to which there must be a way; may be given several times")
	flags.StringVar(&f.cloud, "cloud", "", "address of the cloud that the cell's agent connects to (default: where the platform has agents of the cell connect, or https://nats.DOMAIN for a cell that is not described yet and a Cloud API at https://api.DOMAIN)")
	flags.StringVar(&f.proxy, "proxy", "", "HTTP proxy on the way to the cloud, http://[user:password@]host:port (default: KAPHERA_PROXY, then the cell's own)")
	_ = cmd.MarkFlagRequired("filename") // the flag is there
	return cmd
}

func (a *app) cellCheck(ctx context.Context, f cellCheck) error {
	ctrllog.SetLogger(logr.Discard()) // everything is in the report
	var manifest bytes.Buffer
	for _, file := range f.files {
		raw, err := a.readFile(file)
		if err != nil {
			return err
		}
		manifest.WriteString("\n---\n")
		manifest.Write(raw)
	}
	cluster, namespace, err := a.cluster(f.kubeconfig, f.kubeContext)
	if err != nil {
		return err
	}
	o, err := preflight.Read(&manifest, first(f.namespace, namespace))
	if err != nil {
		return fail(ExitUsage, "see: kaphera cell check --help", "%s: %v", strings.Join(f.files, ", "), err)
	}
	o.Cluster, o.Counterparts = cluster, f.counterparts
	if proxy := first(f.proxy, a.env("KAPHERA_PROXY")); proxy != "" {
		o.Proxy, o.ProxySecret = proxy, ""
	}
	stored, err := a.loadContext()
	if err != nil {
		return err
	}
	var described *install.Installation
	if o.Cell != "" {
		if described, err = a.installationOf(ctx, o.Cell); err != nil {
			o.InstallerUnknown = err.Error() // a cell is checked before it is described, too
		} else if cluster != nil {
			o.Installer = described.Rights()
		}
	}
	switch domain, guessed := strings.CutPrefix(first(a.api, a.env("KAPHERA_API"), stored.API), "https://api."); {
	case f.cloud != "":
		o.Cloud = f.cloud
	case described != nil:
		o.Cloud = described.CloudAddress()
	case guessed: // agents connect to wss://nats.DOMAIN, beside the Cloud API at https://api.DOMAIN
		o.Cloud = "https://nats." + domain
	}
	if ca := first(a.caFile, a.env("KAPHERA_CA_FILE"), stored.CAFile); ca != "" {
		pem, err := os.ReadFile(ca) // #nosec G304 -- named by whoever runs this
		if err != nil {
			return fmt.Errorf("authorities of the cloud: %w", err)
		}
		o.CloudCA = string(pem)
		if o.PlatformTrust {
			o.Runtime.Trust.CABundle = o.CloudCA
		}
	}
	o.Progress = func(c preflight.Check) {
		if a.output == "table" || a.output == "wide" {
			fprintf(a.err, "%s %s\n", c.Name, c.Result)
		}
	}
	report := preflight.Run(ctx, o)
	if err := ctx.Err(); err != nil {
		return err
	}
	if done, err := a.structured(report); err != nil {
		return err
	} else if !done {
		a.printReport(report)
	}
	bad := report.Failed()
	if len(bad) == 0 {
		return nil
	}
	names := make([]string, len(bad))
	for i, c := range bad {
		names[i] = c.Name
	}
	return fail(ExitFailed, "do what is said beside each, and check again before anything is deployed", "%s failed: %s", count(len(bad), "required check"), strings.Join(names, ", "))
}

// installationOf is what the cloud says is to be installed for a cell.
func (a *app) installationOf(ctx context.Context, cell string) (*install.Installation, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	return install.Open(ctx, c, cell, nil)
}

func (a *app) printReport(r preflight.Report) {
	t := table{columns: []string{"CHECK", "RESULT", "REQUIRED"}}
	words := map[preflight.Outcome]string{preflight.Passed: "Passed", preflight.Warning: "Warning", preflight.Failed: "Failed", preflight.Skipped: "Skipped"}
	for _, c := range r.Checks {
		t.add(c.Name, words[c.Result], map[bool]string{true: "yes", false: "no"}[c.Required])
		t.note(c.Detail)
		if c.Remedy != "" {
			t.note("next: " + c.Remedy)
		}
	}
	a.printTable(t)
}

// readFile reads a file, or standard input for -.
func (a *app) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(name) // #nosec G304 -- named by whoever runs this
}

// cluster is the one that a kubeconfig names, and its namespace; nil where there is no kubeconfig and none was asked for.
func (a *app) cluster(kubeconfig, kubeContext string) (*rest.Config, string, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig, Precedence: filepath.SplitList(a.env("KUBECONFIG"))}
	if home := a.env("HOME"); len(rules.Precedence) == 0 && home != "" {
		rules.Precedence = []string{filepath.Join(home, ".kube", "config")}
	}
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubeContext})
	cluster, err := config.ClientConfig()
	if clientcmd.IsEmptyConfig(err) || errors.Is(err, rest.ErrNotInCluster) {
		if kubeconfig+kubeContext != "" {
			return nil, "", usage("the kubeconfig %s names no cluster", kubeconfig)
		}
		return nil, "default", nil
	}
	if err != nil {
		return nil, "", usage("the kubeconfig: %v", err)
	}
	namespace, _, err := config.Namespace()
	if err != nil {
		return nil, "", usage("the kubeconfig: %v", err)
	}
	return cluster, namespace, nil
}
