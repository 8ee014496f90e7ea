// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/process"
	"github.com/kaphera/kaphera/test/tck/runner"
)

// Process is a program that runs until the test ends; its log is shown when the test has failed.
type Process struct {
	pid  int
	done <-chan struct{}
}

func start(t *testing.T, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	dir := os.Getenv("INTEROP_LOG")
	if dir == "" {
		dir = t.TempDir()
	}
	file, err := os.Create(filepath.Join(dir, name+".log"))
	Must(t, err)
	cmd.Stdout, cmd.Stderr = file, file
	done, err := process.Start(cmd, syscall.SIGKILL)
	Must(t, err)
	p := &Process{pid: cmd.Process.Pid, done: done}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-p.done
		}
		_ = file.Close()
		if raw, err := os.ReadFile(file.Name()); t.Failed() && err == nil {
			lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
			t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return p
}

// Ready waits until a call succeeds.
func (p *Process) Ready(t *testing.T, call func() error) {
	t.Helper()
	Until(t, "ready", func() (bool, string) {
		select {
		case <-p.done:
			t.Fatalf("process %d ended while starting", p.pid)
		default:
		}
		err := call()
		return err == nil, fmt.Sprint(err)
	})
}

// RSS is the memory that the process has resident, in MB.
func (p *Process) RSS(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	Must(t, err)
	var size, resident int
	_, err = fmt.Sscan(string(raw), &size, &resident)
	Must(t, err)
	return resident * os.Getpagesize() >> 20
}

// sources is where the pom and the classes are, seen from the packages whose tests use this one.
const sources = "../interop/edc"

// Java starts one of EDC's runtimes: the profile of the pom and the classes of ours that are added to it.
func Java(t *testing.T, name, profile string, classes []string, settings map[string]string) *Process {
	t.Helper()
	classPath := classPath(t, profile, classes)
	args := []string{"-Xmx256m", "-cp", `"` + classPath + `"`}
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, fmt.Sprintf("%q", "-D"+k+"="+settings[k]))
	}
	file := filepath.Join(t.TempDir(), "args") // settings are not for everybody who lists processes
	Must(t, os.WriteFile(file, []byte(strings.Join(append(args, "org.eclipse.edc.boot.system.runtime.BaseRuntime"), "\n")), 0o600))
	return start(t, name, exec.Command("java", "@"+file)) // #nosec G204
}

// classPath resolves a profile and compiles the classes against it, once for each content.
func classPath(t *testing.T, profile string, classes []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	libraries, err := runner.ClassPath(ctx, filepath.Join(sources, "pom.xml"), profile)
	Must(t, err)
	sum := sha256.New()
	sum.Write([]byte(libraries))
	var files []string
	for _, c := range classes {
		files = append(files, filepath.Join(sources, c+".java"))
		raw, err := os.ReadFile(files[len(files)-1])
		Must(t, err)
		sum.Write(raw)
	}
	cache, err := runner.CacheDir("interop")
	Must(t, err)
	dir := filepath.Join(cache, profile+"-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir + ":" + libraries
	}
	temp, err := os.MkdirTemp(cache, "compile") //nolint:usetesting // renamed within the cache
	Must(t, err)
	defer func() { _ = os.RemoveAll(temp) }()
	out, err := exec.CommandContext(ctx, "javac", append([]string{"-proc:none", "-d", temp, "-cp", libraries}, files...)...).CombinedOutput() // #nosec G204
	if err != nil {
		t.Fatalf("compile %v: %v: %s", classes, err, out)
	}
	services := filepath.Join(temp, "META-INF", "services")
	Must(t, os.MkdirAll(services, 0o750))
	Must(t, os.WriteFile(filepath.Join(services, "org.eclipse.edc.spi.system.ServiceExtension"), []byte(strings.Join(classes, "\n")), 0o600))
	Must(t, os.Rename(temp, dir))
	return dir + ":" + libraries
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Pick()
	Must(t, err)
	return port
}

// Must ends the test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Patience is how long Until waits.
const Patience = 5 * time.Minute

// Until waits for a condition; say tells what is there instead.
func Until(t *testing.T, what string, holds func() (ok bool, say string)) {
	t.Helper()
	deadline, tick := time.After(Patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		ok, say := holds()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s: %s", what, Patience, say)
		}
	}
}
