// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dcp"
)

func (w *Wallet) document(ctx context.Context, p participant) (*dcp.Document, error) {
	base := dcp.Base(p.did, w.publicURL, p.ctx)
	return w.ring.Document(ctx, p.ctx, p.did, map[string]string{
		dcp.CredentialService: base + "/" + p.ctx + "/dcp",
		// The version endpoint, which lists the address for each dataspace profile (DSP 2025-1, Discovery of Service Endpoints).
		dcp.DataService: base + "/" + p.ctx + "/.well-known/dspace-version",
	})
}

func (w *Wallet) serveDocument(r *http.Request) (any, error) {
	p, err := w.byPath(r)
	if err != nil {
		return nil, err
	}
	return w.document(r.Context(), p)
}

// sender returns the participant that the path names and who sends it something.
func (w *Wallet) sender(r *http.Request) (participant, dcp.Claims, error) {
	p, err := w.byPath(r)
	if err != nil {
		return p, dcp.Claims{}, err
	}
	claims, err := w.v.IDToken(r.Context(), r.Header.Get("Authorization"), p.did, w.replay)
	return p, claims, err
}

// receive also reads the message that is sent.
func (w *Wallet) receive(r *http.Request, messageType string, into any) (participant, dcp.Claims, error) {
	p, claims, err := w.sender(r)
	if err == nil {
		err = dcp.ReadMessage(r, messageType, into)
	}
	return p, claims, err
}

// serveQuery answers presentations of what the access token permits, the query asks for, and is neither expired nor revoked nor suspended.
func (w *Wallet) serveQuery(r *http.Request) (any, error) {
	ctx := r.Context()
	p, claims, err := w.sender(r)
	if err != nil {
		return nil, err
	}
	own, err := w.document(ctx, p)
	if err != nil {
		return nil, err
	}
	permitted, err := w.v.AccessToken(claims.Token, p.did, claims.Issuer, own)
	if err != nil {
		return nil, err
	}
	var query dcp.PresentationQuery
	if err := dcp.ReadMessage(r, dcp.TypePresentationQuery, &query); err != nil {
		return nil, err
	}
	asked, err := query.Check()
	if errors.Is(err, dcp.ErrNotSupported) {
		return nil, dcp.Failuref(http.StatusNotImplemented, "not-implemented", "%v", err)
	}
	if err != nil {
		return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "%v", err)
	}
	chosen, err := w.choose(ctx, p, asked, permitted)
	if err != nil {
		return nil, err
	}
	key, err := w.ring.Signer(ctx, p.ctx, p.did)
	if err != nil {
		return nil, err
	}
	presentations, err := dcp.NewPresentations(key, p.did, claims.Issuer, chosen, w.now())
	if err != nil {
		return nil, err
	}
	return dcp.PresentationResponse{Head: dcp.NewHead(dcp.TypePresentationResponse), Presentation: presentations}, nil
}

// choose returns the newest presentable credential for each issuer and type that is both asked for and permitted.
func (w *Wallet) choose(ctx context.Context, p participant, asked []dcp.Scope, permitted []string) ([]dcp.Credential, error) {
	var allowed []dcp.Scope
	for _, s := range permitted {
		if scope, err := dcp.ParseScope(s); err == nil {
			allowed = append(allowed, scope)
		}
	}
	all, err := w.store.credentials(ctx, p.ctx)
	if err != nil {
		return nil, err
	}
	if w.v.Settings().ScopeEscalation == dcp.EscalationRefused {
		for _, s := range asked {
			if !slices.Contains(allowed, s) {
				return nil, dcp.Failuref(http.StatusForbidden, "forbidden", "the access token does not cover the scope for %q", s.What)
			}
		}
	}
	now := w.now()
	taken := map[[2]string]bool{}
	var chosen []dcp.Credential
	for _, h := range all {
		kind := [2]string{h.Issuer, h.Type}
		if taken[kind] || !h.presentable(now) || !h.in(asked) || !h.in(allowed) {
			continue
		}
		c, err := dcp.ParseCredential(h.Raw)
		if err != nil {
			return nil, fmt.Errorf("credential %s of %s in the store: %w", h.ID, p.ctx, err)
		}
		taken[kind] = true
		chosen = append(chosen, *c)
	}
	return chosen, nil
}

func (h held) in(scopes []dcp.Scope) bool {
	return slices.ContainsFunc(scopes, func(s dcp.Scope) bool {
		return (s.ByID && s.What == h.ID) || (!s.ByID && slices.Contains(h.Types, s.What))
	})
}

