// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) suspendCommand() *cobra.Command {
	var participant string
	var why client.SuspensionReason
	transfer := &cobra.Command{
		Use: "transfer ID --participant NAME", Short: "Suspend a transfer: no access to the data until it is resumed", Args: cobra.ExactArgs(1),
		Example: "  kaphera suspend transfer ID --participant supplier --reason 'the backend is being repaired'",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.SuspendTransferWithResponse(cmd.Context(), participant, args[0], why)
			if err != nil {
				return err
			}
			return a.paused(r.JSON200, "is being suspended", participant)
		},
	}
	transfer.Flags().StringVar(&why.Reason, "reason", "", "why, for the counterparty")
	return a.ofTransfer("suspend", "Suspend a transfer", &participant, transfer)
}

func (a *app) resumeCommand() *cobra.Command {
	var participant string
	transfer := &cobra.Command{
		Use: "transfer ID --participant NAME", Short: "Resume a suspended transfer", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.ResumeTransferWithResponse(cmd.Context(), participant, args[0])
			if err != nil {
				return err
			}
			return a.paused(r.JSON200, "is being resumed", participant)
		},
	}
	return a.ofTransfer("resume", "Resume a suspended transfer", &participant, transfer)
}

func (a *app) ofTransfer(verb, short string, participant *string, transfer *cobra.Command) *cobra.Command {
	transfer.Flags().StringVarP(participant, "participant", "p", "", "whose connector")
	_ = transfer.MarkFlagRequired("participant") // the flag exists
	cmd := &cobra.Command{Use: verb, Short: short, Args: cobra.NoArgs}
	cmd.AddCommand(transfer)
	return cmd
}

func (a *app) paused(t *client.Transfer, what, participant string) error {
	if done, err := a.structured(t); done {
		return err
	}
	a.say("The transfer %s. Next: kaphera describe transfer %s --participant %s", what, t.ID, participant)
	return nil
}
