// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("publicURL: https://x.example\nlisten: {public: \"127.0.0.1:0\", internal: \"127.0.0.1:0\", health: \"127.0.0.1:0\"}\ndatabase: {host: 127.0.0.1, port: 1, name: n, user: u, sslMode: disable}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no command":                       {nil, "usage"},
		"an unknown command":               {[]string{"start"}, `"start"`},
		"no roles":                         {[]string{"serve", "--config=" + file}, "--roles"},
		"an unknown role":                  {[]string{"serve", "--roles=broker", "--config=" + file}, `"broker"`},
		"no configuration":                 {[]string{"migrate", "--config=" + file + ".none"}, file + ".none"},
		"a database that is not there":     {[]string{"migrate", "--config=" + file}, "127.0.0.1:1"},
		"a process without internal token": {[]string{"serve", "--roles=wallet", "--config=" + file}, "internal.tokenFile"},
		"an archive for nobody":            {[]string{"export", "--to=-", "--config=" + file}, "--recipient"},
		"an archive for no key":            {[]string{"export", "--to=-", "--recipient=age1nonsense", "--config=" + file}, "age1nonsense"},
		"an archive without a key":         {[]string{"import", "--from=-", "--config=" + file}, "--identity"},
		"an archive with no key":           {[]string{"import", "--from=-", "--identity=" + file, "--config=" + file}, "age-keygen"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), slog.New(slog.DiscardHandler), tc.args); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want one saying %s", err, tc.says)
			}
		})
	}
}
