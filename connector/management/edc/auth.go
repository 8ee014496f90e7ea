// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Claims are what a bearer token says: for which participant context, and what its bearer may do there.
type Claims struct {
	Subject string
	Scopes  []string
}

// Tokens verifies bearer tokens.
type Tokens interface {
	Verify(ctx context.Context, raw string) (Claims, error)
}

const scopePrefix = "management-api:"

// caller is who makes a request.
type caller struct {
	name    string // for the audit trail
	admin   bool   // of every participant context
	context string
	scopes  []string
}

// authenticate finds out who makes a request: by X-Api-Key or by bearer token.
func (a *api) authenticate(r *http.Request) (caller, error) {
	refused := func(message string) (caller, error) {
		return caller{}, &apiError{Status: http.StatusUnauthorized, Type: typeUnauthenticated, Message: message}
	}
	if key := r.Header.Get("X-Api-Key"); key != "" {
		// Digests: neither content nor length of the key shows in the time that this takes.
		got, want := sha256.Sum256([]byte(key)), sha256.Sum256([]byte(a.Key))
		if a.Key == "" || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return refused("the API key is wrong")
		}
		return caller{name: "client:api-key", admin: true}, nil
	}
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok || raw == "":
		return refused("send the API key as X-Api-Key, or a bearer token as Authorization")
	case a.Tokens == nil:
		return refused("bearer tokens are not accepted here: management.oauth2 is not configured")
	}
	claims, err := a.Tokens.Verify(r.Context(), raw)
	if err != nil {
		a.Log.InfoContext(r.Context(), "a bearer token was refused", "error", err)
		return refused("the bearer token is not valid: it must be current, signed by the configured issuer, and made for this API's audience")
	}
	return caller{name: "client:" + claims.Subject, admin: slices.Contains(claims.Scopes, scopePrefix+"admin"), context: claims.Subject, scopes: claims.Scopes}, nil
}

// may says whether the caller may use a route in a participant context: an admin in all of them, anybody else in the own one and with a
// scope for the route. Write includes read; a scope for one area of the API says nothing about another.
func (c caller) may(participant string, rt *route) error {
	if c.admin {
		return nil
	}
	needed := rt.scopes()
	switch {
	case c.context != participant:
		return &apiError{Status: http.StatusForbidden, Type: typeForbidden, Message: fmt.Sprintf("the token is for participant context %q, not for %q", c.context, participant)}
	case slices.ContainsFunc(needed, func(s string) bool { return slices.Contains(c.scopes, s) }):
		return nil
	}
	return &apiError{Status: http.StatusForbidden, Type: typeForbidden, Message: "the token has none of the scopes " + strings.Join(needed, ", ")}
}

// scopes lists those that open the route, the narrowest first.
func (rt *route) scopes() []string {
	area := scopePrefix + rt.area + ":"
	if rt.write {
		return []string{area + "write", scopePrefix + "write", scopePrefix + "admin"}
	}
	return []string{area + "read", area + "write", scopePrefix + "read", scopePrefix + "write", scopePrefix + "admin"}
}

// OIDC verifies access tokens (RFC 9068 in content: iss, sub, aud, exp, scope) by the keys that their issuer publishes.
type OIDC struct{ verifier *oidc.IDTokenVerifier }

// NewOIDC makes a verifier of tokens that issuer made for audience. Keys are fetched from jwksURL with client when they are needed, until
// ctx ends.
func NewOIDC(ctx context.Context, issuer, audience, jwksURL string, client *http.Client, now func() time.Time) *OIDC {
	keys := oidc.NewRemoteKeySet(oidc.ClientContext(ctx, client), jwksURL)
	return &OIDC{oidc.NewVerifier(issuer, keys, &oidc.Config{ClientID: audience, Now: now,
		SupportedSigningAlgs: []string{oidc.RS256, oidc.PS256, oidc.ES256, oidc.ES384, oidc.EdDSA}})}
}

// Verify checks signature, issuer, audience and times.
func (o *OIDC) Verify(ctx context.Context, raw string) (Claims, error) {
	token, err := o.verifier.Verify(ctx, raw)
	if err != nil {
		return Claims{}, err
	}
	var c struct {
		Scope string `json:"scope"`
	}
	if err := token.Claims(&c); err != nil {
		return Claims{}, err
	}
	return Claims{Subject: token.Subject, Scopes: strings.Fields(c.Scope)}, nil
}
