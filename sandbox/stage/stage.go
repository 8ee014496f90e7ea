// SPDX-License-Identifier: Apache-2.0

// Package stage runs the steps of a long job: each as soon as what it needs is
// done, several at once, with progress, a full log per step, a timed table at
// the end, and on failure the log lines that matter with what to do. It knows
// nothing of what the steps do.
package stage

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Group divides the time table.
type Group string

// The two parts of a demo, timed apart: making things from source, once, and
// bringing them up.
const (
	Build     Group = "build"
	Provision Group = "provision"
)

// Stage is one step.
type Stage struct {
	Name  string
	Group Group
	Needs []string // names of the stages that must be done first
	// Heavy stages keep every core busy: one runs at a time, others overlap with it.
	Heavy bool
	Run   func(ctx context.Context, log *Log) error
	// Remedy is what to do when the stage fails, one sentence.
	Remedy string
}

// Options say where the output goes.
type Options struct {
	Out    io.Writer
	Live   bool   // Out is a terminal whose lines can be redrawn
	LogDir string // one file per stage; made when absent, earlier logs replaced
}

// heartbeat is how often a stage that takes long says so where lines cannot be redrawn.
const heartbeat = 30 * time.Second

// Entry is one line of the time table.
type Entry struct {
	Name    string        `json:"name"`
	Group   Group         `json:"group"`
	State   State         `json:"state"`
	Cached  bool          `json:"cached"`
	Began   time.Duration `json:"began"`   // since the run began
	Elapsed time.Duration `json:"elapsed"` // nanoseconds
	Log     string        `json:"log"`
}

// State is how a stage ended.
type State string

// The states of an entry.
const (
	Waiting State = "waiting"
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
	Stopped State = "stopped" // ended because another stage failed or the run was interrupted
)

// Report is what a run took.
type Report struct {
	Stages []Entry                 `json:"stages"`
	Wall   time.Duration           `json:"wall"`
	Groups map[Group]time.Duration `json:"groups"` // wall time during which any stage of the group ran
}

// FailedError is the failure of one stage.
type FailedError struct {
	Stage  string
	Remedy string
	Log    string   // path of the stage's log
	Lines  []string // the log lines that matter
	Err    error
}

func (e *FailedError) Error() string { return fmt.Sprintf("stage %q failed: %v", e.Stage, e.Err) }

func (e *FailedError) Unwrap() error { return e.Err }

// Run runs the stages and returns when every one has ended, also after a
// failure or when ctx ends. The error is a *FailedError for the first stage
// that failed, ctx's when the run was interrupted, or says what is wrong with
// the list of stages; then nothing was run.
func Run(ctx context.Context, stages []Stage, o Options) (Report, error) {
	if err := check(stages); err != nil {
		return Report{}, err
	}
	if err := os.MkdirAll(o.LogDir, 0o755); err != nil {
		return Report{}, fmt.Errorf("make the log folder: %w", err)
	}
	r := &run{stages: stages, begin: time.Now(), logDir: o.LogDir, ended: make(chan int)}
	for _, s := range stages {
		r.entries = append(r.entries, &entry{Entry: Entry{Name: s.Name, Group: s.Group, State: Waiting, Log: r.logPath(s.Name)}})
	}
	r.screen = newScreen(o.Out, o.Live, r)
	stop := r.screen.start()
	err := r.loop(ctx)
	stop()
	report := r.report()
	r.screen.table(report)
	r.screen.failure(err)
	return report, err
}

// check finds duplicate names, needs that no stage has, and cycles.
func check(stages []Stage) error {
	at := map[string]int{}
	for i, s := range stages {
		if _, double := at[s.Name]; double {
			return fmt.Errorf("two stages are called %q", s.Name)
		}
		at[s.Name] = i
	}
	open := map[string]bool{}
	var visit func(name string, path []string) error
	done := map[string]bool{}
	visit = func(name string, path []string) error {
		if done[name] {
			return nil
		}
		path = append(path, name)
		if open[name] {
			return fmt.Errorf("stages need each other: %s", strings.Join(path, " needs "))
		}
		open[name] = true
		for _, need := range stages[at[name]].Needs {
			if _, ok := at[need]; !ok {
				return fmt.Errorf("stage %q needs %q, which does not exist", name, need)
			}
			if err := visit(need, path); err != nil {
				return err
			}
		}
		open[name], done[name] = false, true
		return nil
	}
	for _, s := range stages {
		if err := visit(s.Name, nil); err != nil {
			return err
		}
	}
	return nil
}

