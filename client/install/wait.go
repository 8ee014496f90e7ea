// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/edcoperator/preflight"
)

// CheckOptions say what Check looks at.
type CheckOptions struct {
	// All checks Vault, database, clocks and the ways to the cloud and to Counterparts (DIDs) as well; otherwise what needs only the cluster.
	All          bool
	Counterparts []string
}

// Check runs the preflight of the cell, as the cloud describes it.
func (i *Installation) Check(ctx context.Context, cloud *client.API, is CheckOptions) (preflight.Report, error) {
	r, err := cloud.GetCellWithResponse(ctx, i.Cell)
	if err != nil {
		return preflight.Report{}, err
	}
	manifest, err := json.Marshal(map[string]any{"kind": "cell", "name": i.Cell, "spec": r.JSON200.Spec})
	if err != nil {
		return preflight.Report{}, fmt.Errorf("cell %s: %w", i.Cell, err)
	}
	o, err := preflight.Read(bytes.NewReader(manifest), "")
	if err != nil {
		return preflight.Report{}, fmt.Errorf("cell %s: %w", i.Cell, err)
	}
	o.Cluster, o.Counterparts, o.Cloud, o.CloudCA, o.Installer = i.config, is.Counterparts, i.CloudAddress(), i.cloudCA(), i.Rights()
	if o.PlatformTrust {
		o.Runtime.Trust.CABundle = o.CloudCA
	}
	o.Skip = func(check string) bool {
		return !is.All && check != "kubernetes-version" && check != "kubernetes-permissions" && check != "ingress-class"
	}
	return preflight.Run(ctx, o), nil
}

// CloudAddress is what the agent connects to, as https://host; empty for a message server of the platform's own that is not reached by WebSocket.
func (i *Installation) CloudAddress() string {
	for _, o := range i.objects {
		var d appsv1.Deployment
		if o.GetKind() != "Deployment" || !convert(o, &d) {
			continue
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, arg := range c.Args {
				if host, ok := strings.CutPrefix(arg, "--nats-url=wss://"); ok {
					return "https://" + host
				}
			}
		}
	}
	return ""
}

// cloudCA is PEM of the authorities that the agent trusts; empty where those are the system's.
func (i *Installation) cloudCA() string {
	for _, o := range i.objects {
		if o.GetKind() == "ConfigMap" {
			pem, _, _ := unstructured.NestedString(o.Object, "data", "ca.crt")
			return pem
		}
	}
	return ""
}

const pollInterval = 2 * time.Second

// Wait waits until both operators run and the agent is connected to the cloud, or ctx ends; the error says what is missing then.
func (i *Installation) Wait(ctx context.Context, cloud *client.API, o Options) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last := ""; ; {
		missing, err := i.missing(ctx, cloud)
		if err == nil && missing == "" {
			return nil
		}
		if err != nil {
			missing = err.Error() // it may pass
		}
		if missing != last && ctx.Err() == nil {
			last = missing
			o.say("waiting: %s", missing)
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("installed, but not connected in time: %s", cmp.Or(last, missing))
		case <-tick.C:
		}
	}
}

// missing is what an installation lacks to work; empty when it does.
func (i *Installation) missing(ctx context.Context, cloud *client.API) (string, error) {
	for _, o := range i.objects {
		if o.GetKind() != "Deployment" {
			continue
		}
		var d appsv1.Deployment
		if err := i.cluster.Get(ctx, kube.ObjectKeyFromObject(o), &d); err != nil {
			return "", fmt.Errorf("read %s: %w", ID(o), err)
		}
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		if d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas >= want && d.Status.AvailableReplicas >= want {
			continue
		}
		why, err := i.podTrouble(ctx, &d)
		return fmt.Sprintf("%s has %d of %d pods available%s", ID(o), d.Status.AvailableReplicas, want, why), err
	}
	r, err := cloud.GetCellWithResponse(ctx, i.Cell)
	if err != nil {
		return "", err
	}
	for _, c := range r.JSON200.Status.Conditions {
		if c.Type == "Connected" {
			if c.Status == "True" {
				return "", nil
			}
			return "the cloud says: " + c.Message, nil
		}
	}
	return "the cloud has not looked at the cell yet", nil
}

// podTrouble says why pods of a Deployment do not start, as ": why"; empty when they say nothing.
func (i *Installation) podTrouble(ctx context.Context, d *appsv1.Deployment) (string, error) {
	var pods corev1.PodList
	if err := i.cluster.List(ctx, &pods, kube.InNamespace(i.Namespace), kube.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
		return "", fmt.Errorf("list the pods in %s: %w", i.Namespace, err)
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return fmt.Sprintf(": pod %s is not placed: %s", p.Name, c.Message), nil
			}
		}
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason != "ContainerCreating" {
				return strings.TrimSuffix(fmt.Sprintf(": pod %s: %s: %s", p.Name, w.Reason, w.Message), ": "), nil
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && p.Status.Phase == corev1.PodRunning {
				return fmt.Sprintf(": pod %s runs and is not ready; its log says why (kubectl -n %s logs %s)", p.Name, i.Namespace, p.Name), nil
			}
		}
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return ": " + c.Message, nil
		}
	}
	return "", nil
}
