// SPDX-License-Identifier: Apache-2.0

// Package keyring keeps the keys of the DIDs that a wallet or an issuer answers for: private ones in the vault, public ones in the role's
// table <schema>.keys (ctx, kid, public_jwk, active, created_at), from which the DID document is made. It serves nothing.
package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/vault"
)

// Ring keeps the keys of one role.
type Ring struct {
	db    *pgxpool.Pool
	vault *vault.Store
	table string
	alg   jwa.SignatureAlgorithm
	now   func() time.Time
}

// New makes a ring for a schema (wallet or issuer); new keys are for alg, "ES256" (default) or "EdDSA".
func New(db *pgxpool.Pool, store *vault.Store, schema, alg string, now func() time.Time) (*Ring, error) {
	algorithm := jwa.ES256()
	switch alg {
	case "", "ES256":
	case "EdDSA", "Ed25519":
		algorithm = jwa.EdDSA()
	default:
		return nil, fmt.Errorf("key algorithm %q: use ES256 or EdDSA", alg)
	}
	return &Ring{db: db, vault: store, table: pgx.Identifier{schema, "keys"}.Sanitize(), alg: algorithm, now: now}, nil
}

// Ensure makes owner's first key when there is none and returns the kid of the active one. The row of owner must exist in tx.
func (r *Ring) Ensure(ctx context.Context, tx pgx.Tx, owner string) (string, error) {
	var kid string
	err := tx.QueryRow(ctx, "SELECT kid FROM "+r.table+" WHERE ctx = $1 AND active", owner).Scan(&kid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", err
	}
	if kid == "" {
		kid = "key-1"
	}
	// Also for a key that is known: the vault may have been replaced, and then holds a new one under this kid.
	return kid, r.put(ctx, tx, owner, kid)
}

func (r *Ring) put(ctx context.Context, tx pgx.Tx, owner, kid string) error {
	private, err := r.vault.CreateKey(ctx, owner, kid, r.alg)
	if err != nil {
		return err
	}
	public, err := jwk.PublicKeyOf(private)
	if err != nil {
		return fmt.Errorf("public key of %s of %s: %w", kid, owner, err)
	}
	raw, err := json.Marshal(public)
	if err != nil {
		return fmt.Errorf("public key of %s of %s: %w", kid, owner, err)
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+r.table+" (ctx, kid, public_jwk, active, created_at) VALUES ($1, $2, $3, true, $4) "+
		"ON CONFLICT (ctx, kid) DO UPDATE SET public_jwk = excluded.public_jwk", owner, kid, raw, r.now())
	return err
}

// Rotate makes a new active key. The old one stays in the DID document, so that what it signed goes on verifying, but signs no more.
func (r *Ring) Rotate(ctx context.Context, owner string) (string, error) {
	var kid string
	err := pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error {
		var keys int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+r.table+" WHERE ctx = $1 FOR UPDATE) AS locked", owner).Scan(&keys); err != nil {
			return err
		}
		kid = fmt.Sprintf("key-%d", keys+1)
		if _, err := tx.Exec(ctx, "UPDATE "+r.table+" SET active = false WHERE ctx = $1", owner); err != nil {
			return err
		}
		return r.put(ctx, tx, owner, kid)
	})
	if err != nil {
		return "", fmt.Errorf("rotate the key of %s: %w", owner, err)
	}
	return kid, nil
}

// Signer returns owner's active key.
func (r *Ring) Signer(ctx context.Context, owner, did string) (dcp.SigningKey, error) {
	var kid string
	if err := r.db.QueryRow(ctx, "SELECT kid FROM "+r.table+" WHERE ctx = $1 AND active", owner).Scan(&kid); err != nil {
		return dcp.SigningKey{}, fmt.Errorf("active key of %s: %w", owner, err)
	}
	private, err := r.vault.Key(ctx, owner, kid)
	if err != nil {
		return dcp.SigningKey{}, fmt.Errorf("active key of %s: %w", owner, err)
	}
	return dcp.SigningKey{ID: did + "#" + kid, Private: private}, nil
}

// Document makes owner's DID document.
func (r *Ring) Document(ctx context.Context, owner, did string, services map[string]string) (*dcp.Document, error) {
	rows, err := r.db.Query(ctx, "SELECT kid, public_jwk FROM "+r.table+" WHERE ctx = $1 ORDER BY created_at, kid", owner)
	if err != nil {
		return nil, err
	}
	doc := &dcp.Document{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1", dcp.Context},
		ID:      did,
	}
	var kid string
	var public []byte
	_, err = pgx.ForEachRow(rows, []any{&kid, &public}, func() error {
		id := did + "#" + kid
		doc.VerificationMethod = append(doc.VerificationMethod, dcp.VerificationMethod{
			ID: id, Type: "JsonWebKey2020", Controller: did, PublicKeyJWK: append(json.RawMessage(nil), public...),
		})
		for _, rel := range []*dcp.Methods{&doc.Authentication, &doc.AssertionMethod, &doc.CapInvocation} {
			rel.IDs = append(rel.IDs, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{dcp.CredentialService, dcp.DataService, dcp.IssuerService} {
		if address := services[kind]; address != "" {
			endpoint, err := json.Marshal(address)
			if err != nil {
				return nil, err
			}
			doc.Service = append(doc.Service, dcp.DocumentService{ID: did + "#" + kind, Type: dcp.ServiceTypes{kind}, Endpoint: endpoint})
		}
	}
	return doc, nil
}

// Destroy removes owner's private keys from the vault; its rows go with the row of owner.
func (r *Ring) Destroy(ctx context.Context, owner string) error {
	rows, err := r.db.Query(ctx, "SELECT kid FROM "+r.table+" WHERE ctx = $1", owner)
	if err != nil {
		return err
	}
	kids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, kid := range kids {
		if err := r.vault.DeleteKey(ctx, owner, kid); err != nil {
			return err
		}
	}
	return nil
}
