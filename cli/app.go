// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

// app is one run of the program: its streams and surroundings, so that tests can give their own.
type app struct {
	in       io.Reader
	out, err io.Writer
	// tty says whether out is a terminal that shows colours.
	tty     bool
	env     func(string) string
	home    string // folder of the configuration
	now     func() time.Time
	zone    *time.Location // of times shown in tables
	asks    bool           // somebody can be asked: standard input and error are a terminal
	newID   func() string
	version string
	// wait before the n-th retry of a call; nil takes the client's.
	wait func(n int) time.Duration
	// poll is how often something that is under way is asked for.
	poll time.Duration

	output  string            // table, wide, json, yaml
	names   map[string]string // of participants, by DID
	context string
	api     string
	caFile  string
}

// Main runs the program and returns its exit code.
func Main(ctx context.Context, args []string, version string) int {
	home := os.Getenv("KAPHERA_CONFIG_DIR")
	if home == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			base = ".config"
		}
		home = base + "/kaphera"
	}
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, home: home, now: time.Now, zone: time.Local, newID: newID, version: version, poll: 500 * time.Millisecond,
		tty:  isatty.IsTerminal(os.Stdout.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		asks: isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stderr.Fd()),
	}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root() //nolint:contextcheck // commands carry their context
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if isUsage(err) {
		err = usageError{err}
	}
	a.report(err, cmd.CommandPath())
	return exitCode(err)
}

// isUsage recognises cobra's own complaints, which have no type.
func isUsage(err error) bool {
	for _, start := range []string{"unknown command", "unknown flag", "unknown shorthand", "accepts ", "requires ", "required flag", "flag needs an argument", "invalid argument", "if any flags", "at least one of the flags", "bad flag syntax"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

// root assembles the commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "kaphera", Short: "Run industrial dataspaces", Version: a.version, SilenceErrors: true, SilenceUsage: true,
		Long: "kaphera shows and drives a Kaphera platform: participants and where they run, offers, negotiations, transfers.\nLog in first: kaphera login --api https://api.<domain>",
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]string{"table", "wide", "json", "yaml"}, a.output) {
				return usage("output %q is not one of table, wide, json, yaml", a.output)
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "table", "output format: table, wide (DIDs instead of names), json or yaml")
	f.StringVar(&a.context, "context", "", "log-in to use (default: the one of the last kaphera login)")
	f.StringVar(&a.api, "api", "", "address of the Cloud API (default: KAPHERA_API, then the context's)")
	f.StringVar(&a.caFile, "ca-file", "", "PEM file of the authorities to trust (default: KAPHERA_CA_FILE, then the context's)")
	root.AddCommand(a.loginCommand(), a.logoutCommand(), a.statusCommand(), a.graphCommand(), a.getCommand(), a.describeCommand(), a.applyCommand(), a.deleteCommand(), a.negotiateCommand(),
		a.counterCommand(), a.acceptCommand(), a.catalogCommand(), a.agreementCommand(), a.transferCommand(), a.suspendCommand(), a.resumeCommand(), a.terminateCommand(), a.approvalsCommand(), a.credentialCommand(), a.offerCommand(), a.assetCommand(), a.secretCommand(), a.auditCommand(), a.policyCommand(), a.demoCommand(),
		a.useCaseCommand(), a.cellCommand(), a.participantCommand(),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp})
	return root
}

// client makes a client for the log-in in use. The environment comes before the stored context, flags before both.
func (a *app) client() (*client.API, error) {
	stored, err := a.loadContext()
	if err != nil {
		return nil, err
	}
	cfg := client.Config{
		API: first(a.api, a.env("KAPHERA_API"), stored.API), CAFile: first(a.caFile, a.env("KAPHERA_CA_FILE"), stored.CAFile),
		Manager: "cli", Wait: a.wait,
	}
	if a.context == "" {
		cfg.ClientID, cfg.ClientSecret = a.env("KAPHERA_CLIENT_ID"), a.env("KAPHERA_CLIENT_SECRET")
	}
	if cfg.ClientID == "" {
		if stored.API != "" && strings.TrimSuffix(cfg.API, "/") != strings.TrimSuffix(stored.API, "/") { // a token goes nowhere but where it was obtained for
			return nil, fail(ExitLogin, "kaphera login --api "+cfg.API, "nobody is logged in to %s; the log-in of context %s is for %s", cfg.API, stored.Name, stored.API)
		}
		cfg.Token = a.storedToken(stored, cfg)
	}
	return client.New(cfg)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func newID() string { return strings.ToLower(rand.Text()) }
