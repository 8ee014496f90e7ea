// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
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
	// largest is what browsers keep of one cookie.
	largest = 4000
)

var (
	errNoSession        = errors.New("no session")
	errIdentityProvider = errors.New("the identity provider does not answer")
)

// session is what the sealed cookie holds. The person's rights are those of the last access token; it is renewed when it expires.
type session struct {
	Principal authz.Principal `json:"who"`
	Expires   time.Time       `json:"exp"` // of the access token that the principal was read from
	Refresh   string          `json:"ref,omitempty"`
	IDToken   string          `json:"idt,omitempty"` // to log out without being asked
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
	if err := s.sealer.open(sessionCookie, c.Value, &out); err != nil {
		return out, errNoSession
	}
	return out, nil
}

// fresh returns the session, its access token renewed when it has expired.
func (s *console) fresh(w http.ResponseWriter, r *http.Request) (session, error) {
	sess, err := s.session(r)
	if err != nil || s.Now().Before(sess.Expires) {
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
	return s.begin(w, r, token, sess.IDToken)
}

// begin makes a session of a token and sets its cookie.
func (s *console) begin(w http.ResponseWriter, r *http.Request, token *oauth2.Token, idToken string) (session, error) {
	who, err := s.Identity.Authenticate(r.Context(), token.AccessToken)
	if err != nil {
		return session{}, err
	}
	sess := session{Principal: who, Expires: token.Expiry.UTC(), Refresh: token.RefreshToken, IDToken: idToken}
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
	if _, err := s.begin(w, r, token, raw); err != nil {
		return err
	}
	http.Redirect(w, r, a.To, http.StatusSeeOther)
	return nil
}

func (s *console) logout(w http.ResponseWriter, r *http.Request) {
	sess, _ := s.session(r)
	s.dropCookie(w, sessionCookie)
	var ends struct {
		Endpoint string `json:"end_session_endpoint"`
	}
	if p := s.Identity.Provider(); p == nil || p.Claims(&ends) != nil || ends.Endpoint == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	q := url.Values{"client_id": {s.ClientID}, "post_logout_redirect_uri": {s.URL + "/"}}
	if sess.IDToken != "" {
		q.Set("id_token_hint", sess.IDToken)
	}
	http.Redirect(w, r, ends.Endpoint+"?"+q.Encode(), http.StatusSeeOther)
}

// local keeps a redirect within the console.
func local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.Contains(to, `\`) {
		return "/"
	}
	return to
}
