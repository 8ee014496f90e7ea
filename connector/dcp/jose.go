// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/kaphera/kaphera/connector/jsondepth"
)

// Media types in the typ header.
const (
	typJWT    = "JWT"
	typAccess = "at+jwt" // keeps an access token from being taken for an ID token
	typVC     = "vc+jwt"
	typVP     = "vp+jwt"
	typHead   = "kaphera-audit-head+jwt"
)

// SigningKey is a private key of a DID.
type SigningKey struct {
	ID      string // did#kid
	Private jwk.Key
}

// Sign makes a compact JWS of claims; typ is the media type in its header.
func (k SigningKey) Sign(claims any, typ string) (string, error) {
	alg, raw, err := k.algorithm()
	if err != nil {
		return "", fmt.Errorf("key %s: %w", k.ID, err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode what key %s is to sign: %w", k.ID, err)
	}
	headers := jws.NewHeaders()
	if err := errors.Join(headers.Set(jws.KeyIDKey, k.ID), headers.Set(jws.TypeKey, typ)); err != nil {
		return "", fmt.Errorf("sign with key %s: %w", k.ID, err)
	}
	signed, err := jws.Sign(payload, jws.WithKey(alg, raw, jws.WithProtectedHeaders(headers)))
	if err != nil {
		return "", fmt.Errorf("sign with key %s: %w", k.ID, err)
	}
	return string(signed), nil
}

// algorithm returns what the key signs with, and the bare key: a JWK's own kid would take the place of ours in the header.
func (k SigningKey) algorithm() (alg jwa.SignatureAlgorithm, raw any, err error) {
	if err := jwk.Export(k.Private, &raw); err != nil {
		return alg, nil, errors.New("is not usable") // the cause may quote the key
	}
	switch key := raw.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve.Params().BitSize == 256 {
			return jwa.ES256(), raw, nil
		}
	case ed25519.PrivateKey:
		return jwa.EdDSA(), raw, nil
	}
	return alg, nil, fmt.Errorf("of type %s does not sign here: use P-256 or Ed25519", k.Private.KeyType())
}

// token is a compact JWS taken apart, with nothing verified.
type token struct {
	raw     string
	alg     string
	kid     string
	typ     string
	payload []byte
}

const maxToken = 512 << 10

// parseToken takes a compact JWS apart and refuses headers that would change how it is to be verified.
func parseToken(raw string) (token, error) {
	if len(raw) > maxToken {
		return token{}, fmt.Errorf("it is longer than %d bytes", maxToken)
	}
	parts, strict := strings.Split(raw, "."), base64.RawURLEncoding.Strict() // one token, one spelling
	if len(parts) != 3 || strings.ContainsAny(raw, "\r\n") {                 // line breaks are what the decoder would skip
		return token{}, errors.New("it is not a compact JWS of three parts")
	}
	head, err := strict.DecodeString(parts[0])
	if err != nil {
		return token{}, errors.New("its header is not base64url")
	}
	var h struct {
		Alg  string          `json:"alg"`
		Kid  string          `json:"kid"`
		Typ  string          `json:"typ"`
		Crit json.RawMessage `json:"crit"`
		B64  json.RawMessage `json:"b64"`
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return token{}, errors.New("its header is not a JSON object with alg, kid and typ as strings")
	}
	if h.Crit != nil || h.B64 != nil {
		return token{}, errors.New("its header has crit or b64, which nothing here asks for")
	}
	if _, ok := algorithms[h.Alg]; !ok {
		return token{}, fmt.Errorf("its algorithm %q is not accepted", h.Alg)
	}
	payload, err := strict.DecodeString(parts[1])
	if err != nil {
		return token{}, errors.New("its payload is not base64url")
	}
	if _, err := strict.DecodeString(parts[2]); err != nil {
		return token{}, errors.New("its signature is not base64url")
	}
	if err := jsondepth.Check(payload); err != nil {
		return token{}, fmt.Errorf("its payload: %w", err)
	}
	typ := strings.TrimPrefix(strings.ToLower(h.Typ), "application/")
	return token{raw: raw, alg: h.Alg, kid: h.Kid, typ: typ, payload: payload}, nil
}

