// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

// Tokens makes self-issued ID tokens for a participant context: the wallet itself when it runs in this process, else a TokenClient.
type Tokens interface {
	Token(ctx context.Context, participantContext string, req adminapi.TokenRequest) (adminapi.TokenResponse, error)
}

// TrustFunc returns the trust anchors of a dataspace profile by its name.
type TrustFunc func(ctx context.Context, profileName string) ([]profile.TrustedIssuer, error)

// ServiceConfig is what a Service needs.
type ServiceConfig struct {
	Verifier *Verifier
	Tokens   Tokens
	Trust    TrustFunc
	Replay   Replay // of the role that receives the messages: NewPostgresReplay(db, "control_plane")
}

// Service implements identity.Service by DCP.
type Service struct {
	v      *Verifier
	tokens Tokens
	trust  TrustFunc
	replay Replay
}

var _ identity.Service = (*Service)(nil)

// NewService makes a service.
func NewService(cfg ServiceConfig) (*Service, error) {
	if cfg.Verifier == nil || cfg.Tokens == nil || cfg.Trust == nil || cfg.Replay == nil {
		return nil, errors.New("the identity service needs a verifier, a source of tokens, trust anchors and a memory of used tokens")
	}
	return &Service{v: cfg.Verifier, tokens: cfg.Tokens, trust: cfg.Trust, replay: cfg.Replay}, nil
}

// Token implements identity.Service.
func (s *Service) Token(ctx context.Context, local identity.Local, audienceDID string, scopes []string) (string, error) {
	resp, err := s.tokens.Token(ctx, local.Context, adminapi.TokenRequest{Audience: audienceDID, Scopes: scopes})
	if err != nil {
		return "", fmt.Errorf("token of %s for %s: %w", local.DID, audienceDID, err)
	}
	return "Bearer " + resp.Token, nil
}

// Verify implements identity.Service.
func (s *Service) Verify(ctx context.Context, local identity.Local, authorization string, scopes []string) (identity.Agent, error) {
	claims, err := s.v.IDToken(ctx, authorization, local.DID, s.replay)
	if err != nil {
		return identity.Agent{}, err
	}
	agent := identity.Agent{ID: claims.Issuer}
	if len(scopes) == 0 {
		return agent, nil
	}
	if claims.Token == "" {
		return identity.Agent{}, identity.Unauthenticated("the ID token of %q holds no access token (claim \"token\") to query its credentials with", claims.Issuer)
	}
	return s.query(ctx, local, claims.Issuer, claims.Token, scopes)
}

// Self implements identity.Service: over the network, as a counterparty would.
func (s *Service) Self(ctx context.Context, local identity.Local, scopes []string) (identity.Agent, error) {
	if len(scopes) == 0 {
		return identity.Agent{ID: local.DID}, nil
	}
	resp, err := s.tokens.Token(ctx, local.Context, adminapi.TokenRequest{Audience: local.DID, Scopes: scopes})
	if err != nil {
		return identity.Agent{}, fmt.Errorf("token of %s for itself: %w", local.DID, err)
	}
	t, err := parseToken(resp.Token)
	if err != nil {
		return identity.Agent{}, fmt.Errorf("the wallet's token: %w", err)
	}
	var claims Claims
	if err := json.Unmarshal(t.payload, &claims); err != nil {
		return identity.Agent{}, fmt.Errorf("the wallet's token: %w", err)
	}
	return s.query(ctx, local, local.DID, claims.Token, scopes)
}

// Recheck implements identity.Service.
func (s *Service) Recheck(ctx context.Context, local identity.Local, holder string, raw []string) (identity.Agent, error) {
	agent := identity.Agent{ID: holder}
	if len(raw) == 0 {
		return agent, nil
	}
	trust, err := s.trust(ctx, local.Profile)
	if err != nil {
		return identity.Agent{}, fmt.Errorf("trust anchors of profile %q: %w", local.Profile, err)
	}
	for _, r := range raw {
		good, refused := s.v.Credential(ctx, r, holder, trust)
		agent.Credentials = append(agent.Credentials, good...)
		if refused != nil {
			agent.Refused = append(agent.Refused, *refused)
		}
	}
	return agent, nil
}

// SignHead implements identity.Service.
func (s *Service) SignHead(ctx context.Context, local identity.Local, audienceDID string, statement adminapi.HeadStatement) (string, error) {
	resp, err := s.tokens.Token(ctx, local.Context, adminapi.TokenRequest{Audience: audienceDID, Head: &statement})
	return resp.Token, err
}

// VerifyHead implements identity.Service.
func (s *Service) VerifyHead(ctx context.Context, local identity.Local, from, signed string) (adminapi.HeadStatement, error) {
	return s.v.HeadStatement(ctx, signed, from, local.DID)
}

