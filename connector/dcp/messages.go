// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/jsondepth"
)

// Context is the JSON-LD context of every DCP 1.0 message.
const Context = "https://w3id.org/dspace-dcp/v1.0/dcp.jsonld"

// Message types.
const (
	TypePresentationQuery    = "PresentationQueryMessage"
	TypePresentationResponse = "PresentationResponseMessage"
	TypeCredentialRequest    = "CredentialRequestMessage" // #nosec G101 -- the name of a message
	TypeCredentialMessage    = "CredentialMessage"        // #nosec G101 -- the name of a message
	TypeCredentialOffer      = "CredentialOfferMessage"   // #nosec G101 -- the name of a message
	TypeCredentialStatus     = "CredentialStatus"
	TypeIssuerMetadata       = "IssuerMetadata"
	TypeCredentialObject     = "CredentialObject" // #nosec G101 -- the name of a message
)

// Statuses of an issuance.
const (
	StatusReceived = "RECEIVED"
	StatusIssued   = "ISSUED"
	StatusRejected = "REJECTED"
)

// Head is the beginning of every message.
type Head struct {
	Context []string `json:"@context"`
	Type    string   `json:"type"`
}

// NewHead makes one.
func NewHead(messageType string) Head { return Head{Context: []string{Context}, Type: messageType} }

// PresentationQuery is DCP 1.0.1 "Presentation Query Message".
type PresentationQuery struct {
	Head
	Scope      []string        `json:"scope,omitempty"`
	Definition json.RawMessage `json:"presentationDefinition,omitempty"`
}

// PresentationResponse is DCP 1.0.1 "Presentation Response Message".
type PresentationResponse struct {
	Head
	Presentation []json.RawMessage `json:"presentation"`
}

// CredentialRequestMessage asks an issuer for credentials by the ids of its metadata.
type CredentialRequestMessage struct {
	Head
	HolderPID   string          `json:"holderPid"`
	Credentials []CredentialRef `json:"credentials"`
}

// CredentialRef names a credential object.
type CredentialRef struct {
	ID string `json:"id"`
}

// CredentialMessage delivers credentials to a holder, or says why not.
type CredentialMessage struct {
	Head
	IssuerPID       string                `json:"issuerPid"`
	HolderPID       string                `json:"holderPid,omitempty"`
	Status          string                `json:"status"`
	RejectionReason string                `json:"rejectionReason,omitempty"`
	Credentials     []CredentialContainer `json:"credentials,omitempty"`
}

// CredentialContainer is a delivered credential.
type CredentialContainer struct {
	CredentialType string `json:"credentialType"`
	Payload        string `json:"payload"`
	Format         string `json:"format"`
}

// CredentialOffer offers credentials to a holder.
type CredentialOffer struct {
	Head
	Issuer      string             `json:"issuer"`
	Credentials []CredentialObject `json:"credentials"`
}

// CredentialObject is a kind of credential that an issuer supports.
type CredentialObject struct {
	ID               string          `json:"id"`
	Type             string          `json:"type,omitempty"`
	CredentialType   string          `json:"credentialType,omitempty"`
	CredentialSchema string          `json:"credentialSchema,omitempty"`
	OfferReason      string          `json:"offerReason,omitempty"`
	BindingMethods   []string        `json:"bindingMethods,omitempty"`
	Profile          string          `json:"profile,omitempty"`
	Profiles         []string        `json:"profiles,omitempty"` // how test kit RC6 spells it in offers
	IssuancePolicy   json.RawMessage `json:"issuancePolicy,omitempty"`
}

// IssuerMetadata is what an issuer supports.
type IssuerMetadata struct {
	Head
	Issuer    string             `json:"issuer"`
	Supported []CredentialObject `json:"credentialsSupported"`
}

// CredentialStatusMessage is the state of a request.
type CredentialStatusMessage struct {
	Head
	IssuerPID string `json:"issuerPid"`
	HolderPID string `json:"holderPid"`
	Status    string `json:"status"`
}

