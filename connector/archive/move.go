// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Hold ends, before an export, all that the connector does for contexts which are to move: from the moment that it returns nothing is recorded of them,
// and nothing is done that would be, such as a message, an access to data, a credential that comes in. What is under way goes on where they are imported,
// as after a crash. Once they are active there, deleting them here leaves their audit trail as it is, to go on elsewhere; Import brings it back.
// It takes the account that migrates.
func Hold(ctx context.Context, cc *pgx.ConnConfig, contexts ...string) error {
	return mark(ctx, cc, true, contexts)
}

// Release lets the connector go on with contexts that were held, and were imported nowhere.
func Release(ctx context.Context, cc *pgx.ConnConfig, contexts ...string) error {
	return mark(ctx, cc, false, contexts)
}

func mark(ctx context.Context, cc *pgx.ConnConfig, moving bool, contexts []string) error {
	conn, tx, err := begin(ctx, cc, pgx.TxOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := tx.Query(ctx, "UPDATE audit.chains SET moving = $1 WHERE ctx = ANY ($2) AND open RETURNING ctx", moving, contexts)
	if err != nil {
		return fmt.Errorf("mark the audit trails: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("mark the audit trails: %w", busy(err))
	}
	for _, c := range contexts {
		if !slices.Contains(found, c) {
			return fmt.Errorf("%q: %w", c, ErrNoContext)
		}
	}
	return tx.Commit(ctx)
}
