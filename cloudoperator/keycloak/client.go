// SPDX-License-Identifier: FSL-1.1-ALv2

// Package keycloak makes a realm in a Keycloak server by its admin REST API, and changes only what differs. What it is told to make is
// plain data; which realm a platform needs is the platform controller's business.
package keycloak

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// Rep is a representation as the admin API speaks it. Members that are not named are left as they are.
type Rep map[string]any

// Client is an administrator of one server, or of one realm.
type Client struct {
	base, realm, clientID, secret string
	http                          *http.Client
	token                         string
	expires                       time.Time
	now                           func() time.Time
}

// Master is the realm of administrators of the server.
const Master = "master"

// New makes a client that logs in with client credentials in a realm.
func New(base, realm, clientID, secret string, tlsConfig *tls.Config) *Client {
	return &Client{base: strings.TrimSuffix(base, "/"), realm: realm, clientID: clientID, secret: secret, now: time.Now, http: &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second},
	}}
}

// Error is an answer of the server that is no success.
type Error struct {
	Method, Path string
	Status       int
	Text         string
}

func (e *Error) Error() string {
	return fmt.Sprintf("keycloak answered %d to %s %s: %s", e.Status, e.Method, e.Path, e.Text)
}

func isStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Login gets a token when there is none that lasts a little longer.
func (c *Client) Login(ctx context.Context) error {
	if c.token != "" && c.now().Before(c.expires) {
		return nil
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.clientID}, "client_secret": {c.secret}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/realms/"+url.PathEscape(c.realm)+"/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("log in to keycloak: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := c.send(req, &answer); err != nil {
		return fmt.Errorf("log in to keycloak as client %s: %w", c.clientID, err)
	}
	c.token, c.expires = answer.AccessToken, c.now().Add(time.Duration(answer.ExpiresIn)*time.Second-20*time.Second)
	return nil
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	if err := c.Login(ctx); err != nil {
		return err
	}
	var body io.Reader = http.NoBody
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode for keycloak %s: %w", path, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/admin/realms"+path, body)
	if err != nil {
		return fmt.Errorf("keycloak %s: %w", path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.send(req, out)
}

func (c *Client) send(req *http.Request, out any) error {
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("keycloak at %s: %w", c.base, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("read keycloak's answer to %s: %w", req.URL.Path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &Error{Method: req.Method, Path: req.URL.Path, Status: resp.StatusCode, Text: reason(data)}
	}
	if out == nil || len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("keycloak's answer to %s is not what was expected: %w", req.URL.Path, err)
	}
	return nil
}

// reason takes the words out of the server's several kinds of error body.
func reason(data []byte) string {
	var e struct {
		Error        string `json:"error"`
		Description  string `json:"error_description"`
		ErrorMessage string `json:"errorMessage"`
	}
	if json.Unmarshal(data, &e) == nil {
		for _, s := range []string{e.Description, e.ErrorMessage, e.Error} {
			if s != "" {
				return s
			}
		}
	}
	return strings.TrimSpace(string(data[:min(len(data), 200)]))
}

// covers says whether have has every member of want, objects inside compared the same way.
func covers(have, want any) bool {
	if l, ok := normal(want).([]any); ok && len(l) == 0 && have == nil {
		return true // the server leaves out what is empty
	}
	w, ok := normal(want).(map[string]any)
	h, ok2 := normal(have).(map[string]any)
	if !ok || !ok2 {
		return reflect.DeepEqual(normal(have), normal(want))
	}
	for k, v := range w {
		if !covers(h[k], v) {
			return false
		}
	}
	return true
}

// normal turns Go values into what JSON makes of them.
func normal(v any) any {
	switch v.(type) {
	case map[string]any, string, bool, float64, nil:
		return v
	}
	data, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out any
	if json.Unmarshal(data, &out) != nil {
		return v
	}
	return out
}

// merge lays want over have, objects inside merged the same way.
func merge(have, want Rep) Rep {
	out := Rep{}
	for k, v := range have {
		out[k] = v
	}
	for k, v := range want {
		w, ok := normal(v).(map[string]any)
		h, ok2 := normal(out[k]).(map[string]any)
		if ok && ok2 {
			out[k] = merge(h, w)
			continue
		}
		out[k] = v
	}
	return out
}
