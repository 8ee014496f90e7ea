// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Log takes what a stage has to say. What is written to it goes to the stage's
// log file. It is safe for concurrent use.
type Log struct {
	file  *os.File
	mu    sync.Mutex
	run   *run
	entry *entry
}

// Write adds to the log file.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

// Printf adds a line to the log file and shows it as what the stage does now.
func (l *Log) Printf(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	_, _ = fmt.Fprintln(l, line)
	l.run.mu.Lock()
	l.entry.note = line
	l.run.mu.Unlock()
}

// Cached marks the stage as one that found its result already made.
func (l *Log) Cached() {
	l.run.mu.Lock()
	l.entry.Cached = true
	l.run.mu.Unlock()
}

// lastLines and telling bound what a failure repeats of a log.
const (
	lastLines = 12
	telling   = 8
)

var bad = regexp.MustCompile(`(?i)\b(error|fatal|panic|failed|failure|denied|refused|cannot|can't|not found|no such|undefined|unable|timed? ?out)\b`)

// matter picks the lines of a failed stage's log that tell why: its end, and
// before it the last few lines that speak of an error.
func matter(log string) []string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	end := max(0, len(lines)-lastLines)
	var early []string
	for _, line := range lines[:end] {
		if bad.MatchString(line) && !slices.Contains(early, line) {
			early = append(early, line)
		}
	}
	early = early[max(0, len(early)-telling):]
	if len(early) > 0 {
		early = append(early, "...")
	}
	return append(early, lines[end:]...)
}
