// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
)

// TokenLifetime is how long the tokens that a wallet makes are valid.
const TokenLifetime = 5 * time.Minute

// maxTokenLifetime bounds how long a jti must be remembered.
const maxTokenLifetime = 24 * time.Hour

// Claims are those of a self-issued ID token (DCP 1.0.1 "Self-Issued ID Tokens") or of an access token of ours.
type Claims struct {
	Issuer    string      `json:"iss"`
	Subject   string      `json:"sub"`
	Audience  audience    `json:"aud"`
	ID        string      `json:"jti"`
	IssuedAt  numericDate `json:"iat"`
	NotBefore numericDate `json:"nbf,omitzero"`
	Expires   numericDate `json:"exp"`
	// Token is the access token that the receiver sends back when it queries credentials or delivers them.
	Token string `json:"token,omitempty"`
	// Scope of an access token: scopes with spaces between them.
	Scope string `json:"scope,omitempty"`
}

// NewIDToken makes a self-issued ID token of did for audience; accessToken may be empty.
func NewIDToken(key SigningKey, did, audienceDID, accessToken string, now time.Time) (string, time.Time, error) {
	expires := now.Add(TokenLifetime)
	raw, err := key.Sign(Claims{
		Issuer: did, Subject: did, Audience: audience{audienceDID}, ID: uuid.NewString(),
		IssuedAt: numericDate{now}, NotBefore: numericDate{now}, Expires: numericDate{expires}, Token: accessToken,
	}, typJWT)
	return raw, expires, err
}

// NewAccessToken makes the token with which verifier may query did's credentials for scopes.
func NewAccessToken(key SigningKey, did, verifier string, scopes []string, now time.Time) (string, error) {
	return key.Sign(Claims{
		Issuer: did, Subject: verifier, Audience: audience{did}, ID: uuid.NewString(),
		IssuedAt: numericDate{now}, Expires: numericDate{now.Add(TokenLifetime)}, Scope: strings.Join(scopes, " "),
	}, typAccess)
}

// headClaims are those of what a participant says of its audit chain.
type headClaims struct {
	Issuer   string      `json:"iss"`
	Audience audience    `json:"aud"`
	IssuedAt numericDate `json:"iat"`
	adminapi.HeadStatement
}

// NewHeadStatement signs what did says of its audit chain to audience.
func NewHeadStatement(key SigningKey, did, audienceDID string, s adminapi.HeadStatement, now time.Time) (string, error) {
	return key.Sign(headClaims{did, audience{audienceDID}, numericDate{now}, s}, typHead)
}

// HeadStatement verifies what issuer says of its audit chain to audienceDID. It does not expire: it is evidence, and opens nothing.
func (v *Verifier) HeadStatement(ctx context.Context, raw, issuer, audienceDID string) (adminapi.HeadStatement, error) {
	t, err := parseToken(raw)
	if err != nil {
		return adminapi.HeadStatement{}, err
	}
	var c headClaims
	if err := json.Unmarshal(t.payload, &c); err != nil {
		return adminapi.HeadStatement{}, errors.New("its claims are not those of a head")
	}
	if t.typ != typHead || c.Issuer != issuer || !c.Audience.only(audienceDID) {
		return adminapi.HeadStatement{}, fmt.Errorf("it is of type %q, by %q and for %q, not a head by %q for %q", t.typ, c.Issuer, strings.Join(c.Audience, ", "), issuer, audienceDID)
	}
	return c.HeadStatement, v.verifyToken(ctx, t, issuer, AssertionMethod)
}

// Replay remembers the tokens that were used.
type Replay interface {
	// Use records a token of issuer until it ends anyway, and says whether it had not been used before. It must hold across replicas.
	Use(ctx context.Context, issuer, id string, until time.Time) (bool, error)
}

