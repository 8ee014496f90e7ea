// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import corev1 "k8s.io/api/core/v1"

// Exposure says how the runtime is reached from outside.
type Exposure struct {
	// Hostname is the public DNS name, reachable by every participant. DIDs contain it, so it cannot change.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="hostname cannot change: every DID of this runtime contains it; create a new one and move the participants"
	Hostname string `json:"hostname"`
	// Port is the public HTTPS port when it is not 443.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="port cannot change: every DID of this runtime contains it"
	// +optional
	Port int32 `json:"port,omitempty"`
	// IngressClassName of the Ingress; empty takes the cluster's default class.
	// +optional
	IngressClassName string `json:"ingressClassName,omitempty"`
	// Annotations of the Ingress, e.g. for cert-manager.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// TLSSecretName is the Secret of the certificate; empty leaves TLS to the ingress controller's default certificate.
	// +optional
	TLSSecretName string `json:"tlsSecretName,omitempty"`
}

// Trust says which certificate authorities and addresses outgoing calls accept.
type Trust struct {
	// CABundle is PEM, added to no others: only these authorities are trusted. Empty trusts the system's.
	// +optional
	CABundle string `json:"caBundle,omitempty"`
	// AllowPrivateNetworks permits DIDs and endpoints that resolve to private addresses. Needed when participants meet on an internal network.
	// +optional
	AllowPrivateNetworks bool `json:"allowPrivateNetworks,omitempty"`
}

// DataPlane says where the backends of assets may be, from which data is read. Whatever it says, loopback, link-local (cloud metadata),
// multicast and unspecified addresses are never read from, nor are those of the runtime's own database, Vault, Kubernetes API and roles.
type DataPlane struct {
	// AllowedNetworks (CIDR), unless empty, are the only ones in which a backend may be.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.all(n, isCIDR(n))",message="allowedNetworks must be networks in CIDR notation, such as 10.20.0.0/16 or fd00:20::/32"
	// +listType=set
	// +optional
	AllowedNetworks []string `json:"allowedNetworks,omitempty"`
	// DeniedNetworks (CIDR) are those in which no backend may be, also within an allowed one.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.all(n, isCIDR(n))",message="deniedNetworks must be networks in CIDR notation, such as 10.96.0.0/12 or fd00:96::/32"
	// +listType=set
	// +optional
	DeniedNetworks []string `json:"deniedNetworks,omitempty"`
}

// PerParticipant is how much each participant may have under way at once, so that one that has much to do, or that waits for somebody who hangs, slows
// nobody but itself. What is more waits a few seconds and is then turned away with 503 and Retry-After. Raise it where a runtime has one participant.
type PerParticipant struct {
	// Connections to the database, of the 10 that each process has. Default 5.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	// +optional
	Connections int32 `json:"connections,omitempty"`
	// Requests to its protocol endpoints, its wallet and its management APIs, each, in one process. Default 64.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	Requests int32 `json:"requests,omitempty"`
	// Messages to counterparties that are being sent, by all processes together; a process sends 32 at once. Default 8.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Messages int32 `json:"messages,omitempty"`
	// Accesses to its data that one process serves. Default 128.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	Accesses int32 `json:"accesses,omitempty"`
}

// Audit says what becomes of the participants' audit records.
type Audit struct {
	// KeepBodies is how long the bodies of records are kept, such as 8760h; records themselves stay, and their chain verifies. Empty keeps all for ever.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+(h|m|s))+$') && duration(self) > duration('0s')",message="keepBodies must be a duration in hours, minutes and seconds, such as 8760h"
	// +optional
	KeepBodies string `json:"keepBodies,omitempty"`
	// Leaving are the types of records whose bodies somebody outside the cell may read; of others there is the digest. Absent: all but policy; an empty
	// list keeps all bodies inside.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Enum=participant.made;participant.changed;participant.deleted;participant.restored;profile;management;negotiation.transition;transfer.transition;agreement;policy;gate;credential;usecase.revision;data.intent;data.outcome;data.fetched;counterparty.head;audit.pruned
	// +listType=set
	// +optional
	Leaving []string `json:"leaving,omitzero"`
}

