// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/sandbox/cluster"
)

// company makes a second cluster beside this one, which is its cloud.
func (f *fixture) company(t *testing.T) {
	o := cluster.Options{Name: f.info.Name + "c", Cloud: f.info.Name}
	must(t, cluster.Settle(t.Context(), o))
	f.up(t) // it gets to know the other's names
	other := up(t, o)
	if other.info.Node == f.info.Node {
		t.Fatalf("both clusters have the address %s", f.info.Node)
	}
	must(t, other.running(t))
	const gateway, api = "443", "6443"
	namespace := func(name string) string { return "/run/netns/kaphera-" + name }
	world, cloud, own, vpn := "", namespace(f.info.Name), namespace(o.Name), other.info.VPN
	seen := func(counter string) int {
		t.Helper()
		traffic, err := cluster.Firewall(t.Context(), o.Name)
		must(t, err)
		return traffic.Connections[counter]
	}
	for name, c := range map[string]struct {
		from, to, port, counter string
		open                    bool
	}{
		"the cloud to the company's gateway":       {cloud, other.info.Node, gateway, "cloud-dsp", true},
		"the cloud to the company's API server":    {cloud, other.info.Node, api, "cloud-refused", false},
		"the cloud to a service of the company":    {cloud, apiService(other.info.Node), gateway, "cloud-refused", false},
		"the world to the company's gateway":       {world, other.info.Node, gateway, "world-dsp", true},
		"the world to the company's API server":    {world, other.info.Node, api, "world-refused", false},
		"the VPN to the company's API server":      {vpn, other.info.Node, api, "vpn-api", true},
		"the VPN to another port of the company":   {vpn, other.info.Node, "10250", "vpn-refused", false},
		"the VPN to the cloud's gateway":           {vpn, f.info.Node, gateway, "out-cloud", true},
		"the VPN to the cloud's API server":        {vpn, f.info.Node, api, "vpn-refused", false},
		"the company to the cloud's gateway":       {own, f.info.Node, gateway, "out-cloud", true},
		"the company to the cloud's API server":    {own, f.info.Node, api, "out-refused", false},
		"the company to this machine":              {own, strings.TrimSuffix(other.info.Node, "2") + "1", gateway, "out-refused", false},
		"the cloud to the cloud's API server":      {cloud, f.info.Node, api, "", true},
		"this machine to the cloud's API server":   {world, f.info.Node, api, "", true},
		"the company's node to its own API server": {own, other.info.Node, api, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			before := seen(c.counter)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if !c.open { // until an attempt was seen to be refused
				go func() {
					defer cancel()
					tick := time.NewTicker(100 * time.Millisecond)
					defer tick.Stop()
					for range tick.C {
						now, err := cluster.Firewall(ctx, o.Name)
						if err != nil || now.Connections[c.counter] != before {
							return
						}
					}
				}()
			}
			conn, err := cluster.DialIn(c.from)(ctx, "tcp", net.JoinHostPort(c.to, c.port))
			if err == nil {
				_ = conn.Close()
			}
			if (err == nil) != c.open || !c.open && !errors.Is(err, context.Canceled) {
				t.Errorf("%v, and it is to be open: %v", err, c.open)
			}
			if c.counter != "" && seen(c.counter) == before {
				t.Errorf("%s does not count", c.counter)
			}
		})
	}
	t.Run("a packet of a connection that is forgotten is no attempt", func(t *testing.T) {
		conn, err := cluster.DialIn(cloud)(t.Context(), "tcp", net.JoinHostPort(other.info.Node, gateway))
		must(t, err)
		defer func() { _ = conn.Close() }()
		before, err := cluster.Firewall(t.Context(), o.Name)
		must(t, err)
		must(t, exec.CommandContext(t.Context(), "nsenter", "--net="+own, "--", "conntrack", "-F").Run())
		_, err = conn.Write([]byte("late"))
		must(t, err)
		waitFor(t, "the packet", func() error {
			after, err := cluster.Firewall(t.Context(), o.Name)
			if err != nil {
				return err
			}
			if after.Connections["late"] == before.Connections["late"] {
				return errors.New("it has not come")
			}
			for counter, n := range before.Connections {
				if strings.HasPrefix(counter, "cloud-") && after.Connections[counter] != n {
					t.Errorf("%s counts it", counter)
				}
			}
			if !slices.Equal(before.Callers, after.Callers) {
				t.Errorf("it adds a caller: %+v, before %+v", after.Callers, before.Callers)
			}
			return nil
		})
	})
	t.Run("a link that is cut, and healed", func(t *testing.T) {
		dial := func(from, to string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			conn, err := cluster.DialIn(from)(ctx, "tcp", net.JoinHostPort(to, gateway))
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
		ways := []struct{ from, to string }{{cloud, other.info.Node}, {own, f.info.Node}, {vpn, f.info.Node}}
		must(t, cluster.Cut(t.Context(), o.Name))
		for _, w := range ways {
			if err := dial(w.from, w.to); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
				t.Errorf("from %s to %s: %v", w.from, w.to, err)
			}
		}
		must(t, cluster.Cut(t.Context(), o.Name, "192.0.2.1")) // a pod that is not there: the others have their ways again
		for range 2 {
			for _, w := range ways {
				waitFor(t, w.from+" to "+w.to, func() error { return dial(w.from, w.to) })
			}
			must(t, cluster.Heal(t.Context(), o.Name))
		}
		if err := cluster.Cut(t.Context(), f.info.Name); err == nil {
			t.Error("a cluster that plays no company was cut off")
		}
	})
	t.Run("who calls is known by name", func(t *testing.T) {
		wantContains(t, f.inPod(t, "/resolve?name=anything."+other.info.Domain, http.StatusOK), other.info.Node)
		wantContains(t, f.inPod(t, "/fetch?url=https://anything."+other.info.Domain, http.StatusBadGateway), "certificate")
		traffic, err := cluster.Firewall(t.Context(), o.Name)
		must(t, err)
		if !slices.ContainsFunc(traffic.Callers, func(c cluster.Caller) bool {
			return strings.HasPrefix(c.Pod, f.namespace+"/probe-") && c.Port == 443 && c.Connections > 0
		}) {
			t.Errorf("the pod is not among %+v", traffic.Callers)
		}
	})
	must(t, cluster.Down(t.Context(), o.Name, report(t)))
	nothingLeft(t, other)
	f.eventually(t, "https://probe."+f.info.Domain+"/", http.StatusOK, "message=hello")
}

// apiService is the address of the Service kubernetes in the cluster of a node.
func apiService(node string) string { return strings.TrimSuffix(node, "0.2") + "64.1" }