// algorithms are what is accepted, and the keys that each goes with: an algorithm never chooses how a key is read.
var algorithms = map[string]struct {
	alg  jwa.SignatureAlgorithm
	fits func(any) bool
}{
	"ES256":   {jwa.ES256(), isEC(256)},
	"ES384":   {jwa.ES384(), isEC(384)},
	"ES512":   {jwa.ES512(), isEC(521)},
	"EdDSA":   {jwa.EdDSA(), isEd25519},
	"Ed25519": {jwa.EdDSA(), isEd25519},
	"RS256":   {jwa.RS256(), isRSA},
	"RS384":   {jwa.RS384(), isRSA},
	"RS512":   {jwa.RS512(), isRSA},
	"PS256":   {jwa.PS256(), isRSA},
	"PS384":   {jwa.PS384(), isRSA},
	"PS512":   {jwa.PS512(), isRSA},
}

func isEC(bits int) func(any) bool {
	return func(key any) bool {
		k, ok := key.(*ecdsa.PublicKey)
		return ok && k.Curve.Params().BitSize == bits
	}
}

func isEd25519(key any) bool { _, ok := key.(ed25519.PublicKey); return ok }

func isRSA(key any) bool {
	k, ok := key.(*rsa.PublicKey)
	return ok && k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192
}

// verify checks the signature with a public key.
func (t token) verify(key jwk.Key) error {
	var raw any
	if err := jwk.Export(key, &raw); err != nil {
		return fmt.Errorf("key %q is not usable: %w", t.kid, err)
	}
	a := algorithms[t.alg]
	if !a.fits(raw) {
		return fmt.Errorf("algorithm %s does not go with key %q (%s)", t.alg, t.kid, key.KeyType())
	}
	if _, err := jws.Verify([]byte(t.raw), jws.WithKey(a.alg, raw)); err != nil {
		return errBadSignature
	}
	return nil
}

var errBadSignature = errors.New("the signature is not right")

// verifyToken verifies t with the key of did that its header names. A key that the known document lacks, or a signature that does not
// fit, makes the document be fetched again: keys are rotated.
func (v *Verifier) verifyToken(ctx context.Context, t token, did string, use Relationship) error {
	maxAge := v.settings.DocumentCache
	for {
		doc, fresh, err := v.resolver.resolve(ctx, did, maxAge)
		if err != nil {
			return err
		}
		key, err := doc.Key(t.kid, use, v.settings.KeyRelationships)
		if err == nil {
			err = t.verify(key)
		}
		if err == nil || fresh || maxAge == minRefresh {
			return err
		}
		maxAge = minRefresh
	}
}

// numericDate is a JWT date: seconds, perhaps with a fraction.
type numericDate struct{ time.Time }

// UnmarshalJSON reads a number; null is no date.
func (d *numericDate) UnmarshalJSON(raw []byte) error {
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	var f float64
	if err := json.Unmarshal(raw, &f); err != nil {
		return fmt.Errorf("%s is not a number of seconds", excerpt(raw))
	}
	if math.Abs(f) > 1e11 {
		return fmt.Errorf("%s is not a date in seconds", excerpt(raw))
	}
	sec, frac := math.Modf(f)
	d.Time = time.Unix(int64(sec), int64(frac*1e9)).UTC()
	return nil
}

// MarshalJSON writes whole seconds.
func (d numericDate) MarshalJSON() ([]byte, error) { return json.Marshal(d.Unix()) }

// audience is one string or an array with one.
type audience []string

// UnmarshalJSON reads both forms.
func (a *audience) UnmarshalJSON(raw []byte) error { return unmarshalStrings(raw, (*[]string)(a)) }

// MarshalJSON writes a single audience as a string, which everybody reads.
func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

func (a audience) only(did string) bool { return len(a) == 1 && a[0] == did }
