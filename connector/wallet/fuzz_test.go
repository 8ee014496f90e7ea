// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

// FuzzLocation: an issuer's answer leads nowhere but beneath its service.
func FuzzLocation(f *testing.F) {
	// As Eclipse IdentityHub 0.15.1 answers, and as others may.
	for _, location := range []string{"2e4ee7a0-5a1e-4a5c-8f4b-0f1f0f6f7f8f", "/api/issuance/v1alpha/participants/aXNzdWVy/requests/1", "https://evil.example/requests/1?x=y#z", "requests/..", "//evil.example", "a%2F..%2Fb", "%", ""} {
		f.Add(location)
	}
	f.Fuzz(func(t *testing.T, location string) {
		const base = "https://issuer.example/issuance"
		at := statusAddress(base, location)
		if at == "" {
			return
		}
		u, err := url.Parse(at)
		if err != nil {
			t.Fatalf("%q gives %q: %v", location, at, err)
		}
		id, below := strings.CutPrefix(u.EscapedPath(), "/issuance/requests/")
		if !below || id == "" || strings.Contains(id, "/") || path.Clean(u.EscapedPath()) != u.EscapedPath() || u.Host != "issuer.example" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q leads to %q", location, at)
		}
	})
}
