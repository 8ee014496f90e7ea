// SPDX-License-Identifier: FSL-1.1-ALv2

package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// PostgreSQL's own defaults.
const (
	iterations = 4096
	saltSize   = 16
)

// Verifier makes a SCRAM-SHA-256 verifier (RFC 5803) as PostgreSQL stores it:
// SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>. The password is ASCII, so that no preparation is needed.
func Verifier(password string) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	stored, server, err := scramKeys(password, salt, iterations)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored), b64(server)), nil
}

// Matches says whether verifier was made from password.
func Matches(verifier, password string) bool {
	parts := strings.Split(verifier, "$")
	if len(parts) != 3 || parts[0] != "SCRAM-SHA-256" {
		return false
	}
	count, salt64, ok := strings.Cut(parts[1], ":")
	stored64, _, ok2 := strings.Cut(parts[2], ":")
	n, err := strconv.Atoi(count)
	if !ok || !ok2 || err != nil || n < 1 || n > 1_000_000 {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil {
		return false
	}
	want, err := base64.StdEncoding.DecodeString(stored64)
	if err != nil {
		return false
	}
	got, _, err := scramKeys(password, salt, n)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

func scramKeys(password string, salt []byte, n int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, n, sha256.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("derive the key: %w", err)
	}
	clientKey := mac(salted, "Client Key")
	sum := sha256.Sum256(clientKey)
	return sum[:], mac(salted, "Server Key"), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
