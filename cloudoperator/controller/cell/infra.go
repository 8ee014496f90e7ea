// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/vault"
	edcconfig "github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// ClusterRoles of the installation that are bound in a cell's namespace besides the EDC operator's: the operator's own, to set the cell up,
// the agent's, and those of people.
const (
	SetupRole    = "kaphera-cell-setup"
	AgentRole    = "kaphera-cell-agent"
	ViewerRole   = "kaphera-cell-viewer"
	OperatorRole = "kaphera-cell-operator"
)

// Names in a cell's namespace.
const (
	agentName  = parts.Agent
	agentCreds = "cell-agent-nats" // #nosec G101 -- a name
	credsKey   = "agent.creds"
	// agentIssuersRole lets the agent read the tokens of the cell's issuers, whose names a ClusterRole cannot know.
	agentIssuersRole = "kaphera-cell-agent-issuers"
	seedKey          = "seed"
	issuerLabel      = "cloud.kaphera.io/issuer"
	cellLabel        = parts.CellLabel
)

// namespace makes the cell's namespace, binds the roles in it and lets nobody in to its pods: whom a connector serves is for the EDC
// operator to say, and it knows no agent.
func (r *run) namespace(ctx context.Context) error {
	labels := kube.Labels("cell")
	labels[cellLabel] = r.cell.Name
	labels["pod-security.kubernetes.io/enforce"] = "restricted"
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.ns, Labels: labels}}
	if err := r.apply(ctx, ns); err != nil {
		return err
	}
	issuers := &rbacv1.Role{ObjectMeta: r.meta(agentIssuersRole)}
	for _, i := range snapshot.Issuers(r.cell, r.profiles) { // a rule without names would open every Secret
		issuers.Rules = append(issuers.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: []string{workload.Runtime{Name: i.Issuer.Name}.InternalSecret(workload.Issuer)}})
	}
	bound := r.binding(agentIssuersRole, account(r.ns, agentName))
	bound.RoleRef.Kind = "Role"
	tenant, err := r.tenant()
	if err != nil {
		return err
	}
	return r.apply(ctx, append([]client.Object{
		r.binding(SetupRole, account(r.Access.Namespace, r.ServiceAccount)),
		&corev1.ServiceAccount{ObjectMeta: r.meta(agentName), AutomountServiceAccountToken: ptr.To(false)},
		r.binding(AgentRole, account(r.ns, agentName)),
		r.binding(edcconfig.NamespaceRole, account(edcconfig.Namespace, edcconfig.ServiceAccount)),
		kube.NetworkPolicy(r.meta("default-deny"), nil),
		issuers, bound,
		kube.NetworkPolicy(r.meta("agent-to-issuers"), map[string]string{workload.LabelManagedBy: workload.ManagedBy, workload.LabelComponent: string(workload.Issuer)},
			kube.Ingress(workload.InternalPort, kube.Pods(kube.NameLabel, agentName))),
		kube.NetworkPolicy(r.meta("agent-to-connector"), map[string]string{workload.LabelManagedBy: workload.ManagedBy, workload.LabelComponent: string(workload.ControlPlane)},
			kube.Ingress(workload.InternalPort, kube.Pods(kube.NameLabel, agentName))),
	}, tenant...)...)
}

func (r *run) meta(name string) metav1.ObjectMeta {
	l := kube.Labels(name)
	l[cellLabel] = r.cell.Name
	return metav1.ObjectMeta{Name: name, Namespace: r.ns, Labels: l}
}

func (r *run) binding(role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: r.meta(role), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects,
	}
}

func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func (r *run) apply(ctx context.Context, objects ...client.Object) error {
	for _, o := range objects {
		if err := kube.Apply(ctx, r.Access.Client, nil, o); err != nil {
			return err
		}
	}
	return nil
}

// account makes the cell's NATS account and both sides' credentials, and returns the cloud's.
func (r *run) account(ctx context.Context) (cloudCreds, agent []byte, err error) {
	data, err := r.Access.Ensure(ctx, parts.AccountSecret(r.cell.Name), map[string]kube.Make{seedKey: natsauth.NewAccountSeed})
	if err != nil {
		return nil, nil, err
	}
	seed := data[seedKey]
	if cloudCreds, err = r.credentials(ctx, r.Access.Secret(parts.SecretCellCreds), cellrpc.CredentialsKey(r.cell.Name), "cloud", seed, celllink.CloudPermissions); err != nil {
		return nil, nil, err
	}
	agentSecret := &corev1.Secret{ObjectMeta: r.meta(agentCreds)}
	if agent, err = r.credentials(ctx, agentSecret, credsKey, "agent of cell "+r.cell.Name, seed, celllink.AgentPermissions); err != nil {
		return nil, nil, err
	}
	return cloudCreds, agent, r.push(ctx, seed)
}

