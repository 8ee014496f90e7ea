// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaphera/kaphera/client"
)

// people makes the bundle one where a person logs in by the device flow.
func people(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.env = map[string]string{}
	b.answer("GET /api/v1/status", client.StatusReport{Participants: []client.StatusParticipant{}})
	b.answer("POST /realm/device", map[string]any{"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://id.example/device", "verification_uri_complete": "https://id.example/device?code=ABCD-EFGH", "interval": 1, "expires_in": 60})
	b.answer("POST /realm/token", map[string]any{"access_token": "a-token", "refresh_token": "r-token", "token_type": "Bearer", "expires_in": 300})
	b.on("POST /realm/revoke", func(http.ResponseWriter, *http.Request) {})
	b.now = time.Now()
	return b
}

func TestLoggingInAndOut(t *testing.T) {
	b := people(t)
	r := b.run("login", "--api", b.server.URL)
	if r.code != ExitOK || !strings.Contains(r.err, "https://id.example/device?code=ABCD-EFGH") || !strings.Contains(r.err, "ABCD-EFGH") {
		t.Fatalf("%d %s%s", r.code, r.out, r.err)
	}
	if got := b.called("POST /realm/token"); len(got) != 1 || !strings.Contains(got[0], "code_verifier=") || !strings.Contains(got[0], "client_id=kaphera-cli") {
		t.Errorf("asked for the token with %v", got)
	}
	err := filepath.WalkDir(b.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != ownerOnly {
			t.Errorf("%s may be read by others: %s", path, info.Mode())
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), "r-token") != strings.Contains(path, "tokens") {
			t.Errorf("%s: %s", path, raw)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := b.run("status"); r.code != ExitOK {
		t.Errorf("with the stored log-in: %d %s", r.code, r.err)
	}
	if r := b.run("status", "--api", "https://elsewhere.example"); r.code != ExitLogin || !strings.Contains(r.err, "nobody is logged in to https://elsewhere.example") {
		t.Errorf("the log-in would go elsewhere: %d %s", r.code, r.err)
	}
	if r := b.run("logout"); r.code != ExitOK || len(b.called("POST /realm/revoke")) != 1 || !strings.Contains(b.called("POST /realm/revoke")[0], "token=r-token") {
		t.Errorf("logging out: %d %s, %v", r.code, r.err, b.called("POST /realm/revoke"))
	}
	if r := b.run("status"); r.code != ExitLogin {
		t.Errorf("after logging out: %d %s", r.code, r.err)
	}
	if r := b.run("logout"); r.code != ExitOK || !strings.Contains(r.out, "Nobody was logged in") {
		t.Errorf("logging out twice: %d %s", r.code, r.out)
	}
}

func TestAnExpiredTokenIsRenewedOnceAndKept(t *testing.T) {
	b := people(t)
	b.run("login", "--api", b.server.URL)
	b.now = b.now.Add(time.Hour)
	if r := b.run("status"); r.code != ExitOK {
		t.Fatalf("%d %s", r.code, r.err)
	}
	got := b.called("POST /realm/token")
	if len(got) != 2 || !strings.Contains(got[1], "grant_type=refresh_token") || !strings.Contains(got[1], "refresh_token=r-token") {
		t.Errorf("asked %v", got)
	}
	b.now = time.Now()
	if b.run("status"); len(b.called("POST /realm/token")) != 2 {
		t.Error("the renewed token was not kept")
	}
	b.on("POST /realm/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"Token is not active"}`))
	})
	b.now = b.now.Add(time.Hour)
	if r := b.run("status"); r.code != ExitLogin || !strings.Contains(r.err, "Token is not active") || strings.Contains(r.err, "r-token") {
		t.Errorf("a log-in that has ended: %d %s", r.code, r.err)
	}
}

