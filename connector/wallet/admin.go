// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dcp"
)

var contextName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// byPath returns the participant that the path names, or 404.
func (w *Wallet) byPath(r *http.Request) (participant, error) {
	p, err := w.store.participant(r.Context(), r.PathValue("ctx"))
	if errors.Is(err, errNoParticipant) {
		return p, dcp.Failuref(http.StatusNotFound, "not-found", "there is no participant %q in this wallet", r.PathValue("ctx"))
	}
	return p, err
}

func (w *Wallet) putParticipant(r *http.Request) (any, error) {
	ctx := r.Context()
	var body adminapi.WalletParticipant
	if err := dcp.ReadJSON(r, &body); err != nil {
		return nil, err
	}
	pctx := r.PathValue("ctx")
	if !contextName.MatchString(pctx) {
		return nil, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "participant context %q: use lower-case letters, digits and dashes, at most 63", pctx)
	}
	if err := dcp.CheckPublished(body.DID, cmp.Or(body.PublicURL, w.publicURL), pctx); err != nil {
		return nil, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "did: %v", err)
	}
	for i, ti := range body.TrustedIssuers {
		if ti.DID == "" || len(ti.Types) == 0 {
			return nil, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "trustedIssuers[%d]: did and types are both needed", i)
		}
	}
	trust, err := json.Marshal(body.TrustedIssuers)
	if err != nil {
		return nil, err
	}
	if body.TrustedIssuers == nil {
		trust = []byte("[]")
	}
	keyID, err := w.ring.Own(ctx, pctx, body.DID, body.Key, func(tx pgx.Tx) (did string, err error) {
		err = tx.QueryRow(ctx, `INSERT INTO wallet.participants (ctx, did, trusted_issuers, updated_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (ctx) DO UPDATE SET trusted_issuers = excluded.trusted_issuers, updated_at = excluded.updated_at RETURNING did`,
			pctx, body.DID, trust, w.now()).Scan(&did)
		if err == nil {
			err = audit.Open(ctx, tx, pctx)
		}
		return did, err
	})
	return adminapi.WalletParticipantStatus{DID: body.DID, KeyID: keyID}, err
}

func (w *Wallet) getParticipant(r *http.Request) (any, error) {
	p, err := w.byPath(r)
	if err != nil {
		return nil, err
	}
	key, err := w.ring.Signer(r.Context(), p.ctx, p.did)
	if err != nil {
		return nil, err
	}
	return adminapi.WalletParticipantStatus{DID: p.did, KeyID: key.ID}, nil
}

// deleteParticipant removes the keys, then everything else; deleting none is no error.
func (w *Wallet) deleteParticipant(r *http.Request) (any, error) {
	ctx, pctx := r.Context(), r.PathValue("ctx")
	if err := w.ring.Destroy(ctx, pctx); err != nil {
		return nil, err
	}
	return nil, pgx.BeginFunc(ctx, w.store.db.In(pctx), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM wallet.participants WHERE ctx = $1", pctx); err != nil {
			return err
		}
		return audit.CloseUnused(ctx, tx, pctx)
	})
}

func (w *Wallet) rotateKey(r *http.Request) (any, error) {
	p, err := w.byPath(r)
	if err != nil {
		return nil, err
	}
	kid, err := w.ring.Rotate(r.Context(), p.ctx)
	if err != nil {
		return nil, err
	}
	return adminapi.WalletParticipantStatus{DID: p.did, KeyID: p.did + "#" + kid}, nil
}

func (w *Wallet) postRequest(r *http.Request) (any, error) {
	ctx := r.Context()
	var body adminapi.CredentialRequest
	if err := dcp.ReadJSON(r, &body); err != nil {
		return nil, err
	}
	p, err := w.byPath(r)
	if err != nil {
		return nil, err
	}
	if _, err := dcp.WebURL(body.Issuer, false); err != nil {
		return nil, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "issuer: %v", err)
	}
	if body.Type == "" {
		return nil, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "type: missing")
	}
	profile := ""
	if body.Profile != "" {
		var ok bool
		if profile, ok = dcp.NormalizeFormat(body.Profile); !ok {
			return nil, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "profile %q: use %s or %s", body.Profile, dcp.ProfileVC11, dcp.ProfileVC20)
		}
	}
	find := func() (adminapi.HeldCredential, error) {
		list, err := w.list(ctx, p)
		if err != nil {
			return adminapi.HeldCredential{}, err
		}
		for _, h := range list {
			if h.Issuer == body.Issuer && h.Type == body.Type {
				return h, nil
			}
		}
		return adminapi.HeldCredential{}, nil
	}
	current, err := find()
	if err != nil {
		return nil, err
	}
	switch current.State {
	case adminapi.CredentialValid, adminapi.CredentialExpiring, adminapi.CredentialSuspended:
		if profile == "" || profile == current.Profile {
			return current, nil
		}
	case adminapi.CredentialRequested, adminapi.CredentialNeverDelivered:
		return current, nil
	default: // nothing yet, or nothing that counts
	}
	if err := w.store.openRequest(ctx, request{Ctx: p.ctx, Issuer: body.Issuer, Type: body.Type, Profile: profile}, w.now()); err != nil {
		return nil, err
	}
	dcp.Wake(w.wake)
	return find()
}

