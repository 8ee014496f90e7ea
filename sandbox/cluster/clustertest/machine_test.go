// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// processesOf lists the processes that belong to a cluster: their command line
// names its state folder, or they are in its cgroup or network namespace.
func processesOf(t *testing.T, f *fixture) map[int]string {
	t.Helper()
	var namespace syscall.Stat_t
	hasNamespace := syscall.Stat("/run/netns/kaphera-"+f.info.Name, &namespace) == nil
	found := map[int]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		must(t, err)
		cmdline, err := os.ReadFile(dir + "/cmdline")
		if err != nil || pid == os.Getpid() || len(cmdline) == 0 {
			continue // ended, ours, or the kernel's
		}
		line := strings.ReplaceAll(string(cmdline), "\x00", " ")
		cgroup, err := os.ReadFile(dir + "/cgroup")
		inCgroup := err == nil && strings.Contains(string(cgroup), "/kaphera-"+f.info.Name+"/")
		var ns syscall.Stat_t
		inNamespace := hasNamespace && syscall.Stat(dir+"/ns/net", &ns) == nil && ns.Ino == namespace.Ino
		if strings.Contains(line, f.dir+"/") || inCgroup || inNamespace {
			found[pid] = line
		}
	}
	return found
}

func killMatching(t *testing.T, dir, component string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "run", component+".json"))
	must(t, err)
	_, after, ok := strings.Cut(string(data), `"pid": `)
	digits, _, _ := strings.Cut(after, ",")
	pid, err := strconv.Atoi(digits)
	if !ok || err != nil {
		t.Fatalf("no process of %s in %s", component, data)
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
}

func killEverything(t *testing.T, f *fixture) {
	t.Helper()
	// Its agent first: it would start the others again.
	killMatching(t, f.dir, "agent")
	waitFor(t, "every process to end", func() error {
		all := processesOf(t, f)
		for pid := range all {
			_ = syscall.Kill(pid, syscall.SIGKILL) // ended by itself: just as well
		}
		if len(all) > 0 {
			return stillThereError(all)
		}
		return nil
	})
}

type stillThereError map[int]string

func (e stillThereError) Error() string {
	var b strings.Builder
	for pid, line := range e {
		b.WriteString(strconv.Itoa(pid) + " " + line + "\n")
	}
	return "still there:\n" + b.String()
}

// nothingLeft checks that the machine is as it was before the cluster.
func nothingLeft(t *testing.T, f *fixture) {
	t.Helper()
	if all := processesOf(t, f); len(all) > 0 {
		t.Error(stillThereError(all))
	}
	for _, path := range []string{f.dir, "/run/netns/kaphera-" + f.info.Name, "/run/netns/kaphera-" + f.info.Name + "-vpn", filepath.Join(filepath.Dir(f.dir), "."+f.info.Name+".lock")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, f.dir+"/") {
			t.Errorf("still mounted: %s", line)
		}
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/kaphera-" + f.info.Name)
	must(t, err)
	if _, err := os.Stat("/sys/fs/cgroup/kaphera-" + f.info.Name); err == nil || len(cgroups) > 0 {
		t.Errorf("cgroups are still there: %v", cgroups)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	must(t, err)
	if strings.Contains(string(hosts), f.info.Domain) {
		t.Errorf("/etc/hosts still names %s:\n%s", f.info.Domain, hosts)
	}
	if link := linkOf(t, f.info.Node); link != "" {
		t.Errorf("network interface %s is still there", link)
	}
	links, err := filepath.Glob("/var/log/containers/*")
	must(t, err)
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, f.dir) {
			t.Errorf("%s still points into the cluster's folder", link)
		}
	}
}

const holdCommand = "hold-port"

// hold listens on an address, says so, and waits for its standard input to end.
func hold(address string) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	fmt.Println(err)
	if err == nil {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = l.Close()
	}
}

// holdPort takes a port of the cluster's node, away from its agent, until the
// returned function is called.
func holdPort(t *testing.T, f *fixture, port string) (release func()) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	killMatching(t, f.dir, "agent")
	var in io.WriteCloser
	var cmd *exec.Cmd
	waitFor(t, "the port to be free", func() error {
		cmd = exec.CommandContext(t.Context(), "nsenter", "--net=/run/netns/kaphera-"+f.info.Name, "--", exe, holdCommand, net.JoinHostPort(f.info.Node, port))
		if in, err = cmd.StdinPipe(); err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err == nil && line == "<nil>\n" {
			return nil
		}
		return errors.Join(fmt.Errorf("listening: %s", line), err, in.Close(), cmd.Wait())
	})
	return func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	}
}
