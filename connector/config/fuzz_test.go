// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/connector/config"
)

// FuzzParse: a configuration that is taken can be worked with, and reads the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(minimal + "listen: {public: ':9000'}\ntrust: {allowPlainHTTP: true, allowPrivateNetworks: true}\ndataPlane: {allowedNetworks: [10.0.0.0/8], deniedNetworks: ['fd00::/8'], tokenLifetime: 90m}\n" +
		"audit: {keepBodies: 720h, leaving: [negotiation]}\nvault: {address: https://vault.example, auth: {method: approle}}\nmanagement: {oauth2: {issuer: i, audience: a, jwksURL: j}}\n"))
	f.Add([]byte(strings.Replace(minimal, "shared.example/", "shared.example//x//?y#z", 1)))
	f.Add([]byte(minimal + "protocol: {requestTimeout: -1s, workers: -3}\n"))
	f.Add([]byte(minimal + "internal: {walletURL: 'http://[::1]:x', dataPlaneURL: ':'}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := config.Parse(raw)
		if err != nil {
			return
		}
		if u, err := url.Parse(c.PublicURL + "/supplier/did.json"); err != nil || u.Hostname() == "" && u.Host == "" || !strings.HasSuffix(u.Path, "/supplier/did.json") || strings.Contains(u.Path, "//supplier") {
			t.Fatalf("%s is reached at %q", raw, c.PublicURL)
		}
		if c.Protocol.RequestTimeout <= 0 || c.Protocol.Workers <= 0 || c.DataPlane.TokenLifetime <= 0 || c.DataPlane.BackendTimeout <= 0 || c.Database.MaxConns <= 0 || c.Audit.KeepBodies < 0 {
			t.Fatalf("%s gives %+v", raw, c)
		}
		_, _ = c.Peers(), c.Backends()
		written, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse(written)
		if diff := cmp.Diff(c, again, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); err != nil || diff != "" {
			t.Fatalf("%s reads otherwise again: %v\n%s", written, err, diff)
		}
	})
}
