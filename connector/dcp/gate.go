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
// keeps hosts that hang from holding everybody's requests.
const (
	gateSlots    = 4                // exchanges at a time with a host that has not answered lately
	gateWaiting  = 256              // exchanges with all such hosts together, those that wait for a slot included
	gateTrust    = 10 * time.Minute // for which a host that answered has no limit
	gatePatience = time.Second      // to wait for another's exchange with a host that failed
	gateMaxHosts = 10_000
)

// gate is a RoundTripper that bounds what hosts can hold up. A host that answered lately is not limited. Another gets few exchanges at a
// time, and all of them together a bounded number. After an exchange that failed, without another being answered meanwhile, a host gets one
// exchange at a time, and who finds it taken is told so soon; the first answer ends that.
type gate struct {
	next http.RoundTripper

	mu      sync.Mutex
	hosts   map[string]*gateHost
	strange int // exchanges with hosts that have not answered lately
}

type gateHost struct {
	slots, probe chan struct{}
	answered     time.Time
	err          error // of the last exchange, if no other was answered since
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
			if !h.answered.After(began) { // else one page of the host hangs, and others do not
				h.err = err
			}
			g.mu.Unlock()
		}
		release()
		return nil, err
	}
	g.mu.Lock()
	h.answered, h.err = time.Now(), nil
	g.mu.Unlock()
	resp.Body = &gatedBody{ReadCloser: resp.Body, release: sync.OnceFunc(release)}
	return resp, nil
}

// enter waits for a slot of a host, unless the host needs none.
func (g *gate) enter(ctx context.Context, host string) (h *gateHost, release func(), err error) {
	h, free, failed, err := g.arrive(host)
	if free || err != nil {
		return h, func() {}, err
	}
	slots, soon := h.slots, (<-chan time.Time)(nil)
	if failed != nil {
		timer := time.NewTimer(gatePatience)
		defer timer.Stop()
		slots, soon = h.probe, timer.C
	}
	select {
	case slots <- struct{}{}:
		release = func() { <-slots; g.leave() }
	case <-soon:
		g.leave()
		return nil, nil, fmt.Errorf("%s did not answer and is being asked again by another: %w", host, failed)
	case <-ctx.Done():
		g.leave()
		return nil, nil, ctx.Err()
	}
	g.mu.Lock()
	found, nowFree := h.err, h.free()
	g.mu.Unlock()
	switch { // those before may have found out how the host is
	case nowFree:
		release()
		return h, func() {}, nil
	case failed == nil && found != nil:
		release()
		return nil, nil, fmt.Errorf("%s did not answer: %w", host, found)
	}
	return h, release, nil
}

// arrive counts an exchange with a host that is not free; failed says why the host gets one exchange at a time only.
func (g *gate) arrive(host string) (h *gateHost, free bool, failed, err error) {
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
		h = &gateHost{slots: make(chan struct{}, gateSlots), probe: make(chan struct{}, 1)}
		g.hosts[host] = h
	}
	if h.free() {
		return h, true, nil, nil
	}
	if g.strange >= gateWaiting {
		return h, false, nil, fmt.Errorf("%s was not asked: %d exchanges with hosts that have not answered yet are under way", host, g.strange)
	}
	g.strange++
	return h, false, h.err, nil
}

func (g *gate) leave() {
	g.mu.Lock()
	g.strange--
	g.mu.Unlock()
}

func (h *gateHost) free() bool { return h.err == nil && time.Since(h.answered) < gateTrust }

// gatedBody gives the slot back when the answer has been read.
type gatedBody struct {
	io.ReadCloser
	release func()
}

func (b *gatedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}
