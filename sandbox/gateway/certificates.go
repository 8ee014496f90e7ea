// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kaphera/kaphera/sandbox/pki"
)

const reissue = 7 * 24 * time.Hour // a served certificate with less life left is made anew

// certificates makes one certificate per host name when it is first asked for.
type certificates struct {
	authority *pki.Authority
	domain    string
	knows     func(host string) bool
	now       func() time.Time

	mu   sync.Mutex
	made map[string]*tls.Certificate
}

// get answers a TLS handshake. Names that no Ingress has share the domain's own
// certificate, so that strangers cannot make the map grow.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	names := []string{name}
	if name == "" || !c.knows(name) {
		name, names = c.domain, []string{c.domain, "*." + c.domain}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if cert, ok := c.made[name]; ok && now.Before(cert.Leaf.NotAfter.Add(-reissue)) {
		return cert, nil
	}
	pair, err := c.authority.Issue(pki.Leaf{CommonName: commonName(name), DNSNames: names}, now)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", name, err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", name, err)
	}
	c.made[name] = &cert
	return &cert, nil
}

// commonName is limited to 64 characters; clients read the DNS names.
func commonName(host string) string { return host[:min(len(host), 64)] }
