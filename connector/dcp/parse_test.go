// SPDX-License-Identifier: Apache-2.0

package dcp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/netguard"
)

func TestWebURL(t *testing.T) {
	for did, want := range map[string]string{
		"did:web:example.org":                        "https://example.org/.well-known/did.json",
		"did:web:example.org:acme":                   "https://example.org/acme/did.json",
		"did:web:example.org%3A8443:a:b-1":           "https://example.org:8443/a/b-1/did.json",
		"did:web:example.org%3a8443:a":               "https://example.org:8443/a/did.json",
		"did:web:localhost%3A7001:holder":            "https://localhost:7001/holder/did.json",
		"did:web:example.org:ZGlkOndlYg==":           "https://example.org/ZGlkOndlYg==/did.json",
		"did:web:example.org:with%20space":           "",
		"did:web:example.org:..":                     "",
		"did:web:example.org:%2e%2e:etc":             "",
		"did:web:example.org:a%2Fb":                  "",
		"did:web:example.org:":                       "",
		"did:web:example.org::a":                     "",
		"did:web:user@example.org%3Ax":               "",
		"did:web:example.org/a":                      "",
		"did:web:example.org#key":                    "",
		"did:web:..":                                 "",
		"did:web:a..b:c":                             "",
		"did:web:example.org%3A8443":                 "https://example.org:8443/.well-known/did.json",
		"did:web:":                                   "",
		"did:key:z6Mk":                               "",
		"":                                           "",
		"did:web:example.org%3A443%40evil.example:a": "",
	} {
		got, err := dcp.WebURL(did, false)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", did, got, err, want)
		}
	}
	if got, err := dcp.WebURL("did:web:localhost%3A80:a", true); err != nil || got != "http://localhost:80/a/did.json" {
		t.Errorf("plain HTTP: %q, %v", got, err)
	}
}

func TestCheckPublished(t *testing.T) {
	for _, tc := range []struct{ did, public, want string }{
		{"did:web:shared.example:acme", "https://shared.example", ""},
		{"did:web:shared.example%3A8443:acme", "https://shared.example:8443/", ""},
		{"did:web:localhost%3A80:acme", "http://localhost:80", ""},
		{"did:web:other.example:acme", "https://shared.example", "https://other.example/acme/did.json"},
		{"did:web:shared.example:globex", "https://shared.example", "https://shared.example/acme/did.json"},
	} {
		err := dcp.CheckPublished(tc.did, tc.public, "acme")
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s at %s: %v", tc.did, tc.public, err)
		}
	}
}

func TestBase(t *testing.T) {
	for _, tc := range []struct{ did, public, want string }{
		{"did:web:shared.example:acme", "https://shared.example", "https://shared.example"},
		{"did:web:born.example%3A8443:acme", "https://shared.example", "https://born.example:8443"},
		{"did:web:born.example:base:acme", "https://shared.example/base", "https://born.example/base"},
		{"did:web:localhost%3A80:acme", "http://localhost:8080", "http://localhost:80"},
		{"did:web:born.example:globex", "https://shared.example", "https://shared.example"},
		{"did:web:born.example", "https://shared.example", "https://shared.example"},
		{"did:web:born.example:notacme", "https://shared.example", "https://shared.example"},
		{"urn:acme", "https://shared.example", "https://shared.example"},
	} {
		if got := dcp.Base(tc.did, tc.public, "acme"); got != tc.want {
			t.Errorf("%s at %s: %q, not %q", tc.did, tc.public, got, tc.want)
		}
	}
}

