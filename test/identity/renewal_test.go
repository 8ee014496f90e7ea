// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
)

// awaitOther waits for a valid credential in the place of one.
func (r *rig) awaitOther(participant, issuerName, typ, id string) (h adminapi.HeldCredential) {
	r.t.Helper()
	r.await("a credential after "+id, func() bool {
		h = r.awaitState(participant, issuerName, typ, adminapi.CredentialValid)
		return h.ID != id
	})
	return h
}

// A renewal that fails is tried again and again, raises the alarm when it takes too long, and succeeds without hands once its cause is gone.
func TestRenewalRecoversByItself(t *testing.T) {
	for name, tc := range map[string]struct {
		fail, mend func(r *rig)
		why        string
	}{
		"the issuer is down": {
			func(r *rig) {
				r.atIssuer.set(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					http.Error(w, "down", http.StatusServiceUnavailable)
				})
			},
			func(r *rig) {
				r.atIssuer.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) })
			},
			"503",
		},
		"the issuer refuses": {
			func(r *rig) { r.entitle("authority", "acme") },
			func(r *rig) { r.entitle("authority", "acme", grant(membership, `{}`)) },
			"not a holder",
		},
		"the issuer cannot deliver": {
			func(r *rig) {
				r.atWallet.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					if strings.HasSuffix(req.URL.Path, "/dcp/credentials") {
						http.Error(w, "lost", http.StatusBadGateway)
						return
					}
					next.ServeHTTP(w, req)
				})
			},
			func(r *rig) {
				r.atWallet.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) })
			},
			"a new one was requested",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, dcp.Settings{})
			old := r.obtain("acme", "authority", membership, `{}`)
			tc.fail(r)
			r.advance(61 * 24 * time.Hour) // of 90 days, a third is left
			r.await("the renewal's request", func() bool { return r.count("SELECT count(*) FROM wallet.requests WHERE renewal") == 1 })
			r.advance(2 * time.Hour)
			var stuck adminapi.HeldCredential
			r.await("the reason "+tc.why, func() bool {
				stuck = r.awaitState("acme", "authority", membership, adminapi.CredentialRenewalStuck)
				return strings.Contains(stuck.Detail, tc.why)
			})
			if !strings.Contains(stuck.Remedy, "goes on asking") {
				t.Errorf("remedy %q", stuck.Remedy)
			}
			// Until it expires it goes on counting.
			if agent, err := r.verify(scopes); name != "the issuer is down" && (err != nil || len(agent.Credentials) != 1) {
				t.Errorf("while the renewal is stuck: %+v, %v", agent, err)
			}
			tc.mend(r)
			r.advance(20 * time.Minute) // past every back-off
			r.awaitOther("acme", "authority", membership, old.ID)
			if n := r.count("SELECT count(*) FROM wallet.requests WHERE renewal"); n != 1 {
				t.Errorf("%d requests for one renewal", n)
			}
		})
	}
}

// An expired credential is asked for further, and comes.
func TestExpiredCredentialIsReplaced(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	old := r.obtain("acme", "authority", membership, `{}`)
	r.entitle("authority", "acme")
	r.advance(91 * 24 * time.Hour)
	expired := r.awaitState("acme", "authority", membership, adminapi.CredentialExpired)
	if !strings.Contains(expired.Remedy, "why no new one came") {
		t.Errorf("remedy %q", expired.Remedy)
	}
	r.await("the refusal", func() bool { return r.count("SELECT count(*) FROM wallet.requests WHERE state = 'REJECTED'") == 1 })
	r.entitle("authority", "acme", grant(membership, `{}`))
	r.advance(20 * time.Minute)
	r.awaitOther("acme", "authority", membership, old.ID)
}

