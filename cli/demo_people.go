// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"

	"github.com/kaphera/kaphera/client"
)

// demoLoginCommand logs in as one of the demonstration's people, whose passwords are in a file.
func (a *app) demoLoginCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "login PERSON", Short: "Log in as one of the demonstration's people", Args: cobra.ExactArgs(1),
		Long: "Log in by the same steps as kaphera login, with the log-in pages filled in as the person would, and the password that the file of people has.\n" +
			"The log-in is stored under the person's name, for --context; the one in use stays.",
		Example: "  kaphera demo login gabriel && kaphera --context gabriel approvals list",
		RunE: func(cmd *cobra.Command, args []string) error {
			p := *a
			p.context = args[0]
			if err := p.loginAsPerson(cmd.Context(), first(file, a.env(peopleVariable))); err != nil {
				return err
			}
			a.say("Logged in as %s. Next: kaphera --context %s approvals list", args[0], args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "people", "", peopleHelp)
	return cmd
}

const (
	peopleVariable = "KAPHERA_PEOPLE"
	peopleHelp     = "file with a user name and a password on each line (default: " + peopleVariable + "; make demo leaves .demo/people.txt)"
)

// loginAsPerson logs in as the person whom the context names.
func (a *app) loginAsPerson(ctx context.Context, file string) error {
	password, err := passwordOf(file, a.context)
	if err != nil {
		return err
	}
	_, err = a.login(ctx, false, func(ctx context.Context, code *oauth2.DeviceAuthResponse) error {
		h, err := client.HTTPClient(client.Config{CAFile: first(a.caFile, a.env("KAPHERA_CA_FILE"))})
		if err != nil {
			return err
		}
		h.CheckRedirect = nil
		if h.Jar, err = cookiejar.New(nil); err != nil {
			return err
		}
		return fillIn(ctx, h, code.VerificationURIComplete, a.context, password)
	})
	return err
}

func passwordOf(file, person string) (string, error) {
	if file == "" {
		return "", usage("nobody's password is known: give --people FILE with a user name and a password on each line (make demo leaves .demo/people.txt)")
	}
	raw, err := os.ReadFile(file) // #nosec G304 -- the caller names the file
	if err != nil {
		return "", fail(ExitUsage, "give --people FILE", "file of people: %s", err)
	}
	for line := range strings.Lines(string(raw)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == person {
			return words[1], nil
		}
	}
	return "", fail(ExitNotFound, "make demo writes it with everybody whom the Platform names", "%s has no password of %q", file, person)
}

// fillIn goes through the identity provider's pages as a person with a browser would: name and password, then yes to the device.
func fillIn(ctx context.Context, h *http.Client, address, person, password string) error {
	page, err := openPage(ctx, h, address, nil)
	if err != nil {
		return err
	}
	if !page.asks("password") {
		return client.LoginError(fmt.Sprintf("%s shows no log-in form but %q", address, page.title))
	}
	// A password goes nowhere but to the host that showed the code.
	if first, err := url.Parse(address); err != nil || first.Host != page.action.Host {
		return client.LoginError(fmt.Sprintf("the log-in form of %s leads to %s", address, page.action.Host))
	}
	page.values.Set("username", person)
	page.values.Set("password", password)
	if page, err = openPage(ctx, h, page.action.String(), page.values); err != nil {
		return err
	}
	if page.asks("password") {
		return client.LoginError(fmt.Sprintf("the identity provider does not take %s's password: it may have been changed since the file of people was written", person))
	}
	if !page.asks("accept") {
		return client.LoginError(fmt.Sprintf("the identity provider asks %s for something else: %q", person, page.title))
	}
	_, err = openPage(ctx, h, page.action.String(), page.values)
	return err
}

// formPage is what a form on it would send, and where to.
type formPage struct {
	title  string
	action *url.URL
	values url.Values
}

func (p formPage) asks(field string) bool { return p.values.Has(field) }

// openPage gets a page, or sends a form, and reads the form of the page that comes.
func openPage(ctx context.Context, h *http.Client, address string, values url.Values) (formPage, error) {
	out := formPage{values: url.Values{}}
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if values != nil {
		method, body = http.MethodPost, strings.NewReader(values.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return out, fmt.Errorf("log-in page %q: %w", address, err)
	}
	if values != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := h.Do(r)
	if err != nil {
		return out, client.LoginError("the identity provider does not answer: " + err.Error())
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 1 << 20
	doc, err := html.Parse(io.LimitReader(resp.Body, most))
	if err != nil {
		return out, fmt.Errorf("log-in page of %s: %w", resp.Request.URL.Host, err)
	}
	action := ""
	for n := range doc.Descendants() {
		switch n.Data {
		case "title":
			if n.FirstChild != nil && out.title == "" {
				out.title = strings.TrimSpace(n.FirstChild.Data)
			}
		case "form":
			action = first(action, attribute(n, "action"))
		case "input", "button":
			if name := attribute(n, "name"); name != "" && name != "cancel" {
				out.values.Set(name, attribute(n, "value"))
			}
		}
	}
	if resp.StatusCode != http.StatusOK {
		return out, client.LoginError(fmt.Sprintf("the identity provider answered %s: %q", resp.Status, out.title))
	}
	if out.action, err = resp.Request.URL.Parse(action); err != nil {
		return out, fmt.Errorf("log-in page of %s: %w", resp.Request.URL.Host, err)
	}
	return out, nil
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
