// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

// trail reads and verifies a participant's chain and tells it as "type actor", with the bodies.
func trail(t *testing.T, s *store.Store, h audit.Head) (lines []string, bodies []map[string]any) {
	t.Helper()
	records, err := s.AuditRecords(t.Context(), h, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	for _, r := range records {
		var b map[string]any
		if err := errors.Join(json.Unmarshal(r.Body, &b), audit.WriteRecord(&file, r)); err != nil {
			t.Fatal(err)
		}
		lines, bodies = append(lines, r.Type+" "+r.Actor), append(bodies, b)
	}
	if err := audit.WriteHead(&file, h); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(&file, nil); err != nil {
		t.Fatal(err)
	}
	return lines, bodies
}

func TestWhatHappensToAProcessIsRecordedWithIt(t *testing.T) {
	s, _ := open(t, store.Options{})
	ctx := audit.WithActor(t.Context(), "did:web:b")
	n := negotiation("n1", "did:web:b")
	n.History = []adminapi.Event{{At: time.Now(), State: state.Requested}}
	first := adminapi.Trace{At: time.Now(), Phase: profile.PhaseNegotiation, Policy: "abc", By: "did:web:acme", Checks: []adminapi.Check{
		{Path: "$.permission[0].constraint[0]", LeftOperand: "level", Operator: "eq", RightOperand: json.RawMessage(`"gold"`), Value: "silver", Reason: "it is silver", Sentence: "not recorded"}}}
	n.Traces = []adminapi.Trace{first}
	if _, _, err := s.InsertNegotiation(ctx, n, store.Side{Records: []audit.Entry{{Type: audit.Gate, Actor: "user:ed", Body: map[string]any{"gate": "two"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.InsertNegotiation(ctx, n, store.Side{}); err != nil { // is there already
		t.Fatal(err)
	}
	change := func(fail error, fn func(n *store.Negotiation) store.Side) {
		t.Helper()
		if _, err := s.UpdateNegotiation(t.Context(), "acme", "n1", "", func(n *store.Negotiation, _ bool) (store.Side, error) { return fn(n), fail }); !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	change(nil, func(n *store.Negotiation) store.Side { n.Attempts++; return store.Side{} }) // nothing that anybody would look for
	agree := func(n *store.Negotiation) store.Side {
		n.History = append(n.History, adminapi.Event{At: time.Now(), State: state.Agreed})
		n.State, n.Step, n.AgreementID = state.Agreed, state.Agreed, "a1"
		return store.Side{Agreement: &store.Agreement{ID: "a1", Role: state.Provider, Provider: "did:web:acme", Consumer: "did:web:b", AssetID: "asset", Agreement: json.RawMessage(`{}`), SignedAt: time.Now()}}
	}
	refused := errors.New("refused")
	change(refused, agree)
	change(nil, agree)
	change(nil, func(n *store.Negotiation) store.Side {
		second := first
		second.At, second.Allowed = time.Now().Add(time.Second), true
		n.Traces = append(n.Traces, second)
		n.History = append(n.History, adminapi.Event{At: time.Now(), State: state.Terminated})
		n.State, n.Step, n.Reason, n.Next = state.Terminated, state.Terminated, &adminapi.Reason{Code: "policy-denied", Message: "seen silver", By: "own"}, &store.Next{Never: true}
		return store.Side{}
	})
	h, err := s.AuditHead(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	lines, bodies := trail(t, s, h)
	if diff := cmp.Diff([]string{"participant.made connector", "profile connector", "policy did:web:b", "negotiation.transition did:web:b", "gate user:ed",
		"agreement connector", "negotiation.transition connector", "policy connector", "negotiation.transition connector"}, lines); diff != "" {
		t.Error(diff)
	}
	check := bodies[2]["checks"].([]any)[0].(map[string]any)
	if check["value"] != "silver" || check["rightOperand"] != "gold" || check["reason"] != "it is silver" || check["sentence"] != nil || bodies[2]["allowed"] != false || bodies[7]["allowed"] != true {
		t.Errorf("%v", bodies)
	}
	if bodies[5]["sha256"] != "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" || bodies[6]["agreement"] != "a1" || bodies[8]["reason"].(map[string]any)["code"] != "policy-denied" || bodies[8]["reason"].(map[string]any)["message"] != "" {
		t.Errorf("%v", bodies[5:])
	}
}

func TestAParticipantsTrailBeginsAndEndsWithIt(t *testing.T) {
	s, _ := open(t, store.Options{})
	p := adminapi.Participant{DID: "did:web:acme", Profile: "pilot", Active: true}
	put := func() audit.Head {
		t.Helper()
		if err := s.PutParticipant(t.Context(), "acme", p); err != nil {
			t.Fatal(err)
		}
		h, err := s.AuditHead(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	put() // the operator does so again and again
	p.Active = false
	first := put()
	if err := s.DeleteParticipant(audit.WithActor(t.Context(), "user:ann"), "acme"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteParticipant(t.Context(), "acme"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := s.AuditHead(t.Context(), "acme"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the trail of a participant that is not there: %v", err)
	}
	second := put()
	heads, err := s.AuditHeads(t.Context())
	if err != nil || len(heads) != 2 {
		t.Fatal(heads, err)
	}
	for _, h := range heads {
		lines, _ := trail(t, s, h)
		want := []string{"participant.made connector", "profile connector"}
		if h.Chain == first.Chain {
			want = append(want, "participant.changed connector", "participant.deleted user:ann")
		} else if h != second {
			t.Errorf("%+v", h)
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Error(diff)
		}
	}
}

// TestChangesOfADataspaceProfileAreOnTheTrailOfWhoeverTakesPart finds an issuer that was trusted for a while only.
func TestChangesOfADataspaceProfileAreOnTheTrailOfWhoeverTakesPart(t *testing.T) {
	s, _ := open(t, store.Options{})
	ctx := audit.WithActor(t.Context(), "client:operator")
	put := func(name string, issuers ...string) {
		t.Helper()
		p := profile.Profile{Name: name, TrustedIssuers: []profile.TrustedIssuer{}}
		for _, i := range issuers {
			p.TrustedIssuers = append(p.TrustedIssuers, profile.TrustedIssuer{DID: i, Types: []string{"M"}})
		}
		if err := s.PutProfile(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	join := func(name string, profiles ...string) {
		t.Helper()
		if err := s.PutParticipant(t.Context(), name, adminapi.Participant{DID: "did:web:" + name, Profile: profiles[0], FurtherProfiles: profiles[1:], Active: true}); err != nil {
			t.Fatal(err)
		}
	}
	put("one", "did:web:good")
	put("two", "did:web:two")
	join("in", "one")
	join("also", "two", "one")
	join("out", "two")
	put("one", "did:web:good", "did:web:rogue")
	put("one", "did:web:good", "did:web:rogue") // the operator does so again and again
	put("one", "did:web:good")
	join("out", "two", "one")
	join("out", "one") // what it left does not count, and what it is in is known
	for name, want := range map[string][]string{
		"in":   {"one: did:web:good", "one: did:web:good did:web:rogue", "one: did:web:good"},
		"also": {"two: did:web:two", "one: did:web:good", "one: did:web:good did:web:rogue", "one: did:web:good"},
		"out":  {"two: did:web:two", "one: did:web:good"},
	} {
		h, err := s.AuditHead(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		lines, bodies := trail(t, s, h)
		var got, sums []string
		for i, line := range lines {
			if !strings.HasPrefix(line, audit.Profile+" ") {
				continue
			}
			text := bodies[i]["profile"].(string) + ":"
			for _, issuer := range bodies[i]["trustedIssuers"].([]any) {
				text += " " + issuer.(map[string]any)["did"].(string)
			}
			if strings.Contains(text, "rogue") && line != audit.Profile+" client:operator" {
				t.Errorf("recorded by %s", line)
			}
			got, sums = append(got, text), append(sums, bodies[i]["sha256"].(string))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if name == "in" && (sums[0] != sums[2] || sums[0] == sums[1]) {
			t.Errorf("%v", sums)
		}
	}
}