func (w *Wallet) listCredentials(r *http.Request) (any, error) {
	p, err := w.byPath(r)
	if err != nil {
		return nil, err
	}
	return w.list(r.Context(), p)
}

func (w *Wallet) list(ctx context.Context, p participant) ([]adminapi.HeldCredential, error) {
	credentials, err := w.store.credentials(ctx, p.ctx)
	if err != nil {
		return nil, err
	}
	requests, err := w.store.requests(ctx, p.ctx)
	if err != nil {
		return nil, err
	}
	return overview(p.trust, credentials, requests, w.timing, w.now()), nil
}

func (w *Wallet) postToken(r *http.Request) (any, error) {
	var body adminapi.TokenRequest
	if err := dcp.ReadJSON(r, &body); err != nil {
		return nil, err
	}
	return w.Token(r.Context(), r.PathValue("ctx"), body)
}

// headOf reports whether a statement is one about the audit chain of a participant, so that nothing else is signed as such.
func headOf(pctx string, s adminapi.HeadStatement) bool {
	var h audit.Head
	return json.Unmarshal(s.Head, &h) == nil && h.Valid() && h.Ctx == pctx && s.Agreement != ""
}

// Token implements dcp.Tokens: a self-issued ID token of a participant for req.Audience. With scopes it holds an access token that lets the
// audience query those of the participant's credentials.
func (w *Wallet) Token(ctx context.Context, pctx string, req adminapi.TokenRequest) (adminapi.TokenResponse, error) {
	p, err := w.store.participant(ctx, pctx)
	if errors.Is(err, errNoParticipant) {
		return adminapi.TokenResponse{}, dcp.Failuref(http.StatusNotFound, "not-found", "there is no participant %q in this wallet", pctx)
	}
	if err != nil {
		return adminapi.TokenResponse{}, err
	}
	if _, err := dcp.WebURL(req.Audience, false); err != nil {
		return adminapi.TokenResponse{}, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "audience: %v", err)
	}
	if len(req.Scopes) > 0 && req.AccessToken != "" {
		return adminapi.TokenResponse{}, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "scopes and accessToken exclude each other")
	}
	for i, scope := range req.Scopes {
		if _, err := dcp.ParseScope(scope); err != nil {
			return adminapi.TokenResponse{}, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "scopes[%d]: %v", i, err)
		}
	}
	if req.Head != nil && (len(req.Scopes) > 0 || req.AccessToken != "" || !headOf(pctx, *req.Head)) {
		return adminapi.TokenResponse{}, dcp.Failuref(http.StatusUnprocessableEntity, "invalid", "head: not the head of the audit chain of %q, or not alone", pctx)
	}
	key, err := w.ring.Signer(ctx, pctx, p.did)
	if err != nil {
		return adminapi.TokenResponse{}, err
	}
	if req.Head != nil {
		signed, err := dcp.NewHeadStatement(key, p.did, req.Audience, *req.Head, w.now())
		return adminapi.TokenResponse{Token: signed}, err
	}
	now, access := w.now(), req.AccessToken
	if len(req.Scopes) > 0 {
		if access, err = dcp.NewAccessToken(key, p.did, req.Audience, req.Scopes, now); err != nil {
			return adminapi.TokenResponse{}, fmt.Errorf("access token of %s: %w", p.did, err)
		}
	}
	raw, expires, err := dcp.NewIDToken(key, p.did, req.Audience, access, now)
	if err != nil {
		return adminapi.TokenResponse{}, fmt.Errorf("ID token of %s: %w", p.did, err)
	}
	return adminapi.TokenResponse{Token: raw, ExpiresAt: expires}, nil
}
