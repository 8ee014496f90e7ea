// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

// Participant is a participant context as one of its dataspace profiles has it: the default one when it is read, another one after In.
type Participant struct {
	Ctx         string
	DID         string `db:"did"`
	BPN         string `db:"bpn"`
	Active      bool
	SelfCheck   adminapi.SelfCheck
	ProfileName string          `db:"profile_name"`
	Profile     profile.Profile `db:"profile"`
	// Profiles are all that it takes part in, the default one first.
	Profiles []profile.Profile
}

// In is the participant as another of its profiles has it; empty is the default one. False when it does not take part in it.
func (p *Participant) In(name string) (*Participant, bool) {
	for _, f := range p.Profiles {
		if f.Name == name || name == "" {
			in := *p
			in.ProfileName, in.Profile = f.Name, f
			return &in, true
		}
	}
	return nil, false
}

// Default reports whether the participant is seen in its default profile.
func (p *Participant) Default() bool { return p.ProfileName == p.Profiles[0].Name }

// Local is the participant as identity.Service knows it.
func (p *Participant) Local() identity.Local {
	return identity.Local{Context: p.Ctx, DID: p.DID, Profile: p.ProfileName}
}

const selectParticipant = `SELECT p.ctx, p.did, p.bpn, p.active, p.self_check, p.profile AS profile_name, f.profile,
	(SELECT jsonb_agg(g.profile ORDER BY x.n) FROM unnest(p.profile || p.further_profiles) WITH ORDINALITY AS x (name, n)
		JOIN control_plane.profiles g ON g.name = x.name) AS profiles
	FROM control_plane.participants p JOIN control_plane.profiles f ON f.name = p.profile `

// Participant reads one participant with its profile.
func (s *Store) Participant(ctx context.Context, participant string) (*Participant, error) {
	return one[Participant](ctx, s.db.In(participant), selectParticipant+"WHERE p.ctx = $1", participant)
}

// PutParticipant makes or changes a participant. ErrConflict when a profile does not exist or another context has the DID. What belongs to a
// profile that the participant leaves stays, and goes on when it takes part in it again.
func (s *Store) PutParticipant(ctx context.Context, name string, p adminapi.Participant) error {
	if p.SelfCheck == "" {
		p.SelfCheck = adminapi.SelfCheckEnforce
	}
	err := s.tx(ctx, s.db.In(name), func(tx pgx.Tx) error {
		for _, f := range p.FurtherProfiles {
			err := tx.QueryRow(ctx, "SELECT name FROM control_plane.profiles WHERE name = $1 FOR KEY SHARE", f).Scan(&f)
			if errors.Is(err, pgx.ErrNoRows) {
				err = fmt.Errorf("%w: there is no profile %q", ErrConflict, f)
			}
			if err != nil {
				return err
			}
		}
		var had []string
		err := tx.QueryRow(ctx, "SELECT profile || further_profiles FROM control_plane.participants WHERE ctx = $1 FOR UPDATE", name).Scan(&had)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		made := false
		err = tx.QueryRow(ctx, `INSERT INTO control_plane.participants AS p (ctx, did, bpn, profile, further_profiles, active, self_check)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (ctx) DO UPDATE SET did = $2, bpn = $3, profile = $4, further_profiles = $5, active = $6, self_check = $7, updated_at = now()
			WHERE (p.did, p.bpn, p.profile, p.further_profiles, p.active, p.self_check) <> ($2, $3, $4, $5, $6, $7) RETURNING xmax = 0`,
			name, p.DID, p.BPN, p.Profile, list(p.FurtherProfiles), p.Active, p.SelfCheck).Scan(&made)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // it is so already
		}
		if err != nil {
			return err
		}
		e := audit.Entry{Type: audit.ParticipantChanged, Body: participantIs{p.DID, p.BPN, p.Profile, p.FurtherProfiles, p.Active, p.SelfCheck}}
		if made {
			e.Type = audit.ParticipantMade
			if err := audit.Open(ctx, tx, name); err != nil {
				return err
			}
		}
		entries := []audit.Entry{e}
		rows, err := many[struct{ Profile profile.Profile }](ctx, tx, `SELECT f.profile FROM unnest($1::text[]) WITH ORDINALITY x (name, n)
			JOIN control_plane.profiles f ON f.name = x.name WHERE f.name <> ALL ($2) ORDER BY n FOR SHARE OF f`, append([]string{p.Profile}, p.FurtherProfiles...), list(had))
		if err != nil {
			return err
		}
		for _, r := range rows {
			is, err := profileNow(r.Profile)
			if err != nil {
				return err
			}
			entries = append(entries, audit.Entry{Type: audit.Profile, Body: is})
		}
		return audit.Append(ctx, tx, name, entries...)
	})
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w (DID %s, profile %s)", err, p.DID, p.Profile)
	}
	return err
}

// DeleteParticipant removes a participant and all of its data, and closes its audit trail, which stays.
func (s *Store) DeleteParticipant(ctx context.Context, name string) error {
	return s.tx(ctx, s.db.In(name), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM control_plane.participants WHERE ctx = $1", name)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		return audit.Close(ctx, tx, name)
	})
}

// PutProfile makes or changes a dataspace profile. A change is recorded for each participant that takes part in it.
func (s *Store) PutProfile(ctx context.Context, p profile.Profile) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	is, err := profileNow(p)
	if err != nil {
		return err
	}
	body, err := audit.Entry{Type: audit.Profile, Body: is}.JSON()
	if err != nil {
		return err
	}
	return s.tx(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO control_plane.profiles AS p (name, profile) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET profile = $2, updated_at = now() WHERE p.profile <> $2`, p.Name, raw)
		if err != nil || tag.RowsAffected() == 0 { // it is so already
			return err
		}
		_, err = tx.Exec(ctx, "SELECT control_plane.record_profile($1, $2, $3, $4::json)", p.Name, audit.Profile, audit.Actor(ctx), body)
		return err
	})
}

// Profile reads a dataspace profile.
func (s *Store) Profile(ctx context.Context, name string) (*profile.Profile, error) {
	row, err := one[struct{ Profile profile.Profile }](ctx, s.db, "SELECT profile FROM control_plane.profiles WHERE name = $1", name)
	if err != nil {
		return nil, err
	}
	return &row.Profile, nil
}

// DeleteProfile removes a profile; ErrConflict while a participant uses it.
func (s *Store) DeleteProfile(ctx context.Context, name string) error {
	return s.tx(ctx, s.db, func(tx pgx.Tx) error {
		// The lock comes first, so that the next statement sees a participant that takes the profile up meanwhile.
		if err := tx.QueryRow(ctx, "SELECT name FROM control_plane.profiles WHERE name = $1 FOR UPDATE", name).Scan(&name); err != nil {
			return err
		}
		var used bool
		if err := tx.QueryRow(ctx, "SELECT control_plane.is_further_profile($1)", name).Scan(&used); err != nil {
			return err
		}
		if used {
			return fmt.Errorf("%w: a participant takes part in profile %q", ErrConflict, name)
		}
		_, err := tx.Exec(ctx, "DELETE FROM control_plane.profiles WHERE name = $1", name)
		return err
	})
}
