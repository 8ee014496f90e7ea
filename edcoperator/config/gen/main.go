// SPDX-License-Identifier: Apache-2.0

// Command gen writes install.yaml into the folder it is run in.
package main

import (
	"fmt"
	"os"

	"github.com/kaphera/kaphera/edcoperator/config"
)

func main() {
	raw, err := config.Install(config.OperatorImage, config.ConnectorImage)
	if err == nil {
		err = os.WriteFile("install.yaml", raw, 0o644) // #nosec G306 -- a manifest for everybody
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
