// SPDX-License-Identifier: FSL-1.1-ALv2

package config

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// FuzzParse: a configuration that is taken names addresses to which tokens may go, and reads the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(complete))
	f.Add([]byte(strings.Replace(complete, "https://api", "http://127.0.0.1.evil.example", 1)))
	f.Add([]byte(strings.ReplaceAll(complete, "https://", "http://127.0.0.1:8080/")))
	f.Add([]byte("a: &a [x]\nb: [*a, *a]\n"))
	f.Add([]byte("namespace: {}\n---\nnamespace: x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parse(raw)
		if err != nil {
			return
		}
		for _, address := range []string{c.APIURL, c.ConsoleURL, c.OIDC.Issuer} {
			if u, err := url.Parse(address); err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Hostname() != "127.0.0.1" {
				t.Fatalf("%s has the address %q", raw, address)
			}
		}
		written, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(written)
		if diff := cmp.Diff(c, again); err != nil || diff != "" {
			t.Fatalf("%s reads otherwise again: %v\n%s", written, err, diff)
		}
	})
}