// push stores the account in the server once in the life of this process, and again whenever the connection into it fails.
func (r *run) push(ctx context.Context, seed []byte) error {
	if r.memo.pushed(r.cell.Name) {
		return nil
	}
	op, err := r.Access.Operator(ctx)
	if err != nil {
		return err
	}
	token, err := op.AccountJWT(natsauth.Account{Name: "cell-" + r.cell.Name, Seed: seed, Storage: celllink.Storage})
	if err != nil {
		return err
	}
	nc, err := r.Access.OpenNATSSystem(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := natsauth.Push(nc, token); err != nil {
		return fmt.Errorf("make the account of cell %s: %w", r.cell.Name, err)
	}
	r.memo.setPushed(r.cell.Name, true)
	return nil
}

// credentials returns the credentials in a key of a Secret, made anew when they are not of this account or allow something else.
func (r *run) credentials(ctx context.Context, s *corev1.Secret, key, user string, seed []byte, p natsauth.Permissions) ([]byte, error) {
	found := &corev1.Secret{}
	if err := r.Access.Reader.Get(ctx, client.ObjectKeyFromObject(s), found); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read secret %s: %w", client.ObjectKeyFromObject(s), err)
	}
	if creds := found.Data[key]; natsauth.Belongs(creds, seed, p) {
		return creds, nil
	}
	creds, err := natsauth.Credentials(seed, user, p)
	if err != nil {
		return nil, err
	}
	if found.ResourceVersion == "" {
		s.Data = map[string][]byte{key: creds}
		err = r.Access.Client.Create(ctx, s)
	} else {
		if found.Data == nil {
			found.Data = map[string][]byte{}
		}
		found.Data[key] = creds
		err = r.Access.Client.Update(ctx, found)
	}
	if err != nil {
		return nil, fmt.Errorf("write secret %s: %w", client.ObjectKeyFromObject(s), err)
	}
	return creds, nil
}

// runtimeSpec is a runtime in the cell for which databases and Vault roles are made.
type runtimeSpec struct {
	name      string // of the EDC object
	issuer    bool
	resources snapshot.Resources
}

func (r *run) runtimes() []runtimeSpec {
	out := []runtimeSpec{{name: snapshot.ConnectorName, resources: snapshot.ConnectorResources(r.cell.Name)}}
	for _, i := range snapshot.Issuers(r.cell, r.profiles) {
		out = append(out, runtimeSpec{name: i.Issuer.Name, issuer: true, resources: snapshot.IssuerResources(r.cell.Name, i.Issuer.Name)})
	}
	return out
}

