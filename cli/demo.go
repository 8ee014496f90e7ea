// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

// demoOptions of "kaphera demo run carbon-footprint".
type demoOptions struct {
	supplier, consumer, useCase string
	pause                       bool
	patience                    time.Duration
	backend                     backendOptions
}

func (a *app) demoCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "demo", Short: "Run a demonstration on a platform made by make demo", Args: cobra.NoArgs}
	var o demoOptions
	run := &cobra.Command{
		Use: "run carbon-footprint", Short: "Two companies exchange a carbon footprint; a third is refused", Args: cobra.ExactArgs(1), ValidArgs: []string{"carbon-footprint"},
		Long: "A supplier's footprint is put into its backend with a random value, offered, found, negotiated, transferred and fetched.\n" +
			"Then a disposable supplier whose data-quality attestation is thirteen months old can't offer, and is refused when it offers all\n" +
			"the same. What was disposable is removed. It can be run again at any time.\n\n" +
			"The backend has no address outside the cluster: it is reached by a port-forward with --kubeconfig (default KUBECONFIG), or at\n--backend-url with the two key files.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "carbon-footprint" {
				return usage("demo %q is not known: use carbon-footprint", args[0])
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
			return a.runDemo(cmd.Context(), c, o)
		},
	}
	f := run.Flags()
	f.BoolVar(&o.pause, "pause", false, "wait for Enter before each scene")
	f.StringVar(&o.supplier, "supplier", "supplier", "participant that offers")
	f.StringVar(&o.consumer, "consumer", "oem", "participant that asks")
	f.DurationVar(&o.patience, "timeout", 3*time.Minute, "how long to wait for a participant or a negotiation")
	f.StringVar(&o.backend.kubeconfig, "kubeconfig", "", "kubeconfig for the port-forward to the backend (default: KUBECONFIG)")
	f.StringVar(&o.backend.namespace, "backend-namespace", "supplier-backend", "namespace of the backend")
	f.StringVar(&o.backend.address, "backend-address", "", "address at which the data plane reaches the backend (default: its Service)")
	f.StringVar(&o.backend.url, "backend-url", "", "address at which this program reaches the backend, instead of a port-forward")
	f.StringVar(&o.backend.writerFile, "backend-writer-token-file", "", "file with the key that may write, with --backend-url")
	f.StringVar(&o.backend.readerFile, "backend-reader-token-file", "", "file with the key that may read, with --backend-url")
	cmd.AddCommand(run)
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

func (a *app) runDemo(ctx context.Context, c *client.API, o demoOptions) (err error) {
	d := &demo{app: a, demoOptions: o, c: c, input: bufio.NewReader(a.in)}
	if d.b, err = openBackend(ctx, o.backend); err != nil {
		return err
	}
	defer d.b.close()
	for _, scene := range []func(context.Context) error{d.exchange, d.refusals} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	if err := d.next(ctx, "How everything stands"); err != nil {
		return err
	}
	if err := a.status(ctx, c); err != nil {
		return err
	}
	return d.addresses(ctx)
}

func (d *demo) addresses(ctx context.Context) error {
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

func (d *demo) until(ctx context.Context, what string, done func(context.Context) (bool, string, error)) error {
	return d.app.until(ctx, d.patience, what, done)
}
