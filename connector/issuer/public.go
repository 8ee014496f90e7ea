// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
)

// byPath returns the issuer that the path names, or 404.
func (i *Issuer) byPath(r *http.Request) (issuerRow, error) {
	row, err := i.store.issuer(r.Context(), r.PathValue("ctx"))
	if errors.Is(err, errNone) {
		return row, dcp.Failuref(http.StatusNotFound, "not-found", "there is no issuer %q here", r.PathValue("ctx"))
	}
	return row, err
}

func (i *Issuer) serveDocument(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	return i.ring.Document(r.Context(), row.ctx, row.did, map[string]string{dcp.IssuerService: i.publicURL + "/" + row.ctx + "/issuance"})
}

// sender returns the issuer that the path names and who asks it for something.
func (i *Issuer) sender(r *http.Request) (issuerRow, dcp.Claims, error) {
	row, err := i.byPath(r)
	if err != nil {
		return row, dcp.Claims{}, err
	}
	claims, err := i.v.IDToken(r.Context(), r.Header.Get("Authorization"), row.did, i.replay)
	return row, claims, err
}

// object is a credential type in a profile, as the metadata lists it.
type object struct {
	adminapi.CredentialType
	profile string
}

// objects lists every type in both profiles, by id.
func (row issuerRow) objects() map[string]object {
	out := map[string]object{}
	for _, t := range row.types {
		for _, p := range []string{dcp.ProfileVC11, dcp.ProfileVC20} {
			short, _, _ := strings.Cut(p, "-")
			out["urn:kaphera:credential:"+t.Type+":"+short] = object{t, p}
		}
	}
	return out
}

// serveMetadata needs no token: what an issuer can issue is public.
func (i *Issuer) serveMetadata(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	// All members are to be present here, other than in an offer.
	supported := []map[string]any{}
	objects := row.objects()
	for _, id := range slices.Sorted(maps.Keys(objects)) {
		o := objects[id]
		supported = append(supported, map[string]any{
			"id": id, "type": dcp.TypeCredentialObject, "credentialType": o.Type, "profile": o.profile, "bindingMethods": []string{"did:web"},
			"offerReason": "reissue", "credentialSchema": i.publicURL + "/" + row.ctx + "/issuance/schemas/" + o.Type,
			"issuancePolicy": map[string]any{"id": id + ":policy", "input_descriptors": []any{}},
		})
	}
	return map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypeIssuerMetadata, "issuer": row.did, "credentialsSupported": supported}, nil
}

// serveSchema is the JSON Schema of a type's subject: the members it always has.
func (i *Issuer) serveSchema(r *http.Request) (any, error) {
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	for _, t := range row.types {
		if t.Type != r.PathValue("type") {
			continue
		}
		body, err := json.Marshal(map[string]any{
			"$schema": "https://json-schema.org/draft/2020-12/schema", "title": t.Type, "type": "object",
			"required": append([]string{"id"}, t.RequiredClaims...),
		})
		return dcp.Raw{ContentType: "application/schema+json", Body: body}, err
	}
	return nil, dcp.Failuref(http.StatusNotFound, "not-found", "%s issues no %q", row.did, r.PathValue("type"))
}

