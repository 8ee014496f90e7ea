// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mount is one line of /proc/self/mountinfo.
type mount struct {
	point, fstype string
}

func mounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var all []mount
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m, ok := parseMount(s.Text()); ok {
			all = append(all, m)
		}
	}
	return all, s.Err()
}

// unescape undoes the octal escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 1 {
		return mount{}, false
	}
	return mount{unescape.Replace(left[4]), right[0]}, true
}

// cgroupRoots are the mount points of all cgroup hierarchies: one per
// controller in version 1, a single one in version 2, both on hybrid machines,
// where version 1 has the controllers.
func cgroupRoots() (roots []string, v2 bool, err error) {
	all, err := mounts()
	if err != nil {
		return nil, false, err
	}
	v2 = true
	for _, m := range all {
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			roots = append(roots, m.point)
			v2 = v2 && m.fstype == "cgroup2"
		}
	}
	if len(roots) > 0 {
		return roots, v2, nil
	}
	return nil, false, errors.New("no cgroup hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup` or run on a machine that has it")
}

// makeCgroups makes the cluster's own cgroup in every hierarchy. Each kubelet
// needs one of its own: with a common one each would end the other's pods.
func makeCgroups(l layout) error {
	roots, v2, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if v2 {
			for _, c := range []string{"cpuset", "cpu", "io", "memory", "pids"} {
				// A controller that the machine does not hand out is reported by kubelet, by name.
				_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0o600)
			}
		}
		dir := filepath.Join(root, l.cgroup())
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup %s: %w; the sandbox needs a machine (or a privileged container) where root may make cgroups", dir, err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if v2 || !isCpuset(root) {
				continue // version 2 inherits
			}
			value, err := os.ReadFile(filepath.Join(root, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), value, 0o600)
			}
			if err != nil {
				return fmt.Errorf("set %s of cgroup %s: %w", file, dir, err)
			}
		}
	}
	return nil
}

func isCpuset(root string) bool {
	_, err := os.Stat(filepath.Join(root, "cpuset.cpus"))
	return err == nil
}

// cgroupProcesses are the processes in the cluster's cgroups: its pods.
func cgroupProcesses(l layout) ([]int, error) {
	var pids []int
	err := eachCgroup(l, func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

func removeCgroups(l layout) error {
	return eachCgroup(l, func(dir string) error {
		if err := ignoreGone(os.Remove(dir)); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		return nil
	})
}

// eachCgroup visits the cluster's cgroups, children before their parents.
func eachCgroup(l layout, visit func(dir string) error) error {
	roots, _, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(root, l.cgroup()), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return ignoreGone(err)
			}
			if d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := visit(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
