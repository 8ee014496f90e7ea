// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// IdentityProvider is what the identity provider says about itself (OpenID Connect Discovery).
type IdentityProvider struct {
	Issuer     string `json:"issuer"`
	Token      string `json:"token_endpoint"`
	Device     string `json:"device_authorization_endpoint"`
	Revocation string `json:"revocation_endpoint"`
}

// Endpoint is the OAuth 2.0 form.
func (i IdentityProvider) Endpoint() oauth2.Endpoint {
	return oauth2.Endpoint{TokenURL: i.Token, DeviceAuthURL: i.Device}
}

// Discover asks the Cloud API how to log in, and the identity provider that it names for its endpoints.
func Discover(ctx context.Context, cfg Config) (Info, IdentityProvider, error) {
	cfg.Token, cfg.ClientID = nil, ""
	a, err := New(cfg)
	if err != nil {
		return Info{}, IdentityProvider{}, err
	}
	resp, err := a.GetInfoWithResponse(ctx)
	if err != nil {
		return Info{}, IdentityProvider{}, err
	}
	if resp.JSON200 == nil {
		return Info{}, IdentityProvider{}, loginError(fmt.Sprintf("%s did not say how to log in", cfg.API), nil)
	}
	info := *resp.JSON200
	var issuer IdentityProvider
	where := strings.TrimSuffix(info.Issuer, "/") + "/.well-known/openid-configuration"
	if err := getJSON(ctx, a.http, where, &issuer); err != nil {
		return info, issuer, loginError("the identity provider "+info.Issuer+" does not answer: "+unwrapURL(err).Error(), err)
	}
	if issuer.Issuer != info.Issuer || issuer.Token == "" {
		return info, issuer, loginError(fmt.Sprintf("%s calls itself issuer %q, not %q", where, issuer.Issuer, info.Issuer), nil)
	}
	return info, issuer, nil
}

func getJSON(ctx context.Context, h *http.Client, where string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, http.NoBody)
	if err != nil {
		return fmt.Errorf("address %q: %w", where, err)
	}
	resp, err := h.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", where, resp.Status)
	}
	const most = 1 << 20
	return json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(into)
}

// clientCredentials logs in when the first token is needed, and again before one expires.
func clientCredentials(cfg Config, h *http.Client) func(context.Context) (string, error) {
	var mu sync.Mutex
	var current *oauth2.Token
	var flow *clientcredentials.Config
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if current.Valid() {
			return current.AccessToken, nil
		}
		if flow == nil {
			_, issuer, err := Discover(ctx, cfg)
			if err != nil {
				return "", err
			}
			flow = &clientcredentials.Config{ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, TokenURL: issuer.Token}
		}
		t, err := flow.Token(context.WithValue(ctx, oauth2.HTTPClient, h))
		if err != nil {
			return "", NoToken(cfg.ClientID, err)
		}
		current = t
		return t.AccessToken, nil
	}
}

// LoginError says that nobody is logged in, and how to change that.
func LoginError(detail string) *Error { return loginError(detail, nil) }

func loginError(detail string, cause error) *Error {
	return &Error{Problem{
		Status: http.StatusUnauthorized, Code: CodeLogin, Title: "Not logged in", Detail: detail,
		Next: "log in again: kaphera login (people), or set KAPHERA_CLIENT_ID and KAPHERA_CLIENT_SECRET (programs)",
	}, cause}
}

// NoToken says why a program got no token. An identity provider that fails itself says nothing of the program's secret.
func NoToken(clientID string, err error) *Error {
	said := loginError(fmt.Sprintf("client %q could not log in: %s", clientID, OAuthReason(err)), err)
	said.Next = "check KAPHERA_CLIENT_ID and KAPHERA_CLIENT_SECRET"
	var e *oauth2.RetrieveError
	if errors.As(err, &e) && e.Response != nil && e.Response.StatusCode >= http.StatusInternalServerError {
		said.Problem = Problem{
			Status: http.StatusServiceUnavailable, Code: CodeUnreachable, Title: "No log-in at present",
			Detail: fmt.Sprintf("client %q could not log in: the platform's identity provider answered %s", clientID, e.Response.Status),
			Next:   "try again in a minute: it is not about the client's secret; if it stays so, tell who runs the platform that Keycloak or its database is down",
		}
	}
	return said
}

// OAuthReason tells what the identity provider said, without tokens or secrets.
func OAuthReason(err error) string {
	var e *oauth2.RetrieveError
	if errors.As(err, &e) {
		switch {
		case e.ErrorDescription != "":
			return e.ErrorDescription
		case e.ErrorCode != "":
			return e.ErrorCode
		case e.Response != nil:
			return "the identity provider answered " + e.Response.Status
		}
	}
	return unwrapURL(err).Error()
}

// unwrapURL drops the method and the address, which may carry a query, from an error of net/http.
func unwrapURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func decode(body []byte, into any) error { return json.Unmarshal(body, into) }

// tokenMargin is how long before its expiry a token counts as expired.
const tokenMargin = 10 * time.Second

// Fresh says whether the token is still good for a call.
func Fresh(t *oauth2.Token, now time.Time) bool {
	return t != nil && t.AccessToken != "" && (t.Expiry.IsZero() || t.Expiry.After(now.Add(tokenMargin)))
}
