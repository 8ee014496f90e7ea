// SPDX-License-Identifier: Apache-2.0

// Package pki makes and keeps the certificates of a sandbox cluster. It knows
// files and X.509, not what a certificate is for.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	caLife    = 10 * 365 * 24 * time.Hour
	leafLife  = 365 * 24 * time.Hour
	renewal   = 30 * 24 * time.Hour // a certificate with less life left is made anew
	clockSlip = 5 * time.Minute
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  []byte // Cert
	key  *ecdsa.PrivateKey
}

// Pair is a certificate with its private key, both as PEM.
type Pair struct{ Cert, Key []byte }

// Leaf says what a certificate is issued for.
type Leaf struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
}

// NewAuthority makes a self-signed authority.
func NewAuthority(commonName string, now time.Time) (*Authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: commonName},
		NotBefore: now.Add(-clockSlip), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := encodeKey(key)
	return &Authority{Cert: cert, PEM: encodeCert(der), key: key}, keyPEM, err
}

// EnsureAuthority reads NAME.crt and NAME.key from dir, or makes them.
func EnsureAuthority(dir, name, commonName string, now time.Time) (*Authority, error) {
	a, err := LoadAuthority(dir, name)
	if err == nil && now.Before(a.Cert.NotAfter.Add(-renewal)) {
		return a, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a, key, err := NewAuthority(commonName, now)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", commonName, err)
	}
	return a, writePair(dir, name, Pair{a.PEM, key})
}

// LoadAuthority reads NAME.crt and NAME.key from dir.
func LoadAuthority(dir, name string) (*Authority, error) {
	pair, err := readPair(dir, name)
	if err != nil {
		return nil, err
	}
	cert, key, err := parsePair(pair)
	if err != nil {
		return nil, fmt.Errorf("authority %s in %s: %w", name, dir, err)
	}
	return &Authority{Cert: cert, PEM: pair.Cert, key: key}, nil
}

// Issue makes a certificate usable by servers and clients.
func (a *Authority) Issue(l Leaf, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: l.CommonName, Organization: l.Organizations},
		DNSNames: l.DNSNames, IPAddresses: l.IPs,
		NotBefore: now.Add(-clockSlip), NotAfter: earliest(now.Add(leafLife), a.Cert.NotAfter),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate for %q: %w", l.CommonName, err)
	}
	keyPEM, err := encodeKey(key)
	return Pair{encodeCert(der), keyPEM}, err
}

// Ensure reads NAME.crt and NAME.key from dir, or issues them when they are
// missing, from another authority, for something else or about to expire.
func (a *Authority) Ensure(dir, name string, l Leaf, now time.Time) (Pair, error) {
	pair, err := readPair(dir, name)
	if err == nil && a.fits(pair, l, now) {
		return pair, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Pair{}, err
	}
	if pair, err = a.Issue(l, now); err != nil {
		return Pair{}, err
	}
	return pair, writePair(dir, name, pair)
}

func (a *Authority) fits(p Pair, l Leaf, now time.Time) bool {
	cert, _, err := parsePair(p)
	return err == nil && cert.CheckSignatureFrom(a.Cert) == nil && now.Before(cert.NotAfter.Add(-renewal)) &&
		cert.Subject.CommonName == l.CommonName && slices.Equal(cert.Subject.Organization, l.Organizations) &&
		slices.Equal(cert.DNSNames, l.DNSNames) && slices.EqualFunc(cert.IPAddresses, l.IPs, net.IP.Equal)
}

// EnsureKey reads a private key from dir/NAME.key, with its public half in
// NAME.pub, or makes both.
func EnsureKey(dir, name string) error {
	path := filepath.Join(dir, name+".key")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	pub := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	// The private half comes last: it is what says that both are there.
	return errors.Join(write(filepath.Join(dir, name+".pub"), pub), write(path, private))
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parsePair(p Pair) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certBlock, _ := pem.Decode(p.Cert)
	keyBlock, _ := pem.Decode(p.Key)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, errors.New("no PEM block in certificate or key")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("the key is not the certificate's")
	}
	return cert, key, nil
}

func readPair(dir, name string) (Pair, error) {
	cert, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return Pair{}, err
	}
	key, err := os.ReadFile(filepath.Join(dir, name+".key"))
	return Pair{cert, key}, err
}

func writePair(dir, name string, p Pair) error {
	if err := write(filepath.Join(dir, name+".key"), p.Key); err != nil {
		return err
	}
	return write(filepath.Join(dir, name+".crt"), p.Cert)
}

// write replaces a file in one step; private keys are for their owner alone.
func write(path string, data []byte) error {
	mode := fs.FileMode(0o644)
	if bytes.Contains(data, []byte("PRIVATE KEY")) {
		mode = 0o600
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