// IDToken validates an Authorization header that holds a self-issued ID token for audience. Every refusal wraps
// identity.ErrUnauthenticated; another error is temporary.
func (v *Verifier) IDToken(ctx context.Context, authorization, audienceDID string, replay Replay) (Claims, error) {
	raw, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok || raw == "" {
		return Claims{}, identity.Unauthenticated("the Authorization header is not \"Bearer\" and a token")
	}
	t, err := parseToken(strings.TrimSpace(raw))
	if err != nil {
		return Claims{}, identity.Unauthenticated("the ID token: %v", err)
	}
	var all struct {
		Claims
		VC json.RawMessage `json:"vc"`
		VP json.RawMessage `json:"vp"`
	}
	if err := json.Unmarshal(t.payload, &all); err != nil {
		return Claims{}, identity.Unauthenticated("the ID token's claims: %v", err)
	}
	c := all.Claims
	if all.VC != nil || all.VP != nil || (t.typ != "" && t.typ != "jwt") {
		return Claims{}, identity.Unauthenticated("the ID token of %q: it is a credential, a presentation or an access token (typ %q)", c.Issuer, t.typ)
	}
	if err := v.checkIDClaims(c, audienceDID); err != nil {
		return Claims{}, identity.Unauthenticated("the ID token of %q: %v", c.Issuer, err)
	}
	if err := v.verifyToken(ctx, t, c.Issuer, CapabilityInvocation); err != nil {
		return Claims{}, refusal(err, "the ID token of %q", c.Issuer)
	}
	// Last, so that only the issuer itself can use up a jti.
	fresh, err := replay.Use(ctx, c.Issuer, c.ID, c.Expires.Add(v.settings.ClockSkew))
	if err != nil {
		return Claims{}, fmt.Errorf("remember the ID token of %s: %w", c.Issuer, err)
	}
	if !fresh {
		return Claims{}, identity.Unauthenticated("the ID token of %q: its jti %q was used before", c.Issuer, c.ID)
	}
	return c, nil
}

func (v *Verifier) checkIDClaims(c Claims, audienceDID string) error {
	now := v.now()
	switch {
	case c.Issuer == "" || c.Issuer != c.Subject:
		return fmt.Errorf("iss is %q and sub %q: both must be the sender's DID", c.Issuer, c.Subject)
	case !c.Audience.only(audienceDID):
		return fmt.Errorf("aud is %q, not %q", strings.Join(c.Audience, ", "), audienceDID)
	case c.ID == "" || len(c.ID) > 1024:
		return errors.New("jti is missing or longer than 1024 bytes")
	case c.IssuedAt.IsZero():
		return errors.New("iat is missing")
	case c.Expires.IsZero():
		return errors.New("exp is missing")
	}
	if err := v.checkTimes(now, c.NotBefore.Time, c.IssuedAt.Time, c.Expires.Time); err != nil {
		return err
	}
	if c.Expires.Sub(now) > maxTokenLifetime {
		return fmt.Errorf("exp is %s: tokens may live %s", stamp(c.Expires.Time), maxTokenLifetime)
	}
	_, err := WebURL(c.Issuer, false)
	return err
}

// checkTimes allows for clocks that differ; zero times are not checked.
func (v *Verifier) checkTimes(now, notBefore, issuedAt, expires time.Time) error {
	skew := v.settings.ClockSkew
	switch {
	case notBefore.After(now.Add(skew)):
		return fmt.Errorf("nbf is %s and it is %s now", stamp(notBefore), stamp(now))
	case issuedAt.After(now.Add(skew)):
		return fmt.Errorf("iat is %s and it is %s now", stamp(issuedAt), stamp(now))
	case !expires.IsZero() && !expires.Add(skew).After(now):
		return fmt.Errorf("exp is %s and it is %s now", stamp(expires), stamp(now))
	}
	return nil
}

// AccessToken validates an access token of did's own, presented by verifier, with did's own public keys, and returns its scopes.
// A refusal wraps identity.ErrUnauthenticated.
func (v *Verifier) AccessToken(raw, did, verifier string, own *Document) ([]string, error) {
	if raw == "" {
		return nil, identity.Unauthenticated("the ID token of %q holds no access token (claim \"token\")", verifier)
	}
	t, err := parseToken(raw)
	if err != nil {
		return nil, identity.Unauthenticated("the access token: %v", err)
	}
	var c Claims
	if err := json.Unmarshal(t.payload, &c); err != nil {
		return nil, identity.Unauthenticated("the access token's claims: %v", err)
	}
	key, err := own.Key(t.kid, CapabilityInvocation, RelationshipsAlways)
	if err == nil {
		err = t.verify(key)
	}
	switch {
	case err != nil:
	case t.typ != typAccess || c.Issuer != did || !c.Audience.only(did):
		err = errors.New("it is not one of ours")
	case c.Subject != verifier:
		err = fmt.Errorf("it was made for %q and is used by %q", c.Subject, verifier)
	case c.Expires.IsZero():
		err = errors.New("exp is missing")
	default:
		err = v.checkTimes(v.now(), c.NotBefore.Time, c.IssuedAt.Time, c.Expires.Time)
	}
	if err != nil {
		return nil, identity.Unauthenticated("the access token: %v", err)
	}
	return strings.Fields(c.Scope), nil
}

// refusal wraps err as unauthenticated, unless it says that something could not be reached.
func refusal(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if temporary(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	var se *StatusError
	if errors.As(err, &se) { // without its body: the sender chose the address, and is not to read through us what is there
		err = &StatusError{Method: se.Method, URL: se.URL, Status: se.Status}
	}
	return identity.Unauthenticated("%s: %v", what, err)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
