// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

// RotationReport is what a rotation came to.
type RotationReport struct {
	Cell      string `json:"cell"`
	Requested string `json:"requested"`         // RFC 3339
	Done      bool   `json:"done"`              // the former credentials open nothing any more
	Waiting   string `json:"waiting,omitempty"` // what they still open
}

func (a *app) cellRotateCommand() *cobra.Command {
	var now bool
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "rotate-credentials CELL", Short: "Give a cell other credentials, without a gap", Args: cobra.ExactArgs(1),
		Long: "Makes other credentials of the cell at the message server and PostgreSQL, lets the agent and the connectors come over to them, and revokes the former ones\n" +
			"once nobody uses them. Waits until then; what is not done in time goes on by itself.\n" +
			"With --revoke-now the former ones are revoked at once, as when somebody else may have them: whoever still uses them is refused until it has the new ones.\n" +
			"The credentials of an on-premise cell are its company's: kaphera cell install CELL --rotate-key.",
		Example: "  kaphera cell rotate-credentials shared\n  kaphera cell rotate-credentials shared --revoke-now --timeout 0",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rotateCell(cmd.Context(), args[0], now, patience)
		},
	}
	cmd.Flags().BoolVar(&now, "revoke-now", false, "revoke the former credentials at once")
	cmd.Flags().DurationVar(&patience, "timeout", 15*time.Minute, "how long to wait; 0 does not wait")
	return cmd
}

// timeOf is an RFC 3339 time, zero when there is none yet.
func timeOf(s string) time.Time {
	t, _ := time.Parse(time.RFC3339, s)
	return t
}

func (a *app) rotateCell(ctx context.Context, cell string, now bool, patience time.Duration) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.RotateCellCredentialsWithResponse(ctx, cell, client.CellRotation{RevokeNow: now})
	if err != nil {
		return err
	}
	report := RotationReport{Cell: cell, Requested: r.JSON202.Requested}
	if patience > 0 {
		err = a.until(ctx, patience, "the rotation of cell "+cell, func(ctx context.Context) (bool, string, error) {
			r, err := c.GetCellWithResponse(ctx, cell)
			if err != nil {
				return false, "", err
			}
			status, said := r.JSON200.Status, report.Waiting
			report.Done, report.Waiting = !timeOf(status.RotatedFor).Before(timeOf(report.Requested)), "the operator has not taken it up yet"
			if i := slices.IndexFunc(status.Conditions, func(c client.Condition) bool { return c.Type == "CredentialsRotated" && c.Status == "False" }); i >= 0 {
				report.Waiting = status.Conditions[i].Message
			}
			if report.Done {
				report.Waiting = ""
			} else if report.Waiting != said {
				a.progress("%s", report.Waiting)
			}
			return report.Done, report.Waiting, nil
		})
	}
	if structured, printErr := a.structured(report); structured && err == nil {
		return printErr
	}
	switch {
	case err != nil:
		return err
	case report.Done:
		fprintf(a.out, "Cell %s has other credentials; the former ones open nothing any more.\n", cell)
	default:
		fprintf(a.out, "Cell %s is given other credentials. How far that is: kaphera describe cell %[1]s\n", cell)
	}
	return nil
}