// serveRequest decides about a request and commits that, with what is issued, before it answers. The outcome is delivered after.
func (i *Issuer) serveRequest(r *http.Request) (any, error) {
	ctx := r.Context()
	row, claims, err := i.sender(r)
	if err != nil {
		return nil, err
	}
	var m dcp.CredentialRequestMessage
	if err := dcp.ReadMessage(r, dcp.TypeCredentialRequest, &m); err != nil {
		return nil, err
	}
	objects := row.objects()
	var ids []string
	for n, c := range m.Credentials {
		if _, ok := objects[c.ID]; !ok {
			return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "credentials[%d].id %q is not in the metadata of %s", n, c.ID, row.did)
		}
		if !slices.Contains(ids, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	if m.HolderPID == "" || len(m.HolderPID) > 512 || len(ids) == 0 {
		return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "holderPid (at most 512 bytes) and credentials are both needed")
	}
	slices.Sort(ids)
	entitlements, err := i.store.entitlements(ctx, row.ctx, claims.Issuer)
	if err != nil {
		return nil, err
	}
	if len(entitlements) == 0 {
		return nil, dcp.Failuref(http.StatusForbidden, "unknown-holder", "%s is not a holder that %s knows: the issuer's operator registers it first", claims.Issuer, row.did)
	}
	req := request{ID: uuid.NewString(), Ctx: row.ctx, Holder: claims.Issuer, HolderPID: m.HolderPID, State: dcp.StatusIssued, AccessToken: claims.Token}
	if req.Reason = missing(ids, objects, entitlements); req.Reason != "" {
		req.State = dcp.StatusRejected
	}
	key, err := i.ring.Signer(ctx, row.ctx, row.did) // before the transaction, which must not wait for a second connection
	if err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, i.store.db.In(row.ctx), func(tx pgx.Tx) error {
		id, err := i.store.repeated(ctx, tx, req, ids, i.now())
		if err != nil || id != "" {
			req.ID = id
			return err
		}
		if err := i.store.insertRequest(ctx, tx, req, ids, i.now()); err != nil || req.State == dcp.StatusRejected {
			return err
		}
		for _, id := range ids {
			if err := i.issue(ctx, tx, row, key, req, objects[id], entitlements[objects[id].Type]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("request %s of %s: %w", m.HolderPID, claims.Issuer, err)
	}
	i.log.InfoContext(ctx, "credential request", "issuer", row.ctx, "holder", req.Holder, "request", req.ID, "state", req.State, "reason", req.Reason)
	dcp.Wake(i.wake)
	return dcp.Created{Location: i.publicURL + "/" + row.ctx + "/issuance/requests/" + req.ID}, nil
}

// missing says what a holder lacks for what it asks, by name; empty when nothing.
func missing(ids []string, objects map[string]object, entitlements map[string]json.RawMessage) string {
	var reasons []string
	for _, id := range ids {
		o := objects[id]
		raw, ok := entitlements[o.Type]
		if !ok {
			reasons = append(reasons, fmt.Sprintf("no %s is due to this holder", o.Type))
			continue
		}
		var claims map[string]any
		if err := json.Unmarshal(raw, &claims); err != nil {
			reasons = append(reasons, fmt.Sprintf("the claims for %s are not an object", o.Type))
			continue
		}
		for _, name := range o.RequiredClaims {
			if v := claims[name]; v == nil || v == "" {
				reasons = append(reasons, fmt.Sprintf("the claim %q, which every %s has, is missing for this holder", name, o.Type))
			}
		}
	}
	return strings.Join(slices.Compact(reasons), "; ")
}

func (i *Issuer) issue(ctx context.Context, tx pgx.Tx, row issuerRow, key dcp.SigningKey, req request, o object, raw json.RawMessage) error {
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		return fmt.Errorf("claims for %s: %w", o.Type, err)
	}
	validity, err := parseDuration(o.Validity)
	if err != nil {
		return fmt.Errorf("validity of %s: %w", o.Type, err)
	}
	now, single := i.now().UTC().Truncate(time.Second), i.v.Settings().SingleStatus
	c := credential{ID: "urn:uuid:" + uuid.NewString(), Holder: req.Holder, Type: o.Type, Profile: o.profile, IssuedAt: now, ExpiresAt: validity.after(now)}
	list, index, err := i.store.reserve(ctx, tx, row.ctx, req.ID, c, single)
	if err != nil {
		return err
	}
	lists := map[string]string{dcp.PurposeRevocation: i.listURL(row.ctx, o.profile, dcp.PurposeRevocation, list)}
	if !single {
		lists[dcp.PurposeSuspension] = i.listURL(row.ctx, o.profile, dcp.PurposeSuspension, list)
	}
	signed, err := dcp.Issue(key, dcp.NewCredential{
		Profile: o.profile, ID: c.ID, Type: o.Type, Issuer: row.did, Holder: req.Holder, Claims: claims, ValidFrom: c.IssuedAt, ValidUntil: c.ExpiresAt,
		StatusLists: lists, Index: index,
	})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE issuer.credentials SET raw = $2 WHERE id = $1", c.ID, signed)
	return err
}

// serveRequestStatus tells only the requester.
func (i *Issuer) serveRequestStatus(r *http.Request) (any, error) {
	ctx := r.Context()
	row, claims, err := i.sender(r)
	if err != nil {
		return nil, err
	}
	req, err := i.store.request(ctx, row.ctx, r.PathValue("id"))
	if errors.Is(err, errNone) || (err == nil && req.Holder != claims.Issuer) {
		return nil, dcp.Failuref(http.StatusNotFound, "not-found", "%s made no request %q", claims.Issuer, r.PathValue("id"))
	}
	if err != nil {
		return nil, err
	}
	return dcp.CredentialStatusMessage{Head: dcp.NewHead(dcp.TypeCredentialStatus), IssuerPID: req.ID, HolderPID: req.HolderPID, Status: req.State}, nil
}

var listProfiles = map[string]string{"sl2021": dcp.ProfileVC11, "bssl": dcp.ProfileVC20}

func (i *Issuer) listURL(ictx, profile, purpose string, list int) string {
	short := "sl2021"
	if profile == dcp.ProfileVC20 {
		short = "bssl"
	}
	return fmt.Sprintf("%s/%s/status/%s-%s-%d", i.publicURL, ictx, short, purpose, list)
}

// listLifetime is how long a status list says it is valid; whoever checks one fetches it far more often.
const listLifetime = 24 * time.Hour

// serveStatusList makes a list from the rows: a JWT, or bare JSON for who accepts JSON and no JWT.
func (i *Issuer) serveStatusList(r *http.Request) (any, error) {
	ctx := r.Context()
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(r.PathValue("list"), "-")
	if len(parts) != 3 || listProfiles[parts[0]] == "" || bits[parts[1]] == "" {
		return nil, dcp.Failuref(http.StatusNotFound, "not-found", "there is no status list %q", r.PathValue("list"))
	}
	number, err := strconv.Atoi(parts[2])
	if err != nil || number < 0 {
		return nil, dcp.Failuref(http.StatusNotFound, "not-found", "there is no status list %q", r.PathValue("list"))
	}
	indexes, err := i.store.setIndexes(ctx, row.ctx, parts[1], number)
	if err != nil {
		return nil, err
	}
	content := make([]byte, listSize/8)
	for _, n := range indexes {
		content[n/8] |= 1 << (7 - n%8)
	}
	now := i.now().UTC().Truncate(time.Second)
	list := dcp.StatusList{
		Profile: listProfiles[parts[0]], URL: i.listURL(row.ctx, listProfiles[parts[0]], parts[1], number), Issuer: row.did, Purpose: parts[1],
		Bits: content, From: now, Until: now.Add(listLifetime),
	}
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "json") && !strings.Contains(accept, "jwt") {
		body, err := list.Body()
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(body)
		return dcp.Raw{ContentType: "application/json", Body: raw}, err
	}
	key, err := i.ring.Signer(ctx, row.ctx, row.did)
	if err != nil {
		return nil, err
	}
	signed, err := list.Sign(key)
	return dcp.Raw{ContentType: "application/vc+jwt", Body: []byte(signed)}, err
}
