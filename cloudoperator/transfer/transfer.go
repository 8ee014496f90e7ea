// SPDX-License-Identifier: FSL-1.1-ALv2

// Package transfer brings what is kept of a participant from one cell into another: rows, keys and secrets by connector/archive, through the memory of
// this process, and the audit heads that the cloud keeps. When that is to be done is the participant controller's to decide.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/participant"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/archive"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/vault"
)

// Transfer transfers as the Cloud operator: by the owners' accounts of the cells' databases, which it makes, and a right in the Vault that it gives itself
// for one participant and takes back when it is done.
type Transfer struct {
	Access parts.Access
	// ServiceAccount of the operator, whose token is Access.TokenFile.
	ServiceAccount string
}

var _ participant.Transfer = (*Transfer)(nil)

// grantLife is that of a token for a transfer, which takes no longer than the caller gives it.
const grantLife = 15 * time.Minute

// headsTimeout bounds what is done in the message server.
const headsTimeout = 30 * time.Second

// Move implements participant.Transfer.
func (t *Transfer) Move(ctx context.Context, from, to *cloud.Cell, name string) error {
	return t.with(ctx, from, to, name, func(a, b archive.Place) error {
		// Before its connector there tells of it, since nothing older is kept of a chain than what was kept last.
		held, err := archive.Move(ctx, a, b, name, func(held audit.Head) error {
			return t.carry(ctx, from.Name, to.Name, held)
		})
		if err != nil {
			return err
		}
		return t.leave(ctx, from.Name, held)
	})
}

// Release implements participant.Transfer.
func (t *Transfer) Release(ctx context.Context, from, to *cloud.Cell, name string) error {
	return t.with(ctx, from, to, name, func(a, b archive.Place) error {
		head, err := archive.Abort(ctx, a, b, name)
		if errors.Is(err, archive.ErrMoved) {
			return fmt.Errorf("%w: %w", participant.ErrTransferred, err)
		}
		if err != nil {
			return err
		}
		return t.leave(ctx, to.Name, head)
	})
}

// with calls f with the places of both cells.
func (t *Transfer) with(ctx context.Context, from, to *cloud.Cell, name string, f func(from, to archive.Place) error) (err error) {
	for _, c := range []*cloud.Cell{from, to} {
		if c.Spec.Type == cloud.OnPremise {
			return fmt.Errorf("cell %s is on-premise: the platform reaches neither its database nor its Vault", c.Name)
		}
	}
	p, err := t.Access.Platform(ctx)
	if err != nil {
		return err
	}
	places := make([]archive.Place, 2)
	for i, c := range []*cloud.Cell{from, to} {
		if places[i].Database, err = t.database(ctx, p, c.Name); err != nil {
			return err
		}
	}
	admin, err := t.Access.OpenVault(ctx)
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	source, target := snapshot.ConnectorResources(from.Name).Prefix, snapshot.ConnectorResources(to.Name).Prefix
	grant := openbao.Grant{
		// Of no runtime's: those have no dot. Its name follows from the move, so that the next attempt takes back what a killed one left.
		Name:      strings.Join([]string{"cell-move", from.Name, to.Name, name}, "."),
		Policy:    Policy(admin.Mount(), source, target, name),
		Namespace: t.Access.Namespace, ServiceAccount: t.ServiceAccount, Life: grantLife,
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, admin.Revoke(ctx, grant.Name))
	}()
	if err := admin.Ensure(ctx, grant); err != nil {
		return err
	}
	for i, prefix := range []string{source, target} {
		if places[i].Vault, err = t.vault(ctx, p, prefix, grant.Name); err != nil {
			return err
		}
	}
	return f(places[0], places[1])
}

// Policy is that of one who brings a participant from below one prefix of mount to below another.
func Policy(mount, from, to, name string) string {
	return vault.PolicyOf(mount, from, name, vault.Backup) + vault.PolicyOf(mount, to, name, vault.Replace)
}

// database is that of a cell's connector, by its owner's account.
func (t *Transfer) database(ctx context.Context, p *cloud.Platform, cell string) (*pgx.ConnConfig, error) {
	e, tlsConfig, err := t.Access.Reach(ctx, p, parts.PostgreSQL)
	if err != nil {
		return nil, err
	}
	key := client.ObjectKey{Namespace: snapshot.Namespace(cell), Name: snapshot.DatabaseSecret(snapshot.ConnectorName, "")}
	var s corev1.Secret
	if err := t.Access.Reader.Get(ctx, key, &s); err != nil {
		return nil, fmt.Errorf("read secret %s: %w", key, err)
	}
	server := postgres.Server{Address: e.Address(), TLS: tlsConfig, User: string(s.Data[parts.KeyUsername]), Password: string(s.Data[parts.KeyPassword])}
	return server.Config(snapshot.ConnectorResources(cell).Database)
}

