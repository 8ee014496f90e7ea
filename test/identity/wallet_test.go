// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/profile"
)

// access returns an access token that acme made for a verifier.
func (r *rig) access(verifier string, scopes []string) string {
	r.t.Helper()
	resp, err := r.wallet.Token(r.t.Context(), "acme", adminapi.TokenRequest{Audience: verifier, Scopes: scopes})
	must(r.t, err)
	var token string
	tamper(r.t, resp.Token, func(c map[string]any) { token, _ = c["token"].(string) })
	return token
}

// post sends a message of p to a path of acme's credential service.
func (r *rig) post(p *party, path string, edits map[string]any, body any) (int, string) {
	r.t.Helper()
	raw, err := json.Marshal(body)
	must(r.t, err)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.walletHost.URL+"/acme/dcp"+path, strings.NewReader(string(raw)))
	must(r.t, err)
	req.Header.Set("Authorization", "Bearer "+p.sign(p.token(r.did("acme"), edits)))
	resp, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer func() { _ = resp.Body.Close() }()
	out, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return resp.StatusCode, string(out)
}

func query(members map[string]any) map[string]any {
	return edited(map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypePresentationQuery}, members)
}

// presented counts the credentials in an answer.
func presented(t *testing.T, body string) int {
	t.Helper()
	var answer dcp.PresentationResponse
	must(t, dcp.DecodeMessage([]byte(body), dcp.TypePresentationResponse, &answer))
	n := 0
	for _, item := range answer.Presentation {
		var raw string
		must(t, json.Unmarshal(item, &raw))
		tamper(t, raw, func(c map[string]any) { n += len(c["vp"].(map[string]any)["verifiableCredential"].([]any)) })
	}
	return n
}

func TestQueriesAreJudged(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	member := r.obtain("acme", "authority", membership, `{}`)
	r.obtain("acme", "auditor", attestation, `{"completedAt":"2026-01-31T12:00:00Z"}`)
	p, other := newParty(t, "verifier"), newParty(t, "other")
	one := map[string]any{"scope": scopes[:1]}
	for name, tc := range map[string]struct {
		from   *party
		access string
		query  map[string]any
		status int
		count  int
	}{
		"what was permitted":         {p, r.access(p.did, scopes[:1]), query(one), 200, 1},
		"all":                        {p, r.access(p.did, scopes), query(map[string]any{"scope": scopes}), 200, 2},
		"less than permitted":        {p, r.access(p.did, scopes), query(one), 200, 1},
		"more than permitted":        {p, r.access(p.did, scopes[:1]), query(map[string]any{"scope": scopes}), 200, 1},
		"only what is not permitted": {p, r.access(p.did, scopes[1:]), query(one), 200, 0},
		"by id":                      {p, r.access(p.did, scopes[:1]), query(map[string]any{"scope": []string{"org.eclipse.dspace.dcp.vc.id:" + member.ID}}), 200, 1},
		"EDC's alias":                {p, r.access(p.did, []string{"org.eclipse.edc.vc.type:MembershipCredential:read"}), query(one), 200, 1},
		"without operation":          {p, r.access(p.did, scopes[:1]), query(map[string]any{"scope": []string{"org.eclipse.dspace.dcp.vc.type:MembershipCredential"}}), 200, 1},
		"another's access token":     {other, r.access(p.did, scopes[:1]), query(one), 401, 0},
		"no access token":            {p, "", query(one), 401, 0},
		"a made-up access token":     {p, p.sign(map[string]any{"iss": r.did("acme"), "sub": p.did, "aud": r.did("acme"), "scope": scopes[0], "exp": time.Now().Add(time.Minute).Unix()}), query(one), 401, 0},
		"no scope":                   {p, r.access(p.did, scopes), query(nil), 400, 0},
		"an empty scope":             {p, r.access(p.did, scopes), query(map[string]any{"scope": []string{}}), 400, 0},
		"an unknown alias":           {p, r.access(p.did, scopes), query(map[string]any{"scope": []string{"x:Y:read"}}), 400, 0},
		"an empty definition":        {p, r.access(p.did, scopes), query(map[string]any{"presentationDefinition": map[string]any{}}), 400, 0},
		"a definition":               {p, r.access(p.did, scopes), query(map[string]any{"presentationDefinition": map[string]any{"id": "x"}}), 501, 0},
		"both":                       {p, r.access(p.did, scopes), query(map[string]any{"scope": scopes, "presentationDefinition": map[string]any{"id": "x"}}), 400, 0},
		"no context":                 {p, r.access(p.did, scopes), query(map[string]any{"scope": scopes, "@context": nil}), 400, 0},
		"another message":            {p, r.access(p.did, scopes), query(map[string]any{"scope": scopes, "type": "X"}), 400, 0},
	} {
		status, body := r.post(tc.from, "/presentations/query", map[string]any{"token": tc.access}, tc.query)
		if status != tc.status {
			t.Errorf("%s: %d %s, want %d", name, status, body, tc.status)
			continue
		}
		if status == 200 {
			if n := presented(t, body); n != tc.count {
				t.Errorf("%s: %d credentials, want %d", name, n, tc.count)
			}
		}
	}
}

