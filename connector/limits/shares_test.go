// SPDX-License-Identifier: Apache-2.0

package limits_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/connector/limits"
)

func enter(t *testing.T, s *limits.Shares, party string) func() {
	t.Helper()
	leave, err := s.Enter(t.Context(), party)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

func busy(err error) bool {
	var busy *limits.BusyError
	return errors.As(err, &busy)
}

// Who is turned away because there is no room to wait either hears of it after the pause, or when it gives up, and has taken nothing.
func TestARefusalTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limits.NewShares(limits.Share{Name: "requests", Most: 1, Pause: time.Minute})
		leave := enter(t, s, "noisy")
		begin := time.Now()
		if _, err := s.Enter(t.Context(), "noisy"); !busy(err) || time.Since(begin) != time.Minute {
			t.Errorf("refused after %s: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Enter(ctx, "noisy"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up: %v", err)
		}
		// What was sent with it is let go before.
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("much"))
		if r, _, err := s.Request(r, "noisy"); !busy(err) || r.Body != http.NoBody {
			t.Errorf("a request: %v, its body is %v", err, r.Body)
		}
		leave()
		enter(t, s, "noisy")()
	})
}

func TestShares(t *testing.T) {
	registry := prometheus.NewRegistry()
	var log strings.Builder
	m := limits.NewMeter(registry, slog.New(slog.NewTextHandler(&log, nil)))
	s := m.Shares(limits.Share{Name: "requests", Most: 2, Queue: 1, Patience: time.Hour})
	first := enter(t, s, "noisy")
	enter(t, s, "noisy")
	waits := make(chan func())
	go func() {
		leave, err := s.Enter(context.Background(), "noisy")
		if err != nil {
			t.Error(err)
		}
		waits <- leave
	}()
	waited := func() float64 { return counted(t, registry, "waited") }
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waited() < 1 {
		<-tick.C
	}
	if _, err := s.Enter(t.Context(), "noisy"); !busy(err) || !strings.Contains(err.Error(), "noisy has 2 requests under way") {
		t.Errorf("one more than may wait: %v", err)
	}
	enter(t, s, "quiet")() // which neither waits nor is refused
	for range 100 {
		enter(t, s, "") // nobody's
	}
	select {
	case <-waits:
		t.Fatal("there was a place that nobody had left")
	default:
	}
	first()
	first() // once is enough
	third := <-waits
	enter(t, limits.NewShares(limits.Share{}), "a") // not bounded
	third()
	enter(t, s, "noisy")
	if refused := counted(t, registry, "refused"); waited() != 1 || refused != 1 {
		t.Errorf("waited %v times, refused %v", waited(), refused)
	}
	if n := strings.Count(log.String(), "party=noisy"); n != 1 {
		t.Errorf("logged %d times within a minute:\n%s", n, log.String())
	}
}

func counted(t *testing.T, r *prometheus.Registry, outcome string) float64 {
	t.Helper()
	found, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range found {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == outcome && m.GetLabel()[0].GetValue() == "requests" {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// TestWhoStopsWaiting leaves no place taken.
func TestWhoStopsWaiting(t *testing.T) {
	impatient := limits.NewShares(limits.Share{Name: "requests", Most: 1, Queue: 1})
	leave := enter(t, impatient, "a")
	if _, err := impatient.Enter(t.Context(), "a"); !busy(err) {
		t.Errorf("after its patience: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	patient := limits.NewShares(limits.Share{Name: "requests", Most: 1, Queue: 1, Patience: time.Hour})
	leaveToo := enter(t, patient, "a")
	if _, err := patient.Enter(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("after it has gone: %v", err)
	}
	leave()
	leaveToo()
	enter(t, impatient, "a")
	enter(t, patient, "a")
}

// TestWhoSendsSlowlyTakesNoPlace: one sender stops in the middle, and another is served meanwhile, though there is one place.
func TestWhoSendsSlowlyTakesNoPlace(t *testing.T) {
	s := limits.NewShares(limits.Share{Name: "requests", Most: 1})
	arrived := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		whole, leave, err := s.Request(r, "a")
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer leave()
		_, _ = io.Copy(w, whole.Body)
	}))
	defer server.Close()
	slow, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := io.WriteString(slow, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	<-arrived
	res, err := http.Post(server.URL, "", strings.NewReader("all of it"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if got, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(got) != "all of it" {
		t.Errorf("%d %q %v", res.StatusCode, got, err)
	}
}
