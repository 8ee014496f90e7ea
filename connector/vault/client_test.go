// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/vault/vaulttest"
)

// A server that fails; the real one is in test/openbao.
func against(t *testing.T, h http.HandlerFunc) *vault.Store {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t0ken"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := vault.New(vault.Config{Address: server.URL, Mount: "kv", Auth: vault.Auth{Method: vault.AuthToken, TokenFile: token}})
	if err != nil {
		t.Fatal(err)
	}
	return vault.NewStore(c, 0)
}

func lookup(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != "/v1/auth/token/lookup-self" {
		return false
	}
	_, _ = w.Write([]byte(`{"data":{"ttl":3600,"renewable":false}}`))
	return true
}

func TestServerTroubleIsRetriedAndBounded(t *testing.T) {
	var tries atomic.Int32
	store := against(t, func(w http.ResponseWriter, r *http.Request) {
		if lookup(w, r) {
			return
		}
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte(`{"data":{"data":{"value":"x"},"metadata":{"version":1}}}`))
	})
	if got, err := store.Secret(t.Context(), "acme", "a", time.Time{}); err != nil || got != "x" {
		t.Errorf("%q, %v after %d tries", got, err, tries.Load())
	}
	tries.Store(-100)
	_, err := store.Secret(t.Context(), "acme", "a", time.Time{})
	if err == nil || errors.Is(err, vault.ErrNotFound) || !strings.Contains(err.Error(), "502") {
		t.Errorf("a server in trouble: %v", err)
	}
	if n := tries.Load() + 100; n != 3 {
		t.Errorf("tried %d times", n)
	}
}

func TestContextEndsACall(t *testing.T) {
	entered := make(chan struct{})
	release := make(chan struct{})
	store := against(t, func(w http.ResponseWriter, r *http.Request) {
		if lookup(w, r) {
			return
		}
		close(entered)
		<-release
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := store.Secret(ctx, "acme", "a", time.Time{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNoErrorQuotesAKeyOrToken(t *testing.T) {
	kv := vaulttest.New()
	if err := kv.Create(t.Context(), "acme/keys/key-1", map[string]string{"jwk": `{"kty":"EC","d":"s3cret","x":1}`}); err != nil {
		t.Fatal(err)
	}
	_, err := vault.NewStore(kv, 0).Key(t.Context(), "acme", "key-1", time.Time{})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
	_, err = against(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }).Secret(t.Context(), "acme", "a", time.Time{})
	if err == nil || strings.Contains(err.Error(), "t0ken") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyUsefulKeysAreMade(t *testing.T) {
	store := vault.NewStore(vaulttest.New(), time.Minute)
	if _, err := store.CreateKey(t.Context(), "acme", "key-1", jwa.HS256()); err == nil || !strings.Contains(err.Error(), "ES256 or EdDSA") {
		t.Errorf("got %v", err)
	}
}

// A participant that was deleted and made again through one replica has a new key of the old name, which the other one must not mistake.
func TestAKeyOfAnEarlierOwnerIsNotRemembered(t *testing.T) {
	kv := vaulttest.New()
	one, other := vault.NewStore(kv, time.Hour), vault.NewStore(kv, time.Hour)
	create := func(s *vault.Store) jwk.Key {
		t.Helper()
		key, err := s.CreateKey(t.Context(), "acme", "key-1", jwa.ES256())
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	create(other)
	if err := one.DeleteKeys(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	made := time.Now()
	key := create(one)
	if got, err := other.Key(t.Context(), "acme", "key-1", made); err != nil || !jwk.Equal(got, key) {
		t.Errorf("the other replica signs with a key that is gone: %v", err)
	}
	if err := one.DeleteKeys(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	key = create(other)
	if got, err := one.Key(t.Context(), "acme", "key-1", time.Time{}); err != nil || !jwk.Equal(got, key) {
		t.Errorf("the other replica took a key that is gone for one that is there: %v", err)
	}
}
