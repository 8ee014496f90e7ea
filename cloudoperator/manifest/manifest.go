// SPDX-License-Identifier: FSL-1.1-ALv2

// Package manifest has the Kubernetes objects of a cell that do not depend on whose cluster it is in: its namespace, the rights in it, and
// its agent. It talks to no cluster.
package manifest

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edcconfig "github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// AgentRole is the ClusterRole of the agent, bound in the cell's namespace.
const AgentRole = "kaphera-cell-agent"

// ViewerRole sees all that runs in a cell, and no Secret.
const ViewerRole = "kaphera-cell-viewer"

// AgentCredentials is the Secret in the cell's namespace, key CredentialsKey, with which the agent logs in at the message server.
const (
	AgentCredentials = "cell-agent-nats" // #nosec G101 -- a name
	CredentialsKey   = "agent.creds"
)

// agentIssuersRole lets the agent read the tokens of the cell's issuers, whose names a ClusterRole cannot know.
const agentIssuersRole = "kaphera-cell-agent-issuers"

// proxyCredentialsKey of the Secret with the login at the proxy.
const proxyCredentialsKey = "credentials"

const programUser int64 = 65532

// Cell is the name of a cell.
type Cell string

// Namespace of the cell.
func (c Cell) Namespace() string { return snapshot.Namespace(string(c)) }

// Meta is the metadata of an object in the cell's namespace.
func (c Cell) Meta(name string) metav1.ObjectMeta {
	l := kube.Labels(name)
	l[parts.CellLabel] = string(c)
	return metav1.ObjectMeta{Name: name, Namespace: c.Namespace(), Labels: l}
}

// Binding binds a ClusterRole in the cell's namespace.
func (c Cell) Binding(role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: c.Meta(role), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects,
	}
}

// NamespaceObject is the cell's namespace, in which pods get no privileges.
func (c Cell) NamespaceObject() *corev1.Namespace {
	labels := kube.Labels("cell")
	labels[parts.CellLabel] = string(c)
	labels["pod-security.kubernetes.io/enforce"] = "restricted"
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.Namespace(), Labels: labels}}
}

// Rights binds the roles of the agent and the EDC operator in the cell's namespace and lets nobody in to its pods but the agent: whom a
// connector serves is for the EDC operator to say, and it knows no agent. issuers are the names of the cell's CredentialIssuers.
func (c Cell) Rights(issuers []string) []client.Object {
	tokens := &rbacv1.Role{ObjectMeta: c.Meta(agentIssuersRole)}
	for _, name := range issuers { // a rule without names would open every Secret
		tokens.Rules = append(tokens.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: []string{workload.Runtime{Name: name}.InternalSecret(workload.Issuer)}})
	}
	agent := account(c.Namespace(), parts.Agent)
	bound := c.Binding(agentIssuersRole, agent)
	bound.RoleRef.Kind = "Role"
	return append(c.common(),
		c.Binding(AgentRole, agent),
		c.Binding(edcconfig.NamespaceRole, account(edcconfig.Namespace, edcconfig.ServiceAccount)),
		tokens, bound,
		c.agentTo("agent-to-issuers", workload.Issuer),
	)
}

// common is what the namespace of every cell has.
func (c Cell) common() []client.Object {
	return []client.Object{
		&corev1.ServiceAccount{ObjectMeta: c.Meta(parts.Agent), AutomountServiceAccountToken: ptr.To(false)},
		kube.NetworkPolicy(c.Meta("default-deny"), nil),
		c.agentTo("agent-to-connector", workload.ControlPlane),
	}
}

func (c Cell) agentTo(policy string, component workload.Role) client.Object {
	pods := map[string]string{workload.LabelManagedBy: workload.ManagedBy, workload.LabelComponent: string(component)}
	return kube.NetworkPolicy(c.Meta(policy), pods, kube.Ingress(workload.InternalPort, kube.Pods(kube.NameLabel, parts.Agent)))
}

func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

// Agent is how the agent of a cell runs.
type Agent struct {
	Image       string
	PullSecrets []corev1.LocalObjectReference // in the cell's namespace
	NATSURL     string                        // of the cloud's message server
	CA          []byte                        // certificates of the message server's authority, PEM; empty trusts the system's
	// Replicas of the agent, of which one works; 1 when nil, and when 0: somebody must apply the next snapshot.
	Replicas *int32
	// Credentials with which the agent logs in at the message server, as in the Secret AgentCredentials, or the public key in them; the objects carry
	// only a digest.
	Credentials []byte
	// Proxy on the way to the message server; nil is none.
	Proxy *cloud.CellProxy
}

