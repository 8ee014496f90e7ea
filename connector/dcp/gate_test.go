// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// transport answers at once, but for hosts that hang: those take 5 s to fail.
type transport struct {
	hangs  func(host string) bool
	asked  atomic.Int32
	now    atomic.Int32
	atOnce atomic.Int32 // the most that hung at a time
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.asked.Add(1)
	if !t.hangs(r.URL.Host) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
	}
	now := t.now.Add(1)
	defer t.now.Add(-1)
	most := t.atOnce.Load()
	for now > most && !t.atOnce.CompareAndSwap(most, now) {
		most = t.atOnce.Load()
	}
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(5 * time.Second):
		return nil, errors.New("no route to host")
	}
}

func fetch(client *http.Client, host string) error {
	_, err := Get(context.Background(), client, "http://"+host, "*/*", "", 10)
	return err
}

// A host that hangs holds few requests, and those only once in a while; other hosts notice nothing.
func TestAHangingHostIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{hangs: func(host string) bool { return host == "hangs" }}
		client := gated(&http.Client{Transport: tr, Timeout: 10 * time.Second})
		began := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := fetch(client, "hangs"); err == nil || !temporary(err) {
					t.Errorf("got %v", err)
				}
			})
			wg.Go(func() {
				if err := fetch(client, "works"); err != nil || time.Since(began) > 0 {
					t.Errorf("the other host after %s: %v", time.Since(began), err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the last was told after %s", took)
		}
		if n := tr.atOnce.Load(); n != gateSlots {
			t.Errorf("%d at a time, want %d", n, gateSlots)
		}
		// Then one at a time, and who finds it taken is told soon.
		asked, before := tr.asked.Load(), time.Now()
		var soon atomic.Int32
		for range 10 {
			wg.Go(func() {
				if err := fetch(client, "hangs"); err == nil || !strings.Contains(err.Error(), "no route to host") {
					t.Errorf("got %v", err)
				}
				if time.Since(before) <= gatePatience {
					soon.Add(1)
				}
			})
		}
		wg.Wait()
		if n := tr.asked.Load() - asked; n != 1 || soon.Load() != 9 {
			t.Errorf("asked %d times more, told %d soon", n, soon.Load())
		}
		// When it answers, all is at once as before.
		tr.hangs = func(string) bool { return false }
		for range 10 {
			if err := fetch(client, "hangs"); err != nil {
				t.Errorf("works again: %v", err)
			}
		}
	})
}

// One page of a host that hangs does not keep the others from being asked.
func TestAHangingPageIsNotItsHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := gated(&http.Client{Timeout: 10 * time.Second, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/hangs" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})})
		for range 5 {
			if err := fetch(client, "host"); err != nil {
				t.Fatal(err)
			}
			if err := fetch(client, "host/hangs"); err == nil {
				t.Fatal("answered")
			}
		}
	})
}

// A failure that costs nothing delays nothing.
func TestAQuickFailureIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		client := gated(&http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			if down {
				return nil, errors.New("connection refused")
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})})
		if err := fetch(client, "host"); err == nil {
			t.Fatal("was reached")
		}
		down = false
		if err := fetch(client, "host"); err != nil {
			t.Error(err)
		}
	})
}

// However many host names lead nowhere, requests that hang are bounded, and hosts that are known go on being asked.
func TestHangingHostsTogetherAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{hangs: func(host string) bool { return strings.HasPrefix(host, "hangs") }}
		client := gated(&http.Client{Transport: tr, Timeout: 10 * time.Second})
		if err := fetch(client, "known"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for n := range 2 * gateWaiting {
			wg.Go(func() { _ = fetch(client, fmt.Sprintf("hangs-%d", n)) })
		}
		synctest.Wait()
		if n := tr.now.Load(); n != gateWaiting {
			t.Errorf("%d hang, want %d", n, gateWaiting)
		}
		if err := fetch(client, "known"); err != nil {
			t.Error(err)
		}
		if err := fetch(client, "new"); err == nil || !temporary(err) {
			t.Errorf("one too many: %v", err)
		}
		wg.Wait()
		if err := fetch(client, "new"); err != nil {
			t.Error(err)
		}
	})
}

// A caller that gives up says nothing about the host, and gives its slot back.
func TestGivingUpIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{hangs: func(string) bool { return true }}
		client := gated(&http.Client{Transport: tr})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 * gateSlots {
			wg.Go(func() { _, _ = Get(ctx, client, "http://host", "*/*", "", 10) })
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		tr.hangs = func(string) bool { return false }
		if err := fetch(client, "host"); err != nil {
			t.Error(err)
		}
		if g, ok := client.Transport.(*gate); !ok || g.strange != 0 || len(g.hosts["host"].slots) != 0 {
			t.Error("slots are still held")
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
