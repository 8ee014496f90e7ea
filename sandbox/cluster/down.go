// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kaphera/kaphera/sandbox/gateway"
)

// Down removes the cluster and all it left on the machine, whatever state it is
// in. Removing what is not there is no error.
func Down(ctx context.Context, name string, report Report) error {
	l, err := newLayout(name)
	if err != nil {
		return err
	}
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("removing a cluster needs root, this is user %d; run it with sudo", uid)
	}
	unlock, err := lock(ctx, l.lockFile(), func() { report("waiting for another sandbox command on cluster " + name) })
	if err != nil {
		return err
	}
	defer unlock()
	begin, slot := time.Now(), 0
	if s, err := readState(l); err == nil {
		slot = s.Slot
	}
	sockets := shimSockets(l)
	if err := endAll(ctx, l); err != nil {
		return err
	}
	if err := unmountBelow(l.dir); err != nil {
		return err
	}
	err = errors.Join(unlink(ctx, l, slot), removeCgroups(l), gateway.RemoveHosts(gateway.HostsFile, name), removeLogLinks(l))
	for _, socket := range sockets {
		err = errors.Join(err, ignoreGone(os.Remove(socket)))
	}
	if err != nil {
		return fmt.Errorf("remove cluster %q: %w; what it has left is in %s, run the command again", name, err, l.dir)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove the state of cluster %q: %w", name, err)
	}
	report(fmt.Sprintf("cluster %s removed (%.1f s)", name, time.Since(begin).Seconds()))
	return ignoreGone(os.Remove(l.lockFile()))
}

// endAll ends every process of the cluster. First those that would start others.
func endAll(ctx context.Context, l layout) error {
	for round := range 5 {
		running, err := l.processes()
		if err != nil {
			return err
		}
		var starters, rest []int
		for name, p := range running {
			switch {
			case !p.alive():
			case name == agent || name == kubelet:
				starters = append(starters, p.PID)
			default:
				rest = append(rest, p.PID)
			}
		}
		if err := killProcesses(ctx, starters); err != nil {
			return err
		}
		pods, err := cgroupProcesses(l)
		if err != nil {
			return err
		}
		others, err := strays(l)
		if err != nil {
			return err
		}
		all := slices.Concat(pods, others, rest)
		if len(all) == 0 {
			return nil
		}
		if err := killProcesses(ctx, all); err != nil {
			return err
		}
		if round == 4 {
			return fmt.Errorf("processes of cluster %q keep being started: %v; end what starts them", l.name, all)
		}
	}
	return nil
}

// strays are processes that no record names: containers' shims, and what runs
// in the cluster's network namespaces.
func strays(l layout) ([]int, error) {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	namespaces := map[[2]uint64]bool{}
	for _, path := range []string{l.netnsPath(), l.vpnPath()} {
		if id, err := namespaceOf(path); err == nil {
			namespaces[id] = true
		}
	}
	var pids []int
	for _, dir := range procs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		ns, err := namespaceOf(dir + "/ns/net")
		inside := err == nil && namespaces[ns]
		cmdline, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue // ended meanwhile
		}
		if inside || isShim(strings.Split(string(cmdline), "\x00"), l.containerdSocket()) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// namespaceOf identifies the namespace that a file stands for.
func namespaceOf(path string) ([2]uint64, error) {
	var s syscall.Stat_t
	err := syscall.Stat(path, &s)
	return [2]uint64{s.Dev, s.Ino}, err
}

func isShim(argv []string, socket string) bool {
	return strings.HasPrefix(filepath.Base(argv[0]), "containerd-shim") && slices.Contains(argv, socket)
}

// unmountBelow detaches every mount inside dir. It fails if one stays: what is
// mounted there would be deleted with the folder.
func unmountBelow(dir string) error {
	var last error
	for range 10 {
		all, err := mounts()
		if err != nil {
			return err
		}
		left := 0
		for _, m := range slices.Backward(all) {
			if m.point != dir && !strings.HasPrefix(m.point, dir+"/") {
				continue
			}
			left++
			if err := syscall.Unmount(m.point, syscall.MNT_DETACH); err != nil {
				last = fmt.Errorf("unmount %s: %w", m.point, err)
			}
		}
		if left == 0 {
			return nil
		}
	}
	return fmt.Errorf("mounts stay below %s: %w", dir, last)
}

// shimSockets are sockets outside the cluster's folder that killed shims leave.
func shimSockets(l layout) []string {
	files, err := filepath.Glob(l.path("containerd", "state", "io.containerd.runtime.v2.task", imageNamespace, "*", "address"))
	if err != nil {
		return nil
	}
	var sockets []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		path, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "unix://")
		if err == nil && ok && strings.HasPrefix(path, "/run/containerd/s/") && !slices.Contains(sockets, path) {
			sockets = append(sockets, path)
		}
	}
	return sockets
}

// removeLogLinks removes the links that kubelet makes in a fixed folder of the machine.
func removeLogLinks(l layout) error {
	links, err := filepath.Glob("/var/log/containers/*.log")
	if err != nil {
		return err
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, l.dir+"/") {
			err = ignoreGone(os.Remove(link))
		}
		if err != nil {
			return ignoreGone(err)
		}
	}
	return nil
}
