// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// passwords is a file as make demo leaves it.
func passwords(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "people.txt")
	lines := ""
	for _, person := range []string{"gabriel", "renate", "berta"} {
		lines += person + "    " + person + "-password    organization-admin of somewhere\n"
	}
	if err := os.WriteFile(file, []byte(lines+"otto       changed-password   viewer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// loginPages makes the bundle an identity provider whose pages a person fills in: a form of name and password, then one that asks about the device.
func (b *bundle) loginPages() {
	b.answer("POST /realm/device", map[string]any{"device_code": "d", "user_code": "ABCD", "verification_uri": b.server.URL + "/device", "verification_uri_complete": b.server.URL + "/device?code=ABCD", "interval": 1, "expires_in": 60})
	page := func(form string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, "<html><head><title>Sign in</title></head><body>%s</body></html>", form)
		}
	}
	login := page(`<form action="/authenticate?session=1"><input name="username"><input name="password" type="password"><input type="hidden" name="credentialId"><input type="submit" name="login" value="In"></form>`)
	b.on("GET /device", login)
	b.on("POST /authenticate", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("password") != r.FormValue("username")+"-password" {
			login(w, r)
			return
		}
		page(`<form action="consent"><input type="hidden" name="code" value="c"><button name="accept" value="Yes">Yes</button><button name="cancel" value="No">No</button></form>`)(w, r)
	})
	b.on("POST /consent", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("accept") != "Yes" || r.FormValue("cancel") != "" || r.FormValue("code") != "c" {
			b.Errorf("consented with %v", r.Form)
		}
		page("done")(w, r)
	})
}

func TestLoggingInAsAPersonOfTheDemo(t *testing.T) {
	b := people(t)
	b.loginPages()
	b.env["KAPHERA_API"], b.env[peopleVariable] = b.server.URL, passwords(t)
	if r := b.run("demo", "login", "gabriel"); r.code != ExitOK || !strings.Contains(r.out, "kaphera --context gabriel") || strings.Contains(r.out+r.err, "gabriel-password") || len(b.called("POST /consent")) != 1 {
		t.Fatalf("%d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("status", "--context", "gabriel"); r.code != ExitOK {
		t.Errorf("as gabriel: %d %s", r.code, r.err)
	}
	if r := b.run("status"); r.code != ExitLogin { // the log-in in use stays
		t.Errorf("without a context: %d %s", r.code, r.err)
	}
	for name, c := range map[string]struct {
		prepare func()
		person  string
		code    int
		words   string
	}{
		"somebody who changed the password": {nil, "otto", ExitLogin, "does not take otto's password"},
		"somebody who is not in the file":   {nil, "nobody", ExitNotFound, `no password of "nobody"`},
		"a form that leads elsewhere": {func() {
			b.on("GET /device", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`<form action="https://evil.example/"><input name="password"></form>`))
			})
		}, "gabriel", ExitLogin, "leads to evil.example"},
		"no file": {func() { b.env[peopleVariable] = "" }, "gabriel", ExitUsage, "--people FILE"},
	} {
		b.loginPages()
		b.env[peopleVariable] = passwords(t)
		if c.prepare != nil {
			c.prepare()
		}
		if r := b.run("demo", "login", c.person); r.code != c.code || !strings.Contains(r.err, c.words) || strings.Contains(r.err, "-password ") {
			t.Errorf("%s: %d %s", name, r.code, r.err)
		}
	}
}