// vault is what is below prefix in the platform's Vault, by a grant.
func (t *Transfer) vault(ctx context.Context, p *cloud.Platform, prefix, grant string) (*vault.Client, error) {
	e, tlsConfig, err := t.Access.Reach(ctx, p, parts.OpenBao)
	if err != nil {
		return nil, err
	}
	place := parts.VaultPlace(p, e)
	return vault.New(vault.Config{
		Address: place.Address, Namespace: place.Namespace, Mount: place.Mount, Prefix: prefix, CAPEM: string(e.CA), Name: tlsConfig.ServerName,
		Auth: vault.Auth{Method: place.Method, MountPath: place.AuthMount, Role: grant, ServiceAccountTokenFile: t.Access.TokenFile},
	})
}

func (t *Transfer) account(ctx context.Context, cell string) (*nats.Conn, error) {
	p, err := t.Access.Platform(ctx)
	if err != nil {
		return nil, err
	}
	e, tlsConfig, err := t.Access.Reach(ctx, p, parts.NATS)
	if err != nil {
		return nil, err
	}
	creds, err := cellrpc.SecretCredentials(t.Access.Reader, t.Access.Namespace)(ctx, cell)
	if err != nil {
		return nil, err
	}
	nc, err := cellrpc.Connect(e.URL, "kaphera cloud operator, transfer from or to cell "+cell, tlsConfig, func() ([]byte, error) { return creds, nil }, nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("connect to the account of cell %s: %w", cell, err)
	}
	return nc, nil
}

// carry adds what is kept in one cell of the participant of a chain that is held to what is kept in another, up to its head. Said again it adds nothing.
func (t *Transfer) carry(ctx context.Context, from, to string, held audit.Head) error {
	ctx, cancel := context.WithTimeout(ctx, headsTimeout) // meanwhile the participant is held
	defer cancel()
	nc, err := t.account(ctx, from)
	if err != nil {
		return err
	}
	defer nc.Close()
	source, _, err := kept(ctx, nc, held.Ctx)
	if err != nil {
		return err
	}
	there, err := t.account(ctx, to)
	if err != nil {
		return err
	}
	defer there.Close()
	target, sequence, err := kept(ctx, there, held.Ctx)
	if err != nil {
		return err
	}
	elsewhere, known := lastOf(source), lastOf(target)
	for _, k := range append(source, cellrpc.Kept{Head: held}) {
		if k.Moved || elsewhere[k.Chain].Moved && k.Chain != held.Chain {
			continue
		}
		if has, ok := known[k.Chain]; ok && (k.Seq < has.Seq || k.Seq == has.Seq && k.Open == has.Open && !has.Moved) {
			continue
		}
		known[k.Chain] = k
		if sequence, err = celllink.KeepHeadAfter(ctx, there, cellrpc.Kept{Head: k.Head}, sequence); err != nil {
			return err
		}
	}
	return nil
}

// leave marks a chain as one that does not go on in a cell, if anything is kept of it there.
func (t *Transfer) leave(ctx context.Context, cell string, head audit.Head) error {
	ctx, cancel := context.WithTimeout(ctx, headsTimeout)
	defer cancel()
	nc, err := t.account(ctx, cell)
	if err != nil {
		return err
	}
	defer nc.Close()
	heads, sequence, err := kept(ctx, nc, head.Ctx)
	if err != nil {
		return err
	}
	if last, ok := lastOf(heads)[head.Chain]; !ok || last.Moved {
		return nil
	}
	_, err = celllink.KeepHeadAfter(ctx, nc, cellrpc.Kept{Head: head, Moved: true}, sequence)
	return err
}

// kept reads the heads of a participant, and the sequence of the last.
func kept(ctx context.Context, nc *nats.Conn, name string) (heads []cellrpc.Kept, last uint64, err error) {
	err = cellrpc.ReadHeads(ctx, nc, name, func(k cellrpc.Kept) { heads, last = append(heads, k), k.Sequence })
	if err != nil {
		return nil, 0, fmt.Errorf("read the audit heads that are kept of %s: %w", name, err)
	}
	return heads, last, nil
}

// lastOf returns the last head of each chain.
func lastOf(heads []cellrpc.Kept) map[string]cellrpc.Kept {
	out := map[string]cellrpc.Kept{}
	for _, k := range heads {
		out[k.Chain] = k
	}
	return out
}
