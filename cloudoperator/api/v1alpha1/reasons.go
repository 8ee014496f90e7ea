// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

// Reasons of conditions. The message beside a reason says in words what is meant and what to do.
const (
	ReasonReady    = "Ready"    // it works
	ReasonStarting = "Starting" // it was asked for and is not up yet
	ReasonFailed   = "Failed"   // an attempt failed and is repeated; the message has the cause
	ReasonWaiting  = "Waiting"  // something that it needs is not ready; the message names it
	ReasonInvalid  = "Invalid"  // the spec contradicts itself; the message names the JSON path
	ReasonMissing  = "Missing"  // a referenced object does not exist; the message names it
	ReasonTaken    = "Taken"    // another object has what must be unique; the message names it
	ReasonRefused  = "Refused"  // what it refers to is not for it; the message says whom it is for
	ReasonInUse    = "InUse"    // deletion waits for the objects that refer to it; the message names them
	ReasonDeleting = "Deleting" // it is being taken down
	ReasonMoving   = "Moving"   // Participant: it is on its way to another cell, or is to go there

	// Why an external part cannot be used; the message says what to do.
	ReasonUnreachable = "Unreachable"  // nobody answers at its address
	ReasonUntrusted   = "Untrusted"    // its certificate is not believed, or it speaks no TLS
	ReasonLogin       = "LoginRefused" // it refuses the operator's credentials
	ReasonRights      = "RightMissing" // the operator's account lacks a right, or the part a setting, which the message names

	ReasonSilent   = "NotHeardFrom" // Cell, Participant: no report for a while; the message says since when
	ReasonNever    = "NeverHeardFrom"
	ReasonBehind   = "Behind"       // Cell: the agent has applied an older revision
	ReasonRejected = "Rejected"     // Cell: the agent or its cluster refused the snapshot
	ReasonAudit    = "AuditAlarm"   // Cell: an audit chain went back, was written anew or replaced; the message says which
	ReasonPassed   = "ChecksPassed" // Participant: every onboarding check has passed
	ReasonChecks   = "ChecksPending"
)
