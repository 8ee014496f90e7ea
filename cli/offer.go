// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) offerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "offer", Short: "Offer an asset under a use case, make an offer to one consumer, or withdraw it", Args: cobra.NoArgs}
	var o client.OfferCreate
	create := &cobra.Command{
		Use: "create PARTICIPANT --asset ID --use-case NAME", Short: "Offer an asset under a use case's policies", Args: cobra.ExactArgs(1),
		Long: "Offers an asset. The connector evaluates the participant's own obligations first: when they are not met, nothing is offered,\nand the constraint, the value seen and the remedy are printed; exit code 3.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := a.learnNames(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			created, err := createOffer(cmd.Context(), c, args[0], o)
			if err != nil {
				return err
			}
			if done, err := a.structured(created); done {
				return err
			}
			a.say("Offer %s: %s", created.ID, created.State)
			return nil
		},
	}
	create.Flags().StringVar(&o.Asset, "asset", "", "the asset")
	create.Flags().StringVar(&o.UseCase, "use-case", "", "the use case")
	create.Flags().StringVar(&o.ID, "id", "", "id of the offer (default: asset and use case)")
	_, _ = create.MarkFlagRequired("asset"), create.MarkFlagRequired("use-case") // the flags exist
	withdraw := &cobra.Command{
		Use: "withdraw PARTICIPANT OFFER", Short: "Withdraw an offer; agreements that came from it stay", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := c.DeleteOfferWithResponse(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			a.say("Offer %s withdrawn", args[1])
			return nil
		},
	}
	cmd.AddCommand(create, a.sendOfferCommand(), withdraw)
	return cmd
}

func (a *app) sendOfferCommand() *cobra.Command {
	var o client.OfferSend
	var file string
	cmd := &cobra.Command{
		Use: "send PARTICIPANT OFFER --to PARTNER", Short: "Make an offer to one consumer, which decides on it", Args: cobra.ExactArgs(2),
		Long: "Starts a negotiation as provider: one of the participant's offers is made to a consumer, on its terms or, with --policy, on others. The\nconsumer accepts, answers with other terms or ends it. " +
			"The offer's gates hold either terms. As with create, the participant's own obligations\nare evaluated first; exit code 3.",
		Example: "  kaphera offer send supplier pcf-gearbox-housing--carbon-footprint --to oem",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				var err error
				if o.Policy, err = readTerms(file); err != nil {
					return err
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := a.learnNames(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			o.ID = a.newID()
			r, err := c.SendOfferWithResponse(cmd.Context(), args[0], args[1], o)
			if err != nil {
				return err
			}
			return a.decided(r.JSON201, "The offer is on its way to "+o.Counterparty, args[0])
		},
	}
	cmd.Flags().StringVar(&o.Counterparty, "to", "", "consumer: name of a participant, or a DID")
	cmd.Flags().StringVar(&o.Asset, "asset", "", "the asset, where the offer has several")
	cmd.Flags().StringVar(&file, "policy", "", "file with the terms for this consumer (default: those of the offer)")
	cmd.Flags().StringVar(&o.Profile, "profile", "", "one of the offer's dataspace profiles (default: its first)")
	_ = cmd.MarkFlagRequired("to") // the flag exists
	return cmd
}

func createOffer(ctx context.Context, c *client.API, participant string, o client.OfferCreate) (client.Offer, error) {
	r, err := c.CreateOfferWithResponse(ctx, participant, o)
	if err != nil {
		return client.Offer{}, err
	}
	return *r.JSON201, nil
}
