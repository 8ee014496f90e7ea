// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/profile"
)

func TestIDTokensAreJudged(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p := newParty(t, "mallory")
	p.presents()
	me := r.did("globex")
	soon, past := time.Now().Add(time.Minute).Unix(), time.Now().Add(-time.Minute).Unix()
	stranger, _ := newKey(t, p.did)
	es256 := map[string]any{"alg": "ES256", "kid": p.did + "#key", "typ": "JWT"}
	nothing := func([]byte) []byte { return nil }
	with := func(header map[string]any, edits map[string]any) map[string]any {
		out := map[string]any{}
		for k, v := range header {
			out[k] = v
		}
		return edited(out, edits)
	}
	access, err := dcp.NewAccessToken(p.key, p.did, p.did, nil, time.Now())
	must(t, err)
	replayed := p.sign(p.token(me, nil))
	if _, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+replayed, nil); err != nil {
		t.Fatalf("a good token: %v", err)
	}
	for name, tc := range map[string]struct{ header, want string }{
		"no header":                      {"", "Bearer"},
		"no Bearer":                      {p.sign(p.token(me, nil)), "Bearer"},
		"not a token":                    {"Bearer abc", "compact JWS"},
		"used before":                    {"Bearer " + replayed, "used before"},
		"for another":                    {"Bearer " + p.sign(p.token(r.did("acme"), nil)), "aud"},
		"for two":                        {"Bearer " + p.sign(p.token("", map[string]any{"aud": []string{me, "did:web:other"}})), "aud"},
		"subject is another":             {"Bearer " + p.sign(p.token(me, map[string]any{"sub": r.did("acme")})), "sub"},
		"of another, by our key":         {"Bearer " + p.sign(p.token(me, map[string]any{"iss": r.did("acme"), "sub": r.did("acme")})), "does not belong to"},
		"expired":                        {"Bearer " + p.sign(p.token(me, map[string]any{"exp": past})), "exp"},
		"issued in the future":           {"Bearer " + p.sign(p.token(me, map[string]any{"iat": soon})), "iat"},
		"not yet valid":                  {"Bearer " + p.sign(p.token(me, map[string]any{"nbf": soon})), "nbf"},
		"valid for years":                {"Bearer " + p.sign(p.token(me, map[string]any{"exp": time.Now().AddDate(3, 0, 0).Unix()})), "exp"},
		"no exp":                         {"Bearer " + p.sign(p.token(me, map[string]any{"exp": nil})), "exp"},
		"no iat":                         {"Bearer " + p.sign(p.token(me, map[string]any{"iat": nil})), "iat"},
		"no jti":                         {"Bearer " + p.sign(p.token(me, map[string]any{"jti": nil})), "jti"},
		"no issuer":                      {"Bearer " + p.sign(p.token(me, map[string]any{"iss": nil, "sub": nil})), "iss"},
		"issuer is no did:web":           {"Bearer " + p.sign(p.token(me, map[string]any{"iss": "https://x.example", "sub": "https://x.example"})), "did:web"},
		"by a stranger's key":            {"Bearer " + sign(t, stranger, p.token(me, nil)), "signature"},
		"changed after signing":          {"Bearer " + tamper(t, p.sign(p.token(me, nil)), func(c map[string]any) { c["token"] = "other" }), "signature"},
		"alg none":                       {"Bearer " + forge(t, with(es256, map[string]any{"alg": "none"}), p.token(me, nil), nothing), "algorithm"},
		"alg None":                       {"Bearer " + forge(t, with(es256, map[string]any{"alg": "None"}), p.token(me, nil), nothing), "algorithm"},
		"HS256 with the public key":      {"Bearer " + forge(t, with(es256, map[string]any{"alg": "HS256"}), p.token(me, nil), hs256(p.public)), "algorithm"},
		"an RSA algorithm for an EC key": {"Bearer " + forge(t, with(es256, map[string]any{"alg": "RS256"}), p.token(me, nil), nothing), "does not go with"},
		"an empty signature":             {"Bearer " + forge(t, es256, p.token(me, nil), nothing), "signature"},
		"crit":                           {"Bearer " + forge(t, with(es256, map[string]any{"crit": []string{"exp"}}), p.token(me, nil), nothing), "crit"},
		"a key in the header":            {"Bearer " + forge(t, with(es256, map[string]any{"kid": "", "jwk": p.public}), p.token(me, nil), nothing), "signature"},
		"a key that is not there":        {"Bearer " + forge(t, with(es256, map[string]any{"kid": p.did + "#gone"}), p.token(me, nil), nothing), "no key"},
		"a presentation":                 {"Bearer " + p.sign(p.presentation(me, nil, nil)), "presentation"},
		"an access token":                {"Bearer " + access, "access token"},
		"no access token in it":          {"Bearer " + p.sign(p.token(me, map[string]any{"token": nil})), "access token"},
	} {
		_, err := r.services["globex"].Verify(t.Context(), r.local("globex"), tc.header, scopes)
		if !errors.Is(err, identity.ErrUnauthenticated) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want a refusal that says %q", name, err, tc.want)
		}
	}
	if n := p.queries.Load(); n != 0 {
		t.Errorf("%d queries were made for tokens that were refused", n)
	}
}

