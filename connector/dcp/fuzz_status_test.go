// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

// Whatever is taken for a status list, in any of its forms, has an issuer and bits, no more than are read of one.
func FuzzStatusListCredential(f *testing.F) {
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	private, err := jwk.Import(raw)
	if err != nil {
		f.Fatal(err)
	}
	for _, profile := range []string{ProfileVC11, ProfileVC20} {
		list := StatusList{Profile: profile, URL: "https://x.example/1", Issuer: "did:web:x.example", Purpose: PurposeRevocation, Bits: []byte{1, 2}, From: time.Unix(0, 0), Until: time.Unix(1e10, 0)}
		signed, err := list.Sign(SigningKey{ID: "did:web:x.example#key-1", Private: private})
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(signed))
		f.Add([]byte(`{"type":"EnvelopedVerifiableCredential","id":"data:application/vc+jwt,` + signed + `"}`))
		body, err := list.Body()
		if err != nil {
			f.Fatal(err)
		}
		bare, err := json.Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bare)
	}
	bomb, err := EncodeStatusList(ProfileVC11, make([]byte, maxStatusBits+1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"type":"StatusList2021Credential","issuer":"did:web:x","credentialSubject":{"encodedList":"` + bomb + `"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, _, err := parseStatusList(raw)
		if err == nil && (list.issuer == "" || len(list.bits) > maxStatusBits) {
			t.Errorf("issuer %q, %d bytes", list.issuer, len(list.bits))
		}
	})
}
