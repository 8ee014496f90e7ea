// SPDX-License-Identifier: FSL-1.1-ALv2

// Package cloudoperator is the Cloud operator (group cloud.kaphera.io): it runs a Kaphera cloud and, as the agent of a cell, what the
// cloud wants to run there.
//
//	api/v1alpha1  the custom resources
//	controller/   one package per kind, and what they share
//	snapshot/     what a cell must run, computed from the custom resources
//	agent/        takes the snapshot in the cell and reports back
//	cellrpc/      calls from the cloud to a connector in a cell
//	pki/ postgres/ openbao/ natsauth/ keycloak/   one adapter per dependency
//	config/       manifests
//
// It never talks to a participant's protocol endpoints and holds no connector's data.
package cloudoperator