// Deployment returns the agent's Deployment, its configuration and its disruption budget. It reads the Secret AgentCredentials, which whoever installs makes.
func (c Cell) Deployment(a Agent) []client.Object {
	labels := map[string]string{kube.NameLabel: parts.Agent, kube.PartOfLabel: kube.PartOf}
	container := corev1.Container{
		Name: "agent", Image: a.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: []string{
			"agent", "--cell=" + string(c), "--namespace=" + c.Namespace(), "--nats-url=" + a.NATSURL, "--nats-credentials=/etc/kaphera/nats/" + CredentialsKey,
		},
		Env:            []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: "110MiB"}},
		Ports:          []corev1.ContainerPort{{Name: "health", ContainerPort: 8082, Protocol: corev1.ProtocolTCP}},
		ReadinessProbe: probe("/readyz", 5), LivenessProbe: probe("/healthz", 20),
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("40Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "nats", MountPath: "/etc/kaphera/nats", ReadOnly: true}},
	}
	volumes := []corev1.Volume{{Name: "nats", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: AgentCredentials, DefaultMode: ptr.To[int32](0o440)}}}}
	authorities := map[string]string{} // read again at each connection
	trust := func(flag, file, pem string) {
		if pem != "" {
			authorities[file] = pem
			container.Args = append(container.Args, flag+"=/etc/kaphera/ca/"+file)
		}
	}
	trust("--nats-ca", "ca.crt", string(a.CA))
	if p := a.Proxy; p != nil {
		container.Args = append(container.Args, "--nats-proxy="+p.URL)
		trust("--nats-proxy-ca", "proxy-ca.crt", string(p.CABundle))
		if s := p.CredentialsSecret; s != nil {
			container.Args = append(container.Args, "--nats-proxy-credentials=/etc/kaphera/proxy/"+proxyCredentialsKey)
			container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: "proxy", MountPath: "/etc/kaphera/proxy", ReadOnly: true})
			volumes = append(volumes, corev1.Volume{Name: "proxy", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s.Name, DefaultMode: ptr.To[int32](0o440)}}})
		}
	}
	var out []client.Object
	if len(authorities) > 0 {
		out = append(out, &corev1.ConfigMap{ObjectMeta: c.Meta(parts.Agent), Data: authorities})
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: "ca", MountPath: "/etc/kaphera/ca", ReadOnly: true})
		volumes = append(volumes, corev1.Volume{Name: "ca", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: parts.Agent}, DefaultMode: ptr.To[int32](0o444),
		}}})
	}
	replicas := max(1, ptr.Deref(a.Replicas, 1))
	strategy := appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType} // a second one has nothing to do
	if replicas > 1 {
		strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
			MaxSurge: ptr.To(intstr.FromInt32(0)), MaxUnavailable: ptr.To(intstr.FromInt32(1)),
		}}
	}
	d := &appsv1.Deployment{ObjectMeta: c.Meta(parts.Agent), Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To(replicas), Strategy: strategy,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: c.Meta(parts.Agent).Labels, Annotations: map[string]string{
				"cloud.kaphera.io/config-digest": kube.Digest(a.Credentials),
			}},
			Spec: corev1.PodSpec{
				ImagePullSecrets: a.PullSecrets, ServiceAccountName: parts.Agent, AutomountServiceAccountToken: ptr.To(true), EnableServiceLinks: ptr.To(false),
				SecurityContext: &corev1.PodSecurityContext{
					RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(programUser), RunAsGroup: ptr.To(programUser), FSGroup: ptr.To(programUser),
					SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				},
				TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
					MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
					LabelSelector: &metav1.LabelSelector{MatchLabels: labels}, MatchLabelKeys: []string{appsv1.DefaultDeploymentUniqueLabelKey},
				}},
				Containers: []corev1.Container{container},
				Volumes:    volumes,
			},
		},
	}}
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: c.Meta(parts.Agent), Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels}, MaxUnavailable: ptr.To(intstr.FromInt32(1)), UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
	}}
	return append(out, d, budget)
}

func probe(path string, period int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health")}},
		PeriodSeconds: period, TimeoutSeconds: 5, FailureThreshold: 6,
	}
}