// DecodeMessage reads a message of a type into a struct that embeds Head. The error names what is wrong, for the sender.
func DecodeMessage(raw []byte, messageType string, into any) error {
	if err := jsondepth.Check(raw); err != nil {
		return fmt.Errorf("the message: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return fmt.Errorf("the message is not a JSON object: %w", err)
	}
	members, err := compact(members)
	if err != nil {
		return err
	}
	var contexts []json.RawMessage
	if json.Unmarshal(members["@context"], &contexts) != nil || !slices.ContainsFunc(contexts, func(c json.RawMessage) bool { return string(c) == `"`+Context+`"` }) {
		return fmt.Errorf("@context is not an array that contains %s", Context)
	}
	var given string
	if json.Unmarshal(members["type"], &given) != nil || given != messageType {
		return fmt.Errorf("type is %s, not %s", excerpt(members["type"]), messageType)
	}
	// Contexts other than strings are allowed and not of interest.
	members["@context"] = json.RawMessage(`["` + Context + `"]`)
	clean, err := json.Marshal(members)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(clean, into); err != nil {
		return fmt.Errorf("%s: %w", messageType, err)
	}
	return nil
}

const namespace = "https://w3id.org/dspace-dcp/v1.0/"

// compact brings a message in expanded JSON-LD, as Eclipse IdentityHub 0.15 sends it to issuers, into the compact form that DCP asks for.
// In these messages every member has a single value, JSON literals included. A message with a context stays as it is.
func compact(members map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	if _, ok := members["@context"]; ok || members["@type"] == nil {
		return members, nil
	}
	out := map[string]json.RawMessage{"@context": json.RawMessage(`["` + Context + `"]`)}
	for name, raw := range members {
		items, err := oneOrMany(raw)
		if err != nil || len(items) != 1 {
			return nil, fmt.Errorf("%s has %d values: an expanded message has one for each member", name, len(items))
		}
		value := items[0]
		var node struct {
			ID    json.RawMessage `json:"@id"`
			Value json.RawMessage `json:"@value"`
		}
		if json.Unmarshal(value, &node) == nil {
			switch {
			case node.Value != nil:
				value = node.Value
			case node.ID != nil:
				value = node.ID
			}
		}
		name = strings.TrimPrefix(name, namespace)
		if name == "@type" {
			name, value = "type", bytes.Replace(value, []byte(namespace), nil, 1)
		}
		out[name] = value
	}
	return out, nil
}

// Scope is a parsed DCP scope: what a query asks for or an access token permits.
type Scope struct {
	ByID bool // the value is a credential's id, else a type
	What string
}

// scopeAliases are DCP 1.0.1's two and those that deployed connectors use.
var scopeAliases = map[string]bool{
	"org.eclipse.dspace.dcp.vc.type": false,
	"org.eclipse.dspace.dcp.vc.id":   true,
	"org.eclipse.edc.vc.type":        false,
	"org.eclipse.tractusx.vc.type":   false,
}

// ParseScope reads "<alias>:<type or id>" with an optional ":read".
func ParseScope(scope string) (Scope, error) {
	alias, rest, ok := strings.Cut(scope, ":")
	byID, known := scopeAliases[alias]
	if !ok || !known {
		return Scope{}, fmt.Errorf("scope %q: the alias must be org.eclipse.dspace.dcp.vc.type or org.eclipse.dspace.dcp.vc.id", scope)
	}
	for _, op := range []string{":read", ":*", ":all"} {
		rest = strings.TrimSuffix(rest, op)
	}
	if rest == "" || strings.ContainsAny(rest, " \t\r\n") || (!byID && strings.Contains(rest, ":")) {
		return Scope{}, fmt.Errorf("scope %q: after the alias comes one credential type or id, and perhaps :read", scope)
	}
	return Scope{ByID: byID, What: rest}, nil
}

// ErrNotSupported is wrapped by PresentationQuery.Check for a presentation definition (501 by DCP 1.0.1).
var ErrNotSupported = errors.New("presentation definitions are not supported: query by scope")

// Check validates a query and parses its scopes.
func (q PresentationQuery) Check() ([]Scope, error) {
	var definition any
	if q.Definition != nil {
		if err := json.Unmarshal(q.Definition, &definition); err != nil {
			return nil, fmt.Errorf("presentationDefinition: %w", err)
		}
	}
	members, _ := definition.(map[string]any)
	switch {
	case q.Definition != nil && len(q.Scope) > 0:
		return nil, errors.New("a query has either scope or presentationDefinition, not both")
	case q.Definition != nil && len(members) == 0:
		return nil, errors.New("presentationDefinition is empty or not an object")
	case q.Definition != nil:
		return nil, ErrNotSupported
	case len(q.Scope) == 0:
		return nil, errors.New("scope is missing or empty")
	case len(q.Scope) > maxCredentials:
		return nil, fmt.Errorf("scope has %d entries: at most %d are read", len(q.Scope), maxCredentials)
	}
	scopes := make([]Scope, len(q.Scope))
	for i, s := range q.Scope {
		var err error
		if scopes[i], err = ParseScope(s); err != nil {
			return nil, err
		}
	}
	return scopes, nil
}
