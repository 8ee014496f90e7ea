// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// state is what `up` decided for a cluster, written before anything is made, so
// that `down` finds all of it after a crash. Running processes have a file of
// their own each (see process.go).
type state struct {
	Name    string    `json:"name"`
	Domain  string    `json:"domain"`
	Cloud   string    `json:"cloud,omitempty"`
	Slot    int       `json:"slot"`
	Created time.Time `json:"created"`
}

func readState(l layout) (*state, error) {
	data, err := os.ReadFile(l.stateFile())
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s is not readable (%w); remove the cluster with `sandbox down %s`", l.stateFile(), err, l.name)
	}
	return &s, nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o600)
}

// writeFile replaces path in one step, and does nothing when it already holds
// data. Folders on the way are made.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // fails when the rename succeeded
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

// clusters reads the state of every cluster on this machine.
func clusters() ([]state, error) {
	files, err := filepath.Glob(filepath.Join(stateRoot(), "*", "cluster.json"))
	if err != nil {
		return nil, err
	}
	var all []state
	for _, file := range files {
		l, err := newLayout(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue // not a folder of ours
		}
		s, err := readState(l)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, *s)
	}
	return all, nil
}

var errLocked = errors.New("locked")

// tryLock takes the lock file at path, or returns errLocked.
func tryLock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The holder before may have removed the file: then this is no lock at all.
	mine, err := f.Stat()
	if now, statErr := os.Stat(path); err != nil || statErr != nil || !os.SameFile(mine, now) {
		_ = f.Close()
		return nil, errLocked
	}
	return func() { _ = f.Close() }, nil
}

// lock waits for the lock file at path; waiting is called once if it has to.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	for first := true; ; first = false {
		unlock, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		if first {
			waiting()
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, fmt.Errorf("waiting for %s, which another sandbox command holds: %w", path, err)
		}
	}
}

// pause waits d, or less when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
