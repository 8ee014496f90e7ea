// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"

	"github.com/kaphera/kaphera/connector/profile"
)

// DataspaceProfileSpec is what a dataspace demands of everybody in it.
// +kubebuilder:validation:XValidation:rule="self.requiredCredentials.all(t, self.issuers.exists(i, i.credentialTypes.exists(c, c.type == t)))",message="every type of requiredCredentials must be issued by one of issuers"
type DataspaceProfileSpec struct {
	// +kubebuilder:validation:Enum="dataspace-protocol-http:2025-1"
	// +kubebuilder:default="dataspace-protocol-http:2025-1"
	Protocol string `json:"protocol,omitempty"`
	// Issuers are the trust anchors; the platform runs them in their cell.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	Issuers []Issuer `json:"issuers"`
	// RequiredCredentials must be held by every participant.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	RequiredCredentials []string `json:"requiredCredentials"`
	// Operands is the vocabulary of policies.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Operands []profile.Operand `json:"operands,omitempty"`
	// Duties are what policies may oblige to and the connectors fulfil themselves.
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Duties []profile.Duty `json:"duties,omitempty"`
	// OnboardingChecks must pass before a participant's connector becomes active.
	// +kubebuilder:validation:items:Enum=DIDReachable;CredentialsHeld;ContactNamed
	// +optional
	OnboardingChecks []string `json:"onboardingChecks,omitempty"`
}

// Issuer is a trust anchor that the platform runs: did:web:<hostname>:issuer.
type Issuer struct {
	// Name of its CredentialIssuer in the cell.
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('connector')",message="an issuer's name cannot start with connector: the cell's connector is named so"
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`
	Name string `json:"name"`
	// Cell in which it runs.
	Cell string `json:"cell"`
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Hostname string `json:"hostname"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=type
	CredentialTypes []edc.CredentialType `json:"credentialTypes"`
}

