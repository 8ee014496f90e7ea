// SPDX-License-Identifier: Apache-2.0

// Package vault keeps what must not be anywhere else: the private keys of participants and issuers, and the secrets of their data
// sources, in the KV version 2 engine of a Vault or OpenBao. It signs nothing and knows no protocol.
//
// Every owner (a participant context, an issuer) has its own path, so that its own policy can guard it:
//
//	<mount>/data/<prefix>/<owner>/keys/<kid>        {"jwk": "<private JWK>"}
//	<mount>/data/<prefix>/<owner>/secrets/<alias>   {"value": "<secret>"}
package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

// ErrNotFound is wrapped when there is nothing under a path.
var ErrNotFound = errors.New("not found in the vault")

// ErrExists is wrapped by Create when something is there already.
var ErrExists = errors.New("exists already in the vault")

// ErrName is wrapped when a name cannot be part of a path.
var ErrName = errors.New("use letters, digits, dot, dash and underscore")

// KV is a versioned key-value store; paths are relative to the configured prefix. Client is the real one.
type KV interface {
	// Read returns the newest version; the error wraps ErrNotFound when there is none.
	Read(ctx context.Context, path string) (map[string]string, error)
	// Create writes the first version atomically; the error wraps ErrExists when there is one.
	Create(ctx context.Context, path string, data map[string]string) error
	// Write writes a new version.
	Write(ctx context.Context, path string, data map[string]string) error
	// Delete removes all versions; deleting nothing is no error.
	Delete(ctx context.Context, path string) error
	// List returns the names directly below path; none is no error.
	List(ctx context.Context, path string) ([]string, error)
}

// Store reads and writes keys and secrets, and remembers what it read for a while: a key rotated or a secret replaced by another
// replica is seen after that time.
type Store struct {
	kv       KV
	cacheFor time.Duration
	now      func() time.Time

	mu    sync.Mutex
	cache map[string]cached
}

type cached struct {
	data map[string]string
	at   time.Time
}

// maxCached bounds the memory that cached entries take; when it is reached the cache starts afresh.
const maxCached = 10_000

// NewStore makes a store that remembers what it read for cacheFor.
func NewStore(kv KV, cacheFor time.Duration) *Store {
	return &Store{kv: kv, cacheFor: cacheFor, now: time.Now, cache: map[string]cached{}}
}

// CreateKey makes the key kid of owner when there is none and returns it. Two replicas that do so at once get the same key.
// alg is ES256 or EdDSA (Ed25519).
func (s *Store) CreateKey(ctx context.Context, owner, kid string, alg jwa.SignatureAlgorithm) (jwk.Key, error) {
	key, err := s.Key(ctx, owner, kid, s.now())
	if !errors.Is(err, ErrNotFound) {
		return key, err
	}
	key, err = newKey(kid, alg)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("encode key %s of %s: %w", kid, owner, err)
	}
	if err = s.kv.Create(ctx, owner+"/keys/"+kid, map[string]string{"jwk": string(raw)}); err != nil && !errors.Is(err, ErrExists) {
		return nil, fmt.Errorf("store key %s of %s: %w", kid, owner, err)
	}
	return s.Key(ctx, owner, kid, s.now())
}

// Key returns the private key kid of owner; the error wraps ErrNotFound when there is none. What is remembered from before since does not
// count: another replica may have removed that key, and made one of the same name for another owner of the same name.
func (s *Store) Key(ctx context.Context, owner, kid string, since time.Time) (jwk.Key, error) {
	data, err := s.read(ctx, owner, "keys", kid, since)
	if err != nil {
		return nil, err
	}
	key, err := jwk.ParseKey([]byte(data["jwk"]))
	if err != nil {
		return nil, fmt.Errorf("key %s of %s in the vault is not a JWK", kid, owner) // the cause may quote the key
	}
	return key, nil
}

// Secret returns the secret alias of owner; the error wraps ErrNotFound when there is none. What is remembered from before since does not
// count: it may have been that of another owner of the same name.
func (s *Store) Secret(ctx context.Context, owner, alias string, since time.Time) (string, error) {
	data, err := s.read(ctx, owner, "secrets", alias, since)
	if err != nil {
		return "", err
	}
	value, ok := data["value"]
	if !ok {
		return "", fmt.Errorf(`secret %s of %s in the vault has no field "value": %w`, alias, owner, ErrNotFound)
	}
	return value, nil
}

