// SPDX-License-Identifier: Apache-2.0

// Package identity fixes what the protocol side of a connector needs to know of a counterparty, without saying how it is proven:
// connector/dcp proves it by the Decentralized Claims Protocol, a test binary may prove it otherwise.
package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// Credential is a verified credential: signature, trusted issuer, dates, status and holder binding have been checked.
type Credential struct {
	ID         string
	Type       string
	Issuer     string // DID
	Subject    map[string]any
	ValidFrom  time.Time
	ValidUntil time.Time // zero when it does not expire
	Raw        string    // as it was signed, for Recheck
}

// Refusal is a credential that was presented and does not count, with the reason for people.
type Refusal struct {
	ID, Type, Issuer string
	Code             string // expired, not-yet-valid, revoked, suspended, wrong-issuer, bad-signature, holder-mismatch, schema, status-unavailable, unreachable
	Reason           string
}

// CodeStatusUnavailable is of a credential whose status list does not say now, or never will, whether it is revoked.
const CodeStatusUnavailable = "status-unavailable"

// CodeUnreachable is of a credential whose issuer's keys or status list are not reached now.
const CodeUnreachable = "unreachable"

// Unreachable returns the credential of a type that the agent presented and of which it cannot be found out now whether it counts; nil when there is
// none. It does not count as long as that lasts, and nothing should end over it.
func (a *Agent) Unreachable(credentialType string) *Refusal {
	i := slices.IndexFunc(a.Refused, func(r Refusal) bool {
		return r.Code == CodeUnreachable && slices.Contains(strings.Split(r.Type, ", "), credentialType)
	})
	if i < 0 {
		return nil
	}
	return &a.Refused[i]
}

// Agent is a party whose identity has been proven.
type Agent struct {
	ID          string // DID
	Credentials []Credential
	Refused     []Refusal
}

// Local is the participant on whose behalf something is done.
type Local struct {
	Context string // participant context id
	DID     string
	Profile string // name; trust anchors come from it
}

// ErrUnauthenticated is wrapped by every refusal of Verify: the token is missing, malformed, replayed, not for us or not theirs.
var ErrUnauthenticated = errors.New("unauthenticated")

// Unauthenticated makes an error that wraps ErrUnauthenticated.
func Unauthenticated(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnauthenticated, fmt.Sprintf(format, args...))
}

// Service proves identities in both directions.
type Service interface {
	// Token returns the Authorization header value for a message from local to audience (a DID), which lets the receiver query
	// the credentials named by scopes ("org.eclipse.dspace.dcp.vc.type:MembershipCredential:read").
	Token(ctx context.Context, local Local, audience string, scopes []string) (string, error)
	// Verify checks the Authorization header of a message that local received and queries the sender's credentials for scopes.
	// Credentials that do not count are in Refused, never an error by themselves; the error wraps ErrUnauthenticated or is temporary.
	Verify(ctx context.Context, local Local, authorization string, scopes []string) (Agent, error)
	// Self returns local's own credentials for scopes, verified as a counterparty would verify them.
	Self(ctx context.Context, local Local, scopes []string) (Agent, error)
	// Recheck verifies credentials that holder presented before, as Verify did then: signature, dates and status as they are now.
	Recheck(ctx context.Context, local Local, holder string, raw []string) (Agent, error)
	// SignHead signs what local says of its audit chain to audience (a DID); VerifyHead verifies what from said to local.
	SignHead(ctx context.Context, local Local, audience string, s adminapi.HeadStatement) (string, error)
	VerifyHead(ctx context.Context, local Local, from, signed string) (adminapi.HeadStatement, error)
	// Endpoint resolves a service endpoint (such as "DataService") from a DID document.
	Endpoint(ctx context.Context, did, serviceType string) (string, error)
}

// TypeScope returns the DCP scope for a credential type (DCP 1.0 §5.4.1.2).
func TypeScope(credentialType string) string {
	return "org.eclipse.dspace.dcp.vc.type:" + credentialType + ":read"
}

// Claimed returns who an Authorization header says its sender is (the iss of a JWT), without any proof; empty when it does not say.
func Claimed(authorization string) string {
	parts := strings.Split(authorization, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Iss string `json:"iss"`
	}
	_ = json.Unmarshal(raw, &claims) // then it says nothing
	return claims.Iss
}