// However many replicas receive a token at once, one of them accepts it.
func TestATokenCountsOnceForAllReplicas(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p := newParty(t, "sender")
	header := "Bearer " + p.sign(p.token(r.did("globex"), nil))
	outcomes := make(chan error)
	for range 4 {
		replica := r.service(r.wallet)
		for range 4 {
			go func() {
				_, err := replica.Verify(t.Context(), r.local("globex"), header, nil)
				outcomes <- err
			}()
		}
	}
	accepted := 0
	for range 16 {
		switch err := <-outcomes; {
		case err == nil:
			accepted++
		case !strings.Contains(err.Error(), "used before"):
			t.Error(err)
		}
	}
	if accepted != 1 {
		t.Errorf("accepted %d times", accepted)
	}
}

// The document says what a key is for. DCP wants that; the switch lets documents pass that say nothing at all.
func TestKeyRelationships(t *testing.T) {
	for _, tc := range []struct {
		name     string
		settings dcp.Settings
		declared []string
		ok       bool
	}{
		{"all, strict", dcp.Settings{}, []string{"authentication", "capabilityInvocation"}, true},
		{"none, strict", dcp.Settings{}, nil, false},
		{"none, when declared", dcp.Settings{KeyRelationships: dcp.RelationshipsWhenDeclared}, nil, true},
		{"another, when declared", dcp.Settings{KeyRelationships: dcp.RelationshipsWhenDeclared}, []string{"authentication"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.settings)
			p := newParty(t, "party")
			p.relationships = tc.declared
			p.presents(p.sign(p.presentation(r.did("globex"), nil, nil)))
			_, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), scopes)
			if (err == nil) != tc.ok {
				t.Errorf("got %v, want ok = %t", err, tc.ok)
			}
			if err != nil && !strings.Contains(err.Error(), "capabilityInvocation") {
				t.Errorf("the refusal does not say which relationship: %v", err)
			}
		})
	}
}

