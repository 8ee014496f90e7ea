// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// at calls the data plane with a flow's token and leaves the answer open.
func (b *bundle) at(t *testing.T, endpoint, token string) *http.Response {
	t.Helper()
	res, err := b.try(t, endpoint, token)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (b *bundle) try(t *testing.T, endpoint, token string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	res, err := http.DefaultClient.Do(req)
	if err == nil {
		t.Cleanup(func() { _ = res.Body.Close() })
	}
	return res, err
}

func TestABackendThatPinsAnAccessIsCutOff(t *testing.T) {
	b := setup(t, func(d *Deps) { d.BackendGrace, d.BackendRate = 50*time.Millisecond, 1<<20 })
	a := b.start(t, b.flow())
	for name, every := range map[string]time.Duration{"a byte now and then": time.Millisecond, "nothing more": time.Hour} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			end := sync.OnceFunc(func() { close(ended) })
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer end()
				tick := time.NewTicker(every)
				defer tick.Stop()
				for {
					if _, err := w.Write([]byte("x")); err != nil || http.NewResponseController(w).Flush() != nil {
						return
					}
					select {
					case <-r.Context().Done():
						return
					case <-tick.C:
					}
				}
			})
			b.answer.Store(&h)
			res, err := b.try(t, a.Endpoint, a.Properties["authorization"])
			if err == nil { // otherwise it was cut off before its beginning was sent on
				_, err = io.Copy(io.Discard, res.Body)
			}
			if err == nil {
				t.Error("the answer ended as if it were whole")
			}
			<-ended
		})
	}
}

// TestPace: only the backend's own time counts.
func TestPace(t *testing.T) {
	type step struct {
		think, wait time.Duration // of the consumer before it reads, of the backend until it sends
		bytes       int
	}
	for name, tc := range map[string]struct {
		steps []step
		slow  bool
	}{
		"quick":                         {[]step{{0, time.Second, 1000}, {0, time.Second, 1000}}, false},
		"a slow consumer":               {[]step{{time.Hour, time.Second, 1000}, {time.Hour, time.Second, 1000}}, false},
		"at just the rate, for long":    {[]step{{0, 9 * time.Second, 900}, {0, 9 * time.Second, 900}, {0, 9 * time.Second, 900}}, false},
		"a pause":                       {[]step{{0, 9 * time.Second, 1}, {0, time.Second / 2, 1}}, false},
		"too long a pause":              {[]step{{0, 11 * time.Second, 1}}, true},
		"a pause after much":            {[]step{{0, time.Second, 1_000_000}, {0, 11 * time.Second, 1}}, true},
		"a little again and again":      {[]step{{0, 4 * time.Second, 1}, {0, 4 * time.Second, 1}, {0, 4 * time.Second, 1}}, true},
		"short pauses that add to much": {[]step{{0, 6 * time.Second, 1}, {time.Hour, 6 * time.Second, 1}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				p := &paced{ReadCloser: r, grace: 10 * time.Second, left: 10 * time.Second, rate: 100}
				reading := make(chan struct{})
				done := make(chan struct{})
				go func() {
					defer close(done)
					for _, s := range tc.steps {
						<-reading
						<-time.After(s.wait) // in the test's own time
						_, _ = io.WriteString(w, strings.Repeat("x", s.bytes))
					}
				}()
				var err error
				for _, s := range tc.steps {
					<-time.After(s.think)
					reading <- struct{}{}
					if _, err = p.Read(make([]byte, s.bytes)); err != nil {
						break
					}
				}
				if errors.Is(err, errTooSlow) != tc.slow {
					t.Errorf("ended with %v, too slow: want %v", err, tc.slow)
				}
				_ = r.Close()
				close(reading)
				<-done
			})
		})
	}
}

// TestOneParticipantLeavesRoomForOthers: its readers are different counterparties, one more waits, and the next is told to come again.
func TestOneParticipantLeavesRoomForOthers(t *testing.T) {
	b := setup(t, func(d *Deps) { d.PerParticipant, d.PerCounterparty = 1, 1 })
	if err := audit.Open(t.Context(), tenant.DB{Pool: b.deps.DB}.In("other"), "other"); err != nil { // as its control plane does
		t.Fatal(err)
	}
	reader := func(n int, more ...func(*dps.Flow)) dps.DataAddress {
		return b.start(t, b.flow(append([]func(*dps.Flow){func(f *dps.Flow) { f.FlowID, f.Counterparty = fmt.Sprint("tp-", n), fmt.Sprint("did:web:x:", n) }}, more...)...))
	}
	release := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	b.answer.Store(&h)
	first := reader(1)
	b.at(t, first.Endpoint, first.Properties["authorization"])
	answers := make(chan answer, 2)
	for n := range 2 {
		a := reader(2 + n)
		go func() { answers <- fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]) }()
	}
	if got := <-answers; got.status != http.StatusServiceUnavailable || got.code(t) != "busy" || got.header.Get("Retry-After") == "" {
		t.Errorf("one more than may wait: %+v", got)
	}
	other := reader(4, func(f *dps.Flow) {
		f.Context, f.Counterparty = "other", "did:web:x:1"
		f.Source = map[string]string{"type": "HttpData", "baseUrl": b.backend.URL} // it has no secret
	})
	if res := b.at(t, other.Endpoint, other.Properties["authorization"]); res.StatusCode != http.StatusOK {
		t.Errorf("meanwhile the first one reads another participant's data: %d", res.StatusCode)
	}
	close(release)
	<-answers
}

func TestOneCounterpartyLeavesRoomForOthers(t *testing.T) {
	b := setup(t, func(d *Deps) { d.PerCounterparty = 1 })
	a := b.start(t, b.flow())
	other := b.start(t, b.flow(func(f *dps.Flow) { f.FlowID, f.Counterparty = "tp-2", "did:web:x:other" }))
	release := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	b.answer.Store(&h)
	res := b.at(t, a.Endpoint, a.Properties["authorization"])
	if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusTooManyRequests || got.code(t) != "busy" || got.header.Get("Retry-After") == "" {
		t.Errorf("one more than its share: %+v", got)
	}
	if res := b.at(t, other.Endpoint, other.Properties["authorization"]); res.StatusCode != http.StatusOK {
		t.Errorf("meanwhile another counterparty gets %d", res.StatusCode)
	}
	close(release)
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	if res := b.at(t, a.Endpoint, a.Properties["authorization"]); res.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", res.StatusCode)
	}
}
