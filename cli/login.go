// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/kaphera/kaphera/client"
)

func (a *app) loginCommand() *cobra.Command {
	var credentials bool
	cmd := &cobra.Command{
		Use: "login --api https://api.<domain>", Short: "Log in, in a browser of your choice", Args: cobra.NoArgs,
		Long: "Log in to a platform. You open the address shown in any browser, on any device, and confirm the code.\n" +
			"With --client-credentials a program logs in with KAPHERA_CLIENT_ID and KAPHERA_CLIENT_SECRET instead.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			stored, err := a.login(cmd.Context(), credentials, a.showCode)
			if err == nil {
				err = a.use(stored)
			}
			if err != nil {
				return err
			}
			fprintf(a.out, "Logged in to %s (context %s). Next: kaphera status\n", stored.API, stored.Name)
			if id := a.env("KAPHERA_CLIENT_ID"); id != "" && !credentials {
				fprintf(a.err, "KAPHERA_CLIENT_ID is set, so commands act as %s unless they name a context. To act as yourself: unset KAPHERA_CLIENT_ID KAPHERA_CLIENT_SECRET, or --context %s\n", id, stored.Name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&credentials, "client-credentials", false, "log in as a program, with KAPHERA_CLIENT_ID and KAPHERA_CLIENT_SECRET")
	return cmd
}

// login logs in and stores that, without making it the log-in in use. A person's code is brought to the identity provider by confirm.
func (a *app) login(ctx context.Context, credentials bool, confirm func(context.Context, *oauth2.DeviceAuthResponse) error) (stored storedContext, err error) {
	c, err := a.loadConfig()
	if err != nil {
		return stored, err
	}
	stored = c.Contexts[first(a.context, c.Current)]
	cfg := client.Config{API: first(a.api, a.env("KAPHERA_API"), stored.API), CAFile: first(a.caFile, a.env("KAPHERA_CA_FILE"), stored.CAFile), Wait: a.wait}
	if cfg.API == "" {
		return stored, usage("no address: give --api https://api.<domain>")
	}
	info, idp, err := client.Discover(ctx, cfg)
	if err != nil {
		return stored, err
	}
	h, err := client.HTTPClient(cfg)
	if err != nil {
		return stored, err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, h)
	t := tokenFile{ClientID: info.CLIClientID, TokenURL: idp.Token}
	if credentials {
		t.ClientID = a.env("KAPHERA_CLIENT_ID")
		t.Token, err = a.programLogin(ctx, t)
	} else {
		t.Token, err = a.deviceLogin(ctx, t, idp, confirm)
	}
	if err != nil {
		return stored, err
	}
	if cfg.CAFile != "" {
		if cfg.CAFile, err = filepath.Abs(cfg.CAFile); err != nil {
			return stored, fmt.Errorf("CA file: %w", err)
		}
	}
	u, err := url.Parse(cfg.API)
	if err != nil {
		return stored, usage("address %q: %s", cfg.API, err)
	}
	stored = storedContext{Name: first(a.context, u.Hostname()), API: cfg.API, CAFile: cfg.CAFile}
	return stored, a.saveLogin(stored, t)
}

func (a *app) programLogin(ctx context.Context, t tokenFile) (*oauth2.Token, error) {
	secret := a.env("KAPHERA_CLIENT_SECRET")
	if t.ClientID == "" || secret == "" {
		return nil, usage("--client-credentials needs KAPHERA_CLIENT_ID and KAPHERA_CLIENT_SECRET in the environment")
	}
	flow := clientcredentials.Config{ClientID: t.ClientID, ClientSecret: secret, TokenURL: t.TokenURL}
	token, err := flow.Token(ctx)
	if err != nil {
		return nil, client.NoToken(t.ClientID, err)
	}
	return token, nil
}

func (a *app) showCode(_ context.Context, code *oauth2.DeviceAuthResponse) error {
	s := a.style(a.err)
	fprintf(a.err, "Open %s\nand confirm the code %s\nWaiting…\n", s.bold(first(code.VerificationURIComplete, code.VerificationURI)), s.bold(code.UserCode))
	return nil
}

func (a *app) deviceLogin(ctx context.Context, t tokenFile, idp client.IdentityProvider, confirm func(context.Context, *oauth2.DeviceAuthResponse) error) (*oauth2.Token, error) {
	if idp.Device == "" {
		return nil, fail(ExitLogin, "ask the platform's operator to allow the device flow, or use --client-credentials", "the identity provider %s offers no device flow", idp.Issuer)
	}
	flow := oauth2.Config{ClientID: t.ClientID, Endpoint: idp.Endpoint(), Scopes: []string{"openid", "profile", "offline_access"}}
	flow.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	verifier := oauth2.GenerateVerifier()
	code, err := flow.DeviceAuth(ctx, oauth2.S256ChallengeOption(verifier))
	if err != nil {
		return nil, client.LoginError("the log-in could not be started: " + client.OAuthReason(err))
	}
	if err := confirm(ctx, code); err != nil {
		return nil, err
	}
	token, err := flow.DeviceAccessToken(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, client.LoginError("the log-in was not confirmed: " + client.OAuthReason(err))
	}
	return token, nil
}
