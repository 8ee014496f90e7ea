// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/vault"
)

// kinds of what the Vault holds of an owner (package vault).
var kinds = []string{"keys", "secrets"}

// Export writes an archive of contexts, of all when none is given and none of them is held, to w, encrypted to the recipients. It shows the database as it was at one moment,
// and may be made while the connector works. It takes the account that migrates, and a Vault that lets it list and read.
func Export(ctx context.Context, cc *pgx.ConnConfig, kv vault.KV, w io.Writer, recipients []age.Recipient, contexts ...string) (*Header, Counts, error) {
	var n Counts
	conn, tx, err := begin(ctx, cc, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, n, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	h := Header{Format: format, MadeAt: time.Now().UTC().Truncate(time.Second)}
	if h.Schemas, err = versions(ctx, tx); err != nil {
		return nil, n, err
	}
	if h.Contexts, err = choose(ctx, tx, contexts); err != nil {
		return nil, n, err
	}
	all, err := tables(ctx, tx)
	if err != nil {
		return nil, n, err
	}
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return nil, n, fmt.Errorf("encrypt: %w", err)
	}
	packed := gzip.NewWriter(sealed)
	out := json.NewEncoder(packed)
	if err := out.Encode(entry{Header: &h}); err != nil {
		return nil, n, err
	}
	for _, t := range all {
		if err := writeRows(ctx, tx, out, &t, h.Contexts, &n.Rows); err != nil {
			return nil, n, fmt.Errorf("export %s: %w", t.Name, err)
		}
	}
	if err := writeSecrets(ctx, tx, kv, out, h.Contexts, &n.Secrets); err != nil {
		return nil, n, err
	}
	if err := out.Encode(entry{End: &n}); err != nil {
		return nil, n, err
	}
	if err := packed.Close(); err != nil {
		return nil, n, err
	}
	return &h, n, sealed.Close()
}

// choose returns the contexts to export, sorted: all of which there is an audit chain or an issuer, or those that are wanted.
func choose(ctx context.Context, tx pgx.Tx, wanted []string) ([]string, error) {
	rows, err := tx.Query(ctx, "SELECT ctx FROM wallet.participants UNION SELECT ctx FROM control_plane.participants UNION SELECT ctx FROM issuer.issuers UNION SELECT ctx FROM audit.chains WHERE open OR NOT moving ORDER BY 1")
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 {
		var held *string // who would be active where this is imported, and where it moves to
		if err := tx.QueryRow(ctx, "SELECT min(ctx) FROM audit.chains WHERE open AND moving").Scan(&held); err != nil {
			return nil, err
		}
		if held != nil {
			return nil, fmt.Errorf("%q: %w", *held, ErrMoving)
		}
		return all, nil
	}
	wanted = slices.Clone(wanted)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	for _, c := range wanted {
		if !slices.Contains(all, c) {
			return nil, fmt.Errorf("%q: %w", c, ErrNoContext)
		}
	}
	return wanted, nil
}

func writeRows(ctx context.Context, tx pgx.Tx, out *json.Encoder, t *table, contexts []string, n *int64) error {
	if err := out.Encode(entry{Table: t}); err != nil {
		return err
	}
	texts := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		texts[i] = pgx.Identifier{c}.Sanitize() + "::text"
	}
	sql := "SELECT " + strings.Join(texts, ", ") + " FROM " + t.identifier() + " WHERE " + t.in()
	if t.Name == records {
		sql += " ORDER BY records.chain, records.seq" // not by their texts
	}
	rows, err := tx.Query(ctx, sql, contexts)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row := make([]*string, len(t.Columns))
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := out.Encode(entry{Row: row}); err != nil {
			return err
		}
		*n++
	}
	return rows.Err()
}

// writeSecrets reads the Vault after the database: keys are made before the row that names them, and removed long after nobody uses them.
func writeSecrets(ctx context.Context, tx pgx.Tx, kv vault.KV, out *json.Encoder, contexts []string, n *int64) error {
	rows, err := tx.Query(ctx, "SELECT ctx || '/keys/' || kid FROM wallet.keys WHERE active AND ctx = ANY ($1) UNION SELECT ctx || '/keys/' || kid FROM issuer.keys WHERE active AND ctx = ANY ($1)", contexts)
	if err != nil {
		return err
	}
	needed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, c := range contexts {
		for _, kind := range kinds {
			names, err := kv.List(ctx, c+"/"+kind)
			if err != nil {
				return fmt.Errorf("list the %s of %s in the vault: %w", kind, c, err)
			}
			slices.Sort(names)
			for _, name := range names {
				path := c + "/" + kind + "/" + name
				data, err := kv.Read(ctx, path)
				if errors.Is(err, vault.ErrNotFound) {
					continue // removed meanwhile, or listed though its newest version was deleted
				}
				if err != nil {
					return fmt.Errorf("read %s from the vault: %w", path, err)
				}
				if err := out.Encode(entry{Secret: &secret{Path: path, Data: data}}); err != nil {
					return err
				}
				needed = slices.DeleteFunc(needed, func(k string) bool { return k == path })
				*n++
			}
		}
	}
	if len(needed) > 0 {
		return fmt.Errorf("the vault has no %s, with which the context signs: see that vault.address, mount and prefix are the connector's own", strings.Join(needed, ", "))
	}
	return nil
}
