// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// recordPods keeps which pod has, or had, which address: a firewall elsewhere knows
// addresses only, and looks when the pod may have gone.
func recordPods(ctx context.Context, l layout, informer cache.SharedIndexInformer) error {
	all, err := l.pods()
	if err != nil {
		return err
	}
	seen := make(chan *corev1.Pod)
	note := func(o any) {
		if p, ok := o.(*corev1.Pod); ok && p.Status.PodIP != "" && !p.Spec.HostNetwork {
			select {
			case seen <- p:
			case <-ctx.Done():
			}
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, now any) { note(now) }}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-seen:
			name := p.Namespace + "/" + p.Name
			if all[p.Status.PodIP] == name {
				continue
			}
			all[p.Status.PodIP] = name
			data, err := json.Marshal(all)
			if err != nil {
				return err
			}
			if err := writeFile(l.podsFile(), data, 0o644); err != nil {
				return err
			}
		}
	}
}

// pods are the addresses that the cluster's pods have, or had, as namespace/name.
func (l layout) pods() (map[string]string, error) {
	all := map[string]string{}
	data, err := os.ReadFile(l.podsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(data, &all)
}
