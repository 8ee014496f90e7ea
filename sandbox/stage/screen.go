// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// screen shows a run: on a terminal the running stages as lines that are
// redrawn, elsewhere one line when a stage begins, ends, or takes long.
// run.mu guards it.
type screen struct {
	out   io.Writer
	live  bool
	run   *run
	drawn int // live lines on the terminal now
}

func newScreen(out io.Writer, live bool, r *run) *screen {
	return &screen{out: out, live: live, run: r}
}

// IsTerminal says whether lines written to f can be redrawn.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("CI") == ""
}

// start begins to redraw, or to print heartbeats, until the returned function is called.
func (s *screen) start() func() {
	every := heartbeat
	if s.live {
		every = 250 * time.Millisecond
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				s.tick()
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
		s.run.mu.Lock()
		s.clear()
		s.run.mu.Unlock()
	}
}

func (s *screen) tick() {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	if s.live {
		s.clear()
		s.draw()
		return
	}
	for _, e := range s.run.entries {
		if took := time.Since(s.run.begin) - e.Began; e.State == Running && took >= heartbeat {
			s.printf("  ... %s, %s so far%s\n", e.Name, round(took), note(e))
		}
	}
}

func (s *screen) draw() {
	for _, e := range s.run.entries {
		if e.State == Running {
			line := fmt.Sprintf("  ... %-22s %6s%s", e.Name, round(time.Since(s.run.begin)-e.Began), note(e))
			s.printf("%s\n", cut(line, 100))
			s.drawn++
		}
	}
}

func (s *screen) clear() {
	if s.drawn > 0 {
		s.printf("\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) began(e *entry) {
	if !s.live {
		s.printf("  --> %s\n", e.Name)
	}
}

func (s *screen) over(e *entry) {
	s.clear()
	mark := map[State]string{Done: "ok ", Failed: "BAD", Stopped: "-- "}[e.State]
	cached := ""
	if e.Cached && e.State == Done {
		cached = "  (cached)"
	}
	s.printf("  %s %-22s %6s%s\n", mark, e.Name, round(e.Elapsed), cached)
	if s.live {
		s.draw()
	}
}

// table prints what every stage took.
func (s *screen) table(r Report) {
	s.printf("\n%6s %7s  %-10s %s\n", "from", "time", "part", "stage")
	for _, e := range r.Stages {
		if e.State == Waiting {
			continue
		}
		remark := ""
		switch {
		case e.State != Done:
			remark = "  (" + string(e.State) + ")"
		case e.Cached:
			remark = "  (cached)"
		}
		s.printf("%6s %7s  %-10s %s%s\n", round(e.Began), round(e.Elapsed), e.Group, e.Name, remark)
	}
	if r.Groups[Build] == 0 || r.Groups[Provision] == 0 {
		s.printf("%s in all\n", round(r.Wall))
		return
	}
	s.printf("building %s, provisioning %s, %s in all (building and provisioning overlap)\n", round(r.Groups[Build]), round(r.Groups[Provision]), round(r.Wall))
}

// failure prints why a run failed and what to do.
func (s *screen) failure(err error) {
	var f *FailedError
	if !errors.As(err, &f) {
		return
	}
	s.printf("\n%s failed: %v\n", f.Stage, f.Err)
	for _, line := range f.Lines {
		if line == f.Err.Error() {
			continue
		}
		s.printf("    %s\n", cut(line, 400))
	}
	s.printf("the whole log: %s\n", f.Log)
	if f.Remedy != "" {
		s.printf("what to do: %s\n", f.Remedy)
	}
}

func (s *screen) printf(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func note(e *entry) string {
	if e.note == "" {
		return ""
	}
	return "  " + e.note
}

// cut shortens a line to n characters.
func cut(line string, n int) string {
	r := []rune(line)
	if len(r) <= n {
		return line
	}
	return string(r[:n-3]) + "..."
}

func round(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