// serveCredentials takes what an issuer delivers, as an answer to a request of ours to that issuer. The same delivery may come again.
func (w *Wallet) serveCredentials(r *http.Request) (any, error) {
	ctx := r.Context()
	var m dcp.CredentialMessage
	p, claims, err := w.receive(r, dcp.TypeCredentialMessage, &m)
	if err != nil {
		return nil, err
	}
	if m.HolderPID == "" || m.IssuerPID == "" {
		return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "holderPid and issuerPid are both needed")
	}
	req, err := w.store.request(ctx, p.ctx, m.HolderPID)
	if errors.Is(err, pgx.ErrNoRows) || (err == nil && req.Issuer != claims.Issuer) {
		return nil, dcp.Failuref(http.StatusBadRequest, "unknown-request", "%s made no request %q to %s", p.did, m.HolderPID, claims.Issuer)
	}
	if err != nil {
		return nil, err
	}
	ctx = audit.WithActor(ctx, claims.Issuer)
	switch m.Status {
	case dcp.StatusRejected:
		reason := strings.TrimSpace(m.RejectionReason)
		if reason == "" {
			reason = "the issuer gave no reason"
		}
		return nil, w.store.reject(ctx, req, reason, w.now())
	case dcp.StatusIssued:
	default:
		return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "status %q: must be ISSUED or REJECTED", m.Status)
	}
	credentials, err := w.inspect(ctx, p, claims.Issuer, m.Credentials)
	if err != nil {
		return nil, err
	}
	if err := w.store.deliver(ctx, req, credentials, w.now()); err != nil {
		return nil, err
	}
	w.log.InfoContext(ctx, "credentials received", "participant", p.ctx, "issuer", claims.Issuer, "count", len(credentials), "request", req.ID)
	dcp.Wake(w.wake)
	return nil, nil
}

// inspect refuses a delivery with anything in it that is not about p, not from the sender, not signed by it, or not readable.
func (w *Wallet) inspect(ctx context.Context, p participant, issuer string, containers []dcp.CredentialContainer) ([]*dcp.Credential, error) {
	if err := someCredentials(len(containers)); err != nil {
		return nil, err
	}
	var out []*dcp.Credential
	for i, container := range containers {
		bad := func(format string, args ...any) error {
			return dcp.Failuref(http.StatusBadRequest, "invalid", "credentials[%d]: %s", i, fmt.Sprintf(format, args...))
		}
		if _, ok := dcp.NormalizeFormat(container.Format); !ok {
			return nil, bad("format %q: use %s or %s", container.Format, dcp.ProfileVC11, dcp.ProfileVC20)
		}
		c, err := dcp.ParseCredential(container.Payload)
		if err != nil {
			return nil, bad("%v", err)
		}
		if c.Issuer != issuer {
			return nil, bad("it is of %q and was delivered by %q", c.Issuer, issuer)
		}
		if container.CredentialType != "" && !slices.Contains(c.Types, container.CredentialType) {
			return nil, bad("credentialType is %q, the credential is a %s", container.CredentialType, strings.Join(c.Types, ", "))
		}
		for _, s := range c.Subjects {
			if id, _ := s["id"].(string); id != p.did {
				return nil, bad("it is about %q, not about %q", id, p.did)
			}
		}
		if err := w.v.Signature(ctx, c); err != nil {
			return nil, bad("%v", err)
		}
		out = append(out, c)
	}
	return out, nil
}

const (
	maxCredentials = 50   // in one delivery or offer
	maxObjectID    = 1024 // bytes
)

func someCredentials(n int) error {
	switch {
	case n == 0:
		return dcp.Failuref(http.StatusBadRequest, "invalid", "credentials is empty")
	case n > maxCredentials:
		return dcp.Failuref(http.StatusBadRequest, "invalid", "credentials has %d entries: at most %d are taken", n, maxCredentials)
	}
	return nil
}

// serveOffer takes an issuer's offer and asks it for what it offers, if this participant trusts it for that.
func (w *Wallet) serveOffer(r *http.Request) (any, error) {
	ctx := r.Context()
	var offer dcp.CredentialOffer
	p, claims, err := w.receive(r, dcp.TypeCredentialOffer, &offer)
	if err != nil {
		return nil, err
	}
	if offer.Issuer != claims.Issuer {
		return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "issuer is %q, and %q sent the offer", offer.Issuer, claims.Issuer)
	}
	if err := someCredentials(len(offer.Credentials)); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.trust, trusts(claims.Issuer, "")) {
		return nil, dcp.Failuref(http.StatusForbidden, "forbidden", "%s is not an issuer that %s trusts", claims.Issuer, p.did)
	}
	for i, o := range offer.Credentials {
		if o.ID == "" || len(o.ID) > maxObjectID {
			return nil, dcp.Failuref(http.StatusBadRequest, "invalid", "credentials[%d].id is missing or longer than %d bytes", i, maxObjectID)
		}
	}
	for _, o := range offer.Credentials {
		if o.CredentialType != "" && !slices.ContainsFunc(p.trust, trusts(claims.Issuer, o.CredentialType)) {
			continue
		}
		req := request{Ctx: p.ctx, Issuer: claims.Issuer, Type: o.CredentialType, ObjectID: o.ID}
		if req.Type == "" { // a mere reference; what it is shows when it comes
			req.Type = o.ID
		}
		if err := w.store.openRequest(ctx, req, w.now()); err != nil {
			return nil, err
		}
	}
	dcp.Wake(w.wake)
	return nil, nil
}
