// SPDX-License-Identifier: Apache-2.0

// Package place says where things are: the repository's root and the cache of
// everything built or downloaded. It reads and writes nothing in them.
package place

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// module is the first line that tells the repository's root from a module inside it.
var module = []byte("module github.com/kaphera/kaphera\n")

// Root returns the repository's root: the working directory or the nearest
// folder above it whose go.mod is the root module's.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && (bytes.HasPrefix(data, module) || bytes.Contains(data, append([]byte("\n"), module...))) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not inside the kaphera repository: run this from its folder", dir)
		}
	}
}

// Cache returns ${KAPHERA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kaphera}.
func Cache() (string, error) {
	if dir := os.Getenv("KAPHERA_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", errors.New("no place for the cache: set KAPHERA_CACHE, or HOME, to a folder with 10 GB free")
	}
	return filepath.Join(dir, "kaphera"), nil
}
