// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlatformSpec describes one Kaphera cloud. There is one Platform in a namespace. Each part that it needs is made and run by the operator, unless the part's
// external says where one is that somebody else runs.
//
// +kubebuilder:validation:XValidation:rule="(has(self.postgresql) && has(self.postgresql.external)) == (has(oldSelf.postgresql) && has(oldSelf.postgresql.external))",message="postgresql cannot change between managed and external: what it holds would stay behind; delete the Platform, which keeps its volumes unless dataPolicy is Delete, move the data, and create it again"
// +kubebuilder:validation:XValidation:rule="(has(self.vault) && has(self.vault.external)) == (has(oldSelf.vault) && has(oldSelf.vault.external))",message="vault cannot change between managed and external: what it holds would stay behind; delete the Platform, which keeps its volumes unless dataPolicy is Delete, move the data, and create it again"
// +kubebuilder:validation:XValidation:rule="(has(self.nats) && has(self.nats.external)) == (has(oldSelf.nats) && has(oldSelf.nats.external))",message="nats cannot change between managed and external: what it holds would stay behind; delete the Platform, which keeps its volumes unless dataPolicy is Delete, move the data, and create it again"
// +kubebuilder:validation:XValidation:rule="(has(self.keycloak) && has(self.keycloak.external)) == (has(oldSelf.keycloak) && has(oldSelf.keycloak.external))",message="keycloak cannot change between managed and external: what it holds would stay behind; delete the Platform, which keeps its volumes unless dataPolicy is Delete, move the data, and create it again"
type PlatformSpec struct {
	// Domain is the base of the platform's host names: console.<domain>, api.<domain>, id.<domain>, nats.<domain>.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="domain cannot change: identities and log-ins contain it"
	Domain string `json:"domain"`
	// +optional
	Ingress PlatformIngress `json:"ingress,omitzero"`
	// CABundle is PEM of the authority that signed the gateway's certificates; empty trusts the system's.
	// +optional
	CABundle string `json:"caBundle,omitempty"`
	// AllowPrivateNetworks permits participants on private addresses, in every managed cell.
	// +optional
	AllowPrivateNetworks bool `json:"allowPrivateNetworks,omitempty"`
	// Images override the defaults that the operator was started with.
	// +optional
	Images PlatformImages `json:"images,omitzero"`
	// ImagePullSecrets are Secrets of a private registry in the Platform's namespace, with which nodes pull the images. The operator copies them into the
	// namespaces of shared and dedicated cells.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.name.size() > 0 && s.name.size() <= 248)",message="imagePullSecrets: each has the name of a Secret, of at most 248 characters"
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// +optional
	PostgreSQL PostgreSQLPart `json:"postgresql,omitzero"`
	// +optional
	Vault VaultPart `json:"vault,omitzero"`
	// +optional
	NATS NATSPart `json:"nats,omitzero"`
	// +optional
	Keycloak KeycloakPart `json:"keycloak,omitzero"`
	// Cloud is the Cloud API with the console.
	// +optional
	Cloud CloudPart `json:"cloud,omitzero"`
	// People get a log-in with an initial password in Secret "people".
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=username
	// +optional
	People []Person `json:"people,omitempty"`
	// DataPolicy says what happens to volumes, keys and passwords when the Platform is deleted: Retain keeps them, so that a Platform of
	// the same name in the same namespace finds its data again; Delete removes them.
	// +kubebuilder:validation:Enum=Retain;Delete
	// +kubebuilder:default=Retain
	// +optional
	DataPolicy string `json:"dataPolicy,omitempty"`
}

// PlatformIngress says how the platform's host names are served.
type PlatformIngress struct {
	// +optional
	ClassName string `json:"className,omitempty"`
	// ControllerNamespace is where the ingress controller's pods run; agents outside the cluster reach NATS only through them. Empty lets no pod in,
	// which is right for a controller on the nodes' network.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	ControllerNamespace string `json:"controllerNamespace,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// TLSSecretName for all host names; empty leaves it to the ingress controller.
	// +optional
	TLSSecretName string `json:"tlsSecretName,omitempty"`
}

// PlatformImages are image references.
type PlatformImages struct {
	// +optional
	PostgreSQL string `json:"postgresql,omitempty"`
	// +optional
	OpenBao string `json:"openbao,omitempty"`
	// +optional
	NATS string `json:"nats,omitempty"`
	// +optional
	Keycloak string `json:"keycloak,omitempty"`
	// +optional
	Cloud string `json:"cloud,omitempty"`
	// +optional
	Agent string `json:"agent,omitempty"`
	// +optional
	Connector string `json:"connector,omitempty"`
	// EDCOperator of on-premise cells; in the cloud's cluster it is installed beside the Platform.
	// +optional
	EDCOperator string `json:"edcOperator,omitempty"`
}

