// SPDX-License-Identifier: FSL-1.1-ALv2

// Package parts knows the platform's parts by name: their Services, Secrets and how the operator reaches them. The platform controller
// brings them up; the cell controller uses them. It decides nothing.
package parts

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/cloudoperator/keycloak"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Names of Services, and of the Deployments and StatefulSets behind them.
const (
	PostgreSQL = "postgresql"
	OpenBao    = "openbao"
	NATS       = "nats"
	Keycloak   = "keycloak"
	Cloud      = "kaphera-cloud"
)

// Names of the operator's pods, of those of cells' agents, and the label of a cell's namespace and of what is made in it.
const (
	Operator  = "cloud-operator"
	Agent     = "kaphera-cell-agent"
	CellLabel = "cloud.kaphera.io/cell"
)

// Names of Secrets and ConfigMaps in the platform's namespace.
const (
	SecretCA             = "internal-ca"              // tls.crt, tls.key of the internal authority; of the one that is to sign next, and the certificate of the one that did before
	ConfigCA             = "internal-ca"              // ca.crt, for whoever connects to a part
	ConfigLogOuts        = "kaphera-console-log-outs" // who has logged out, which the replicas of the console tell each other
	SecretPostgreSQL     = "postgresql-admin"         //nolint:gosec // name of the Secret with the superuser's password
	SecretUnseal         = "openbao-unseal"           // key with which OpenBao unseals itself
	SecretNATS           = "nats-operator"            // operator.seed, system.seed, operator.jwt, system.jwt, system.creds
	SecretKeycloak       = "keycloak-admin"           // client-secret of the operator's own client
	SecretClients        = "oidc-clients"             // secrets of the confidential OIDC clients, by client id
	SecretPeople         = "people"                   // initial passwords, by user name
	SecretCellCreds      = cellrpc.CredentialsSecret
	KeyNextCert          = "next.crt"
	KeyNextKey           = "next.key"
	KeyFormerCert        = "former.crt"
	KeyRotation          = "rotation" // the request (cloud.RotateAuthorityAnnotation) that was answered last
	KeyPassword          = "password"
	KeyUsername          = "username"
	KeyOperatorSeed      = "operator.seed"
	KeySystemSeed        = "system.seed"
	KeyOperatorJWT       = "operator.jwt"
	KeySystemJWT         = "system.jwt"
	KeySystemCredentials = "system.creds"
	KeyClientID          = "client-id"
	KeyClientSecret      = "client-secret" // #nosec G101 -- a name
)

// Superuser of the managed PostgreSQL.
const Superuser = "postgres"

// TLSSecret is the Secret of a part's server certificate.
func TLSSecret(part string) string { return part + "-tls" }

// DatabaseSecret holds username and password of a database of the platform's own.
func DatabaseSecret(database string) string { return "database-" + database }

// AccountSecret holds the seed of a cell's NATS account, key seed.
func AccountSecret(cell string) string { return "nats-account-" + cell }

// Ports of the Services.
const (
	PortPostgreSQL = 5432
	PortOpenBao    = 8200
	PortNATS       = 4222
	PortWebSocket  = 8080 // of NATS
	PortKeycloak   = 8443
)

// AgentNATS is where agents outside the cluster reach the message server, and whom they trust for it, PEM: the gateway, or a server that somebody else runs.
func AgentNATS(p *cloud.Platform) (url string, ca []byte) {
	if e, ok := external(p, NATS); ok {
		return e.URL, e.CA
	}
	return "wss://" + NATSHost(p), []byte(p.Spec.CABundle)
}

// NATSHost is where agents outside the cluster reach the message server, by WebSocket on the port of HTTPS.
func NATSHost(p *cloud.Platform) string { return NATS + "." + p.Spec.Domain }

// Host is the cluster-internal name of a part.
func Host(part, namespace string) string { return part + "." + namespace + ".svc" }

// Access reaches the parts as an administrator.
type Access struct {
	// Reader reads Secrets from the API server itself.
	Reader    client.Reader
	Client    client.Client
	Namespace string
	// Dial overrides the address (host:port) of a part; certificates are still verified for its Host. For operators that run
	// outside the cluster, such as in tests.
	Dial map[string]string
	// TokenFile is the operator's service account token for the Vault.
	TokenFile string
}

// CA returns the certificates of the internal authorities that are trusted, PEM.
func (a Access) CA(ctx context.Context) ([]byte, error) {
	if _, err := a.key(ctx, SecretCA, corev1.TLSCertKey); err != nil {
		return nil, err
	}
	s, err := a.secret(ctx, SecretCA)
	return Trusted(s), err
}

