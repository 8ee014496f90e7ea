// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// firewall stands between a cluster that plays a company, its cloud, and the
// machine that plays the rest of the world. The two clusters have a link of
// their own, so that nothing depends on what the machine forwards.
type firewall struct {
	layout
	own, cloud  addresses
	cloudLayout layout
	slot        int
}

// Names of the company's ends of its links, as the ruleset has them.
const (
	cloudLink = "cloud"
	vpnLink   = "vpn"
)

// newFirewall is nil for a cluster that has none.
func newFirewall(l layout, s *state) (*firewall, error) {
	if s.Cloud == "" {
		return nil, nil
	}
	there, err := newLayout(s.Cloud)
	if err != nil {
		return nil, err
	}
	cloud, err := readState(there)
	if err != nil {
		return nil, fmt.Errorf("its cloud: %w; make that first with `sandbox up %s`", err, s.Cloud)
	}
	return &firewall{l, addressesOf(s.Slot), addressesOf(cloud.Slot), there, s.Slot}, nil
}

// linked tells whether the company is connected with its cloud and its VPN.
func (f *firewall) linked(ctx context.Context) bool {
	for _, n := range []struct{ netns, via string }{{f.netns(), f.cloud.Node.String()}, {f.cloudLayout.netns(), f.own.Node.String()}, {f.vpn(), f.own.VPNNode.String()}} {
		out, err := toolOutput(ctx, nil, "ip", "-n", n.netns, "route", "show", "via", n.via)
		if err != nil || out == "" {
			return false
		}
	}
	return true
}

// link closes the company's namespace, which has nothing but its link to the
// machine, before it connects it with anything.
func (f *firewall) link(ctx context.Context) error {
	if _, err := os.Stat(f.cloudLayout.netnsPath()); err != nil {
		return fmt.Errorf("the network of its cloud: %w; make that first with `sandbox up %s`", err, f.cloudLayout.name)
	}
	if err := f.close(ctx); err != nil {
		return err
	}
	there, dev := f.cloudLayout.netns(), fmt.Sprintf("company%d", f.slot)
	for _, args := range []string{
		"ip -n " + f.netns() + " link add " + cloudLink + " type veth peer name " + dev + " netns " + there,
		"ip -n " + f.netns() + " link set " + cloudLink + " up",
		"ip -n " + there + " link set " + dev + " up",
		fmt.Sprintf("ip -n %s route add %s via %s dev %s onlink src %s", f.netns(), f.cloud.All, f.cloud.Node, cloudLink, f.own.Node),
		fmt.Sprintf("ip -n %s route add %s via %s dev %s onlink src %s", there, f.own.All, f.own.Node, dev, f.cloud.Node),
		"ip netns add " + f.vpn(),
		"ip -n " + f.netns() + " link add " + vpnLink + " type veth peer name eth0 netns " + f.vpn(),
		fmt.Sprintf("ip -n %s addr add %s/24 dev %s", f.netns(), f.own.VPNNode, vpnLink),
		"ip -n " + f.netns() + " link set " + vpnLink + " up",
		"ip -n " + f.vpn() + " link set lo up",
		fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", f.vpn(), f.own.VPN),
		"ip -n " + f.vpn() + " link set eth0 up",
		fmt.Sprintf("ip -n %s route add default via %s", f.vpn(), f.own.VPNNode),
	} {
		words := strings.Fields(args)
		if err := runTool(ctx, words[0], words[1:]...); err != nil {
			return fmt.Errorf("network between %q and %q: %w", f.name, f.cloudLayout.name, err)
		}
	}
	return nil
}

// close enforces the rules, unless they are in force as they are now.
func (f *firewall) close(ctx context.Context) error {
	rules, applied := f.ruleset(), f.etc("firewall.nft")
	if old, err := os.ReadFile(applied); err == nil && string(old) == rules {
		if _, err := f.nft(ctx, "list", "table", "inet", firewallTable); err == nil {
			return nil
		}
	}
	if _, err := toolOutput(ctx, []byte(rules), "nsenter", "--net="+f.netnsPath(), "--", "nft", "-f", "-"); err != nil {
		return err
	}
	return writeFile(applied, []byte(rules), 0o644)
}

const firewallTable = "kaphera_firewall"

//go:embed config/firewall.nft
var firewallRules string

func (f *firewall) ruleset() string {
	return strings.NewReplacer("TABLE", firewallTable, "OWN_GATEWAY", f.own.Node.String(), "OWN_PODS", f.own.Pods.String(), "OWN_SERVICES", f.own.Services.String(), "CLOUD_GATEWAY", f.cloud.Node.String(), "API_PORT", apiPort).Replace(firewallRules)
}

func (f *firewall) nft(ctx context.Context, args ...string) (string, error) {
	return toolOutput(ctx, nil, "nsenter", append([]string{"--net=" + f.netnsPath(), "--", "nft"}, args...)...)
}

const cutTable = "kaphera_cut"

