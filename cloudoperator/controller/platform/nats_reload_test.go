// SPDX-License-Identifier: FSL-1.1-ALv2

// The server compares its options with those that it reads again while its own resolver writes into them, which the race detector reports.
//go:build !race

package platform

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/pki"
)

// TestTheServerTakesAnotherCertificate while it is connected to, by the right that the operator has.
func TestTheServerTakesAnotherCertificate(t *testing.T) {
	t.Parallel()
	server, op, ca, dir := managedServer(t)
	other, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	creds, err := natsauth.Credentials(op.SystemSeed, "operator", systemPermissions)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(authority pki.Pair) (*nats.Conn, error) {
		tlsConfig, err := pki.ClientTLS(authority.Cert, "localhost")
		if err != nil {
			t.Fatal(err)
		}
		return nats.Connect(server.ClientURL(), nats.Secure(tlsConfig), nats.UserCredentialBytes(creds), nats.Timeout(time.Minute), nats.NoReconnect())
	}
	before, err := connect(ca)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	cert, err := other.Issue([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "tls.crt"), cert.Cert, 0o600), os.WriteFile(filepath.Join(dir, "tls.key"), cert.Key, 0o600), natsauth.Reload(before)); err != nil {
		t.Fatal(err)
	}
	var untrusted *tls.CertificateVerificationError
	if nc, err := connect(ca); !errors.As(err, &untrusted) {
		t.Errorf("with the former authority: %v, %v", nc, err)
	}
	after, err := connect(other)
	if err != nil {
		t.Fatal(err)
	}
	after.Close()
	if err := natsauth.Ping(before); err != nil {
		t.Errorf("a connection of before: %v", err)
	}
}
