// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/kaphera/kaphera/edcoperator/reach"
)

// renewBefore is how long before its end a certificate is complained about.
const renewBefore = 14 * 24 * time.Hour

// dial connects to address (host:port).
func (p *preflight) dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: p.timeout}).DialContext(ctx, "tcp", address)
}

// reach says whether somebody listens at address, which field of the manifest names.
func (p *preflight) reach(ctx context.Context, address, field string) finding {
	conn, err := p.dial(ctx, address)
	if err != nil {
		return p.unreachable(err, address, field)
	}
	defer func() { _ = conn.Close() }()
	return passed("%s (%s) accepts connections", address, conn.RemoteAddr())
}

// unreachable tells apart why there is no connection to address, which field names.
func (p *preflight) unreachable(err error, address, field string) finding {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return failed("check "+field+", and that this network's DNS resolves the name", "%s: the name %s is not resolved: %s", address, dns.Name, dns.Err).retry()
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed("check the port of "+field+", and that the server runs", "%s: nobody listens there (connection refused)", address).retry()
	case reach.TimedOut(err):
		return failed("open the way to "+address+" in the firewalls and network policies between, or correct "+field, "%s: no answer within %s", address, p.timeout).retry()
	}
	return failed("check "+field+" and the way to it", "%s: %v", address, plain(err)).retry()
}

// plain is an error without the URL that a client wraps it in.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// untrusted tells apart why a certificate is not believed; trust names the field with the authorities. ok is false when err is about something else.
func untrusted(err error, trust string) (f finding, ok bool) {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return failed("put the certificate of the authority that signed it into "+trust, "its certificate is signed by an authority that %s does not hold", trust), true
	case errors.As(err, &name):
		return failed("use a name that the certificate is for, or have one issued for this name", "its certificate is for another name: %v", name), true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failed("renew the server's certificate, or correct the clock that is wrong", "its certificate is not valid now: %v", invalid), true
	case errors.As(err, &invalid):
		return failed("have the server's certificate issued again", "its certificate is not valid: %v", invalid), true
	case errors.As(err, &record), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return failed("give the server a certificate, or use the address at which it speaks TLS", "it does not speak TLS there"), true
	}
	return finding{}, false
}

// certificate says until when the server's certificate is valid, and complains when that is soon.
func certificate(state tls.ConnectionState, what string) finding {
	leaf := state.PeerCertificates[0]
	detail := fmt.Sprintf("%s: %s, certificate valid until %s", what, tls.VersionName(state.Version), leaf.NotAfter.UTC().Format(time.RFC3339))
	if time.Until(leaf.NotAfter) < renewBefore {
		return warning("renew the server's certificate", "%s", detail)
	}
	return passed("%s", detail)
}
