// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CredentialIssuerSpec describes an issuer service: the connector image in the issuer role.
// +kubebuilder:validation:XValidation:rule="!has(self.vault.auth.appRoleSecrets) || has(self.vault.auth.appRoleSecrets.issuer)",message="vault.auth.appRoleSecrets must name a Secret for issuer"
type CredentialIssuerSpec struct {
	// +optional
	Image string `json:"image,omitempty"`
	// ImagePullSecrets are Secrets of a private registry in the same namespace, with which nodes pull the image.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.name.size() > 0)",message="imagePullSecrets: each has the name of a Secret"
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	Exposure         Exposure                      `json:"exposure"`
	// Context is the path segment and last part of the DID.
	// +kubebuilder:default=issuer
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="context cannot change: the DID contains it"
	Context string `json:"context,omitempty"`
	// +optional
	Key Key `json:"key,omitzero"`
	// +optional
	Trust    Trust    `json:"trust,omitzero"`
	Database Database `json:"database"`
	Vault    Vault    `json:"vault"`
	// +kubebuilder:validation:MinItems=1
	// +listType=map
	// +listMapKey=type
	CredentialTypes []CredentialType `json:"credentialTypes"`
	// Holders say who may receive what. Claims are facts that the issuing party vouches for.
	// +listType=map
	// +listMapKey=did
	// +optional
	Holders []Holder `json:"holders,omitempty"`
	// +kubebuilder:default=1
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
}

// CredentialType is a type of credential that an issuer issues.
type CredentialType struct {
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]+$`
	Type string `json:"type"`
	// Validity is an ISO 8601 duration.
	// +kubebuilder:validation:Pattern=`^P(\d+[YMWD])*(T(\d+[HMS])+)?$`
	// +kubebuilder:default=P365D
	Validity string `json:"validity,omitempty"`
	// RequiredClaims must be among a holder's claims.
	// +optional
	RequiredClaims []string `json:"requiredClaims,omitempty"`
}

// Holder is somebody who may receive credentials.
type Holder struct {
	// +kubebuilder:validation:Pattern=`^did:web:.+`
	DID string `json:"did"`
	// +listType=map
	// +listMapKey=type
	Credentials []HolderCredential `json:"credentials"`
}

// HolderCredential is an entitlement with its claims.
type HolderCredential struct {
	Type string `json:"type"`
	// Claims become the credential's subject.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Claims *apiextensionsv1.JSON `json:"claims,omitempty"`
}

// CredentialIssuerStatus is what was seen.
type CredentialIssuerStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	DID string `json:"did,omitempty"`
	// KeyID is the verification method that signs now.
	// +optional
	KeyID string `json:"keyID,omitempty"`
	// +optional
	InternalURL string `json:"internalURL,omitempty"`
	// +optional
	InternalSecret string `json:"internalSecret,omitempty"`
	// +optional
	Holders int32 `json:"holders,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CredentialIssuer issues verifiable credentials by DCP.
//
// +kubebuilder:object:root=true
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must start with a letter, hold only a-z, 0-9 and -, and have at most 40 characters: a Service is named after it"
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="DID",type=string,JSONPath=`.status.did`
// +kubebuilder:printcolumn:name="Holders",type=integer,JSONPath=`.status.holders`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CredentialIssuer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              CredentialIssuerSpec   `json:"spec"`
	Status            CredentialIssuerStatus `json:"status,omitzero"`
}

// CredentialIssuerList is a list.
//
// +kubebuilder:object:root=true
type CredentialIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CredentialIssuer `json:"items"`
}
