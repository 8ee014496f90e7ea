// SPDX-License-Identifier: Apache-2.0

// Package reach has what all need that look from the operator's place whether something answers.
package reach

import (
	"crypto/x509"
	"errors"
	"net"
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