// PostgreSQLPart is the PostgreSQL of the platform and its cells.
type PostgreSQLPart struct {
	// StorageSize of the persistent volume, where the operator runs it.
	// +kubebuilder:default="1Gi"
	// +optional
	StorageSize string `json:"storageSize,omitempty"`
	// StorageClassName; empty takes the cluster's default.
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// External says where one is that somebody else runs.
	// +optional
	External *ExternalPostgreSQL `json:"external,omitempty"`
}

// ExternalPostgreSQL is a server, version 15 or newer, that somebody else runs; TLS is required.
type ExternalPostgreSQL struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:default=5432
	// +optional
	Port int32 `json:"port,omitempty"`
	// Database that the operator connects to. It makes others, and changes nothing in this one.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:default=postgres
	// +optional
	Database string `json:"database,omitempty"`
	// CABundle is PEM of the authority that signed the server's certificate; empty trusts the system's.
	// +optional
	CABundle CABundle `json:"caBundle,omitempty"`
	// CredentialsSecret names the Secret (keys username, password) of an account with CREATEDB and CREATEROLE.
	CredentialsSecret SecretName `json:"credentialsSecret"`
}

// VaultPart is the OpenBao or Vault of the platform's cells.
type VaultPart struct {
	// StorageSize of the persistent volume, where the operator runs it.
	// +kubebuilder:default="1Gi"
	// +optional
	StorageSize string `json:"storageSize,omitempty"`
	// StorageClassName; empty takes the cluster's default.
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// External says where one is that somebody else runs.
	// +optional
	External *ExternalVault `json:"external,omitempty"`
}

// ExternalVault is an OpenBao or HashiCorp Vault that somebody else runs.
type ExternalVault struct {
	// Address is the URL of the Vault, for the operator and for connectors.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHost() != ''",message="address must be an https URL such as https://vault.example:8200"
	Address string `json:"address"`
	// Namespace of the Vault; empty is its root namespace, or that it has none.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Mount is the path of a KV version 2 engine, in which cells use what is below cells/.
	// +kubebuilder:validation:Pattern=`^[^/]+(/[^/]+)*$`
	// +kubebuilder:default=kv
	// +optional
	Mount string `json:"mount,omitempty"`
	// CABundle is PEM of the authority that signed the Vault's certificate; empty trusts the system's.
	// +optional
	CABundle CABundle `json:"caBundle,omitempty"`
	// Auth is how the operator logs in.
	Auth ExternalVaultAuth `json:"auth"`
	// Connectors says by which auth method connectors log in, in which the operator makes a role for each; it must believe the service accounts of this cluster.
	// +kubebuilder:default={method: Kubernetes}
	// +optional
	Connectors ConnectorsVaultAuth `json:"connectors,omitzero"`
}

// ExternalVaultAuth is a login; of the methods Kubernetes and JWT with the operator's service account token, whose audience is vault.
// +kubebuilder:validation:XValidation:rule="self.method in ['Kubernetes', 'JWT'] ? !has(self.credentialsSecret) : has(self.credentialsSecret) && !has(self.role)",message="the methods Kubernetes and JWT take a role (cloud-operator where none is said), Token and AppRole a credentialsSecret"
type ExternalVaultAuth struct {
	// +kubebuilder:validation:Enum=Kubernetes;JWT;Token;AppRole
	Method string `json:"method"`
	// MountPath of the auth method; empty takes the default of the method: kubernetes, jwt or approle.
	// +kubebuilder:validation:Pattern=`^([^/]+(/[^/]+)*)?$`
	// +optional
	MountPath string `json:"mountPath,omitempty"`
	// Role of the methods Kubernetes and JWT; empty is cloud-operator.
	// +optional
	Role string `json:"role,omitempty"`
	// CredentialsSecret has the key token of the method Token, role-id and secret-id of the method AppRole.
	// +optional
	CredentialsSecret *SecretName `json:"credentialsSecret,omitempty"`
}

// ConnectorsVaultAuth is an auth method of a Vault.
type ConnectorsVaultAuth struct {
	// +kubebuilder:validation:Enum=Kubernetes;JWT
	Method string `json:"method"`
	// MountPath of the auth method; empty takes the default of the method: kubernetes or jwt.
	// +kubebuilder:validation:Pattern=`^([^/]+(/[^/]+)*)?$`
	// +optional
	MountPath string `json:"mountPath,omitempty"`
}

// NATSPart is the message server between the cloud and its cells.
type NATSPart struct {
	// StorageSize of the persistent volume, where the operator runs it.
	// +kubebuilder:default="1Gi"
	// +optional
	StorageSize string `json:"storageSize,omitempty"`
	// StorageClassName; empty takes the cluster's default.
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// External says where one is that somebody else runs.
	// +optional
	External *ExternalNATS `json:"external,omitempty"`
}

