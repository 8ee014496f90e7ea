// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the whole system on a real cluster, from outside: through the Cloud API, the CLI and Terraform, as users do.
// `make e2e` brings the cluster up, applies the pilot's workspace, runs these tests and takes everything down again.
// They run in the order of their files' numbers, since the last one destroys what the others use.
package e2e
