// SPDX-License-Identifier: FSL-1.1-ALv2

// Command cloud-operator runs the Cloud operator: `cloud-operator platform` in the cloud, `cloud-operator agent --cell NAME` in a cell.
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

	"github.com/kaphera/kaphera/cloudoperator"
	"github.com/kaphera/kaphera/cloudoperator/controller/platform"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cloud-operator: "+err.Error())
		os.Exit(1)
	}
}

const usage = "usage: cloud-operator platform|agent [flags]; -h after the mode lists its flags"

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch args[0] {
	case "platform":
		return runPlatform(args[1:])
	case "agent":
		return runAgent(args[1:])
	}
	return fmt.Errorf("there is no mode %q; %s", args[0], usage)
}

func runPlatform(args []string) error {
	o := cloudoperator.Options{Images: platform.ImagesFromEnv()}
	dial := map[string]string{}
	fs, level := flags("cloud-operator platform")
	fs.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the Platform (POD_NAMESPACE)")
	fs.StringVar(&o.ServiceAccount, "service-account", "cloud-operator", "the operator's own service account, to which the Vault and cells' namespaces give rights")
	fs.StringVar(&o.TokenFile, "vault-token", "/var/run/kaphera/vault-token", "file of its service account token for the Vault, of audience "+openbao.Audience)
	fs.BoolVar(&o.KeycloakOptimized, "keycloak-optimized", os.Getenv("KEYCLOAK_OPTIMIZED") != "false",
		"the Keycloak image was built for PostgreSQL with health and metrics; false lets it build itself at the start (KEYCLOAK_OPTIMIZED)")
	fs.BoolVar(&o.LeaderElection, "leader-election", true, "let one of several replicas work")
	fs.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "address of /metrics; 0 is off")
	fs.StringVar(&o.HealthAddress, "health-address", ":8082", "address of /healthz and /readyz; 0 is off")
	fs.Func("dial", "part=host:port reaches a part (postgresql, openbao, nats, keycloak) elsewhere, for an operator outside the cluster; repeatable", func(s string) error {
		part, address, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("%q is not part=host:port", s)
		}
		dial[part] = address
		return nil
	})
	if err := parse(fs, args); err != nil {
		return err
	}
	o.Dial = dial
	logTo(level)
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	m, err := cloudoperator.NewManager(cfg, o)
	if err != nil {
		return err
	}
	return m.Start(ctrl.SetupSignalHandler())
}

func runAgent(args []string) error {
	var o cloudoperator.AgentOptions
	fs, level := flags("cloud-operator agent")
	fs.StringVar(&o.Cell, "cell", "", "name of the cell")
	fs.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace in which the cell's connectors run (POD_NAMESPACE)")
	fs.StringVar(&o.NATSURL, "nats-url", "", "the cloud's message server, wss://host, or tls://host:4222 in the cloud's cluster")
	fs.StringVar(&o.CAFile, "nats-ca", "", "file of the authority that signed its certificate; empty trusts the system's")
	fs.StringVar(&o.CredentialsFile, "nats-credentials", "/etc/kaphera/nats/agent.creds", "file of the agent's credentials")
	fs.StringVar(&o.Proxy, "nats-proxy", "", "HTTP proxy to the message server, http://host:port or https://host:port; the Kubernetes API is not reached through it")
	fs.StringVar(&o.ProxyCAFile, "nats-proxy-ca", "", "file of the authority that signed an https proxy's certificate; empty trusts the system's")
	fs.StringVar(&o.ProxyCredentialsFile, "nats-proxy-credentials", "", "file with user:password for the proxy")
	fs.StringVar(&o.HealthAddress, "health-address", ":8082", "address of /healthz, /readyz and /metrics")
	if err := parse(fs, args); err != nil {
		return err
	}
	for name, v := range map[string]string{"cell": o.Cell, "namespace": o.Namespace, "nats-url": o.NATSURL} {
		if v == "" {
			return fmt.Errorf("--%s is missing", name)
		}
	}
	o.Log = logTo(level).With("cell", o.Cell)
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	return cloudoperator.RunAgent(ctrl.SetupSignalHandler(), cfg, o)
}

func flags(name string) (*flag.FlagSet, *slog.Level) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	level := new(slog.Level)
	fs.TextVar(level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	return fs, level
}

func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return nil
}

func logTo(level *slog.Level) *slog.Logger {
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	return log
}
