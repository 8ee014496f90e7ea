// SPDX-License-Identifier: Apache-2.0

package openbao_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/test/openbao"
)

const ownPrefix, otherPrefix = "cells/a/connector", "cells/b/connector"

// roleToken makes a policy of what a role does and returns a token with it and no other right.
func roleToken(t *testing.T, s *openbao.Server, name, policy string) string {
	t.Helper()
	s.Call(t, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": policy})
	auth := s.Call(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{name}, "no_default_policy": true})["auth"].(map[string]any)
	return auth["client_token"].(string)
}

// try makes a request with a token; every request of the table finds something to work on, so that only a policy refuses it.
func try(t *testing.T, s *openbao.Server, token, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Address+"/v1/"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// Every request that could matter, by every role, against a real server: allowed where the role needs it and refused everywhere else.
func TestRolesDoWhatTheyNeedAndNothingElse(t *testing.T) {
	s := openbao.Start(t)
	roles := []vault.Access{vault.StoreSecrets, vault.ReadSecrets, vault.UseKeys, vault.Backup, vault.Restore}
	tokens := map[vault.Access]string{}
	for _, r := range roles {
		tokens[r] = roleToken(t, s, string(r), vault.Policy("secret", ownPrefix, r))
	}
	type request struct{ method, path, body string }
	at := func(tree, prefix, rest string) string { return "secret/" + tree + "/" + prefix + "/acme/" + rest }
	requests := map[string]request{
		"sys: read a policy":     {http.MethodGet, "sys/policies/acl/" + string(vault.UseKeys), ""},
		"sys: write a policy":    {http.MethodPut, "sys/policies/acl/mine", `{"policy":"path \"*\" { capabilities = [\"sudo\"] }"}`},
		"sys: list the mounts":   {http.MethodGet, "sys/mounts", ""},
		"sys: make a token":      {http.MethodPost, "auth/token/create", `{}`},
		"sys: list every prefix": {"LIST", "secret/metadata/", ""},
		"sys: list the cells":    {"LIST", "secret/metadata/cells/", ""},
		"sys: list the owners":   {"LIST", "secret/metadata/" + ownPrefix + "/", ""},
		"sys: list its kinds":    {"LIST", "secret/metadata/" + ownPrefix + "/acme/", ""},
		"sys: set up the engine": {http.MethodPost, "secret/config", `{"max_versions":5}`},
	}
	const write = `{"data":{"value":"new","jwk":"new"}}`
	for prefix, place := range map[string]string{ownPrefix: "own", otherPrefix: "other"} {
		for _, kind := range []string{"keys", "secrets", "anything"} {
			name := place + " " + kind + ": "
			requests[name+"read"] = request{http.MethodGet, at("data", prefix, kind+"/x"), ""}
			requests[name+"create"] = request{http.MethodPost, at("data", prefix, kind+"/fresh"), write}
			requests[name+"replace"] = request{http.MethodPost, at("data", prefix, kind+"/x"), write}
			requests[name+"patch"] = request{http.MethodPatch, at("data", prefix, kind+"/x"), write}
			requests[name+"read an old version"] = request{http.MethodGet, at("data", prefix, kind+"/x?version=1"), ""}
			requests[name+"read what is known of it"] = request{http.MethodGet, at("metadata", prefix, kind+"/x"), ""}
			requests[name+"read its subkeys"] = request{http.MethodGet, at("subkeys", prefix, kind+"/x"), ""}
			requests[name+"list"] = request{"LIST", at("metadata", prefix, kind), ""}
			requests[name+"undelete"] = request{http.MethodPost, at("undelete", prefix, kind+"/x"), `{"versions":[1]}`}
			requests[name+"delete"] = request{http.MethodDelete, at("metadata", prefix, kind+"/x"), ""}
		}
	}
	needs := map[vault.Access][]string{
		vault.StoreSecrets: {"own secrets: create", "own secrets: replace", "own secrets: list", "own secrets: delete"},
		vault.ReadSecrets:  {"own secrets: read", "own secrets: read an old version"},
		vault.UseKeys:      {"own keys: read", "own keys: read an old version", "own keys: create", "own keys: replace", "own keys: list", "own keys: delete"},
		vault.Backup:       {"own keys: read", "own keys: read an old version", "own keys: list", "own secrets: read", "own secrets: read an old version", "own secrets: list"},
		vault.Restore:      {"own keys: read", "own keys: read an old version", "own keys: create", "own secrets: read", "own secrets: read an old version", "own secrets: create"},
	}
	for _, role := range roles {
		needed := map[string]bool{}
		for _, n := range needs[role] {
			if _, ok := requests[n]; !ok {
				t.Fatalf("there is no request %q", n)
			}
			needed[n] = true
		}
		for name, r := range requests {
			for _, kind := range []string{"keys", "secrets", "anything"} {
				for _, prefix := range []string{ownPrefix, otherPrefix} {
					for _, name := range []string{"/x", "/fresh"} {
						s.Call(t, http.MethodDelete, at("metadata", prefix, kind+name), nil)
					}
					s.Call(t, http.MethodPost, at("data", prefix, kind+"/x"), map[string]any{"data": map[string]string{"value": "hush", "jwk": "hush"}})
				}
			}
			status, answer := try(t, s, tokens[role], r.method, r.path, r.body)
			switch {
			case needed[name] && status > 299:
				t.Errorf("%s may not %q: %d %s", role, name, status, answer)
			case !needed[name] && status != http.StatusForbidden:
				t.Errorf("%s may %q: %d", role, name, status)
			case !needed[name] && strings.Contains(answer, "hush"):
				t.Errorf("%s is refused %q and told the secret", role, name)
			}
		}
	}
}

// lookup is what a token that was given, not logged in for, needs of the default policy.
const lookup = `path "auth/token/lookup-self" { capabilities = ["read"] }`

// Each role asks for exactly what its policy gives, and names what is missing, with the path.
func TestProbeAsksForWhatTheRoleNeeds(t *testing.T) {
	s := openbao.Start(t)
	lacks := map[vault.Access]string{
		vault.StoreSecrets: "lacks create, update on secret/data/" + ownPrefix + "/probe/secrets/probe and list, delete on secret/metadata/" + ownPrefix + "/probe/secrets/probe",
		vault.ReadSecrets:  "lacks read on secret/data/" + ownPrefix + "/probe/secrets/probe",
		vault.UseKeys:      "lacks create, read, update on secret/data/" + ownPrefix + "/probe/keys/probe and list, delete on secret/metadata/" + ownPrefix + "/probe/keys/probe",
	}
	for has := range lacks {
		file := tokenFile(t, roleToken(t, s, string(has), vault.Policy("secret", ownPrefix, has)+lookup))
		for asks, want := range lacks {
			cfg := vault.Config{Address: s.Address, Mount: "secret", Prefix: ownPrefix, Access: []vault.Access{asks}, Auth: vault.Auth{Method: vault.AuthToken, TokenFile: file}}
			switch err := client(t, cfg).Probe(t.Context()); {
			case has == asks && err != nil:
				t.Errorf("%s, with its own policy: %v", asks, err)
			case has != asks && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s, with the policy of %s: %v does not say %q", asks, has, err, want)
			}
		}
	}
	mute := tokenFile(t, roleToken(t, s, "mute", `path "secret/data/`+ownPrefix+`/+/secrets/*" { capabilities = ["read"] }`+lookup))
	cfg := vault.Config{Address: s.Address, Mount: "secret", Prefix: ownPrefix, Access: []vault.Access{vault.ReadSecrets}, Auth: vault.Auth{Method: vault.AuthToken, TokenFile: mute}}
	if err := client(t, cfg).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "sys/capabilities-self") {
		t.Errorf("a policy that does not let ask: %v", err)
	}
}
