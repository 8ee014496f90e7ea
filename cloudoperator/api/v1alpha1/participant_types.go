// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

import (
	"cmp"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// OrganizationSpec is a company.
type OrganizationSpec struct {
	// +kubebuilder:validation:MinLength=1
	DisplayName string `json:"displayName"`
	// +optional
	ContactEmail string `json:"contactEmail,omitempty"`
}

// OrganizationStatus is what was seen.
type OrganizationStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Organization is a company; it owns participants.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Name",type=string,JSONPath=`.spec.displayName`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Organization struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              OrganizationSpec   `json:"spec"`
	Status            OrganizationStatus `json:"status,omitzero"`
}

// OrganizationList is a list.
//
// +kubebuilder:object:root=true
type OrganizationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Organization `json:"items"`
}

// ApprovalKeySpec is a public key with which a person signs decisions, and who that was when it was registered. The Cloud API writes all of it
// but the key from the person's access token; organization and roles follow the person's.
// +kubebuilder:validation:XValidation:rule="self.subject == oldSelf.subject && self.person == oldSelf.person && self.thumbprint == oldSelf.thumbprint && self.publicKey == oldSelf.publicKey",message="a key does not change; register another one"
type ApprovalKeySpec struct {
	// Subject of the person at the identity provider.
	// +kubebuilder:validation:MinLength=1
	Subject string `json:"subject"`
	// Person is the user name.
	Person string `json:"person"`
	// Name as people know it.
	Name string `json:"name"`
	// +optional
	Organization string `json:"organization,omitempty"`
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Roles []string `json:"roles,omitempty"`
	// Thumbprint of the key (RFC 7638, SHA-256).
	Thumbprint string `json:"thumbprint"`
	// PublicKey is a JWK, P-256 or Ed25519.
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	PublicKey apiextensionsv1.JSON `json:"publicKey"`
}

// ApprovalKeyStatus is empty: nothing acts on a key.
type ApprovalKeyStatus struct{}

// ApprovalKey is a person's public key for decisions at gates.
//
// +kubebuilder:object:root=true
// +kubebuilder:printcolumn:name="Person",type=string,JSONPath=`.spec.person`
// +kubebuilder:printcolumn:name="Organization",type=string,JSONPath=`.spec.organization`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ApprovalKey struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ApprovalKeySpec   `json:"spec"`
	Status            ApprovalKeyStatus `json:"status,omitzero"`
}

// ApprovalKeyList is a list.
//
// +kubebuilder:object:root=true
type ApprovalKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApprovalKey `json:"items"`
}

// ParticipantSpec is the same everywhere: organization, identity, cell.
// +kubebuilder:validation:XValidation:rule="!has(self.furtherProfiles) || !(self.profile in self.furtherProfiles)",message="furtherProfiles has the default profile: leave it out there"
type ParticipantSpec struct {
	// Organization that owns it.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="organization cannot change; create a new participant"
	Organization string   `json:"organization"`
	Identity     Identity `json:"identity"`
	// Cell in which its connector runs. Another one of type shared or dedicated moves the participant there, with its DID, its keys, what it agreed on
	// and its audit trail; status.move and the condition Moving say how far that is.
	Cell string `json:"cell"`
	// Profile of the dataspace it takes part in: the default one, whose protocol address is status.protocolURL. What was agreed in a profile can
	// be used only as long as the participant takes part in it, at the same address.
	// +kubebuilder:validation:MaxLength=253
	Profile string `json:"profile"`
	// FurtherProfiles are those of other dataspaces that it takes part in besides, each at an address of its own.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	FurtherProfiles []string `json:"furtherProfiles,omitempty"`
	// OperatingParty runs the connector on its behalf; empty means the cell's.
	// +optional
	OperatingParty string `json:"operatingParty,omitempty"`
	// Credentials that the profiles' issuers grant, with the facts they vouch for. Only the governance authority may change them.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=type
	// +optional
	Credentials []edc.HolderCredential `json:"credentials,omitempty"`
	// Key that signs for its DID.
	// +optional
	Key edc.Key `json:"key,omitzero"`
	// SelfCheck Off makes it offer without checking its own obligations, as other connectors do; counterparties check all the same.
	// +kubebuilder:validation:Enum=Enforce;Off
	// +kubebuilder:default=Enforce
	// +optional
	SelfCheck string `json:"selfCheck,omitempty"`
}

// Profiles names all profiles that it takes part in, the default one first.
func (s *ParticipantSpec) Profiles() []string {
	return append([]string{s.Profile}, s.FurtherProfiles...)
}

// Identity is a participant's identity; its DID is did:web:<hostname>:<context>.
type Identity struct {
	// Hostname in the DID; empty is that of the cell in which the participant is made. It is for one that had moved and is made anew from a backup, whose
	// status is lost: its former status.hostname. Only who runs the platform may name one.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="context cannot change: the DID contains it"
	Context string `json:"context"`
	// +kubebuilder:validation:Pattern=`^BPNL[0-9A-Z]{12}$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="businessPartnerNumber cannot change: credentials vouch for it; create a new participant"
	BusinessPartnerNumber string `json:"businessPartnerNumber"`
}

