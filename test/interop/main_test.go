// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// want is how many checks there are; a run with fewer has not seen all.
const want = 28

var passed atomic.Int32

func TestMain(m *testing.M) {
	if file := os.Getenv(connectorConfig); file != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := serve(ctx, file)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
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

const patience = 5 * time.Minute

// until waits for a condition; say tells what is there instead.
func until(t *testing.T, what string, holds func() (ok bool, say string)) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		ok, say := holds()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s: %s", what, patience, say)
		}
	}
}
