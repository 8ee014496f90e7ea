// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/config"
)

const minimal = `
publicURL: https://shared.example/
database: {host: db, name: connector, user: connector}
`

func TestParseFillsDefaults(t *testing.T) {
	c, err := config.Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if c.PublicURL != "https://shared.example" || c.Database.Port != 5432 || c.Database.SSLMode != "verify-full" || c.Vault.Mount != "kv" {
		t.Errorf("defaults are missing: %+v", c)
	}
	if want := (config.PerParticipant{Connections: 5, Requests: 64, Messages: 8, Accesses: 128}); c.PerParticipant != want {
		t.Errorf("each participant has %+v, want %+v", c.PerParticipant, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, want string }{
		"an unknown key":            {minimal + "vualt: {}\n", "vualt"},
		"a public URL without host": {strings.Replace(minimal, "https://shared.example/", "shared", 1), `publicURL "shared"`},
		"a missing database host":   {strings.Replace(minimal, "host: db, ", "", 1), "database.host"},
		"an unknown TLS mode":       {strings.Replace(minimal, "host: db", "host: db, sslMode: prefer", 1), `database.sslMode "prefer"`},
		"an unknown Vault log-in":   {minimal + "vault: {auth: {method: ldap}}\n", `vault.auth.method "ldap"`},
		"a share below nothing":     {minimal + "perParticipant: {requests: -1}\n", "perParticipant.requests -1"},
		"a share of more than all":  {minimal + "perParticipant: {connections: 11}\n", "perParticipant.connections 11"},
		"a duration without unit":   {minimal + "protocol: {requestTimeout: \"20\"}\n", "missing unit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := config.Parse([]byte(tc.yaml)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one naming %s", err, tc.want)
			}
		})
	}
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if _, err := config.ReadSecret(path); err == nil {
		t.Error("a missing file was read")
	}
	for content, ok := range map[string]bool{"s3cret\n": true, "\n": false} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := config.ReadSecret(path); (err == nil) != ok || (ok && got != "s3cret") {
			t.Errorf("%q: got %q, %v", content, got, err)
		}
	}
}
