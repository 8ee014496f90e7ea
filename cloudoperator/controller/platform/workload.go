// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"cmp"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
)

// user that every part runs as; images need not know it.
const user int64 = 10001

// digestAnnotation restarts the pods when what they mount has changed.
const digestAnnotation = "cloud.kaphera.io/config-digest"

// workload is a part's pod in the terms that differ between parts.
type workload struct {
	name           string
	namespace      string
	image          string
	pullSecrets    []corev1.LocalObjectReference
	serviceAccount string // empty: none, no token
	user           int64
	command, args  []string
	env            []corev1.EnvVar
	ports          map[string]int32
	ready          corev1.ProbeHandler
	live           corev1.ProbeHandler
	startSeconds   int32 // how long it may take to start
	mounts         []corev1.VolumeMount
	volumes        []corev1.Volume
	init           []corev1.Container
	requests       corev1.ResourceList
	memoryLimit    string
	digest         string
	grace          int64
}

func (w workload) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: w.name, Namespace: w.namespace, Labels: kube.Labels(w.name)}
}

func (w workload) selector() map[string]string {
	return map[string]string{kube.NameLabel: w.name, kube.PartOfLabel: kube.PartOf}
}

func (w workload) template() corev1.PodTemplateSpec {
	security := &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	uid := w.user
	if uid == 0 {
		uid = user
	}
	c := corev1.Container{
		Name: w.name, Image: w.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: w.command, Args: w.args, Env: w.env,
		SecurityContext: security,
		Resources:       corev1.ResourceRequirements{Requests: w.requests, Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(w.memoryLimit)}},
		VolumeMounts:    append([]corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}, {Name: "run", MountPath: "/run"}}, w.mounts...),
		StartupProbe:    &corev1.Probe{ProbeHandler: w.ready, PeriodSeconds: 1, TimeoutSeconds: 3, FailureThreshold: w.startSeconds},
		ReadinessProbe:  &corev1.Probe{ProbeHandler: w.ready, PeriodSeconds: 10, TimeoutSeconds: 5, FailureThreshold: 3},
		LivenessProbe:   &corev1.Probe{ProbeHandler: w.live, PeriodSeconds: 20, TimeoutSeconds: 10, FailureThreshold: 6},
	}
	for _, n := range kube.SortedKeys(w.ports) {
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: n, ContainerPort: w.ports[n], Protocol: corev1.ProtocolTCP})
	}
	for i := range w.init {
		w.init[i].SecurityContext = security
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: kube.Labels(w.name), Annotations: map[string]string{digestAnnotation: w.digest}},
		Spec: corev1.PodSpec{
			ImagePullSecrets: w.pullSecrets, ServiceAccountName: w.serviceAccount, AutomountServiceAccountToken: ptr.To(w.serviceAccount != ""), EnableServiceLinks: ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To(w.grace),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(uid), RunAsGroup: ptr.To(uid), FSGroup: ptr.To(uid),
				FSGroupChangePolicy: ptr.To(corev1.FSGroupChangeOnRootMismatch),
				SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			InitContainers: w.init, Containers: []corev1.Container{c},
			Volumes: append([]corev1.Volume{emptyDir("tmp"), emptyDir("run")}, w.volumes...),
		},
	}
}

// volume is the size and class of a part's; an empty size is 1Gi.
type volume struct {
	size  string
	class *string
}

func (w workload) statefulSet(data volume, mountPath string) (*appsv1.StatefulSet, error) {
	data.size = cmp.Or(data.size, "1Gi")
	quantity, err := resource.ParseQuantity(data.size)
	if err != nil {
		return nil, &invalidError{path: "$.spec." + specName(w.name) + ".storageSize", value: data.size, what: "is not a quantity such as 1Gi"}
	}
	w.mounts = append(w.mounts, corev1.VolumeMount{Name: "data", MountPath: mountPath})
	return &appsv1.StatefulSet{
		ObjectMeta: w.meta(),
		Spec: appsv1.StatefulSetSpec{
			ServiceName: w.name, Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: w.selector()}, Template: w.template(),
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
				ObjectMeta: metav1.ObjectMeta{Name: "data", Labels: kube.Labels(w.name)},
				Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: data.class,
					Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: quantity}},
				},
			}},
		},
	}, nil
}

func (w workload) deployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: w.meta(),
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: w.selector()}, Template: w.template(),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(0)),
			}},
		},
	}
}

func (w workload) service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: w.meta(), Spec: corev1.ServiceSpec{Selector: w.selector()}}
	for _, n := range kube.SortedKeys(w.ports) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: n, Port: w.ports[n], TargetPort: intstr.FromString(n), Protocol: corev1.ProtocolTCP})
	}
	return s
}

func emptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

// secretVolume mounts keys of a Secret readable by owner and group only; none mounts all.
func secretVolume(name, secret string, keys ...string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: secret, DefaultMode: ptr.To[int32](0o440), Items: items(keys),
	}}}
}

func configVolume(name, config string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: config}, DefaultMode: ptr.To[int32](0o444),
	}}}
}

func items(keys []string) []corev1.KeyToPath {
	var out []corev1.KeyToPath
	for _, k := range keys {
		out = append(out, corev1.KeyToPath{Key: k, Path: k})
	}
	return out
}

func mount(volume, path string) corev1.VolumeMount {
	return corev1.VolumeMount{Name: volume, MountPath: path, ReadOnly: true}
}

func httpProbe(scheme corev1.URIScheme, port int32, path string) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: scheme, Port: intstr.FromInt32(port), Path: path}}
}

func tcpProbe(port int32) corev1.ProbeHandler {
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}
}

func requests(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}
