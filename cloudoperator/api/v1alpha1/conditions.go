// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition types. Each controller sets all of its kind's on every reconcile.
const (
	ConditionReady           = "Ready"
	ConditionPostgreSQLReady = "PostgreSQLReady"    // Platform
	ConditionVaultReady      = "VaultReady"         // Platform: initialised, unsealed, KV v2 and Kubernetes auth there
	ConditionNATSReady       = "NATSReady"          // Platform
	ConditionKeycloakReady   = "KeycloakReady"      // Platform: realm, clients, roles, people there
	ConditionCloudReady      = "CloudReady"         // Platform: Cloud API and console answer
	ConditionAuthority       = "AuthorityRotated"   // Platform: one internal authority is trusted; false while another one takes over
	ConditionConnected       = "Connected"          // Cell: the agent reports
	ConditionApplied         = "Applied"            // Cell: the newest snapshot is applied
	ConditionRotated         = "CredentialsRotated" // Cell: once a rotation was asked for: the former credentials open nothing any more
	ConditionAuditIntact     = "AuditIntact"        // Cell: every audit chain goes on from where it was reported before
	ConditionOnboarded       = "Onboarded"          // Participant: every onboarding check passed
	ConditionActive          = "Active"             // Participant: its connector takes part in the protocol
	ConditionCredentials     = "CredentialsHeld"    // Participant
	ConditionMoving          = "Moving"             // Participant: a move to another cell is under way; the message says what it waits for, or why none begins
	ConditionPolicyValid     = "PolicyValid"        // UseCase, DataspaceProfile
	ConditionSignedOff       = "SignedOff"          // UseCase: the newest revision is in force
)

// GetConditions of the Platform.
func (p *Platform) GetConditions() []metav1.Condition { return p.Status.Conditions }

// GetConditions of the Cell.
func (c *Cell) GetConditions() []metav1.Condition { return c.Status.Conditions }

// GetConditions of the DataspaceProfile.
func (p *DataspaceProfile) GetConditions() []metav1.Condition { return p.Status.Conditions }

// GetConditions of the UseCase.
func (u *UseCase) GetConditions() []metav1.Condition { return u.Status.Conditions }

// GetConditions of the Organization.
func (o *Organization) GetConditions() []metav1.Condition { return o.Status.Conditions }

// GetConditions of the Participant.
func (p *Participant) GetConditions() []metav1.Condition { return p.Status.Conditions }
