// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/cloud/authz"
)

const (
	sessionCookie = "__Host-kaphera"
	loginCookie   = "__Host-kaphera-login"
	loginMinutes  = 10
	sessionHours  = 10
	revokeTimeout = 5 * time.Second
	// largest is what browsers keep of one cookie.
	largest = 4000
)

var (
	errNoSession        = errors.New("no session")
	errIdentityProvider = errors.New("the identity provider does not answer")
)

// session is what the sealed cookie holds. The person's rights are those of the last access token; it is renewed when it expires.
type session struct {
	ID        string          `json:"id"` // the same from log-in to log-out
	At        time.Time       `json:"at"` // when this cookie was made
	Principal authz.Principal `json:"who"`
	Expires   time.Time       `json:"exp"` // of the access token that the principal was read from
	Refresh   string          `json:"ref,omitempty"`
	IDToken   string          `json:"idt,omitempty"` // to log out without being asked
}

// endedSessions are those that somebody logged out of in this process, with the time. One that was logged out of in an earlier process is
// found by renewing every session of before the start: its refresh token was revoked.
type endedSessions struct {
	mu sync.Mutex
	m  map[string]time.Time
}

func (e *endedSessions) add(id string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.m, func(_ string, at time.Time) bool { return now.Sub(at) > sessionHours*time.Hour })
	if e.m == nil {
		e.m = map[string]time.Time{}
	}
	e.m[id] = now
}

func (e *endedSessions) has(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.m[id]
	return ok
}

