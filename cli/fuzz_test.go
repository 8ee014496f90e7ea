// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/odrl"
)

// FuzzFile: a file that a person names is read or refused, as JSON and as YAML, and what was read can be sent on.
func FuzzFile(f *testing.F) {
	for _, name := range []string{"carbon-footprint.json", "digital-product-passport.json", "quality-recall.json", "parties.json", "profile.yaml"} {
		raw, err := os.ReadFile("../examples/policies/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("id: pcf-gh-4711\nproperties:\n  title: Footprint\ndataAddress:\n  type: HttpData\n  baseUrl: https://backend.internal/pcf\n"))
	f.Add([]byte("a: &a [x]\nb: [*a, *a]\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := &app{in: bytes.NewReader(raw)}
		if asset, err := a.readAsset("-"); err == nil {
			if _, err := json.Marshal(asset); err != nil || asset.ID == "" || asset.DataAddress == nil {
				t.Fatalf("%s is asset %+v: %v", raw, asset, err)
			}
		}
		a.in = bytes.NewReader(raw)
		if p, err := a.profileFile("-"); err == nil {
			_, _ = odrl.NewEvaluator(p)
		}
		var policy json.RawMessage
		a.in = bytes.NewReader(raw)
		if err := a.readDocument("-", &policy); err == nil && len(policy) > 0 && !json.Valid(policy) {
			t.Fatalf("%s is read as %s", raw, policy)
		}
	})
}

// FuzzShown: nothing that somebody else wrote moves a terminal's cursor, or passes for a line of ours.
func FuzzShown(f *testing.F) {
	for _, text := range []string{"Footprint of gearbox housing", "\x1b[2J\x1b[1;1Happroved", "a\nb\tc", "\u202egnp.exe", `"quoted"`, "\x9b31m"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var out bytes.Buffer
		a := &app{out: &out, err: &out, zone: time.UTC}
		tab := table{columns: []string{"A", "B"}}
		tab.add(text, what(&audit.Record{Type: audit.Management, Body: json.RawMessage(text)}))
		tab.note("x")
		a.printTable(tab)
		if lines := strings.Count(out.String(), "\n"); lines != 3 {
			t.Fatalf("%q is shown on %d lines: %q", text, lines, out.String())
		}
		a.showOffer("approve", client.Approval{Counterparty: text, AssetID: text}, &odrl.Policy{}, "hash")
		a.report(errors.New(text), "kaphera")
		for _, r := range ours.ReplaceAllString(out.String(), "") {
			if r != '\n' && r != '\t' && !strconv.IsPrint(r) {
				t.Fatalf("%q shows %q", text, r)
			}
		}
	})
}

// FuzzStored: what is kept of log-ins is read, or refused in words with what to do; a name of a context leads to no other file.
func FuzzStored(f *testing.F) {
	f.Add([]byte("current: demo\ncontexts:\n  demo: {api: https://api.example, caFile: /ca.crt}\n"), []byte(`{"token":{"access_token":"a","refresh_token":"r","expiry":"2026-01-01T00:00:00Z"},"clientID":"c","tokenURL":"https://id.example/token"}`))
	f.Add([]byte("current: ../../x\ncontexts:\n  ../../x: {api: ' '}\n"), []byte(`{"token":null}`))
	f.Add([]byte("contexts: [a]\n"), []byte(`{"token":{"access_token":{}}}`))
	f.Fuzz(func(t *testing.T, config, token []byte) {
		a := &app{home: t.TempDir(), env: func(string) string { return "" }}
		if err := writeFile(a.configPath(), config); err != nil {
			t.Fatal(err)
		}
		stored, err := a.loadContext()
		if err != nil {
			if err.Error() == "" {
				t.Fatalf("%q is refused without a word", config)
			}
			return
		}
		if folder := filepath.Dir(a.tokenPath(stored.Name)); folder != filepath.Join(a.home, "tokens") {
			t.Fatalf("%q keeps its token in %s", stored.Name, folder)
		}
		if err := writeFile(a.tokenPath("x"), token); err != nil {
			t.Fatal(err)
		}
		if kept, err := a.loadToken("x"); err == nil && kept.Token == nil {
			t.Fatalf("%q holds no token, and no error", token)
		}
	})
}
