// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
)

func (r *run) configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.platform.Namespace, Labels: kube.Labels(name)}, Data: data}
}

// apply applies objects that go with the Platform.
func (r *run) apply(ctx context.Context, objects ...clientObject) error {
	for _, o := range objects {
		if err := kube.Apply(ctx, r.client, r.platform, o); err != nil {
			return err
		}
	}
	return nil
}

// stateful applies a part with a volume, its Service and its configuration.
func (r *run) stateful(ctx context.Context, w workload, data volume, mountPath string, config clientObject) error {
	set, err := w.statefulSet(data, mountPath)
	if err != nil {
		return err
	}
	var old appsv1.StatefulSet
	// The claim templates of a StatefulSet cannot change: what the volume was made with stays.
	if err := r.client.Get(ctx, client.ObjectKeyFromObject(set), &old); err == nil {
		set.Spec.VolumeClaimTemplates = old.Spec.VolumeClaimTemplates
		for i := range set.Spec.VolumeClaimTemplates {
			set.Spec.VolumeClaimTemplates[i].Status = corev1.PersistentVolumeClaimStatus{}
		}
	}
	return r.apply(ctx, config, w.service(), set)
}

func (r *run) exists(ctx context.Context, deployment string) bool {
	var d appsv1.Deployment
	return r.client.Get(ctx, types.NamespacedName{Namespace: r.platform.Namespace, Name: deployment}, &d) == nil
}

// running says why a part's pod is not ready, in the cluster's own words.
func (r *run) running(ctx context.Context, name string, stateful bool) error {
	key := types.NamespacedName{Namespace: r.platform.Namespace, Name: name}
	var want *int32
	var all, ready, updated int32
	var observed, generation int64
	if stateful {
		var s appsv1.StatefulSet
		if err := r.client.Get(ctx, key, &s); err != nil {
			return startingOrError(name, err)
		}
		want, all, ready, updated, observed, generation = s.Spec.Replicas, s.Status.Replicas, s.Status.ReadyReplicas, s.Status.UpdatedReplicas, s.Status.ObservedGeneration, s.Generation
	} else {
		var d appsv1.Deployment
		if err := r.client.Get(ctx, key, &d); err != nil {
			return startingOrError(name, err)
		}
		want, all, ready, updated, observed, generation = d.Spec.Replicas, d.Status.Replicas, d.Status.ReadyReplicas, d.Status.UpdatedReplicas, d.Status.ObservedGeneration, d.Generation
	}
	if observed >= generation && ready >= *want && updated >= *want && all <= updated { // an update that is stuck keeps pods of before
		return nil
	}
	return &startingError{r.whyNot(ctx, name)}
}

func startingOrError(name string, err error) error {
	if client.IgnoreNotFound(err) == nil {
		return &startingError{name + " is being made"}
	}
	return fmt.Errorf("read %s: %w", name, err)
}

func (r *run) whyNot(ctx context.Context, name string) string {
	var pods corev1.PodList
	err := r.client.List(ctx, &pods, client.InNamespace(r.platform.Namespace), client.MatchingLabels{kube.NameLabel: name, kube.PartOfLabel: kube.PartOf})
	if err != nil || len(pods.Items) == 0 {
		return name + " has no pod yet"
	}
	var why []string
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				why = append(why, fmt.Sprintf("pod %s cannot be placed: %s", p.Name, c.Message))
			}
		}
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			switch {
			case s.State.Waiting != nil && s.State.Waiting.Reason != "PodInitializing" && s.State.Waiting.Reason != "ContainerCreating":
				why = append(why, strings.TrimSpace(fmt.Sprintf("pod %s: %s %s", p.Name, s.State.Waiting.Reason, s.State.Waiting.Message)))
				if t := s.LastTerminationState.Terminated; t != nil {
					why = append(why, fmt.Sprintf("it ended with code %d: see its log", t.ExitCode))
				}
			case s.State.Running != nil && !s.Ready:
				why = append(why, fmt.Sprintf("pod %s runs and does not answer yet", p.Name))
			}
		}
	}
	if len(why) == 0 {
		return "pod of " + name + " is starting"
	}
	return strings.Join(why, "; ")
}

// delete waits for the cells, then carries out the data policy. The cluster removes what the Platform owns.
func (r *Reconciler) delete(ctx context.Context, p *cloud.Platform) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(p, Finalizer) {
		return ctrl.Result{}, nil
	}
	var cells cloud.CellList
	if err := r.Access.Client.List(ctx, &cells, client.InNamespace(p.Namespace)); err != nil {
		return ctrl.Result{}, fmt.Errorf("list the cells: %w", err)
	}
	if len(cells.Items) > 0 {
		var names []string
		for _, c := range cells.Items {
			names = append(names, c.Name)
		}
		before := p.DeepCopy()
		// It goes on working for them: a cell whose database fails could not take its participants down.
		r.newRun(p).all(ctx)
		kube.Set(&p.Status.Conditions, p.Generation, kube.Condition{
			Type: cloud.ConditionReady, Reason: cloud.ReasonInUse, Message: "deletion waits until these cells are deleted: " + strings.Join(names, ", "),
		})
		return ctrl.Result{RequeueAfter: everyWhileStarting}, kube.WriteStatus(ctx, r.Access.Client, r.Events, p, before)
	}
	if p.Spec.DataPolicy == "Delete" {
		if p.Spec.Keycloak.External != nil {
			if err := r.leave(ctx, p); err != nil {
				before := p.DeepCopy()
				c := describe(cloud.ConditionKeycloakReady, "Keycloak", err)
				c.Message = "deletion waits until what the platform has in the realm is removed; with dataPolicy Retain it stays there: " + c.Message
				kube.Set(&p.Status.Conditions, p.Generation, c)
				return ctrl.Result{RequeueAfter: everyWhileStarting}, kube.WriteStatus(ctx, r.Access.Client, r.Events, p, before)
			}
		}
		if err := r.deleteData(ctx, p.Namespace); err != nil {
			return ctrl.Result{}, err
		}
	}
	r.expiry.Reset()
	return ctrl.Result{}, kube.RemoveFinalizer(ctx, r.Access.Client, p, Finalizer)
}

// deleteData removes the volumes, and the Secrets without which they cannot be read.
func (r *Reconciler) deleteData(ctx context.Context, namespace string) error {
	ours := []client.DeleteAllOfOption{client.InNamespace(namespace), client.MatchingLabels{kube.PartOfLabel: kube.PartOf, kube.ManagedBy: kube.FieldOwner}}
	for _, o := range []client.Object{&corev1.PersistentVolumeClaim{}, &corev1.Secret{}} {
		if err := r.Access.Client.DeleteAllOf(ctx, o, ours...); err != nil {
			return fmt.Errorf("delete the data of the platform: %w", err)
		}
	}
	return nil
}
