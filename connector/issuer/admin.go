// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
)

var (
	contextName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	typeName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,99}$`)
)

func unprocessable(format string, args ...any) error {
	return dcp.Failuref(http.StatusUnprocessableEntity, "invalid", format, args...)
}

func (i *Issuer) putIssuer(r *http.Request) (any, error) {
	ctx := r.Context()
	var body adminapi.IssuerConfig
	if err := dcp.ReadJSON(r, &body); err != nil {
		return nil, err
	}
	ictx := r.PathValue("ctx")
	if err := i.checkConfig(ictx, body); err != nil {
		return nil, err
	}
	types, err := json.Marshal(body.Types)
	if err != nil {
		return nil, err
	}
	keyID, err := i.ring.Own(ctx, ictx, body.DID, body.Key, func(tx pgx.Tx) (did string, err error) {
		err = tx.QueryRow(ctx, `INSERT INTO issuer.issuers (ctx, did, types, updated_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (ctx) DO UPDATE SET types = excluded.types, updated_at = excluded.updated_at RETURNING did`, ictx, body.DID, types, i.now()).Scan(&did)
		return did, err
	})
	return adminapi.IssuerStatus{DID: body.DID, KeyID: keyID}, err
}

func (i *Issuer) checkConfig(ictx string, body adminapi.IssuerConfig) error {
	if !contextName.MatchString(ictx) {
		return unprocessable("issuer context %q: use lower-case letters, digits and dashes, at most 63", ictx)
	}
	if err := dcp.CheckPublished(body.DID, i.publicURL, ictx); err != nil {
		return unprocessable("did: %v", err)
	}
	if len(body.Types) == 0 {
		return unprocessable("types: at least one is needed")
	}
	seen := map[string]bool{}
	for n, t := range body.Types {
		if !typeName.MatchString(t.Type) || seen[t.Type] {
			return unprocessable("types[%d].type %q: must be a name of letters, digits, dot, dash and underscore, once", n, t.Type)
		}
		seen[t.Type] = true
		if _, err := parseDuration(t.Validity); err != nil {
			return unprocessable("types[%d].validity: %v", n, err)
		}
	}
	return nil
}

func (i *Issuer) getIssuer(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	key, err := i.ring.Signer(r.Context(), row.ctx, row.did)
	if err != nil {
		return nil, err
	}
	return adminapi.IssuerStatus{DID: row.did, KeyID: key.ID}, nil
}

// deleteIssuer removes the keys, then everything else: what it issued can be verified no more. Deleting none is no error.
func (i *Issuer) deleteIssuer(r *http.Request) (any, error) {
	ctx := r.Context()
	ictx := r.PathValue("ctx")
	if err := i.ring.Destroy(ctx, ictx); err != nil {
		return nil, err
	}
	return nil, pgx.BeginFunc(ctx, i.store.db.In(ictx), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM issuer.credentials WHERE ctx = $1", ictx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM issuer.issuers WHERE ctx = $1", ictx)
		return err
	})
}

func (i *Issuer) rotateKey(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	kid, err := i.ring.Rotate(r.Context(), row.ctx)
	if err != nil {
		return nil, err
	}
	return adminapi.IssuerStatus{DID: row.did, KeyID: row.did + "#" + kid}, nil
}

// holderDID is the last segment of the path: a DID in base64url, since its own characters do not survive proxies.
func holderDID(r *http.Request) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(trimPadding(r.PathValue("did")))
	if err != nil {
		return "", unprocessable("holder %q in the path is not a DID in base64url", r.PathValue("did"))
	}
	if _, err := dcp.WebURL(string(raw), false); err != nil {
		return "", unprocessable("holder in the path: %v", err)
	}
	return string(raw), nil
}

func trimPadding(s string) string {
	for len(s) > 0 && s[len(s)-1] == '=' {
		s = s[:len(s)-1]
	}
	return s
}

func (i *Issuer) putHolder(r *http.Request) (any, error) {
	var body adminapi.Holder
	if err := dcp.ReadJSON(r, &body); err != nil {
		return nil, err
	}
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	did, err := holderDID(r)
	if err != nil {
		return nil, err
	}
	if body.DID != did {
		return nil, unprocessable("did is %q, and the path says %q", body.DID, did)
	}
	seen := map[string]bool{}
	for n, c := range body.Credentials {
		if !slices.ContainsFunc(row.types, func(t adminapi.CredentialType) bool { return t.Type == c.Type }) || seen[c.Type] {
			return nil, unprocessable("credentials[%d].type %q: must be one that %s issues, once", n, c.Type, row.did)
		}
		seen[c.Type] = true
		var claims map[string]any
		if len(c.Claims) == 0 {
			body.Credentials[n].Claims = json.RawMessage("{}")
		} else if err := json.Unmarshal(c.Claims, &claims); err != nil || claims == nil {
			return nil, unprocessable("credentials[%d].claims: must be an object", n)
		}
	}
	if err := i.store.putEntitlements(r.Context(), row.ctx, body); err != nil {
		return nil, fmt.Errorf("store holder %s: %w", did, err)
	}
	return body, nil
}

func (i *Issuer) listHolders(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	return i.store.holders(r.Context(), row.ctx)
}

func (i *Issuer) getHolder(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	did, err := holderDID(r)
	if err != nil {
		return nil, err
	}
	entitlements, err := i.store.entitlements(r.Context(), row.ctx, did)
	if err != nil {
		return nil, err
	}
	if len(entitlements) == 0 {
		return nil, dcp.Failuref(http.StatusNotFound, "not-found", "%s is not a holder that %s knows", did, row.did)
	}
	out := adminapi.Holder{DID: did}
	for _, t := range row.types {
		if claims, ok := entitlements[t.Type]; ok {
			out.Credentials = append(out.Credentials, adminapi.HolderCredential{Type: t.Type, Claims: claims})
		}
	}
	return out, nil
}

// deleteHolder ends what a holder may ask for; what it holds is revoked separately.
func (i *Issuer) deleteHolder(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	did, err := holderDID(r)
	if err != nil {
		return nil, err
	}
	return nil, i.store.putEntitlements(r.Context(), row.ctx, adminapi.Holder{DID: did})
}

func (i *Issuer) listIssued(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	list, err := i.store.issued(r.Context(), row.ctx, r.URL.Query().Get("holder"))
	if err != nil {
		return nil, err
	}
	out := make([]adminapi.Issued, len(list))
	for n, c := range list {
		out[n] = c.view(i.now())
	}
	return out, nil
}

func (i *Issuer) postAction(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	action, id := r.PathValue("action"), r.PathValue("id")
	if actions[action] == "" {
		return nil, dcp.Failuref(http.StatusNotFound, "not-found", "there is no action %q: use revoke, suspend, resume or deliver", action)
	}
	c, err := i.store.act(r.Context(), row.ctx, id, action)
	if errors.Is(err, errNone) {
		return nil, dcp.Failuref(http.StatusNotFound, "not-found", "%s issued no credential %q", row.did, id)
	}
	if err != nil {
		return nil, err
	}
	if c.Revoked && action != "revoke" {
		return nil, dcp.Failuref(http.StatusConflict, "conflict", "credential %s is revoked, which is final: let its holder be issued another one", id)
	}
	i.log.InfoContext(r.Context(), "credential changed", "action", action, "issuer", row.ctx, "credential", id, "holder", c.Holder, "actor", r.Header.Get(adminapi.ActorHeader))
	dcp.Wake(i.wake)
	return c.view(i.now()), nil
}

func (c credential) view(now time.Time) adminapi.Issued {
	out := adminapi.Issued{ID: c.ID, Holder: c.Holder, Type: c.Type, State: "Issued", IssuedAt: c.IssuedAt.UTC(), ExpiresAt: c.ExpiresAt.UTC()}
	switch {
	case c.Revoked:
		out.State = "Revoked"
	case c.Suspended:
		out.State = "Suspended"
	case !c.ExpiresAt.After(now):
		out.State = "Expired"
	}
	return out
}
