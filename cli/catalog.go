// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) catalogCommand() *cobra.Command {
	var p client.GetCatalogParams
	cmd := &cobra.Command{
		Use: "catalog PARTICIPANT --of PARTNER", Short: "Show what a partner offers, now", Args: cobra.ExactArgs(1),
		Example: "  kaphera catalog oem --of supplier",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.GetCatalogWithResponse(cmd.Context(), args[0], &p)
			if err != nil {
				return err
			}
			if done, err := a.structured(r.JSON200); done {
				return err
			}
			if len(r.JSON200.Items) == 0 {
				a.say("%s shows %s no offer. Its provider sees what is withheld, and why: kaphera get offers --participant NAME", p.Counterparty, args[0])
				return nil
			}
			for _, i := range r.JSON200.Items {
				fprintf(a.out, "%s (asset %s)\n  offer %s, use case %s\n", title(i.Properties), i.AssetID, i.OfferID, orDash(i.UseCase))
				for _, s := range i.Sentences {
					fprintf(a.out, "  - %s\n", s)
				}
			}
			fprintf(a.out, "Next: kaphera negotiate %s --with %s --offer ID\n", args[0], p.Counterparty)
			return nil
		},
	}
	cmd.Flags().StringVar(&p.Counterparty, "of", "", "partner: name of a participant, or a DID")
	cmd.Flags().StringVar(&p.UseCase, "use-case", "", "only offers under this use case")
	cmd.Flags().StringVar(&p.Profile, "profile", "", "the participant's dataspace profile (default: that of the use case, or else the first that both take part in)")
	_ = cmd.MarkFlagRequired("of") // the flag exists
	return cmd
}

func (a *app) agreementCommand() *cobra.Command {
	return &cobra.Command{
		Use: "agreement PARTICIPANT ID", Short: "Print an agreement byte for byte as it was sent or received", Args: cobra.ExactArgs(2),
		Long: "Prints the ODRL Agreement as it went from the provider to the consumer, in JSON and without a line break of its own, so that both sides'\ncopies have the same digest. kaphera get agreements shows it with what belongs to it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.GetAgreementDocumentWithResponse(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			_, err = a.out.Write(r.Body)
			return err
		},
	}
}