func TestScopeEscalationRefusedBySwitch(t *testing.T) {
	r := newRig(t, dcp.Settings{ScopeEscalation: dcp.EscalationRefused})
	r.obtain("acme", "authority", membership, `{}`)
	p := newParty(t, "verifier")
	if status, body := r.post(p, "/presentations/query", map[string]any{"token": r.access(p.did, scopes[:1])}, query(map[string]any{"scope": scopes})); status != 403 {
		t.Errorf("more than permitted: %d %s", status, body)
	}
	if status, body := r.post(p, "/presentations/query", map[string]any{"token": r.access(p.did, scopes)}, query(map[string]any{"scope": scopes})); status != 200 {
		t.Errorf("what is permitted: %d %s", status, body)
	}
}

func TestDeliveryFormatSwitch(t *testing.T) {
	for _, tc := range []struct {
		settings dcp.Settings
		want     string
	}{{dcp.Settings{}, "vc11-sl2021/jwt"}, {dcp.Settings{DeliveryFormat: dcp.FormatLegacy}, "VC1_0_JWT"}} {
		r := newRig(t, tc.settings)
		p := newParty(t, "holder")
		r.entitleDID("authority", p.did, grant(membership, `{}`))
		got := make(chan dcp.CredentialMessage, 1)
		p.page("/cs/credentials", func(w http.ResponseWriter, req *http.Request) {
			var m dcp.CredentialMessage
			raw, _ := io.ReadAll(req.Body)
			if err := dcp.DecodeMessage(raw, dcp.TypeCredentialMessage, &m); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			got <- m
		})
		message := dcp.CredentialRequestMessage{Head: dcp.NewHead(dcp.TypeCredentialRequest), HolderPID: "pid",
			Credentials: []dcp.CredentialRef{{ID: "urn:kaphera:credential:" + membership + ":vc11"}}}
		_, _, err := dcp.PostJSON(t.Context(), http.DefaultClient, r.issuerHost.URL+"/authority/issuance/credentials",
			"Bearer "+p.sign(p.token(r.issuerDID("authority"), nil)), message, 1<<20)
		must(t, err)
		m := <-got
		if m.HolderPID != "pid" || len(m.Credentials) != 1 || m.Credentials[0].Format != tc.want {
			t.Errorf("want format %s, got %+v", tc.want, m)
		}
	}
}

func TestDeliveriesAreJudged(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	is, other := newParty(t, "issuer"), newParty(t, "other")
	acme := r.did("acme")
	_, err := r.db.Exec(t.Context(), `INSERT INTO wallet.requests (id, ctx, issuer, type, state, next_attempt_at, created_at, sent_at, updated_at)
		VALUES ('pid', 'acme', $1, $2, 'SENT', now() + interval '1 hour', now(), now(), now())`, is.did, membership)
	must(t, err)
	good := is.sign(is.credential(acme, membership, nil))
	message := func(payload string, edits map[string]any) map[string]any {
		return edited(map[string]any{"@context": []string{dcp.Context}, "type": dcp.TypeCredentialMessage, "issuerPid": "i", "holderPid": "pid", "status": "ISSUED",
			"credentials": []any{map[string]any{"credentialType": membership, "payload": payload, "format": "VC1_0_JWT"}}}, edits)
	}
	for name, tc := range map[string]struct {
		from *party
		body map[string]any
		want string
	}{
		"by an issuer that was not asked":       {other, message(other.sign(other.credential(acme, membership, nil)), nil), "made no request"},
		"for a request that was not made":       {is, message(good, map[string]any{"holderPid": "x"}), "made no request"},
		"without holderPid":                     {is, message(good, map[string]any{"holderPid": nil}), "holderPid"},
		"of another issuer":                     {is, message(other.sign(other.credential(acme, membership, nil)), nil), "delivered by"},
		"about another":                         {is, message(is.sign(is.credential(r.did("globex"), membership, nil)), nil), "not about"},
		"changed":                               {is, message(tamper(t, good, func(c map[string]any) { c["jti"] = "x" }), nil), "signature"},
		"nothing":                               {is, message(good, map[string]any{"credentials": []any{}}), "empty"},
		"in an unknown format":                  {is, message(good, map[string]any{"credentials": []any{map[string]any{"credentialType": membership, "payload": good, "format": "ldp_vc"}}}), "ldp_vc"},
		"with a type that the credential lacks": {is, message(good, map[string]any{"credentials": []any{map[string]any{"credentialType": attestation, "payload": good, "format": "vc11-sl2021/jwt"}}}), attestation},
		"with an unknown status":                {is, message(good, map[string]any{"status": "MAYBE"}), "MAYBE"},
	} {
		status, body := r.post(tc.from, "/credentials", nil, tc.body)
		if status != 400 || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %s, want 400 and %q", name, status, body, tc.want)
		}
	}
	var n int
	must(t, r.db.QueryRow(t.Context(), "SELECT count(*) FROM wallet.credentials").Scan(&n))
	if n != 0 {
		t.Fatalf("%d credentials were stored from deliveries that were refused", n)
	}
	r.admin(http.MethodPut, r.walletInternal.URL+"/admin/v1/participants/acme",
		adminapi.WalletParticipant{DID: acme, TrustedIssuers: append(r.trust, profile.TrustedIssuer{DID: is.did, Types: []string{membership}})}, nil)
	for range 2 {
		if status, body := r.post(is, "/credentials", nil, message(good, nil)); status != 200 {
			t.Fatalf("a good delivery: %d %s", status, body)
		}
	}
	// A rejection that comes late takes nothing away.
	if status, body := r.post(is, "/credentials", nil, message(good, map[string]any{"status": "REJECTED", "rejectionReason": "late"})); status != 200 {
		t.Fatalf("a late rejection: %d %s", status, body)
	}
	held := r.held("acme")
	if len(held) != 1 || held[0].State != adminapi.CredentialValid || held[0].Issuer != is.did {
		t.Errorf("held: %+v", held)
	}
}

