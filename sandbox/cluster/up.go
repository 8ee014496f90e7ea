// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/sandbox/gateway"
)

// Report is told what is going on, a line at a time, for people to read.
type Report func(line string)

// Options is what a cluster is made of.
type Options struct {
	Name   string
	Domain string // parent of the public host names; empty: NAME.kaphera.test, or what the cluster has
	// Cloud is another cluster, for one that plays a company: a firewall lets it
	// out to the gateway of Cloud and nowhere else, and in to its own gateway.
	// Its API server is reached from a namespace that plays the company's VPN.
	Cloud string
}

// Info is where things of a running cluster are.
type Info struct {
	Name, Domain string
	Node         string // address of the API server, the DNS and the gateway
	Kubeconfig   string
	CAFile       string
	VPN          string // path of the network namespace from which a company's API server is reached; empty: from everywhere
}

// upLimit bounds making a cluster once everything is built.
const upLimit = 5 * time.Minute

// Up makes the cluster, repairs it, or finds it healthy. It can be interrupted
// at any moment and called again.
func Up(ctx context.Context, o Options, report Report) (Info, error) {
	l, err := newLayout(o.Name)
	if err != nil {
		return Info{}, err
	}
	if o.Domain != "" && !domainRule.MatchString(o.Domain) {
		return Info{}, fmt.Errorf("domain %q: must be a lower-case DNS name of two labels or more, for example %s.kaphera.test", o.Domain, o.Name)
	}
	if err := prepareHost(ctx, report); err != nil {
		return Info{}, err
	}
	built, err := Build(ctx, report)
	if err != nil {
		return Info{}, err
	}
	unlock, err := lock(ctx, l.lockFile(), func() { report("waiting for another sandbox command on cluster " + l.name) })
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, upLimit, fmt.Errorf("not done within %s", upLimit))
	defer cancel()
	s, err := settle(ctx, l, o)
	if err != nil {
		return Info{}, err
	}
	self, err := installSelf(l)
	if err != nil {
		return Info{}, err
	}
	u := &raising{layout: l, state: s, built: built, self: self, report: report}
	if err := u.raise(ctx); err != nil {
		return Info{}, fmt.Errorf("cluster %q: %w", l.name, err)
	}
	return info(l, s), nil
}

func info(l layout, s *state) Info {
	i := Info{Name: s.Name, Domain: s.Domain, Node: addressesOf(s.Slot).Node.String(), Kubeconfig: l.adminKubeconfig(), CAFile: l.gatewayCA()}
	if s.Cloud != "" {
		i.VPN = l.vpnPath()
	}
	return i
}

// Settle decides and records the addresses of a cluster that Up will make later,
// so that the cloud that it belongs to knows its names from the beginning.
func Settle(ctx context.Context, o Options) error {
	l, err := newLayout(o.Name)
	if err != nil {
		return err
	}
	_, err = settle(ctx, l, o)
	return err
}

// settle returns the cluster's state, deciding and recording it the first time.
func settle(ctx context.Context, l layout, o Options) (*state, error) {
	s, err := readState(l)
	if err == nil {
		if o.Domain != "" && o.Domain != s.Domain {
			return nil, fmt.Errorf("cluster %q has the domain %s, not %s; remove it first with `sandbox down %s`", l.name, s.Domain, o.Domain, l.name)
		}
		if o.Cloud != "" && o.Cloud != s.Cloud {
			return nil, fmt.Errorf("cluster %q has no firewall that leads to %s; remove it first with `sandbox down %s`", l.name, o.Cloud, l.name)
		}
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(l.dir), ".addresses.lock"), func() {})
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := clusters()
	if err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	for _, other := range all {
		taken[other.Slot] = true
	}
	networks, err := hostNetworks(ctx)
	if err != nil {
		return nil, err
	}
	slot, err := freeSlot(taken, networks)
	if err != nil {
		return nil, err
	}
	s = &state{Name: l.name, Domain: o.Domain, Cloud: o.Cloud, Slot: slot, Created: time.Now()}
	if s.Domain == "" {
		s.Domain = l.name + ".kaphera.test"
	}
	return s, writeJSON(l.stateFile(), s)
}