func TestCredentialsAreJudged(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p, is := newParty(t, "mallory"), newParty(t, "issuer")
	r.trust = append(r.trust, profile.TrustedIssuer{DID: is.did, Types: []string{membership}})
	stolen := r.raw("acme", r.obtain("acme", "authority", membership, `{}`).ID)
	future, past := time.Now().Add(time.Hour).UTC().Format(time.RFC3339), time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	is.page("/schema", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/schema+json")
		_, _ = w.Write([]byte(`{"$schema":"http://json-schema.org/draft-04/schema#","type":"object","required":["memberOf"]}`))
	})
	list := func(path, issuer, purpose string, set ...int) {
		bits := make([]byte, 16)
		for _, n := range set {
			bits[n/8] |= 1 << (7 - n%8)
		}
		encoded, err := dcp.EncodeStatusList(dcp.ProfileVC20, bits)
		must(t, err)
		is.page(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil // as the test kit answers
			_ = json.NewEncoder(w).Encode(map[string]any{"type": []string{"VerifiableCredential", "StatusList2021Credential"}, "issuer": issuer,
				"credentialSubject": map[string]any{"statusPurpose": purpose, "encodedList": encoded}})
		})
	}
	is.page("/trouble", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", http.StatusServiceUnavailable) })
	gone := newParty(t, "gone")
	r.trust = append(r.trust, profile.TrustedIssuer{DID: gone.did, Types: []string{membership}})
	gone.server.Close()
	list("/list", is.did, "revocation", 9)
	list("/others", p.did, "revocation")
	list("/suspended", is.did, "suspension", 9)
	list("/signed", is.did, "revocation", 9)
	status := func(path, purpose, index string) map[string]any {
		return map[string]any{"credentialStatus": map[string]any{"type": "BitstringStatusListEntry", "statusPurpose": purpose, "statusListIndex": index,
			"statusListCredential": is.server.URL + path}}
	}
	schema := map[string]any{"credentialSchema": map[string]any{"id": is.server.URL + "/schema", "type": "JsonSchemaValidator2018"}}
	issue := func(edits map[string]any) string { return is.sign(is.credential(p.did, membership, edits)) }
	for name, tc := range map[string]struct{ raw, code, reason string }{
		"good":                {issue(nil), "", ""},
		"stolen":              {stolen, "holder-mismatch", r.did("acme")},
		"about nobody":        {issue(map[string]any{"credentialSubject": map[string]any{"memberOf": "x"}}), "holder-mismatch", p.did},
		"self-issued":         {p.sign(p.credential(p.did, membership, nil)), "wrong-issuer", p.did},
		"not trusted for it":  {is.sign(is.credential(p.did, attestation, nil)), "wrong-issuer", attestation},
		"issuer only claimed": {p.sign(edited(p.credential(p.did, membership, map[string]any{"issuer": is.did}), map[string]any{"iss": nil})), "bad-signature", "does not belong to"},
		"two issuers":         {p.sign(p.credential(p.did, membership, map[string]any{"issuer": is.did})), "malformed", is.did},
		"changed": {tamper(t, issue(nil), func(c map[string]any) {
			c["vc"].(map[string]any)["credentialSubject"].(map[string]any)["memberOf"] = "x"
		}), "bad-signature", "signature"},
		"alg none":            {forge(t, map[string]any{"alg": "none"}, is.credential(p.did, membership, nil), func([]byte) []byte { return nil }), "malformed", "none"},
		"expired":             {issue(map[string]any{"expirationDate": past}), "expired", past},
		"expired by exp":      {is.sign(edited(is.credential(p.did, membership, nil), map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})), "expired", "expired on"},
		"not yet valid":       {issue(map[string]any{"issuanceDate": future}), "not-yet-valid", future},
		"without end":         {issue(map[string]any{"expirationDate": nil}), "", ""},
		"against its schema":  {issue(schema), "schema", "memberOf"},
		"schema not there":    {issue(map[string]any{"credentialSchema": map[string]any{"id": is.server.URL + "/none", "type": "JsonSchema"}}), "schema", "404"},
		"schema is a file":    {issue(map[string]any{"credentialSchema": map[string]any{"id": "file:///etc/hostname", "type": "JsonSchema"}}), "schema", "http"},
		"schema unknown":      {issue(map[string]any{"credentialSchema": map[string]any{"id": "x", "type": "ShEx"}}), "schema", "ShEx"},
		"bit not set":         {issue(status("/list", "revocation", "8")), "", ""},
		"revoked":             {issue(status("/list", "revocation", "9")), "revoked", is.did},
		"suspended":           {issue(status("/suspended", "suspension", "9")), "suspended", is.did},
		"beyond the list":     {issue(status("/list", "revocation", "128")), "status-unavailable", "128"},
		"negative index":      {issue(status("/list", "revocation", "-1")), "status-unavailable", "-1"},
		"another's list":      {issue(status("/others", "revocation", "1")), "status-unavailable", p.did},
		"list for other use":  {issue(status("/list", "suspension", "1")), "status-unavailable", "suspension"},
		"list not there":      {issue(status("/none", "revocation", "1")), "status-unavailable", "404"},
		"unknown status type": {issue(map[string]any{"credentialStatus": map[string]any{"type": "RevocationList2020Status"}}), "status-unavailable", "RevocationList2020Status"},
		"list in trouble":     {issue(status("/trouble", "revocation", "1")), "unreachable", "503"},
		"keys in trouble":     {gone.sign(gone.credential(p.did, membership, nil)), "unreachable", gone.did},
		"no credential":       {"x", "malformed", ""},
	} {
		p.presents(p.sign(p.presentation(r.did("globex"), []string{tc.raw}, nil)))
		agent, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), scopes[:1])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tc.code == "" {
			if len(agent.Credentials) != 1 || len(agent.Refused) != 0 {
				t.Errorf("%s: %+v", name, agent)
			}
			continue
		}
		if len(agent.Credentials) != 0 || len(agent.Refused) != 1 || agent.Refused[0].Code != tc.code || !strings.Contains(agent.Refused[0].Reason, tc.reason) {
			t.Errorf("%s: want refused as %s with %q, got %+v", name, tc.code, tc.reason, agent)
		}
	}
}