// Trusted are the certificates of the authorities in SecretCA, PEM, in the order in which they sign: the text is the same before and after another one does.
func Trusted(secretCA map[string][]byte) []byte {
	return slices.Concat(secretCA[KeyFormerCert], secretCA[corev1.TLSCertKey], secretCA[KeyNextCert])
}

// ErrNotSetUp is wrapped when a Secret of a part does not exist yet.
var ErrNotSetUp = errors.New("not set up yet")

func (a Access) key(ctx context.Context, secret, key string) ([]byte, error) {
	s, err := a.secret(ctx, secret)
	if err != nil {
		return nil, err
	}
	v := s[key]
	if len(v) == 0 {
		return nil, fmt.Errorf("secret %s/%s has no key %s: %w", a.Namespace, secret, key, ErrNotSetUp)
	}
	return v, nil
}

func (a Access) secret(ctx context.Context, name string) (map[string][]byte, error) {
	var s corev1.Secret
	if err := a.Reader.Get(ctx, types.NamespacedName{Namespace: a.Namespace, Name: name}, &s); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil, fmt.Errorf("secret %s/%s: %w", a.Namespace, name, ErrNotSetUp)
		}
		return nil, fmt.Errorf("read secret %s/%s: %w", a.Namespace, name, err)
	}
	return s.Data, nil
}

// Secret describes a Secret of the platform, for EnsureSecret.
func (a Access) Secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: name, Labels: kube.Labels(name)}}
}

// Ensure makes the missing keys of a Secret of the platform.
func (a Access) Ensure(ctx context.Context, name string, want map[string]kube.Make) (map[string][]byte, error) {
	return kube.EnsureSecret(ctx, a.Reader, a.Client, a.Secret(name), want)
}

// OpenPostgres connects as an account that makes roles and databases: the superuser of a managed server.
func (a Access) OpenPostgres(ctx context.Context) (*postgres.Admin, error) {
	p, err := a.Platform(ctx)
	if err != nil {
		return nil, err
	}
	e, t, err := a.Reach(ctx, p, PostgreSQL)
	if err != nil {
		return nil, err
	}
	s := postgres.Server{Address: e.Address(), TLS: t, Platform: p.Spec.Domain}
	x := p.Spec.PostgreSQL.External
	if x == nil {
		password, err := a.key(ctx, SecretPostgreSQL, KeyPassword)
		if err != nil {
			return nil, err
		}
		s.User, s.Password = Superuser, string(password)
		return postgres.Connect(ctx, s)
	}
	s.Database = x.Database
	if s.User, err = a.given(ctx, e, x.CredentialsSecret, KeyUsername); err != nil {
		return nil, err
	}
	if s.Password, err = a.given(ctx, e, x.CredentialsSecret, KeyPassword); err != nil {
		return nil, err
	}
	db, err := postgres.Connect(ctx, s)
	if postgres.Refused(err) {
		err = fault.Login("correct Secret "+x.CredentialsSecret.Name+", and see the log of the server", "%v", err)
	}
	return db, e.explain(err)
}

// VaultPlace is where in which Vault the platform is at home, as programs in the cluster reach it.
func VaultPlace(p *cloud.Platform, e Endpoint) openbao.Place {
	x := p.Spec.Vault.External
	if x == nil {
		return openbao.Managed(e.URL, p.Spec.Domain)
	}
	method := strings.ToLower(x.Connectors.Method)
	return openbao.Place{Address: e.URL, Namespace: x.Namespace, Mount: x.Mount, Method: method, AuthMount: cmp.Or(x.Connectors.MountPath, method), Platform: p.Spec.Domain}
}

// OpenVault checks the Vault's health and logs in as the Cloud operator. The caller closes it.
func (a Access) OpenVault(ctx context.Context) (*openbao.Client, error) {
	p, err := a.Platform(ctx)
	if err != nil {
		return nil, err
	}
	e, t, err := a.Reach(ctx, p, OpenBao)
	if err != nil {
		return nil, err
	}
	c, err := openbao.New(VaultPlace(p, e), t)
	if err != nil {
		return nil, err
	}
	// A company's Vault is several behind one address, and who stands by passes on what it is asked.
	if err := c.Health(ctx); err != nil && (!e.External || !errors.Is(err, openbao.ErrStandby)) {
		return nil, e.explain(err)
	}
	login, err := a.vaultLogin(ctx, e, p.Spec.Vault.External)
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx, login); err != nil {
		return nil, e.explain(err)
	}
	return c, nil
}

