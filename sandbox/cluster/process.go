// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// component is one long-running program of a cluster.
type component struct {
	name  string
	argv  []string
	files []string // configuration it reads at start: a change restarts it
}

// digest changes when the component must be started again to be as wanted.
func (c component) digest() (string, error) {
	h := sha256.New()
	for _, a := range c.argv {
		h.Write(fmt.Appendf(nil, "%q\n", a))
	}
	for _, file := range c.files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("configuration of %s: %w", c.name, err)
		}
		h.Write(fmt.Appendf(nil, "%s %d\n%s", file, len(data), data))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// process is the record of a started component. A PID alone may have been given
// to another program since, so its start time and the boot it belongs to count too.
type process struct {
	PID    int    `json:"pid"`
	Ticks  uint64 `json:"startTicks"`
	Boot   string `json:"boot"`
	Digest string `json:"digest"`
}

func (l layout) record(component string) string { return l.path("run", component+".json") }

func (l layout) processes() (map[string]process, error) {
	files, err := filepath.Glob(l.path("run", "*.json"))
	if err != nil {
		return nil, err
	}
	all := map[string]process{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var p process
		if err := json.Unmarshal(data, &p); err == nil { // a torn record names no process
			all[strings.TrimSuffix(filepath.Base(file), ".json")] = p
		}
	}
	return all, nil
}

func (p process) alive() bool {
	ticks, err := startTicks(p.PID)
	return err == nil && ticks == p.Ticks && bootID() == p.Boot
}

var errZombie = errors.New("process has ended")

// startTicks is the kernel's start time of a live process, in ticks since boot.
func startTicks(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStartTicks(data)
}

func parseStartTicks(stat []byte) (uint64, error) {
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("unreadable process status %q", stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, errZombie
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Signal sends a signal to a running program of a cluster; `sandbox status --components` lists them.
func Signal(name, component string, signal syscall.Signal) error {
	l, err := newLayout(name)
	if err != nil {
		return err
	}
	all, err := l.processes()
	if err != nil {
		return err
	}
	p, ok := all[component]
	if !ok || !p.alive() {
		return fmt.Errorf("no program %q of cluster %s runs; `sandbox status --components` lists them", component, name)
	}
	return syscall.Kill(p.PID, signal)
}

const maxLog = 64 << 20 // bytes of log kept of an earlier start

// ensure starts a component unless it runs already as wanted, and says whether
// it did. A process that runs otherwise is ended first.
func (l layout) ensure(ctx context.Context, c component) (started bool, err error) {
	digest, err := c.digest()
	if err != nil {
		return false, err
	}
	running, err := l.processes()
	if err != nil {
		return false, err
	}
	if p, ok := running[c.name]; ok && p.alive() {
		if p.Digest == digest {
			return false, nil
		}
		if err := endProcesses(ctx, []int{p.PID}, 10*time.Second); err != nil {
			return false, fmt.Errorf("restart %s: %w", c.name, err)
		}
	}
	// One that was started just before a crash has no record.
	unrecorded, err := processesRunning(c.argv)
	if err != nil {
		return false, err
	}
	if err := endProcesses(ctx, unrecorded, 10*time.Second); err != nil {
		return false, fmt.Errorf("restart %s: %w", c.name, err)
	}
	if err := os.MkdirAll(l.path("logs"), 0o755); err != nil {
		return false, err
	}
	if info, err := os.Stat(l.log(c.name)); err == nil && info.Size() > maxLog {
		if err := os.Rename(l.log(c.name), l.log(c.name+".1")); err != nil {
			return false, err
		}
	}
	out, err := os.OpenFile(l.log(c.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { _ = out.Close() }()

	// The component outlives this command: only the start is bound to ctx.
	argv := append([]string{"--net=" + l.netnsPath(), "--"}, c.argv...)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "nsenter", argv...) //nolint:gosec // the components are this package's own
	cmd.Dir, cmd.Env = l.dir, componentEnv()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start %s: %w", c.name, err)
	}
	p := process{PID: cmd.Process.Pid, Boot: bootID(), Digest: digest}
	p.Ticks, err = startTicks(p.PID)
	go func() { _ = cmd.Wait() }() // its end is seen by alive
	if err != nil {
		return true, fmt.Errorf("%s ended at once: %w\n%s", c.name, err, l.lastLog(c.name))
	}
	return true, writeJSON(l.record(c.name), p)
}

const componentPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// processesRunning are the processes with exactly these arguments. Components'
// arguments name their cluster's folder, so no other program has them.
func processesRunning(argv []string) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || string(data) != strings.Join(argv, "\x00")+"\x00" {
			continue // another program, or it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// componentEnv is all that components inherit: no proxy, no credential.
func componentEnv() []string {
	return []string{"PATH=" + componentPath, "HOME=/root"}
}

// endProcesses asks, then forces, and returns when all are gone.
func endProcesses(ctx context.Context, pids []int, grace time.Duration) error {
	return signalAll(ctx, pids, grace, syscall.SIGTERM)
}

func killProcesses(ctx context.Context, pids []int) error {
	return signalAll(ctx, pids, 0, syscall.SIGKILL)
}

func signalAll(ctx context.Context, pids []int, grace time.Duration, first syscall.Signal) error {
	type target struct {
		pid   int
		ticks uint64
	}
	var left []target
	for _, pid := range pids {
		if ticks, err := startTicks(pid); err == nil && pid > 1 && pid != os.Getpid() {
			left = append(left, target{pid, ticks})
			_ = syscall.Kill(pid, first) // gone already: what was wanted
		}
	}
	forceAt := time.Now().Add(grace)
	giveUp := forceAt.Add(20 * time.Second)
	for len(left) > 0 {
		left = slices.DeleteFunc(left, func(t target) bool {
			ticks, err := startTicks(t.pid)
			return err != nil || ticks != t.ticks
		})
		now := time.Now()
		if len(left) > 0 && now.After(giveUp) {
			return fmt.Errorf("process %d does not end even when killed; look at /proc/%d/stack for what holds it", left[0].pid, left[0].pid)
		}
		if now.After(forceAt) {
			for _, t := range left {
				_ = syscall.Kill(t.pid, syscall.SIGKILL)
			}
		}
		if len(left) > 0 {
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastLog is the end of a component's log, the lines that say why first.
func (l layout) lastLog(component string) string {
	lines, err := tail(l.log(component), 64<<10)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "    (it wrote no log)"
		}
		return "    (log not readable: " + err.Error() + ")"
	}
	return "    " + strings.Join(relevant(lines, 8), "\n    ") + "\n  whole log: " + l.log(component)
}

func tail(path string, size int64) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > size {
		if _, err := f.Seek(-size, 2); err != nil {
			return nil, err
		}
	}
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, int(size))
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}

// relevant picks the last n lines that report a failure, or the last n of all.
func relevant(lines []string, n int) []string {
	var bad []string
	for _, line := range lines {
		low := strings.ToLower(line)
		if strings.HasPrefix(line, "E") || strings.HasPrefix(line, "F") || strings.Contains(low, "error") ||
			strings.Contains(low, "fatal") || strings.Contains(low, "panic") || strings.Contains(low, "failed") {
			bad = append(bad, line)
		}
	}
	if len(bad) == 0 {
		bad = lines
	}
	return bad[max(0, len(bad)-n):]
}