// Cut drops, in both directions, all that goes between a company's cluster and its cloud, or what only some pods of the company send and get, by their
// addresses. It takes the place of an earlier cut; what it drops the firewall does not count.
func Cut(ctx context.Context, name string, pods ...string) error {
	l, err := newLayout(name)
	if err != nil {
		return err
	}
	s, err := readState(l)
	if err != nil {
		return err
	}
	if s.Cloud == "" {
		return fmt.Errorf("cluster %q plays no company and has no link to cut", name)
	}
	to, from := "", ""
	if len(pods) > 0 {
		all := " { " + strings.Join(pods, ", ") + " }"
		to, from = "ip daddr"+all, "ip saddr"+all
	}
	rules := fmt.Sprintf("table inet %[1]s {}\ndelete table inet %[1]s\ntable inet %[1]s {\n", cutTable)
	for _, hook := range []string{"input", "forward", "output"} {
		rules += fmt.Sprintf("  chain %[1]s {\n    type filter hook %[1]s priority filter - 50\n    iifname %[2]q %[3]s drop\n    oifname %[2]q %[4]s drop\n  }\n", hook, cloudLink, to, from)
	}
	_, err = toolOutput(ctx, []byte(rules+"}\n"), "nsenter", "--net="+l.netnsPath(), "--", "nft", "-f", "-")
	return err
}

// Heal ends a cut; nothing is cut afterwards, also when nothing was.
func Heal(ctx context.Context, name string) error {
	l, err := newLayout(name)
	if err != nil {
		return err
	}
	rules := fmt.Sprintf("table inet %[1]s {}\ndelete table inet %[1]s\n", cutTable)
	_, err = toolOutput(ctx, []byte(rules), "nsenter", "--net="+l.netnsPath(), "--", "nft", "-f", "-")
	return err
}

// VPN is the path of the network namespace from which the API server of cluster
// name is reached, empty when it plays no company.
func VPN(name string) (string, error) {
	l, err := newLayout(name)
	if err != nil {
		return "", err
	}
	s, err := readState(l)
	if err != nil {
		return "", err
	}
	return info(l, s).VPN, nil
}

// Traffic is what a company's firewall has seen since it stands.
type Traffic struct {
	// Connections by what they were for, as the counters of the ruleset are called; of those that were refused, each attempt. "late" counts packets.
	Connections map[string]int `json:"connections"`
	// Callers are who in the cloud's cluster began a connection to the company, allowed or not.
	Callers []Caller `json:"callers"`
}

// Caller began connections to one port of the company.
type Caller struct {
	Address     string `json:"address"`
	Pod         string `json:"pod"` // namespace/name; empty: no pod of the cloud's cluster
	Port        int    `json:"port"`
	Connections int    `json:"connections"`
}

// Firewall tells what went through the firewall of a company's cluster.
func Firewall(ctx context.Context, name string) (Traffic, error) {
	l, err := newLayout(name)
	if err != nil {
		return Traffic{}, err
	}
	s, err := readState(l)
	if err != nil {
		return Traffic{}, err
	}
	f, err := newFirewall(l, s)
	if err != nil {
		return Traffic{}, err
	}
	if f == nil {
		return Traffic{}, fmt.Errorf("cluster %q plays no company and has no firewall", name)
	}
	out, err := f.nft(ctx, "-j", "list", "table", "inet", firewallTable)
	if err != nil {
		return Traffic{}, err
	}
	pods, err := f.cloudLayout.pods()
	if err != nil {
		return Traffic{}, err
	}
	return parseTraffic([]byte(out), pods)
}

// parseTraffic reads what `nft -j list table` prints; pods are the cloud's by address.
func parseTraffic(out []byte, pods map[string]string) (Traffic, error) {
	var table struct {
		NFTables []struct {
			Counter *struct {
				Name    string `json:"name"`
				Packets int    `json:"packets"`
			} `json:"counter"`
			Set *struct {
				Elem []struct {
					Elem struct {
						Val struct {
							Concat []any `json:"concat"`
						} `json:"val"`
						Counter struct {
							Packets int `json:"packets"`
						} `json:"counter"`
					} `json:"elem"`
				} `json:"elem"`
			} `json:"set"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(out, &table); err != nil {
		return Traffic{}, fmt.Errorf("what nft prints: %w", err)
	}
	t := Traffic{Connections: map[string]int{}, Callers: []Caller{}}
	for _, o := range table.NFTables {
		if o.Counter != nil {
			t.Connections[o.Counter.Name] = o.Counter.Packets
		}
		if o.Set == nil {
			continue
		}
		for _, e := range o.Set.Elem {
			if len(e.Elem.Val.Concat) != 2 {
				return Traffic{}, fmt.Errorf("nft prints a caller as %v, not as an address and a port", e.Elem.Val.Concat)
			}
			address, port := fmt.Sprint(e.Elem.Val.Concat[0]), 0
			if n, ok := e.Elem.Val.Concat[1].(float64); ok {
				port = int(n)
			}
			t.Callers = append(t.Callers, Caller{Address: address, Pod: pods[address], Port: port, Connections: e.Elem.Counter.Packets})
		}
	}
	slices.SortFunc(t.Callers, func(a, b Caller) int {
		return strings.Compare(net.JoinHostPort(a.Pod+a.Address, fmt.Sprint(a.Port)), net.JoinHostPort(b.Pod+b.Address, fmt.Sprint(b.Port)))
	})
	return t, nil
}
