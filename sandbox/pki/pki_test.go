// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestAuthorityIsKeptAndItsLeavesVerify(t *testing.T) {
	dir := t.TempDir()
	a, err := EnsureAuthority(dir, "ca", "test", now)
	must(t, err)
	again, err := EnsureAuthority(dir, "ca", "other name", now.Add(time.Hour))
	must(t, err)
	if string(a.PEM) != string(again.PEM) {
		t.Error("the authority was made anew although it was there")
	}
	pair, err := again.Issue(Leaf{CommonName: "x", DNSNames: []string{"x.test"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}, now)
	must(t, err)
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM)
	for _, name := range []string{"x.test", "10.0.0.1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("verify as %s: %v", name, err)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "y.test", Roots: roots, CurrentTime: now}); err == nil {
		t.Error("verified as a name that it was not issued for")
	}
}

func TestLeafIsIssuedAgainOnlyForAReason(t *testing.T) {
	leaf := Leaf{CommonName: "server", DNSNames: []string{"a.test"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
	other := leaf
	other.DNSNames = []string{"a.test", "b.test"}
	for name, c := range map[string]struct {
		leaf    Leaf
		at      time.Time
		newCA   bool
		reissue bool
	}{
		"same":                   {leaf, now.Add(time.Hour), false, false},
		"another name":           {other, now, false, true},
		"about to expire":        {leaf, now.Add(leafLife - renewal + time.Hour), false, true},
		"signed by an older one": {leaf, now, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a, err := EnsureAuthority(dir, "ca", "test", now)
			must(t, err)
			first, err := a.Ensure(dir, "server", leaf, now)
			must(t, err)
			if c.newCA {
				must(t, errors.Join(os.Remove(filepath.Join(dir, "ca.crt")), os.Remove(filepath.Join(dir, "ca.key"))))
				a, err = EnsureAuthority(dir, "ca", "test", now)
				must(t, err)
			}
			second, err := a.Ensure(dir, "server", c.leaf, c.at)
			must(t, err)
			if got := string(first.Cert) != string(second.Cert); got != c.reissue {
				t.Errorf("issued again = %v, want %v", got, c.reissue)
			}
		})
	}
}

func TestPrivateKeysAreForTheirOwner(t *testing.T) {
	dir := t.TempDir()
	a, err := EnsureAuthority(dir, "ca", "test", now)
	must(t, err)
	_, err = a.Ensure(dir, "leaf", Leaf{CommonName: "x"}, now)
	must(t, err)
	must(t, EnsureKey(dir, "account"))
	before, err := os.ReadFile(filepath.Join(dir, "account.key"))
	must(t, err)
	must(t, EnsureKey(dir, "account"))
	after, err := os.ReadFile(filepath.Join(dir, "account.key"))
	must(t, err)
	if string(before) != string(after) {
		t.Error("the key was made anew although it was there")
	}
	for _, name := range []string{"ca", "leaf", "account"} {
		info, err := os.Stat(filepath.Join(dir, name+".key"))
		must(t, err)
		if info.Mode().Perm() != fs.FileMode(0o600) {
			t.Errorf("%s.key has mode %v", name, info.Mode())
		}
	}
}

func TestAKeyOfAnotherCertificateIsRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := EnsureAuthority(dir, "one", "one", now)
	must(t, err)
	_, err = EnsureAuthority(dir, "two", "two", now)
	must(t, err)
	must(t, os.Rename(filepath.Join(dir, "two.key"), filepath.Join(dir, "one.key")))
	if _, err := LoadAuthority(dir, "one"); err == nil {
		t.Error("loaded a certificate with another one's key")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
