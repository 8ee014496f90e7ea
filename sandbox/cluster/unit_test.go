// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func TestFreeSlotAvoidsClustersAndTheMachinesNetworks(t *testing.T) {
	routes := parseRoutes("default via 172.16.0.1 dev eth0\n172.16.0.0/24 dev eth0 proto kernel\nlocal 10.206.4.1 dev lo\nbroadcast 10.207.255.255 dev x\n")
	for name, c := range map[string]struct {
		taken    []int
		networks []netip.Prefix
		want     int
	}{
		"nothing there":            {nil, nil, 205},
		"one cluster":              {[]int{205}, nil, 206},
		"a gap":                    {[]int{205, 207}, nil, 206},
		"a default route":          {nil, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, 205},
		"a network in the way":     {nil, []netip.Prefix{netip.MustParsePrefix("10.205.7.0/24")}, 206},
		"a wide one":               {nil, []netip.Prefix{netip.MustParsePrefix("10.192.0.0/12")}, 208},
		"addresses of the machine": {[]int{205}, routes, 208},
	} {
		t.Run(name, func(t *testing.T) {
			taken := map[int]bool{}
			for _, slot := range c.taken {
				taken[slot] = true
			}
			if got, err := freeSlot(taken, c.networks); err != nil || got != c.want {
				t.Errorf("got %d, %v; want %d", got, err, c.want)
			}
		})
	}
	if _, err := freeSlot(nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil || !strings.Contains(err.Error(), "sandbox down") {
		t.Errorf("with no free network: %v", err)
	}
}

func TestNetworksOfAClusterAreApart(t *testing.T) {
	var all []netip.Prefix
	for slot := firstSlot; slot <= lastSlot; slot++ {
		a := addressesOf(slot)
		node := netip.PrefixFrom(a.Node, 24).Masked()
		for _, p := range []netip.Prefix{node, a.Services, a.Pods} {
			if !a.All.Contains(p.Addr()) || p != p.Masked() {
				t.Fatalf("%v is not a network inside %v", p, a.All)
			}
			for _, q := range all {
				if p.Overlaps(q) {
					t.Fatalf("%v overlaps %v", p, q)
				}
			}
			all = append(all, p)
		}
		if !a.Services.Contains(a.API) || !a.Services.Contains(a.DNS) || !node.Contains(a.Host) {
			t.Fatalf("slot %d: an address is outside its network: %+v", slot, a)
		}
	}
}

