// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/vault"
)

// Place is where a connector keeps what it has: its database, by the account that migrates, and its Vault.
type Place struct {
	Database *pgx.ConnConfig
	Vault    vault.KV
}

// Move holds a context in one connector and brings it into another one, through memory alone, where it is not active until somebody makes it so. Called
// again after it was cut off anywhere it finishes, or finds that it was finished; called twice at a time it is done once. It returns the head of the
// audit trail as it was held. A context of that name that to has is left alone, with an error that wraps ErrExists and before from is held; what the
// Vault of to alone has of it is what a move left that was cut off, and is replaced. Before anything is in to, before is called with that head, where it
// is not finished already. In the Vault of from it lists and reads, in that of to it writes and deletes too.
func Move(ctx context.Context, from, to Place, name string, before func(held audit.Head) error) (audit.Head, error) {
	held, err := moved(ctx, from, to, name)
	if err == nil || !errors.Is(err, errNotMoved) {
		return held, err
	}
	if err := Hold(ctx, from.Database, name); err != nil {
		return held, err
	}
	failed := within(ctx, from.Database, func(tx pgx.Tx) error {
		c, err := chainOf(ctx, tx, name, "")
		switch {
		case err != nil:
			return err
		case c == nil:
			return fmt.Errorf("%q: %w", name, ErrNoContext)
		}
		return before(c.Head)
	})
	if failed != nil {
		return held, failed
	}
	failed = carry(ctx, from, to, name)
	// Whether it is there shows in the database, whatever this heard of the commit.
	held, err = moved(ctx, from, to, name)
	if failed != nil && err != nil && !errors.Is(err, ErrExists) {
		return held, failed
	}
	return held, err
}

var errNotMoved = errors.New("is not moved yet")

// chain is a row of audit.chains.
type chain struct {
	audit.Head
	moving bool
}

// chainOf returns the open chain of a context, or the one with an id; nil when there is none.
func chainOf(ctx context.Context, tx pgx.Tx, name, id string) (*chain, error) {
	var c chain
	err := tx.QueryRow(ctx, `SELECT id::text, ctx, seq, at, encode(hash, 'hex'), open, moving FROM audit.chains WHERE ctx = $1 AND CASE WHEN $2 = '' THEN open ELSE id::text = $2 END`, name, id).
		Scan(&c.Chain, &c.Ctx, &c.Seq, &c.At, &c.Hash, &c.Open, &c.moving)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	c.At = c.At.UTC()
	return &c, err
}

// moved returns the head with which a context was held in from when it goes on in to, and errNotMoved when to has nothing of it.
func moved(ctx context.Context, from, to Place, name string) (audit.Head, error) {
	var head audit.Head
	err := within(ctx, to.Database, func(tx pgx.Tx) error {
		there, err := chainOf(ctx, tx, name, "")
		if err != nil {
			return err
		}
		if there == nil {
			all, err := tables(ctx, tx)
			if err == nil {
				err = vacant(ctx, tx, all, []string{name})
			}
			if err == nil {
				err = errNotMoved
			}
			return err
		}
		return within(ctx, from.Database, func(tx pgx.Tx) error {
			here, err := chainOf(ctx, tx, name, there.Chain)
			switch {
			case err != nil:
				return err
			case here == nil:
				return fmt.Errorf("%q %w there, and is another participant's: move it under another name, or into another connector", name, ErrExists)
			case !here.moving || there.moving || there.Seq <= here.Seq:
				return fmt.Errorf("%q %w there: it was moved from there to here, and is not deleted there yet", name, ErrExists)
			}
			head = here.Head
			head.Open = true
			return nil
		})
	})
	return head, err
}

