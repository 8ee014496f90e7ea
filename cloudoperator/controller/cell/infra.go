// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
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

// Keys of the Secret of a cell's NATS account: its seed; the public keys that were ever admitted, of agents and of the cloud, and those of agents that
// were revoked, one a line each; and the request (cloud.RotateAnnotation) for which the present ones were made.
const (
	seedKey     = "seed"
	agentsKey   = "agent-keys"
	cloudsKey   = "cloud-keys"
	revokedKey  = "revoked-agent-keys"
	rotationKey = "rotation"
)

const (
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

// account makes the cell's NATS account and its credentials: the cloud's, and those of an agent in this cluster. The agent of an on-premise cell is admitted
// by its public key. Every key is kept in the account's Secret before it opens anything, so that it can be revoked whatever becomes of its credentials. It returns the cloud's,
// and stores nothing in the server.
func (r *run) account(ctx context.Context) (*account, error) {
	data, err := r.Access.Ensure(ctx, parts.AccountSecret(r.cell.Name), map[string]kube.Make{seedKey: natsauth.NewAccountSeed})
	if err != nil {
		return nil, err
	}
	a := &account{run: r, data: data}
	again := r.rotation() != string(data[rotationKey]) && r.rotation() != ""
	agentKey := r.cell.Spec.AgentKey
	creds, cloudKey, err := a.credentials(ctx, r.Access.Secret(parts.SecretCellCreds), cellrpc.CredentialsKey(r.cell.Name), "cloud", cloudsKey, celllink.CloudPermissions, again)
	if err != nil {
		return nil, err
	}
	a.cloud, a.revoked = creds, a.others(cloudsKey, cloudKey)
	if r.onPremise() {
		if err := a.admit(ctx, agentKey); err != nil {
			return nil, err
		}
		a.revoked = append(a.revoked, a.others(agentsKey, agentKey)...)
	} else {
		s := &corev1.Secret{ObjectMeta: r.objects.Meta(manifest.AgentCredentials)}
		if _, agentKey, err = a.credentials(ctx, s, manifest.CredentialsKey, agentUser(r.cell.Name), agentsKey, celllink.AgentPermissions, again); err != nil {
			return nil, err
		}
		// What was revoked stays so.
		former := func() bool { return len(a.others(agentsKey, agentKey)) > len(a.others(revokedKey, agentKey)) }
		if came := r.cameOver(agentKey, former()); came || r.revokesNow() {
			if err := a.keep(ctx, revokedKey, a.others(agentsKey, agentKey)...); err != nil {
				return nil, err
			}
		}
		a.revoked = append(a.revoked, strings.Fields(string(a.data[revokedKey]))...)
		if former() {
			r.former = append(r.former, "the former credentials of the agent, until it uses the new ones")
		}
	}
	if again {
		if err := a.write(ctx, func(data map[string][]byte) { data[rotationKey] = []byte(r.rotation()) }); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// comesOver is how long an agent that does not say which credentials it has may take to be there with new ones, which its kubelet mounts within two minutes.
const comesOver = 15 * time.Minute

// cameOver says that the agent has this key, or that it is silent for so long that it has none. It is not cut off while it reports by a former one.
func (r *run) cameOver(agentKey string, former bool) bool {
	report, heard := r.Links.Report(r.cell.Name)
	says := report != nil && report.Credential != "" && r.Now().Sub(heard) <= celllink.SilentAfter
	waited := r.memo.lasts(r.cell.Name, "agent without "+agentKey, former && !says, r.Now())
	return report != nil && report.Credential == agentKey || waited > comesOver
}

func agentUser(cell string) string { return "agent of cell " + cell }

// account is the NATS account of a cell with what is kept of it.
type account struct {
	*run
	data    map[string][]byte
	cloud   []byte   // credentials
	revoked []string // public keys
}

// others are the lines of a key but one.
func (a *account) others(key, but string) []string {
	return slices.DeleteFunc(strings.Fields(string(a.data[key])), func(line string) bool { return line == but })
}

// keep adds the lines that a key lacks.
func (a *account) keep(ctx context.Context, key string, lines ...string) error {
	have := strings.Fields(string(a.data[key]))
	lines = slices.DeleteFunc(lines, func(line string) bool { return slices.Contains(have, line) })
	if len(lines) == 0 {
		return nil
	}
	return a.write(ctx, func(data map[string][]byte) {
		for _, line := range lines {
			data[key] = append(data[key], line+"\n"...)
		}
	})
}

func (a *account) write(ctx context.Context, change func(map[string][]byte)) error {
	s := a.Access.Secret(parts.AccountSecret(a.cell.Name))
	if err := a.Access.Reader.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
		return fmt.Errorf("read secret %s: %w", s.Name, err)
	}
	change(s.Data)
	if err := a.Access.Client.Update(ctx, s); err != nil {
		return fmt.Errorf("write secret %s: %w", s.Name, err)
	}
	a.data = s.Data
	return nil
}

// admit signs the public key of the company's agent.
func (a *account) admit(ctx context.Context, key string) error {
	token := a.cell.Status.AgentJWT
	switch {
	case key == "":
		token = ""
	case !natsauth.Admits(token, a.data[seedKey], key, celllink.AgentPermissions):
		var err error
		if token, err = natsauth.UserJWT(a.data[seedKey], agentUser(a.cell.Name), key, celllink.AgentPermissions); err != nil {
			return &stopped{cloud.ReasonInvalid, "$.spec.agentKey: " + err.Error()}
		}
	}
	if key != "" {
		if err := a.keep(ctx, agentsKey, key); err != nil {
			return err
		}
	}
	a.cell.Status.AgentJWT = token
	return nil
}

// push stores the account in the server once in the life of this process, and again when other keys are revoked and whenever the connection into it
// fails.
func (a *account) push(ctx context.Context) error {
	r, state := a.run, strings.Join(a.revoked, " ")
	if r.memo.pushed(r.cell.Name, state) {
		return nil
	}
	op, err := r.Access.Operator(ctx)
	if err != nil {
		return err
	}
	token, err := op.AccountJWT(natsauth.Account{Name: "cell-" + r.cell.Name, Seed: a.data[seedKey], Storage: celllink.Storage, Revoked: a.revoked})
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
	r.memo.setPushed(r.cell.Name, state)
	return nil
}

// credentials returns the credentials in a key of a Secret and their public key, which is kept in the account's Secret under keys. They are made anew when
// they are not of this account, allow something else, or are not the newest, such as those of a Secret that somebody has put back; and again when that is asked.
func (a *account) credentials(ctx context.Context, s *corev1.Secret, key, user, keys string, p natsauth.Permissions, again bool) (creds []byte, public string, err error) {
	found := &corev1.Secret{}
	if err := a.Access.Reader.Get(ctx, client.ObjectKeyFromObject(s), found); client.IgnoreNotFound(err) != nil {
		return nil, "", fmt.Errorf("read secret %s: %w", client.ObjectKeyFromObject(s), err)
	}
	creds = found.Data[key]
	fresh := again || !natsauth.Belongs(creds, a.data[seedKey], p)
	if kept := strings.Fields(string(a.data[keys])); !fresh && len(kept) > 0 {
		public, err := natsauth.UserKey(creds)
		if err != nil {
			return nil, "", err
		}
		fresh = kept[len(kept)-1] != public
	}
	if fresh {
		if creds, err = natsauth.Credentials(a.data[seedKey], user, p); err != nil {
			return nil, "", err
		}
	}
	if public, err = natsauth.UserKey(creds); err != nil {
		return nil, "", err
	}
	if err := a.keep(ctx, keys, public); err != nil || !fresh {
		return creds, public, err
	}
	if found.ResourceVersion == "" {
		s.Data = map[string][]byte{key: creds}
		err = a.Access.Client.Create(ctx, s)
	} else {
		if found.Data == nil {
			found.Data = map[string][]byte{}
		}
		found.Data[key] = creds
		err = a.Access.Client.Update(ctx, found)
	}
	if err != nil {
		return nil, "", fmt.Errorf("write secret %s: %w", client.ObjectKeyFromObject(s), err)
	}
	return creds, public, nil
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
	var errs []error
	for _, rt := range runtimes {
		errs = append(errs, r.database(ctx, db, rt))
	}
	return errors.Join(errs...)
}

func (r *run) database(ctx context.Context, db *postgres.Admin, rt runtimeSpec) (err error) {
	d := postgres.Database{Name: rt.resources.Database}
	if d.Owner, err = r.databaseRole(ctx, db, rt, "", rt.resources.Owner); err != nil {
		return err
	}
	for _, role := range kube.SortedKeys(rt.resources.Roles) {
		made, err := r.databaseRole(ctx, db, rt, role, rt.resources.Roles[role])
		if err != nil {
			return err
		}
		d.Roles = append(d.Roles, made)
	}
	if err := db.Ensure(ctx, d); err != nil { // the former log-ins are all that open it
		return err
	}
	return r.retire(ctx, db, d)
}

// databaseRole makes the Secret by which a role of a runtime logs in. A password that is lost, or to be another one, is given to the log-in that nobody
// uses, so that pods which are not replaced yet go on.
func (r *run) databaseRole(ctx context.Context, db *postgres.Admin, rt runtimeSpec, role, name string) (postgres.Role, error) {
	s := &corev1.Secret{ObjectMeta: r.objects.Meta(snapshot.DatabaseSecret(rt.name, role))}
	found := &corev1.Secret{}
	if err := r.Access.Reader.Get(ctx, client.ObjectKeyFromObject(s), found); client.IgnoreNotFound(err) != nil {
		return postgres.Role{}, fmt.Errorf("read secret %s: %w", client.ObjectKeyFromObject(s), err)
	}
	made := postgres.Role{Name: name, Login: string(found.Data[parts.KeyUsername]), Password: string(found.Data[parts.KeyPassword])}
	logins := []string{name, postgres.Second(name)}
	whole := slices.Contains(logins, made.Login) && made.Password != ""
	asked := r.rotation() != "" && found.Annotations[cloud.RotateAnnotation] != r.rotation()
	if whole && !asked {
		return made, nil
	}
	free, err := db.Free(ctx, name)
	both := free == ""
	switch {
	case err != nil:
		return postgres.Role{}, err
	case both && whole && !r.revokesNow():
		r.stillOpen("the passwords of database " + rt.resources.Database + ", which are replaced once the rotation before this one has ended")
		return made, nil
	case both && made.Login == name:
		free = logins[1]
	case both:
		free = name
	}
	if both && r.revokesNow() { // whoever is connected by it is so by a password of before the former one
		if err := db.Retire(ctx, free); err != nil {
			return postgres.Role{}, err
		}
	}
	password, err := kube.Password()
	if err != nil {
		return postgres.Role{}, err
	}
	made.Login, made.Password = free, string(password)
	if found.ResourceVersion == "" {
		found = s
	}
	if found.Data == nil {
		found.Data = map[string][]byte{}
	}
	found.Data[parts.KeyUsername], found.Data[parts.KeyPassword] = []byte(free), password
	if asked {
		metav1.SetMetaDataAnnotation(&found.ObjectMeta, cloud.RotateAnnotation, r.rotation())
	}
	if rt.issuer {
		metav1.SetMetaDataLabel(&found.ObjectMeta, issuerLabel, rt.name)
	}
	if found.ResourceVersion == "" {
		err = r.Access.Client.Create(ctx, found)
	} else {
		err = r.Access.Client.Update(ctx, found)
	}
	if err != nil {
		return postgres.Role{}, fmt.Errorf("write secret %s: %w", client.ObjectKeyFromObject(s), err)
	}
	return made, nil
}

// stillOpen notes what of the databases a rotation has not replaced, or retired, yet.
func (r *run) stillOpen(what string) {
	r.retiring = true
	if !slices.Contains(r.former, what) {
		r.former = append(r.former, what)
	}
}

// outOfUse is for how long nobody must have been connected by a log-in before it is retired: a pod that is not replaced looks into its database each second.
const outOfUse = time.Minute

// retire takes the former log-ins of a database away when nobody uses them any more.
func (r *run) retire(ctx context.Context, db *postgres.Admin, d postgres.Database) error {
	f, err := db.Former(ctx, d)
	if err != nil {
		return fmt.Errorf("former log-ins of database %s: %w", d.Name, err)
	}
	if len(f.Logins) == 0 {
		r.memo.lasts(r.cell.Name, d.Name, false, r.Now())
		return nil
	}
	nobody := ptr.Deref(r.cell.Spec.Replicas, 1) == 0
	if r.memo.lasts(r.cell.Name, d.Name, !f.Used && (f.Taken || nobody), r.Now()) < outOfUse && !r.revokesNow() {
		r.stillOpen("the former log-ins of database " + d.Name + ", until no pod has used them for a minute")
		return nil
	}
	return db.Retire(ctx, f.Logins...)
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
