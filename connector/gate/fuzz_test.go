// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
)

// Keys are kept, since every process that looks for inputs adds the same ones.
const (
	keptP256    = `{"kty":"EC","crv":"P-256","d":"IRUn_3VzNR9wEqI5BUndvPKMDqjrI6XDTg7Rl_DUum4","x":"_fTMmCbkN65P75eGHOPq4nBw8IoK5JSfP7RZaRVQmRo","y":"iX-JcCPE4Jnh7jK95gHXnUErimXvE9bmgtdMMd_OxhQ"}`
	keptEd25519 = `{"kty":"OKP","crv":"Ed25519","d":"46CWE2OTcUbwLLpVGeItq_0x7nhlha9HOxoQpv2bc24","x":"K_-8mZ7qqVpyIe2hqE6fABIUfDvqQBvINJ-jcwhOmNg"}`
)

func keptPerson(t testing.TB, id, organization, private string) person {
	t.Helper()
	key, err := jwk.ParseKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	return person{Approver: adminapi.Approver{ID: id, Name: strings.ToUpper(id), Organization: organization, Keys: []json.RawMessage{publicOf(t, key)}}, key: key}
}

// FuzzDecide: nothing counts at a gate but what one of its approvers signed, and what does not count changes nothing.
func FuzzDecide(f *testing.F) {
	anna, bert := keptPerson(f, "anna", "supplier", keptP256), keptPerson(f, "bert", "oem", keptEd25519)
	signed := map[string]bool{} // what the signatures are over
	for _, by := range []person{anna, bert} {
		for _, v := range []adminapi.Verdict{adminapi.Approve, adminapi.Reject} {
			c := claims(by, v)
			c.ID = by.ID + "-" + string(v)
			s := sign(f, by, c)
			signed[s[:strings.LastIndex(s, ".")]] = true
			f.Add(s)
		}
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"` + gate.Type + `"}`))
	f.Add(none + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"anna","gate":"release","decision":"approve","jti":"1","iat":1,"exp":2}`)) + ".")
	f.Fuzz(func(t *testing.T, given string) {
		holds := approval(2, 2, anna, bert)
		before, err := json.Marshal(holds)
		if err != nil {
			t.Fatal(err)
		}
		if err := take(holds, given, noon); err == nil {
			if cut := strings.LastIndex(given, "."); cut < 0 || !signed[given[:cut]] {
				t.Fatalf("%q counts", given)
			}
			if err := take(holds, given, noon); err == nil {
				t.Fatalf("%q counts twice", given)
			}
			return
		} else if refusal := new(gate.RefusedError); !errors.As(err, &refusal) || refusal.Code == "" || refusal.Message == "" {
			t.Fatalf("not a refusal: %v", err)
		}
		if after, err := json.Marshal(holds); err != nil || string(after) != string(before) {
			t.Fatalf("%q is refused and leaves %s", given, after)
		}
	})
}

// FuzzCheck: gates that are taken can be held, and passed by those whom they name; what is refused is refused by path.
func FuzzCheck(f *testing.F) {
	anna, bert := newPerson(f, "anna", "supplier", elliptic.P256()), newPerson(f, "bert", "oem", nil)
	for _, gates := range [][]adminapi.Gate{
		{{Name: "release", Type: adminapi.GateApproval, Before: "AGREED", Deadline: "PT1H", Required: 2, Organizations: 2, Approvers: []adminapi.Approver{anna.Approver, bert.Approver}}},
		{{Name: "erp", Type: adminapi.GateWebhook, Before: "FINALIZED", Deadline: "P1D", Required: 1, URL: "https://erp.example/gate", Approvers: []adminapi.Approver{bert.Approver}}},
		{{Name: "fresh", Type: adminapi.GateAttestation, Before: "AGREED", Deadline: "P1Y", Policy: json.RawMessage(`{"@type":"Set","permission":[]}`), TriggeredBy: []adminapi.Approver{anna.Approver}}},
	} {
		raw, err := json.Marshal(gates)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var gates []adminapi.Gate
		if json.Unmarshal(raw, &gates) != nil {
			return
		}
		if err := gate.Check(gates); err != nil {
			if at := new(odrl.Error); !errors.As(err, &at) || !strings.HasPrefix(at.Path, "$") {
				t.Fatalf("refused without a path: %v", err)
			}
			return
		}
		holds := gate.Holds(gates)
		for i := range holds {
			h := &holds[i]
			h.Open(noon)
			if got := gate.Evaluate(h, noon); got != adminapi.GateOpen {
				t.Fatalf("%s is %s as soon as it holds", raw, got)
			}
			if next := h.Look(noon); next.Before(noon) || next.After(*h.Deadline) {
				t.Fatalf("%s is looked at again at %s", raw, next)
			}
			_ = gate.State(h, noon)
			h.Attested = &gate.Attested{Satisfied: true}
			for range gates[i].Required {
				if waits := h.WaitsFor(); len(waits) == 0 {
					t.Fatalf("%s waits for nobody, and has not passed", raw)
				} else {
					h.Decisions = append(h.Decisions, adminapi.GateDecision{Verdict: adminapi.Approve, By: waits[0]})
				}
			}
			if len(h.Gate.TriggeredBy) > 0 {
				h.Decisions = append(h.Decisions, adminapi.GateDecision{Verdict: adminapi.Trigger, By: h.Gate.TriggeredBy[0]})
			}
			if got := gate.Evaluate(h, noon); got != adminapi.GatePassed {
				t.Fatalf("%s is %s when all have decided", raw, got)
			}
		}
	})
}

// FuzzPublicKey: what is taken for a public key is one, and is the same key when it is written again.
func FuzzPublicKey(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), nil} {
		p := newPerson(f, "anna", "supplier", curve)
		f.Add([]byte(p.Keys[0]))
		private, err := json.Marshal(p.key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(private)
	}
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		thumb, key, err := gate.PublicKey(raw)
		if err != nil {
			return
		}
		if thumb == "" || key == nil {
			t.Fatalf("%s gives no key and no error", raw)
		}
		var members map[string]any
		if err := json.Unmarshal(raw, &members); err != nil || members["d"] != nil {
			t.Fatalf("%s is taken for a public key", raw)
		}
	})
}
