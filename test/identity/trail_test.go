// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/store/tenant"
)

// What becomes of a credential is on its holder's audit trail, each thing once.
func TestCredentialEventsAreOnTheHoldersTrail(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	var want []string
	expect := func(events ...string) {
		t.Helper()
		want = append(want, events...)
		var got []string
		r.await("the trail", func() bool { got = r.trail("acme"); return len(got) >= len(want) })
		if !slices.Equal(got, want) {
			t.Fatalf("on record: %q, want %q", got, want)
		}
	}
	r.entitle("authority", "acme", grant(attestation, `{}`)) // without the claim that every one has
	r.request("acme", "authority", attestation)
	expect("rejected " + attestation + " by authority")

	member := r.obtain("acme", "authority", membership, `{}`)
	expect("delivered " + membership + " by authority")
	r.act("authority", member.ID, "suspend")
	expect("suspended " + membership + " by " + audit.Self)
	r.act("authority", member.ID, "resume")
	expect("resumed " + membership + " by " + audit.Self)
	r.act("authority", member.ID, "deliver") // what is held already is no news
	r.await("the delivery", func() bool { return r.count("SELECT count(*) FROM issuer.requests WHERE NOT delivered") == 0 })

	r.entitle("authority", "acme") // so that no renewal comes
	r.advance(61 * 24 * time.Hour)
	r.await("the refusal", func() bool { return slices.Contains(r.trail("acme"), "rejected "+membership+" by "+audit.Self) })
	r.awaitState("acme", "authority", membership, adminapi.CredentialRenewalStuck)
	expect("rejected "+membership+" by "+audit.Self, "renewal-stuck "+membership+" by "+audit.Self)
	r.advance(16 * time.Minute) // it is asked for again, and refused for the same reason
	r.await("another refusal", func() bool {
		return r.count("SELECT count(*) FROM wallet.requests WHERE renewal AND state = 'REJECTED' AND updated_at > now() + interval '61 days 15 minutes'") == 1
	})
	expect()
	r.advance(30 * 24 * time.Hour)
	r.awaitState("acme", "authority", membership, adminapi.CredentialExpired)
	expect("expired " + membership + " by " + audit.Self)

	r.entitle("authority", "acme", grant(membership, `{}`))
	r.advance(20 * time.Minute)
	renewed := r.awaitOther("acme", "authority", membership, member.ID)
	expect("renewed " + membership + " by authority")
	r.act("authority", renewed.ID, "revoke")
	expect("revoked " + membership + " by " + audit.Self)
}

// A participant of which only the wallet ever knew has a trail, which is closed with it; what still comes for one that the control plane has let go of is
// taken and recorded nowhere.
func TestTheWalletClosesTheTrailOfAParticipantThatNobodyElseKnew(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.obtain("acme", "authority", membership, `{}`)
	must(t, audit.Close(t.Context(), tenant.DB{Pool: r.db}.In("acme"), "acme")) // as the control plane does
	r.obtain("acme", "auditor", attestation, `{"completedAt":"2026-01-01"}`)
	r.admin(http.MethodDelete, r.walletInternal.URL+"/admin/v1/participants/acme", nil, nil)
	r.admin(http.MethodDelete, r.walletInternal.URL+"/admin/v1/participants/globex", nil, nil)
	heads, err := audit.Heads(t.Context(), r.db)
	must(t, err)
	var got []string
	for _, h := range heads {
		records, err := audit.Records(t.Context(), r.db, h, 0, 10)
		must(t, err)
		line := h.Ctx
		for _, rec := range records {
			line += " " + rec.Type
		}
		if h.Open {
			line += " open"
		}
		got = append(got, line)
	}
	if want := []string{"acme credential participant.deleted", "globex participant.deleted"}; !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "; "))
	}
}

// A wallet signs heads of the participant's own chain and nothing else as such; who gets one can check whose it is and for whom.
func TestAHeadIsSignedByItsParticipant(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	h, err := audit.HeadOf(t.Context(), r.db, "acme")
	must(t, err)
	h.Seq, h.Hash = 1, strings.Repeat("ab", 32)
	raw, err := json.Marshal(h)
	must(t, err)
	said := adminapi.HeadStatement{Agreement: "a1", Head: raw}
	signed, err := r.services["acme"].SignHead(t.Context(), r.local("acme"), r.did("globex"), said)
	must(t, err)
	got, err := r.services["globex"].VerifyHead(t.Context(), r.local("globex"), r.did("acme"), signed)
	if err != nil || got.Agreement != "a1" || string(got.Head) != string(raw) {
		t.Fatalf("%+v, %v", got, err)
	}
	token, err := r.services["acme"].Token(t.Context(), r.local("acme"), r.did("globex"), nil)
	must(t, err)
	forged := strings.Split(signed, ".")
	forged[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + r.did("acme") + `","aud":"` + r.did("globex") + `","agreement":"a2"}`))
	for name, c := range map[string]struct{ by, to, signed string }{
		"by somebody else": {"globex", "globex", signed},
		"to somebody else": {"acme", "acme", signed},
		"changed":          {"acme", "globex", strings.Join(forged, ".")},
		"an ID token":      {"acme", "globex", strings.TrimPrefix(token, "Bearer ")},
		"something else":   {"acme", "globex", "x"},
	} {
		if got, err := r.services[c.to].VerifyHead(t.Context(), r.local(c.to), r.did(c.by), c.signed); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+signed, nil); err == nil {
		t.Error("a head is taken for an ID token")
	}
	for name, s := range map[string]adminapi.HeadStatement{"another's head": {Agreement: "a1", Head: json.RawMessage(strings.Replace(string(raw), "acme", "globex", 1))},
		"something else": {Agreement: "a1", Head: json.RawMessage(`{"iss":"x"}`)}, "no agreement": {Head: raw}} {
		if _, err := r.services["acme"].SignHead(t.Context(), r.local("acme"), r.did("globex"), s); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
}
