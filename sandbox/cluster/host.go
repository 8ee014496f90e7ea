// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// need is a program that a cluster uses and the Debian package that brings it.
type need struct{ program, pkg string }

var needs = []need{
	{"containerd", "containerd"},
	{"ctr", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"runc", "runc"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
}

const cniPackage = "containernetworking-plugins"

// cniFolders are where distributions put the network plug-ins.
var cniFolders = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

func cniFolder(candidates []string) (string, bool) {
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "ptp")); err == nil {
			return dir, true
		}
	}
	return "", false
}

// prepareHost checks what the machine must have and installs missing packages.
func prepareHost(ctx context.Context, report Report) error {
	if err := checkHost(runtime.GOOS, os.Geteuid()); err != nil {
		return err
	}
	if _, _, err := cgroupRoots(); err != nil {
		return err
	}
	missing := missingPackages(componentPath, cniFolders)
	if len(missing) == 0 {
		return nil
	}
	report("installing " + strings.Join(missing, ", "))
	if err := aptInstall(ctx, missing); err != nil {
		return fmt.Errorf("missing %s, and installing failed: %w; install with your package manager, for example `apt-get install -y --no-install-recommends %s`",
			strings.Join(missing, ", "), err, strings.Join(missing, " "))
	}
	if still := missingPackages(componentPath, cniFolders); len(still) > 0 {
		return fmt.Errorf("%s installed, but its programs are still not on PATH or in %s", strings.Join(still, ", "), strings.Join(cniFolders, ", "))
	}
	return nil
}

func checkHost(system string, uid int) error {
	if system != "linux" {
		return fmt.Errorf("the sandbox needs Linux, this is %s; use a cluster you have with CLUSTER=existing, or CLUSTER=kind", system)
	}
	if uid != 0 {
		return fmt.Errorf("the sandbox needs root, this is user %d: it makes network namespaces and mounts; run it with sudo, or use CLUSTER=existing or CLUSTER=kind", uid)
	}
	return nil
}

// missingPackages looks where components will look, not on this command's PATH.
func missingPackages(path string, cni []string) []string {
	var missing []string
	for _, n := range needs {
		if !onPath(n.program, path) && !slices.Contains(missing, n.pkg) {
			missing = append(missing, n.pkg)
		}
	}
	if _, ok := cniFolder(cni); !ok {
		missing = append(missing, cniPackage)
	}
	return missing
}

func onPath(program, path string) bool {
	for _, dir := range filepath.SplitList(path) {
		if info, err := os.Stat(filepath.Join(dir, program)); err == nil && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

func aptInstall(ctx context.Context, packages []string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("this machine has no apt-get")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	// The wait for the lock is for another package command that is running now.
	install := append([]string{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=180"}, packages...)
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if err := proc.Run(ctx, proc.Cmd{Name: "apt-get", Args: install, Env: env}); err == nil {
		return nil
	}
	// A fresh machine has no package lists yet.
	if err := proc.Run(ctx, proc.Cmd{Name: "apt-get", Args: []string{"update", "-o", "DPkg::Lock::Timeout=180"}, Env: env}); err != nil {
		return err
	}
	return proc.Run(ctx, proc.Cmd{Name: "apt-get", Args: install, Env: env})
}