// ExternalNATS is a NATS server, or a cluster of them, that somebody else runs: in operator mode, with JetStream, an account resolver of type full that
// allows deletion, and a max_payload of 4 MB.
type ExternalNATS struct {
	// URL for the operator, the Cloud API and the agents of cells, such as tls://nats.example:4222.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'tls' && url(self).getHost() != ''",message="url must be such as tls://nats.example:4222"
	URL string `json:"url"`
	// CABundle is PEM of the authority that signed the server's certificate; empty trusts the system's.
	// +optional
	CABundle CABundle `json:"caBundle,omitempty"`
	// CredentialsSecret names the Secret with operator.seed, the seed of the operator's key or of one of its signing keys, and system.creds, the credentials
	// file of a user of the system account.
	CredentialsSecret SecretName `json:"credentialsSecret"`
}

// KeycloakPart is where people and programs log in.
type KeycloakPart struct {
	// External says where one is that somebody else runs. One that the operator runs keeps its data in PostgreSQL.
	// +optional
	External *ExternalKeycloak `json:"external,omitempty"`
}

// ExternalKeycloak is a realm of a Keycloak server that somebody else runs. The operator makes clients, their roles and a client scope in it, marked by the
// attribute kaphera.platform, and touches nothing else: people of the Platform must be there already.
type ExternalKeycloak struct {
	// URL by which people and programs reach the server, up to /realms, such as https://sso.example or https://sso.example/auth.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHost() != ''",message="url must be such as https://sso.example"
	URL string `json:"url"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self != 'master'",message="realm master has the administrators of all realms: choose another"
	Realm string `json:"realm"`
	// CABundle is PEM of the authority that signed the server's certificate; empty trusts the system's.
	// +optional
	CABundle CABundle `json:"caBundle,omitempty"`
	// CredentialsSecret names the Secret with client-id and client-secret of a confidential client of the realm, whose service account has the roles
	// manage-clients and manage-users of client realm-management.
	CredentialsSecret SecretName `json:"credentialsSecret"`
}

// CABundle is PEM of certificate authorities.
// +kubebuilder:validation:MaxLength=262144
// +kubebuilder:validation:XValidation:rule="self.size() == 0 || self.contains('-----BEGIN CERTIFICATE-----')",message="caBundle must be certificates in PEM"
type CABundle string

// SecretName refers to a Secret, in the namespace of what names it.
type SecretName struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// CloudPart says how the Cloud API and the console run.
type CloudPart struct {
	// Replicas; 1 when empty. With 2 or more a node that dies does not take them along.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
}

// Person is somebody who may log in.
type Person struct {
	// +kubebuilder:validation:Pattern=`^[a-z0-9][-a-z0-9.]*$`
	Username  string `json:"username"`
	FirstName string `json:"firstName,omitempty"`
	LastName  string `json:"lastName,omitempty"`
	Email     string `json:"email,omitempty"`
	// +kubebuilder:validation:items:Enum=platform-operator;governance-authority;organization-admin;viewer
	Roles []string `json:"roles"`
	// Organization whose participants the organization roles concern.
	// +optional
	Organization string `json:"organization,omitempty"`
}

// PlatformStatus is what was seen.
type PlatformStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	ConsoleURL string `json:"consoleURL,omitempty"`
	// +optional
	APIURL string `json:"apiURL,omitempty"`
	// +optional
	IssuerURL string `json:"issuerURL,omitempty"`
	// Images in use: those of the spec, and the operator's own for the rest.
	// +optional
	Images PlatformImages `json:"images,omitzero"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Platform is a Kaphera cloud: PostgreSQL, Vault, NATS, Keycloak, the Cloud API and the console.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="PostgreSQL",type=string,JSONPath=`.status.conditions[?(@.type=="PostgreSQLReady")].status`
// +kubebuilder:printcolumn:name="Vault",type=string,JSONPath=`.status.conditions[?(@.type=="VaultReady")].status`
// +kubebuilder:printcolumn:name="NATS",type=string,JSONPath=`.status.conditions[?(@.type=="NATSReady")].status`
// +kubebuilder:printcolumn:name="Keycloak",type=string,JSONPath=`.status.conditions[?(@.type=="KeycloakReady")].status`
// +kubebuilder:printcolumn:name="Console",type=string,JSONPath=`.status.consoleURL`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Platform struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PlatformSpec   `json:"spec"`
	Status            PlatformStatus `json:"status,omitzero"`
}

// PlatformList is a list.
//
// +kubebuilder:object:root=true
type PlatformList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Platform `json:"items"`
}
