// SPDX-License-Identifier: FSL-1.1-ALv2

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Types of cells.
const (
	Shared    = "shared"     // of several organizations, in the cloud's cluster
	Dedicated = "dedicated"  // of one organization, in the cloud's cluster
	OnPremise = "on-premise" // of one organization, in its own cluster, with its own PostgreSQL and Vault
)

// CellSpec describes a place where connectors run.
// +kubebuilder:validation:XValidation:rule="(self.type != 'shared') == has(self.organization)",message="a dedicated or on-premise cell names the organization that it is for, a shared cell none"
// +kubebuilder:validation:XValidation:rule="(self.type == 'dedicated') == has(self.quota)",message="a dedicated cell has a quota, a shared cell none: it takes what its participants need; nor has an on-premise cell, whose cluster is the company's"
// +kubebuilder:validation:XValidation:rule="self.type == 'dedicated' || !has(self.access)",message="access is for dedicated cells: in a shared cell it would show other organizations' connectors, and in its own cluster a company gives rights itself"
// +kubebuilder:validation:XValidation:rule="(self.type == 'on-premise') == has(self.database)",message="an on-premise cell names the company's own PostgreSQL in database; the others use the platform's and name none"
// +kubebuilder:validation:XValidation:rule="(self.type == 'on-premise') == has(self.vault)",message="an on-premise cell names the company's own Vault in vault; the others use the platform's and name none"
// +kubebuilder:validation:XValidation:rule="self.type == 'on-premise' || !has(self.ingress)",message="ingress is for on-premise cells: the others are served as the Platform's ingress says"
// +kubebuilder:validation:XValidation:rule="self.type == 'on-premise' || !has(self.agentKey)",message="agentKey is for on-premise cells: the agents of the others get their credentials from the operator"
// +kubebuilder:validation:XValidation:rule="self.type == 'on-premise' || !has(self.trust) && !has(self.images) && !has(self.imagePullSecrets)",message="trust, images and imagePullSecrets are for on-premise cells: the others have the Platform's"
// +kubebuilder:validation:XValidation:rule="self.type == 'on-premise' || !has(self.proxy)",message="proxy is for on-premise cells: the agents of the others are beside the message server"
// +kubebuilder:validation:XValidation:rule="!has(self.vault) || !has(self.vault.auth.appRoleSecrets) || has(self.vault.auth.appRoleSecrets.controlPlane) && has(self.vault.auth.appRoleSecrets.wallet) && has(self.vault.auth.appRoleSecrets.dataPlane)",message="vault.auth.appRoleSecrets must name a Secret for controlPlane, wallet and dataPlane"
type CellSpec struct {
	// Type of the cell.
	// +kubebuilder:validation:Enum=shared;dedicated;on-premise
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="type cannot change: make another cell and move the participants"
	Type string `json:"type"`
	// Organization that a dedicated or on-premise cell is for; participants of others are not placed in it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="organization cannot change: make another cell"
	// +optional
	Organization string `json:"organization,omitempty"`
	// Quota bounds what runs in a dedicated cell.
	// +optional
	Quota *CellQuota `json:"quota,omitempty"`
	// Access of the organization's own people to what runs in a dedicated cell, through the Kubernetes API. None of them reads Secrets.
	// +optional
	Access *CellAccess `json:"access,omitempty"`
	// Database is the company's own PostgreSQL, for the connector of an on-premise cell. Its Secrets are in the cell's namespace, in the company's
	// cluster; nothing of the cloud reads them.
	// +optional
	Database *edc.Database `json:"database,omitempty"`
	// Vault is the company's own, for the connector of an on-premise cell.
	// +optional
	Vault *edc.Vault `json:"vault,omitempty"`
	// Ingress says how the company's gateway serves hostname; absent, its cluster's default does.
	// +optional
	Ingress *CellIngress `json:"ingress,omitempty"`
	// Trust says which authorities and addresses the connector of an on-premise cell accepts; absent, what the Platform says, in
	// whose place it comes as a whole.
	// +optional
	Trust *edc.Trust `json:"trust,omitempty"`
	// Images of an on-premise cell, where its nodes pull them from a registry of the company's; those of the Platform where none is said. New releases
	// are then the company's to bring there, and to name here.
	// +optional
	Images CellImages `json:"images,omitzero"`
	// ImagePullSecrets are Secrets of that registry in the cell's namespace, which the company makes.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.name.size() > 0 && s.name.size() <= 248)",message="imagePullSecrets: each has the name of a Secret, of at most 248 characters"
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// Proxy is on the way of the agent of an on-premise cell to the cloud.
	// +optional
	Proxy *CellProxy `json:"proxy,omitempty"`
	// DataPlane says where the backends of the participants' assets may be.
	// +optional
	DataPlane edc.DataPlane `json:"dataPlane,omitzero"`
	// AgentKey is the public key (NATS nkey of a user) of the agent of an on-premise cell. The company makes the key and keeps it; who holds the key
	// of another value that was here before is out.
	// +kubebuilder:validation:Pattern=`^U[A-Z2-7]{55}$`
	// +optional
	AgentKey string `json:"agentKey,omitempty"`
	// Hostname of the cell's gateway; DIDs contain it.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="hostname cannot change: every DID of the cell contains it"
	Hostname string `json:"hostname"`
	// OperatingParty runs the cell.
	// +kubebuilder:validation:MinLength=1
	OperatingParty string `json:"operatingParty"`
	// Replicas of each runtime role, of each issuer and of the agent, which runs at least once. One agent works, the others stand by. 0
	// leaves nothing but the agent running, while an archive is imported.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// +optional
	Audit edc.Audit `json:"audit,omitzero"`
	// +optional
	PerParticipant edc.PerParticipant `json:"perParticipant,omitzero"`
}