// DataspaceProfileStatus is what was seen.
type DataspaceProfileStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// TrustedIssuers are the issuers' DIDs with their types.
	// +optional
	TrustedIssuers []profile.TrustedIssuer `json:"trustedIssuers,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// DataspaceProfile is a dataspace's rules: trust anchors, required credentials, vocabulary, onboarding checks.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Protocol",type=string,JSONPath=`.spec.protocol`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DataspaceProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              DataspaceProfileSpec   `json:"spec"`
	Status            DataspaceProfileStatus `json:"status,omitzero"`
}

// DataspaceProfileList is a list.
//
// +kubebuilder:object:root=true
type DataspaceProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataspaceProfile `json:"items"`
}

// UseCaseSpec is a policy set and the kind of asset it is for.
type UseCaseSpec struct {
	// Profile names the DataspaceProfile.
	Profile string `json:"profile"`
	// +kubebuilder:validation:MinLength=1
	Title string `json:"title"`
	// +optional
	Description string `json:"description,omitempty"`
	// AssetType is the dct:type IRI of assets that it is for.
	// +kubebuilder:validation:MinLength=1
	AssetType string `json:"assetType"`
	// AccessPolicy (ODRL) decides who sees the offer; absent shows it to every participant of the profile.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	AccessPolicy *apiextensionsv1.JSON `json:"accessPolicy,omitempty"`
	// ContractPolicy (ODRL) is what both sides sign.
	// +kubebuilder:pruning:PreserveUnknownFields
	ContractPolicy apiextensionsv1.JSON `json:"contractPolicy"`
	// Gates hold each negotiation at its provider until they have passed. An offer has them from when it is made, with the keys that the people
	// had registered then.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	// +optional
	Gates []UseCaseGate `json:"gates,omitempty"`
	// Signers are those one of whom signs each change off before it takes effect, the change of signers too; absent: a change takes effect at once.
	// They sign with their keys for approvals, and need the role governance-authority.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Signers []ApproverRef `json:"signers,omitempty"`
}

// UseCaseGate is what a negotiation waits for.
// +kubebuilder:validation:XValidation:rule="(self.type == 'Approval') == (has(self.approvers) && has(self.required))",message="an Approval has approvers and required, the other types neither"
// +kubebuilder:validation:XValidation:rule="(self.type == 'Attestation') == has(self.policy)",message="an Attestation has a policy, the other types have none"
// +kubebuilder:validation:XValidation:rule="(self.type == 'Webhook') == has(self.webhook)",message="a Webhook has webhook, the other types have none"
// +kubebuilder:validation:XValidation:rule="!has(self.organizations) || (has(self.required) && self.organizations <= self.required)",message="organizations must not exceed required: each approval is of one organization"
type UseCaseGate struct {
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	Name string `json:"name"`
	// Approval waits for people, Attestation for a credential, Webhook for a system outside.
	// +kubebuilder:validation:Enum=Approval;Attestation;Webhook
	Type string `json:"type"`
	// Before is the state that the negotiation is kept from.
	// +kubebuilder:validation:Enum=AGREED;FINALIZED
	Before string `json:"before"`
	// Deadline is how long it holds (ISO 8601, at most a year); then the negotiation is terminated.
	// +kubebuilder:validation:Pattern=`^P([0-9]+Y)?([0-9]+M)?([0-9]+W)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+S)?)?$`
	Deadline string `json:"deadline"`
	// Approvers, one of whom may also reject, which ends the negotiation.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Approvers []ApproverRef `json:"approvers,omitempty"`
	// Required is how many of them must approve.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Required int `json:"required,omitempty"`
	// Organizations is from how many organizations the approvals must come at least; 2 is an approval by two parties.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Organizations int `json:"organizations,omitempty"`
	// Policy (ODRL) must be satisfied; until it is, the negotiation waits.
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Policy *apiextensionsv1.JSON `json:"policy,omitempty"`
	// Webhook is the system that is asked.
	// +optional
	Webhook *GateWebhook `json:"webhook,omitempty"`
	// TriggeredBy are those one of whom must let the gate pass by hand besides; absent: it passes by itself.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +optional
	TriggeredBy []ApproverRef `json:"triggeredBy,omitempty"`
}

// GateWebhook is a system that decides. The provider's connector asks it with a POST, signed by a self-issued ID token, until it answers a decision that
// it signed with its own key.
type GateWebhook struct {
	// +kubebuilder:validation:Pattern=`^https://.+`
	// +kubebuilder:validation:MaxLength=2000
	URL string `json:"url"`
	// System is its name, the iss of its decisions and the aud of the ID token.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`
	System string `json:"system"`
	// Organization that runs it.
	// +kubebuilder:validation:MinLength=1
	Organization string `json:"organization"`
	// PublicKey is a JWK, P-256 or Ed25519.
	// +kubebuilder:pruning:PreserveUnknownFields
	PublicKey apiextensionsv1.JSON `json:"publicKey"`
}

// ApproverRef names a person, or everybody with a role.
// +kubebuilder:validation:XValidation:rule="has(self.person) != has(self.role)",message="name either a person or a role"
// +kubebuilder:validation:XValidation:rule="!has(self.organization) || has(self.role)",message="organization goes with a role"
type ApproverRef struct {
	// Person is the user name at the identity provider.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Person string `json:"person,omitempty"`
	// +kubebuilder:validation:Enum=governance-authority;organization-admin;viewer;platform-operator
	// +optional
	Role string `json:"role,omitempty"`
	// Organization in which the person has the role; absent: in any.
	// +optional
	Organization string `json:"organization,omitempty"`
}

