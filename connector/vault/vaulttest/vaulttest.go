// SPDX-License-Identifier: Apache-2.0

// Package vaulttest is an in-memory KV for the tests of other packages. No program imports it.
package vaulttest

import (
	"context"
	"maps"
	"strings"
	"sync"

	"github.com/kaphera/kaphera/connector/vault"
)

// KV is a vault.KV in memory.
type KV struct {
	mu   sync.Mutex
	data map[string]map[string]string
}

// New makes an empty one.
func New() *KV { return &KV{data: map[string]map[string]string{}} }

// Read implements vault.KV.
func (k *KV) Read(_ context.Context, path string) (map[string]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, ok := k.data[path]
	if !ok {
		return nil, vault.ErrNotFound
	}
	return maps.Clone(data), nil
}

// Create implements vault.KV.
func (k *KV) Create(_ context.Context, path string, data map[string]string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.data[path]; ok {
		return vault.ErrExists
	}
	k.data[path] = maps.Clone(data)
	return nil
}

// Write implements vault.KV.
func (k *KV) Write(_ context.Context, path string, data map[string]string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.data[path] = maps.Clone(data)
	return nil
}

// List implements vault.KV.
func (k *KV) List(_ context.Context, path string) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var names []string
	for p := range k.data {
		if name, below := strings.CutPrefix(p, path+"/"); below {
			names = append(names, name)
		}
	}
	return names, nil
}

// Delete implements vault.KV.
func (k *KV) Delete(_ context.Context, path string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.data, path)
	return nil
}
