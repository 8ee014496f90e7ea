// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
)

const (
	leaseSize = 8
	// patience is how long an issuer that says ISSUED may take to deliver before it is asked again.
	patience = 2 * time.Minute
)

// work does everything that is due once.
func (w *Wallet) work(ctx context.Context) error {
	opened, err := w.store.openRenewals(ctx, w.now(), w.timing.RenewalRetry)
	if err != nil {
		return err
	}
	if opened > 0 {
		w.log.InfoContext(ctx, "renewals opened", "count", opened)
	}
	due, err := w.store.lease(ctx, w.now(), leaseSize)
	if err != nil {
		return err
	}
	each(due, func(r request) {
		if err := w.advance(ctx, r); err != nil && ctx.Err() == nil {
			w.log.ErrorContext(ctx, "credential request", "participant", r.Ctx, "request", r.ID, "error", err)
		}
	})
	stale, err := w.store.leaseStatuses(ctx, w.now().Add(-w.timing.StatusPoll), w.now(), leaseSize)
	if err != nil {
		return err
	}
	each(stale, func(h held) {
		if err := w.lookAtStatus(ctx, h); err != nil && ctx.Err() == nil {
			w.log.ErrorContext(ctx, "credential status", "participant", h.Ctx, "credential", h.ID, "error", err)
		}
	})
	if len(due) == leaseSize || len(stale) == leaseSize {
		dcp.Wake(w.wake)
	}
	return w.ring.Prune(ctx)
}

func each[T any](items []T, f func(T)) {
	var wg sync.WaitGroup
	for _, item := range items {
		wg.Go(func() { f(item) })
	}
	wg.Wait()
}

// advance takes a request one step further and stores where it is.
func (w *Wallet) advance(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second) // less than the lease
	defer cancel()
	before := r.State
	var err error
	if r.State == requested {
		err = w.send(ctx, &r)
	} else {
		err = w.ask(ctx, &r)
	}
	r.Reason = ""
	if err != nil {
		r.Reason = err.Error()
	}
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		r.State = rejected
	case r.State != before:
		r.Attempts = 0
	}
	if err != nil {
		w.log.WarnContext(ctx, "credential request not answered well", "participant", r.Ctx, "request", r.ID, "issuer", r.Issuer, "type", r.Type,
			"state", r.State, "attempt", r.Attempts, "error", err)
	}
	// Also when ctx has ended meanwhile, so that the lease does not have to run out.
	store, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	return w.store.moveRequest(store, r, w.now().Add(w.backoff(r.Attempts)), w.now())
}

func (w *Wallet) backoff(attempts int) time.Duration {
	d := w.timing.MinBackoff << min(max(attempts-1, 0), 16)
	return min(d, w.timing.MaxBackoff)
}

// refusedError is an issuer's no, which a repeat would not change.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// send posts the request to the issuer.
func (w *Wallet) send(ctx context.Context, r *request) error {
	base, err := w.issuerService(ctx, r.Issuer)
	if err != nil {
		return err
	}
	object, err := w.object(ctx, base, r)
	if err != nil {
		return err
	}
	authorization, err := w.authorization(ctx, r)
	if err != nil {
		return err
	}
	_, header, err := dcp.PostJSON(ctx, w.v.HTTP(), base+"/credentials", authorization, dcp.CredentialRequestMessage{
		Head: dcp.NewHead(dcp.TypeCredentialRequest), HolderPID: r.ID, Credentials: []dcp.CredentialRef{{ID: object}},
	}, dcp.MaxMessage)
	var se *dcp.StatusError
	if errors.As(err, &se) && slices.Contains([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity}, se.Status) {
		return &refusedError{reason: fmt.Sprintf("%s refused the request: %s", r.Issuer, message(se.Body))}
	}
	if err != nil {
		return fmt.Errorf("send the request to %s: %w", r.Issuer, err)
	}
	r.State = sent
	now := w.now()
	r.SentAt = &now
	r.Location = statusAddress(base, header.Get("Location"))
	return nil
}

// statusAddress is where to ask for the status of a request; empty when the issuer did not say. It may answer an address, a path or a bare id: only
// the id counts, below the service that its DID document names.
func statusAddress(base, location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	id := path.Base(u.Path)
	if id == "." || id == ".." || id == "/" {
		return ""
	}
	return base + "/requests/" + url.PathEscape(id)
}

func (w *Wallet) issuerService(ctx context.Context, issuer string) (string, error) {
	doc, err := w.v.Resolve(ctx, issuer)
	if err != nil {
		return "", err
	}
	return doc.ServiceEndpoint(dcp.IssuerService)
}

