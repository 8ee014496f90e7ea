// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the log-in, here and at the identity provider", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logout(cmd.Context()) },
	}
}

func (a *app) logout(ctx context.Context) error {
	stored, err := a.loadContext()
	if err != nil {
		return err
	}
	t, none := a.loadToken(stored.Name)
	if none != nil {
		fprintln(a.out, "Nobody was logged in.")
		return nil //nolint:nilerr // logging out twice is no mistake
	}
	revokeErr := a.revoke(ctx, stored, t)
	if err := os.Remove(a.tokenPath(stored.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("log out: %w", err)
	}
	fprintf(a.out, "Logged out of %s.\n", stored.API)
	if revokeErr != nil {
		fprintf(a.err, "The identity provider could not be told (%s); the log-in there ends by itself.\n", revokeErr)
	}
	return nil
}

// revoke ends the refresh token's session.
func (a *app) revoke(ctx context.Context, stored storedContext, t tokenFile) error {
	if t.Token.RefreshToken == "" {
		return nil
	}
	cfg := client.Config{API: stored.API, CAFile: stored.CAFile, Wait: a.wait}
	_, idp, err := client.Discover(ctx, cfg)
	if err != nil || idp.Revocation == "" {
		return err
	}
	h, err := client.HTTPClient(cfg)
	if err != nil {
		return err
	}
	form := url.Values{"client_id": {t.ClientID}, "token": {t.Token.RefreshToken}, "token_type_hint": {"refresh_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, idp.Revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := h.Do(r)
	if err != nil {
		return errors.New("it does not answer")
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}
