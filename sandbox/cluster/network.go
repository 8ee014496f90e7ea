// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

const toolTimeout = 30 * time.Second

// runTool runs a short program to its end; its output is in the error.
func runTool(ctx context.Context, name string, args ...string) error {
	_, err := toolOutput(ctx, nil, name, args...)
	return err
}

func toolOutput(ctx context.Context, stdin []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	return output(ctx, stdin, name, args...)
}

// output is toolOutput with the caller's own time limit.
func output(ctx context.Context, stdin []byte, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the programs are this package's own choice
	cmd.Env = componentEnv()
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("stopped: %w", ctx.Err()) // not only "signal: killed"
		}
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// hostLink is the host's end of a cluster's link.
func hostLink(slot int) string { return fmt.Sprintf("kaphera%d", slot) }

// linked tells whether the cluster's namespace exists and is connected.
func linked(ctx context.Context, l layout, s *state) bool {
	if _, err := os.Stat(l.netnsPath()); err != nil {
		return false
	}
	if _, err := net.InterfaceByName(hostLink(s.Slot)); err != nil {
		return false
	}
	out, err := toolOutput(ctx, nil, "ip", "-n", l.netns(), "-o", "addr", "show", "dev", "eth0")
	return err == nil && strings.Contains(out, addressesOf(s.Slot).Node.String()+"/24")
}

// link makes the cluster's network namespace and connects it with the host.
func link(ctx context.Context, l layout, s *state) error {
	a, dev := addressesOf(s.Slot), hostLink(s.Slot)
	for _, args := range [][]string{
		{"ip", "netns", "add", l.netns()},
		{"ip", "link", "add", dev, "type", "veth", "peer", "name", "eth0", "netns", l.netns()},
		{"ip", "addr", "add", a.Host.String() + "/24", "dev", dev},
		{"ip", "link", "set", dev, "up"},
		{"ip", "-n", l.netns(), "link", "set", "lo", "up"},
		{"ip", "-n", l.netns(), "addr", "add", a.Node.String() + "/24", "dev", "eth0"},
		{"ip", "-n", l.netns(), "link", "set", "eth0", "up"},
		{"ip", "-n", l.netns(), "route", "add", "default", "via", a.Host.String()},
		// Pods and Services answer the host too.
		{"ip", "route", "add", a.All.String(), "via", a.Node.String(), "dev", dev},
		// /proc/sys/net shows the namespace of whoever opens it.
		{"nsenter", "--net=" + l.netnsPath(), "--", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"},
	} {
		if err := runTool(ctx, args[0], args[1:]...); err != nil {
			return fmt.Errorf("network of cluster %q: %w", l.name, err)
		}
	}
	return nil
}

// unlink removes what link made, whatever of it is there. Without a slot (no
// state left) the namespace's end going away takes the host's with it.
func unlink(ctx context.Context, l layout, slot int) error {
	var errs []error
	if slot > 0 {
		if _, err := net.InterfaceByName(hostLink(slot)); err == nil {
			errs = append(errs, runTool(ctx, "ip", "link", "del", hostLink(slot)))
		}
	}
	for _, name := range []string{l.netns(), l.vpn()} {
		if _, err := os.Stat(netnsFolder + name); err == nil {
			errs = append(errs, runTool(ctx, "ip", "netns", "del", name))
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hostNetworks lists the networks that the host is connected to or routes.
func hostNetworks(ctx context.Context) ([]netip.Prefix, error) {
	out, err := toolOutput(ctx, nil, "ip", "-4", "route", "show", "table", "all")
	if err != nil {
		return nil, err
	}
	return parseRoutes(out), nil
}

func parseRoutes(out string) []netip.Prefix {
	var all []netip.Prefix
	for line := range strings.Lines(out) {
		for _, field := range strings.Fields(line)[:min(2, len(strings.Fields(line)))] {
			if p, err := netip.ParsePrefix(field); err == nil {
				all = append(all, p.Masked())
			} else if a, err := netip.ParseAddr(field); err == nil {
				all = append(all, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return all
}
