// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
)

// configFile is ~/.config/kaphera/config.yaml: where to go, without secrets.
type configFile struct {
	Current  string                   `json:"current,omitempty"`
	Contexts map[string]storedContext `json:"contexts,omitempty"`
}

type storedContext struct {
	Name   string `json:"-"`
	API    string `json:"api"`
	CAFile string `json:"caFile,omitempty"`
}

// tokenFile is ~/.config/kaphera/tokens/<context>.json, readable by its owner only.
type tokenFile struct {
	Token    *oauth2.Token `json:"token"`
	ClientID string        `json:"clientID"`
	TokenURL string        `json:"tokenURL"`
}

const (
	ownerOnly       = 0o600
	ownerOnlyFolder = 0o700
)

func (a *app) configPath() string { return filepath.Join(a.home, "config.yaml") }

func (a *app) tokenPath(context string) string {
	return filepath.Join(a.home, "tokens", filepath.Base(context)+".json")
}

func (a *app) loadConfig() (configFile, error) {
	var c configFile
	raw, err := os.ReadFile(a.configPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = yaml.UnmarshalStrict(raw, &c)
	}
	if err != nil {
		return c, fail(ExitFailed, "correct the file, or remove it and log in again", "%s: %s", a.configPath(), err)
	}
	return c, nil
}

// loadContext returns the context in use; an empty one when nobody has logged in yet.
func (a *app) loadContext() (storedContext, error) {
	c, err := a.loadConfig()
	if err != nil {
		return storedContext{}, err
	}
	name := first(a.context, a.env("KAPHERA_CONTEXT"), c.Current)
	out, ok := c.Contexts[name]
	if !ok && a.context != "" {
		return out, fail(ExitLogin, "kaphera login --api https://api.<domain> --context "+a.context, "there is no context %q", a.context)
	}
	out.Name = name
	return out, nil
}

// saveLogin remembers a log-in.
func (a *app) saveLogin(ctx storedContext, t tokenFile) error {
	err := a.changeConfig(func(c *configFile) {
		if c.Contexts == nil {
			c.Contexts = map[string]storedContext{}
		}
		c.Contexts[ctx.Name] = ctx
	})
	if err != nil {
		return err
	}
	return a.saveToken(ctx.Name, t)
}

// use makes a log-in the current one.
func (a *app) use(ctx storedContext) error {
	return a.changeConfig(func(c *configFile) { c.Current = ctx.Name })
}

func (a *app) changeConfig(change func(*configFile)) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	change(&c)
	raw, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return writeFile(a.configPath(), raw)
}

func (a *app) saveToken(context string, t tokenFile) error {
	raw, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return writeFile(a.tokenPath(context), raw)
}

// writeFile replaces a file whole, so that an interruption leaves the old one.
func writeFile(path string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), ownerOnlyFolder); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it has been renamed, then
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Chmod(ownerOnly), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (a *app) loadToken(context string) (tokenFile, error) {
	var t tokenFile
	raw, err := os.ReadFile(a.tokenPath(context))
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err != nil || t.Token == nil {
		return t, client.LoginError("nobody is logged in")
	}
	return t, nil
}

// storedToken gives the stored access token, renewed and stored again when it has expired.
func (a *app) storedToken(stored storedContext, cfg client.Config) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		t, err := a.loadToken(stored.Name)
		if err != nil {
			return "", err
		}
		if client.Fresh(t.Token, a.now()) {
			return t.Token.AccessToken, nil
		}
		if t.Token.RefreshToken == "" {
			return "", client.LoginError("the log-in has expired")
		}
		h, err := client.HTTPClient(cfg)
		if err != nil {
			return "", err
		}
		flow := oauth2.Config{ClientID: t.ClientID, Endpoint: oauth2.Endpoint{TokenURL: t.TokenURL, AuthStyle: oauth2.AuthStyleInParams}}
		renewed, err := flow.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, h), &oauth2.Token{RefreshToken: t.Token.RefreshToken}).Token()
		if err != nil {
			return "", client.LoginError("the log-in has expired: " + client.OAuthReason(err))
		}
		t.Token = renewed
		return renewed.AccessToken, a.saveToken(stored.Name, t)
	}
}
