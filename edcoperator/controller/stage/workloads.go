// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

const readyzTimeout = 3 * time.Second

// problem is what keeps a role from being available; check is the failed readiness check, when it is one.
type problem struct{ check, text string }

// Workloads applies every object of rt and sets DatabaseReady, VaultReady and WorkloadsReady from what its roles report.
func (r *Runner) Workloads(ctx context.Context, rt *workload.Runtime, o outcome.Object) error {
	for _, role := range rt.Roles {
		for _, obj := range []client.Object{rt.ServiceAccount(role), rt.Service(role), rt.DisruptionBudget(role), rt.Deployment(role)} {
			if err := r.Apply(ctx, obj); err != nil {
				return err
			}
		}
	}
	if rt.Replicas != nil && *rt.Replicas == 0 {
		return outcome.Terminal(v1alpha1.ConditionWorkloadsReady, v1alpha1.ReasonScaledToZero, "spec.replicas is 0: nothing runs")
	}
	var problems []problem
	for _, role := range rt.Roles {
		found, err := r.roleProblems(ctx, rt, role)
		if err != nil {
			return err
		}
		problems = append(problems, found...)
	}
	of := func(check string) string { return texts(problems, func(p problem) bool { return p.check == check }) }
	if len(problems) > 0 {
		reason := v1alpha1.ReasonPodFailing
		if !slices.ContainsFunc(problems, func(p problem) bool { return p.check != checkStarting }) {
			reason = v1alpha1.ReasonStarting
		}
		stop := outcome.Waiting(RetrySoon, v1alpha1.ConditionWorkloadsReady, reason, "%s", texts(problems, func(problem) bool { return true }))
		outcome.Set(o, v1alpha1.ConditionWorkloadsReady, metav1.ConditionFalse, reason, stop.Error())
		if text := of(adminapi.CheckVault); text != "" {
			outcome.Set(o, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, v1alpha1.ReasonVaultRefused, text)
			stop = outcome.Waiting(RetrySoon, v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultRefused, "%s", text)
		}
		if text := of(adminapi.CheckDatabase); text != "" {
			outcome.Set(o, v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonDatabaseRefused, text)
			stop = outcome.Waiting(RetrySoon, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonDatabaseRefused, "%s", text)
		}
		return stop
	}
	outcome.True(o, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonMigrated,
		fmt.Sprintf("database %s at %s:%d is up to date and serves every role", rt.Database.Name, rt.Database.Host, rt.Database.Port))
	outcome.True(o, v1alpha1.ConditionVaultReady, v1alpha1.ReasonReachable,
		fmt.Sprintf("every role is logged in to %s and may use %s/%s", rt.Vault.Address, rt.Vault.Mount, rt.Vault.Prefix))
	outcome.True(o, v1alpha1.ConditionWorkloadsReady, v1alpha1.ReasonAvailable, "every role is available")
	return nil
}

// checkStarting marks a role that has only not finished starting.
const checkStarting = "starting"

func (r *Runner) roleProblems(ctx context.Context, rt *workload.Runtime, role workload.Role) ([]problem, error) {
	var d appsv1.Deployment
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: rt.Namespace, Name: rt.ObjectName(role)}, &d)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read Deployment %s/%s: %w", rt.Namespace, rt.ObjectName(role), err)
	}
	if err == nil && available(&d) {
		return nil, nil
	}
	pods, err := r.pods(ctx, rt.Namespace, rt.Selector(role))
	if err != nil {
		return nil, err
	}
	var out []problem
	for i := range pods {
		pod := &pods[i]
		if text := startProblem(pod); text != "" {
			out = append(out, problem{text: fmt.Sprintf("%s: %s", role, text)})
		} else if pod.Status.PodIP != "" && !ready(pod) {
			out = append(out, r.readyz(ctx, role, pod)...)
		}
		if len(out) > 0 {
			return out, nil // of the newest Pod that has any: one Deployment's Pods are alike
		}
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return []problem{{text: fmt.Sprintf("%s: its Pods are refused: %s", role, c.Message)}}, nil
		}
	}
	return []problem{{check: checkStarting, text: fmt.Sprintf("%s: starting", role)}}, nil
}

// available reports that the newest revision runs in full and no other.
func available(d *appsv1.Deployment) bool {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

// readyz asks a Pod that runs and is not ready why.
func (r *Runner) readyz(ctx context.Context, role workload.Role, pod *corev1.Pod) []problem {
	transport := runtimeclient.Transport(r.Dial, nil)
	defer transport.CloseIdleConnections()
	url := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(workload.HealthPort)) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil
	}
	resp, err := (&http.Client{Transport: transport, Timeout: readyzTimeout}).Do(req)
	if err != nil {
		return []problem{{check: checkStarting, text: fmt.Sprintf("%s: starting", role)}}
	}
	defer func() { _ = resp.Body.Close() }()
	var said adminapi.Readiness
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil || json.Unmarshal(raw, &said) != nil {
		return []problem{{text: fmt.Sprintf("%s: /readyz answered %s", role, resp.Status)}}
	}
	var out []problem
	for _, c := range said.Checks {
		if c.Error != "" {
			out = append(out, problem{check: c.Name, text: fmt.Sprintf("%s: %s", role, c.Error)})
		}
	}
	return out
}

// podProblem says why the newest Pod with these labels cannot start; empty when it can, or there is none yet.
func (r *Runner) podProblem(ctx context.Context, namespace string, labels map[string]string) (string, error) {
	pods, err := r.pods(ctx, namespace, labels)
	if err != nil || len(pods) == 0 {
		return "", err
	}
	return startProblem(&pods[0]), nil
}

// pods lists Pods that are not being deleted, the newest first.
func (r *Runner) pods(ctx context.Context, namespace string, labels map[string]string) ([]corev1.Pod, error) {
	var l corev1.PodList
	if err := r.Reader.List(ctx, &l, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil {
		return nil, fmt.Errorf("list Pods in %s: %w", namespace, err)
	}
	pods := slices.DeleteFunc(l.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// startProblem says why a Pod is not running: it finds no node, its image cannot be pulled, a volume is missing, it crashes.
func startProblem(pod *corev1.Pod) string {
	for _, cs := range pod.Status.ContainerStatuses {
		w := cs.State.Waiting
		if w == nil || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" {
			continue
		}
		if words := lastWords(pod); words != "" {
			return fmt.Sprintf("%s: %s", w.Reason, words)
		}
		return fmt.Sprintf("%s: %s", w.Reason, cmp.Or(w.Message, "image "+cs.Image))
	}
	if words := lastWords(pod); words != "" && !ready(pod) && pod.Status.Phase != corev1.PodFailed {
		for _, cs := range pod.Status.ContainerStatuses {
			if cs.State.Terminated != nil {
				return words
			}
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "no node takes its Pod: " + c.Message
		}
	}
	return ""
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func texts(problems []problem, keep func(problem) bool) string {
	var out []string
	for _, p := range problems {
		if keep(p) {
			out = append(out, p.text)
		}
	}
	return strings.Join(out, "; ")
}
