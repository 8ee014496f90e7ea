// SPDX-License-Identifier: FSL-1.1-ALv2

// Package cloud is the folder of the Kaphera Cloud API and console. It holds no code of its own: authz says who may do what,
// status assembles the status table, config is the program's configuration, api serves the HTTP API, console the pages.
// Desired state lives in the custom resources of cloudoperator; connectors are reached through cloudoperator/cellrpc only.
package cloud
