// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/participant"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/cloudoperator/transfer"
	"github.com/kaphera/kaphera/connector/archive"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/vault"
)

// connectorOf is what a connector keeps in a cell: its database as its owner sees it, its keys as its wallet does.
type connectorOf struct {
	cell *cloud.Cell
	conn *pgx.Conn
	kv   vault.KV
	nats *nats.Conn // the cell's account
}

func keptIn(t *testing.T, cell string) *connectorOf {
	t.Helper()
	c := &connectorOf{cell: &cloud.Cell{ObjectMeta: named(cell)}}
	ns, resources := snapshot.Namespace(cell), snapshot.ConnectorResources(cell)
	var owner, creds corev1.Secret
	var ca corev1.ConfigMap
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: snapshot.ConnectorName + "-" + snapshot.Wallet}}
	if err := admin.Create(t.Context(), account); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if err := errors.Join(
		admin.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: snapshot.DatabaseSecret(snapshot.ConnectorName, "")}, &owner),
		admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.SecretCellCreds}, &creds),
		admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &ca),
		admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: cell}, c.cell),
	); err != nil {
		t.Fatal(err)
	}
	server := superuser(t)
	server.User, server.Password = string(owner.Data[parts.KeyUsername]), string(owner.Data[parts.KeyPassword])
	cc, err := server.Config(resources.Database)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), cc, nil); err != nil {
		t.Fatal(err)
	}
	cc.RuntimeParams["kaphera.ctx"] = "*"
	if c.conn, err = pgx.ConnectConfig(t.Context(), cc); err != nil {
		t.Fatal(err)
	}
	c.kv, err = vault.New(vault.Config{
		Address: "https://" + node.addresses()[parts.OpenBao], Name: parts.Host(parts.OpenBao, system), CAPEM: ca.Data["ca.crt"], Mount: openbao.Mount, Prefix: resources.Prefix,
		Auth: vault.Auth{Method: vault.AuthKubernetes, MountPath: openbao.AuthMount, Role: resources.Grants[snapshot.Wallet], ServiceAccountTokenFile: "token", ReadFile: func(string) ([]byte, error) {
			token, err := serviceAccountToken(t.Context(), ns, account.Name, openbao.Audience)
			return []byte(token), err
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := pki.ClientTLS([]byte(ca.Data["ca.crt"]), parts.Host(parts.NATS, system))
	if err != nil {
		t.Fatal(err)
	}
	c.nats, err = cellrpc.Connect("tls://"+node.addresses()[parts.NATS], "test", tlsConfig, func() ([]byte, error) { return creds.Data[cellrpc.CredentialsKey(cell)], nil }, nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.nats.Close()
		_ = c.conn.Close(context.WithoutCancel(t.Context()))
	})
	return c
}

func (c *connectorOf) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := c.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// add makes a participant with a key, an agreement and a record on its trail.
func (c *connectorOf) add(t *testing.T, name string) {
	t.Helper()
	c.exec(t, "INSERT INTO control_plane.profiles (name, profile) VALUES ('auto', '{}') ON CONFLICT DO NOTHING")
	c.exec(t, "INSERT INTO control_plane.participants (ctx, did, profile, active) VALUES ($1, 'did:web:shared.demo.example:' || $1::text, 'auto', true)", name)
	c.exec(t, "INSERT INTO wallet.participants (ctx, did, updated_at) VALUES ($1, 'did:web:shared.demo.example:' || $1::text, now())", name)
	c.exec(t, "INSERT INTO wallet.keys (ctx, kid, public_jwk, active, created_at) VALUES ($1, 'key-1', '{}', true, now())", name)
	if err := c.kv.Create(t.Context(), name+"/keys/key-1", map[string]string{"jwk": "hush of " + name}); err != nil {
		t.Fatal(err)
	}
	if err := audit.Open(t.Context(), c.conn, name); err != nil {
		t.Fatal(err)
	}
	c.record(t, name)
}

func (c *connectorOf) record(t *testing.T, name string) {
	t.Helper()
	if err := audit.Append(t.Context(), c.conn, name, audit.Entry{Type: audit.Management}); err != nil {
		t.Fatal(err)
	}
}

// head is that of the open chain, which the cloud keeps as if an agent had reported it.
func (c *connectorOf) head(t *testing.T, name string) audit.Head {
	t.Helper()
	h, err := audit.HeadOf(t.Context(), c.conn, name)
	if err == nil {
		err = celllink.KeepHead(t.Context(), c.nats, h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// forget is what deleting a participant does.
func (c *connectorOf) forget(t *testing.T, name string) {
	t.Helper()
	for _, table := range []string{"control_plane.participants", "wallet.participants"} {
		c.exec(t, "DELETE FROM "+table+" WHERE ctx = $1", name)
	}
	if err := errors.Join(audit.Close(t.Context(), c.conn, name), c.kv.Delete(t.Context(), name+"/keys/key-1")); err != nil {
		t.Fatal(err)
	}
}

func (c *connectorOf) holds(t *testing.T, name string) []string {
	t.Helper()
	rows, err := c.conn.Query(t.Context(), `SELECT p::text FROM control_plane.participants p WHERE ctx = $1 UNION ALL SELECT k::text FROM wallet.keys k WHERE ctx = $1
		UNION ALL SELECT c::text FROM audit.chains c WHERE ctx = $1 UNION ALL SELECT r::text FROM audit.records r WHERE ctx = $1 ORDER BY 1`, name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	switch key, err := c.kv.Read(t.Context(), name+"/keys/key-1"); {
	case err == nil:
		out = append(out, key["jwk"])
	case !errors.Is(err, vault.ErrNotFound):
		t.Fatal(err)
	}
	return out
}

// kept are the heads that the cloud has of a participant, as they are shown.
func (c *connectorOf) kept(t *testing.T, name string) []audit.Head {
	t.Helper()
	var out []audit.Head
	moved := false
	err := cellrpc.ReadHeads(t.Context(), c.nats, name, func(k cellrpc.Kept) {
		if moved = k.Moved; !moved {
			out = append(out, k.Head)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if moved {
		return nil
	}
	return out
}

// transfers moves a participant from the shared cell to the dedicated one, back, and there again, with the operator's own rights.
func transfers(t *testing.T) {
	shared, tier1 := keptIn(t, "shared"), keptIn(t, "tier1")
	rights := clientAs(t, operatorAccount)
	tr := &transfer.Transfer{
		Access:         parts.Access{Reader: rights, Client: rights, Namespace: system, Dial: node.addresses(), TokenFile: filepath.Join(node.dir, "operator-token")},
		ServiceAccount: "cloud-operator",
	}
	for _, name := range []string{"acme", "stays"} {
		shared.add(t, name)
	}
	tier1.add(t, "third")
	neighbours := append(shared.holds(t, "stays"), tier1.holds(t, "third")...)
	first := shared.head(t, "acme")
	shared.record(t, "acme")
	known := []audit.Head{first}

	grant := func(from, to *connectorOf) string {
		return "cell-move." + from.cell.Name + "." + to.cell.Name + ".acme"
	}
	gone := func(from, to *connectorOf) {
		t.Helper()
		if _, err := vaultLogin(t, system, "cloud-operator", grant(from, to), openbao.Audience); err == nil {
			t.Errorf("the role %s is left", grant(from, to))
		}
		v, err := tr.Access.OpenVault(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close(t.Context())
		operator, err := vaultLogin(t, system, "cloud-operator", openbao.OperatorRole, openbao.Audience)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := operator.Logical().ReadWithContext(t.Context(), "sys/policies/acl/"+grant(from, to)); err != nil || s != nil {
			t.Errorf("the policy %s is left: %v", grant(from, to), err)
		}
	}
	t.Run("by a grant for one participant, which is taken back when a killed attempt left it", func(t *testing.T) {
		v, err := tr.Access.OpenVault(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close(t.Context())
		from, to := snapshot.ConnectorResources("shared").Prefix, snapshot.ConnectorResources("tier1").Prefix
		if err := v.Ensure(t.Context(), openbao.Grant{
			Name: grant(shared, tier1), Policy: transfer.Policy(v.Mount(), from, to, "acme"), Namespace: system, ServiceAccount: "cloud-operator", Life: time.Minute,
		}); err != nil {
			t.Fatal(err)
		}
		c, err := vaultLogin(t, system, "cloud-operator", grant(shared, tier1), openbao.Audience)
		if err != nil {
			t.Fatal(err)
		}
		self, err := c.Auth().Token().LookupSelfWithContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ttl, err := self.TokenTTL(); err != nil || ttl > time.Minute {
			t.Errorf("its token lives for %s: %v", ttl, err)
		}
		for path, may := range map[string]bool{from + "/acme/keys/key-1": true, from + "/stays/keys/key-1": false, to + "/third/keys/key-1": false} {
			if s, err := c.Logical().ReadWithContext(t.Context(), openbao.Mount+"/data/"+path); (err == nil && s != nil) != may {
				t.Errorf("it reads %s: %v", path, err)
			}
		}
		for path, may := range map[string]bool{from + "/acme/keys/key-2": false, to + "/acme/keys/key-2": true, to + "/third/keys/key-2": false} {
			if _, err := c.Logical().WriteWithContext(t.Context(), openbao.Mount+"/data/"+path, map[string]any{"data": map[string]any{"jwk": "an orphan"}}); (err == nil) != may {
				t.Errorf("it writes %s: %v", path, err)
			}
		}
	})
	if err := tr.Release(t.Context(), shared.cell, tier1.cell, "acme"); err != nil {
		t.Errorf("released when it was not held: %v", err)
	}
	gone(shared, tier1)
	shared.record(t, "acme")

	from, to := shared, tier1
	for round := range 3 {
		held, err := audit.HeadOf(t.Context(), from.conn, "acme")
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, held)
		for attempt := range 2 {
			if err := tr.Move(t.Context(), from.cell, to.cell, "acme"); err != nil {
				t.Fatalf("round %d, attempt %d: %v", round, attempt, err)
			}
			gone(from, to)
		}
		if err := tr.Release(t.Context(), from.cell, to.cell, "acme"); !errors.Is(err, participant.ErrTransferred) {
			t.Errorf("round %d: released when it is there: %v", round, err)
		}
		gone(from, to)
		from.forget(t, "acme")
		if names, err := to.kv.List(t.Context(), "acme/keys"); err != nil || !slices.Equal(names, []string{"key-1"}) {
			t.Errorf("round %d: its keys there: %s, %v", round, names, err)
		}
		if got := to.holds(t, "acme"); got[len(got)-1] != "hush of acme" {
			t.Errorf("round %d: the key is %q", round, got[len(got)-1])
		}
		if got := to.kept(t, "acme"); !cmp.Equal(got, known) {
			t.Errorf("round %d: the heads that are kept: %s", round, cmp.Diff(known, got))
		}
		if got := from.kept(t, "acme"); len(got) > 0 {
			t.Errorf("round %d: heads are shown where it was: %+v", round, got)
		}
		to.record(t, "acme")
		known = append(known, to.head(t, "acme"))
		to.record(t, "acme")
		from, to = to, from
	}
	if now := append(shared.holds(t, "stays"), tier1.holds(t, "third")...); !slices.Equal(now, neighbours) {
		t.Errorf("neighbours: %s", cmp.Diff(neighbours, now))
	}
	// Another one took its name where it was, and reports its own trail.
	shared.add(t, "acme")
	shared.head(t, "acme")
	before := append(shared.holds(t, "acme"), tier1.holds(t, "acme")...)
	if err := tr.Move(t.Context(), tier1.cell, shared.cell, "acme"); !errors.Is(err, archive.ErrExists) || strings.Contains(err.Error(), "hush") {
		t.Errorf("to where another one has its name: %v", err)
	}
	gone(tier1, shared)
	if now := append(shared.holds(t, "acme"), tier1.holds(t, "acme")...); !slices.Equal(now, before) {
		t.Errorf("what was refused changed something: %s", cmp.Diff(before, now))
	}
	for _, c := range []*connectorOf{shared, tier1} {
		eventually(t, func(ctx context.Context) error {
			return condition(ctx, c.cell, cloud.ConditionAuditIntact, metav1.ConditionTrue, "")
		})
	}
	out := dedicatedCell("out", "tier1")
	out.Spec.Type = cloud.OnPremise
	if err := tr.Move(t.Context(), tier1.cell, out, "acme"); err == nil || !strings.Contains(err.Error(), "on-premise") {
		t.Errorf("to an on-premise cell: %v", err)
	}
}