func TestBothProfilesAreIssuedAndVerified(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p := newParty(t, "holder")
	r.entitleDID("authority", p.did, grant(membership, `{"memberOf":"Test"}`))
	got := make(chan dcp.CredentialMessage, 1)
	p.page("/cs/credentials", func(_ http.ResponseWriter, req *http.Request) {
		var m dcp.CredentialMessage
		_ = json.NewDecoder(req.Body).Decode(&m)
		got <- m
	})
	_, _, err := dcp.PostJSON(t.Context(), http.DefaultClient, r.issuerHost.URL+"/authority/issuance/credentials",
		"Bearer "+p.sign(p.token(r.issuerDID("authority"), nil)), dcp.CredentialRequestMessage{Head: dcp.NewHead(dcp.TypeCredentialRequest), HolderPID: "pid",
			Credentials: []dcp.CredentialRef{{ID: "urn:kaphera:credential:" + membership + ":vc11"}, {ID: "urn:kaphera:credential:" + membership + ":vc20"}}}, 1<<20)
	must(t, err)
	m := <-got
	if len(m.Credentials) != 2 {
		t.Fatalf("delivered %+v", m)
	}
	var parsed []dcp.Credential
	for _, c := range m.Credentials {
		one, err := dcp.ParseCredential(c.Payload)
		must(t, err)
		if one.Profile != c.Format || len(one.Status) != 2 {
			t.Errorf("%s: profile %s, %d status entries", c.Format, one.Profile, len(one.Status))
		}
		parsed = append(parsed, *one)
	}
	vps, err := dcp.NewPresentations(p.key, p.did, r.did("globex"), parsed, time.Now())
	must(t, err)
	if len(vps) != 2 {
		t.Fatalf("%d presentations of two profiles", len(vps))
	}
	var raws []string
	for _, vp := range vps {
		var raw string
		must(t, json.Unmarshal(vp, &raw))
		raws = append(raws, raw)
	}
	p.presents(raws...)
	agent, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), scopes[:1])
	if err != nil || len(agent.Credentials) != 2 || len(agent.Refused) != 0 {
		t.Fatalf("%+v, %v", agent, err)
	}
	// Revoked in one profile only.
	r.act("authority", agent.Credentials[0].ID, "revoke")
	agent, err = r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), scopes[:1])
	if err != nil || len(agent.Credentials) != 1 || len(agent.Refused) != 1 || agent.Refused[0].Code != "revoked" {
		t.Errorf("after revoking one: %+v, %v", agent, err)
	}
	// The lists are served signed or bare, as the client accepts.
	list := parsed[0].Status[0].List
	for accept, prefix := range map[string]string{"": "ey", "*/*": "ey", "application/vc+jwt": "ey", "application/json": "{", "application/ld+json": "{"} {
		raw, err := dcp.Get(t.Context(), http.DefaultClient, list, accept, "", 1<<20)
		must(t, err)
		if !strings.HasPrefix(string(raw), prefix) {
			t.Errorf("Accept %q: %.40s", accept, raw)
		}
	}
}