// ParticipantStatus is what was seen.
type ParticipantStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	DID string `json:"did,omitempty"`
	// Hostname in its DID and its addresses: that of the cell in which it was made, and the same ever after.
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// Cell in which it runs: spec.cell, or the one that it has yet to leave.
	// +optional
	Cell string `json:"cell,omitempty"`
	// Move under way; absent when there is none.
	// +optional
	Move *ParticipantMove `json:"move,omitempty"`
	// +optional
	ProtocolURL string `json:"protocolURL,omitempty"`
	// Checks are the profiles' onboarding checks.
	// +listType=map
	// +listMapKey=name
	// +optional
	Checks []OnboardingCheck `json:"checks,omitempty"`
	// +optional
	Credentials []edc.CredentialStatus `json:"credentials,omitempty"`
	// +optional
	Contracts *edc.ContractStatus `json:"contracts,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Phases of a move, in their order. Status.cell is from until the participant has left it, and to afterwards.
const (
	MoveStopping     = "Stopping"     // it is being made inactive in from
	MoveTransferring = "Transferring" // it is held in from, and what is kept of it is being brought into to
	MoveReleasing    = "Releasing"    // in place of all that follows, when the move is given up: from is to go on with it
	MoveLeaving      = "Leaving"      // it is being taken out of from; it runs nowhere
	MoveArriving     = "Arriving"     // it is being set up in to, inactive
	MoveActivating   = "Activating"   // to is to make it active
)

// ParticipantMove is a move from one cell to another.
type ParticipantMove struct {
	From string `json:"from"`
	To   string `json:"to"`
	// +kubebuilder:validation:Enum=Stopping;Transferring;Releasing;Leaving;Arriving;Activating
	Phase string `json:"phase"`
	// Since is when the phase began.
	Since metav1.Time `json:"since"`
	// Key is spec.key when the move began: until it has ended the key is not replaced.
	// +optional
	Key edc.Key `json:"key,omitzero"`
	// KeyID is the verification method with which it signed in from, and must in to.
	// +optional
	KeyID string `json:"keyID,omitempty"`
}

// OnboardingCheck is one check with its result.
type OnboardingCheck struct {
	Name string `json:"name"`
	// +kubebuilder:validation:Enum=Passed;Failed;Pending
	State string `json:"state"`
	// +optional
	Reason    string      `json:"reason,omitempty"`
	CheckedAt metav1.Time `json:"checkedAt"`
	// PassedAt is when it passed for the first time; a participant is onboarded once every check has.
	// +optional
	PassedAt *metav1.Time `json:"passedAt,omitempty"`
}

// Participant is a legal entity in a dataspace with its own connector identity.
//
// +kubebuilder:validation:XValidation:rule="!has(self.spec.identity.hostname) || !has(self.status) || !has(self.status.hostname) || self.spec.identity.hostname == self.status.hostname",message="identity.hostname must be as status.hostname, or left out: the DID contains it"
// +kubebuilder:validation:XValidation:rule="self.spec.cell == oldSelf.spec.cell || !has(oldSelf.status) || !has(oldSelf.status.did) || has(oldSelf.status.cell)",message="cell cannot change yet: the operator has not noted in status.cell where the participant runs; try again in a moment"
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Organization",type=string,JSONPath=`.spec.organization`
// +kubebuilder:printcolumn:name="Cell",type=string,JSONPath=`.spec.cell`
// +kubebuilder:printcolumn:name="Moving",type=string,JSONPath=`.status.move.phase`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.conditions[?(@.type=="Active")].status`
// +kubebuilder:printcolumn:name="DID",type=string,JSONPath=`.status.did`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Participant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ParticipantSpec   `json:"spec"`
	Status            ParticipantStatus `json:"status,omitzero"`
}

// Phase is that of its move, empty when it is not moved.
func (p *Participant) Phase() string { return cmp.Or(p.Status.Move, &ParticipantMove{}).Phase }

// RunsIn is the cell in which it runs, which in a move is another than spec.cell.
func (p *Participant) RunsIn() string { return cmp.Or(p.Status.Cell, p.Spec.Cell) }

// Between says that something of it may be in two cells, or in one that does not run it yet.
func (p *Participant) Between() bool {
	return slices.Contains([]string{MoveTransferring, MoveReleasing, MoveLeaving, MoveArriving}, p.Phase())
}

// Cells names every cell that has to do with it, the one in which it runs first: where it is, where it is to be, and both ends of a move.
func (p *Participant) Cells() []string {
	out := []string{p.RunsIn()}
	all := []string{p.Spec.Cell}
	if m := p.Status.Move; m != nil {
		all = append(all, m.From, m.To)
	}
	for _, c := range all {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// ParticipantList is a list.
//
// +kubebuilder:object:root=true
type ParticipantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Participant `json:"items"`
}
