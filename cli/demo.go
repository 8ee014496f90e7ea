// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

func (a *app) demoCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "demo", Short: "Run a demonstration on a platform made by make demo", Args: cobra.NoArgs}
	return cmd
}
