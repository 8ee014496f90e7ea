// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) offerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "offer", Short: "Offer an asset under a use case, or withdraw an offer", Args: cobra.NoArgs}
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
	cmd.AddCommand(create, withdraw)
	return cmd
}

func createOffer(ctx context.Context, c *client.API, participant string, o client.OfferCreate) (client.Offer, error) {
	r, err := c.CreateOfferWithResponse(ctx, participant, o)
	if err != nil {
		return client.Offer{}, err
	}
	return *r.JSON201, nil
}
