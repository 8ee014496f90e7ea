// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/jackc/pgx/v5"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
)

// databases and roles of the server, as the superuser sees them over TLS.
func databases(t *testing.T) []string {
	t.Helper()
	s := superuser(t)
	cfg, err := pgx.ParseConfig("postgres://" + s.User + "@" + s.Address + "/postgres")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password, cfg.TLSConfig, cfg.Fallbacks = s.Password, s.TLS, nil
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	rows, err := c.Query(t.Context(), "SELECT datname::text FROM pg_database UNION SELECT rolname::text FROM pg_roles")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// restricted admits every pod of the platform in a namespace that enforces the restricted standard, and no connection without TLS or password.
func restricted(t *testing.T) {
	var templates []corev1.PodTemplateSpec
	for _, name := range []string{parts.PostgreSQL, parts.OpenBao, parts.NATS} {
		var s appsv1.StatefulSet
		if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: name}, &s); err != nil {
			t.Fatal(err)
		}
		templates = append(templates, s.Spec.Template)
	}
	stateful := len(templates)
	for _, name := range []string{parts.Keycloak, parts.Cloud} {
		var d appsv1.Deployment
		eventually(t, func(ctx context.Context) error {
			return admin.Get(ctx, types.NamespacedName{Namespace: system, Name: name}, &d)
		})
		templates = append(templates, d.Spec.Template)
	}
	for i, template := range templates {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: fmt.Sprintf("pod-%d", i), Labels: template.Labels}, Spec: template.Spec}
		if i < stateful { // made from the claim template
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data"})
		}
		if err := admin.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Errorf("pod of %s: %v", template.Labels["app.kubernetes.io/name"], err)
		}
	}
	var all appsv1.DeploymentList // the operator too
	if err := admin.List(t.Context(), &all, client.InNamespace(system)); err != nil {
		t.Fatal(err)
	}
	for _, d := range all.Items {
		templates = append(templates, d.Spec.Template)
	}
	for _, template := range templates {
		podWithin(t, template)
	}
	plain := superuser(t)
	plain.TLS = nil
	if a, err := postgres.Connect(t.Context(), plain); err == nil {
		a.Close(t.Context())
		t.Error("PostgreSQL takes a connection without TLS")
	}
	wrong := superuser(t)
	wrong.Password = "wrong"
	if a, err := postgres.Connect(t.Context(), wrong); err == nil {
		a.Close(t.Context())
		t.Error("PostgreSQL takes a wrong password")
	}
}

// podWithin checks what lets a pod live beside others: what it asks for and may take at most, how its health is asked for, and what it can do if taken over.
func podWithin(t *testing.T, template corev1.PodTemplateSpec) {
	t.Helper()
	pod := template.Spec
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		name := template.Labels["app.kubernetes.io/name"] + "/" + c.Name
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has resources %+v", name, c.Resources)
		}
		if s := c.SecurityContext; s == nil || !ptr.Deref(s.ReadOnlyRootFilesystem, false) {
			t.Errorf("%s may write its own files", name)
		}
		if s := pod.SecurityContext; s == nil || !ptr.Deref(s.RunAsNonRoot, false) {
			t.Errorf("%s may be root", name)
		}
	}
	for _, c := range pod.Containers {
		if c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.Errorf("%s/%s has no probes", template.Labels["app.kubernetes.io/name"], c.Name)
		}
	}
}

// replicated asks for two replicas of the Cloud API, which are replaced, and taken off a node, one by one.
func replicated(t *testing.T) {
	patch := []byte(`{"spec":{"cloud":{"replicas":2}}}`)
	p := &cloud.Platform{ObjectMeta: named("kaphera")}
	if err := admin.Patch(t.Context(), p, client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Fatal(err)
	}
	key := types.NamespacedName{Namespace: system, Name: parts.Cloud}
	var d appsv1.Deployment
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, key, &d); err != nil {
			return err
		}
		if *d.Spec.Replicas != 2 {
			return fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return nil
	})
	pod := d.Spec.Template.Spec
	if sleep := pod.Containers[0].Lifecycle.PreStop.Sleep; sleep == nil || sleep.Seconds <= 0 || sleep.Seconds >= *pod.TerminationGracePeriodSeconds {
		t.Errorf("a pod that ends serves for %v of %d s", sleep, *pod.TerminationGracePeriodSeconds)
	}
	if len(pod.TopologySpreadConstraints) != 2 || d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Errorf("spread %+v, update %+v", pod.TopologySpreadConstraints, d.Spec.Strategy.RollingUpdate)
	}
	var budget policyv1.PodDisruptionBudget
	if err := admin.Get(t.Context(), key, &budget); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(budget.Spec.Selector.MatchLabels, d.Spec.Selector.MatchLabels) || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("disruption budget %+v", budget.Spec)
	}
	platform := &cloud.Platform{ObjectMeta: named("kaphera")}
	for _, c := range []struct {
		what                string
		all, updated, ready int32
		want                metav1.ConditionStatus
	}{
		{"both are there", 2, 2, 2, metav1.ConditionTrue},
		{"one of two is not ready", 2, 2, 1, metav1.ConditionFalse},
		{"both are there again", 2, 2, 2, metav1.ConditionTrue},
		{"an update is stuck at its first pod", 3, 1, 2, metav1.ConditionFalse},
		{"one of before is left", 3, 2, 3, metav1.ConditionFalse},
		{"the update is through", 2, 2, 2, metav1.ConditionTrue},
	} {
		eventually(t, func(ctx context.Context) error {
			if err := admin.Get(ctx, key, &d); err != nil {
				return err
			}
			d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: c.all, UpdatedReplicas: c.updated, ReadyReplicas: c.ready}
			return admin.Status().Update(ctx, &d)
		})
		if err := until(t.Context(), func(ctx context.Context) error {
			return condition(ctx, platform, cloud.ConditionCloudReady, c.want, "")
		}); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
	}
}

// lostPassword deletes the Secret of a role: the operator makes another and sets it.
func lostPassword(t *testing.T) {
	key := types.NamespacedName{Namespace: system, Name: parts.DatabaseSecret("keycloak")}
	var before corev1.Secret
	if err := admin.Get(t.Context(), key, &before); err != nil {
		t.Fatal(err)
	}
	if err := admin.Delete(t.Context(), &before); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		var after corev1.Secret
		if err := admin.Get(ctx, key, &after); err != nil {
			return err
		}
		s := superuser(t)
		s.User, s.Password = string(after.Data[parts.KeyUsername]), string(after.Data[parts.KeyPassword])
		cfg, err := pgx.ParseConfig("postgres://" + s.User + "@" + s.Address + "/keycloak")
		if err != nil {
			return err
		}
		cfg.Password, cfg.TLSConfig, cfg.Fallbacks = s.Password, s.TLS, nil
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		return c.Close(ctx)
	})
}
