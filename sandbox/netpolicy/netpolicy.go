// SPDX-License-Identifier: Apache-2.0

// Package netpolicy enforces a sandbox cluster's NetworkPolicy objects with
// nftables, in the network namespace that it runs in: traffic between pods and
// to the node passes there, after Services were turned into pods.
//
// What the node itself sends to a pod (health checks, the gateway) is always
// let through, and so are questions to the cluster's DNS. A pod that has just
// got its address is open for the moment until its rules are in place.
package netpolicy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

const (
	applyLimit = 20 * time.Second
	retryAfter = 5 * time.Second
)

// Run enforces the policies until ctx ends. It starts the informers that it
// needs from factory.
func Run(ctx context.Context, node netip.Addr, factory informers.SharedInformerFactory, log *slog.Logger) error {
	policies, pods, namespaces := factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	changed := make(chan struct{}, 1)
	poke := func(any) {
		select {
		case changed <- struct{}{}:
		default: // one round is due already
		}
	}
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{policies.Informer(), pods.Informer(), namespaces.Informer()} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: poke, UpdateFunc: func(_, now any) { poke(now) }, DeleteFunc: poke,
		}); err != nil {
			return err
		}
		synced = append(synced, informer.HasSynced)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return context.Cause(ctx)
	}
	compute := func() (string, error) {
		c := Cluster{Node: node}
		var err error
		if c.Policies, err = policies.Lister().List(labels.Everything()); err != nil {
			return "", err
		}
		if c.Pods, err = pods.Lister().List(labels.Everything()); err != nil {
			return "", err
		}
		if c.Namespaces, err = namespaces.Lister().List(labels.Everything()); err != nil {
			return "", err
		}
		return c.Ruleset()
	}
	var applied string
	retry := time.NewTicker(retryAfter)
	defer retry.Stop()
	for {
		rules, err := compute()
		if err == nil && rules != applied {
			if err = apply(ctx, rules); err == nil {
				applied = rules
			}
		}
		if err != nil && ctx.Err() == nil {
			log.Error("network policies are not enforced as they are now; tried again soon", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry.C:
		}
	}
}

// apply hands a script to nft, which takes all of it or nothing.
func apply(ctx context.Context, rules string) error {
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %.500s", err, out)
	}
	return nil
}
