// SPDX-License-Identifier: Apache-2.0

// Package workload builds the Kubernetes objects that run a connector image: configuration, service accounts, the migration Job,
// Deployments, Services and the Ingress. Its functions are pure: what they are given decides what they return. What talks to the
// cluster lives in edcoperator/controller.
package workload

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Role is a role of the connector image, as its --roles flag spells it.
type Role string

// Roles that run apart; the migration, which runs before them as the database's owner; and what writes and reads archives, as the owner too: the operator
// prepares its account and configuration, and runs none.
const (
	ControlPlane Role = "control-plane"
	Wallet       Role = "wallet"
	DataPlane    Role = "data-plane"
	Issuer       Role = "issuer"
	Migrate      Role = "migrate"
	Backup       Role = "backup"
	Restore      Role = "restore"
)

// Labels of everything that the operator makes.
const (
	LabelName      = "app.kubernetes.io/name"
	LabelInstance  = "app.kubernetes.io/instance"
	LabelComponent = "app.kubernetes.io/component"
	LabelPartOf    = "app.kubernetes.io/part-of"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of LabelManagedBy, and of LabelName on the operator's own Pods.
	ManagedBy = "edc-operator"
	// AnnotationHash changes when a Pod must be replaced: its configuration or a Secret it reads has changed.
	AnnotationHash = "edc.kaphera.io/config-hash"
)

// Keys of the Secrets that are read or made.
const (
	KeyUsername      = "username"
	KeyPassword      = "password"
	KeyToken         = "token"
	KeyRoleID        = "role-id"
	KeySecretID      = "secret-id"
	KeyManagementKey = "management-key"
)

// Ports of a container; a Service has 80 for the public one.
const (
	PublicPort   = 8080
	InternalPort = 8081
	HealthPort   = 8082
	// ManagementPort serves the EDC Management API alone, where it has a host name of its own.
	ManagementPort = 8083
)

// Credentials are what a role connects with. They are never written into an object: User goes into the configuration, the rest
// only into the keyed hash that replaces Pods when it changes.
type Credentials struct {
	User, Password string
}

// Runtime is what the objects are built from: one Connector or one CredentialIssuer.
type Runtime struct {
	Name, Namespace string
	// App is the value of LabelName: connector or credential-issuer.
	App         string
	Owner       metav1.OwnerReference
	Image       string
	PullSecrets []corev1.LocalObjectReference
	Roles       []Role
	Exposure    v1alpha1.Exposure
	// FurtherHosts of participants; none for an issuer service.
	FurtherHosts []v1alpha1.FurtherHost
	Trust        v1alpha1.Trust
	Database     v1alpha1.Database
	Vault        v1alpha1.Vault
	DataPlane    v1alpha1.DataPlane
	Management   v1alpha1.Management
	Audit        v1alpha1.Audit
	// PerParticipant is zero for an issuer service, which has the defaults.
	PerParticipant v1alpha1.PerParticipant
	Replicas       *int32
	Resources      corev1.ResourceRequirements

	// Accounts are the database accounts by role; Migrate's is the owner's. Filled from Secrets before objects are built.
	Accounts map[Role]Credentials
	// VaultLogins are the contents of the Secrets that VaultSecret names, by role.
	VaultLogins map[Role]string
	// Tokens open the roles' internal APIs, and ManagementKey the EDC Management API: the contents of the Secrets InternalSecret.
	Tokens        map[Role]string
	ManagementKey string
	// ArchiveLogin is the Secret, of the form of the roles', with which what writes and reads archives logs in to the Vault by AppRole, or by a token
	// of its own.
	ArchiveLogin string
	// OperatorNamespace is where the operator's own Pods run; empty when it runs outside the cluster.
	OperatorNamespace string
	// APIServers are the addresses behind the Kubernetes API's Service, which no Pod of a runtime has business with.
	APIServers []netip.AddrPort
}

// Connector is what a Connector's objects are built from; image is used when the spec names none.
func Connector(c *v1alpha1.Connector, image string) Runtime {
	return Runtime{
		Name: c.Name, Namespace: c.Namespace, App: "connector", Image: cmp.Or(c.Spec.Image, image), PullSecrets: c.Spec.ImagePullSecrets,
		Owner:    *metav1.NewControllerRef(c, v1alpha1.GroupVersion.WithKind("Connector")),
		Roles:    []Role{ControlPlane, Wallet, DataPlane},
		Exposure: c.Spec.Exposure, FurtherHosts: c.Spec.FurtherHosts, Trust: c.Spec.Trust, Database: c.Spec.Database, Vault: c.Spec.Vault, DataPlane: c.Spec.DataPlane, Management: c.Spec.Management, Audit: c.Spec.Audit, PerParticipant: c.Spec.PerParticipant,
		Replicas: c.Spec.Replicas, Resources: c.Spec.Resources,
	}
}

// CredentialIssuer is what a CredentialIssuer's objects are built from; image is used when the spec names none.
func CredentialIssuer(i *v1alpha1.CredentialIssuer, image string) Runtime {
	return Runtime{
		Name: i.Name, Namespace: i.Namespace, App: "credential-issuer", Image: cmp.Or(i.Spec.Image, image), PullSecrets: i.Spec.ImagePullSecrets,
		Owner:    *metav1.NewControllerRef(i, v1alpha1.GroupVersion.WithKind("CredentialIssuer")),
		Roles:    []Role{Issuer},
		Exposure: i.Spec.Exposure, Trust: i.Spec.Trust, Database: i.Spec.Database, Vault: i.Spec.Vault,
		Replicas: i.Spec.Replicas, Resources: i.Spec.Resources,
	}
}

