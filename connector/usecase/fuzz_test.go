// SPDX-License-Identifier: Apache-2.0

package usecase_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

// kept is a key, since every process that looks for inputs adds the same ones.
const kept = `{"kty":"OKP","crv":"Ed25519","d":"46CWE2OTcUbwLLpVGeItq_0x7nhlha9HOxoQpv2bc24","x":"K_-8mZ7qqVpyIe2hqE6fABIUfDvqQBvINJ-jcwhOmNg"}`

// FuzzRevision: where one is in force, nothing takes its place but what was signed; what is read says the same when it is written again.
func FuzzRevision(f *testing.F) {
	key, err := jwk.ParseKey([]byte(kept))
	if err != nil {
		f.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		f.Fatal(err)
	}
	raw, err := json.Marshal(public)
	if err != nil {
		f.Fatal(err)
	}
	anna := signer{adminapi.Approver{ID: "anna", Name: "ANNA", Organization: "authority", Keys: []json.RawMessage{raw}}, key}
	first := sign(f, revision(f, content(f, nil)), anna, 1, anna)
	next := sign(f, revision(f, content(f, func(c *usecase.Content) {
		c.Number, c.Previous = 2, first.Hash
		c.Gates = []usecase.Gate{{Name: "g", Type: "Webhook", Before: "AGREED", Deadline: "P1D", Webhook: &usecase.Webhook{URL: "https://erp.example", System: "erp", Organization: "oem", PublicKey: raw}}}
	})), anna, 2, anna)
	f.Add(next.Content, next.SignOff)
	f.Add(first.Content, first.SignOff)
	f.Add(next.Content+" ", next.SignOff)
	f.Add(next.Content+"{}", "")
	f.Add(strings.Replace(next.Content, "P12M", "P99M", 1), next.SignOff)
	f.Add(`{"useCase":"footprint","revision":2,"profile":"automotive","assetType":"","contractPolicy":null}`, "a.b.c")
	f.Fuzz(func(t *testing.T, text, signOff string) {
		r := adminapi.UseCaseRevision{UseCase: "footprint", Number: 2, Hash: usecase.Hash(text), Content: text, SignOff: signOff, Signers: next.Signers}
		if _, _, err := usecase.Accept(&first, r); err == nil {
			if text != next.Content || signOff[:strings.LastIndex(signOff, ".")] != next.SignOff[:strings.LastIndex(next.SignOff, ".")] {
				t.Fatalf("%s with %s takes effect", text, signOff)
			}
		} else if refusal := new(gate.RefusedError); !errors.As(err, &refusal) || refusal.Code == "" || refusal.Message == "" {
			t.Fatalf("not a refusal: %v", err)
		}
		c, err := usecase.Read(text)
		if err != nil {
			return
		}
		written, _, err := usecase.Write(c)
		if err != nil || !json.Valid([]byte(text)) {
			t.Fatalf("%s is read, and cannot be written: %v", text, err)
		}
		if again, err := usecase.Read(written); err != nil || !usecase.Same(c, again) {
			t.Fatalf("%s reads otherwise again: %v", written, err)
		}
		for _, lang := range []string{"en", "de"} {
			if said, err := usecase.Explain(c, lang); err == nil && len(said) == 0 {
				t.Fatalf("%s is explained without a word", text)
			}
		}
	})
}
