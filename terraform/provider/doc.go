// SPDX-License-Identifier: Apache-2.0

// Package provider is the Terraform provider for Kaphera: dataspace profiles, use cases, cells, organizations and participants
// as resources. It goes through the Cloud API by way of client/ and knows neither Kubernetes nor connectors.
// One file holds one resource: schema, model, and the conversion between the model and the API's spec.
package provider