// run is one execution; mu guards the entries.
type run struct {
	stages  []Stage
	begin   time.Time
	logDir  string
	screen  *screen
	ended   chan int
	mu      sync.Mutex
	entries []*entry
}

type entry struct {
	Entry
	note string // what the stage does right now
	err  error
}

func (r *run) logPath(name string) string {
	clean := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '-'
	}, name)
	return filepath.Join(r.logDir, clean+".log")
}

// loop starts stages until all are done, or none can be, and none runs.
func (r *run) loop(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	var failed error
	for running := 0; ; running-- {
		if failed == nil && parent.Err() == nil {
			running += r.startReady(ctx)
		}
		if running == 0 {
			break
		}
		e := r.entries[<-r.ended]
		if e.State == Failed && failed == nil && parent.Err() == nil {
			failed = r.failure(e)
			cancel()
		}
	}
	if failed != nil {
		return failed
	}
	if parent.Err() != nil {
		return fmt.Errorf("interrupted, run it again to go on: %w", context.Cause(parent))
	}
	return nil
}

// startReady starts every stage whose needs are done and returns how many.
func (r *run) startReady(ctx context.Context) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := map[string]State{}
	heavy := false
	for i, e := range r.entries {
		state[e.Name] = e.State
		heavy = heavy || e.State == Running && r.stages[i].Heavy
	}
	started := 0
	for i, s := range r.stages {
		e := r.entries[i]
		blocked := slices.ContainsFunc(s.Needs, func(n string) bool { return state[n] != Done })
		if e.State != Waiting || blocked || s.Heavy && heavy {
			continue
		}
		heavy = heavy || s.Heavy
		e.State, e.Began = Running, time.Since(r.begin)
		started++
		r.screen.began(e)
		go r.one(ctx, i)
	}
	return started
}

func (r *run) one(ctx context.Context, i int) {
	e := r.entries[i]
	err := r.perform(ctx, i)
	r.mu.Lock()
	e.Elapsed = time.Since(r.begin) - e.Began
	e.err = err
	switch {
	case err == nil:
		e.State = Done
	case ctx.Err() != nil:
		e.State = Stopped
	default:
		e.State = Failed
	}
	r.screen.over(e)
	r.mu.Unlock()
	r.ended <- i
}

func (r *run) perform(ctx context.Context, i int) (err error) {
	f, err := os.Create(r.entries[i].Log)
	if err != nil {
		return fmt.Errorf("open the stage's log: %w", err)
	}
	log := &Log{file: f, run: r, entry: r.entries[i]}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			_, _ = fmt.Fprintln(log, err)
		}
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	return r.stages[i].Run(ctx, log)
}

func (r *run) failure(e *entry) error {
	f := &FailedError{Stage: e.Name, Log: e.Log, Err: e.err}
	for _, s := range r.stages {
		if s.Name == e.Name {
			f.Remedy = s.Remedy
		}
	}
	if data, err := os.ReadFile(e.Log); err == nil {
		f.Lines = matter(string(data))
	}
	return f
}

func (r *run) report() Report {
	report := Report{Wall: time.Since(r.begin), Groups: map[Group]time.Duration{}}
	for _, e := range r.entries {
		report.Stages = append(report.Stages, e.Entry)
	}
	for _, g := range []Group{Build, Provision} {
		report.Groups[g] = covered(report.Stages, g)
	}
	return report
}

// covered is the time during which at least one stage of the group ran; stages
// that found their result in the cache count too.
func covered(entries []Entry, g Group) time.Duration {
	var of []Entry
	for _, e := range entries {
		if e.Group == g && e.State != Waiting {
			of = append(of, e)
		}
	}
	slices.SortFunc(of, func(a, b Entry) int { return int(a.Began - b.Began) })
	var total, until time.Duration
	for _, e := range of {
		from, to := max(e.Began, until), e.Began+e.Elapsed
		if to > from {
			total += to - from
			until = to
		}
	}
	return total
}
