// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/kaphera/kaphera/test/interop/rig"
)

// want is how many checks there are; a run with fewer has not seen all.
const want = 39

var passed atomic.Int32

func TestMain(m *testing.M) {
	code := rig.Main(m)
	fmt.Printf("interop %d/%d\n", passed.Load(), want)
	if passed.Load() < want {
		code = max(code, 1)
	}
	os.Exit(code)
}

// check is one thing that both connectors must agree on.
func check(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	if t.Run(name, f) {
		passed.Add(1)
	}
}
