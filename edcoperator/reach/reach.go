// SPDX-License-Identifier: Apache-2.0

// Package reach has what all need that look from the operator's place whether something answers, and say why it does not.
package reach

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
)

// Pool returns the authorities of a PEM bundle; nil, the system's, when it is empty.
func Pool(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("holds no PEM certificate")
	}
	return p, nil
}

// TimedOut tells whether err is that nobody answered in time.
func TimedOut(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Plain is an error without the URL that a client wraps it in.
func Plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Problem is what is wrong, and what to do about it.
type Problem struct{ Detail, Remedy string }

// Unreachable tells apart why there is no connection to address (host:port), which field of a manifest names.
func Unreachable(err error, address, field string) Problem {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return Problem{fmt.Sprintf("the name %s is not resolved: %s", dns.Name, dns.Err), "check " + field + ", and that this network's DNS resolves the name"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Problem{"nobody listens there (connection refused)", "check the port of " + field + ", and that the server runs"}
	case TimedOut(err):
		return Problem{"no answer in time", "open the way to " + address + " in the firewalls and network policies between, or correct " + field}
	}
	return Problem{Plain(err).Error(), "check " + field + " and the way to it"}
}

// Untrusted tells apart why a server's certificate is not believed; trust names the field with the authorities. ok is false when err is about something
// else.
func Untrusted(err error, trust string) (p Problem, ok bool) {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return Problem{"its certificate is signed by an authority that " + trust + " does not hold", "put the certificate of the authority that signed it into " + trust}, true
	case errors.As(err, &name):
		return Problem{"its certificate is for another name: " + name.Error(), "use a name that the certificate is for, or have one issued for this name"}, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Problem{"its certificate is not valid now: " + invalid.Error(), "renew the server's certificate, or correct the clock that is wrong"}, true
	case errors.As(err, &invalid):
		return Problem{"its certificate is not valid: " + invalid.Error(), "have the server's certificate issued again"}, true
	case errors.As(err, &record), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"),
		strings.Contains(err.Error(), "server refused TLS connection"): // pgx
		return Problem{"it does not speak TLS there", "give the server a certificate, or use the address at which it speaks TLS"}, true
	}
	return Problem{}, false
}