// Hosts says whether participants of the organization may be placed in the cell.
func (s *CellSpec) Hosts(organization string) bool {
	return s.Organization == "" || s.Organization == organization
}

// Abandoned says that nothing waits for the agent in the company's cluster: none is admitted, as after it was uninstalled; or the cell is being deleted
// and its cluster will not come back.
func (c *Cell) Abandoned() bool {
	return c.Spec.Type == OnPremise && (c.Spec.AgentKey == "" || !c.DeletionTimestamp.IsZero() && c.Annotations[AbandonAnnotation] == "true")
}

// CellQuota bounds what runs in a cell: the agent and, for each replica, a control plane, a wallet and a data plane; while they are replaced,
// one more of each, and the migration of the database. Values are Kubernetes quantities.
// +kubebuilder:validation:XValidation:rule="!isQuantity(self.memory) || !isQuantity(self.containerMemory) || quantity(self.containerMemory).compareTo(quantity(self.memory)) <= 0",message="containerMemory is more than memory, which is for all containers"
type CellQuota struct {
	// CPU that all pods together may reserve.
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",message="cpu is no quantity above 0, such as 500m or 2"
	CPU string `json:"cpu"`
	// Memory that all pods together may use.
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",message="memory is no quantity above 0, such as 2Gi"
	Memory string `json:"memory"`
	// ContainerMemory is the most that one container may use, and what one that names no limit gets.
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",message="containerMemory is no quantity above 0, such as 512Mi"
	// +kubebuilder:default="512Mi"
	// +optional
	ContainerMemory string `json:"containerMemory,omitempty"`
	// Pods that there may be at once.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:default=20
	// +optional
	Pods int32 `json:"pods,omitempty"`
}

// CellAccess says who of the organization may do what in the namespace of its cell.
type CellAccess struct {
	// Viewers see everything that runs, its state, events and logs.
	// +optional
	Viewers CellSubjects `json:"viewers,omitzero"`
	// Operators also restart pods.
	// +optional
	Operators CellSubjects `json:"operators,omitzero"`
}

// CellSubjects are people as the authentication of the cluster calls them.
type CellSubjects struct {
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(s, !s.startsWith('system:'))",message="a group whose name starts with system: is Kubernetes' own"
	// +listType=set
	// +optional
	Groups []string `json:"groups,omitempty"`
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(s, !s.startsWith('system:'))",message="a user whose name starts with system: is Kubernetes' own"
	// +listType=set
	// +optional
	Users []string `json:"users,omitempty"`
}

// CellIngress says how the host name of an on-premise cell is served.
type CellIngress struct {
	// ClassName of the company's ingress controller; empty takes its cluster's default.
	// +optional
	ClassName string `json:"className,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// TLSSecretName is the Secret of the certificate in the cell's namespace; empty leaves TLS to the ingress controller.
	// +optional
	TLSSecretName string `json:"tlsSecretName,omitempty"`
}

// CellImages are image references.
type CellImages struct {
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Agent string `json:"agent,omitempty"`
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Connector string `json:"connector,omitempty"`
	// +kubebuilder:validation:MaxLength=512
	// +optional
	EDCOperator string `json:"edcOperator,omitempty"`
}

// CellProxy is an HTTP proxy through whose CONNECT (RFC 9110, section 9.3.6) the agent reaches the cloud's message server.
type CellProxy struct {
	// URL is http(s)://host:port, without a login.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != '' && url(self).getPort() != '' && !self.contains('@')",message="proxy.url must be http(s)://host:port; a login is for credentialsSecret"
	URL string `json:"url"`
	// CABundle is PEM of the authority of an https proxy; empty trusts the system's.
	// +optional
	CABundle CABundle `json:"caBundle,omitempty"`
	// CredentialsSecret has, in the cell's namespace and under the key credentials, user:password for the proxy; absent, it wants none. The company makes it.
	// +optional
	CredentialsSecret *SecretName `json:"credentialsSecret,omitempty"`
}

// CellStatus is what was seen.
type CellStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Namespace in which the cell's connectors run.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Revision is the newest snapshot published, AppliedRevision the one the agent has applied.
	// +optional
	Revision int64 `json:"revision,omitempty"`
	// +optional
	AppliedRevision int64 `json:"appliedRevision,omitempty"`
	// LastHeard is when the agent last reported.
	// +optional
	LastHeard *metav1.Time `json:"lastHeard,omitempty"`
	// AgentJWT admits the holder of the key spec.agentKey to the cell's NATS account. It is no secret: without that key it opens nothing.
	// +optional
	AgentJWT string `json:"agentJWT,omitempty"`
	// RotatedFor is the newest request for other credentials (annotation cloud.kaphera.io/rotate-credentials) after which the former ones open nothing.
	// +optional
	RotatedFor string `json:"rotatedFor,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Cell is a place where connectors run.
//
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$')",message="a cell's name is at most 32 lower-case letters, digits and dashes: its namespace, databases and accounts are named after it"
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Organization",type=string,JSONPath=`.spec.organization`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.hostname`
// +kubebuilder:printcolumn:name="Heard",type=date,JSONPath=`.status.lastHeard`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Cell struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              CellSpec   `json:"spec"`
	Status            CellStatus `json:"status,omitzero"`
}

// CellList is a list.
//
// +kubebuilder:object:root=true
type CellList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Cell `json:"items"`
}
