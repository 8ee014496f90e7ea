// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kaphera/kaphera/sandbox/gateway"
	"github.com/kaphera/kaphera/sandbox/localpath"
	"github.com/kaphera/kaphera/sandbox/netpolicy"
	"github.com/kaphera/kaphera/sandbox/pki"
)

// AgentCommand is the first argument that Up starts its own program with; the
// program must then call Agent with the arguments that follow.
const AgentCommand = "agent"

// Agent runs, inside the cluster's network namespace, what a cluster needs
// besides Kubernetes: gateway, volumes, network policies, a record of the pods, and
// starting again what ended. It returns when ctx ends or one of these fails.
func Agent(ctx context.Context, args []string, log *slog.Logger) error {
	if len(args) != 4 {
		return fmt.Errorf("the agent is started by `sandbox up`, with a name, a folder and two programs, not with %q", args)
	}
	kube, coredns := args[2], args[3]
	if err := os.Setenv(StateEnv, args[1]); err != nil {
		return err
	}
	l, err := newLayout(args[0])
	if err != nil {
		return err
	}
	s, err := readState(l)
	if err != nil {
		return err
	}
	authority, err := pki.LoadAuthority(l.path("pki"), "gateway-ca")
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig("agent"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(set, 0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func() error{
		func() error {
			return gateway.Run(ctx, gateway.Config{Cluster: l.name, Domain: s.Domain, Address: addressesOf(s.Slot).Node,
				HostsFile: gateway.HostsFile, Authority: authority, Client: set, Log: log}, factory)
		},
		func() error {
			return localpath.Run(ctx, localpath.Config{Dir: l.volumes(), Node: l.name, Client: set, Log: log}, factory)
		},
		func() error { return recordPods(ctx, l, factory.Core().V1().Pods().Informer()) },
		func() error { return netpolicy.Run(ctx, addressesOf(s.Slot).Node, factory, log) },
		func() error { return supervise(ctx, l, components(l, s, kube, coredns, ""), log) },
	}
	ended := make(chan error, len(parts))
	for _, run := range parts {
		go func() {
			ended <- run()
			cancel()
		}()
	}
	var errs []error
	for range parts {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

const (
	watchEvery = 2 * time.Second
	calmAfter  = time.Minute // a component that ran this long is no longer restarted slowly
	maxBackoff = time.Minute
)

// supervise starts components that ended, each with growing pauses while it
// keeps ending.
func supervise(ctx context.Context, l layout, all []component, log *slog.Logger) error {
	type history struct {
		started time.Time
		wait    time.Duration
	}
	past := map[string]history{}
	for pause(ctx, watchEvery) == nil {
		unlock, err := tryLock(l.lockFile())
		if errors.Is(err, errLocked) {
			continue // an up or down is at work
		}
		if err != nil {
			return fmt.Errorf("supervise: %w", err)
		}
		for _, c := range all {
			h := past[c.name]
			if c.name == agent || time.Since(h.started) < h.wait {
				continue
			}
			started, err := l.ensure(ctx, c)
			if err != nil {
				log.Error("component does not start", "component", c.name, "error", err)
			}
			if !started {
				continue
			}
			log.Warn("component had ended and was started again", "component", c.name)
			if time.Since(h.started) > calmAfter {
				h.wait = 0
			}
			past[c.name] = history{time.Now(), min(max(2*h.wait, watchEvery), maxBackoff)}
		}
		unlock()
	}
	return nil
}
