// SPDX-License-Identifier: Apache-2.0

// Command terraform-provider-kaphera is the Terraform provider's plugin server. Terraform and OpenTofu start it.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/kaphera/kaphera/terraform/provider"
)

// version is set when a release is built.
var version = "0.1.0"

func main() {
	debug := flag.Bool("debug", false, "run so that a debugger can attach")
	flag.Parse()
	err := providerserver.Serve(context.Background(), provider.New(version), providerserver.ServeOpts{
		Address: "kaphera.dev/kaphera/kaphera", Debug: *debug,
	})
	if err != nil {
		log.Fatal(err)
	}
}
