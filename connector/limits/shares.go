// SPDX-License-Identifier: Apache-2.0

package limits

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Share is how much each of many parties may have under way at once.
type Share struct {
	Name     string        // of the limit, in metrics, logs and errors: what there is that much of
	Most     int           // at once
	Queue    int           // how many more wait for a place
	Patience time.Duration // for which each of them waits
	// Pause is how long who finds no room to wait either waits to be told so: one that comes again at once takes little then of what all share. It is for
	// what comes in from outside.
	Pause time.Duration
}

// Shares bounds how much each of many parties may have under way at once, so that one of them leaves room for the others. A party waits for none
// but itself. It is safe for concurrent use; nil bounds nothing.
type Shares struct {
	Share
	meter *Meter

	mu      sync.Mutex
	byParty map[string]*places
}

type places struct {
	taken   int
	waiting []chan struct{} // each is closed when a place is handed over
}

// BusyError is a party whose share is used up, or for which nothing can be done for a while since it is being moved to another connector.
type BusyError struct {
	Share
	Party  string
	Moving bool
}

func (e *BusyError) Error() string {
	if e.Moving {
		return e.Party + " is being moved to another connector: try again in a while"
	}
	return fmt.Sprintf("%s has %d %s under way, which is its share: try again once one of them has ended", e.Party, e.Most, e.Name)
}

// NewShares makes shares that nobody counts.
func NewShares(s Share) *Shares { return (*Meter)(nil).Shares(s) }

// Enter takes a place of a party's share until leave is called, and waits for one as the share says. The error is a *BusyError, or ctx's. A party
// without a name has no bound.
func (s *Shares) Enter(ctx context.Context, party string) (leave func(), err error) {
	return s.enter(ctx, party, func() {})
}

// enter is Enter; refused is called before the pause, to let go of what nobody needs any more: any number may be in it.
func (s *Shares) enter(ctx context.Context, party string, refused func()) (leave func(), err error) {
	if s == nil || party == "" {
		return func() {}, nil
	}
	s.mu.Lock()
	p := s.byParty[party]
	if p == nil {
		p = &places{}
		s.byParty[party] = p
	}
	leave = sync.OnceFunc(func() { s.leave(party, p) })
	if p.taken < s.Most {
		p.taken++
		s.mu.Unlock()
		return leave, nil
	}
	place := make(chan struct{})
	full := len(p.waiting) >= s.Queue
	if !full {
		p.waiting = append(p.waiting, place)
	}
	s.mu.Unlock()
	s.meter.reached(s.Share, party, full)
	wait := s.Patience
	if full {
		refused()
		wait, place = s.Pause, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-place:
		return leave, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = &BusyError{Share: s.Share, Party: party}
	}
	if full {
		return nil, err
	}
	s.mu.Lock()
	i := slices.Index(p.waiting, place)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 { // it was handed over meanwhile
		leave()
	}
	return nil, err
}

func (s *Shares) leave(party string, p *places) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.waiting) > 0 {
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
		return
	}
	if p.taken--; p.taken == 0 {
		delete(s.byParty, party)
	}
}

// Blocked counts that something waits elsewhere than in Enter because shares are used up.
func (s *Shares) Blocked() {
	if s == nil {
		return
	}
	var full []string
	s.mu.Lock()
	for party, p := range s.byParty {
		if p.taken >= s.Most {
			full = append(full, party)
		}
	}
	s.mu.Unlock()
	for _, party := range full {
		s.meter.reached(s.Share, party, false)
	}
}

// Request is Enter for an HTTP request to a party, once its body is there: who sends slowly takes nobody's place. It returns the request with that
// body, and a body that could not be read fails as it is read.
func (s *Shares) Request(r *http.Request, party string) (whole *http.Request, leave func(), err error) {
	if s == nil {
		return r, func() {}, nil
	}
	if r.Body != nil && r.Body != http.NoBody {
		raw, err := io.ReadAll(r.Body)
		r = r.WithContext(r.Context()) // a copy: the server goes by the body in its own
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(raw), failing{err}))
	}
	leave, err = s.enter(r.Context(), party, func() { r.Body = http.NoBody })
	return r, leave, err
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// Meter counts how often shares are used up, by limit; which party it was is logged, once a minute each. Nil counts nothing.
type Meter struct {
	log  *slog.Logger
	hits *prometheus.CounterVec

	mu     sync.Mutex
	logged map[[2]string]time.Time // by limit and party
}

const (
	logEvery  = time.Minute
	maxLogged = 1000
)

// NewMeter makes a meter with its metric.
func NewMeter(r prometheus.Registerer, log *slog.Logger) *Meter {
	m := &Meter{log: log, logged: map[[2]string]time.Time{}, hits: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaphera_share_used_up_total",
		Help: "How often a party's share was used up, by limit and by what became of it (waited, refused)."}, []string{"limit", "outcome"})}
	r.MustRegister(m.hits)
	return m
}

// Shares makes shares that it counts; a share of nothing is no bound.
func (m *Meter) Shares(s Share) *Shares {
	if s.Most == 0 {
		return nil
	}
	return &Shares{Share: s, meter: m, byParty: map[string]*places{}}
}

func (m *Meter) reached(s Share, party string, refused bool) {
	if m == nil {
		return
	}
	outcome := "waited"
	if refused {
		outcome = "refused"
	}
	m.hits.WithLabelValues(s.Name, outcome).Inc()
	key, now := [2]string{s.Name, party}, time.Now()
	m.mu.Lock()
	silent := now.Sub(m.logged[key]) < logEvery
	if !silent {
		if len(m.logged) >= maxLogged {
			clear(m.logged)
		}
		m.logged[key] = now
	}
	m.mu.Unlock()
	if !silent {
		m.log.Warn("a share is used up", "limit", s.Name, "party", party, "most", s.Most, "outcome", outcome)
	}
}
