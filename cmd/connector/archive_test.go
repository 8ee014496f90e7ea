// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/test/openbao"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestExportAndImport of a participant context, as a person does it: with files, a key of age-keygen, and each connector's own configuration.
func TestExportAndImport(t *testing.T) {
	bao := openbao.Start(t)
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", bao.RootToken)
	connector := func(name string) (conn *pgx.Conn, file string) {
		t.Helper()
		cc, err := pgx.ParseConfig(pgtest.NewDatabase(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Migrate(t.Context(), cc, nil); err != nil {
			t.Fatal(err)
		}
		file = write(name+".yaml", fmt.Sprintf(`publicURL: https://%s.example
database: {host: %s, port: %d, name: %s, user: %s, sslMode: disable}
vault: {address: %q, mount: secret, prefix: %s, auth: {method: token, tokenFile: %q}}
`, name, cc.Host, cc.Port, cc.Database, cc.User, bao.Address, name, token))
		cc.RuntimeParams["kaphera.ctx"] = "*"
		if conn, err = pgx.ConnectConfig(t.Context(), cc); err != nil {
			t.Fatal(err)
		}
		return conn, file
	}
	from, one := connector("one")
	defer func() { _ = from.Close(t.Context()) }()
	to, two := connector("two")
	defer func() { _ = to.Close(t.Context()) }()
	if _, err := from.Exec(t.Context(), `INSERT INTO wallet.participants (ctx, did, updated_at) VALUES ('acme', 'did:web:one.example:acme', now()), ('other', 'did:web:one.example:other', now())`); err != nil {
		t.Fatal(err)
	}
	bao.Call(t, "POST", "secret/data/one/acme/secrets/backend", map[string]any{"data": map[string]string{"value": "hush"}})
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity := write("key", "# created by age-keygen\n"+key.String()+"\n")
	archive := filepath.Join(dir, "acme.archive")
	var log bytes.Buffer
	command := func(args ...string) error { return run(t.Context(), slog.New(slog.NewJSONHandler(&log, nil)), args) }
	for _, args := range [][]string{
		{"export", "--config=" + one, "--to=" + archive, "--recipient=" + key.Recipient().String(), "--context=acme"},
		{"import", "--config=" + two, "--from=" + archive, "--identity=" + identity},
	} {
		if err := command(args...); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(whole); !strings.Contains(log.String(), `"sha256":"`+hex.EncodeToString(sum[:])+`"`) {
		t.Errorf("the archive's sum is not in %s", log.String())
	}
	_, three := connector("three")
	for content, says := range map[string]string{key.String() + "\n\n" + string(whole): "", key.String() + "\n": "no empty line", "\n" + string(whole): "no private key"} {
		in, err := os.Open(write("stdin", content))
		if err != nil {
			t.Fatal(err)
		}
		os.Stdin = in
		err = command("import", "--config="+three, "--from=-", "--identity=-")
		if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || strings.Contains(err.Error(), key.String())) {
			t.Errorf("with key and archive from standard input: %v, want %q", err, says)
		}
		_ = in.Close()
	}
	if _, err := from.Exec(t.Context(), "INSERT INTO audit.chains (ctx) VALUES ('acme')"); err != nil {
		t.Fatal(err)
	}
	held := func() (held bool) {
		t.Helper()
		if err := from.QueryRow(t.Context(), "SELECT moving FROM audit.chains WHERE ctx = 'acme'").Scan(&held); err != nil {
			t.Fatal(err)
		}
		return held
	}
	if err := command("export", "--config="+one, "--to="+archive, "--recipient="+key.Recipient().String(), "--hold"); err == nil || !strings.Contains(err.Error(), "--context") || held() {
		t.Errorf("all contexts are held: %v", err)
	}
	if err := command("export", "--config="+one, "--to="+archive, "--recipient="+key.Recipient().String(), "--hold", "--context=acme"); err != nil || !held() {
		t.Errorf("it is not held: %v", err)
	}
	if err := command("release", "--config="+one, "--context=acme"); err == nil || !strings.Contains(err.Error(), "--imported-nowhere") || !held() {
		t.Errorf("it is released without a word: %v", err)
	}
	if err := command("release", "--config="+one, "--context=acme", "--imported-nowhere"); err != nil || held() {
		t.Errorf("it is not released: %v", err)
	}
	var contexts string
	if err := to.QueryRow(t.Context(), "SELECT string_agg(ctx, ',') FROM wallet.participants").Scan(&contexts); err != nil || contexts != "acme" {
		t.Errorf("imported: %q, %v", contexts, err)
	}
	if got := bao.Call(t, "GET", "secret/data/two/acme/secrets/backend", nil)["data"].(map[string]any)["data"].(map[string]any)["value"]; got != "hush" {
		t.Errorf("the secret is %v", got)
	}
	if info, err := os.Stat(archive); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	before, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := command("export", "--config="+one, "--to="+archive, "--recipient="+key.Recipient().String(), "--context=nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("an export that fails: %v", err)
	}
	if after, err := os.ReadFile(archive); err != nil || string(after) != string(before) {
		t.Errorf("an export that fails leaves another archive: %v", err)
	}
	if left, err := filepath.Glob(archive + ".*"); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}
