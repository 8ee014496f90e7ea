// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

const maxSigned = 8 << 10 // bytes of a JWS

// JWS is what a person signed (compact), taken apart, with nothing verified.
type JWS struct {
	raw, alg string
	KeyID    string // thumbprint of the key, as PublicKey makes it
	Payload  []byte
}

// ParseJWS takes apart what must have been signed as typ: a signature that a key made for one thing is none for another.
func ParseJWS(typ, signed string) (JWS, error) {
	parts, strict := strings.Split(signed, "."), base64.RawURLEncoding.Strict()
	if len(signed) > maxSigned || len(parts) != 3 || strings.ContainsAny(signed, "\r\n") {
		return JWS{}, fmt.Errorf("it is not a compact JWS of three parts and at most %d bytes", maxSigned)
	}
	head, err := strict.DecodeString(parts[0])
	if err != nil {
		return JWS{}, errors.New("its header is not base64url")
	}
	var h struct {
		Alg  string          `json:"alg"`
		Kid  string          `json:"kid"`
		Typ  string          `json:"typ"`
		Crit json.RawMessage `json:"crit"`
		B64  json.RawMessage `json:"b64"`
	}
	if err := json.Unmarshal(head, &h); err != nil || h.Typ != typ || h.Crit != nil || h.B64 != nil {
		return JWS{}, fmt.Errorf("its header must have typ %q, alg and kid, and neither crit nor b64", typ)
	}
	payload, err := strict.DecodeString(parts[1])
	if err != nil {
		return JWS{}, errors.New("its payload is not base64url")
	}
	return JWS{raw: signed, alg: h.Alg, KeyID: h.Kid, Payload: payload}, nil
}

// Verify checks the signature. The key, not the header, says which algorithm it must be.
func (j JWS) Verify(key crypto.PublicKey) bool {
	alg := algorithm(key)
	if j.alg != alg.String() {
		return false
	}
	_, err := jws.Verify([]byte(j.raw), jws.WithKey(alg, key))
	return err == nil
}

func algorithm(key crypto.PublicKey) jwa.SignatureAlgorithm {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return jwa.ES256()
	}
	return jwa.EdDSA()
}

// SignJWS signs claims as typ with a private key (JWK, P-256 or Ed25519).
func SignJWS(key jwk.Key, typ string, claims any) (string, error) {
	public, err := key.PublicKey()
	if err != nil {
		return "", fmt.Errorf("the key: %w", err)
	}
	raw, err := json.Marshal(public)
	if err != nil {
		return "", fmt.Errorf("the key: %w", err)
	}
	thumb, exported, err := PublicKey(raw)
	if err != nil {
		return "", fmt.Errorf("the key: %w", err)
	}
	var private any // bare: a JWK's own kid would take the place of ours in the header
	if err := jwk.Export(key, &private); err != nil {
		return "", errors.New("the key is not usable") // the cause may quote it
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("what is signed: %w", err)
	}
	headers := jws.NewHeaders()
	if err := errors.Join(headers.Set(jws.KeyIDKey, thumb), headers.Set(jws.TypeKey, typ)); err != nil {
		return "", fmt.Errorf("what is signed: %w", err)
	}
	out, err := jws.Sign(payload, jws.WithKey(algorithm(exported), private, jws.WithProtectedHeaders(headers)))
	return string(out), err
}
