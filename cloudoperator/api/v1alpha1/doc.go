// SPDX-License-Identifier: FSL-1.1-ALv2

// Package v1alpha1 holds the custom resources of the Cloud operator: Platform, Cell, DataspaceProfile, UseCase, UseCaseRevision, Organization, Participant and ApprovalKey.
// They are the only desired state of the cloud.
//
// +kubebuilder:object:generate=true
// +groupName=cloud.kaphera.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is cloud.kaphera.io/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "cloud.kaphera.io", Version: "v1alpha1"}

// ManagedByAnnotation says who manages an object: terraform, console, cli or api.
const ManagedByAnnotation = "cloud.kaphera.io/managed-by"

// ChangedByAnnotation says who changed the spec last, for people.
const ChangedByAnnotation = "cloud.kaphera.io/changed-by"

// AuditSeenAnnotation of a Cell is the time (RFC 3339) up to which somebody has looked into alarms about its audit chains.
const AuditSeenAnnotation = "cloud.kaphera.io/audit-seen"

// RotateAnnotation of a Cell is the time (RFC 3339) at which somebody asked for other credentials: those of its agent and of the cloud at the message
// server, and the passwords of its runtimes' database roles. The former ones open nothing any more once they are out of use, or at once where
// RevokeNowAnnotation has the same time.
const (
	RotateAnnotation    = "cloud.kaphera.io/rotate-credentials"
	RevokeNowAnnotation = "cloud.kaphera.io/revoke-now"
)

// RotateAuthorityAnnotation of a Platform is the time (RFC 3339) at which somebody asked for another internal authority than the one of then.
const RotateAuthorityAnnotation = "cloud.kaphera.io/rotate-authority"

// AbandonAnnotation of an on-premise Cell that is being deleted, with the value true, says that its agent will not come back to take down what it
// runs: neither the cell nor its participants wait for it any longer.
const AbandonAnnotation = "cloud.kaphera.io/abandon"

// AddToScheme registers the kinds of this group.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Platform{}, &PlatformList{}, &Cell{}, &CellList{},
		&DataspaceProfile{}, &DataspaceProfileList{}, &UseCase{}, &UseCaseList{}, &UseCaseRevision{}, &UseCaseRevisionList{},
		&Organization{}, &OrganizationList{}, &Participant{}, &ParticipantList{}, &ApprovalKey{}, &ApprovalKeyList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
