// SPDX-License-Identifier: Apache-2.0

// Package profile holds the dataspace profile as a connector sees it: whom it trusts, which credentials a participant
// must hold, and the vocabulary of policy operands. It holds data and its validation only; evaluation lives in connector/odrl.
//
// +kubebuilder:object:generate=true
package profile

// Subject says whose credential an operand reads.
type Subject string

// The two parties of a negotiation.
const (
	SubjectProvider Subject = "provider"
	SubjectConsumer Subject = "consumer"
)

// Phase is a point at which a policy is evaluated.
type Phase string

// Phases in the order in which an exchange passes them.
const (
	PhaseCatalog     Phase = "catalog"
	PhaseNegotiation Phase = "negotiation"
	PhaseTransfer    Phase = "transfer"
	PhaseAccess      Phase = "access" // each data access
)

// ValueType is the type of what an operand's expression yields, and so what its right operand must be.
type ValueType string

// Value types. An age is a timestamp seen, compared by calendar with an ISO 8601 duration on the right:
// "lt P12M" holds if and only if seen + 12 months is after now.
const (
	ValueString    ValueType = "string"
	ValueNumber    ValueType = "number"
	ValueTimestamp ValueType = "timestamp"
	ValueAge       ValueType = "age"
	ValueStrings   ValueType = "strings"
	ValueBool      ValueType = "bool"
)

// Profile is one dataspace profile. The JSON form is the one of the custom resources.
type Profile struct {
	// Name identifies the profile within a connector.
	Name string `json:"name"`
	// Protocol is the DSP version string, "dataspace-protocol-http:2025-1".
	Protocol string `json:"protocol"`
	// TrustedIssuers are the trust anchors. A credential of a type counts only from an issuer listed for it.
	TrustedIssuers []TrustedIssuer `json:"trustedIssuers"`
	// RequiredCredentials are the credential types that both parties of any message must present.
	RequiredCredentials []string `json:"requiredCredentials,omitempty"`
	// Operands is the vocabulary of left operands.
	Operands []Operand `json:"operands,omitempty"`
	// Duties are what a policy may oblige to without a constraint: the connectors fulfil them themselves.
	Duties []Duty `json:"duties,omitempty"`
}

// TrustedIssuer is an issuer and the credential types it is trusted for.
type TrustedIssuer struct {
	DID   string   `json:"did"`
	Types []string `json:"types"`
}

// Operand declares one ODRL left operand.
//
// Expression is CEL and yields the value seen. Variables: credential (the newest verified credential of type Credential
// held by the subject: {id, type, issuer, subject, validFrom, validUntil}; absent credential denies before CEL runs),
// credentials (all verified ones of the subject), party ({id}), agreement ({id, assetId, createdAt} or empty),
// request ({purpose} when one is stated; in the phase access also {method, path}) and now (timestamp).
type Operand struct {
	// Name is the full IRI of the left operand.
	Name string `json:"name"`
	// Aliases are further spellings (compact terms, older IRIs) that mean the same operand.
	Aliases []string `json:"aliases,omitempty"`
	Subject Subject  `json:"subject"`
	// Credential is the credential type needed (DCP scope org.eclipse.dspace.dcp.vc.type:<Credential>:read); empty when none.
	Credential string    `json:"credential,omitempty"`
	Expression string    `json:"expression"`
	ValueType  ValueType `json:"valueType"`
	Operators  []string  `json:"operators"`
	Phases     []Phase   `json:"phases"`
	// Purpose marks an operand whose right operands name purposes of use. Who asks for an offer states the purposes that stand in it, and is judged
	// for each: request.purpose. The agreement and the token of every transfer under it are for those that the policy allows.
	Purpose  bool        `json:"purpose,omitempty"`
	Sentence Translation `json:"sentence"`
	// Remedy tells a person what to do when the constraint fails.
	Remedy Translation `json:"remedy,omitzero"`
}

// Fulfilment says how a connector fulfils a duty.
type Fulfilment string

// FulfilRecordAccess records every access to the data before its first byte and after its last; what can't be recorded is refused.
const FulfilRecordAccess Fulfilment = "record-access"

// Duty declares one ODRL action that a duty may have without a constraint.
type Duty struct {
	// Name is the full IRI of the action.
	Name string `json:"name"`
	// Aliases are further spellings of it.
	Aliases    []string    `json:"aliases,omitempty"`
	Fulfilment Fulfilment  `json:"fulfilment"`
	Sentence   Translation `json:"sentence"`
}

// Translation is a sentence for people. "{right}" stands for the right operand and "{value}" for the value seen.
type Translation struct {
	EN string `json:"en,omitempty"`
	DE string `json:"de,omitempty"`
}
