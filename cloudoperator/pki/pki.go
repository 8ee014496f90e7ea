// SPDX-License-Identifier: FSL-1.1-ALv2

// Package pki makes the platform's internal certificate authority and server certificates. It holds no Kubernetes and no files.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// Lifetimes. A certificate is renewed when less than a third of its life is left.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// backdate allows for clocks that are behind, such as those in which a local time was taken for UTC.
	backdate = 24 * time.Hour
)

// Pair is a certificate and its private key, PEM.
type Pair struct{ Cert, Key []byte }

// NewCA makes a certificate authority.
func NewCA(name string, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make the authority's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return Pair{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	return sign(t, t, key, key)
}

// Issue makes a server certificate for hosts (DNS names or IP addresses).
func (ca Pair) Issue(hosts []string, now time.Time) (Pair, error) {
	parent, signer, err := ca.parse()
	if err != nil {
		return Pair{}, fmt.Errorf("certificate authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a server key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return Pair{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hosts[0]},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return sign(t, parent, key, signer)
}

// Due says whether p must be made anew: it is unreadable, not signed by ca, lacks a host, or is in the last third of its life.
func (ca Pair) Due(p Pair, hosts []string, now time.Time) bool {
	cert, _, err := p.parse()
	if err != nil {
		return true
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now}); err != nil {
		return true
	}
	if slices.ContainsFunc(hosts, func(h string) bool { return cert.VerifyHostname(h) != nil }) {
		return true
	}
	return now.After(RenewAt(cert))
}

// CADue says whether the authority itself must be made anew.
func CADue(p Pair, now time.Time) bool {
	cert, _, err := p.parse()
	return err != nil || now.After(RenewAt(cert))
}

// Life is when a certificate was made, to the second, and when it ends.
func Life(p Pair) (made, ends time.Time, err error) {
	cert, _, err := p.parse()
	if err != nil {
		return made, ends, err
	}
	return cert.NotBefore.Add(backdate), cert.NotAfter, nil
}

// Is says whether p is this certificate.
func Is(p Pair, c *x509.Certificate) bool {
	cert, _, err := p.parse()
	return err == nil && cert.Equal(c)
}

// Signed says whether the authority has signed a certificate, whenever that ends.
func (ca Pair) Signed(c *x509.Certificate) bool {
	cert, _, err := ca.parse()
	return err == nil && c.CheckSignatureFrom(cert) == nil
}

// RenewAt is the start of the last third of a certificate's life.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
}

// Pool returns the system's authorities when bundle is empty, else only those in it.
func Pool(bundle []byte) (*x509.CertPool, error) {
	if len(bytes.TrimSpace(bundle)) == 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("the system's certificate authorities: %w", err)
		}
		return pool, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the bundle of certificate authorities holds no certificate in PEM")
	}
	return pool, nil
}

// ClientTLS trusts only bundle.
func ClientTLS(bundle []byte, serverName string) (*tls.Config, error) {
	pool, err := Pool(bundle)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS12}, nil
}

func (ca Pair) parse() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.X509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("private key is %T, not ECDSA", pair.PrivateKey)
	}
	return pair.Leaf, key, nil
}

func sign(t, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate for %s: %w", t.Subject.CommonName, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode the key for %s: %w", t.Subject.CommonName, err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n, nil
}