func TestParseScope(t *testing.T) {
	for scope, want := range map[string]dcp.Scope{
		"org.eclipse.dspace.dcp.vc.type:Member":      {What: "Member"},
		"org.eclipse.dspace.dcp.vc.type:Member:read": {What: "Member"},
		"org.eclipse.tractusx.vc.type:Member:read":   {What: "Member"},
		"org.eclipse.dspace.dcp.vc.id:urn:uuid:1-2":  {ByID: true, What: "urn:uuid:1-2"},
		"org.eclipse.dspace.dcp.vc.type:":            {},
		"org.eclipse.dspace.dcp.vc.type:a:b:read":    {},
		"org.eclipse.dspace.dcp.vc.type:a b":         {},
		"Member":                                     {},
		"":                                           {},
	} {
		got, err := dcp.ParseScope(scope)
		if got != want || (err == nil) != (want != dcp.Scope{}) {
			t.Errorf("%q: got %+v, %v; want %+v", scope, got, err, want)
		}
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, s := range []dcp.Settings{{ClockSkew: 1e12}, {KeyRelationships: "Never"}, {ScopeEscalation: "x"}, {DeliveryFormat: "x"}} {
		if _, err := dcp.NewVerifier(dcp.VerifierConfig{HTTP: http.DefaultClient, Settings: s}); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
}

// Addresses that others name reach the public internet only, unless the operator says otherwise: also after redirects.
func TestPrivateAddressesAreRefused(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a private address was reached") }))
	defer inside.Close()
	client := dcp.NewHTTPClient(dcp.HTTPConfig{})
	port := inside.URL[strings.LastIndex(inside.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1"} {
		_, err := dcp.Get(t.Context(), client, "http://"+host+port, "*/*", "", 10)
		if err == nil {
			t.Errorf("%s was reached", host)
		}
	}
	for _, address := range []string{"10.0.0.1:80", "172.16.0.1:80", "192.168.1.1:80", "169.254.169.254:80", "100.64.0.1:80", "[fd00::1]:80", "[fe80::1]:80",
		"[64:ff9b::a00:1]:80", "224.0.0.1:80", "255.255.255.255:80", "198.18.0.1:80", "[2002:7f00:1::]:80"} {
		_, err := dcp.Get(t.Context(), client, "http://"+address, "*/*", "", 10)
		var refused *netguard.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"file:///etc/hostname", "gopher://x", "http://", "unix:/x", "//x"} {
		if _, err := dcp.Get(t.Context(), client, address, "*/*", "", 10); err == nil || !strings.Contains(err.Error(), "not an http(s) address") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func onLoopback(allowPlainHTTP bool) dcp.HTTPConfig {
	return dcp.HTTPConfig{Networks: netguard.Guard{AllowLoopback: true}, AllowPlainHTTP: allowPlainHTTP}
}

// A token goes over plain HTTP nowhere, unless the operator says otherwise; what carries none may.
func TestNoTokenIsSentInClear(t *testing.T) {
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	confidential := dcp.NewHTTPClient(onLoopback(false))
	if _, _, err := dcp.PostJSON(t.Context(), confidential, server.URL, "Bearer secret", struct{}{}, 10); err == nil || !strings.Contains(err.Error(), "trust.allowPlainHTTP") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a token over plain HTTP: %v", err)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
	if _, err := dcp.Get(t.Context(), confidential, server.URL, "*/*", "", 10); err != nil {
		t.Error(err)
	}
	if _, _, err := dcp.PostJSON(t.Context(), dcp.NewHTTPClient(onLoopback(true)), server.URL, "Bearer secret", struct{}{}, 10); err != nil {
		t.Error(err)
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	var hops int
	var leaked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hops++; hops > 1 && r.Header.Get("Authorization") != "" {
			leaked = r.Header.Get("Authorization")
		}
		http.Redirect(w, r, "/again", http.StatusFound)
	}))
	defer server.Close()
	_, err := dcp.Get(context.Background(), dcp.NewHTTPClient(onLoopback(true)), server.URL, "*/*", "Bearer secret", 10)
	if err == nil || !strings.Contains(err.Error(), "redirects") || hops != 4 {
		t.Errorf("%d requests, %v", hops, err)
	}
	if leaked != "" {
		t.Error("the token was sent on to where a redirect pointed")
	}
}

func TestDecodeStatusList(t *testing.T) {
	encoded, err := dcp.EncodeStatusList(dcp.ProfileVC20, []byte{0x80, 0x01})
	must(t, err)
	encoded = encoded[1:]
	for _, form := range []string{encoded, "u" + encoded, encoded + "==", strings.NewReplacer("-", "+", "_", "/").Replace(encoded)} {
		bits, err := dcp.DecodeStatusList(form)
		if err != nil || len(bits) != 2 || bits[0] != 0x80 || bits[1] != 1 {
			t.Errorf("%s: %v, %v", form, bits, err)
		}
	}
	bomb, err := dcp.EncodeStatusList(dcp.ProfileVC11, make([]byte, 17<<20))
	must(t, err)
	for bad, want := range map[string]string{"": "missing", "u": "missing", "u!": "base64url", "uAAAA": "gzip", encoded[:len(encoded)-8]: "damaged", bomb: "longer than"} {
		if _, err := dcp.DecodeStatusList(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v, want %s", bad, err, want)
		}
	}
}

// Eclipse EDC takes standard base64 alone from a StatusList2021, and base64url from what begins with "u".
func TestEncodeStatusList(t *testing.T) {
	told := ""
	for i := range byte(50) {
		bits := []byte{i, 7 * i, 13 * i, 29 * i, 31 * i}
		plain, err := dcp.EncodeStatusList(dcp.ProfileVC11, bits)
		must(t, err)
		multibase, err := dcp.EncodeStatusList(dcp.ProfileVC20, bits)
		must(t, err)
		a, err := base64.StdEncoding.DecodeString(plain)
		must(t, err)
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(multibase, "u"))
		must(t, err)
		if !bytes.Equal(a, b) || multibase[0] != 'u' {
			t.Errorf("%s and %s", plain, multibase)
		}
		told += plain
	}
	if !strings.ContainsAny(told, "+/") {
		t.Error("the two alphabets were not told apart")
	}
}
