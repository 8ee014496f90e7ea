// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
)

// presentable says whether a credential may be shown to others.
func (h held) presentable(now time.Time) bool {
	return h.Status != "revoked" && h.Status != "suspended" && (h.ValidUntil == nil || h.ValidUntil.After(now))
}

// renewalDue says from when a credential should be renewed: when a third of its life is left. Zero when it does not expire.
func (h held) renewalDue() time.Time {
	if h.ValidUntil == nil {
		return time.Time{}
	}
	return h.ValidUntil.Add(-h.ValidUntil.Sub(h.ValidFrom) / 3)
}

// stuckAfter says how long the renewal of a credential may take before somebody must know: half of the time that is left when it is due, if
// that is less than what the settings say.
func (h held) stuckAfter(t Timing) time.Duration {
	return min(t.RenewalStuck, h.ValidUntil.Sub(h.ValidFrom)/6)
}

// overview tells for each issuer and type what is held or under way. It is computed at reading, from the rows and the time alone.
func overview(trust []profile.TrustedIssuer, credentials []held, requests []request, t Timing, now time.Time) []adminapi.HeldCredential {
	type kind struct{ issuer, typ string }
	best := map[kind]*held{}
	for i := range credentials { // newest first: a newer one that cannot be shown gives way to an older one that can
		k := kind{credentials[i].Issuer, credentials[i].Type}
		if best[k] == nil || (!best[k].presentable(now) && credentials[i].presentable(now)) {
			best[k] = &credentials[i]
		}
	}
	latest := map[kind]*request{}
	for i := range requests {
		latest[kind{requests[i].Issuer, requests[i].Type}] = &requests[i]
	}
	out := []adminapi.HeldCredential{}
	for k, h := range best {
		out = append(out, heldState(trust, h, latest[k], t, now))
	}
	for k, r := range latest {
		// A request that was answered without such a credential was answered with another: offers name an object, not always a type.
		if best[k] == nil && r.State != issued {
			out = append(out, requestState(r, t, now))
		}
	}
	for i := range out {
		out[i].Remedy = adminapi.Remedies[out[i].State]
	}
	slices.SortFunc(out, func(a, b adminapi.HeldCredential) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		return strings.Compare(a.Issuer, b.Issuer)
	})
	return out
}

func heldState(trust []profile.TrustedIssuer, h *held, r *request, t Timing, now time.Time) adminapi.HeldCredential {
	from := h.ValidFrom.UTC()
	out := adminapi.HeldCredential{ID: h.ID, Type: h.Type, Issuer: h.Issuer, Profile: h.Profile, IssuedAt: &from, Claims: h.Subject, State: adminapi.CredentialValid}
	if h.ValidUntil != nil {
		until := h.ValidUntil.UTC()
		out.ExpiresAt = &until
	}
	renewal := ""
	switch {
	case r == nil:
	case r.State == rejected:
		renewal = "its renewal was rejected: " + r.Reason
	case r.open() && r.Reason != "":
		renewal = fmt.Sprintf("a new one was requested on %s and has not come: %s", stamp(r.CreatedAt), r.Reason)
	case r.open():
		renewal = fmt.Sprintf("a new one was requested on %s", stamp(r.CreatedAt))
	case r.Renewal && r.UpdatedAt.After(h.ValidFrom):
		renewal = fmt.Sprintf("the issuer answered the renewal on %s with a credential that is no newer", stamp(r.UpdatedAt))
	}
	due := h.renewalDue()
	switch {
	case !slices.ContainsFunc(trust, trusts(h.Issuer, h.Type)):
		out.State, out.Detail = adminapi.CredentialWrongIssuer, fmt.Sprintf("%s is not trusted to issue %s, so it counts for nothing", h.Issuer, h.Type)
	case h.Status == "revoked":
		out.State, out.Detail = adminapi.CredentialRevoked, join(h.StatusReason, renewal)
	case h.Status == "suspended":
		out.State, out.Detail = adminapi.CredentialSuspended, join(h.StatusReason, renewal)
	case h.ValidUntil != nil && !h.ValidUntil.After(now):
		out.State, out.Detail = adminapi.CredentialExpired, join("it expired on "+stamp(*h.ValidUntil), renewal)
	case h.ValidFrom.After(now.Add(time.Minute)):
		out.State, out.Detail = adminapi.CredentialRequested, "it is held, and valid from "+stamp(h.ValidFrom)
	case !due.IsZero() && !due.After(now):
		out.State, out.Detail = adminapi.CredentialExpiring, join("it expires on "+stamp(*h.ValidUntil), renewal)
		if r != nil && (r.State == rejected || (r.open() && now.Sub(r.CreatedAt) > h.stuckAfter(t)) || (r.State == issued && r.UpdatedAt.After(due))) {
			out.State = adminapi.CredentialRenewalStuck
		}
	}
	return out
}

func requestState(r *request, t Timing, now time.Time) adminapi.HeldCredential {
	out := adminapi.HeldCredential{Type: r.Type, Issuer: r.Issuer, State: adminapi.CredentialRequested, Detail: r.Reason}
	switch {
	case r.State == rejected:
		out.State = adminapi.CredentialRejected
	case now.Sub(r.CreatedAt) > t.NeverDelivered:
		out.State = adminapi.CredentialNeverDelivered
		out.Detail = join(fmt.Sprintf("requested on %s and not delivered since", stamp(r.CreatedAt)), r.Reason)
	case out.Detail == "" && r.State == sent:
		out.Detail = "the issuer has the request"
	case out.Detail == "":
		out.Detail = "the request is about to be sent"
	}
	return out
}

// trusts matches an issuer trusted for a type, or for any when the type is empty.
func trusts(did, typ string) func(profile.TrustedIssuer) bool {
	return func(ti profile.TrustedIssuer) bool {
		return ti.DID == did && (typ == "" || slices.Contains(ti.Types, typ))
	}
}

func join(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Join(parts, "; ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