func TestPresentationsAreJudged(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p, is := newParty(t, "mallory"), newParty(t, "issuer")
	r.trust = append(r.trust, profile.TrustedIssuer{DID: is.did, Types: []string{membership}})
	me := r.did("globex")
	good := is.sign(is.credential(p.did, membership, nil))
	stranger, _ := newKey(t, p.did)
	verify := func() (identity.Agent, error) {
		return r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(me, nil)), scopes[:1])
	}
	for name, tc := range map[string]struct{ vp, want string }{
		"for another":         {p.sign(p.presentation(r.did("acme"), []string{good}, nil)), "made for"},
		"for nobody":          {p.sign(p.presentation(me, []string{good}, map[string]any{"aud": nil})), "made for"},
		"by a stranger's key": {sign(t, stranger, p.presentation(me, []string{good}, nil)), "signature"},
		"of another":          {p.sign(p.presentation(me, []string{good}, map[string]any{"iss": r.did("acme")})), "made by"},
		"holder is another":   {p.sign(p.presentation(me, nil, map[string]any{"vp": map[string]any{"holder": r.did("acme"), "verifiableCredential": []string{good}}})), "holder"},
		"expired":             {p.sign(p.presentation(me, []string{good}, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})), "exp"},
		"changed":             {tamper(t, p.sign(p.presentation(me, []string{good}, nil)), func(c map[string]any) { c["jti"] = "x" }), "signature"},
		"too many in it":      {p.sign(p.presentation(me, make([]string, 51), nil)), "51"},
		"no presentation":     {"x", "compact JWS"},
	} {
		p.presents(tc.vp)
		if _, err := verify(); !errors.Is(err, identity.ErrUnauthenticated) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want a refusal that says %q", name, err, tc.want)
		}
	}
	// More than was asked for is no harm, and two presentations count together.
	p.presents(p.sign(p.presentation(me, []string{good}, nil)), p.sign(p.presentation(me, []string{is.sign(is.credential(p.did, membership, nil))}, nil)))
	before := p.queries.Load()
	agent, err := verify()
	if err != nil || len(agent.Credentials) != 2 {
		t.Errorf("two presentations: %+v, %v", agent, err)
	}
	if n := p.queries.Load() - before; n != 1 {
		t.Errorf("%d queries for one message", n)
	}
	p.presents()
	if agent, err := verify(); err != nil || len(agent.Credentials)+len(agent.Refused) != 0 {
		t.Errorf("no presentation: %+v, %v", agent, err)
	}
	for status, refused := range map[int]bool{http.StatusUnauthorized: true, http.StatusInternalServerError: false, http.StatusTooManyRequests: false} {
		p.page("/cs/presentations/query", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		if _, err := verify(); err == nil || errors.Is(err, identity.ErrUnauthenticated) != refused {
			t.Errorf("the credential service answers %d: %v", status, err)
		}
	}
	p.page("/cs/presentations/query", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(strings.Repeat(" ", 3<<20))) })
	if _, err := verify(); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless answer: %v", err)
	}
}

func TestNewKeysAreSeenAtOnce(t *testing.T) {
	// This verifier believes documents for an hour, unless a key says otherwise; its clock stands still, ahead of
	// the parties', so that their tokens are not from its future.
	now := time.Now().Add(30 * time.Second)
	v, err := dcp.NewVerifier(dcp.VerifierConfig{
		HTTP: dcp.NewHTTPClient(dcp.HTTPConfig{Networks: netguard.Guard{AllowPrivate: true, AllowLoopback: true}, AllowPlainHTTP: true}), DIDHTTP: true, Settings: dcp.Settings{DocumentCache: time.Hour}, Now: func() time.Time { return now },
	})
	must(t, err)
	p := newParty(t, "party")
	replay := dcp.NewMemoryReplay(10)
	check := func() error {
		_, err := v.IDToken(t.Context(), "Bearer "+p.sign(p.token("did:web:me", nil)), "did:web:me", replay)
		return err
	}
	must(t, check())
	p.key, p.public = newKey(t, p.did)
	if err := check(); !errors.Is(err, identity.ErrUnauthenticated) {
		t.Errorf("within the second in which a document is not fetched again: %v", err)
	}
	now = now.Add(2 * time.Second)
	must(t, check())
}

func TestUnreachableSenderIsNotARefusal(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	p := newParty(t, "party")
	p.server.Close()
	_, err := r.services["globex"].Verify(t.Context(), r.local("globex"), "Bearer "+p.sign(p.token(r.did("globex"), nil)), nil)
	if err == nil || errors.Is(err, identity.ErrUnauthenticated) || !strings.Contains(err.Error(), p.did) {
		t.Errorf("got %v, want a temporary error that names %s", err, p.did)
	}
}
