// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"fmt"

	"github.com/spf13/cobra"
)

// Command is "sandbox tool".
func Command() *cobra.Command {
	return &cobra.Command{
		Use:   "tool NAME",
		Short: "Get a development tool of the pinned version and print its path",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := Get(cmd.Context(), args[0], cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), found.Path)
			return err
		},
	}
}