// UseCaseStatus is what was seen.
type UseCaseStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// PolicyHash identifies the contract policy.
	// +optional
	PolicyHash string `json:"policyHash,omitempty"`
	// Sentences say in plain words what the policy demands.
	// +optional
	Sentences []string `json:"sentences,omitempty"`
	// Revision is the newest one; it waits for a sign-off when InForce is another one or none.
	// +optional
	Revision *RevisionStatus `json:"revision,omitempty"`
	// InForce is the revision that offers are made under; absent: none, and nothing can be offered.
	// +optional
	InForce *RevisionStatus `json:"inForce,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RevisionStatus names a revision, who made it and who signed it off.
type RevisionStatus struct {
	Number int         `json:"number"`
	Hash   string      `json:"hash"`
	MadeBy string      `json:"madeBy,omitempty"`
	MadeAt metav1.Time `json:"madeAt"`
	// +optional
	SignedBy string `json:"signedBy,omitempty"`
	// +optional
	SignedAt *metav1.Time `json:"signedAt,omitempty"`
}

// UseCase is a purpose for which data is exchanged.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Profile",type=string,JSONPath=`.spec.profile`
// +kubebuilder:printcolumn:name="Title",type=string,JSONPath=`.spec.title`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Revision",type=integer,JSONPath=`.status.revision.number`
// +kubebuilder:printcolumn:name="In force",type=integer,JSONPath=`.status.inForce.number`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type UseCase struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              UseCaseSpec   `json:"spec"`
	Status            UseCaseStatus `json:"status,omitzero"`
}

// UseCaseList is a list.
//
// +kubebuilder:object:root=true
type UseCaseList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []UseCase `json:"items"`
}

// UseCaseRevisionSpec is what a use case demanded at some time. The Cloud operator makes one of each change; nothing of it changes but that a sign-off
// is added, once.
// +kubebuilder:validation:XValidation:rule="self.useCase == oldSelf.useCase && self.number == oldSelf.number && self.hash == oldSelf.hash && self.content == oldSelf.content && self.madeBy == oldSelf.madeBy && self.madeAt == oldSelf.madeAt",message="a revision does not change: change the use case, which makes another one"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.signOff) || has(self.signOff) && self.signOff == oldSelf.signOff",message="a sign-off does not change"
type UseCaseRevisionSpec struct {
	// +kubebuilder:validation:MaxLength=63
	UseCase string `json:"useCase"`
	// +kubebuilder:validation:Minimum=1
	Number int `json:"number"`
	// Hash is the SHA-256 (hex) of content.
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash"`
	// Content is JSON (connector/usecase.Content), to the byte.
	// +kubebuilder:validation:MaxLength=524288
	Content string `json:"content"`
	// MadeBy is who made the change, as the Cloud API knew; empty when it was made past it.
	// +kubebuilder:validation:MaxLength=253
	MadeBy string `json:"madeBy"`
	// MadeAt is when the change was seen.
	MadeAt metav1.Time `json:"madeAt"`
	// +optional
	SignOff *RevisionSignOff `json:"signOff,omitempty"`
}

// RevisionSignOff says who brought a revision into force, and when. What counts is what is signed.
type RevisionSignOff struct {
	// Signed is a JWS of connector/adminapi.SignOffClaims.
	// +kubebuilder:validation:MaxLength=8192
	Signed string `json:"signed"`
	// By is the name of the person who signed.
	// +kubebuilder:validation:MaxLength=253
	By string `json:"by"`
	// At is when it was signed.
	At metav1.Time `json:"at"`
	// Signers are the person who signed, and those who may sign the next revision.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Signers []RevisionSigner `json:"signers"`
}

// RevisionSigner is a person with public keys.
type RevisionSigner struct {
	// ID is the subject at the identity provider.
	// +kubebuilder:validation:MaxLength=253
	ID string `json:"id"`
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +kubebuilder:validation:MaxLength=253
	Organization string `json:"organization"`
	// Keys are JWKs.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=2048
	Keys []string `json:"keys"`
}

// UseCaseRevisionStatus is empty: how a revision stands is in the status of its use case.
type UseCaseRevisionStatus struct{}

// UseCaseRevision is a revision of a use case, which is called USECASE.NUMBER.
//
// +kubebuilder:object:root=true
// +kubebuilder:printcolumn:name="Use case",type=string,JSONPath=`.spec.useCase`
// +kubebuilder:printcolumn:name="Number",type=integer,JSONPath=`.spec.number`
// +kubebuilder:printcolumn:name="Made by",type=string,JSONPath=`.spec.madeBy`
// +kubebuilder:printcolumn:name="Signed by",type=string,JSONPath=`.spec.signOff.by`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type UseCaseRevision struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              UseCaseRevisionSpec   `json:"spec"`
	Status            UseCaseRevisionStatus `json:"status,omitzero"`
}

// UseCaseRevisionList is a list.
//
// +kubebuilder:object:root=true
type UseCaseRevisionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []UseCaseRevision `json:"items"`
}
