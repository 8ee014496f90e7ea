// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
)

// UseCase is a use case with the revision that is in force for a participant.
type UseCase struct {
	Ctx      string
	ID       string                   `db:"id"` // its name
	Revision adminapi.UseCaseRevision // without gates
	Since    time.Time
}

// Ref names its revision.
func (u *UseCase) Ref() *adminapi.RevisionRef {
	return &adminapi.RevisionRef{Number: u.Revision.Number, Hash: u.Revision.Hash}
}

// Terms are what a revision makes of an offer.
type Terms struct {
	AccessPolicy, ContractPolicy json.RawMessage
	Gates                        []adminapi.Gate
	// Applies tells whether the revision is about offers that are made in these of the participant's dataspace profiles.
	Applies func(profiles []string) bool
}

// UseCase reads one.
func (s *Store) UseCase(ctx context.Context, participant, name string) (*UseCase, error) {
	return one[UseCase](ctx, s.db.In(participant), "SELECT * FROM control_plane.use_cases WHERE ctx = $1 AND id = $2", participant, name)
}

// UseCases lists them by name.
func (s *Store) UseCases(ctx context.Context, participant string) ([]*UseCase, error) {
	return many[UseCase](ctx, s.db.In(participant), "SELECT * FROM control_plane.use_cases WHERE ctx = $1 ORDER BY id", participant)
}

// revised is the body of the audit record of a revision that comes into force.
type revised struct {
	UseCase string   `json:"useCase"`
	Number  int      `json:"revision"`
	SHA256  string   `json:"sha256"`            // of its content
	SignOff string   `json:"signOff,omitempty"` // JWS
	Offers  []string `json:"offers"`            // changed to it
}

// BringIntoForce makes the revision that decide returns for the one in force (nil: none) the one in force, and changes the participant's offers under
// the use case to its terms, in one transaction. Agreements and negotiations keep what they have.
func (s *Store) BringIntoForce(ctx context.Context, participant, name string, terms Terms, decide func(inForce *adminapi.UseCaseRevision) (adminapi.UseCaseRevision, error)) error {
	return s.tx(ctx, s.db.In(participant), func(tx pgx.Tx) error {
		// Revisions of a participant come one by one, also the first of a use case, which has no row to lock.
		if _, err := tx.Exec(ctx, "SELECT FROM control_plane.participants WHERE ctx = $1 FOR NO KEY UPDATE", participant); err != nil {
			return err
		}
		var inForce *adminapi.UseCaseRevision
		before, err := one[UseCase](ctx, tx, "SELECT * FROM control_plane.use_cases WHERE ctx = $1 AND id = $2", participant, name)
		if err == nil {
			inForce = &before.Revision
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		r, err := decide(inForce)
		if err != nil {
			return err
		}
		r.Gates = nil
		if _, err := tx.Exec(ctx, `INSERT INTO control_plane.use_cases (ctx, id, revision) VALUES ($1, $2, $3)
			ON CONFLICT (ctx, id) DO UPDATE SET revision = excluded.revision, since = excluded.since`, participant, name, r); err != nil {
			return err
		}
		u := UseCase{Revision: r}
		offers, err := many[Definition](ctx, tx, selectDefinition+"WHERE d.ctx = $1 AND d.use_case = $2 ORDER BY d.id", participant, name)
		if err != nil {
			return err
		}
		body := revised{UseCase: name, Number: r.Number, SHA256: r.Hash, SignOff: r.SignOff, Offers: []string{}}
		for _, d := range offers {
			if !terms.Applies(d.Profiles) {
				continue
			}
			d.ContractPolicy, d.AccessPolicy, d.Gates, d.Revision = terms.ContractPolicy, terms.AccessPolicy, terms.Gates, u.Ref()
			if terms.AccessPolicy == nil {
				d.AccessPolicyID = nil
			} else if d.AccessPolicyID == nil {
				id := AccessPolicyID(d.ID)
				d.AccessPolicyID = &id
			}
			if err := putDefinition(ctx, tx, d); err != nil {
				return err
			}
			body.Offers = append(body.Offers, d.ID)
		}
		return audit.Append(ctx, tx, participant, audit.Entry{Type: audit.UseCase, Body: body})
	})
}

// AccessPolicyID is where the access policy of an offer is kept that was given inline.
func AccessPolicyID(offer string) string { return offer + ":access" }

// underRevision refuses (ErrConflict) an offer that is not of the revision that is in force now.
func underRevision(ctx context.Context, tx pgx.Tx, d *Definition) error {
	if d.UseCase == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, "SELECT FROM control_plane.participants WHERE ctx = $1 FOR SHARE", d.Ctx); err != nil { // no revision comes meanwhile
		return err
	}
	u, err := one[UseCase](ctx, tx, "SELECT * FROM control_plane.use_cases WHERE ctx = $1 AND id = $2", d.Ctx, d.UseCase)
	switch {
	case errors.Is(err, ErrNotFound) && d.Revision == nil:
		return nil
	case err != nil:
		return err
	case d.Revision == nil || *d.Revision != *u.Ref():
		return fmt.Errorf("%w: revision %d of use case %s has come into force meanwhile: make the offer again", ErrConflict, u.Revision.Number, d.UseCase)
	}
	return nil
}
