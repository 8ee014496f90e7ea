// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Every participant: where it runs, connector, credential and contract health", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.status(cmd.Context(), c)
		},
	}
}

func (a *app) status(ctx context.Context, c *client.API) error {
	resp, err := c.GetStatusWithResponse(ctx)
	if err != nil {
		return err
	}
	report := resp.JSON200
	if done, err := a.structured(report); done {
		return err
	}
	if len(report.Participants) == 0 {
		fprintln(a.out, "There is no participant yet that you may see. Next: apply a workspace, e.g. terraform/pilot")
		return nil
	}
	t := table{columns: []string{"PARTICIPANT", "ORGANIZATION", "RUNS IN", "OPERATED BY", "CONNECTOR", "CREDENTIALS", "CONTRACTS", "HEARD"}}
	for _, p := range report.Participants {
		contracts := fmt.Sprintf("%s (%d active, %d under way, %d failed)", p.Contracts.State, p.Contracts.Active, p.Contracts.Waiting, p.Contracts.Failed)
		t.add(p.Participant, p.Organization, where(p), orDash(p.OperatingParty), string(p.Connector.State), string(p.Credentials.State), contracts, a.ago(p.LastHeard))
		for _, part := range []struct{ name, reason string }{{"connector", p.Connector.Reason}, {"credentials", p.Credentials.Reason}, {"contracts", p.Contracts.Reason}} {
			if part.reason != "" {
				t.note(part.name + ": " + part.reason)
			}
		}
	}
	a.printTable(t)
	return nil
}

func where(p client.StatusParticipant) string {
	if p.CellType == "" || p.CellType == p.Cell {
		return p.Cell
	}
	return p.Cell + " (" + p.CellType + ")"
}

func (a *app) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := a.now().Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	}
	return a.when(t)
}
