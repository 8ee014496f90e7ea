// SPDX-License-Identifier: FSL-1.1-ALv2

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const complete = `
namespace: kaphera-system
apiURL: https://api.demo.kaphera.test
consoleURL: https://console.demo.kaphera.test
oidc: {issuer: https://id.demo.kaphera.test/realms/kaphera}
console: {clientSecretFile: /etc/kaphera/secret}
nats: {url: tls://nats:4222}
`

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cloud.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, complete)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.Public != ":8080" || c.OIDC.Audience != "kaphera-api" || c.Console.ClientID != "kaphera-console" || c.OIDC.CLIClientID != "kaphera-cli" {
		t.Errorf("defaults are %+v", c)
	}
}

func TestEveryMistakeIsToldByField(t *testing.T) {
	for text, want := range map[string][]string{
		"{}": {"namespace is missing", "apiURL is missing", "oidc.issuer is missing", "nats.url is missing", "console.clientSecretFile is missing"},
		strings.Replace(complete, "https://api", "http://api", 1):         {`apiURL "http://api.demo.kaphera.test" is not an https URL`},
		strings.Replace(complete, "realms/kaphera", "realms/kaphera/", 1): {"must not end with a slash"},
		complete + "natz: {}\n": {`unknown field "natz"`},
	} {
		_, err := load(t, text)
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("got %v, want %q in it", err, w)
			}
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent.yaml")); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("an absent file: %v", err)
	}
}

func TestTheRoleAsksForNoMoreThanItNeeds(t *testing.T) {
	var role rbacv1.Role
	if err := yaml.UnmarshalStrict(RBAC, &role); err != nil {
		t.Fatal(err)
	}
	for _, r := range role.Rules {
		for _, v := range append(append(r.Verbs, r.Resources...), r.APIGroups...) {
			if v == "*" {
				t.Errorf("rule %+v has a wildcard", r)
			}
		}
		for _, res := range r.Resources {
			if res == "secrets" && (len(r.ResourceNames) != 1 || len(r.Verbs) != 1) {
				t.Errorf("secrets: %+v, want one secret to get", r)
			}
			if strings.Contains(res, "/status") {
				t.Errorf("status is the controllers': %s", res)
			}
		}
	}
}