// within runs f in a transaction that changes nothing.
func within(ctx context.Context, cc *pgx.ConnConfig, f func(pgx.Tx) error) error {
	conn, tx, err := begin(ctx, cc, pgx.TxOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return f(tx)
}

// carry exports from one place and imports into the other one.
func carry(ctx context.Context, from, to Place, name string) error {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	r, w := io.Pipe()
	exported := make(chan struct{})
	var failed error
	go func() {
		_, _, failed = Export(ctx, from.Database, from.Vault, w, []age.Recipient{key.Recipient()}, name)
		close(exported) // before the other end can hear of it
		w.CloseWithError(failed)
	}()
	guard := func() {}
	defer func() { guard() }()
	_, _, err = bring(ctx, to.Database, r, func(i *importer) error {
		end, err := keepHeld(ctx, from.Database, name, i.heads)
		guard = end
		if err != nil {
			return err
		}
		if _, err := i.tx.Exec(ctx, "UPDATE control_plane.participants SET active = false WHERE ctx = $1", name); err != nil {
			return fmt.Errorf("bring %s in inactive: %w", name, err)
		}
		// The name is this transaction's as long as it lives: nobody makes a context of it, brings it in, or lets it go on in from.
		return replaceSecrets(ctx, to.Vault, name, i.secrets, i.tx)
	}, key)
	select {
	case <-exported:
		return cmp.Or(failed, err)
	default:
		_ = r.CloseWithError(err)
		<-exported
		return err
	}
}

// keepHeld makes sure that a context is still held, as it was when it was exported, and stays so until end is called.
func keepHeld(ctx context.Context, cc *pgx.ConnConfig, name string, exported []audit.Head) (end func(), err error) {
	conn, tx, err := begin(ctx, cc, pgx.TxOptions{})
	if err != nil {
		return func() {}, err
	}
	end = func() { _ = conn.Close(context.WithoutCancel(ctx)) }
	if _, err = tx.Exec(ctx, "SELECT FROM audit.chains WHERE ctx = $1 AND open FOR SHARE", name); err != nil {
		return end, fmt.Errorf("keep %s held: %w", name, busy(err))
	}
	here, err := chainOf(ctx, tx, name, "")
	if err == nil && (here == nil || !here.moving || !slices.Contains(exported, here.Head)) {
		err = fmt.Errorf("%q was released meanwhile: begin again", name)
	}
	return end, err
}

// replaceSecrets makes those the only ones that the Vault has of a context. Nothing is deleted but while tx, which has taken the name of the context in the
// connector, lives.
func replaceSecrets(ctx context.Context, kv vault.KV, name string, secrets []secret, tx pgx.Tx) error {
	for _, s := range secrets {
		has, err := kv.Read(ctx, s.Path)
		switch {
		case errors.Is(err, vault.ErrNotFound):
			err = kv.Create(ctx, s.Path, s.Data)
		case err == nil && !maps.Equal(has, s.Data):
			err = kv.Write(ctx, s.Path, s.Data)
		}
		if err != nil {
			return fmt.Errorf("write %s to the vault: %w", s.Path, err)
		}
	}
	for _, kind := range kinds {
		names, err := kv.List(ctx, name+"/"+kind)
		if err != nil {
			return fmt.Errorf("list the %s of %s in the vault: %w", kind, name, err)
		}
		for _, n := range names {
			path := name + "/" + kind + "/" + n
			if slices.ContainsFunc(secrets, func(s secret) bool { return s.Path == path }) {
				continue
			}
			if _, err := tx.Exec(ctx, "SELECT"); err != nil {
				return fmt.Errorf("before %s is deleted from the vault: %w", path, err)
			}
			if err := kv.Delete(ctx, path); err != nil {
				return fmt.Errorf("delete %s from the vault: %w", path, err)
			}
		}
	}
	return nil
}

// Abort lets a connector go on with a context that Move has held and not brought into to, and removes what is left of it in the Vault of to. The error
// wraps ErrMoved, and nothing has changed, when to has it. A context that is not held goes on as it is. It returns the head of the audit trail.
func Abort(ctx context.Context, from, to Place, name string) (head audit.Head, err error) {
	err = within(ctx, to.Database, func(there pgx.Tx) error {
		return within(ctx, from.Database, func(here pgx.Tx) error {
			c, err := chainOf(ctx, here, name, "")
			if err != nil {
				return err
			}
			if c == nil {
				if c, err = chainOf(ctx, there, name, ""); err == nil && c != nil {
					return fmt.Errorf("%q %w", name, ErrMoved)
				}
				return cmp.Or(err, fmt.Errorf("%q: %w", name, ErrNoContext))
			}
			head = c.Head
			if !c.moving {
				return nil
			}
			return abort(ctx, here, there, to.Vault, name, c.Chain)
		})
	})
	return head, err
}

func abort(ctx context.Context, here, there pgx.Tx, kv vault.KV, name, id string) error {
	// Whoever brings the context in takes its name first: this waits for one who has, and keeps others from it until here is decided.
	taken, err := there.Exec(ctx, "INSERT INTO audit.chains (ctx) VALUES ($1) ON CONFLICT (ctx) WHERE open DO NOTHING", name)
	if err != nil {
		return fmt.Errorf("take the name of %s there: %w", name, busy(err))
	}
	vacated := taken.RowsAffected() == 1
	if !vacated {
		c, err := chainOf(ctx, there, name, "")
		if err != nil {
			return err
		}
		if c != nil && c.Chain == id {
			return fmt.Errorf("%q %w", name, ErrMoved)
		}
	}
	if _, err := here.Exec(ctx, "UPDATE audit.chains SET moving = false WHERE ctx = $1 AND open", name); err != nil {
		return fmt.Errorf("release %s: %w", name, busy(err))
	}
	if vacated {
		if err := replaceSecrets(ctx, kv, name, nil, there); err != nil {
			return err
		}
	}
	if _, err := there.Exec(ctx, "SELECT"); err != nil { // the name is still this one's
		return err
	}
	return here.Commit(ctx)
}