func TestNamesAreCheckedBeforeAnythingIsMade(t *testing.T) {
	for _, name := range []string{"", "Demo", "1st", "a_b", "a-", "../etc", "abcdefghijklmnopqrstu", "a/b"} {
		if _, err := newLayout(name); err == nil || !strings.Contains(err.Error(), "cluster name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	_, err := Up(t.Context(), Options{Name: "demo", Domain: "not a domain"}, func(string) {})
	if err == nil || !strings.Contains(err.Error(), `"not a domain"`) {
		t.Errorf("domain: %v", err)
	}
}

func TestWhatTheMachineLacksIsNamed(t *testing.T) {
	dir := t.TempDir()
	for _, program := range []string{"containerd", "ctr", "containerd-shim-runc-v2", "nft", "ip", "nsenter", "mount", "iptables", "conntrack"} {
		must(t, os.WriteFile(filepath.Join(dir, program), nil, 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "runc"), nil, 0o600)) // there, but no program
	if got, want := missingPackages(dir, []string{dir}), []string{"runc", cniPackage}; !slices.Equal(got, want) {
		t.Errorf("missing %v, want %v", got, want)
	}
	for want, err := range map[string]error{"needs root, this is user 1000": checkHost("linux", 1000), "this is darwin": checkHost("darwin", 0)} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err := checkHost("linux", 0); err != nil {
		t.Error(err)
	}
}

func TestEveryComponentKeepsToItsCluster(t *testing.T) {
	one, other := testLayout(t, "one"), testLayout(t, "two")
	s := &state{Name: "one", Slot: 205}
	all := components(one, s, "/cache/kube", "/cache/dns", "/self")
	if len(all) != 9 {
		t.Fatalf("%d components", len(all))
	}
	for _, c := range all {
		line := strings.Join(c.argv, " ")
		if strings.Contains(line, other.dir) || strings.Contains(line, "10.206.") {
			t.Errorf("%s reaches into another cluster: %s", c.name, line)
		}
		if !strings.Contains(line, one.dir) && !slices.Contains(c.argv, one.name) {
			t.Errorf("%s names nothing of its cluster: %s", c.name, line)
		}
		if len(c.files) == 0 {
			t.Errorf("%s is started again by no change of configuration", c.name)
		}
		for _, arg := range c.argv {
			if _, path, ok := strings.Cut(arg, "=/"); ok && !strings.HasPrefix("/"+path, one.dir+"/") {
				t.Errorf("%s uses a path outside the cluster's folder: %s", c.name, arg)
			}
		}
	}
	for _, pair := range [][2]string{{etcd, "--client-cert-auth"}, {apiServer, "--authorization-mode=Node,RBAC"}, {scheduler, "--leader-elect=false"}} {
		i := slices.IndexFunc(all, func(c component) bool { return c.name == pair[0] })
		if !slices.Contains(all[i].argv, pair[1]) {
			t.Errorf("%s is started without %s", pair[0], pair[1])
		}
	}
}

func TestConfigurationsAreWellFormed(t *testing.T) {
	l := testLayout(t, `one`)
	v := values{Name: "one", Domain: `one.test`, ClusterDomain: clusterDomain, Dir: l.dir + `/with "quotes"`, PKI: l.path("pki"),
		Socket: l.containerdSocket(), Kubeconfig: l.path("kubeconfig"), addresses: addressesOf(205), GatewayCA: "-----BEGIN\nlines\n"}
	for _, name := range []string{"kubelet.yaml", "proxy.yaml", "cni.conflist", "bootstrap.yaml"} {
		data, err := render(name, v)
		must(t, err)
		for doc := range strings.SplitSeq(string(data), "\n---\n") {
			var content map[string]any
			if err := yaml.UnmarshalStrict([]byte(doc), &content); err != nil || len(content) == 0 {
				t.Errorf("%s: %v\n%s", name, err, doc)
			}
			if name == "cni.conflist" && !json.Valid(data) {
				t.Errorf("%s is not JSON:\n%s", name, data)
			}
		}
	}
	corefile, err := render("Corefile", v)
	must(t, err)
	if !strings.Contains(string(corefile), `answer "{{ .Name }} 60 IN A 10.205.0.2"`) || strings.Count(string(corefile), "{") != strings.Count(string(corefile), "}") {
		t.Errorf("Corefile:\n%s", corefile)
	}
}

func TestParseStartTicks(t *testing.T) {
	rest := " 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 8192 100"
	for name, c := range map[string]struct {
		stat string
		want uint64
		ok   bool
	}{
		"plain":              {"42 (sleep) S" + rest, 12345, true},
		"an unfriendly name": {"42 (a) Z (b c) R" + rest, 12345, true},
		"ended, not reaped":  {"42 (sleep) Z" + rest, 0, false},
		"cut short":          {"42 (sleep) S 1 1", 0, false},
		"empty":              {"", 0, false},
	} {
		got, err := parseStartTicks([]byte(c.stat))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func TestARecordNamesItsProcessOnly(t *testing.T) {
	ticks, err := startTicks(os.Getpid())
	must(t, err)
	mine := process{PID: os.Getpid(), Ticks: ticks, Boot: bootID()}
	if !mine.alive() {
		t.Error("this process does not count as alive")
	}
	reused, rebooted := mine, mine
	reused.Ticks++
	rebooted.Boot = "another"
	if reused.alive() || rebooted.alive() {
		t.Error("a process with the same number counts as the recorded one")
	}
}

func TestEndProcessesForcesWhatDoesNotListen(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	buf := make([]byte, 5)
	_, err = out.Read(buf) // the trap is set
	must(t, err)
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	must(t, endProcesses(t.Context(), []int{cmd.Process.Pid}, 50*time.Millisecond))
	if err := <-waited; err == nil {
		t.Error("it ended by itself")
	}
	must(t, endProcesses(t.Context(), []int{cmd.Process.Pid}, time.Second)) // gone: no error
}

func TestDigestFollowsArgumentsAndFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(file, []byte("one"), 0o600))
	c := component{name: "x", argv: []string{"a", "b"}, files: []string{file}}
	first, err := c.digest()
	must(t, err)
	same, err := c.digest()
	must(t, err)
	c.argv = []string{"a b"}
	otherArgs, err := c.digest()
	must(t, err)
	c.argv = []string{"a", "b"}
	must(t, os.WriteFile(file, []byte("two"), 0o600))
	otherFile, err := c.digest()
	must(t, err)
	if first != same || first == otherArgs || first == otherFile {
		t.Errorf("digests %s %s %s %s", first, same, otherArgs, otherFile)
	}
	must(t, os.Remove(file))
	if _, err := c.digest(); err == nil || !strings.Contains(err.Error(), "configuration of x") {
		t.Errorf("without its file: %v", err)
	}
}

func TestALockIsHeldOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := tryLock(path)
	must(t, err)
	if _, err := tryLock(path); !errors.Is(err, errLocked) {
		t.Errorf("second holder: %v", err)
	}
	must(t, os.Remove(path)) // as `down` does before it lets go
	unlock()
	again, err := tryLock(path)
	must(t, err)
	again()
}

func TestParseMount(t *testing.T) {
	m, ok := parseMount(`36 35 98:0 / /mnt/with\040space rw,noatime shared:1 - cgroup cgroup rw,cpuset`)
	if !ok || m != (mount{"/mnt/with space", "cgroup"}) {
		t.Errorf("%+v, %v", m, ok)
	}
	if _, ok := parseMount("not a mount"); ok {
		t.Error("took nonsense")
	}
}

func TestImportedImagesAreRead(t *testing.T) {
	names := importedNames("unpacking kaphera.local/a:dev (sha256:1)...done\nunpacking kaphera.local/a:dev-1 (sha256:1)...")
	if !slices.Equal(names, []string{"kaphera.local/a:dev", "kaphera.local/a:dev-1"}) {
		t.Errorf("names %v", names)
	}
	have := parseImages("REF TYPE DIGEST SIZE PLATFORMS LABELS\nkaphera.local/a:dev application/x sha256:1 1.4 MiB linux/amd64 -\n")
	for name, c := range map[string]struct {
		known loaded
		want  bool
	}{
		"the same":      {loaded{"kaphera.local/a:dev": "sha256:1"}, true},
		"other content": {loaded{"kaphera.local/a:dev": "sha256:2"}, false},
		"removed":       {loaded{"kaphera.local/b:dev": "sha256:1"}, false},
		"unknown":       {loaded{"kaphera.local/b:dev": ""}, false},
		"no image":      {loaded{}, false},
	} {
		if got := c.known.in(have); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAFailureShowsTheLinesThatMatterAndTheFix(t *testing.T) {
	l := testLayout(t, "one")
	lines := []string{"I1 starting"}
	for range 30 {
		lines = append(lines, "I1 working")
	}
	lines = append(lines, "E1 listen tcp 10.205.0.2:443: bind: address already in use", "I1 bye")
	must(t, writeFile(l.log("gateway"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	got := l.lastLog("gateway") + l.hint("gateway")
	for _, want := range []string{"E1 listen tcp", l.log("gateway"), "what to do", "sandbox down one"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "working") {
		t.Errorf("it shows lines that do not matter:\n%s", got)
	}
	if got := l.lastLog("never-started"); !strings.Contains(got, "no log") {
		t.Errorf("without a log: %s", got)
	}
}

func TestShimsAreToldByTheirSocket(t *testing.T) {
	const mine = "/state/one/containerd.sock"
	for line, want := range map[string]bool{
		"/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id x -address /state/one/containerd.sock":  true,
		"/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id x -address /state/one2/containerd.sock": false,
		"/usr/bin/vi /state/one/containerd.sock":                                                        false,
		"":                                                                                              false,
	} {
		if got := isShim(strings.Split(line, " "), mine); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func testLayout(t *testing.T, name string) layout {
	t.Helper()
	return layout{name: name, dir: filepath.Join(t.TempDir(), name)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
