// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// ClusterRoles of the installation that are bound in a cell's namespace: the operator's own, to set the cell up, and that of people who restart.
const (
	SetupRole    = "kaphera-cell-setup"
	OperatorRole = "kaphera-cell-operator"
)

const (
	seedKey         = "seed"
	agentKeysKey    = "agent-keys"
	issuerLabel     = "cloud.kaphera.io/issuer"
	pullSecretLabel = "cloud.kaphera.io/image-pull-secret" // #nosec G101 -- a name
)

// namespace makes the cell's namespace, lets this operator set it up, and makes the rest in it.
func (r *run) namespace(ctx context.Context) error {
	tenant, err := r.tenant()
	if err != nil {
		return err
	}
	var issuers []string
	for _, i := range snapshot.Issuers(r.cell, r.profiles) {
		issuers = append(issuers, i.Issuer.Name)
	}
	setup := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: r.Access.Namespace, Name: r.ServiceAccount}
	first := []client.Object{r.objects.NamespaceObject(), r.objects.Binding(SetupRole, setup)}
	return r.apply(ctx, slices.Concat(first, r.objects.Rights(issuers), tenant)...)
}

// pullSecretCopy is the name in a cell's namespace of a copy of an image pull secret, where other Secrets have names of their own.
func pullSecretCopy(name string) string { return "pull-" + name }

// pullSecrets reads the Platform's image pull secrets and returns their copies; nodes of an on-premise cell pull with the company's. wrong is what is to
// be said of one that is no use, which stops nothing: what runs need not be pulled.
func (r *run) pullSecrets(ctx context.Context) (copies []*corev1.Secret, wrong, err error) {
	if r.onPremise() {
		return nil, nil, nil
	}
	const next = "make it with kubectl create secret docker-registry"
	for _, ref := range r.platform.Spec.ImagePullSecrets {
		s := r.Access.Secret(ref.Name)
		where := fmt.Sprintf("Platform $.spec.imagePullSecrets: Secret %s in namespace %s", ref.Name, s.Namespace)
		err := r.Access.Reader.Get(ctx, client.ObjectKeyFromObject(s), s)
		switch {
		case apierrors.IsNotFound(err):
			wrong = &stopped{cloud.ReasonMissing, where + " does not exist; " + next}
		case err != nil:
			return nil, nil, fmt.Errorf("read the image pull secret %s: %w", ref.Name, err)
		case s.Type != corev1.SecretTypeDockerConfigJson && s.Type != corev1.SecretTypeDockercfg:
			wrong = &stopped{cloud.ReasonInvalid, fmt.Sprintf("%s is of type %s, which nodes do not pull with; %s", where, s.Type, next)}
		default:
			c := &corev1.Secret{ObjectMeta: r.objects.Meta(pullSecretCopy(ref.Name)), Type: s.Type, Data: s.Data}
			c.Labels[pullSecretLabel] = "true"
			copies = append(copies, c)
		}
	}
	return copies, wrong, nil
}

