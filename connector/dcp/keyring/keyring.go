// SPDX-License-Identifier: Apache-2.0

// Package keyring keeps the keys of the DIDs that a wallet or an issuer answers for: private ones in the vault, public ones in the role's
// table <schema>.keys (ctx, kid, public_jwk, active, created_at, retired_at), from which the DID document is made. It serves nothing.
package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/store/tenant"
	"github.com/kaphera/kaphera/connector/vault"
)

// Ring keeps the keys of one role.
type Ring struct {
	db    tenant.DB
	vault *vault.Store
	table string
	due   string
	keep  time.Duration
	now   func() time.Time
}

// New makes a ring for a schema (wallet or issuer). A key that was replaced is kept for the time given, which the longest-lived thing that
// every key signs needs, and for as long as the schema's function keys_to_remove finds that it is used.
func New(db tenant.DB, store *vault.Store, schema string, keep time.Duration, now func() time.Time) *Ring {
	return &Ring{db: db, vault: store, table: pgx.Identifier{schema, "keys"}.Sanitize(), due: pgx.Identifier{schema, "keys_to_remove"}.Sanitize(), keep: keep, now: now}
}

// algorithms by the name that the admin API has for them; ES256 is the default.
var algorithms = map[string]jwa.SignatureAlgorithm{"": jwa.ES256(), "ES256": jwa.ES256(), "EdDSA": jwa.EdDSA()}

// Own stores who a DID belongs to, by upsert, which returns the DID that owner has, and sees to owner's key, all together: it makes the
// first one, and replaces one that is older than wish.Generation or for another algorithm. It returns the id of the active key. Errors to
// answer with: a wish that cannot be fulfilled, a DID that is another owner's or not the one that owner has.
func (r *Ring) Own(ctx context.Context, owner, did string, wish adminapi.Key, upsert func(pgx.Tx) (string, error)) (string, error) {
	if _, ok := algorithms[wish.Algorithm]; !ok || wish.Generation < 0 {
		return "", dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "key: algorithm %q, generation %d: use ES256 or EdDSA, and no negative number",
			wish.Algorithm, wish.Generation)
	}
	var kid string
	err := pgx.BeginFunc(ctx, r.db.In(owner), func(tx pgx.Tx) error {
		has, err := upsert(tx)
		if err != nil {
			return err
		}
		if has != did { // a DID is for good: credentials and agreements name it
			return dcp.Failuref(http.StatusConflict, "conflict", "%s has the DID %s already; delete it first to give it %s", owner, has, did)
		}
		kid, err = r.ensure(ctx, tx, owner, wish)
		return err
	})
	var pe *pgconn.PgError
	if errors.As(err, &pe) && strings.HasSuffix(pe.ConstraintName, "_did_key") {
		return "", dcp.Failuref(http.StatusConflict, "conflict", "the DID %s belongs to another participant or issuer here", did)
	}
	return did + "#" + kid, err
}

// ensure returns the kid of the active key. The row of owner must exist in tx.
func (r *Ring) ensure(ctx context.Context, tx pgx.Tx, owner string, wish adminapi.Key) (string, error) {
	kid, alg, err := r.active(ctx, tx, owner)
	if err != nil {
		return "", err
	}
	generation := generationOf(kid)
	switch {
	case kid == "":
		return r.replace(ctx, tx, owner, max(1, wish.Generation), algorithms[wish.Algorithm])
	case wish.Generation > generation:
		generation = wish.Generation
	case wish.Algorithm != "" && algorithms[wish.Algorithm] != alg:
		generation++
	default:
		// Also a key that is known: the vault may have been replaced, and then makes a new one under this kid.
		return kid, r.put(ctx, tx, owner, kid, alg)
	}
	if wish.Algorithm != "" {
		alg = algorithms[wish.Algorithm]
	}
	return r.replace(ctx, tx, owner, generation, alg)
}

