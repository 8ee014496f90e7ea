// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

// demoOptions of "kaphera demo run".
type demoOptions struct {
	supplier, consumer, authority, people, useCase string
	approvers                                      []string
	pause                                          bool
	patience                                       time.Duration
	backend                                        backendOptions
}

// showing is what "kaphera demo run NAME" tells.
type showing struct {
	name, short string
	backend     bool // it needs the supplier's backend
	scenes      func(*demo) []func(context.Context) error
}

func showings() []showing {
	type scenes = []func(context.Context) error
	return []showing{
		{"carbon-footprint", "two companies exchange a carbon footprint, which the authority lets pass by hand; a third is refused", true,
			func(d *demo) []func(context.Context) error { return scenes{d.exchange, d.refusals, d.standing} }},
		{"quality-recall", "an agreement that takes effect when both companies have approved it", true,
			func(d *demo) []func(context.Context) error { return scenes{d.recall} }},
		{"revision", "a use case is changed: nothing counts before the authority has signed it off, and agreements keep their terms", true,
			func(d *demo) []func(context.Context) error { return scenes{d.revise} }},
		{"policy-test", "a policy is tried on two connectors made for it", false, func(d *demo) []func(context.Context) error { return scenes{d.tryLive} }},
		{"audit", "a changed record is found in an exported audit trail", false, func(d *demo) []func(context.Context) error { return scenes{d.trail} }},
	}
}

func (a *app) demoCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "demo", Short: "Run a demonstration on a platform made by make demo", Args: cobra.NoArgs}
	var o demoOptions
	var names, list []string
	for _, s := range showings() {
		names, list = append(names, s.name), append(list, fmt.Sprintf("  %-18s %s", s.name, s.short))
	}
	run := &cobra.Command{
		Use: "run NAME", Short: "Show something that a dataspace does, on real connectors", Args: cobra.ExactArgs(1), ValidArgs: names,
		Long: "Shows one of:\n" + strings.Join(list, "\n") + "\n\n" +
			"What was disposable is removed. Each can be run again at any time.\n\n" +
			"The backend has no address outside the cluster: it is reached by a port-forward with --kubeconfig (default KUBECONFIG), or at\n--backend-url with the two key files.\n" +
			"What people do is done as those people, who are logged in with the passwords in the file of people.",
		RunE: func(cmd *cobra.Command, args []string) error {
			i := slices.Index(names, args[0])
			if i < 0 {
				return usage("demo %q is not known: use one of %s", args[0], strings.Join(names, ", "))
			}
			if a.output != "table" {
				return usage("a demo is told in words: leave --output out")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			o.useCase = args[0]
			o.backend.kubeconfig = first(o.backend.kubeconfig, a.env("KUBECONFIG"))
			o.people = first(o.people, a.env(peopleVariable))
			return a.runDemo(cmd.Context(), c, o, showings()[i])
		},
	}
	f := run.Flags()
	f.BoolVar(&o.pause, "pause", false, "wait for Enter before each scene")
	f.StringVar(&o.supplier, "supplier", "supplier", "participant that offers")
	f.StringVar(&o.consumer, "consumer", "oem", "participant that asks")
	f.StringVar(&o.authority, "authority", "gabriel", "person of the governance authority")
	f.StringSliceVar(&o.approvers, "approvers", []string{"renate", "berta"}, "people of the two companies")
	f.StringVar(&o.people, "people", "", peopleHelp)
	f.DurationVar(&o.patience, "timeout", 3*time.Minute, "how long to wait for a participant or a negotiation")
	f.StringVar(&o.backend.kubeconfig, "kubeconfig", "", "kubeconfig for the port-forward to the backend (default: KUBECONFIG)")
	f.StringVar(&o.backend.namespace, "backend-namespace", "supplier-backend", "namespace of the backend")
	f.StringVar(&o.backend.address, "backend-address", "", "address at which the data plane reaches the backend (default: its Service)")
	f.StringVar(&o.backend.url, "backend-url", "", "address at which this program reaches the backend, instead of a port-forward")
	f.StringVar(&o.backend.writerFile, "backend-writer-token-file", "", "file with the key that may write, with --backend-url")
	f.StringVar(&o.backend.readerFile, "backend-reader-token-file", "", "file with the key that may read, with --backend-url")
	cmd.AddCommand(run, a.demoLoginCommand())
	return cmd
}

// demo is one run.
type demo struct {
	*app
	demoOptions
	c     *client.API
	b     *backend
	input *bufio.Reader
	scene int
}

func (a *app) runDemo(ctx context.Context, c *client.API, o demoOptions, s showing) (err error) {
	d := &demo{app: a, demoOptions: o, c: c, input: bufio.NewReader(a.in)}
	if s.backend {
		if d.b, err = openBackend(ctx, o.backend); err != nil {
			return err
		}
		defer d.b.close()
	}
	for _, scene := range s.scenes(d) {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

// standing is the status, and where to look on.
func (d *demo) standing(ctx context.Context) error {
	if err := d.next(ctx, "How everything stands"); err != nil {
		return err
	}
	if err := d.status(ctx, d.c); err != nil {
		return err
	}
	info, err := d.c.GetInfoWithResponse(ctx)
	if err != nil {
		return err
	}
	fprintf(d.out, "\nConsole      %s\nAPI          %s\nNegotiations %s/participants/%s/negotiations\n", info.JSON200.ConsoleURL, d.c.Address()+"/api/v1/docs", info.JSON200.ConsoleURL, d.consumer)
	return nil
}

// next announces a scene, and waits for Enter when that was asked for.
func (d *demo) next(ctx context.Context, format string, args ...any) error {
	d.scene++
	s := d.style(d.out)
	fprintf(d.out, "\n%s\n", s.bold(fmt.Sprintf("%d. ", d.scene)+fmt.Sprintf(format, args...)))
	if d.pause {
		fprint(d.out, s.faint("   Enter to go on "))
		if _, err := d.input.ReadString('\n'); err != nil {
			fprintln(d.out)
		}
	}
	return ctx.Err()
}

func (d *demo) tell(format string, args ...any) {
	fprintln(d.out, indent(d.wrap(fmt.Sprintf(format, args...), 3), "   "))
}

// tellLines prints what a command printed.
func (d *demo) tellLines(text string) {
	fprintln(d.out, indent(strings.TrimSpace(text), "   "))
}

func (d *demo) until(ctx context.Context, what string, done func(context.Context) (bool, string, error)) error {
	return d.app.until(ctx, d.patience, what, done)
}
