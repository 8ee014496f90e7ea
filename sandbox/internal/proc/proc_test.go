// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

func TestFailureNamesTheProgramAndItsLastWords(t *testing.T) {
	var log bytes.Buffer
	err := Run(t.Context(), Cmd{Name: "sh", Args: []string{"-c", "echo one; echo no space left >&2; exit 3"}, Log: &log})
	var failed *Error
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "exit status 3: no space left") || !strings.HasPrefix(err.Error(), "sh ") {
		t.Errorf("error is %v", err)
	}
	if log.String() != "one\nno space left\n" {
		t.Errorf("the log is %q", log.String())
	}
}

func TestMissingProgramIsNamed(t *testing.T) {
	if err := Run(t.Context(), Cmd{Name: "no-such-program"}); err == nil || !strings.Contains(err.Error(), "no-such-program is not on PATH") {
		t.Errorf("error is %v", err)
	}
}

func TestOutputIsKeptApartFromTheLog(t *testing.T) {
	var log bytes.Buffer
	out, err := Output(t.Context(), Cmd{Name: "sh", Args: []string{"-c", "echo $A; echo log >&2"}, Env: []string{"A=value"}, Log: &log})
	if err != nil || out != "value\n" || log.String() != "log\n" {
		t.Errorf("output %q, log %q, %v", out, log.String(), err)
	}
}

// The end of the context ends what the program started too.
func TestInterruptEndsTheWholeGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	grandchild := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(r).ReadString('\n') // it runs by now
		grandchild <- strings.TrimSpace(line)
		cancel()
	}()
	err = Run(ctx, Cmd{Name: "sh", Args: []string{"-c", "sleep 600 & echo $!; wait"}, Log: w})
	if err == nil {
		t.Fatal("an interrupted program is no error")
	}
	pid := <-grandchild
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if errors.Is(err, fs.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
			return
		}
		<-tick.C
	}
	t.Errorf("process %s of the interrupted program still runs", pid)
}
