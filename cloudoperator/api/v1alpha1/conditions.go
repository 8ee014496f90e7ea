// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

// Condition types. Each controller sets all of its kind's on every reconcile.
const (
	ConditionReady           = "Ready"
	ConditionPostgreSQLReady = "PostgreSQLReady" // Platform
	ConditionVaultReady      = "VaultReady"      // Platform: initialised, unsealed, KV v2 and Kubernetes auth there
	ConditionNATSReady       = "NATSReady"       // Platform
	ConditionKeycloakReady   = "KeycloakReady"   // Platform: realm, clients, roles, people there
	ConditionCloudReady      = "CloudReady"      // Platform: Cloud API and console answer
	ConditionConnected       = "Connected"       // Cell: the agent reports
	ConditionApplied         = "Applied"         // Cell: the newest snapshot is applied
	ConditionAuditIntact     = "AuditIntact"     // Cell: every audit chain goes on from where it was reported before
	ConditionOnboarded       = "Onboarded"       // Participant: every onboarding check passed
	ConditionActive          = "Active"          // Participant: its connector takes part in the protocol
	ConditionCredentials     = "CredentialsHeld" // Participant
	ConditionPolicyValid     = "PolicyValid"     // UseCase, DataspaceProfile
	ConditionSignedOff       = "SignedOff"       // UseCase: the newest revision is in force
)