func TestLogInsThatFail(t *testing.T) {
	b := people(t)
	b.on("POST /realm/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"access_denied","error_description":"The end user denied the request"}`))
	})
	if r := b.run("login", "--api", b.server.URL); r.code != ExitLogin || !strings.Contains(r.err, "The end user denied the request") {
		t.Errorf("denied: %d %s", r.code, r.err)
	}
	if _, err := os.Stat(filepath.Join(b.home, "config.yaml")); err == nil {
		t.Error("a log-in that failed is remembered")
	}
	if r := b.run("login"); r.code != ExitUsage {
		t.Errorf("without an address: %d %s", r.code, r.err)
	}
	if r := b.run("login", "--api", "http://elsewhere.example"); r.code != ExitFailed || !strings.Contains(r.err, "not an https URL") {
		t.Errorf("without TLS: %d %s", r.code, r.err)
	}
	if r := b.run("login", "--api", b.server.URL, "--client-credentials"); r.code != ExitUsage || !strings.Contains(r.err, "KAPHERA_CLIENT_ID") {
		t.Errorf("without credentials: %d %s", r.code, r.err)
	}
	b.answer("GET /realm/.well-known/openid-configuration", map[string]string{"issuer": "https://evil.example", "token_endpoint": "https://evil.example/token"})
	if r := b.run("login", "--api", b.server.URL); r.code != ExitLogin || !strings.Contains(r.err, "evil.example") {
		t.Errorf("an issuer that calls itself otherwise: %d %s", r.code, r.err)
	}
}

func TestAPersonIsToldThatTheEnvironmentGoesFirst(t *testing.T) {
	b := people(t)
	b.env = map[string]string{"KAPHERA_CLIENT_ID": "ci", "KAPHERA_CLIENT_SECRET": "ci-secret"}
	if r := b.run("login", "--api", b.server.URL); r.code != ExitOK || !strings.Contains(r.err, "act as ci unless they name a context") || strings.Contains(r.err, "ci-secret") {
		t.Errorf("%d %s", r.code, r.err)
	}
}

// TestAContextThatIsNamedGoesBeforeTheEnvironment: the person's token, not the program's.
func TestAContextThatIsNamedGoesBeforeTheEnvironment(t *testing.T) {
	b := people(t)
	b.run("login", "--api", b.server.URL, "--context", "anna")
	b.env = map[string]string{"KAPHERA_API": b.server.URL, "KAPHERA_CLIENT_ID": "ci", "KAPHERA_CLIENT_SECRET": "ci-secret"}
	before := len(b.called("POST /realm/token"))
	if r := b.run("status", "--context", "anna"); r.code != ExitOK || len(b.called("POST /realm/token")) != before {
		t.Errorf("%d %s: a token was asked for with %v", r.code, r.err, b.called("POST /realm/token"))
	}
	if r := b.run("status"); r.code != ExitOK || len(b.called("POST /realm/token")) != before+1 {
		t.Errorf("without a context: %d %s", r.code, r.err)
	}
}

func TestAProgramLogsIn(t *testing.T) {
	b := people(t)
	b.env = map[string]string{"KAPHERA_CLIENT_ID": "ci", "KAPHERA_CLIENT_SECRET": "ci-secret"}
	if r := b.run("login", "--api", b.server.URL, "--client-credentials", "--context", "pilot"); r.code != ExitOK || !strings.Contains(r.out, "context pilot") {
		t.Fatalf("%d %s", r.code, r.err)
	}
	b.env = map[string]string{"KAPHERA_CONTEXT": "pilot"}
	if r := b.run("status"); r.code != ExitOK {
		t.Errorf("%d %s", r.code, r.err)
	}
	if err := filepath.WalkDir(b.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if raw, _ := os.ReadFile(path); strings.Contains(string(raw), "ci-secret") {
				t.Errorf("%s holds the secret", path)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestOneTokenServesManyCalls(t *testing.T) {
	b := setup(t)
	var pages atomic.Int64
	b.on("GET /api/v1/cells", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if pages.Add(1) < 4 {
			_, _ = w.Write([]byte(`{"items":[],"next":"` + strings.Repeat("x", int(pages.Load())) + `"}`))
			return
		}
		_, _ = w.Write([]byte(`{"items":[]}`))
	})
	if b.run("get", "cells"); pages.Load() != 4 || len(b.called("POST /realm/token")) != 1 {
		t.Errorf("%d calls, %d tokens", pages.Load(), len(b.called("POST /realm/token")))
	}
}
