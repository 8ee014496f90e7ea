// SPDX-License-Identifier: Apache-2.0

// Package dcp speaks the Decentralized Claims Protocol 1.0: did:web, self-issued ID tokens, presentations, and the verification of
// credentials in both profiles (vc11-sl2021/jwt and vc20-bssl/jwt). Service implements identity.Service with it. The wallet and the issuer
// use its parts; what they keep and serve lives in connector/wallet and connector/issuer.
package dcp

import (
	"errors"
	"fmt"
	"time"
)

// Settings are the choices an operator has. The zero value follows DCP 1.0.1.
type Settings struct {
	// ClockSkew is how far the clocks of two parties may differ; default 5 s, at most 30 s.
	ClockSkew time.Duration
	// KeyRelationships says when a key must be listed in the relationship that its use asks for: capabilityInvocation for tokens,
	// authentication for presentations, assertionMethod for credentials (that one only where the document declares any).
	KeyRelationships KeyRelationships
	// ScopeEscalation says what a wallet answers to a query for more than its access token covers.
	ScopeEscalation ScopeEscalation
	// DeliveryFormat is how an issuer names a credential's format when it delivers. Both are accepted on receipt.
	DeliveryFormat DeliveryFormat
	// SingleStatus makes an issuer put one status entry (revocation) into a credential instead of a list of two, for readers that take no
	// list: test kit RC6. A credential that is suspended then reads as revoked until it is resumed.
	SingleStatus bool
	// StatusCache is how long a status list is believed before it is fetched again; default 10 s, negative = not at all.
	StatusCache time.Duration
	// DocumentCache is how long a DID document is believed; default 1 min, negative = not at all. A key that it does not have makes it
	// fetched again before that.
	DocumentCache time.Duration
}

// KeyRelationships is a setting.
type KeyRelationships string

// KeyRelationships values.
const (
	RelationshipsAlways       KeyRelationships = ""             // DCP 1.0.1 "Validating Self-Issued ID Tokens" 3
	RelationshipsWhenDeclared KeyRelationships = "WhenDeclared" // a document that declares none at all passes: Eclipse IdentityHub 0.15, test kit RC6
)

// ScopeEscalation is a setting.
type ScopeEscalation string

// ScopeEscalation values.
const (
	EscalationReduced ScopeEscalation = ""        // 2xx with the permitted credentials only (DCP 1.0.1 "Scopes")
	EscalationRefused ScopeEscalation = "Refused" // 4xx: test kit RC6
)

// DeliveryFormat is a setting.
type DeliveryFormat string

// DeliveryFormat values.
const (
	FormatProfile DeliveryFormat = ""       // the profile's alias, "vc11-sl2021/jwt"
	FormatLegacy  DeliveryFormat = "Legacy" // "VC1_0_JWT", "VC2_0_JOSE": test kit RC6, Eclipse IdentityHub
)

// Validate refuses values that mean nothing, by name.
func (s Settings) Validate() error {
	var errs []error
	if s.ClockSkew < 0 || s.ClockSkew > 30*time.Second {
		errs = append(errs, fmt.Errorf("clock skew %s: use 0 to 30s", s.ClockSkew))
	}
	if s.KeyRelationships != RelationshipsAlways && s.KeyRelationships != RelationshipsWhenDeclared {
		errs = append(errs, fmt.Errorf("key relationships %q: leave empty or use %s", s.KeyRelationships, RelationshipsWhenDeclared))
	}
	if s.ScopeEscalation != EscalationReduced && s.ScopeEscalation != EscalationRefused {
		errs = append(errs, fmt.Errorf("scope escalation %q: leave empty or use %s", s.ScopeEscalation, EscalationRefused))
	}
	if s.DeliveryFormat != FormatProfile && s.DeliveryFormat != FormatLegacy {
		errs = append(errs, fmt.Errorf("delivery format %q: leave empty or use %s", s.DeliveryFormat, FormatLegacy))
	}
	return errors.Join(errs...)
}

func (s Settings) withDefaults() Settings {
	if s.ClockSkew == 0 {
		s.ClockSkew = 5 * time.Second
	}
	if s.StatusCache == 0 {
		s.StatusCache = 10 * time.Second
	}
	if s.DocumentCache == 0 {
		s.DocumentCache = time.Minute
	}
	return s
}