// databases makes the databases, and the Secrets in the cell's namespace with which the runtimes log in.
func (r *run) databases(ctx context.Context, runtimes []runtimeSpec) error {
	db, err := r.Access.OpenPostgres(ctx)
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	for _, rt := range runtimes {
		d := postgres.Database{Name: rt.resources.Database}
		if d.Owner, err = r.databaseRole(ctx, rt, "", rt.resources.Owner); err != nil {
			return err
		}
		for _, role := range kube.SortedKeys(rt.resources.Roles) {
			made, err := r.databaseRole(ctx, rt, role, rt.resources.Roles[role])
			if err != nil {
				return err
			}
			d.Roles = append(d.Roles, made)
		}
		if err := db.Ensure(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) databaseRole(ctx context.Context, rt runtimeSpec, role, username string) (postgres.Role, error) {
	s := &corev1.Secret{ObjectMeta: r.meta(snapshot.DatabaseSecret(rt.name, role))}
	if rt.issuer {
		s.Labels[issuerLabel] = rt.name
	}
	data, err := kube.EnsureSecret(ctx, r.Access.Reader, r.Access.Client, s, map[string]kube.Make{
		parts.KeyUsername: kube.Text(username), parts.KeyPassword: kube.Password,
	})
	if err != nil {
		return postgres.Role{}, err
	}
	return postgres.Role{Name: username, Password: string(data[parts.KeyPassword])}, nil
}

var vaultAccess = map[string]vault.Access{
	snapshot.ControlPlane: vault.StoreSecrets, snapshot.Wallet: vault.UseKeys, snapshot.DataPlane: vault.ReadSecrets, snapshot.IssuerRole: vault.UseKeys,
}

// grants gives each role of each runtime its policy in the Vault, bound to the role's own service account.
func (r *run) grants(ctx context.Context, runtimes []runtimeSpec) error {
	v, err := r.Access.OpenVault(ctx)
	if err != nil {
		return err
	}
	for _, rt := range runtimes {
		for role, name := range rt.resources.Grants {
			account := rt.name + "-" + role
			if role == snapshot.IssuerRole {
				account = rt.name
			}
			policy := vault.Policy(openbao.Mount, rt.resources.Prefix, vaultAccess[role])
			if err := v.Ensure(ctx, openbao.Grant{Name: name, Policy: policy, Namespace: r.ns, ServiceAccounts: []string{account}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove takes away what databases and grants made for a runtime, secrets in the Vault included.
func (r *run) remove(ctx context.Context, rt runtimeSpec) error {
	db, err := r.Access.OpenPostgres(ctx)
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	roles := []string{rt.resources.Owner}
	for _, role := range kube.SortedKeys(rt.resources.Roles) {
		roles = append(roles, rt.resources.Roles[role])
	}
	if err := db.Drop(ctx, rt.resources.Database, roles...); err != nil {
		return err
	}
	v, err := r.Access.OpenVault(ctx)
	if err != nil {
		return err
	}
	for _, role := range kube.SortedKeys(rt.resources.Grants) {
		if err := v.Revoke(ctx, rt.resources.Grants[role]); err != nil {
			return err
		}
	}
	return v.DeleteTree(ctx, rt.resources.Prefix)
}

// formerIssuers are issuers for which something was made in this cell.
func (r *run) formerIssuers(ctx context.Context) ([]runtimeSpec, error) {
	var list corev1.SecretList
	if err := r.Access.Reader.List(ctx, &list, client.InNamespace(r.ns), client.HasLabels{issuerLabel}); err != nil {
		return nil, fmt.Errorf("list the secrets of issuers in %s: %w", r.ns, err)
	}
	seen := map[string]bool{}
	var out []runtimeSpec
	for _, s := range list.Items {
		name := s.Labels[issuerLabel]
		if !seen[name] {
			seen[name] = true
			out = append(out, runtimeSpec{name: name, issuer: true, resources: snapshot.IssuerResources(r.cell.Name, name)})
		}
	}
	return out, nil
}

// agentDeployment is the agent of the cell.
func (r *run) agentDeployment(agentCredentials, ca []byte) []client.Object {
	labels := map[string]string{kube.NameLabel: agentName, kube.PartOfLabel: kube.PartOf}
	config := &corev1.ConfigMap{ObjectMeta: r.meta(agentName), Data: map[string]string{"ca.crt": string(ca)}}
	container := corev1.Container{
		Name: "agent", Image: r.images.Agent, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: []string{
			"agent", "--cell=" + r.cell.Name, "--namespace=" + r.ns, "--nats-url=" + parts.URL("tls", parts.NATS, r.Access.Namespace, parts.PortNATS),
			"--nats-ca=/etc/kaphera/ca/ca.crt", "--nats-credentials=/etc/kaphera/nats/" + credsKey,
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
		VolumeMounts: []corev1.VolumeMount{{Name: "nats", MountPath: "/etc/kaphera/nats", ReadOnly: true}, {Name: "ca", MountPath: "/etc/kaphera/ca", ReadOnly: true}},
	}
	d := &appsv1.Deployment{ObjectMeta: r.meta(agentName), Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](1), Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: r.meta(agentName).Labels, Annotations: map[string]string{
				"cloud.kaphera.io/config-digest": kube.Digest(agentCredentials, ca),
			}},
			Spec: corev1.PodSpec{
				ServiceAccountName: agentName, AutomountServiceAccountToken: ptr.To(true), EnableServiceLinks: ptr.To(false),
				SecurityContext: &corev1.PodSecurityContext{
					RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(programUser), RunAsGroup: ptr.To(programUser), FSGroup: ptr.To(programUser),
					SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				},
				Containers: []corev1.Container{container},
				Volumes: []corev1.Volume{
					{Name: "nats", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: agentCreds, DefaultMode: ptr.To[int32](0o440)}}},
					{Name: "ca", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
						LocalObjectReference: corev1.LocalObjectReference{Name: agentName}, DefaultMode: ptr.To[int32](0o444),
					}}},
				},
			},
		},
	}}
	return []client.Object{config, d}
}

const programUser int64 = 65532

func (r *run) facts(p *cloud.Platform, ca []byte) snapshot.Facts {
	f := snapshot.Facts{
		DatabaseHost: parts.Host(parts.PostgreSQL, r.Access.Namespace), DatabasePort: parts.PortPostgreSQL, DatabaseCA: string(ca),
		VaultAddress: parts.URL("https", parts.OpenBao, r.Access.Namespace, parts.PortOpenBao), VaultCA: string(ca),
		VaultMount: openbao.Mount, VaultAuth: openbao.AuthMount, VaultAudience: openbao.Audience, Image: r.images.Connector, Ingress: p.Spec.Ingress,
	}
	f.Trust.CABundle, f.Trust.AllowPrivateNetworks = p.Spec.CABundle, p.Spec.AllowPrivateNetworks
	return f
}
