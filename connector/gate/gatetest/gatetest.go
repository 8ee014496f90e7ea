// SPDX-License-Identifier: Apache-2.0

// Package gatetest makes keys for the tests of other packages that sign. No program imports it.
package gatetest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

// NewKey makes a key to sign with (Ed25519), and its public half as a JWK.
func NewKey(t testing.TB) (private jwk.Key, public json.RawMessage) {
	t.Helper()
	_, raw, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if private, err = jwk.Import(raw); err != nil {
		t.Fatal(err)
	}
	half, err := private.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = json.Marshal(half); err != nil {
		t.Fatal(err)
	}
	return private, public
}
