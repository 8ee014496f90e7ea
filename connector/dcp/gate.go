// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Senders choose which hosts are fetched from (their DID says where its document is), before anything of them has been verified. The gate
// keeps hosts that hang from holding everybody's requests: see gate.
const (
	gateSlots    = 4                // exchanges at a time with a host that has not answered lately
	gateWaiting  = 256              // exchanges with all such hosts together, those that wait for a slot included
	gateTrust    = 10 * time.Minute // for which a host that answered has no limit
	gatePenalty  = 6                // times as long as a failed exchange took, the host is left alone
	gateMaxHosts = 10_000
)

// gate is a RoundTripper that bounds what hosts can hold up. A host that answered lately is not limited. Another gets few exchanges at a
// time, all of them together a bounded number, and after an exchange that failed without any other being answered meanwhile it is left
// alone for a while that grows with how long the failure took: a refused connection costs nothing and is tried again at once, one that hung
// for 5 s is not tried for 30 s.
type gate struct {
	next http.RoundTripper

	mu      sync.Mutex
	hosts   map[string]*gateHost
	strange int // exchanges with hosts that have not answered lately
}

type gateHost struct {
	slots    chan struct{}
	answered time.Time
	until    time.Time // left alone until
	err      error     // why
}

// gated puts a gate before a client's transport.
func gated(client *http.Client) *http.Client {
	c := *client
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Transport = &gate{next: c.Transport, hosts: map[string]*gateHost{}}
	return &c
}

// RoundTrip implements http.RoundTripper.
func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	h, release, err := g.enter(r.Context(), r.URL.Host)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as the interface asks
		}
		return nil, err
	}
	began := time.Now()
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		if !errors.Is(r.Context().Err(), context.Canceled) { // a caller that gives up says nothing about the host
			g.mu.Lock()
			h.fail(began, err)
			g.mu.Unlock()
		}
		release()
		return nil, err
	}
	g.mu.Lock()
	h.answered, h.until = time.Now(), time.Time{}
	g.mu.Unlock()
	resp.Body = &gatedBody{ReadCloser: resp.Body, release: sync.OnceFunc(release)}
	return resp, nil
}

// enter waits for a slot of a host, unless the host needs none.
func (g *gate) enter(ctx context.Context, host string) (h *gateHost, release func(), err error) {
	h, free, err := g.arrive(host)
	if free || err != nil {
		return h, func() {}, err
	}
	leave := func() {
		g.mu.Lock()
		g.strange--
		g.mu.Unlock()
	}
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, nil, ctx.Err()
	}
	release = func() { <-h.slots; leave() }
	g.mu.Lock()
	free, err = h.state(host) // those before may have found out
	g.mu.Unlock()
	if free || err != nil {
		release()
		release = func() {}
	}
	return h, release, err
}

// arrive counts an exchange with a host that is not free.
func (g *gate) arrive(host string) (h *gateHost, free bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h = g.hosts[host]
	if h == nil {
		for other := range g.hosts {
			if len(g.hosts) < gateMaxHosts {
				break
			}
			delete(g.hosts, other) // any: the order of a map is random
		}
		h = &gateHost{slots: make(chan struct{}, gateSlots)}
		g.hosts[host] = h
	}
	if free, err = h.state(host); free || err != nil {
		return h, free, err
	}
	if g.strange >= gateWaiting {
		return nil, false, fmt.Errorf("%s was not asked: %d exchanges with hosts that have not answered yet are under way", host, g.strange)
	}
	g.strange++
	return h, false, nil
}

// state says whether a host is free of limits; the error says that it is left alone.
func (h *gateHost) state(host string) (free bool, err error) {
	if time.Now().Before(h.until) {
		return false, fmt.Errorf("%s is not asked before %s: %w", host, stamp(h.until), h.err)
	}
	return time.Since(h.answered) < gateTrust, nil
}

// fail notes an exchange that failed. One page of a host may hang while the others answer: a host that answered meanwhile is fine, and one
// that has answered lately is only limited after its first failure.
func (h *gateHost) fail(began time.Time, err error) {
	switch {
	case h.answered.After(began):
	case h.answered.IsZero():
		h.until, h.err = time.Now().Add(gatePenalty*time.Since(began)), err
	default:
		h.answered = time.Time{}
	}
}

// gatedBody gives the slot back when the answer has been read.
type gatedBody struct {
	io.ReadCloser
	release func()
}

func (b *gatedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}