// object returns the id of what is to be requested in the issuer's metadata: the offered one, else the first of the type, in the profile
// asked for, else vc11-sl2021/jwt before vc20-bssl/jwt, since all deployed verifiers read that.
func (w *Wallet) object(ctx context.Context, base string, r *request) (string, error) {
	if r.ObjectID != "" {
		return r.ObjectID, nil
	}
	authorization, err := w.authorization(ctx, r)
	if err != nil {
		return "", err
	}
	raw, err := dcp.Get(ctx, w.v.HTTP(), base+"/metadata", "application/json", authorization, dcp.MaxMessage)
	if err != nil {
		return "", fmt.Errorf("metadata of %s: %w", r.Issuer, err)
	}
	var metadata dcp.IssuerMetadata
	if err := dcp.DecodeMessage(raw, dcp.TypeIssuerMetadata, &metadata); err != nil {
		return "", fmt.Errorf("metadata of %s: %w", r.Issuer, err)
	}
	profiles := []string{dcp.ProfileVC11, dcp.ProfileVC20}
	if r.Profile != "" {
		profiles = []string{r.Profile}
	}
	var types []string
	for _, wanted := range profiles {
		for _, o := range metadata.Supported {
			profile, ok := dcp.NormalizeFormat(o.Profile)
			if o.CredentialType == r.Type && ok && profile == wanted {
				return o.ID, nil
			}
			if !slices.Contains(types, o.CredentialType) {
				types = append(types, o.CredentialType)
			}
		}
	}
	return "", fmt.Errorf("%s issues no %s in a profile that can be used here (%s); it issues: %s", r.Issuer, r.Type, strings.Join(profiles, ", "),
		strings.Join(types, ", "))
}

func (w *Wallet) authorization(ctx context.Context, r *request) (string, error) {
	p, err := w.store.participant(ctx, r.Ctx)
	if err != nil {
		return "", err
	}
	key, err := w.ring.Signer(ctx, p.ctx, p.did)
	if err != nil {
		return "", err
	}
	token, _, err := dcp.NewIDToken(key, p.did, r.Issuer, "", w.now())
	return "Bearer " + token, err
}

// ask looks at the state of a request that was sent, and sends it again when the issuer does not know it or does not deliver.
func (w *Wallet) ask(ctx context.Context, r *request) error {
	again := func(format string, args ...any) error {
		r.State, r.Location = requested, ""
		return fmt.Errorf(format+"; asking again", args...)
	}
	if r.Location == "" {
		if w.now().Sub(*r.SentAt) > patience {
			return again("%s took the request, named no status address and has not delivered since %s", r.Issuer, stamp(*r.SentAt))
		}
		return nil
	}
	authorization, err := w.authorization(ctx, r)
	if err != nil {
		return err
	}
	raw, err := dcp.Get(ctx, w.v.HTTP(), r.Location, "application/json", authorization, dcp.MaxMessage)
	var se *dcp.StatusError
	if errors.As(err, &se) && se.Status == http.StatusNotFound {
		return again("%s does not know the request any more", r.Issuer)
	}
	if err != nil {
		return fmt.Errorf("ask %s for the state of the request: %w", r.Issuer, err)
	}
	var status dcp.CredentialStatusMessage
	if err := dcp.DecodeMessage(raw, dcp.TypeCredentialStatus, &status); err != nil {
		return fmt.Errorf("state of the request at %s: %w", r.Issuer, err)
	}
	switch status.Status {
	case dcp.StatusRejected:
		// The reason comes with the message; give it the time to arrive.
		if r.Attempts < 4 {
			return nil
		}
		return &refusedError{reason: fmt.Sprintf("%s rejected the request and gave no reason", r.Issuer)}
	case dcp.StatusIssued:
		if w.now().Sub(*r.SentAt) > patience {
			return again("%s says it issued the credential, but it was not delivered since %s", r.Issuer, stamp(*r.SentAt))
		}
	}
	return nil
}

// lookAtStatus stores whether a credential is revoked or suspended, has expired or is not renewed. When its status cannot be found out the last answer stands.
func (w *Wallet) lookAtStatus(ctx context.Context, h held) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	is := h
	if h.ValidUntil == nil || h.ValidUntil.After(w.now()) {
		c, err := dcp.ParseCredential(h.Raw)
		if err != nil {
			return err
		}
		if status, reason, err := w.v.Status(ctx, c); err != nil {
			w.log.WarnContext(ctx, "credential status not found out", "participant", h.Ctx, "credential", h.ID, "error", err)
		} else {
			is.Status, is.StatusReason = status, reason
		}
	}
	if is.Status != h.Status {
		w.log.InfoContext(ctx, "credential status changed", "participant", h.Ctx, "credential", h.ID, "from", h.Status, "to", is.Status)
	}
	why, err := w.note(ctx, &is)
	if err != nil {
		return err
	}
	return w.store.become(ctx, h, is, why)
}

// note sees whether a credential whose renewal is due has expired, or is not renewed, and says why. One in whose place another stands, or that counted
// for nothing anyway, expires without a word.
func (w *Wallet) note(ctx context.Context, h *held) (why string, err error) {
	now := w.now()
	if due := h.renewalDue(); due.IsZero() || due.After(now) {
		return "", nil
	}
	p, err := w.store.participant(ctx, h.Ctx)
	if err != nil {
		return "", err
	}
	all, err := w.list(ctx, p)
	if err != nil {
		return "", err
	}
	var shown adminapi.HeldCredential
	if i := slices.IndexFunc(all, func(c adminapi.HeldCredential) bool { return c.ID == h.ID }); i >= 0 {
		shown = all[i]
	}
	switch {
	case !h.ValidUntil.After(now):
		h.Noted = "expired"
		if shown.State == adminapi.CredentialExpired {
			why = shown.Detail
		}
	case shown.State == adminapi.CredentialRenewalStuck:
		h.Noted, why = "renewal-stuck", shown.Detail
	}
	return why, nil
}

// message takes the message out of an error body of ours, or the body itself.
func message(body string) string {
	var e struct {
		Message string `json:"message"`
	}
	if json.Unmarshal([]byte(body), &e) == nil && e.Message != "" {
		return e.Message
	}
	if body == "" {
		return "it gave no reason"
	}
	return body
}
