// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) credentialCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "credential", Aliases: []string{"credentials"}, Short: "List a participant's credentials, and revoke, suspend, resume or deliver them again", Args: cobra.NoArgs,
		Long: "Revoking, suspending, resuming and delivering again is for the governance authority, whose issuers have issued the credentials. It happens\nat once at the issuer; who verifies a credential sees it when it next reads the issuer's status list.",
	}
	cmd.AddCommand(
		a.listCredentialsCommand(),
		a.changeCredential("revoke", "Revoke a credential; that is final", true, func(ctx context.Context, c *client.API, p, id string) (*client.Issued, error) {
			r, err := c.RevokeCredentialWithResponse(ctx, p, id)
			if err != nil {
				return nil, err
			}
			return r.JSON200, nil
		}),
		a.changeCredential("suspend", "Suspend a credential: it does not count until it is resumed", false, func(ctx context.Context, c *client.API, p, id string) (*client.Issued, error) {
			r, err := c.SuspendCredentialWithResponse(ctx, p, id)
			if err != nil {
				return nil, err
			}
			return r.JSON200, nil
		}),
		a.changeCredential("resume", "Resume a suspended credential", false, func(ctx context.Context, c *client.API, p, id string) (*client.Issued, error) {
			r, err := c.ResumeCredentialWithResponse(ctx, p, id)
			if err != nil {
				return nil, err
			}
			return r.JSON200, nil
		}),
		a.changeCredential("redeliver", "Deliver a credential to its holder's wallet again", false, func(ctx context.Context, c *client.API, p, id string) (*client.Issued, error) {
			r, err := c.RedeliverCredentialWithResponse(ctx, p, id)
			if err != nil {
				return nil, err
			}
			return r.JSON200, nil
		}),
	)
	return cmd
}

func (a *app) listCredentialsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list PARTICIPANT", Short: "List a participant's credentials and how they are", Args: cobra.ExactArgs(1),
		Long: "STATE is what the participant's wallet last reported: valid, expiring, expired, revoked, suspended, wrong issuer, never delivered, rejected,\nrenewal stuck, or - where it reports none, as of one that another has replaced. AT ISSUER is what the issuer says now.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.ListCredentialsWithResponse(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if done, err := a.structured(r.JSON200); done {
				return err
			}
			t := table{columns: []string{"ID", "TYPE", "STATE", "AT ISSUER", "ISSUER", "UNTIL"}}
			for _, c := range r.JSON200.Items {
				until := "-"
				if !c.ExpiresAt.IsZero() {
					until = a.when(c.ExpiresAt)
				}
				t.add(orDash(c.ID), c.Type, orDash(spaced(c.State)), orDash(spaced(c.IssuerState)), c.Issuer, until)
			}
			if len(r.JSON200.Items) == 0 {
				a.say("%s has no credentials.", args[0])
			} else {
				a.printTable(t)
			}
			for _, c := range r.JSON200.Items {
				if c.Detail != "" {
					fprintf(a.out, "\n%s is %s: %s\n", c.Type, spaced(c.State), c.Detail)
				}
				if c.Remedy != "" {
					fprintf(a.out, "  What to do: %s\n", c.Remedy)
				}
			}
			for _, did := range r.JSON200.Unreachable {
				fprintf(a.err, "Issuer %s does not answer: what it says is missing.\n", did)
			}
			return nil
		},
	}
}

// spaced says a state in words: RenewalStuck is "renewal stuck".
func spaced(state string) string {
	var b strings.Builder
	for i, r := range state {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func (a *app) changeCredential(verb, short string, final bool, call func(ctx context.Context, c *client.API, participant, id string) (*client.Issued, error)) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: verb + " PARTICIPANT ID", Short: short, Args: cobra.ExactArgs(2), Example: "  kaphera credential " + verb + " supplier urn:uuid:0d1f…",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if final && !yes {
				if !a.asks {
					return usage("there is no terminal to ask you on: say --yes, since it cannot be undone")
				}
				if sure, err := a.ask("Revoke credential " + args[1] + " of " + args[0] + "? It cannot be undone."); err != nil {
					return err
				} else if !sure {
					return fail(ExitFailed, "kaphera credential suspend "+args[0]+" "+args[1]+" can be undone", "nothing was revoked")
				}
			}
			issued, err := call(cmd.Context(), c, args[0], args[1])
			if err != nil {
				return err
			}
			if done, err := a.structured(issued); done {
				return err
			}
			a.say("%s %s of %s: %s at its issuer. Next: kaphera credential list %s", issued.Type, issued.ID, args[0], spaced(issued.State), args[0])
			return nil
		},
	}
	if final {
		cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	return cmd
}
