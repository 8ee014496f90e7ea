// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// trace records in which order stages began and ended.
type trace struct {
	mu    sync.Mutex
	steps []string
}

func (t *trace) add(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, s)
}

func (t *trace) before(test *testing.T, first, second string) {
	test.Helper()
	a, b := slices.Index(t.steps, first), slices.Index(t.steps, second)
	if a < 0 || b < 0 || a > b {
		test.Errorf("%q is not before %q in %v", first, second, t.steps)
	}
}

// takes is a stage body that lasts d unless its context ends.
func (t *trace) takes(name string, d time.Duration) func(context.Context, *Log) error {
	return func(ctx context.Context, _ *Log) error {
		t.add("+" + name)
		defer t.add("-" + name)
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func options(t *testing.T) (Options, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	return Options{Out: out, LogDir: t.TempDir()}, out
}

func TestStagesWaitForWhatTheyNeedAndOverlapOtherwise(t *testing.T) {
	o, _ := options(t)
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		report, err := Run(t.Context(), []Stage{
			{Name: "last", Group: Provision, Needs: []string{"compile", "fetch"}, Run: tr.takes("last", time.Second)},
			{Name: "compile", Group: Build, Heavy: true, Run: tr.takes("compile", 10*time.Second)},
			{Name: "compile2", Group: Build, Heavy: true, Run: tr.takes("compile2", 10*time.Second)},
			{Name: "fetch", Group: Build, Run: tr.takes("fetch", 3*time.Second)},
		}, o)
		if err != nil {
			t.Fatal(err)
		}
		tr.before(t, "-compile", "+last")
		tr.before(t, "-fetch", "+last")
		tr.before(t, "-compile", "+compile2") // one heavy stage at a time
		tr.before(t, "+fetch", "-compile")
		if got, want := report.Groups, map[Group]time.Duration{Build: 20 * time.Second, Provision: time.Second}; got[Build] != want[Build] || got[Provision] != want[Provision] {
			t.Errorf("groups took %v, want %v", got, want)
		}
		if report.Wall != 20*time.Second {
			t.Errorf("the run took %s, want 20s", report.Wall)
		}
	})
}

func TestFailureStopsTheRestAndShowsWhatMatters(t *testing.T) {
	o, out := options(t)
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		boom := errors.New("exit status 2")
		_, err := Run(t.Context(), []Stage{
			{Name: "good", Run: tr.takes("good", time.Second)},
			{Name: "long", Run: tr.takes("long", time.Hour)},
			{Name: "bad", Needs: []string{"good"}, Remedy: "free port 443", Run: func(_ context.Context, log *Log) error {
				log.Printf("listen 443: address already in use: error 98")
				for i := range 30 {
					log.Printf("line %d", i)
				}
				return boom
			}},
			{Name: "after", Needs: []string{"bad"}, Run: tr.takes("after", time.Second)},
		}, o)
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Stage != "bad" || !errors.Is(err, boom) {
			t.Fatalf("error is %v, want the failure of stage bad", err)
		}
		if slices.Contains(tr.steps, "+after") {
			t.Error("a stage ran whose need had failed")
		}
		tr.before(t, "+long", "-long") // Run waited for it
	})
	text := out.String()
	for _, want := range []string{"bad failed: exit status 2", "address already in use", "line 29", "what to do: free port 443", "stopped"} {
		if !strings.Contains(text, want) {
			t.Errorf("output lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "    line 3\n") {
		t.Errorf("output repeats the whole log:\n%s", text)
	}
}

func TestInterruptEndsEveryStageBeforeReturning(t *testing.T) {
	o, _ := options(t)
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		report, err := Run(ctx, []Stage{
			{Name: "a", Run: tr.takes("a", time.Hour)},
			{Name: "b", Run: tr.takes("b", time.Hour)},
			{Name: "c", Needs: []string{"a"}, Run: tr.takes("c", time.Hour)},
		}, o)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "run it again") {
			t.Errorf("error is %v, want the interruption and what to do", err)
		}
		var states []State
		for _, e := range report.Stages {
			states = append(states, e.State)
		}
		if want := []State{Stopped, Stopped, Waiting}; !slices.Equal(states, want) {
			t.Errorf("states are %v, want %v", states, want)
		}
	})
}

func TestLongStageReportsWithoutATerminal(t *testing.T) {
	o, out := options(t)
	synctest.Test(t, func(t *testing.T) {
		if _, err := Run(t.Context(), []Stage{{Name: "build it", Run: func(_ context.Context, log *Log) error {
			log.Printf("package 17 of 80")
			<-time.After(95 * time.Second)
			return nil
		}}}, o); err != nil {
			t.Fatal(err)
		}
	})
	if got := strings.Count(out.String(), "... build it"); got != 3 {
		t.Errorf("%d heartbeats in 95 s, want 3:\n%s", got, out)
	}
	if !strings.Contains(out.String(), "package 17 of 80") {
		t.Errorf("no progress in the heartbeat:\n%s", out)
	}
}

func TestTerminalRedrawsOnlyItsOwnLines(t *testing.T) {
	o, out := options(t)
	o.Live = true
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		if _, err := Run(t.Context(), []Stage{{Name: "one", Run: tr.takes("one", time.Second)}, {Name: "two", Run: tr.takes("two", 2*time.Second)}}, o); err != nil {
			t.Fatal(err)
		}
	})
	if !strings.Contains(out.String(), "\x1b[2A\x1b[J") || strings.Contains(out.String(), "\x1b[3A") {
		t.Errorf("two live lines were not redrawn as two:\n%q", out)
	}
}

func TestCachedStageIsMarked(t *testing.T) {
	o, out := options(t)
	report, err := Run(t.Context(), []Stage{{Name: "kube", Group: Build, Run: func(_ context.Context, log *Log) error {
		log.Cached()
		_, err := fmt.Fprintln(log, "found it")
		return err
	}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Stages[0].Cached || !strings.Contains(out.String(), "(cached)") {
		t.Errorf("cached stage is not marked:\n%s", out)
	}
	if log, err := os.ReadFile(report.Stages[0].Log); err != nil || string(log) != "found it\n" {
		t.Errorf("log is %q, %v", log, err)
	}
}

func TestPanicIsAFailureOfItsStage(t *testing.T) {
	o, _ := options(t)
	_, err := Run(t.Context(), []Stage{{Name: "a", Run: func(context.Context, *Log) error { panic("boom") }}}, o)
	var failed *FailedError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "boom") {
		t.Errorf("error is %v, want stage a's panic", err)
	}
}

func TestWrongListsAreRefusedBeforeAnythingRuns(t *testing.T) {
	ran := false
	body := func(context.Context, *Log) error { ran = true; return nil }
	for name, c := range map[string]struct {
		stages []Stage
		want   string
	}{
		"a need that no stage has": {[]Stage{{Name: "a", Run: body, Needs: []string{"b"}}}, `needs "b", which does not exist`},
		"two of one name":          {[]Stage{{Name: "a", Run: body}, {Name: "a", Run: body}}, `two stages are called "a"`},
		"a cycle":                  {[]Stage{{Name: "a", Run: body, Needs: []string{"b"}}, {Name: "b", Run: body, Needs: []string{"a"}}}, "a needs b needs a"},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := options(t)
			if _, err := Run(t.Context(), c.stages, o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one that says %q", err, c.want)
			}
			if ran {
				t.Error("a stage ran")
			}
		})
	}
}
