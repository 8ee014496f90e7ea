// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ParticipantContextSpec describes a participant as a tenant of a connector.
// +kubebuilder:validation:XValidation:rule="has(self.hostname) == has(oldSelf.hostname) && (!has(self.hostname) || self.hostname == oldSelf.hostname)",message="hostname cannot change: the DID contains it"
// +kubebuilder:validation:XValidation:rule="!has(self.furtherProfiles) || !(self.profile in self.furtherProfiles)",message="furtherProfiles has the default profile: leave it out there"
type ParticipantContextSpec struct {
	// ConnectorRef names the Connector in the same namespace.
	// +kubebuilder:validation:XValidation:rule="self.name != ''",message="connectorRef.name is required: the name of a Connector in the same namespace"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="connectorRef cannot change: what the participant has is in that Connector; create a new ParticipantContext"
	ConnectorRef corev1.LocalObjectReference `json:"connectorRef"`
	// Context is the path segment and the last part of the DID did:web:<hostname>:<context>, with the Connector's host name unless hostname is another.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="context cannot change: the DID contains it"
	Context string `json:"context"`
	// Hostname of the participant's DID and of all its addresses, when it is another than the Connector's: of one that was moved here and keeps its
	// identity. The Connector's furtherHosts must list it. Its paths at this host must lead here: the Connector's Ingress has a rule for them and for
	// nothing else of the host.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// +kubebuilder:validation:Pattern=`^BPNL[0-9A-Z]{12}$`
	// +optional
	BusinessPartnerNumber string `json:"businessPartnerNumber,omitempty"`
	// Profile names one of the Connector's profiles: the default one, whose protocol address is status.protocolURL. What was agreed in a profile
	// can be used only as long as the participant takes part in it, at the same address.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Profile string `json:"profile"`
	// FurtherProfiles of the Connector that the participant takes part in besides, each at the protocol address that the version endpoint
	// <context>/.well-known/dspace-version lists for it.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	FurtherProfiles []string `json:"furtherProfiles,omitempty"`
	// Active participants take part in the protocol; an inactive one answers 503 and keeps its data.
	// +optional
	Active bool `json:"active,omitempty"`
	// SelfCheck says whether the provider evaluates its own obligations before it offers.
	// +kubebuilder:validation:Enum=Enforce;Off
	// +kubebuilder:default=Enforce
	// +optional
	SelfCheck string `json:"selfCheck,omitempty"`
	// +optional
	Key Key `json:"key,omitzero"`
	// Credentials to request by DCP and to hold.
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Credentials []RequestedCredential `json:"credentials,omitempty"`
}

// RequestedCredential is a credential and where to ask for it.
type RequestedCredential struct {
	Type string `json:"type"`
	// Issuer is its DID.
	// +kubebuilder:validation:Pattern=`^did:web:.+`
	Issuer string `json:"issuer"`
}

// ParticipantContextStatus is what was seen.
type ParticipantContextStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	DID string `json:"did,omitempty"`
	// KeyID is the verification method that signs now.
	// +optional
	KeyID string `json:"keyID,omitempty"`
	// ProtocolURL is the DSP base.
	// +optional
	ProtocolURL string `json:"protocolURL,omitempty"`
	// +optional
	Credentials []CredentialStatus `json:"credentials,omitempty"`
	// Contracts are counts of negotiations by DSP state, and agreements.
	// +optional
	Contracts *ContractStatus `json:"contracts,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CredentialStatus is one credential, held or wanted.
type CredentialStatus struct {
	// ID of the credential; empty as long as none is held.
	// +optional
	ID     string `json:"id,omitempty"`
	Type   string `json:"type"`
	Issuer string `json:"issuer"`
	State  string `json:"state"`
	// +optional
	IssuedAt *metav1.Time `json:"issuedAt,omitempty"`
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
	// Detail says why it is not valid.
	// +optional
	Detail string `json:"detail,omitempty"`
	// Remedy says what to do; empty when nothing is to be done.
	// +optional
	Remedy string `json:"remedy,omitempty"`
}

// Key is a wish about the key that signs for a DID. The one that it replaces stays in the DID document until nothing that it signed is
// valid any more.
type Key struct {
	// Algorithm of the key; another one replaces the key. Empty: as it is, and ES256 for the first.
	// +kubebuilder:validation:Enum=ES256;EdDSA
	// +optional
	Algorithm string `json:"algorithm,omitempty"`
	// Generation is the number in the key's id ("key-2"); raising it replaces the key.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Generation int32 `json:"generation,omitempty"`
}

// ContractStatus counts.
type ContractStatus struct {
	Active  int32 `json:"active"`
	Failed  int32 `json:"failed"`
	Waiting int32 `json:"waiting"`
	// +optional
	LastFailure string `json:"lastFailure,omitempty"`
}

// ParticipantContext is a participant as a tenant of a connector.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pctx
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Active",type=boolean,JSONPath=`.spec.active`
// +kubebuilder:printcolumn:name="DID",type=string,JSONPath=`.status.did`
// +kubebuilder:printcolumn:name="Credentials",type=string,JSONPath=`.status.conditions[?(@.type=="CredentialsHeld")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ParticipantContext struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ParticipantContextSpec   `json:"spec"`
	Status            ParticipantContextStatus `json:"status,omitzero"`
}

// ParticipantContextList is a list.
//
// +kubebuilder:object:root=true
type ParticipantContextList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ParticipantContext `json:"items"`
}