// Database is a PostgreSQL database given by address.
type Database struct {
	// +kubebuilder:validation:MinLength=1
	Host string `json:"host"`
	// +kubebuilder:default=5432
	Port int32 `json:"port,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// SSLMode as libpq spells it.
	// +kubebuilder:validation:Enum=disable;require;verify-ca;verify-full
	// +kubebuilder:default=verify-full
	SSLMode string `json:"sslMode,omitempty"`
	// CABundle is PEM of the server's certificate authority.
	// +optional
	CABundle string `json:"caBundle,omitempty"`
	// OwnerSecret has keys username and password; used for migrations, and by every role that has no Secret of its own.
	OwnerSecret corev1.LocalObjectReference `json:"ownerSecret"`
	// RoleSecrets name Secrets (keys username, password) of less privileged database roles.
	// +optional
	RoleSecrets RoleSecrets `json:"roleSecrets,omitzero"`
}

// RoleSecrets name one Secret for each role that runs apart.
type RoleSecrets struct {
	// +optional
	ControlPlane string `json:"controlPlane,omitempty"`
	// +optional
	Wallet string `json:"wallet,omitempty"`
	// +optional
	DataPlane string `json:"dataPlane,omitempty"`
	// +optional
	Issuer string `json:"issuer,omitempty"`
}

// Vault is an OpenBao or HashiCorp Vault with a KV version 2 engine, given by address.
// +kubebuilder:validation:XValidation:rule="self.auth.method != 'Token' || has(self.auth.tokenSecret)",message="auth.tokenSecret is required when auth.method is Token"
// +kubebuilder:validation:XValidation:rule="self.auth.method != 'AppRole' || has(self.auth.appRoleSecrets)",message="auth.appRoleSecrets is required when auth.method is AppRole"
type Vault struct {
	// Address is the URL of the Vault.
	// +kubebuilder:validation:Pattern=`^https?://.+`
	Address string `json:"address"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Mount is the path of the KV version 2 engine.
	// +kubebuilder:default=kv
	Mount string `json:"mount,omitempty"`
	// Prefix under the mount that belongs to this runtime.
	// +kubebuilder:validation:MinLength=1
	Prefix string `json:"prefix"`
	// CABundle is PEM of the Vault's certificate authority.
	// +optional
	CABundle string    `json:"caBundle,omitempty"`
	Auth     VaultAuth `json:"auth"`
}

// VaultAuth says how the runtime's roles log in.
type VaultAuth struct {
	// Method: Kubernetes and JWT present a service account token, of which the Vault asks the cluster (Kubernetes) or which it verifies by the
	// cluster's keys without reaching it (JWT).
	// +kubebuilder:validation:Enum=Kubernetes;JWT;Token;AppRole
	Method string `json:"method"`
	// MountPath of the auth method; empty takes the default of the method: kubernetes, jwt or approle.
	// +optional
	MountPath string `json:"mountPath,omitempty"`
	// Audience of the service account token that the Kubernetes and JWT methods present; the Vault role must name the same audience.
	// +kubebuilder:default=vault
	// +optional
	Audience string `json:"audience,omitempty"`
	// Roles of the Kubernetes or JWT auth method, one for each runtime role. An empty one is the name of the role's service account:
	// <name>-control-plane, <name>-wallet, <name>-data-plane; <name> for an issuer; <name>-backup and
	// <name>-restore for what writes and reads archives.
	// +optional
	Roles VaultRoles `json:"roles,omitzero"`
	// TokenSecret has the key token.
	// +optional
	TokenSecret *corev1.LocalObjectReference `json:"tokenSecret,omitempty"`
	// AppRoleSecrets name the Secrets (keys role-id, secret-id) of the AppRole method, one for each role, so that each has rights of its own.
	// +optional
	AppRoleSecrets *RoleSecrets `json:"appRoleSecrets,omitempty"`
}

// VaultRoles are names of Vault roles.
type VaultRoles struct {
	// +optional
	ControlPlane string `json:"controlPlane,omitempty"`
	// +optional
	Wallet string `json:"wallet,omitempty"`
	// +optional
	DataPlane string `json:"dataPlane,omitempty"`
	// +optional
	Issuer string `json:"issuer,omitempty"`
	// +optional
	Backup string `json:"backup,omitempty"`
	// Restore, with which keys of anybody can be made, needs to be there only while an archive is brought in.
	// +optional
	Restore string `json:"restore,omitempty"`
}

// Methods of logging in to the Vault.
const (
	VaultMethodKubernetes = "Kubernetes"
	VaultMethodJWT        = "JWT"
	VaultMethodToken      = "Token"
	VaultMethodAppRole    = "AppRole"
)
