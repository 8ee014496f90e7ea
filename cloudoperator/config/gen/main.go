// SPDX-License-Identifier: FSL-1.1-ALv2

// Command gen writes install.yaml into the folder it is run in.
package main

import (
	"fmt"
	"os"

	"github.com/kaphera/kaphera/cloudoperator/config"
)

func main() {
	raw, err := config.Install(nil)
	if err == nil {
		err = os.WriteFile("install.yaml", raw, 0o644) // #nosec G306 -- a manifest for everybody
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
