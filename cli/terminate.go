// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) terminateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "terminate", Short: "End a negotiation or a transfer", Args: cobra.NoArgs}
	cmd.AddCommand(
		a.terminate("negotiation", "End a negotiation; nothing is agreed", func(ctx context.Context, c *client.API, participant, id, reason string) error {
			_, err := c.TerminateNegotiationWithResponse(ctx, participant, id, client.TerminationReason{Reason: reason})
			return err
		}),
		a.terminate("transfer", "End a transfer, and with it access to the data; the agreement stays", func(ctx context.Context, c *client.API, participant, id, reason string) error {
			_, err := c.TerminateTransferWithResponse(ctx, participant, id, client.TerminationReason{Reason: reason})
			return err
		}),
	)
	return cmd
}

func (a *app) terminate(what, short string, call func(ctx context.Context, c *client.API, participant, id, reason string) error) *cobra.Command {
	var participant, reason string
	cmd := &cobra.Command{
		Use: what + " ID --participant NAME --reason TEXT", Short: short, Args: cobra.ExactArgs(1),
		Long:    short + ". The counterparty is told, with the reason.",
		Example: "  kaphera terminate " + what + " ID --participant oem --reason 'ordered by mistake'",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := call(cmd.Context(), c, participant, args[0], reason); err != nil {
				return err
			}
			a.say("The %s ends; %s's connector tells the counterparty. Next: kaphera describe %s %s --participant %s", what, participant, what, args[0], participant)
			return nil
		},
	}
	cmd.Flags().StringVarP(&participant, "participant", "p", "", "whose connector")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the counterparty")
	_, _ = cmd.MarkFlagRequired("participant"), cmd.MarkFlagRequired("reason") // the flags exist
	return cmd
}
