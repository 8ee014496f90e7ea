// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kaphera/kaphera/client"
)

// secretLimit is what an API key or a password needs at most, in bytes.
const secretLimit = 64 << 10

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Store the secret of an asset's backend", Args: cobra.NoArgs}
	var file string
	put := &cobra.Command{
		Use: "put PARTICIPANT NAME [--from-file FILE]", Short: "Create or replace a secret in the participant's Vault path", Args: cobra.ExactArgs(2),
		Long: "Stores what an asset's backend wants to see: the asset names the secret in dataAddress.secretName, and the header in authKey.\n" +
			"The value is read from FILE, otherwise from standard input or, at a terminal, without showing it. It can't be read back.",
		Example: "  kaphera secret put supplier pcf-backend-key --from-file key.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.readSecret(file)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := c.PutSecretWithResponse(cmd.Context(), args[0], args[1], client.Secret{Value: value}); err != nil {
				return err
			}
			a.say("Secret %s stored. An asset uses it by secretName: %s in its dataAddress", args[1], args[1])
			return nil
		},
	}
	put.Flags().StringVar(&file, "from-file", "", "file with the value")
	cmd.AddCommand(put)
	return cmd
}

// readSecret reads a secret; the line's end that editors and echo add is none of it.
func (a *app) readSecret(file string) (string, error) {
	var raw []byte
	var err error
	in, isFile := a.in.(*os.File)
	switch {
	case file != "":
		raw, err = os.ReadFile(file) //nolint:gosec // the path is the caller's
	case isFile && term.IsTerminal(int(in.Fd())):
		fprint(a.err, "Value: ")
		raw, err = term.ReadPassword(int(in.Fd()))
		fprintln(a.err)
	default:
		raw, err = io.ReadAll(io.LimitReader(a.in, secretLimit+1))
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	switch {
	case err != nil:
		return "", fail(ExitUsage, "see: kaphera secret put --help", "the secret could not be read: %s", err)
	case value == "":
		return "", usage("the secret is empty: give it on standard input, or with --from-file")
	case len(value) > secretLimit:
		return "", usage("the secret is larger than %d KiB", secretLimit>>10)
	}
	return value, nil
}
