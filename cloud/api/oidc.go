// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/kaphera/kaphera/cloud/authz"
)

// Claims of an access token that authorization reads.
type claims struct {
	Username     string   `json:"preferred_username"`
	Name         string   `json:"name"`
	ClientID     string   `json:"azp"`
	Roles        []string `json:"roles"`
	Organization one      `json:"organization"`
	// Type is what Keycloak says a token is for: Bearer, or ID for the one that tells a client who has logged in.
	Type string `json:"typ"`
}

// one is a claim with at most one value: a string, or an array as Keycloak's mapper of roles makes it.
type one string

func (o *one) UnmarshalJSON(data []byte) error {
	var many []string
	if err := json.Unmarshal(data, (*string)(o)); err == nil {
		return nil
	}
	if err := json.Unmarshal(data, &many); err != nil || len(many) > 1 {
		return fmt.Errorf("organization is %s, and nobody may be of several", data)
	}
	*o = one(strings.Join(many, ""))
	return nil
}

// program is the client id of a token that a client got for itself (client credentials): Keycloak makes it a user of that name.
func (c claims) program() string {
	if c.Username == "" || c.Username == "service-account-"+c.ClientID {
		return c.ClientID
	}
	return ""
}

// OIDC verifies access tokens of one realm. The identity provider may come up later than this program; until it has answered once,
// nobody is let in and Ready says why.
type OIDC struct {
	issuer, audience string
	http             *http.Client
	provider         atomic.Pointer[oidc.Provider]
	lastErr          atomic.Pointer[error]
	now              func() time.Time
}

var _ Authenticator = (*OIDC)(nil)

// NewOIDC makes a verifier of tokens that issuer made for audience.
func NewOIDC(issuer, audience string, h *http.Client, now func() time.Time) *OIDC {
	return &OIDC{issuer: issuer, audience: audience, http: h, now: now}
}

// TrustClient makes an HTTP client that trusts the authorities in the PEM file only; empty trusts the system's.
func TrustClient(caFile string, timeout time.Duration) (*http.Client, error) {
	conf, err := TrustConfig(caFile)
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	t.TLSClientConfig = conf
	return &http.Client{Transport: t, Timeout: timeout}, nil
}

// TrustConfig is the same for any TLS connection.
func TrustConfig(caFile string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(caFile) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s has no PEM certificate", caFile)
	}
	return conf, nil
}

// Run asks the identity provider for its keys until it has answered, or ctx ends.
func (o *OIDC) Run(ctx context.Context, log *slog.Logger) {
	const longest = 15 * time.Second
	for wait := time.Second; ; wait = min(2*wait, longest) {
		err := o.Discover(ctx)
		if err == nil {
			return
		}
		log.Info("the identity provider does not answer yet", "issuer", o.issuer, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Discover asks once.
func (o *OIDC) Discover(ctx context.Context) error {
	// The provider keeps the context for fetching keys later, so it must outlive this call.
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), o.http), o.issuer)
	if err != nil {
		o.lastErr.Store(&err)
		return fmt.Errorf("identity provider %s: %w", o.issuer, err)
	}
	o.provider.Store(p)
	return nil
}

// Provider is the identity provider; nil until it has answered.
func (o *OIDC) Provider() *oidc.Provider { return o.provider.Load() }

// HTTP is the client with which the identity provider is reached.
func (o *OIDC) HTTP() *http.Client { return o.http }

// Ready tells why nobody can log in yet.
func (o *OIDC) Ready() error {
	if o.Provider() != nil {
		return nil
	}
	if err := o.lastErr.Load(); err != nil {
		return fmt.Errorf("identity provider %s does not answer yet: %w", o.issuer, *err)
	}
	return fmt.Errorf("identity provider %s has not been asked yet", o.issuer)
}

// Authenticate verifies signature, issuer, audience and times, and reads who it is.
func (o *OIDC) Authenticate(ctx context.Context, token string) (authz.Principal, error) {
	provider := o.Provider()
	if provider == nil {
		p := problem(http.StatusServiceUnavailable, CodeNotReady, "nobody can log in yet: the identity provider does not answer", "try again in a moment")
		p.cause = o.Ready()
		return authz.Principal{}, p
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: o.audience, Now: o.now}).Verify(ctx, token)
	if err != nil && strings.Contains(err.Error(), "fetching keys") { // the library tells it in words only
		p := problem(http.StatusServiceUnavailable, CodeNotReady, "the identity provider does not answer, so the access token can't be verified", "try again in a moment")
		p.cause = err
		return authz.Principal{}, p
	}
	if err != nil {
		return authz.Principal{}, badToken(err, o.issuer, o.audience)
	}
	var c claims
	if err := verified.Claims(&c); err != nil {
		return authz.Principal{}, problem(http.StatusUnauthorized, CodeUnauthenticated, "the access token is refused: "+err.Error(), "have it put right at "+o.issuer+", and log in again")
	}
	if c.Type != "" && c.Type != "Bearer" { // an ID token travels in addresses (id_token_hint), so it must open nothing
		return authz.Principal{}, badToken(fmt.Errorf("its typ is %q, not Bearer", c.Type), o.issuer, o.audience)
	}
	p := authz.Principal{Subject: verified.Subject, Client: c.program(), Name: nonEmpty(c.Name, nonEmpty(c.Username, c.ClientID)), Username: c.Username, Organization: string(c.Organization)}
	for _, r := range c.Roles {
		p.Roles = append(p.Roles, authz.Role(r))
	}
	return p, nil
}

func badToken(err error, issuer, audience string) *Problem {
	p := problem(http.StatusUnauthorized, CodeUnauthenticated, "the access token is not valid here", "log in again: kaphera login")
	var expired *oidc.TokenExpiredError
	if errors.As(err, &expired) {
		p.Detail = "the access token expired at " + expired.Expiry.UTC().Format(time.RFC3339)
	} else {
		p.Detail = fmt.Sprintf("the access token is not one of %s for %s", issuer, audience)
	}
	p.cause = err
	return p
}
