// SPDX-License-Identifier: Apache-2.0

// Package edcoperator is the EDC operator: Connectors, CredentialIssuers and ParticipantContexts as custom resources. It is usable
// alone, with a database and a Vault given by address. Here is only the assembly; kinds are in api, control loops in controller,
// the objects they make in workload, the client of a runtime in runtimeclient, what gets installed in config.
// What spans several cells or clusters does not belong here but in the Cloud operator.
package edcoperator
