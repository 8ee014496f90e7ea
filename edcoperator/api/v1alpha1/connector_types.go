// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/connector/profile"
)

// ConnectorSpec describes one runtime: control plane, wallet and data plane of one image, shared by any number of participant contexts.
// +kubebuilder:validation:XValidation:rule="!has(self.management) || !has(self.management.hostname) || self.management.hostname != self.exposure.hostname",message="management.hostname must be another than exposure.hostname, whose paths begin with a participant context"
// +kubebuilder:validation:XValidation:rule="!has(self.furtherHosts) || self.furtherHosts.all(h, h.hostname != self.exposure.hostname && (!has(self.management) || !has(self.management.hostname) || h.hostname != self.management.hostname))",message="furtherHosts must be others than exposure.hostname and management.hostname"
// +kubebuilder:validation:XValidation:rule="!has(self.vault.auth.appRoleSecrets) || has(self.vault.auth.appRoleSecrets.controlPlane) && has(self.vault.auth.appRoleSecrets.wallet) && has(self.vault.auth.appRoleSecrets.dataPlane)",message="vault.auth.appRoleSecrets must name a Secret for controlPlane, wallet and dataPlane"
type ConnectorSpec struct {
	// Image of the runtime; empty takes the operator's default.
	// +optional
	Image string `json:"image,omitempty"`
	// ImagePullSecrets are Secrets of a private registry in the same namespace, with which the nodes pull the image.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.name.size() > 0)",message="imagePullSecrets: each has the name of a Secret"
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	Exposure         Exposure                      `json:"exposure"`
	// FurtherHosts are those that participants which were moved here may keep (spec.hostname of a ParticipantContext); they are served as exposure says,
	// at its port.
	// +kubebuilder:validation:MaxItems=128
	// +listType=map
	// +listMapKey=hostname
	// +optional
	FurtherHosts []FurtherHost `json:"furtherHosts,omitempty"`
	// +optional
	Trust    Trust    `json:"trust,omitzero"`
	Database Database `json:"database"`
	Vault    Vault    `json:"vault"`
	// +optional
	DataPlane DataPlane `json:"dataPlane,omitzero"`
	// +optional
	Management Management `json:"management,omitzero"`
	// +optional
	Audit Audit `json:"audit,omitzero"`
	// +optional
	PerParticipant PerParticipant `json:"perParticipant,omitzero"`
	// Profiles are the dataspace profiles this runtime speaks.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Profiles []profile.Profile `json:"profiles,omitempty"`
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// Resources of each container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
}

// FurtherHost is a host name that participants were born with.
type FurtherHost struct {
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Hostname string `json:"hostname"`
	// TLSSecretName is the Secret of its certificate; empty takes exposure.tlsSecretName.
	// +optional
	TLSSecretName string `json:"tlsSecretName,omitempty"`
}

// Management is the EDC Management API, which the key in the Secret status.internalSecret (key management-key) always opens.
// +kubebuilder:validation:XValidation:rule="has(self.hostname) || !has(self.tlsSecretName)",message="tlsSecretName is for hostname, which is missing"
type Management struct {
	// Hostname serves it at https://HOSTNAME/management/ through the ingress class and annotations of spec.exposure, and nothing else of the runtime.
	// Without, only the runtime's own parts and the operator reach it.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// TLSSecretName is the Secret of its certificate; empty leaves TLS to the ingress controller's default certificate.
	// +optional
	TLSSecretName string `json:"tlsSecretName,omitempty"`
	// OAuth2 says whose access tokens it accepts besides.
	// +optional
	OAuth2 *OAuth2 `json:"oauth2,omitempty"`
}

// OAuth2 is an issuer of access tokens: sub is the participant context, scope what the token opens.
type OAuth2 struct {
	// Issuer is the tokens' iss.
	// +kubebuilder:validation:MinLength=1
	Issuer string `json:"issuer"`
	// Audience that a token must be made for.
	// +kubebuilder:validation:MinLength=1
	Audience string `json:"audience"`
	// JWKSURL is the address of the issuer's keys.
	// +kubebuilder:validation:Pattern=`^https?://.+`
	JWKSURL string `json:"jwksURL"`
}

// ConnectorStatus is what was seen.
type ConnectorStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// PublicURL is the base of everything public.
	// +optional
	PublicURL string `json:"publicURL,omitempty"`
	// WalletURL is the wallet's internal API inside the cluster; its token is the operator's to know.
	// +optional
	WalletURL string `json:"walletURL,omitempty"`
	// InternalURL is the control plane's internal API inside the cluster; its token is in Secret InternalSecret, key token.
	// +optional
	InternalURL string `json:"internalURL,omitempty"`
	// +optional
	InternalSecret string `json:"internalSecret,omitempty"`
	// +optional
	Participants int32 `json:"participants,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Connector is a connector runtime.
//
// +kubebuilder:object:root=true
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must start with a letter, hold only a-z, 0-9 and -, and have at most 40 characters: Services are named after it"
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=conn
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.exposure.hostname`
// +kubebuilder:printcolumn:name="Participants",type=integer,JSONPath=`.status.participants`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Connector struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ConnectorSpec   `json:"spec"`
	Status            ConnectorStatus `json:"status,omitzero"`
}

// ConnectorList is a list.
//
// +kubebuilder:object:root=true
type ConnectorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Connector `json:"items"`
}
