// SPDX-License-Identifier: Apache-2.0

package netguard

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// names resolves from a table.
func names(table map[string]string) func(context.Context, string, string) ([]netip.Addr, error) {
	return func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if a, err := netip.ParseAddr(host); err == nil {
			return []netip.Addr{a}, nil
		}
		if table[host] == "" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr(table[host])}, nil
	}
}

func TestJudge(t *testing.T) {
	private, shared := Guard{AllowPrivate: true}, Guard{AllowPrivate: true, AllowLoopback: true}
	bounded := Guard{AllowPrivate: true, Allowed: prefixes("10.0.0.0/8", "fd00::/8"), Denied: prefixes("10.96.0.0/12", "fd00:1::/32")}
	dependent := Guard{AllowPrivate: true, AllowLoopback: true, Own: []string{"db:5432", "127.0.0.1:8081"}, lookup: names(map[string]string{"db": "10.0.0.5"})}
	for _, c := range []struct {
		name    string
		guard   Guard
		address string
		why     string // in the refusal; empty: permitted
	}{
		{"public", Guard{}, "8.8.8.8:443", ""},
		{"public IPv6", Guard{}, "[2606:4700::1]:443", ""},
		{"private", Guard{}, "10.0.0.1:443", "trust.allowPrivateNetworks"},
		{"unique local", Guard{}, "[fd12::1]:443", "trust.allowPrivateNetworks"},
		{"shared address space", Guard{}, "100.64.0.1:80", "public internet"},
		{"loopback", Guard{}, "127.0.0.1:80", "loopback"},
		{"private permitted", private, "192.168.1.1:80", ""},
		{"loopback is not private", private, "127.9.9.9:80", "loopback"},
		{"loopback IPv6", private, "[::1]:80", "loopback"},
		{"loopback as IPv6", private, "[::ffff:127.0.0.1]:80", "loopback"},
		{"loopback permitted", shared, "127.0.0.1:80", ""},
		{"cloud metadata", shared, "169.254.169.254:80", "link-local"},
		{"cloud metadata as IPv6", shared, "[::ffff:169.254.169.254]:80", "link-local"},
		{"cloud metadata through NAT64", shared, "[64:ff9b::a9fe:a9fe]:80", "link-local"},
		{"cloud metadata, unique local", shared, "[fd00:ec2::254]:80", "link-local"},
		{"link-local with a zone", shared, "[fe80::1%eth0]:80", "link-local"},
		{"unspecified", shared, "0.0.0.0:80", "one server"},
		{"unspecified IPv6", shared, "[::]:80", "one server"},
		{"multicast", shared, "224.0.0.1:80", "one server"},
		{"multicast IPv6", shared, "[ff02::1]:80", "one server"},
		{"broadcast", shared, "255.255.255.255:80", "one server"},
		{"in an allowed network", bounded, "10.1.0.1:80", ""},
		{"in no allowed network", bounded, "192.168.1.1:80", "none of the allowed"},
		{"denied within an allowed network", bounded, "10.96.0.10:80", "10.96.0.0/12"},
		{"denied as IPv6", bounded, "[::ffff:10.96.0.10]:80", "10.96.0.0/12"},
		{"denied IPv6", bounded, "[fd00:1::7]:80", "fd00:1::/32"},
		{"own dependency", dependent, "10.0.0.5:5432", "runs on"},
		{"own dependency at another port", dependent, "10.0.0.5:8008", "runs on"},
		{"beside the dependency", dependent, "10.0.0.6:5432", ""},
		{"own loopback port", dependent, "127.0.0.1:8081", "runs on"},
		{"another's loopback port", dependent, "127.0.0.1:9000", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.guard.control(t.Context(), "tcp", c.address, nil)
			var refused *RefusedError
			if c.why == "" && err != nil || c.why != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("%v, want %q", err, c.why)
			}
		})
	}
}

func TestADependencyThatCannotBeResolvedRefuses(t *testing.T) {
	g := Guard{AllowPrivate: true, Own: []string{"db:5432"}, lookup: names(nil)}
	if err := g.control(t.Context(), "tcp", "10.0.0.1:80", nil); err == nil || !strings.Contains(err.Error(), "db:5432") {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	g := Guard{AllowPrivate: true, Own: []string{"vault:8200"}, lookup: names(map[string]string{"vault": "10.0.0.9", "alias": "10.0.0.9", "inside": "169.254.169.254", "backend": "10.0.0.1"})}
	for address, refused := range map[string]bool{"https://vault": true, "http://alias:8080": true, "http://inside": true, "http://[::1]:80": true,
		"https://backend": false, "https://not-there": false} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Check(t.Context(), u); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A redirect and a name lead to a connection like any other.
func TestEveryConnectionIsJudged(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was reached") }))
	defer inside.Close()
	door := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusFound))
	defer door.Close()
	through := func(g Guard, address string) error {
		transport := &http.Transport{DialContext: g.Dialer().DialContext}
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport}).Get(address)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		return err
	}
	var refused *RefusedError
	if err := through(Guard{AllowLoopback: true, Own: []string{inside.Listener.Addr().String()}}, door.URL); !errors.As(err, &refused) {
		t.Errorf("redirected: %v", err)
	}
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := through(Guard{AllowPrivate: true}, "http://localhost:"+port); !errors.As(err, &refused) {
		t.Errorf("by name: %v", err)
	}
}
