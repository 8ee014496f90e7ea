// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/sandbox/internal/place"
)

// Command is "sandbox check".
func Command() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Checks of the repository that no linter brings", Args: cobra.NoArgs}
	cmd.AddCommand(
		&cobra.Command{Use: "headers", Short: "Every file names its licence", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := place.Root()
			if err != nil {
				return err
			}
			bad, err := Headers(cmd.Context(), root)
			return verdict(cmd.OutOrStdout(), "licence headers", bad, err)
		}},
		&cobra.Command{Use: "generated", Short: "Generated files are up to date", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := place.Root()
			if err != nil {
				return err
			}
			bad, err := Generated(cmd.Context(), root, cmd.ErrOrStderr())
			return verdict(cmd.OutOrStdout(), "generated files", bad, err)
		}},
		&cobra.Command{Use: "generate", Short: "Make every generated file anew", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := place.Root()
			if err != nil {
				return err
			}
			return Generate(cmd.Context(), root, cmd.ErrOrStderr())
		}},
	)
	return cmd
}

func verdict(out io.Writer, what string, bad []string, err error) error {
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("%s: %d wrong:\n  %s", what, len(bad), strings.Join(bad, "\n  "))
	}
	_, err = fmt.Fprintf(out, "%s: good\n", what)
	return err
}
