// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/profile"
)

// VerifierConfig is what a verifier needs.
type VerifierConfig struct {
	HTTP     *http.Client // made by NewHTTPClient
	DIDHTTP  bool         // resolve did:web over plain HTTP
	Settings Settings
	Now      func() time.Time // default time.Now
}

// Verifier verifies tokens, presentations and credentials. One is shared by everything in a process.
type Verifier struct {
	http     *http.Client
	settings Settings
	now      func() time.Time
	resolver *Resolver

	mu        sync.Mutex
	lists     map[string]*statusList
	listBytes int // of all of them
	schemas   map[string]cachedSchema
}

// NewVerifier makes a verifier.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if err := cfg.Settings.Validate(); err != nil {
		return nil, err
	}
	if cfg.HTTP == nil {
		return nil, errors.New("the verifier has no HTTP client")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s, client := cfg.Settings.withDefaults(), gated(cfg.HTTP)
	return &Verifier{
		http: client, settings: s, now: cfg.Now, resolver: newResolver(client, cfg.DIDHTTP, s.DocumentCache, cfg.Now),
		lists: map[string]*statusList{}, schemas: map[string]cachedSchema{},
	}, nil
}

// HTTP is the client for calls to addresses that others name.
func (v *Verifier) HTTP() *http.Client { return v.http }

// Settings are the ones in force, defaults filled in.
func (v *Verifier) Settings() Settings { return v.settings }

// Resolve returns a DID document.
func (v *Verifier) Resolve(ctx context.Context, did string) (*Document, error) {
	return v.resolver.Resolve(ctx, did)
}

// Presentation verifies one presentation that holder made for audience and returns the credentials in it that count. The error wraps
// identity.ErrUnauthenticated when the presentation itself is not right, and is temporary otherwise.
func (v *Verifier) Presentation(ctx context.Context, item json.RawMessage, holder, audienceDID string, trust []profile.TrustedIssuer) ([]identity.Credential, []identity.Refusal, error) {
	raw, err := unwrap(item, "vp")
	if err != nil {
		return nil, nil, identity.Unauthenticated("a presentation of %s: %v", holder, err)
	}
	t, err := parseToken(raw)
	if err != nil {
		return nil, nil, identity.Unauthenticated("a presentation of %s: %v", holder, err)
	}
	credentials, err := v.readPresentation(t, holder, audienceDID)
	if err != nil {
		return nil, nil, identity.Unauthenticated("a presentation of %s: %v", holder, err)
	}
	if err := v.verifyToken(ctx, t, holder, Authentication); err != nil {
		return nil, nil, refusal(err, "a presentation of %s", holder)
	}
	var good []identity.Credential
	var refused []identity.Refusal
	for _, item := range credentials {
		raw, err := unwrap(item, "vc")
		if err != nil {
			refused = append(refused, *refuse(nil, codeMalformed, "a credential cannot be read: %v", err))
			continue
		}
		c, r := v.Credential(ctx, raw, holder, trust)
		if r != nil {
			refused = append(refused, *r)
			continue
		}
		good = append(good, c...)
	}
	return good, refused, nil
}

const maxCredentials = 50 // in one presentation

type vpBody struct {
	Holder      issuerRef       `json:"holder"`
	Type        stringList      `json:"type"`
	Credentials json.RawMessage `json:"verifiableCredential"`
}

// readPresentation checks everything about a presentation but its signature and returns the credentials in it.
func (v *Verifier) readPresentation(t token, holder, audienceDID string) ([]json.RawMessage, error) {
	var claims struct {
		Issuer    string          `json:"iss"`
		Audience  audience        `json:"aud"`
		NotBefore numericDate     `json:"nbf"`
		IssuedAt  numericDate     `json:"iat"`
		Expires   numericDate     `json:"exp"`
		VP        json.RawMessage `json:"vp"`
	}
	if err := json.Unmarshal(t.payload, &claims); err != nil {
		return nil, fmt.Errorf("its claims: %w", err)
	}
	bodies, err := decodeMany[vpBody](claims.VP)
	if err != nil {
		return nil, fmt.Errorf("its content: %w", err)
	}
	if claims.VP == nil { // VCDM 2.0: the payload is the presentation
		var body vpBody
		if err := json.Unmarshal(t.payload, &body); err != nil {
			return nil, fmt.Errorf("its content: %w", err)
		}
		bodies = []vpBody{body}
		if claims.Issuer == "" {
			claims.Issuer = string(body.Holder)
		}
	}
	switch {
	case t.typ == typAccess:
		return nil, errors.New("it is an access token")
	case claims.Issuer != holder:
		return nil, fmt.Errorf("it was made by %q", claims.Issuer)
	case !slices.Contains(claims.Audience, audienceDID):
		return nil, fmt.Errorf("it was made for %q, not for %q", strings.Join(claims.Audience, ", "), audienceDID)
	}
	if err := v.checkTimes(v.now(), claims.NotBefore.Time, claims.IssuedAt.Time, claims.Expires.Time); err != nil {
		return nil, err
	}
	var all []json.RawMessage
	for _, body := range bodies {
		if body.Holder != "" && string(body.Holder) != holder {
			return nil, fmt.Errorf("its holder is %q", body.Holder)
		}
		items, err := oneOrMany(body.Credentials)
		if err != nil {
			return nil, fmt.Errorf("its credentials: %w", err)
		}
		all = append(all, items...)
	}
	if len(all) > maxCredentials {
		return nil, fmt.Errorf("it holds %d credentials: at most %d are read", len(all), maxCredentials)
	}
	return all, nil
}

