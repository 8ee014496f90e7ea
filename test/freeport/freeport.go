// SPDX-License-Identifier: Apache-2.0

// Package freeport picks ports for programs that cannot listen on port 0 and say which they got.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// From first to last: below what Linux gives to outgoing connections and to listeners on port 0 (net.ipv4.ip_local_port_range, 32768 and up), so
// that nothing is likely to take the port before the program listens on it.
const first, last = 10_000, 29_999

// Pick returns a loopback port that nobody listens on.
func Pick() (int, error) {
	var err error
	for range 100 {
		port := first + rand.N(last-first+1) // #nosec G404 -- no secret
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("none of 100 ports between %d and %d is free: %w", first, last, err)
}