// installSelf copies the running program into the cluster's folder: the agent
// is started from there, also after a `go run` binary has gone.
func installSelf(l layout) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile("/proc/self/exe") // still readable when exe was replaced
	if err != nil {
		return "", fmt.Errorf("read %s: %w", exe, err)
	}
	sum := sha256.Sum256(data)
	path := l.path("bin", "sandbox-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.RemoveAll(l.path("bin")); err != nil { // an older one: its process keeps it
		return "", err
	}
	return path, writeFile(path, data, 0o755)
}

// raising is one run of Up on a cluster that it holds the lock of.
type raising struct {
	layout
	state  *state
	built  Artifacts
	self   string
	report Report
}

func (u *raising) raise(ctx context.Context) error {
	if err := ensureCertificates(u.layout, u.state, time.Now()); err != nil {
		return err
	}
	v, err := newValues(u.layout, u.state)
	if err != nil {
		return err
	}
	if err := writeConfigs(u.layout, v); err != nil {
		return err
	}
	behind, err := newFirewall(u.layout, u.state)
	if err != nil {
		return err
	}
	if !linked(ctx, u.layout, u.state) || behind != nil && !behind.linked(ctx) {
		// Whatever runs, runs in a network that is not there any more.
		if err := endAll(ctx, u.layout); err != nil {
			return err
		}
		if err := errors.Join(unlink(ctx, u.layout, u.state.Slot), link(ctx, u.layout, u.state)); err != nil {
			return err
		}
		if behind != nil {
			if err := behind.link(ctx); err != nil {
				return err
			}
		}
	}
	if behind != nil {
		if err := behind.close(ctx); err != nil {
			return err
		}
	}
	if err := makeCgroups(u.layout); err != nil {
		return err
	}
	if err := os.MkdirAll(u.volumes(), 0o755); err != nil {
		return err
	}
	steps := []struct {
		what string
		run  func(context.Context) (done string, err error)
	}{
		{"API server", u.startAPI},
		{"pause image", u.loadPause},
		{"basic objects", u.bootstrap(v)},
		{"node, DNS and gateway", u.startRest},
	}
	for _, step := range steps {
		begin := time.Now()
		done, err := step.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		if done != "" {
			u.report(fmt.Sprintf("%s %s (%.1f s)", step.what, done, time.Since(begin).Seconds()))
		}
	}
	return nil
}

func (u *raising) components() []component {
	return components(u.layout, u.state, u.built.Kube, u.built.DNS, u.self)
}

func (u *raising) ensureOnly(ctx context.Context, names ...string) (started []string, err error) {
	for _, c := range u.components() {
		for _, name := range names {
			if c.name != name {
				continue
			}
			was, err := u.ensure(ctx, c)
			if err != nil {
				return started, err
			}
			if was {
				started = append(started, name)
			}
		}
	}
	return started, nil
}

func startedText(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "ready: started " + strings.Join(names, ", ")
}

func (u *raising) startAPI(ctx context.Context) (string, error) {
	started, err := u.ensureOnly(ctx, etcd, containerd, apiServer)
	if err != nil {
		return "", err
	}
	client, err := newClient(u.layout)
	if err != nil {
		return "", err
	}
	if err := u.await(ctx, []string{etcd, apiServer}, client.apiReady); err != nil {
		return "", err
	}
	return startedText(started), nil
}

func (u *raising) loadPause(ctx context.Context) (string, error) {
	if err := u.await(ctx, []string{containerd}, func(ctx context.Context) error {
		_, err := u.ctr(ctx, "version")
		return err
	}); err != nil {
		return "", err
	}
	imported, err := load(ctx, u.layout, u.built.Pause.Path)
	if err != nil || !imported {
		return "", err
	}
	return "loaded", nil
}