// archives says whether a role writes or reads archives.
func archives(role Role) bool { return role == Backup || role == Restore }

// account is the database account of a role.
func (r Runtime) account(role Role) Credentials {
	if archives(role) {
		role = Migrate
	}
	return r.Accounts[role]
}

// ObjectName is the name of a role's Deployment, Service and ServiceAccount.
func (r Runtime) ObjectName(role Role) string {
	if role == Issuer {
		return r.Name
	}
	return r.Name + "-" + string(role)
}

// InternalSecret is the name of the Secret with the token of a role's internal API; in the control plane's is the management API's key, too.
func (r Runtime) InternalSecret(role Role) string {
	if role == ControlPlane {
		return r.Name + "-internal"
	}
	return r.ObjectName(role) + "-internal"
}

// calls are the roles whose internal APIs a role has the token of, its own first. The data plane asks the control plane with its own.
func calls(role Role) []Role {
	if role == ControlPlane {
		return []Role{ControlPlane, Wallet, DataPlane}
	}
	if archives(role) {
		return nil
	}
	return []Role{role}
}

// ConfigName is the name of the ConfigMap.
func (r Runtime) ConfigName() string { return r.Name + "-config" }

// VaultSecret is the name of the Secret with which a role logs in to the Vault, and its keys; none where a service account token does.
func (r Runtime) VaultSecret(role Role) (name string, keys []string) {
	var archive string
	if archives(role) {
		archive = r.ArchiveLogin
	}
	switch a := r.Vault.Auth; a.Method {
	case v1alpha1.VaultMethodToken:
		return cmp.Or(archive, a.TokenSecret.Name), []string{KeyToken}
	case v1alpha1.VaultMethodAppRole:
		return cmp.Or(archive, ofRole(*a.AppRoleSecrets, role)), []string{KeyRoleID, KeySecretID}
	}
	return "", nil
}

func ofRole(s v1alpha1.RoleSecrets, role Role) string {
	return map[Role]string{ControlPlane: s.ControlPlane, Wallet: s.Wallet, DataPlane: s.DataPlane, Issuer: s.Issuer}[role]
}

// DatabaseSecret is the name of the Secret that a role's database account comes from.
func (r Runtime) DatabaseSecret(role Role) string {
	if own := ofRole(r.Database.RoleSecrets, role); own != "" {
		return own
	}
	return r.Database.OwnerSecret.Name
}

// InternalURL is the address of a role's internal API inside the cluster.
func (r Runtime) InternalURL(role Role) string {
	return fmt.Sprintf("http://%s.%s.svc:%d", r.ObjectName(role), r.Namespace, InternalPort)
}

// PublicURL is the base of everything public.
func PublicURL(e v1alpha1.Exposure) string { return "https://" + authority(e) }

// DID is the identifier of a context: did:web:<host>[%3A<port>]:<context> (did:web method, §3.2).
func DID(e v1alpha1.Exposure, id string) string {
	return "did:web:" + strings.ReplaceAll(authority(e), ":", "%3A") + ":" + id
}

// DIDURL is where the DID document of a context is published.
func DIDURL(e v1alpha1.Exposure, id string) string {
	return PublicURL(e) + "/" + id + "/did.json"
}

// ProtocolURL is the DSP base of a context.
func ProtocolURL(e v1alpha1.Exposure, id string) string {
	return PublicURL(e) + "/" + id + "/dsp/2025-1"
}

func authority(e v1alpha1.Exposure) string {
	if e.Port == 0 || e.Port == 443 {
		return e.Hostname
	}
	return fmt.Sprintf("%s:%d", e.Hostname, e.Port)
}

// Labels of an object; role is empty for what belongs to all roles.
func (r Runtime) Labels(role Role) map[string]string {
	l := map[string]string{LabelName: r.App, LabelInstance: r.Name, LabelPartOf: "kaphera", LabelManagedBy: ManagedBy}
	if role != "" {
		l[LabelComponent] = string(role)
	}
	return l
}

// Selector picks the Pods of a role; it never changes.
func (r Runtime) Selector(role Role) map[string]string {
	return map[string]string{LabelName: r.App, LabelInstance: r.Name, LabelComponent: string(role)}
}

func (r Runtime) meta(name string, role Role) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: r.Namespace, Labels: r.Labels(role), OwnerReferences: []metav1.OwnerReference{r.Owner}}
}

// hash is keyed with an internal token, so that it tells nothing of the secrets that go into it.
func (r Runtime) hash(role Role) string {
	h := hmac.New(sha256.New, []byte(r.Tokens[r.Roles[0]]))
	account := r.Accounts[role]
	parts := []string{r.configFile(role), r.Database.CABundle, account.User, account.Password}
	if role != Migrate {
		parts = append(parts, r.Trust.CABundle, r.Vault.CABundle, r.VaultLogins[role])
		for _, called := range calls(role) {
			parts = append(parts, r.Tokens[called])
		}
	}
	if role == ControlPlane {
		parts = append(parts, r.ManagementKey)
	}
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
