// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
)

func (a *app) counterCommand() *cobra.Command {
	var participant, file, offer string
	cmd := &cobra.Command{
		Use: "counter NEGOTIATION --participant NAME --policy FILE", Short: "Answer an offer with other terms", Args: cobra.ExactArgs(1),
		Long: "Answers a provider's offer, as consumer, or a consumer's request that waits for a decision, as provider, with other terms about the\nsame asset. " +
			"The file (YAML or JSON) holds them as an ODRL policy. The counterparty decides.",
		Example: "  kaphera counter 7b1c --participant oem --policy terms.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readTerms(file)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.CounterNegotiationWithResponse(cmd.Context(), participant, args[0], client.CounterOffer{Policy: raw, OfferID: offer})
			if err != nil {
				return err
			}
			return a.decided(r.JSON200, "Other terms are on their way", participant)
		},
	}
	cmd.Flags().StringVarP(&participant, "participant", "p", "", "whose connector")
	cmd.Flags().StringVar(&file, "policy", "", "file with the terms")
	cmd.Flags().StringVar(&offer, "offer", "", "id of an offer of the provider's catalog whose terms these are")
	_, _ = cmd.MarkFlagRequired("participant"), cmd.MarkFlagRequired("policy") // the flags exist
	return cmd
}

// readTerms reads a policy, in YAML or JSON, as JSON.
func readTerms(file string) (json.RawMessage, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // the path is the caller's
	if err == nil {
		raw, err = yaml.YAMLToJSONStrict(raw)
	}
	if err != nil {
		return nil, fail(ExitUsage, "name a file with an ODRL policy in YAML or JSON", "policy file %s: %s", file, err)
	}
	return raw, nil
}

func (a *app) acceptCommand() *cobra.Command {
	var participant, terms string
	cmd := &cobra.Command{
		Use: "accept NEGOTIATION --participant NAME", Short: "Accept the counterparty's terms", Args: cobra.ExactArgs(1),
		Long: "Accepts a provider's offer, as consumer, or, as provider, what a consumer requests instead of an offer. Policies and gates are judged as\nfor anything that is offered. " +
			"With --terms, terms that have changed since you read them are not accepted.",
		Example: "  kaphera accept 7b1c --participant oem --terms 5f3a…",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.AcceptNegotiationWithResponse(cmd.Context(), participant, args[0], client.Acceptance{TermsHash: terms})
			if err != nil {
				return err
			}
			return a.decided(r.JSON200, "Accepted", participant)
		},
	}
	cmd.Flags().StringVarP(&participant, "participant", "p", "", "whose connector")
	cmd.Flags().StringVar(&terms, "terms", "", "hash of the terms that you accept, as describe shows it; empty accepts whatever is under negotiation")
	_ = cmd.MarkFlagRequired("participant") // the flag exists
	return cmd
}

// decided shows a negotiation that a person has just decided on.
func (a *app) decided(n *client.Negotiation, what, participant string) error {
	if done, err := a.structured(n); done {
		return err
	}
	a.say("%s. Next: kaphera describe negotiation %s --participant %s", what, n.ID, participant)
	return nil
}