// attempt is a log-in under way.
type attempt struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"ver"`
	To       string    `json:"to"`
	Expires  time.Time `json:"exp"`
}

// sealer encrypts cookies (AES-256-GCM) with a key made from the console's client secret, so that every replica reads them.
type sealer struct{ aead cipher.AEAD }

func newSealer(secret string) (*sealer, error) {
	if secret == "" {
		return nil, errors.New("console: the client secret is empty")
	}
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "kaphera console session", 32)
	if err != nil {
		return nil, fmt.Errorf("console: session key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("console: session key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("console: session key: %w", err)
	}
	return &sealer{aead}, nil
}

// seal binds the value to the cookie's name.
func (s *sealer) seal(name string, v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("cookie %s: %w", name, err)
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, raw, []byte(name))), nil //nolint:gosec // this AEAD draws its nonce itself
}

func (s *sealer) open(name, sealed string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err == nil {
		raw, err = s.aead.Open(nil, nil, raw, []byte(name))
	}
	if err != nil {
		return fmt.Errorf("cookie %s: %w", name, err)
	}
	return json.Unmarshal(raw, into)
}

func (s *console) setCookie(w http.ResponseWriter, name, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(age.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func (s *console) dropCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func (s *console) session(r *http.Request) (session, error) {
	var out session
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return out, errNoSession
	}
	if err := s.sealer.open(sessionCookie, c.Value, &out); err != nil || s.loggedOut(r.Context(), out.ID) {
		return session{}, errNoSession
	}
	return out, nil
}

// fresh returns the session, its access token renewed when it has expired.
func (s *console) fresh(w http.ResponseWriter, r *http.Request) (session, error) {
	sess, err := s.session(r)
	if err != nil || s.Now().Before(sess.Expires) && !sess.At.Before(s.started) {
		return sess, err
	}
	conf, err := s.oauth()
	if err != nil {
		return sess, err
	}
	if sess.Refresh == "" {
		return sess, errNoSession
	}
	ctx := oidc.ClientContext(r.Context(), s.Identity.HTTP())
	token, err := conf.TokenSource(ctx, &oauth2.Token{RefreshToken: sess.Refresh}).Token()
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < http.StatusInternalServerError {
			return sess, errNoSession
		}
		return sess, fmt.Errorf("%w: %w", errIdentityProvider, err)
	}
	return s.begin(w, r, token, sess.ID, sess.IDToken)
}

// begin makes a session of a token and sets its cookie.
func (s *console) begin(w http.ResponseWriter, r *http.Request, token *oauth2.Token, id, idToken string) (session, error) {
	who, err := s.Identity.Authenticate(r.Context(), token.AccessToken)
	if err != nil {
		return session{}, err
	}
	sess := session{ID: id, At: s.Now().UTC(), Principal: who, Expires: token.Expiry.UTC(), Refresh: token.RefreshToken, IDToken: idToken}
	sealed, err := s.sealer.seal(sessionCookie, sess)
	if err == nil && len(sealed) > largest {
		sess.IDToken = "" // logging out then asks first
		sealed, err = s.sealer.seal(sessionCookie, sess)
	}
	if err == nil && len(sealed) > largest {
		sess.Refresh = "" // the session then lasts as long as the access token
		sealed, err = s.sealer.seal(sessionCookie, sess)
	}
	if err != nil {
		return session{}, err
	}
	s.setCookie(w, sessionCookie, sealed, sessionHours*time.Hour)
	return sess, nil
}

func (s *console) oauth() (*oauth2.Config, error) {
	p := s.Identity.Provider()
	if p == nil {
		return nil, errIdentityProvider
	}
	return &oauth2.Config{ClientID: s.ClientID, ClientSecret: s.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: s.URL + "/callback", Scopes: []string{oidc.ScopeOpenID, "profile"}}, nil
}

func (s *console) login(w http.ResponseWriter, r *http.Request) {
	v := view{lang: language(r)}
	conf, err := s.oauth()
	if err != nil {
		s.toLogin(w, r, v, err)
		return
	}
	a := attempt{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), To: local(r.FormValue("to")), Expires: s.Now().Add(loginMinutes * time.Minute)}
	sealed, err := s.sealer.seal(loginCookie, a)
	if err != nil {
		s.fail(w, r, v, err)
		return
	}
	s.setCookie(w, loginCookie, sealed, loginMinutes*time.Minute)
	http.Redirect(w, r, conf.AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), http.StatusSeeOther)
}

func (s *console) callback(w http.ResponseWriter, r *http.Request) {
	v := view{lang: language(r)}
	if err := s.finishLogin(w, r, v); err != nil {
		s.fail(w, r, v, err)
	}
}

func (s *console) finishLogin(w http.ResponseWriter, r *http.Request, v view) error {
	var a attempt
	c, err := r.Cookie(loginCookie)
	if err == nil {
		err = s.sealer.open(loginCookie, c.Value, &a)
	}
	s.dropCookie(w, loginCookie)
	refused := func(detail string, cause error) error {
		s.Log.Info("log-in refused", "reason", detail, "error", cause)
		return &api.Problem{Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Code: api.CodeUnauthenticated, Detail: v.t(detail), Next: v.t("Start again: log in.")}
	}
	switch {
	case err != nil, s.Now().After(a.Expires):
		return refused("This log-in took too long or was started in another browser.", err)
	case r.FormValue("state") != a.State:
		return refused("This log-in does not belong to the one you started.", nil)
	case r.FormValue("error") != "":
		return refused("The identity provider refused to log you in.", errors.New(r.FormValue("error")))
	}
	conf, err := s.oauth()
	if err != nil {
		return err
	}
	ctx := oidc.ClientContext(r.Context(), s.Identity.HTTP())
	token, err := conf.Exchange(ctx, r.FormValue("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return refused("The identity provider refused to log you in.", err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := s.Identity.Provider().Verifier(&oidc.Config{ClientID: s.ClientID, Now: s.Now}).Verify(ctx, raw)
	if err != nil || id.Nonce != a.Nonce {
		return refused("The identity provider's answer is not for this log-in.", err)
	}
	if _, err := s.begin(w, r, token, rand.Text(), raw); err != nil {
		return err
	}
	http.Redirect(w, r, a.To, http.StatusSeeOther)
	return nil
}

// logout ends the session here, revokes its refresh token and sends the browser to the identity provider to end the session there.
func (s *console) logout(w http.ResponseWriter, r *http.Request) {
	sess, err := s.session(r)
	if err == nil {
		s.ended.add(sess.ID, s.Now())
		if err := s.tellLogOut(r.Context(), sess); err != nil {
			s.Log.Warn("other replicas do not know who has logged out, and take the session for as long as its access token counts", "error", err)
		}
	}
	s.dropCookie(w, sessionCookie)
	var ends struct {
		Endpoint   string `json:"end_session_endpoint"`
		Revocation string `json:"revocation_endpoint"`
	}
	if p := s.Identity.Provider(); p == nil || p.Claims(&ends) != nil || ends.Endpoint == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	if sess.Refresh != "" && ends.Revocation != "" {
		if err := s.revoke(r.Context(), ends.Revocation, sess.Refresh); err != nil {
			s.Log.Warn("a refresh token was not revoked; it ends with the session at the identity provider", "error", err)
		}
	}
	q := url.Values{"client_id": {s.ClientID}, "post_logout_redirect_uri": {s.URL + "/"}}
	if sess.IDToken != "" {
		q.Set("id_token_hint", sess.IDToken)
	}
	http.Redirect(w, r, ends.Endpoint+"?"+q.Encode(), http.StatusSeeOther)
}

// revoke ends a refresh token (RFC 7009).
func (s *console) revoke(ctx context.Context, endpoint, refresh string) error {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}, "client_id": {s.ClientID}, "client_secret": {s.ClientSecret}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.Identity.HTTP().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", endpoint, resp.Status)
	}
	return nil
}

// local keeps a redirect within the console.
func local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.Contains(to, `\`) {
		return "/"
	}
	return to
}
