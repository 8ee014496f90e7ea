// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// CellSpec describes a place where connectors run.
type CellSpec struct {
	// Type of the cell. This release runs shared cells.
	// +kubebuilder:validation:Enum=shared
	Type string `json:"type"`
	// Hostname of the cell's gateway; DIDs contain it.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="hostname cannot change: every DID of the cell contains it"
	Hostname string `json:"hostname"`
	// OperatingParty runs the cell.
	// +kubebuilder:validation:MinLength=1
	OperatingParty string `json:"operatingParty"`
	// Replicas of each runtime role.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// +optional
	Audit edc.Audit `json:"audit,omitzero"`
}

// CellStatus is what was seen.
type CellStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Namespace in which the cell's connectors run.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Revision is the newest snapshot published, AppliedRevision the one the agent has applied.
	// +optional
	Revision int64 `json:"revision,omitempty"`
	// +optional
	AppliedRevision int64 `json:"appliedRevision,omitempty"`
	// LastHeard is when the agent last reported.
	// +optional
	LastHeard *metav1.Time `json:"lastHeard,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Cell is a place where connectors run.
//
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$')",message="a cell's name is at most 32 lower-case letters, digits and dashes: its namespace, databases and accounts are named after it"
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.hostname`
// +kubebuilder:printcolumn:name="Heard",type=date,JSONPath=`.status.lastHeard`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Cell struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              CellSpec   `json:"spec"`
	Status            CellStatus `json:"status,omitzero"`
}

// CellList is a list.
//
// +kubebuilder:object:root=true
type CellList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Cell `json:"items"`
}