// Credential verifies a credential about holder: issuer, signature, holder binding, dates, schema and status, in this order. A credential
// whose check needs something that cannot be reached does not count. One of several types counts once for each that its issuer is trusted for.
func (v *Verifier) Credential(ctx context.Context, raw, holder string, trust []profile.TrustedIssuer) ([]identity.Credential, *identity.Refusal) {
	c, err := ParseCredential(raw)
	if err != nil {
		return nil, refuse(nil, codeMalformed, "a credential cannot be read: %v", err)
	}
	types := trustedTypes(c, trust)
	if len(types) == 0 {
		return nil, refuse(c, codeWrongIssuer, "%s is not trusted to issue %s; trusted: %s", c.Issuer, strings.Join(c.Types, ", "), trustedFor(c.Types, trust))
	}
	if err := v.verifyToken(ctx, c.token, c.Issuer, AssertionMethod); err != nil {
		if unreachable(err) {
			return nil, refuse(c, identity.CodeUnreachable, "the keys of %s could not be fetched now: %v", c.Issuer, err)
		}
		return nil, refuse(c, codeBadSignature, "its signature by %s could not be verified: %v", c.Issuer, err)
	}
	for _, s := range c.Subjects {
		if id, _ := s["id"].(string); id != holder {
			return nil, refuse(c, codeHolderMismatch, "it is about %q and was presented by %q", id, holder)
		}
	}
	now := v.now()
	if c.ValidFrom.After(now.Add(v.settings.ClockSkew)) {
		return nil, refuse(c, codeNotYetValid, "it is valid from %s and it is %s now", stamp(c.ValidFrom), stamp(now))
	}
	if !c.ValidUntil.IsZero() && !c.ValidUntil.After(now) {
		return nil, refuse(c, codeExpired, "it expired on %s and it is %s now", stamp(c.ValidUntil), stamp(now))
	}
	if err := v.checkSchemas(ctx, c); err != nil {
		return nil, refuse(c, codeSchema, "%v", err)
	}
	if code, reason := v.checkStatus(ctx, c); code != "" {
		return nil, refuse(c, code, "%s", reason)
	}
	var out []identity.Credential
	for _, typ := range types {
		out = append(out, identity.Credential{ID: c.ID, Type: typ, Issuer: c.Issuer, Subject: c.Subjects[0], ValidFrom: c.ValidFrom, ValidUntil: c.ValidUntil, Raw: raw})
	}
	return out, nil
}

// trustedTypes returns those of a credential's types that its issuer is trusted for.
func trustedTypes(c *Credential, trust []profile.TrustedIssuer) []string {
	var out []string
	for _, typ := range c.Types {
		trusts := func(ti profile.TrustedIssuer) bool { return ti.DID == c.Issuer && slices.Contains(ti.Types, typ) }
		if !slices.Contains(out, typ) && slices.ContainsFunc(trust, trusts) {
			out = append(out, typ)
		}
	}
	return out
}

func trustedFor(types []string, trust []profile.TrustedIssuer) string {
	var dids []string
	for _, ti := range trust {
		if slices.ContainsFunc(types, func(t string) bool { return slices.Contains(ti.Types, t) }) {
			dids = append(dids, ti.DID)
		}
	}
	if len(dids) == 0 {
		return "nobody"
	}
	return strings.Join(dids, ", ")
}

// temporary says whether a repeat may succeed: something could not be reached, or answered that it is in trouble.
func temporary(err error) bool {
	var ue *url.Error
	var ne net.Error
	var se *StatusError
	if errors.As(err, &se) {
		return !se.Refused()
	}
	return errors.As(err, &ue) || errors.As(err, &ne) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// unreachable is temporary for what is as it is until somebody changes it: a name that does not exist, a certificate that is not trusted, an address that
// may not be connected to.
func unreachable(err error) bool {
	var refused *netguard.RefusedError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	return temporary(err) && !errors.As(err, &refused) && !errors.As(err, &certificate) && (!errors.As(err, &dns) || !dns.IsNotFound)
}

// Signature verifies the signature of a credential by its issuer, and nothing else.
func (v *Verifier) Signature(ctx context.Context, c *Credential) error {
	if err := v.verifyToken(ctx, c.token, c.Issuer, AssertionMethod); err != nil {
		return fmt.Errorf("its signature by %s could not be verified: %w", c.Issuer, err)
	}
	return nil
}

// Status finds out whether a credential is "good", "revoked" or "suspended", with the reason for people; the error says why that cannot be
// found out.
func (v *Verifier) Status(ctx context.Context, c *Credential) (status, reason string, err error) {
	code, reason := v.checkStatus(ctx, c)
	switch code {
	case "":
		return "good", "", nil
	case codeRevoked, codeSuspended:
		return code, reason, nil
	}
	return "", "", errors.New(reason)
}