// Rotate makes a new active key for the same algorithm. The old one stays in the DID document for as long as what it signed is to be
// verified, but signs no more.
func (r *Ring) Rotate(ctx context.Context, owner string) (kid string, err error) {
	err = pgx.BeginFunc(ctx, r.db.In(owner), func(tx pgx.Tx) error {
		old, alg, err := r.active(ctx, tx, owner)
		if err != nil {
			return err
		}
		kid, err = r.replace(ctx, tx, owner, generationOf(old)+1, alg)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("rotate the key of %s: %w", owner, err)
	}
	return kid, nil
}

// generationOf is the number of a key: kids are key-1, key-2 and so on, and none is used twice.
func generationOf(kid string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(kid, "key-"))
	if err != nil {
		return 0
	}
	return n
}

// active returns owner's active key, which stays so until tx ends; the kid is empty when there is none.
func (r *Ring) active(ctx context.Context, tx pgx.Tx, owner string) (kid string, alg jwa.SignatureAlgorithm, err error) {
	if _, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", r.table+" "+owner); err != nil {
		return "", alg, err
	}
	var kty string
	err = tx.QueryRow(ctx, "SELECT kid, public_jwk->>'kty' FROM "+r.table+" WHERE ctx = $1 AND active", owner).Scan(&kid, &kty)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	if alg = jwa.ES256(); kty == "OKP" {
		alg = jwa.EdDSA()
	}
	return kid, alg, err
}

func (r *Ring) replace(ctx context.Context, tx pgx.Tx, owner string, generation int, alg jwa.SignatureAlgorithm) (string, error) {
	if _, err := tx.Exec(ctx, "UPDATE "+r.table+" SET active = false, retired_at = $2 WHERE ctx = $1 AND active", owner, r.now()); err != nil {
		return "", err
	}
	kid := fmt.Sprintf("key-%d", generation)
	return kid, r.put(ctx, tx, owner, kid, alg)
}

func (r *Ring) put(ctx context.Context, tx pgx.Tx, owner, kid string, alg jwa.SignatureAlgorithm) error {
	private, err := r.vault.CreateKey(ctx, owner, kid, alg)
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

// Prune removes the keys that were replaced and that nothing needs any more, private ones first.
func (r *Ring) Prune(ctx context.Context) error {
	rows, err := r.db.Query(ctx, "SELECT ctx, kid FROM "+r.due+"($1, $2)", r.now(), r.keep)
	if err != nil {
		return err
	}
	type key struct{ Ctx, Kid string }
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[key])
	for _, k := range keys {
		if err := r.vault.DeleteKey(ctx, k.Ctx, k.Kid); err != nil {
			return fmt.Errorf("remove the old key %s of %s: %w", k.Kid, k.Ctx, err)
		}
		if _, err := r.db.In(k.Ctx).Exec(ctx, "DELETE FROM "+r.table+" WHERE ctx = $1 AND kid = $2 AND NOT active", k.Ctx, k.Kid); err != nil {
			return err
		}
	}
	return err
}

// Signer returns owner's active key.
func (r *Ring) Signer(ctx context.Context, owner, did string) (dcp.SigningKey, error) {
	var kid string
	var created time.Time
	if err := r.db.In(owner).QueryRow(ctx, "SELECT kid, created_at FROM "+r.table+" WHERE ctx = $1 AND active", owner).Scan(&kid, &created); err != nil {
		return dcp.SigningKey{}, fmt.Errorf("active key of %s: %w", owner, err)
	}
	private, err := r.vault.Key(ctx, owner, kid, created)
	if err != nil {
		return dcp.SigningKey{}, fmt.Errorf("active key of %s: %w", owner, err)
	}
	return dcp.SigningKey{ID: did + "#" + kid, Private: private}, nil
}

// Document makes owner's DID document.
func (r *Ring) Document(ctx context.Context, owner, did string, services map[string]string) (*dcp.Document, error) {
	rows, err := r.db.In(owner).Query(ctx, "SELECT kid, public_jwk FROM "+r.table+" WHERE ctx = $1 ORDER BY created_at, kid", owner)
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
	return r.vault.DeleteKeys(ctx, owner)
}