// Endpoint implements identity.Service.
func (s *Service) Endpoint(ctx context.Context, did, serviceType string) (string, error) {
	doc, err := s.v.Resolve(ctx, did)
	if err != nil {
		return "", err
	}
	return doc.ServiceEndpoint(serviceType)
}

// maxPresentations bounds the answer to a query: its bytes, and the presentations read from it.
const (
	maxPresentations     = 10
	maxPresentationsBody = 2 << 20
)

// query asks holder's credential service once and verifies what it answers.
func (s *Service) query(ctx context.Context, local identity.Local, holder, accessToken string, scopes []string) (identity.Agent, error) {
	trust, err := s.trust(ctx, local.Profile)
	if err != nil {
		return identity.Agent{}, fmt.Errorf("trust anchors of profile %q: %w", local.Profile, err)
	}
	doc, err := s.v.Resolve(ctx, holder)
	if err != nil {
		return identity.Agent{}, refusal(err, "the credentials of %s", holder)
	}
	endpoint, err := doc.ServiceEndpoint(CredentialService)
	if err != nil {
		return identity.Agent{}, identity.Unauthenticated("the credentials of %s: %v", holder, err)
	}
	own, err := s.tokens.Token(ctx, local.Context, adminapi.TokenRequest{Audience: holder, AccessToken: accessToken})
	if err != nil {
		return identity.Agent{}, fmt.Errorf("token of %s for %s: %w", local.DID, holder, err)
	}
	raw, _, err := PostJSON(ctx, s.v.http, endpoint+"/presentations/query", "Bearer "+own.Token,
		PresentationQuery{Head: NewHead(TypePresentationQuery), Scope: scopes}, maxPresentationsBody)
	if err != nil {
		return identity.Agent{}, refusal(err, "the credentials of %s", holder)
	}
	var answer PresentationResponse
	if err := DecodeMessage(raw, TypePresentationResponse, &answer); err != nil {
		return identity.Agent{}, identity.Unauthenticated("the answer of %s's credential service: %v", holder, err)
	}
	if len(answer.Presentation) > maxPresentations {
		return identity.Agent{}, identity.Unauthenticated("%s answered %d presentations: at most %d are read", holder, len(answer.Presentation), maxPresentations)
	}
	agent := identity.Agent{ID: holder}
	for _, item := range answer.Presentation {
		good, refused, err := s.v.Presentation(ctx, item, holder, local.DID, trust)
		if err != nil {
			return identity.Agent{}, err
		}
		agent.Credentials = append(agent.Credentials, good...)
		agent.Refused = append(agent.Refused, refused...)
	}
	// The newest first, which is the one that counts where several of a type are held.
	slices.SortStableFunc(agent.Credentials, func(a, b identity.Credential) int { return b.ValidFrom.Compare(a.ValidFrom) })
	return agent, nil
}

// TokenClient asks a wallet in another process for tokens.
type TokenClient struct {
	base   string
	bearer func() (string, error)
	http   *http.Client
}

// NewTokenClient makes a client of the wallet's internal API at base; bearer yields the internal token, read again at each call so that it
// may be replaced.
func NewTokenClient(base string, bearer func() (string, error)) *TokenClient {
	return &TokenClient{base: strings.TrimSuffix(base, "/"), bearer: bearer, http: &http.Client{Timeout: 10 * time.Second}}
}

// Token implements Tokens; a failed connection or 5xx is tried twice more.
func (c *TokenClient) Token(ctx context.Context, participantContext string, req adminapi.TokenRequest) (adminapi.TokenResponse, error) {
	bearer, err := c.bearer()
	if err != nil {
		return adminapi.TokenResponse{}, fmt.Errorf("the internal token: %w", err)
	}
	address := c.base + "/internal/v1/" + url.PathEscape(participantContext) + "/token"
	var raw []byte
	for attempt := 1; ; attempt++ {
		raw, _, err = PostJSON(ctx, c.http, address, "Bearer "+bearer, req, maxToken)
		if err == nil {
			break
		}
		if attempt == 3 || isRefusal(err) {
			return adminapi.TokenResponse{}, fmt.Errorf("the wallet: %w", err)
		}
		select {
		case <-ctx.Done():
			return adminapi.TokenResponse{}, fmt.Errorf("the wallet: %w", ctx.Err())
		case <-time.After(time.Duration(attempt) * 200 * time.Millisecond):
		}
	}
	var resp adminapi.TokenResponse
	if err := json.Unmarshal(raw, &resp); err != nil || resp.Token == "" {
		return adminapi.TokenResponse{}, fmt.Errorf("the wallet's answer from %s is not a token", address)
	}
	return resp, nil
}
