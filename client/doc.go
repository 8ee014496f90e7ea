// SPDX-License-Identifier: Apache-2.0

// Package client is the Go client of the Kaphera Cloud API. What the OpenAPI document (openapi.yaml) says is generated into
// zz_generated.client.go; client.go adds logging in, trust, time-outs, retries and errors. It holds no logic of the CLI or
// the Terraform provider.
//
// Each generated call has a WithResponse form; whenever it returns no error, the JSON200 or JSON201 field is set:
//
//	c, err := client.New(client.Config{API: "https://api.demo.kaphera.test", CAFile: "ca.crt", ClientID: id, ClientSecret: secret})
//	p, err := c.GetParticipantWithResponse(ctx, "supplier")
//	if client.IsNotFound(err) { ... }
//	fmt.Println(p.JSON200.Spec.Cell)
package client

//go:generate ./generate.sh
