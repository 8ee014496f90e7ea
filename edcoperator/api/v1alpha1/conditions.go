// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Ready is the summary; the others say what is missing, in words.
const (
	// ConditionReady is true when everything below it is. Set by every controller on each reconcile.
	ConditionReady = "Ready"
	// ConditionDatabaseReady: migrations ran (Connector, CredentialIssuer).
	ConditionDatabaseReady = "DatabaseReady"
	// ConditionVaultReady: the roles can log in and write (Connector, CredentialIssuer).
	ConditionVaultReady = "VaultReady"
	// ConditionWorkloadsReady: Deployments are available (Connector, CredentialIssuer).
	ConditionWorkloadsReady = "WorkloadsReady"
	// ConditionDIDPublished: the DID document answers at its public address (ParticipantContext, CredentialIssuer).
	ConditionDIDPublished = "DIDPublished"
	// ConditionCredentialsHeld: every requested credential is held and valid (ParticipantContext).
	ConditionCredentialsHeld = "CredentialsHeld"
	// ConditionActive mirrors spec.active as the control plane has it (ParticipantContext).
	ConditionActive = "Active"
)
