// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) getCommand() *cobra.Command {
	var participant string
	cmd := &cobra.Command{
		Use: "get KIND [NAME]", Short: "List things, or show one in a line", Args: cobra.RangeArgs(1, 2), ValidArgs: a.nounNames(),
		Long:    "Kinds: " + strings.Join(a.nounNames(), ", ") + ".\nWhat belongs to a connector (assets, offers, negotiations, agreements, transfers) needs --participant.",
		Example: "  kaphera get participants\n  kaphera get negotiations --participant oem\n  kaphera get use-cases -o yaml",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.get(cmd.Context(), participant, args) },
	}
	cmd.Flags().StringVarP(&participant, "participant", "p", "", "whose connector")
	return cmd
}

func (a *app) get(ctx context.Context, participant string, args []string) error {
	n, c, err := a.nounAndClient(ctx, args[0], participant)
	if err != nil {
		return err
	}
	t := table{columns: n.columns}
	if len(args) == 2 {
		it, err := n.get(ctx, c, participant, args[1])
		if err != nil {
			return err
		}
		if done, err := a.structured(it.value); done {
			return err
		}
		t.add(it.cells...)
		a.printTable(t)
		return nil
	}
	all, err := n.list(ctx, c, participant)
	if err != nil {
		return err
	}
	values := make([]any, len(all))
	for i, it := range all {
		values[i] = it.value
		t.add(it.cells...)
	}
	if done, err := a.structured(map[string]any{"items": values}); done {
		return err
	}
	if len(all) == 0 {
		fprintf(a.out, "There are no %s that you may see.\n", n.name)
		return nil
	}
	a.printTable(t)
	return nil
}

// nounAndClient finds the kind, a client, and, where parties are shown, their names.
func (a *app) nounAndClient(ctx context.Context, word, participant string) (noun, *client.API, error) {
	n, err := a.findNoun(word)
	if err != nil {
		return n, nil, err
	}
	if n.ofParty && participant == "" {
		return n, nil, usage("%s belong to a participant's connector: give --participant NAME (kaphera get participants lists them)", n.name)
	}
	if !n.ofParty && participant != "" {
		return n, nil, usage("%s belong to no connector: leave --participant out", n.name)
	}
	c, err := a.client()
	if err == nil && n.named {
		err = a.learnNames(ctx, c, participant)
	}
	return n, c, err
}
