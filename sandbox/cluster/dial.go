// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// DialIn connects from inside the network namespace at path, to addresses without
// a host name. An empty path is the caller's own.
func DialIn(path string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var dialer net.Dialer
		if path == "" {
			return dialer.DialContext(ctx, network, address)
		}
		// A socket belongs to the namespace of the thread that makes it, which
		// with an address given by number is the one that calls.
		runtime.LockOSThread()
		back, err := enter(path)
		if err != nil {
			runtime.UnlockOSThread()
			return nil, err
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if back() == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with the goroutine
		}
		return conn, err
	}
}

// enter moves the calling thread into a network namespace, and back.
func enter(path string) (back func() error, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	there, err := os.Open(path)
	if err != nil {
		_ = own.Close()
		return nil, fmt.Errorf("network namespace: %w; is the cluster up?", err)
	}
	err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
	_ = there.Close()
	if err != nil {
		_ = own.Close()
		return nil, fmt.Errorf("enter the network namespace %s: %w", path, err)
	}
	return func() error {
		defer func() { _ = own.Close() }()
		return unix.Setns(int(own.Fd()), unix.CLONE_NEWNET)
	}, nil
}
