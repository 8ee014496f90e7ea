// SPDX-License-Identifier: Apache-2.0

// Package proc runs other programs for the sandbox: each in its own process
// group, ended with everything it started when the context ends, its output
// kept in a log and its last lines in the error. It knows nothing of what is run.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Cmd is one program to run.
type Cmd struct {
	Name string
	Args []string
	Dir  string   // working directory; empty for this process's
	Env  []string // KEY=value, added to this process's environment
	Log  io.Writer
}

// grace is how long a program may take to end after it was asked to.
const grace = 10 * time.Second

// tailSize is how much of the output an error repeats, in bytes.
const tailSize = 2000

// Run runs c to its end. A program that fails, or that the context ends, is an
// error that names it and repeats its last lines.
func Run(ctx context.Context, c Cmd) error {
	_, err := run(ctx, c, nil)
	return err
}

// Output is Run, and returns what the program wrote to its standard output.
func Output(ctx context.Context, c Cmd) (string, error) {
	var out bytes.Buffer
	return run(ctx, c, &out)
}

func run(ctx context.Context, c Cmd, out *bytes.Buffer) (string, error) {
	path, err := exec.LookPath(c.Name)
	if err != nil {
		return "", fmt.Errorf("%s is not on PATH: %w", c.Name, err)
	}
	last := &tail{}
	sink := io.Writer(last)
	if c.Log != nil {
		sink = io.MultiWriter(c.Log, last)
	}
	cmd := exec.CommandContext(ctx, path, c.Args...) //nolint:gosec // running the given program is this package's purpose
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stderr = sink
	cmd.Stdout = sink
	if out != nil {
		cmd.Stdout = out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err = cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		// What ignored the first signal must not outlive the stage.
		if kill := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); kill != nil && !errors.Is(kill, syscall.ESRCH) {
			err = errors.Join(err, kill)
		}
	}
	text := ""
	if out != nil {
		text = out.String()
	}
	if err != nil {
		return text, &Error{Command: c.Name + " " + strings.Join(c.Args, " "), Tail: last.String(), Err: err}
	}
	return text, nil
}

// Error says which program failed, how, and what it wrote last.
type Error struct {
	Command string
	Tail    string
	Err     error
}

func (e *Error) Error() string {
	text := strings.TrimSpace(e.Tail)
	if text == "" {
		return fmt.Sprintf("%s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Command, e.Err, lastLine(text))
}

func (e *Error) Unwrap() error { return e.Err }

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// tail keeps the last tailSize bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b); n > 2*tailSize {
		t.b = append(t.b[:0], t.b[n-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return string(t.b[max(0, len(t.b)-tailSize):])
}
