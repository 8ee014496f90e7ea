// SPDX-License-Identifier: Apache-2.0

// Package netguard keeps connections whose target somebody else named away from addresses that are none of their business: this machine,
// the cloud's metadata service, networks that the operator denies, what the connector itself depends on. An address is judged when it is
// connected to, after its name was resolved, so that neither a redirect nor a name that changes its address gets around it.
package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const checkLimit = 3 * time.Second

// Guard says which addresses may be connected to. The zero value permits the public internet. Link-local, multicast, broadcast and
// unspecified addresses are never permitted.
type Guard struct {
	// AllowPrivate permits addresses that are not of the public internet.
	AllowPrivate bool
	// AllowLoopback permits loopback addresses. For parties that share a machine.
	AllowLoopback bool
	// Allowed, unless empty, are the only networks that are connected to. Denied never are, not even within an allowed one.
	Allowed, Denied []netip.Prefix
	// Own are addresses (host:port) of what this connector depends on. What their hosts resolve to is never connected to, at any port; a
	// loopback address, which others share, not at that port.
	Own []string

	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error) // for tests; nil is the resolver of the system
}

// RefusedError is an address that may not be connected to.
type RefusedError struct {
	Address netip.Addr
	Why     string // continues "10.0.0.1 …"
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Address.String() + " " + e.Why }

// Dialer is a dialer that connects to permitted addresses only.
func (g Guard) Dialer() *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second, ControlContext: g.control}
}

func (g Guard) control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	return g.judge(ctx, ap.Addr(), ap.Port())
}

// Check judges what the host of u, a name or an address, resolves to now. A name that cannot be resolved in time passes: what it will be
// when it is connected to is not known.
func (g Guard) Check(ctx context.Context, u *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	addresses, err := g.resolve(ctx, u.Hostname())
	if err != nil {
		return nil // see above
	}
	var refused *RefusedError
	for _, a := range addresses {
		if err := g.judge(ctx, a, Port(u)); errors.As(err, &refused) {
			return err
		}
	}
	return nil
}

// Port is the port of a URL, 443 or 80 when it names none.
func Port(u *url.URL) uint16 {
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return uint16(port)
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

func (g Guard) judge(ctx context.Context, a netip.Addr, port uint16) error {
	a = a.Unmap().WithZone("")
	refuse := func(why string) error { return &RefusedError{Address: a, Why: why} }
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a == broadcast:
		return refuse("is not the address of one server")
	case a.IsLinkLocalUnicast() || a == metadata:
		return refuse("is a link-local address, as those of cloud metadata are")
	case a.IsLoopback() && !g.AllowLoopback:
		return refuse("is a loopback address")
	case !g.AllowPrivate && !a.IsLoopback() && !public(a):
		return refuse("is not an address of the public internet; set trust.allowPrivateNetworks to reach it")
	}
	if i := slices.IndexFunc(g.Denied, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
		return refuse("is in the denied network " + g.Denied[i].String())
	}
	if len(g.Allowed) > 0 && !slices.ContainsFunc(g.Allowed, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return refuse("is in none of the allowed networks")
	}
	if nat64.Contains(a) { // it leads to the IPv4 address in its last four bytes
		raw := a.As16()
		if err := g.judge(ctx, netip.AddrFrom4([4]byte(raw[12:])), port); err != nil {
			return err
		}
	}
	return g.notOwn(ctx, a, port)
}

func (g Guard) notOwn(ctx context.Context, a netip.Addr, port uint16) error {
	for _, own := range g.Own {
		host, ownPort, err := net.SplitHostPort(own)
		if err != nil {
			return fmt.Errorf("own address %q: %w", own, err)
		}
		if a.IsLoopback() && ownPort != strconv.Itoa(int(port)) {
			continue
		}
		addresses, err := g.resolve(ctx, host)
		if err != nil {
			return fmt.Errorf("whether %s is the address of %s can't be told: %w", a, own, err)
		}
		if slices.Contains(addresses, a) {
			return &RefusedError{Address: a, Why: "is an address of what this connector itself runs on: its database, Vault, Kubernetes or own roles"}
		}
	}
	return nil
}

func (g Guard) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	lookup := g.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	addresses, err := lookup(ctx, "ip", host)
	for i, a := range addresses {
		addresses[i] = a.Unmap().WithZone("")
	}
	return addresses, err
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	// metadata is where a large cloud serves machine credentials by IPv6, outside of the link-local range.
	metadata = netip.MustParseAddr("fd00:ec2::254")
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
)

// reserved are networks beyond those that netip names which no public participant is in.
var reserved = func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}
