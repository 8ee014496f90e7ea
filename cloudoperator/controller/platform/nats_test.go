// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/cloudoperator/pki"
)

// managedServer is a server with the configuration of a Platform, whose certificate, for localhost, is in dir.
func managedServer(t *testing.T) (_ *server.Server, op natsauth.Operator, ca pki.Pair, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir = t.TempDir()
	op, err := natsauth.NewOperator()
	must(err)
	keys, err := op.Server()
	must(err)
	ca, err = pki.NewCA("test", time.Now())
	must(err)
	cert, err := ca.Issue([]string{"localhost"}, time.Now())
	must(err)
	for name, content := range map[string][]byte{
		"tls.crt": cert.Cert, "tls.key": cert.Key,
		"nats.conf": []byte(strings.NewReplacer("/etc/nats-tls", dir, "/var/lib/kaphera/nats", dir, `"0.0.0.0:4222"`, `"localhost:-1"`,
			`"0.0.0.0:8080"`, `"localhost:-1"`, `"0.0.0.0:8222"`, `"localhost:-1"`).Replace(natsConfig(keys))),
	} {
		must(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	s, err := natstest.Run(filepath.Join(dir, "nats.conf"))
	must(err)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s, op, ca, dir
}

// The server with the configuration of a Platform, behind what ends TLS as an ingress controller does: by WebSocket it takes an agent, and neither
// the cloud's users of the same account, nor the operator's of the system account, nor whoever names no account or asks for another protocol.
func TestOnlyAgentsComeInFromOutside(t *testing.T) {
	t.Parallel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server, op, ca, _ := managedServer(t)
	back, err := url.Parse(strings.Replace(server.WebsocketURL(), "ws://", "http://", 1))
	must(err)
	ingress := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(back))
	t.Cleanup(ingress.Close)
	outside := strings.Replace(ingress.URL, "https://", "wss://", 1)

	connect := func(to string, creds []byte) error {
		t.Helper()
		tlsConfig, err := pki.ClientTLS(ca.Cert, "localhost")
		must(err)
		tlsConfig.RootCAs.AddCert(ingress.Certificate())
		if to != server.ClientURL() {
			tlsConfig.ServerName = ""
		}
		options := []nats.Option{nats.Secure(tlsConfig), nats.Timeout(time.Minute)}
		if creds != nil {
			options = append(options, nats.UserCredentialBytes(creds))
		}
		nc, err := nats.Connect(to, options...)
		if err == nil {
			defer nc.Close()
			err = nc.FlushTimeout(time.Minute)
		}
		return err
	}
	user := func(account []byte, p natsauth.Permissions) []byte {
		t.Helper()
		creds, err := natsauth.Credentials(account, "user", p)
		must(err)
		return creds
	}
	operator := user(op.SystemSeed, systemPermissions)
	cell, err := natsauth.NewAccountSeed()
	must(err)
	token, err := op.AccountJWT(natsauth.Account{Name: "cell", Seed: cell, Storage: celllink.Storage})
	must(err)
	tlsConfig, err := pki.ClientTLS(ca.Cert, "localhost")
	must(err)
	system, err := nats.Connect(server.ClientURL(), nats.Secure(tlsConfig), nats.UserCredentialBytes(operator), nats.Timeout(time.Minute))
	must(err)
	defer system.Close()
	must(natsauth.Push(system, token))

	unknown, err := natsauth.NewAccountSeed()
	must(err)
	agent := user(cell, celllink.AgentPermissions)
	for name, c := range map[string]struct {
		to      string
		creds   []byte
		refused bool
	}{
		"an agent":                                 {outside, agent, false},
		"an agent in the cloud's cluster":          {server.ClientURL(), agent, false},
		"the cloud in the cell's account":          {outside, user(cell, celllink.CloudPermissions), true},
		"the same inside":                          {server.ClientURL(), user(cell, celllink.CloudPermissions), false},
		"the operator in the system account":       {outside, operator, true},
		"whoever":                                  {outside, nil, true},
		"an agent as another server":               {outside + "/leafnode", agent, true},
		"an agent of an account that there is not": {outside, user(unknown, celllink.AgentPermissions), true},
	} {
		if err := connect(c.to, c.creds); (err != nil) != c.refused {
			t.Errorf("%s: refused is %v: %v", name, !c.refused, err)
		}
	}
}
