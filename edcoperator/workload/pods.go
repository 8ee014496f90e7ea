// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/connector/config"
)

const (
	// runtimeUser is the user of the connector image.
	runtimeUser = 65532
	// migrationDeadline ends a migration that cannot start or hangs, in seconds; it is then tried again.
	migrationDeadline = 600
	// lameDuck is how long a Pod that is to end goes on serving, in seconds: until then Services and Ingresses may still send it requests.
	lameDuck = 5
	// terminationGrace is how long that, the requests under way then, and messages that are being sent may take, in seconds.
	terminationGrace = lameDuck + int64(config.ShutdownGrace/time.Second) + 25
	// vaultTokenLifetime of the projected service account token, in seconds; the kubelet renews it.
	vaultTokenLifetime = 3600
)

// ServiceAccount of a role. It has no rights in the cluster; a Vault knows the role by it.
func (r Runtime) ServiceAccount(role Role) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: r.meta(r.ObjectName(role), role),
		AutomountServiceAccountToken: ptr.To(false),
	}
}

// Deployment of a role.
func (r Runtime) Deployment(role Role) *appsv1.Deployment {
	c := r.container(role, "serve", "--roles="+string(role), "--config="+configDir+"/config.yaml")
	c.Ports = []corev1.ContainerPort{
		{Name: "public", ContainerPort: PublicPort, Protocol: corev1.ProtocolTCP},
		{Name: "internal", ContainerPort: InternalPort, Protocol: corev1.ProtocolTCP},
		{Name: "health", ContainerPort: HealthPort, Protocol: corev1.ProtocolTCP},
	}
	if r.exposesManagement(role) {
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: "management", ContainerPort: ManagementPort, Protocol: corev1.ProtocolTCP})
	}
	c.StartupProbe = probe("/livez", 1, 60)
	c.LivenessProbe = probe("/livez", 10, 3)
	c.ReadinessProbe = probe("/readyz", 5, 2)
	c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: lameDuck}}}
	pod := r.podSpec(role, c, corev1.RestartPolicyAlways)
	pod.TerminationGracePeriodSeconds = ptr.To(terminationGrace)
	for _, topology := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
		pod.TopologySpreadConstraints = append(pod.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: topology, WhenUnsatisfiable: corev1.ScheduleAnyway, // better near each other than not at all
			LabelSelector: &metav1.LabelSelector{MatchLabels: r.Selector(role)}, MatchLabelKeys: []string{appsv1.DefaultDeploymentUniqueLabelKey},
		})
	}
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: r.meta(r.ObjectName(role), role),
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(ptr.Deref(r.Replicas, 1)),
			Selector: &metav1.LabelSelector{MatchLabels: r.Selector(role)},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(0)), // the old Pod serves until its successor does
			}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: r.Labels(role), Annotations: map[string]string{AnnotationHash: r.hash(role)}},
				Spec:       pod,
			},
		},
	}
}

// DisruptionBudget of a role: nodes are drained of one Pod after the other. A single Pod is in nobody's way, nor are those that do not work.
func (r Runtime) DisruptionBudget(role Role) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: r.meta(r.ObjectName(role), role),
		Spec: policyv1.PodDisruptionBudgetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: r.Selector(role)}, MaxUnavailable: ptr.To(intstr.FromInt32(1)),
			UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
		},
	}
}

// MigrateJob brings the database up to date as its owner. Its name changes with everything that calls for another run.
func (r Runtime) MigrateJob() *batchv1.Job {
	c := r.container(Migrate, "migrate", "--config="+configDir+"/config.yaml")
	return &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: r.meta(fmt.Sprintf("%s-%s", r.ObjectName(Migrate), shortHash(r.Image, r.hash(Migrate))), Migrate),
		Spec: batchv1.JobSpec{
			BackoffLimit:          ptr.To[int32](0),
			ActiveDeadlineSeconds: ptr.To[int64](migrationDeadline),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: r.Labels(Migrate)},
				Spec:       r.podSpec(Migrate, c, corev1.RestartPolicyNever),
			},
		},
	}
}

