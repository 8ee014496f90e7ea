// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PostgresReplay remembers used tokens in <schema>.used_tokens (digest bytea PRIMARY KEY, expires_at timestamptz), so that a token is
// accepted once by all replicas of a role together.
type PostgresReplay struct {
	db    *pgxpool.Pool
	table string
}

// NewPostgresReplay makes one for a schema: control_plane, wallet or issuer.
func NewPostgresReplay(db *pgxpool.Pool, schema string) *PostgresReplay {
	return &PostgresReplay{db: db, table: pgx.Identifier{schema, "used_tokens"}.Sanitize()}
}

// Use implements Replay.
func (p *PostgresReplay) Use(ctx context.Context, issuer, id string, until time.Time) (bool, error) {
	digest := tokenDigest(issuer, id)
	tag, err := p.db.Exec(ctx, "INSERT INTO "+p.table+" (digest, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING", digest[:], until)
	if err != nil {
		return false, err
	}
	return tag.RowsAffected() == 1, nil
}

// Run removes tokens that have ended, every minute, until ctx ends.
func (p *PostgresReplay) Run(ctx context.Context) error {
	return Every(ctx, time.Minute, nil, slog.Default(), "removing used tokens from "+p.table, func(ctx context.Context) error {
		_, err := p.db.Exec(ctx, "DELETE FROM "+p.table+" WHERE expires_at < now() - interval '1 minute'")
		return err
	})
}

// MemoryReplay remembers used tokens in one process; for tests and for tools.
type MemoryReplay struct {
	mu   sync.Mutex
	used map[[sha256.Size]byte]time.Time
	max  int
}

// NewMemoryReplay remembers at most limit tokens at a time; when full it refuses with an error instead of forgetting one.
func NewMemoryReplay(limit int) *MemoryReplay {
	return &MemoryReplay{used: map[[sha256.Size]byte]time.Time{}, max: limit}
}

// Use implements Replay.
func (m *MemoryReplay) Use(_ context.Context, issuer, id string, until time.Time) (bool, error) {
	digest := tokenDigest(issuer, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.used[digest]; ok {
		return false, nil
	}
	if len(m.used) >= m.max {
		for d, end := range m.used {
			if end.Before(time.Now()) {
				delete(m.used, d)
			}
		}
		if len(m.used) >= m.max {
			return false, fmt.Errorf("%d tokens are remembered already", m.max)
		}
	}
	m.used[digest] = until
	return true, nil
}

func tokenDigest(issuer, id string) [sha256.Size]byte {
	return sha256.Sum256([]byte(issuer + "\x00" + id))
}