func (a Access) vaultLogin(ctx context.Context, e Endpoint, x *cloud.ExternalVault) (l openbao.Login, err error) {
	l = openbao.Login{Method: vault.AuthKubernetes, MountPath: openbao.AuthMount, Role: openbao.OperatorRole}
	if x != nil {
		l.Method = strings.ToLower(x.Auth.Method)
		l.MountPath, l.Role = cmp.Or(x.Auth.MountPath, l.Method), cmp.Or(x.Auth.Role, l.Role)
	}
	switch l.Method {
	case vault.AuthToken:
		l.Token, err = a.given(ctx, e, *x.Auth.CredentialsSecret, workload.KeyToken)
		return l, err
	case vault.AuthAppRole:
		if l.RoleID, err = a.given(ctx, e, *x.Auth.CredentialsSecret, workload.KeyRoleID); err != nil {
			return l, err
		}
		l.SecretID, err = a.given(ctx, e, *x.Auth.CredentialsSecret, workload.KeySecretID)
		return l, err
	}
	token, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return l, fmt.Errorf("read the operator's service account token: %w", err)
	}
	l.JWT = strings.TrimSpace(string(token))
	return l, nil
}

// KeycloakClient is the operator's own client in the realm master of a managed Keycloak, which makes it on its first start.
const KeycloakClient = "kaphera-cloud-operator"

// OpenKeycloak prepares to log in as the administrator of a managed server; in a realm that somebody else runs it logs in.
func (a Access) OpenKeycloak(ctx context.Context, p *cloud.Platform) (*keycloak.Client, error) {
	e, t, err := a.Reach(ctx, p, Keycloak)
	if err != nil {
		return nil, err
	}
	x := p.Spec.Keycloak.External
	if x == nil {
		secret, err := a.key(ctx, SecretKeycloak, KeyClientSecret)
		return keycloak.New(e.URL, keycloak.Master, KeycloakClient, string(secret), t), err
	}
	id, err := a.given(ctx, e, x.CredentialsSecret, KeyClientID)
	if err != nil {
		return nil, err
	}
	secret, err := a.given(ctx, e, x.CredentialsSecret, KeyClientSecret)
	if err != nil {
		return nil, err
	}
	kc := keycloak.New(e.URL, x.Realm, id, secret, t)
	return kc, e.explain(kc.Enter(ctx))
}

// Operator returns the keys of the NATS operator: of an external one the key with which accounts are signed, and no system account's.
func (a Access) Operator(ctx context.Context) (natsauth.Operator, error) {
	p, err := a.Platform(ctx)
	if err != nil {
		return natsauth.Operator{}, err
	}
	if x := p.Spec.NATS.External; x != nil {
		e, _ := external(p, NATS)
		seed, err := a.given(ctx, e, x.CredentialsSecret, KeyOperatorSeed)
		if err == nil && !natsauth.IsOperatorSeed([]byte(seed)) {
			err = fault.Login("put the seed, SO…, of the operator's key or of one of its signing keys there", "key %s of Secret %s is no operator's", KeyOperatorSeed, x.CredentialsSecret.Name)
		}
		return natsauth.Operator{Seed: []byte(seed)}, err
	}
	s, err := a.secret(ctx, SecretNATS)
	if err != nil {
		return natsauth.Operator{}, err
	}
	return natsauth.Operator{Seed: s[KeyOperatorSeed], SystemSeed: s[KeySystemSeed]}, nil
}

// OpenNATSSystem connects to the system account, once, without reconnecting.
func (a Access) OpenNATSSystem(ctx context.Context) (*nats.Conn, error) {
	p, err := a.Platform(ctx)
	if err != nil {
		return nil, err
	}
	e, t, err := a.Reach(ctx, p, NATS)
	if err != nil {
		return nil, err
	}
	x := p.Spec.NATS.External
	var creds []byte
	if x == nil {
		creds, err = a.key(ctx, SecretNATS, KeySystemCredentials)
	} else {
		var text string
		if text, err = a.given(ctx, e, x.CredentialsSecret, KeySystemCredentials); err == nil && !natsauth.IsCredentials([]byte(text)) {
			err = fault.Login("put the credentials file of a user of the system account there", "key %s of Secret %s is no credentials file", KeySystemCredentials, x.CredentialsSecret.Name)
		}
		creds = []byte(text)
	}
	if err != nil {
		return nil, err
	}
	nc, err := cellrpc.Connect(e.URL, "kaphera cloud operator", t, func() ([]byte, error) { return creds, nil }, nats.NoReconnect())
	switch {
	case err == nil:
		return nc, nil
	case x != nil && errors.Is(err, nats.ErrAuthorization):
		return nil, fault.Login("correct "+KeySystemCredentials+" in Secret "+x.CredentialsSecret.Name+": it is of a user of the system account of this server, not ended and not revoked", "nats at %s: %v", e.URL, err)
	case errors.Is(err, nats.ErrNoServers): // the client swallows why
		err = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case errors.Is(err, nats.ErrSecureConnWanted):
		err = tls.RecordHeaderError{Msg: err.Error()}
	}
	return nil, e.explain(fmt.Errorf("connect to nats at %s: %w", e.URL, err))
}