// ArchivePod is a Pod in which `connector export` (Backup) or `connector import` (Restore) can be executed; by itself it waits, and ends after lifetime.
// It is nobody's but whoever makes it.
func (r Runtime) ArchivePod(role Role, lifetime time.Duration) *corev1.Pod {
	spec := r.podSpec(role, r.container(role, "wait"), corev1.RestartPolicyNever)
	spec.ActiveDeadlineSeconds = ptr.To(int64(lifetime.Seconds()))
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: r.ObjectName(role) + "-", Namespace: r.Namespace, Labels: r.Labels(role)},
		Spec:       spec,
	}
}

func (r Runtime) podSpec(role Role, c corev1.Container, restart corev1.RestartPolicy) corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName:           r.ObjectName(role),
		AutomountServiceAccountToken: ptr.To(false),
		EnableServiceLinks:           ptr.To(false),
		RestartPolicy:                restart,
		ImagePullSecrets:             r.PullSecrets,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](runtimeUser), RunAsGroup: ptr.To[int64](runtimeUser), FSGroup: ptr.To[int64](runtimeUser),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{c},
		Volumes: []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: r.ConfigName()}, Items: r.configItems(role),
			}}},
			{Name: "secrets", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: r.secretSources(role), DefaultMode: ptr.To[int32](0o440),
			}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("64Mi"))}}},
		},
	}
}

func (r Runtime) container(role Role, args ...string) corev1.Container {
	return corev1.Container{
		Name: string(role), Image: r.Image, ImagePullPolicy: corev1.PullIfNotPresent, Args: args,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError, // the operator shows it
		Resources:                r.resources(),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), RunAsNonRoot: ptr.To(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "config", MountPath: configDir, ReadOnly: true},
			{Name: "secrets", MountPath: secretDir, ReadOnly: true},
			{Name: "tmp", MountPath: "/tmp"},
		},
	}
}

// resources are the spec's, or what one small connector needs.
func (r Runtime) resources() corev1.ResourceRequirements {
	if len(r.Resources.Requests) > 0 || len(r.Resources.Limits) > 0 {
		return r.Resources
	}
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
	}
}

func (r Runtime) configItems(role Role) []corev1.KeyToPath {
	items := []corev1.KeyToPath{{Key: string(role) + ".yaml", Path: "config.yaml"}}
	add := func(key, pem string) {
		if pem != "" {
			items = append(items, corev1.KeyToPath{Key: key, Path: key})
		}
	}
	add(keyDatabaseCA, r.Database.CABundle)
	if role != Migrate {
		add(keyTrustCA, r.Trust.CABundle)
		add(keyVaultCA, r.Vault.CABundle)
	}
	return items
}

// secretSources gives a role its own secrets and no other's.
func (r Runtime) secretSources(role Role) []corev1.VolumeProjection {
	secret := func(name string, items ...corev1.KeyToPath) corev1.VolumeProjection {
		return corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}}
	}
	sources := []corev1.VolumeProjection{secret(r.DatabaseSecret(role), corev1.KeyToPath{Key: KeyPassword, Path: fileDatabasePassword})}
	if role == Migrate {
		return sources
	}
	for _, called := range calls(role) {
		sources = append(sources, secret(r.InternalSecret(called), corev1.KeyToPath{Key: KeyToken, Path: fileToken(called)}))
	}
	if role == ControlPlane {
		sources = append(sources, secret(r.InternalSecret(role), corev1.KeyToPath{Key: KeyManagementKey, Path: fileManagementKey}))
	}
	if name, keys := r.VaultSecret(role); name != "" {
		var items []corev1.KeyToPath
		for _, k := range keys {
			items = append(items, corev1.KeyToPath{Key: k, Path: "vault-" + k})
		}
		return append(sources, secret(name, items...))
	}
	return append(sources, corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience: r.Vault.Auth.Audience, ExpirationSeconds: ptr.To[int64](vaultTokenLifetime), Path: fileVaultToken,
	}})
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health"), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 5,
	}
}
