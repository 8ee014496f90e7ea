// SPDX-License-Identifier: FSL-1.1-ALv2

// Command openapi writes the OpenAPI document of the Cloud API: openapi.yaml (3.1), and with --for-generator the 3.0 form that the
// generator of client/ reads.
package main

import (
	"fmt"
	"os"

	"github.com/kaphera/kaphera/cloud/api"
)

func main() {
	doc := api.OpenAPI()
	render := doc.YAML
	if len(os.Args) > 1 && os.Args[1] == "--for-generator" {
		render = doc.DowngradeYAML
	}
	out, err := render()
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openapi: "+err.Error())
		os.Exit(1)
	}
}