// A credential that the wallet has lost is delivered again at the issuer's word.
func TestRedeliveryRestoresWhatWasLost(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{}`)
	_, err := r.db.Exec(t.Context(), "DELETE FROM wallet.credentials")
	must(t, err)
	if held := r.held("acme"); len(held) != 0 {
		t.Fatalf("%+v", held)
	}
	r.act("authority", member.ID, "deliver")
	if again := r.awaitState("acme", "authority", membership, adminapi.CredentialValid); again.ID != member.ID {
		t.Errorf("delivered %s instead of %s", again.ID, member.ID)
	}
}

// A participant can hold either profile, by wish or by offer, and a renewal keeps it. Suspension and revocation work on both kinds of list.
func TestEitherProfileThroughItsLife(t *testing.T) {
	for name, obtain := range map[string]func(r *rig){
		"requested": func(r *rig) {
			r.admin(http.MethodPost, r.walletInternal.URL+"/admin/v1/participants/acme/credential-requests",
				adminapi.CredentialRequest{Issuer: r.issuerDID("authority"), Type: membership, Profile: dcp.ProfileVC20}, nil)
		},
		"offered": func(r *rig) {
			r.admin(http.MethodPost, r.issuerInternal.URL+"/admin/v1/issuers/authority/offers",
				adminapi.OfferCredentials{Holder: r.did("acme"), Types: []string{membership}, Profile: dcp.ProfileVC20}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, dcp.Settings{})
			r.entitle("authority", "acme", grant(membership, `{"memberOf":"Test"}`))
			obtain(r)
			first := r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
			if first.Profile != dcp.ProfileVC20 {
				t.Fatalf("got %+v", first)
			}
			counts := func(want int) {
				t.Helper()
				agent, err := r.verify(scopes)
				if err != nil || len(agent.Credentials) != want {
					t.Errorf("want %d credentials: %+v, %v", want, agent, err)
				}
			}
			counts(1)
			r.act("authority", first.ID, "suspend")
			r.awaitState("acme", "authority", membership, adminapi.CredentialSuspended)
			counts(0)
			r.act("authority", first.ID, "resume")
			r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
			counts(1)
			r.advance(61 * 24 * time.Hour)
			second := r.awaitOther("acme", "authority", membership, first.ID)
			if second.Profile != dcp.ProfileVC20 {
				t.Errorf("renewed as %s", second.Profile)
			}
			r.act("authority", second.ID, "revoke")
			r.act("authority", first.ID, "revoke") // the older one would stand in
			revoked := r.awaitState("acme", "authority", membership, adminapi.CredentialRevoked)
			if !strings.Contains(revoked.Remedy, "Ask the issuer why") {
				t.Errorf("remedy %q", revoked.Remedy)
			}
			counts(0)
		})
	}
}

// Another profile than the one that is held is asked for; the same is not.
func TestProfileCanBeChanged(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	old := r.obtain("acme", "authority", membership, `{}`)
	ask := func(profile string) (int, string) {
		status, body := r.call(http.MethodPost, r.walletInternal.URL+"/admin/v1/participants/acme/credential-requests",
			adminapi.CredentialRequest{Issuer: r.issuerDID("authority"), Type: membership, Profile: profile})
		return status, string(body)
	}
	if status, body := ask("ldp_vc"); status != http.StatusUnprocessableEntity || !strings.Contains(body, "ldp_vc") {
		t.Errorf("an unknown profile: %d %s", status, body)
	}
	if status, body := ask("VC1_0_JWT"); status != http.StatusOK || !strings.Contains(body, old.ID) {
		t.Errorf("the profile that is held: %d %s", status, body)
	}
	r.advance(time.Second) // a credential's dates have whole seconds, and the newest counts
	ask(dcp.ProfileVC20)
	if got := r.awaitOther("acme", "authority", membership, old.ID); got.Profile != dcp.ProfileVC20 {
		t.Errorf("got %+v", got)
	}
}

// With the switch a credential has one status entry, which readers of one understand, and a suspension shows in it.
func TestSingleStatusSwitch(t *testing.T) {
	for _, tc := range []struct {
		settings dcp.Settings
		entries  int
		code     string
	}{{dcp.Settings{}, 2, "suspended"}, {dcp.Settings{SingleStatus: true}, 1, "revoked"}} {
		r := newRig(t, tc.settings)
		member := r.obtain("acme", "authority", membership, `{}`)
		raw := r.raw("acme", member.ID)
		c, err := dcp.ParseCredential(raw)
		must(t, err)
		if len(c.Status) != tc.entries || c.Status[0].Purpose != "revocation" {
			t.Errorf("single %t: %+v", tc.settings.SingleStatus, c.Status)
		}
		r.act("authority", member.ID, "suspend")
		if _, refusal := r.verifier.Credential(t.Context(), raw, r.did("acme"), r.trust); refusal == nil || refusal.Code != tc.code {
			t.Errorf("single %t, suspended: judged as %+v", tc.settings.SingleStatus, refusal)
		}
		r.act("authority", member.ID, "resume")
		if _, refusal := r.verifier.Credential(t.Context(), raw, r.did("acme"), r.trust); refusal != nil {
			t.Errorf("single %t, resumed: judged as %+v", tc.settings.SingleStatus, refusal)
		}
	}
}

// Both sides verify each other: what a message's receiver learns of its sender, the sender learns of the receiver.
func TestVerificationIsMutual(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.obtain("acme", "authority", membership, `{}`)
	r.obtain("globex", "auditor", attestation, `{"completedAt":"2026-01-31T12:00:00Z"}`)
	for _, tc := range [][3]string{{"acme", "globex", membership}, {"globex", "acme", attestation}} {
		header, err := r.services[tc[0]].Token(t.Context(), r.local(tc[0]), r.did(tc[1]), scopes)
		must(t, err)
		agent, err := r.services[tc[1]].Verify(t.Context(), r.local(tc[1]), header, scopes)
		if err != nil || agent.ID != r.did(tc[0]) || len(agent.Credentials) != 1 || agent.Credentials[0].Type != tc[2] {
			t.Errorf("%s by %s: %+v, %v", tc[0], tc[1], agent, err)
		}
	}
}