// bootstrap applies the objects that every cluster has, unless they were
// applied as they are now.
func (u *raising) bootstrap(v values) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		data, err := render("bootstrap.yaml", v)
		if err != nil {
			return "", err
		}
		applied := u.path("run", "bootstrap.yaml")
		if old, err := os.ReadFile(applied); err == nil && string(old) == string(data) {
			return "", nil
		}
		if err := u.await(ctx, []string{apiServer}, func(ctx context.Context) error {
			_, err := toolOutput(ctx, data, "nsenter", "--net="+u.netnsPath(), "--", u.built.Kube, "kubectl", "--kubeconfig="+u.adminKubeconfig(),
				"apply", "--server-side", "--force-conflicts", "--field-manager=sandbox", "-f", "-")
			return err
		}); err != nil {
			return "", err
		}
		return "applied", writeFile(applied, data, 0o600)
	}
}

func (u *raising) startRest(ctx context.Context) (string, error) {
	begin := time.Now()
	started, err := u.ensureOnly(ctx, controllerManager, scheduler, kubelet, kubeProxy, dns, agent)
	if err != nil {
		return "", err
	}
	client, err := newClient(u.layout)
	if err != nil {
		return "", err
	}
	var since time.Time
	if slices.Contains(started, kubelet) {
		since = begin
	}
	node := addressesOf(u.state.Slot).Node.String()
	for _, check := range []struct {
		components []string
		ready      func(context.Context) error
	}{
		{[]string{dns}, u.httpOK("http://" + node + ":8181/ready")},
		{[]string{kubeProxy}, u.httpOK("http://" + node + ":10256/healthz")},
		{[]string{agent}, u.httpOK("http://" + node + gateway.ReadyPath)},
		{[]string{scheduler}, u.httpOK("https://" + node + ":10259/readyz")},
		{[]string{controllerManager}, u.httpOK("https://" + node + ":10257/healthz")},
		{[]string{controllerManager}, client.accountsMade},
		{[]string{kubelet, containerd, scheduler}, client.nodeReady(u.name, since)},
	} {
		if err := u.await(ctx, check.components, check.ready); err != nil {
			return "", err
		}
	}
	return startedText(started), nil
}

// awaitLimit is how long one part may take to become ready on a busy machine.
const awaitLimit = 2 * time.Minute

// await calls ready until it succeeds. It gives up early, with the log, when
// one of the components that it depends on ends.
func (u *raising) await(ctx context.Context, names []string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, awaitLimit, fmt.Errorf("not ready within %s", awaitLimit))
	defer cancel()
	var last error
	for {
		if last = ready(ctx); last == nil {
			return nil
		}
		running, err := u.processes()
		if err != nil {
			return err
		}
		for _, name := range names {
			if p, ok := running[name]; !ok || !p.alive() {
				return fmt.Errorf("%s ended; its log says:\n%s%s", name, u.lastLog(name), u.hint(name))
			}
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("%w: %w; %s logged:\n%s%s", err, last, names[0], u.lastLog(names[0]), u.hint(names[0]))
		}
	}
}

// hints turn what components log into what to do about it.
var hints = []struct{ sign, fix string }{
	{"address already in use", "another process holds the port inside the cluster's network; `sandbox down NAME` ends whatever is left there"},
	{"no space left on device", "the disk is full; free some space, then run the command again"},
	{"too many open files", "raise the limit: `sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288`"},
	{"operation not permitted", "root lacks a privilege here; run on a machine or in a container that has them all (`--privileged`)"},
	{"failed to find cgroup", "mount the cgroup controllers, or run on a machine that has them"},
	{"cannot allocate memory", "the machine is out of memory; a cluster takes about 1 GB before workloads"},
}

func (l layout) hint(component string) string {
	lines, err := tail(l.log(component), 64<<10)
	if err != nil {
		return ""
	}
	text := strings.ToLower(strings.Join(relevant(lines, 20), "\n"))
	for _, h := range hints {
		if strings.Contains(text, h.sign) {
			return "\n  what to do: " + strings.ReplaceAll(h.fix, "NAME", l.name)
		}
	}
	return "\n  what to do: run the command again; if it stays so, `sandbox down " + l.name + "` and start afresh"
}