// copyPullSecrets makes them in the cell's namespace, and removes copies of others.
func (r *run) copyPullSecrets(ctx context.Context, copies []*corev1.Secret) error {
	var list corev1.SecretList
	if err := r.Access.Reader.List(ctx, &list, client.InNamespace(r.ns), client.HasLabels{pullSecretLabel}); err != nil {
		return fmt.Errorf("list the image pull secrets in %s: %w", r.ns, err)
	}
	found := map[string]corev1.Secret{}
	for _, s := range list.Items {
		found[s.Name] = s
	}
	for _, c := range copies {
		old, exists := found[c.Name]
		delete(found, c.Name)
		var err error
		switch {
		case !exists:
			err = r.Access.Client.Create(ctx, c)
		case old.Type != c.Type: // which cannot change
			if err = r.deleteSecret(ctx, c.Name); err == nil {
				err = r.Access.Client.Create(ctx, c)
			}
		case !maps.EqualFunc(old.Data, c.Data, bytes.Equal):
			old.Data = c.Data
			err = r.Access.Client.Update(ctx, &old)
		}
		if err != nil {
			return fmt.Errorf("copy the image pull secret %s into %s: %w", strings.TrimPrefix(c.Name, pullSecretCopy("")), r.ns, err)
		}
	}
	for name := range found {
		if err := r.deleteSecret(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) apply(ctx context.Context, objects ...client.Object) error {
	for _, o := range objects {
		if err := kube.Apply(ctx, r.Access.Client, nil, o); err != nil {
			return err
		}
	}
	return nil
}

// account makes the cell's NATS account and the cloud's credentials, and admits the agent of an on-premise cell. It returns the credentials and the
// account's seed.
func (r *run) account(ctx context.Context) (cloudCreds, seed []byte, err error) {
	data, err := r.Access.Ensure(ctx, parts.AccountSecret(r.cell.Name), map[string]kube.Make{seedKey: natsauth.NewAccountSeed})
	if err != nil {
		return nil, nil, err
	}
	seed = data[seedKey]
	if cloudCreds, err = r.credentials(ctx, r.Access.Secret(parts.SecretCellCreds), cellrpc.CredentialsKey(r.cell.Name), "cloud", seed, celllink.CloudPermissions); err != nil {
		return nil, nil, err
	}
	if r.onPremise() {
		if data, err = r.admit(ctx, data); err != nil {
			return nil, nil, err
		}
	}
	return cloudCreds, seed, r.push(ctx, seed, data[agentKeysKey])
}

func agentUser(cell string) string { return "agent of cell " + cell }

// admit signs the public key of the company's agent. Every key that was ever admitted is kept in the account's Secret, before it opens anything, so
// that all but the one in the spec can be revoked.
func (r *run) admit(ctx context.Context, account map[string][]byte) (map[string][]byte, error) {
	key := r.cell.Spec.AgentKey
	if key == "" {
		r.cell.Status.AgentJWT = ""
		return account, nil
	}
	token := r.cell.Status.AgentJWT
	if !natsauth.Admits(token, account[seedKey], key, celllink.AgentPermissions) {
		var err error
		if token, err = natsauth.UserJWT(account[seedKey], agentUser(r.cell.Name), key, celllink.AgentPermissions); err != nil {
			return nil, &stopped{cloud.ReasonInvalid, "$.spec.agentKey: " + err.Error()}
		}
	}
	if !slices.Contains(strings.Fields(string(account[agentKeysKey])), key) {
		s := r.Access.Secret(parts.AccountSecret(r.cell.Name))
		if err := r.Access.Reader.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return nil, fmt.Errorf("read secret %s: %w", s.Name, err)
		}
		s.Data[agentKeysKey] = append(s.Data[agentKeysKey], key+"\n"...)
		if err := r.Access.Client.Update(ctx, s); err != nil {
			return nil, fmt.Errorf("write secret %s: %w", s.Name, err)
		}
		account = s.Data
	}
	r.cell.Status.AgentJWT = token
	return account, nil
}

// push stores the account in the server once in the life of this process, and again when another agent is admitted and whenever the connection into it
// fails. agentKeys are those that were ever admitted, one a line; all but that of the spec are revoked.
func (r *run) push(ctx context.Context, seed, agentKeys []byte) error {
	if r.memo.pushed(r.cell.Name, r.cell.Spec.AgentKey) {
		return nil
	}
	revoked := slices.DeleteFunc(strings.Fields(string(agentKeys)), func(key string) bool { return key == r.cell.Spec.AgentKey })
	op, err := r.Access.Operator(ctx)
	if err != nil {
		return err
	}
	token, err := op.AccountJWT(natsauth.Account{Name: "cell-" + r.cell.Name, Seed: seed, Storage: celllink.Storage, Revoked: revoked})
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
	r.memo.setPushed(r.cell.Name, r.cell.Spec.AgentKey)
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

// runtimes are none in an on-premise cell: the company makes databases and Vault roles.
func (r *run) runtimes() []runtimeSpec {
	if r.onPremise() {
		return nil
	}
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
	s := &corev1.Secret{ObjectMeta: r.objects.Meta(snapshot.DatabaseSecret(rt.name, role))}
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
	snapshot.Backup: vault.Backup, snapshot.Restore: vault.Restore,
}

// grants gives each role of each runtime its policy in the Vault, bound to the role's own service account. What brings in an archive, and so may make
// keys of anybody, has it only while nothing else runs.
func (r *run) grants(ctx context.Context, runtimes []runtimeSpec) error {
	v, err := r.Access.OpenVault(ctx)
	if err != nil {
		return err
	}
	defer v.Close(ctx)
	for _, rt := range runtimes {
		for role, name := range rt.resources.Grants {
			if role == snapshot.Restore && ptr.Deref(r.cell.Spec.Replicas, 1) > 0 {
				if err := v.Revoke(ctx, name); err != nil {
					return err
				}
				continue
			}
			account := rt.name + "-" + role
			if role == snapshot.IssuerRole {
				account = rt.name
			}
			policy := vault.Policy(v.Mount(), rt.resources.Prefix, vaultAccess[role])
			if err := v.Ensure(ctx, openbao.Grant{Name: name, Policy: policy, Namespace: r.ns, ServiceAccount: account}); err != nil {
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
	defer v.Close(ctx)
	return v.Remove(ctx, rt.resources.Prefix, slices.Sorted(maps.Values(rt.resources.Grants))...)
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

func (r *run) facts(ctx context.Context) (snapshot.Facts, error) {
	p := r.platform
	db, err := r.Access.Endpoint(ctx, p, parts.PostgreSQL)
	if err != nil {
		return snapshot.Facts{}, err
	}
	e, err := r.Access.Endpoint(ctx, p, parts.OpenBao)
	if err != nil {
		return snapshot.Facts{}, err
	}
	v := parts.VaultPlace(p, e)
	method := edc.VaultMethodKubernetes
	if v.Method == vault.AuthJWT {
		method = edc.VaultMethodJWT
	}
	f := snapshot.Facts{
		DatabaseHost: db.Host, DatabasePort: db.Port, DatabaseCA: string(db.CA),
		VaultAddress: v.Address, VaultNamespace: v.Namespace, VaultCA: string(e.CA), VaultMount: v.Mount, VaultMethod: method, VaultAuth: v.AuthMount,
		VaultAudience: openbao.Audience, Image: r.images.Connector, Ingress: p.Spec.Ingress,
	}
	for _, s := range p.Spec.ImagePullSecrets {
		f.PullSecrets = append(f.PullSecrets, corev1.LocalObjectReference{Name: pullSecretCopy(s.Name)})
	}
	f.Trust.CABundle, f.Trust.AllowPrivateNetworks = p.Spec.CABundle, p.Spec.AllowPrivateNetworks
	return f, nil
}