// PutSecret stores or replaces a secret.
func (s *Store) PutSecret(ctx context.Context, owner, alias, value string) error {
	path, err := path(owner, "secrets", alias)
	if err != nil {
		return err
	}
	defer s.forget(path)
	if err := s.kv.Write(ctx, path, map[string]string{"value": value}); err != nil {
		return fmt.Errorf("store secret %s of %s: %w", alias, owner, err)
	}
	return nil
}

// CreateSecret stores a secret; the error wraps ErrExists when there is one of the name.
func (s *Store) CreateSecret(ctx context.Context, owner, alias, value string) error {
	path, err := path(owner, "secrets", alias)
	if err != nil {
		return err
	}
	defer s.forget(path)
	if err := s.kv.Create(ctx, path, map[string]string{"value": value}); err != nil {
		return fmt.Errorf("store secret %s of %s: %w", alias, owner, err)
	}
	return nil
}

// HasSecret reports whether there is a secret, without reading it.
func (s *Store) HasSecret(ctx context.Context, owner, alias string) (bool, error) {
	if _, err := path(owner, "secrets", alias); err != nil {
		return false, err
	}
	names, err := s.kv.List(ctx, owner+"/secrets")
	return slices.Contains(names, alias), err
}

// DeleteSecret removes a secret; removing none is no error.
func (s *Store) DeleteSecret(ctx context.Context, owner, alias string) error {
	path, err := path(owner, "secrets", alias)
	if err != nil {
		return err
	}
	return s.delete(ctx, path)
}

// DeleteKey removes a key.
func (s *Store) DeleteKey(ctx context.Context, owner, kid string) error {
	path, err := path(owner, "keys", kid)
	if err != nil {
		return err
	}
	return s.delete(ctx, path)
}

// DeleteSecrets removes every secret of owner.
func (s *Store) DeleteSecrets(ctx context.Context, owner string) error {
	return s.deleteAll(ctx, owner, "secrets")
}

// DeleteKeys removes every key of owner.
func (s *Store) DeleteKeys(ctx context.Context, owner string) error {
	return s.deleteAll(ctx, owner, "keys")
}

func (s *Store) deleteAll(ctx context.Context, owner, kind string) error {
	if _, err := path(owner, kind, "any"); err != nil {
		return err
	}
	names, err := s.kv.List(ctx, owner+"/"+kind)
	if err != nil {
		return fmt.Errorf("list the %s of %s: %w", kind, owner, err)
	}
	for _, name := range names {
		path, err := path(owner, kind, name)
		if err != nil {
			continue // not made here, and never read
		}
		if err := s.delete(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) delete(ctx context.Context, path string) error {
	defer s.forget(path)
	if err := s.kv.Delete(ctx, path); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	return nil
}

func (s *Store) read(ctx context.Context, owner, kind, name string, since time.Time) (map[string]string, error) {
	path, err := path(owner, kind, name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	hit, ok := s.cache[path]
	s.mu.Unlock()
	now := s.now()
	if ok && now.Before(hit.at.Add(s.cacheFor)) && hit.at.After(since) {
		return hit.data, nil
	}
	data, err := s.kv.Read(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= maxCached {
		clear(s.cache)
	}
	s.cache[path] = cached{data: data, at: now}
	return data, nil
}

func (s *Store) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cache, path)
}

// segment keeps a name within its owner's path.
var segment = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

func path(owner, kind, name string) (string, error) {
	for _, s := range []string{owner, name} {
		if !segment.MatchString(s) {
			return "", fmt.Errorf("%q cannot be part of a path in the vault: %w", s, ErrName)
		}
	}
	return owner + "/" + kind + "/" + name, nil
}

// Owner returns whose a path of a key or secret is. False when it is no such path.
func Owner(s string) (owner string, ok bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return "", false
	}
	same, err := path(parts[0], parts[1], parts[2])
	return parts[0], err == nil && same == s && (parts[1] == "keys" || parts[1] == "secrets")
}

func newKey(kid string, alg jwa.SignatureAlgorithm) (jwk.Key, error) {
	var raw any
	var err error
	switch alg {
	case jwa.ES256():
		raw, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jwa.EdDSA():
		_, raw, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("cannot make a key for algorithm %q: use ES256 or EdDSA", alg)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	key, err := jwk.Import(raw)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, errors.Join(key.Set(jwk.KeyIDKey, kid), key.Set(jwk.AlgorithmKey, alg))
}
