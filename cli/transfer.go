// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

type transferOptions struct {
	participant, agreement, path, file string
	fetch                              bool
	timeout                            time.Duration
}

func (a *app) transferCommand() *cobra.Command {
	var o transferOptions
	cmd := &cobra.Command{
		Use: "transfer PARTICIPANT --agreement ID [--fetch [PATH]]", Short: "Start a transfer under an agreement, and fetch the data", Args: cobra.RangeArgs(1, 2),
		Example: "  kaphera transfer oem --agreement ID --fetch\n  kaphera transfer oem --agreement ID --fetch '/items?year=2026' --to items.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				if !o.fetch {
					return usage("%q: a path goes with --fetch", args[1])
				}
				o.path = args[1]
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			o.participant = args[0]
			return a.transferAndFetch(cmd.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.agreement, "agreement", "", "id of the agreement")
	f.BoolVar(&o.fetch, "fetch", false, "fetch the data, optionally below PATH")
	f.StringVar(&o.file, "to", "", "write the data into this file instead of printing it")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait for the provider to open access")
	_ = cmd.MarkFlagRequired("agreement") // the flag exists
	return cmd
}

func (a *app) transferAndFetch(ctx context.Context, c *client.API, o transferOptions) error {
	t, err := a.transfer(ctx, c, o)
	if err != nil {
		return err
	}
	if !o.fetch {
		if done, err := a.structured(t); done {
			return err
		}
		fprintf(a.out, "Transfer %s\nNext: kaphera transfer %s --agreement %s --fetch\n", t.ID, o.participant, o.agreement)
		return nil
	}
	body, _, err := c.Data(ctx, o.participant, t.ID, o.path)
	if err != nil {
		return err
	}
	if o.file != "" {
		if err := writeFile(o.file, body); err != nil {
			return err
		}
		a.say("%d bytes written to %s", len(body), o.file)
		return nil
	}
	_, err = a.out.Write(append(body, '\n'))
	return err
}

// transfer starts a transfer and waits until the provider has opened access.
func (a *app) transfer(ctx context.Context, c *client.API, o transferOptions) (client.Transfer, error) {
	started, err := c.StartTransferWithResponse(ctx, o.participant, client.TransferStart{AgreementID: o.agreement, ID: a.newID()})
	if err != nil {
		return client.Transfer{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, events := *started.JSON201, 0
	for {
		for ; events < len(t.History); events++ {
			if (a.output == "table" || a.output == "wide") && !o.fetch {
				a.printEvent(t.History[events])
			}
		}
		switch t.State {
		case "STARTED", "COMPLETED":
			return t, nil
		case "TERMINATED":
			code := ExitFailed
			if t.Reason.Code == "policy-denied" {
				code = ExitRefused
			}
			return t, fail(code, "kaphera describe transfer "+t.ID+" --participant "+o.participant, "the transfer ended: %s", first(t.Reason.Message, "no reason was given"))
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return t, ctx.Err()
			}
			return t, fail(ExitFailed, "kaphera describe transfer "+t.ID+" --participant "+o.participant, "the provider has not opened access after %s; the transfer is in state %s", o.timeout, t.State)
		case <-time.After(a.poll):
		}
		r, err := c.GetTransferWithResponse(waiting, o.participant, t.ID)
		if err != nil && waiting.Err() == nil {
			return t, err
		}
		if err == nil {
			t = *r.JSON200
		}
	}
}
