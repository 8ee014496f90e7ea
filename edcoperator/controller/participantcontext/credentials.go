// SPDX-License-Identifier: Apache-2.0

package participantcontext

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/controller/stage"
)

// stateWanted is the state of a credential that has not been asked for yet.
const stateWanted = "Wanted"

// order says which of several credentials of a type counts: the first that is held, else the one furthest on.
var order = []adminapi.CredentialState{
	adminapi.CredentialValid, adminapi.CredentialExpiring, adminapi.CredentialRequested, adminapi.CredentialRenewalStuck,
	adminapi.CredentialSuspended, adminapi.CredentialRevoked, adminapi.CredentialRejected, adminapi.CredentialWrongIssuer,
	adminapi.CredentialExpired, adminapi.CredentialNeverDelivered,
}

// askable are the states in which asking again can help. After a revocation or suspension the issuer has spoken.
var askable = []adminapi.CredentialState{
	"", stateWanted, adminapi.CredentialExpired, adminapi.CredentialRejected, adminapi.CredentialNeverDelivered, adminapi.CredentialWrongIssuer,
}

// credentials reads what the wallet holds, asks for what is missing, and sets status.credentials and CredentialsHeld.
func (r *Reconciler) credentials(ctx context.Context, t tenancy, p *v1alpha1.ParticipantContext) error {
	held, err := t.wallet.Credentials(ctx, p.Spec.Context)
	if err != nil {
		return stage.RuntimeError(v1alpha1.ConditionCredentialsHeld, "the wallet", err)
	}
	status := make([]v1alpha1.CredentialStatus, 0, len(p.Spec.Credentials))
	for _, want := range p.Spec.Credentials {
		s := statusOf(best(held, want), want)
		if slices.Contains(askable, adminapi.CredentialState(s.State)) {
			s = r.ask(ctx, t, p, want, s)
		}
		status = append(status, s)
	}
	for _, h := range held {
		if !slices.ContainsFunc(p.Spec.Credentials, func(w v1alpha1.RequestedCredential) bool { return w.Type == h.Type && w.Issuer == h.Issuer }) {
			status = append(status, statusOf(h, v1alpha1.RequestedCredential{Type: h.Type, Issuer: h.Issuer}))
		}
	}
	slices.SortStableFunc(status, func(a, b v1alpha1.CredentialStatus) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Issuer, b.Issuer))
	})
	p.Status.Credentials = status
	setHeld(p)
	return nil
}

// ask requests a credential unless it was refused a short while ago; the issuer must be able to resolve the DID first.
func (r *Reconciler) ask(ctx context.Context, t tenancy, p *v1alpha1.ParticipantContext, want v1alpha1.RequestedCredential, s v1alpha1.CredentialStatus) v1alpha1.CredentialStatus {
	if !meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionDIDPublished) {
		if s.State == stateWanted {
			s.Detail = "is asked for once the DID document is published"
		}
		return s
	}
	key := paceKey{p.UID, p.Generation, want.Type, want.Issuer}
	if !r.pace.due(key) {
		return s
	}
	if err := t.wallet.RequestCredential(ctx, p.Spec.Context, adminapi.CredentialRequest{Issuer: want.Issuer, Type: want.Type}); err != nil {
		s.Detail = err.Error()
		return s
	}
	return v1alpha1.CredentialStatus{Type: want.Type, Issuer: want.Issuer, State: string(adminapi.CredentialRequested)}
}

// best picks the credential that counts for want; its State is empty when there is none.
func best(held []adminapi.HeldCredential, want v1alpha1.RequestedCredential) adminapi.HeldCredential {
	var out adminapi.HeldCredential
	rank := len(order) + 1
	for _, h := range held {
		if h.Type != want.Type || h.Issuer != want.Issuer {
			continue
		}
		at := slices.Index(order, h.State)
		if at < 0 {
			at = len(order)
		}
		if at < rank {
			out, rank = h, at
		}
	}
	return out
}

func statusOf(h adminapi.HeldCredential, want v1alpha1.RequestedCredential) v1alpha1.CredentialStatus {
	s := v1alpha1.CredentialStatus{ID: h.ID, Type: want.Type, Issuer: want.Issuer, State: cmp.Or(string(h.State), stateWanted), Detail: h.Detail, Remedy: h.Remedy}
	if h.IssuedAt != nil {
		s.IssuedAt = &metav1.Time{Time: *h.IssuedAt}
	}
	if h.ExpiresAt != nil {
		s.ExpiresAt = &metav1.Time{Time: *h.ExpiresAt}
	}
	return s
}

// setHeld sums the wanted credentials up; the first reason of the list that applies to one of them is the condition's.
func setHeld(p *v1alpha1.ParticipantContext) {
	if len(p.Spec.Credentials) == 0 {
		outcome.True(p, v1alpha1.ConditionCredentialsHeld, v1alpha1.ReasonNoneAsked, "no credential is asked for")
		return
	}
	var missing []string
	reasons := map[string]bool{}
	for _, s := range p.Status.Credentials {
		wanted := slices.Contains(p.Spec.Credentials, v1alpha1.RequestedCredential{Type: s.Type, Issuer: s.Issuer})
		if !wanted || s.State == string(adminapi.CredentialValid) || s.State == string(adminapi.CredentialExpiring) {
			continue
		}
		text := fmt.Sprintf("%s from %s: %s", s.Type, s.Issuer, s.State)
		if s.Detail != "" {
			text += " (" + s.Detail + ")"
		}
		if s.Remedy != "" {
			text += ". " + strings.TrimSuffix(s.Remedy, ".")
		}
		missing = append(missing, text)
		reasons[reasonOf(s.State)] = true
	}
	if len(missing) == 0 {
		outcome.True(p, v1alpha1.ConditionCredentialsHeld, v1alpha1.ReasonHeld, "every credential asked for is held and valid")
		return
	}
	for _, reason := range worst {
		if reasons[reason] {
			outcome.Set(p, v1alpha1.ConditionCredentialsHeld, metav1.ConditionFalse, reason, strings.Join(missing, "; "))
			return
		}
	}
}

// worst are the reasons of CredentialsHeld, the worst first.
var worst = []string{
	v1alpha1.ReasonRevoked, v1alpha1.ReasonSuspended, v1alpha1.ReasonRejected, v1alpha1.ReasonWrongIssuer, v1alpha1.ReasonExpired,
	v1alpha1.ReasonNeverDelivered, v1alpha1.ReasonRenewalStuck, v1alpha1.ReasonIncomplete, v1alpha1.ReasonRequested,
}

// reasonOf is the state itself, where it is one of those.
func reasonOf(state string) string {
	if slices.Contains(worst, state) {
		return state
	}
	return v1alpha1.ReasonIncomplete
}
