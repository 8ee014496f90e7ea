// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
)

// decider logs somebody in to the CLI, under the person's name, with a registered key for decisions.
func decider(t *testing.T, person string) {
	t.Helper()
	if _, _, code := command(t, "kaphera", "--context", person, "approvals", "key", "create"); code == 0 {
		return
	}
	must(t, "kaphera", "demo", "login", person)
	must(t, "kaphera", "--context", person, "approvals", "key", "create")
}

// inbox is what waits for a person.
func inbox(t *testing.T, person string) []client.Approval {
	t.Helper()
	var all client.Approvals
	if err := json.Unmarshal([]byte(must(t, "kaphera", "--context", person, "approvals", "list", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	return all.Items
}

// awaited waits until a negotiation, named by the provider's id, waits for a person.
func awaited(t *testing.T, person, negotiation string) (about client.Approval) {
	t.Helper()
	eventually(t, "negotiation "+negotiation+" in the inbox of "+person, func(context.Context) (bool, string) {
		for _, about = range inbox(t, person) {
			if about.Negotiation == negotiation {
				return true, ""
			}
		}
		return false, "it is not there"
	})
	return about
}

// decide has a person decide with the CLI.
func decide(t *testing.T, person, verdict, negotiation string) {
	t.Helper()
	must(t, "kaphera", "--context", person, "approvals", verdict, negotiation, "--yes", "--offer", awaited(t, person, negotiation).OfferHash, "--comment", "e2e")
}

// privateKey is a person's key for decisions as the CLI keeps it, and whose it is.
func privateKey(t *testing.T, person string) (jwk.Key, string) {
	t.Helper()
	api, err := url.Parse(os.Getenv("KAPHERA_API"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Subject string          `json:"subject"`
		Key     json.RawMessage `json:"key"`
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(os.Getenv("KAPHERA_CONFIG_DIR"), "approval-keys", person+"-"+api.Host+".json")), &file); err != nil {
		t.Fatal(err)
	}
	key, err := jwk.ParseKey(file.Key)
	if err != nil {
		t.Fatal("a person's key cannot be read")
	}
	return key, file.Subject
}

// handIn signs claims and hands them in through the public API; it returns the code of the refusal, empty when it was taken.
func handIn(t *testing.T, provider string, key jwk.Key, claims adminapi.DecisionClaims) string {
	t.Helper()
	signed, err := gate.Sign(key, claims)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cloud(t).DecideWithResponse(t.Context(), provider, claims.Negotiation, client.SignedDecision{Decision: signed})
	if err == nil {
		return ""
	}
	e := client.AsError(err)
	if e == nil {
		t.Fatal(err)
	}
	return e.Code
}
