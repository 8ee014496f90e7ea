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

// Reasons of a condition that is true.
const (
	ReasonReady     = "Ready"     // everything asked for is there
	ReasonMigrated  = "Migrated"  // DatabaseReady
	ReasonReachable = "Reachable" // VaultReady: the roles are logged in and may write
	ReasonAvailable = "Available" // WorkloadsReady
	ReasonPublished = "Published" // DIDPublished
	ReasonHeld      = "Held"      // CredentialsHeld
	ReasonNoneAsked = "NoneAsked" // CredentialsHeld: spec.credentials is empty
	ReasonActive    = "Active"
)

// Reasons of a condition that is not true. The message says which object, which value and what to do.
const (
	// ReasonNotReached: an earlier condition stops the work. Cleared when that one is true.
	ReasonNotReached = "NotReached"
	// ReasonFailed: a call failed and is being repeated.
	ReasonFailed = "Failed"
	// ReasonNotPermitted: the operator was not given the namespace. Cleared when it is; looked for every 10 s.
	ReasonNotPermitted = "NotPermitted"
	// ReasonSecretMissing: a Secret, or a key in it, is missing. Cleared when it is there; looked for every 10 s.
	ReasonSecretMissing = "SecretMissing"
	// ReasonConflict: an object of the needed name belongs to somebody else.
	ReasonConflict = "Conflict"
	// ReasonMigrationRunning and ReasonMigrationFailed: the Job that brings the database up to date (DatabaseReady).
	ReasonMigrationRunning = "MigrationRunning"
	ReasonMigrationFailed  = "MigrationFailed"
	// ReasonDatabaseRefused: a running role reports that its database does not serve it (DatabaseReady).
	ReasonDatabaseRefused = "DatabaseRefused"
	// ReasonVaultUnreachable: the address does not answer as a Vault (VaultReady).
	ReasonVaultUnreachable = "VaultUnreachable"
	// ReasonVaultSealed: it is sealed or not initialised (VaultReady).
	ReasonVaultSealed = "VaultSealed"
	// ReasonVaultRefused: a running role reports that login, mount or policy is wrong (VaultReady).
	ReasonVaultRefused = "VaultRefused"
	// ReasonStarting, ReasonPodFailing and ReasonScaledToZero: WorkloadsReady.
	ReasonStarting     = "Starting"
	ReasonPodFailing   = "PodFailing"
	ReasonScaledToZero = "ScaledToZero"
	// ReasonConnectorMissing and ReasonConnectorNotReady: the Connector named by a ParticipantContext.
	ReasonConnectorMissing  = "ConnectorMissing"
	ReasonConnectorNotReady = "ConnectorNotReady"
	// ReasonContextTaken: an older ParticipantContext of the same Connector has the same spec.context.
	ReasonContextTaken = "ContextTaken"
	// ReasonHostUnknown: spec.hostname is none of the Connector's.
	ReasonHostUnknown = "HostUnknown"
	// ReasonProfileUnknown: spec.profile is none of the Connector's.
	ReasonProfileUnknown = "ProfileUnknown"
	// ReasonRefused: the runtime refused the configuration, with its reason.
	ReasonRefused = "Refused"
	// ReasonRuntimeUnreachable: the runtime's internal API does not answer.
	ReasonRuntimeUnreachable = "RuntimeUnreachable"
	// ReasonNotPublished: the public address of the DID document does not answer with it (DIDPublished).
	ReasonNotPublished = "NotPublished"
	// ReasonRevoked to ReasonRequested: the state of the worst of the credentials, in this order (CredentialsHeld). With RenewalStuck it is
	// still valid, and somebody must act before it expires; with Incomplete it has not been asked for yet.
	ReasonRevoked        = "Revoked"
	ReasonSuspended      = "Suspended"
	ReasonRejected       = "Rejected"
	ReasonWrongIssuer    = "WrongIssuer"
	ReasonExpired        = "Expired"
	ReasonNeverDelivered = "NeverDelivered"
	ReasonRenewalStuck   = "RenewalStuck"
	ReasonIncomplete     = "Incomplete"
	ReasonRequested      = "Requested"
	// ReasonInactive: spec.active is false (Active, Ready).
	ReasonInactive = "Inactive"
	// ReasonDeleting: being deleted; the message says what that waits for.
	ReasonDeleting = "Deleting"
)
