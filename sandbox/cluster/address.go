// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
)

// Each cluster owns one 10.N.0.0/16: its node network is the first /24, its VPN
// the second, its Services a /18 and its pods the upper half, so one number fixes
// them all and one route on the host reaches them.
const (
	firstSlot = 205
	lastSlot  = 250
)

type addresses struct {
	All      netip.Prefix // everything of the cluster
	Host     netip.Addr   // the host's end of the link
	Node     netip.Addr   // the node's end: API server, DNS, gateway
	VPN      netip.Addr   // of a company: the one machine in its VPN
	VPNNode  netip.Addr   // and the node's end of the link to it
	Services netip.Prefix
	API      netip.Addr // the Service "kubernetes"
	DNS      netip.Addr // the Service "kube-dns"
	Pods     netip.Prefix
}

func addressesOf(slot int) addresses {
	at := func(c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(slot), c, d}) }
	return addresses{
		All:      netip.PrefixFrom(at(0, 0), 16),
		Host:     at(0, 1),
		Node:     at(0, 2),
		VPN:      at(1, 2),
		VPNNode:  at(1, 1),
		Services: netip.PrefixFrom(at(64, 0), 18),
		API:      at(64, 1),
		DNS:      at(64, 10),
		Pods:     netip.PrefixFrom(at(128, 0), 17),
	}
}

// freeSlot picks the lowest slot that no recorded cluster has and that overlaps
// no network the machine is already connected to.
func freeSlot(taken map[int]bool, networks []netip.Prefix) (int, error) {
	for slot := firstSlot; slot <= lastSlot; slot++ {
		if taken[slot] {
			continue
		}
		all, free := addressesOf(slot).All, true
		for _, n := range networks {
			// A default route overlaps everything and means nothing here.
			free = free && (n.Bits() == 0 || !n.Overlaps(all))
		}
		if free {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("no free network among 10.%d.0.0/16 to 10.%d.0.0/16; remove a cluster with `sandbox down NAME` (`sandbox status` lists them)", firstSlot, lastSlot)
}
