// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// StateEnv names the environment variable that moves the clusters' state
// folder away from its default.
const StateEnv = "KAPHERA_SANDBOX_STATE"

const defaultStateRoot = "/var/lib/kaphera-sandbox"

// nameRule keeps names usable as a DNS label, a node name and part of a path.
var nameRule = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

var domainRule = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$`)

// layout knows where everything of one cluster lies. All of it is below dir,
// so that removing a cluster needs no list of files.
type layout struct {
	name string
	dir  string
}

// netnsFolder is where `ip netns` keeps network namespaces.
const netnsFolder = "/run/netns/"

func stateRoot() string {
	if dir := os.Getenv(StateEnv); dir != "" {
		return dir
	}
	return defaultStateRoot
}

func newLayout(name string) (layout, error) {
	if !nameRule.MatchString(name) {
		return layout{}, fmt.Errorf("cluster name %q: must be 1 to 20 lower-case letters, digits or dashes, starting with a letter", name)
	}
	root, err := filepath.Abs(stateRoot())
	if err != nil {
		return layout{}, fmt.Errorf("state folder %q: %w", stateRoot(), err)
	}
	return layout{name: name, dir: filepath.Join(root, name)}, nil
}

func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l layout) stateFile() string            { return l.path("cluster.json") }
func (l layout) lockFile() string             { return filepath.Join(filepath.Dir(l.dir), "."+l.name+".lock") }
func (l layout) pki(file string) string       { return l.path("pki", file) }
func (l layout) etc(file string) string       { return l.path("etc", file) }
func (l layout) log(component string) string  { return l.path("logs", component+".log") }
func (l layout) containerdSocket() string     { return l.path("containerd.sock") }
func (l layout) podsFile() string             { return l.path("pods.json") }
func (l layout) volumes() string              { return l.path("volumes") }
func (l layout) netns() string                { return "kaphera-" + l.name }
func (l layout) netnsPath() string            { return netnsFolder + l.netns() }
func (l layout) vpn() string                  { return l.netns() + "-vpn" }
func (l layout) vpnPath() string              { return netnsFolder + l.vpn() }
func (l layout) cgroup() string               { return "kaphera-" + l.name }
func (l layout) kubeconfig(who string) string { return l.path("kubeconfig", who+".yaml") }

// Kubeconfig is the path of the administrator's kubeconfig of cluster name.
func Kubeconfig(name string) (string, error) { return existing(name, layout.adminKubeconfig) }

// CAFile is the path of the certificate that every public host name of cluster
// name is signed with.
func CAFile(name string) (string, error) { return existing(name, layout.gatewayCA) }

func (l layout) adminKubeconfig() string { return l.kubeconfig("admin") }
func (l layout) gatewayCA() string       { return l.pki("gateway-ca.crt") }

func existing(name string, file func(layout) string) (string, error) {
	l, err := newLayout(name)
	if err != nil {
		return "", err
	}
	path := file(l)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("cluster %q has no %s: %w; make the cluster with `sandbox up %s`", name, filepath.Base(path), err, name)
	}
	return path, nil
}
