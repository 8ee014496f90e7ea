// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"io"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/archive"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/vault"
)

// Export writes an archive of contexts of the connector of a configuration; of all when none is given.
func Export(ctx context.Context, cfg config.Config, w io.Writer, recipients []age.Recipient, contexts ...string) (*archive.Header, archive.Counts, error) {
	cc, kv, err := stores(ctx, cfg, vault.Backup)
	if err != nil {
		return nil, archive.Counts{}, err
	}
	return archive.Export(ctx, cc, kv, w, recipients, contexts...)
}

// Hold ends all that the connector of a configuration does for contexts that are to move (archive.Hold).
func Hold(ctx context.Context, cfg config.Config, contexts ...string) error {
	cc, err := cfg.Database.ConnConfig()
	if err != nil {
		return err
	}
	return archive.Hold(ctx, cc, contexts...)
}

// Release lets the connector of a configuration go on with contexts that were held (archive.Release).
func Release(ctx context.Context, cfg config.Config, contexts ...string) error {
	cc, err := cfg.Database.ConnConfig()
	if err != nil {
		return err
	}
	return archive.Release(ctx, cc, contexts...)
}

// Import brings an archive into the connector of a configuration, whose database is up to date.
func Import(ctx context.Context, cfg config.Config, r io.Reader, identities ...age.Identity) (*archive.Header, archive.Counts, error) {
	cc, kv, err := stores(ctx, cfg, vault.Restore)
	if err != nil {
		return nil, archive.Counts{}, err
	}
	return archive.Import(ctx, cc, kv, r, identities...)
}

// stores are the database and the Vault, which is asked first whether it lets do what is to be done.
func stores(ctx context.Context, cfg config.Config, access vault.Access) (*pgx.ConnConfig, vault.KV, error) {
	cc, err := cfg.Database.ConnConfig()
	if err != nil {
		return nil, nil, err
	}
	kv, err := vaultClient(cfg.Vault, access)
	if err != nil {
		return nil, nil, err
	}
	return cc, kv, kv.Probe(ctx)
}
