// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"pgregory.net/rapid"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
)

var (
	noon  = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	about = gate.About{Provider: "did:web:supplier.example", Negotiation: "n-1", Offer: "offer-hash"}
)

// person is an approver with the private key.
type person struct {
	adminapi.Approver
	key jwk.Key
}

func newPerson(t testing.TB, id, organization string, curve elliptic.Curve) person {
	t.Helper()
	var raw any
	var err error
	if curve == nil {
		_, raw, err = ed25519.GenerateKey(rand.Reader)
	} else {
		raw, err = ecdsa.GenerateKey(curve, rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := person{Approver: adminapi.Approver{ID: id, Name: strings.ToUpper(id), Organization: organization}}
	if p.key, err = jwk.Import(raw); err != nil {
		t.Fatal(err)
	}
	p.Keys = []json.RawMessage{publicOf(t, p.key)}
	return p
}

func publicOf(t testing.TB, key jwk.Key) json.RawMessage {
	t.Helper()
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func claims(by person, v adminapi.Verdict) adminapi.DecisionClaims {
	return adminapi.DecisionClaims{Approver: by.ID, Provider: about.Provider, Negotiation: about.Negotiation, Offer: about.Offer, Gate: "release", Verdict: v,
		IssuedAt: noon.Unix(), Expires: noon.Add(time.Hour).Unix(), ID: rand.Text()}
}

func sign(t testing.TB, by person, c adminapi.DecisionClaims) string {
	t.Helper()
	out, err := gate.Sign(by.key, c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// approval is a gate that holds since noon until an hour later.
func approval(required, organizations int, people ...person) []gate.Hold {
	g := adminapi.Gate{Name: "release", Type: adminapi.GateApproval, Before: "AGREED", Deadline: "PT1H", Required: required, Organizations: organizations}
	for _, p := range people {
		g.Approvers = append(g.Approvers, p.Approver)
	}
	holds := gate.Holds([]adminapi.Gate{g})
	holds[0].Open(noon)
	return holds
}

func decide(t testing.TB, holds []gate.Hold, by person, v adminapi.Verdict) {
	t.Helper()
	must(t, take(holds, sign(t, by, claims(by, v)), noon))
}

func take(holds []gate.Hold, signed string, now time.Time) error {
	_, err := gate.Decide(holds, about, signed, now)
	return err
}

func TestDecisionsThatDoNotCount(t *testing.T) {
	anna, bert, carl := newPerson(t, "anna", "supplier", elliptic.P256()), newPerson(t, "bert", "oem", nil), newPerson(t, "carl", "supplier", elliptic.P256())
	eve := newPerson(t, "eve", "evil", elliptic.P256())
	changed := func(f func(*adminapi.DecisionClaims)) string {
		c := claims(anna, adminapi.Approve)
		f(&c)
		return sign(t, anna, c)
	}
	as := func(by person, id string) string {
		c := claims(by, adminapi.Approve)
		c.Approver = id
		return sign(t, by, c)
	}
	good := sign(t, anna, claims(anna, adminapi.Approve))
	parts := strings.Split(good, ".")
	for name, c := range map[string]struct {
		code   string
		signed string
		before func([]gate.Hold)
		now    time.Time
	}{
		"forged: somebody else's key under her name":    {code: gate.CodeForged, signed: as(eve, "anna")},
		"forged: another approver under her name":       {code: gate.CodeForged, signed: as(bert, "anna")},
		"forged: the payload of another":                {code: gate.CodeForged, signed: parts[0] + "." + strings.Split(changed(func(c *adminapi.DecisionClaims) { c.Comment = "more" }), ".")[1] + "." + parts[2]},
		"forged: the kid of her key, signed by eve":     {code: gate.CodeForged, signed: parts[0] + "." + parts[1] + "." + strings.Split(sign(t, eve, claims(eve, adminapi.Approve)), ".")[2]},
		"forged: alg none":                              {code: gate.CodeForged, signed: header(t, parts[0], "alg", "none") + "." + parts[1] + "."},
		"forged: an algorithm that is not the key's":    {code: gate.CodeForged, signed: header(t, parts[0], "alg", "HS256") + "." + parts[1] + "." + parts[2]},
		"malformed: a signature made for other things":  {code: gate.CodeMalformed, signed: header(t, parts[0], "typ", "JWT") + "." + parts[1] + "." + parts[2]},
		"malformed: an extension that nobody asked for": {code: gate.CodeMalformed, signed: header(t, parts[0], "crit", []string{"exp"}) + "." + parts[1] + "." + parts[2]},
		"malformed: no JWS":                             {code: gate.CodeMalformed, signed: "approve"},
		"malformed: too long":                           {code: gate.CodeMalformed, signed: good + strings.Repeat("A", 8<<10)},
		"malformed: no such verdict":                    {code: gate.CodeMalformed, signed: changed(func(c *adminapi.DecisionClaims) { c.Verdict = "perhaps" })},
		"malformed: without an id":                      {code: gate.CodeMalformed, signed: changed(func(c *adminapi.DecisionClaims) { c.ID = "" })},
		"malformed: without an end":                     {code: gate.CodeMalformed, signed: changed(func(c *adminapi.DecisionClaims) { c.Expires = 0 })},
		"malformed: a novel as comment":                 {code: gate.CodeMalformed, signed: changed(func(c *adminapi.DecisionClaims) { c.Comment = strings.Repeat("x", 1001) })},
		"wrong approver: a stranger":                    {code: gate.CodeWrongApprover, signed: sign(t, eve, claims(eve, adminapi.Approve))},
		"wrong approver: an approver may not trigger":   {code: gate.CodeWrongApprover, signed: sign(t, anna, claims(anna, adminapi.Trigger))},
		"another provider":                              {code: gate.CodeOtherNegotiation, signed: changed(func(c *adminapi.DecisionClaims) { c.Provider = "did:web:other.example" })},
		"another negotiation":                           {code: gate.CodeOtherNegotiation, signed: changed(func(c *adminapi.DecisionClaims) { c.Negotiation = "n-2" })},
		"another offer":                                 {code: gate.CodeOtherOffer, signed: changed(func(c *adminapi.DecisionClaims) { c.Offer = "other" })},
		"another gate":                                  {code: gate.CodeOtherGate, signed: changed(func(c *adminapi.DecisionClaims) { c.Gate = "other" })},
		"expired":                                       {code: gate.CodeExpired, signed: good, now: noon.Add(time.Hour)},
		"of the future":                                 {code: gate.CodeExpired, signed: changed(func(c *adminapi.DecisionClaims) { c.IssuedAt += 120 })},
		"valid for too long":                            {code: gate.CodeExpired, signed: changed(func(c *adminapi.DecisionClaims) { c.Expires = noon.Add(25 * time.Hour).Unix() })},
		"late":                                          {code: gate.CodeLate, signed: changed(func(c *adminapi.DecisionClaims) { c.Expires += 3600 }), now: noon.Add(time.Hour)},
		"before the gate is reached":                    {code: gate.CodeClosed, signed: good, before: func(h []gate.Hold) { h[0].Since, h[0].Deadline = nil, nil }},
		"replayed":                                      {code: gate.CodeReplayed, signed: good, before: func(h []gate.Hold) { must(t, take(h, good, noon)) }},
		"replayed after the offer went and came back": {code: gate.CodeReplayed, signed: good, before: func(h []gate.Hold) {
			must(t, take(h, good, noon))
			gate.Renew(h)
			h[0].Open(noon)
		}},
		"the same person twice":       {code: gate.CodeDecided, signed: sign(t, anna, claims(anna, adminapi.Approve)), before: func(h []gate.Hold) { decide(t, h, anna, adminapi.Approve) }},
		"the same organization twice": {code: gate.CodeSameOrganization, signed: sign(t, carl, claims(carl, adminapi.Approve)), before: func(h []gate.Hold) { decide(t, h, anna, adminapi.Approve) }},
		"after it was rejected":       {code: gate.CodeClosed, signed: good, before: func(h []gate.Hold) { decide(t, h, bert, adminapi.Reject) }},
		"after it has passed": {code: gate.CodeClosed, signed: sign(t, carl, claims(carl, adminapi.Reject)), before: func(h []gate.Hold) {
			decide(t, h, anna, adminapi.Approve)
			decide(t, h, bert, adminapi.Approve)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			holds := approval(2, 2, anna, bert, carl)
			if c.before != nil {
				c.before(holds)
			}
			if c.now.IsZero() {
				c.now = noon
			}
			before := fmt.Sprint(holds)
			err := take(holds, c.signed, c.now)
			var refused *gate.RefusedError
			if !errors.As(err, &refused) || refused.Code != c.code {
				t.Fatalf("got %v, want a refusal with code %s", err, c.code)
			}
			if after := fmt.Sprint(holds); after != before {
				t.Errorf("a refused decision changed the hold:\n%s\n%s", before, after)
			}
		})
	}
}

// header changes one member of an encoded header.
func header(t testing.TB, encoded, member string, value any) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var h map[string]any
	must(t, json.Unmarshal(raw, &h))
	h[member] = value
	raw, err = json.Marshal(h)
	must(t, err)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTwoPartyApproval(t *testing.T) {
	anna, carl, bert := newPerson(t, "anna", "supplier", elliptic.P256()), newPerson(t, "carl", "supplier", nil), newPerson(t, "bert", "oem", nil)
	holds := approval(2, 2, anna, carl, bert)
	h := &holds[0]
	if got := len(h.WaitsFor()); got != 3 {
		t.Errorf("at first it waits for %d people", got)
	}
	decide(t, holds, anna, adminapi.Approve)
	if o := gate.Evaluate(h, noon); o != adminapi.GateOpen {
		t.Errorf("after one of two: %s", o)
	}
	if left := h.WaitsFor(); len(left) != 1 || left[0].ID != "bert" || left[0].Keys != nil {
		t.Errorf("after one of two it waits for %v", left)
	}
	words := gate.State(h, noon)
	if want := `gate "release", until 2026-11-27T13:00:00Z: 1 of 2 approvals are given, from 1 of 2 organizations; it waits for BERT (oem)`; words.Words != want {
		t.Errorf("got %s\nwant %s", words.Words, want)
	}
	if want := "Prüfschritt „release“, bis 2026-11-27T13:00:00Z: 1 von 2 Zustimmungen liegen vor, aus 1 von 2 Organisationen; es fehlt noch BERT (oem)"; words.DE != want {
		t.Errorf("got %s\nwant %s", words.DE, want)
	}
	decide(t, holds, bert, adminapi.Approve)
	if o := gate.Evaluate(h, noon.Add(2*time.Hour)); o != adminapi.GatePassed {
		t.Errorf("after two of two, looked at later: %s", o)
	}
}

func TestThreeApprovalsFromTwoOrganizationsLeaveRoomForBoth(t *testing.T) {
	anna, carl, dora, bert := newPerson(t, "anna", "supplier", nil), newPerson(t, "carl", "supplier", nil), newPerson(t, "dora", "supplier", nil), newPerson(t, "bert", "oem", nil)
	holds := approval(3, 2, anna, carl, dora, bert)
	decide(t, holds, anna, adminapi.Approve)
	decide(t, holds, carl, adminapi.Approve)
	var refused *gate.RefusedError
	if err := take(holds, sign(t, dora, claims(dora, adminapi.Approve)), noon); !errors.As(err, &refused) || refused.Code != gate.CodeSameOrganization {
		t.Errorf("a third from the same organization: %v", err)
	}
	decide(t, holds, bert, adminapi.Approve)
	if o := gate.Evaluate(&holds[0], noon); o != adminapi.GatePassed {
		t.Errorf("outcome %s", o)
	}
}

func TestRejectedAndLateNameNoPeopleToTheCounterparty(t *testing.T) {
	anna := newPerson(t, "anna", "supplier", nil)
	holds := approval(1, 0, anna)
	if r := gate.Reason(&holds[0], noon); r != nil {
		t.Errorf("an open gate has the reason %v", r)
	}
	if r := gate.Reason(&holds[0], noon.Add(time.Hour)); r == nil || r.Code != gate.CodeLate || r.Message != `gate "release" had not passed until 2026-11-27T13:00:00Z` {
		t.Errorf("late: %+v", r)
	}
	c := claims(anna, adminapi.Reject)
	c.Comment = "price list first"
	must(t, take(holds, sign(t, anna, c), noon))
	if r := gate.Reason(&holds[0], noon); r == nil || r.Code != "gate-rejected" || strings.Contains(r.Message, "ANNA") || strings.Contains(r.Message, "price") {
		t.Errorf("rejected: %+v", r)
	}
	if s := gate.State(&holds[0], noon); s.State != adminapi.GateRejected || s.Words != `ANNA (supplier) rejected it at gate "release": price list first` {
		t.Errorf("the own side reads %s %s", s.State, s.Words)
	}
}

func TestAnAttestationThatSomebodyMustLetPass(t *testing.T) {
	authority := newPerson(t, "gus", "authority", nil)
	g := adminapi.Gate{Name: "release", Type: adminapi.GateAttestation, Before: "FINALIZED", Deadline: "P1D", TriggeredBy: []adminapi.Approver{authority.Approver}, Policy: json.RawMessage(`{}`)}
	holds := gate.Holds([]adminapi.Gate{g})
	h := &holds[0]
	if o := gate.Evaluate(h, noon); o != adminapi.GateAhead {
		t.Errorf("before it is reached: %s", o)
	}
	h.Open(noon)
	for _, step := range []struct {
		do    func()
		want  adminapi.GateOutcome
		words string
	}{
		{func() {}, adminapi.GateOpen, "has not been checked yet; GUS (authority) must let it pass"},
		{func() { decide(t, holds, authority, adminapi.Trigger) }, adminapi.GateOpen, "has not been checked yet"},
		{func() { h.Looked, h.Attested = &noon, &gate.Attested{Reason: "it is too old", DE: "er ist zu alt"} }, adminapi.GateOpen, "it is too old"},
		{func() { h.Attested = &gate.Attested{Satisfied: true} }, adminapi.GatePassed, "has passed"},
	} {
		step.do()
		if s := gate.State(h, noon); s.State != step.want || !strings.Contains(s.Words, step.words) {
			t.Errorf("%s %q, want %s with %q", s.State, s.Words, step.want, step.words)
		}
	}
}

// TestNobodyPassesWithoutEnoughOfThem: whatever is decided in whatever order, a passed gate has the approvals that it demands, each of another
// person, no rejection, and all of them from before the deadline.
func TestNobodyPassesWithoutEnoughOfThem(t *testing.T) {
	var all []person
	for i, organization := range []string{"a", "a", "b", "b", "c"} {
		all = append(all, newPerson(t, fmt.Sprint("p", i), organization, nil))
	}
	rapid.Check(t, func(t *rapid.T) {
		required := rapid.IntRange(1, 5).Draw(t, "required")
		organizations := rapid.IntRange(0, min(required, 3)).Draw(t, "organizations")
		holds := approval(required, organizations, all...)
		now := noon
		for range rapid.IntRange(0, 12).Draw(t, "decisions") {
			now = now.Add(time.Duration(rapid.IntRange(0, 12).Draw(t, "minutes")) * time.Minute)
			by := all[rapid.IntRange(0, len(all)-1).Draw(t, "by")]
			c := claims(by, rapid.SampledFrom([]adminapi.Verdict{adminapi.Approve, adminapi.Approve, adminapi.Approve, adminapi.Reject}).Draw(t, "verdict"))
			c.Expires = noon.Add(10 * time.Hour).Unix()
			signed, err := gate.Sign(by.key, c)
			if err != nil {
				t.Fatal(err)
			}
			if err := take(holds, signed, now); err == nil && !now.Before(noon.Add(time.Hour)) {
				t.Fatalf("a decision at %s was taken", now)
			}
		}
		people, from, rejected := map[string]bool{}, map[string]bool{}, false
		for _, d := range holds[0].Decisions {
			if d.Verdict == adminapi.Reject { // also of somebody who approved before
				rejected = true
				continue
			}
			if people[d.By.ID] {
				t.Fatalf("%s counts twice", d.By.Name)
			}
			people[d.By.ID], from[d.By.Organization] = true, true
		}
		passed := gate.Evaluate(&holds[0], now) == adminapi.GatePassed
		if enough := len(people) >= required && len(from) >= organizations && !rejected; passed != enough {
			t.Fatalf("passed %t with %d of %d from %d of %d, rejected %t", passed, len(people), required, len(from), organizations, rejected)
		}
		if !passed && !rejected && gate.Evaluate(&holds[0], now) == adminapi.GateOpen && len(holds[0].WaitsFor()) == 0 {
			t.Fatal("it waits for nobody")
		}
	})
}

func TestCheckRefusesWhatNobodyCouldPass(t *testing.T) {
	anna, bert := newPerson(t, "anna", "supplier", elliptic.P256()), newPerson(t, "bert", "oem", nil)
	good := func() []adminapi.Gate { return []adminapi.Gate{approval(2, 2, anna, bert)[0].Gate} }
	if err := gate.Check(good()); err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(anna.key)
	must(t, err)
	for name, c := range map[string]struct {
		path   string
		change func(g *adminapi.Gate)
	}{
		"a name that is none":               {"$[0].name", func(g *adminapi.Gate) { g.Name = "The Gate" }},
		"a state before which none stands":  {"$[0].before", func(g *adminapi.Gate) { g.Before = "VERIFIED" }},
		"a type that is not known":          {"$[0].type", func(g *adminapi.Gate) { g.Type = "oracle" }},
		"no deadline":                       {"$[0].deadline", func(g *adminapi.Gate) { g.Deadline = "" }},
		"a deadline of nothing":             {"$[0].deadline", func(g *adminapi.Gate) { g.Deadline = "PT0S" }},
		"a deadline of years":               {"$[0].deadline", func(g *adminapi.Gate) { g.Deadline = "P2Y" }},
		"more than there are approvers":     {"$[0].required", func(g *adminapi.Gate) { g.Required = 3 }},
		"nobody is required":                {"$[0].required", func(g *adminapi.Gate) { g.Required = 0 }},
		"more organizations than approvals": {"$[0].organizations", func(g *adminapi.Gate) { g.Required = 1 }},
		"two from one organization":         {"$[0].organizations", func(g *adminapi.Gate) { g.Approvers[1].Organization = "supplier" }},
		"the same person twice":             {"$[0].approvers[1].id", func(g *adminapi.Gate) { g.Approvers[1].ID = "anna" }},
		"one key of two people":             {"$[0].approvers[1].keys[0]", func(g *adminapi.Gate) { g.Approvers[1].Keys = g.Approvers[0].Keys }},
		"no key":                            {"$[0].approvers[1].keys", func(g *adminapi.Gate) { g.Approvers[1].Keys = nil }},
		"a private key":                     {"$[0].approvers[1].keys[0]", func(g *adminapi.Gate) { g.Approvers[1].Keys = []json.RawMessage{private} }},
		"a key of another curve":            {"$[0].approvers[1].keys[0]", func(g *adminapi.Gate) { g.Approvers[1].Keys = newPerson(t, "x", "x", elliptic.P384()).Keys }},
		"a key that is none":                {"$[0].approvers[1].keys[0]", func(g *adminapi.Gate) { g.Approvers[1].Keys = []json.RawMessage{json.RawMessage(`"key"`)} }},
		"a shared secret": {"$[0].approvers[1].keys[0]", func(g *adminapi.Gate) {
			g.Approvers[1].Keys = []json.RawMessage{json.RawMessage(`{"kty":"oct","k":"AAAA"}`)}
		}},
		"an approval with an address":   {"$[0].url", func(g *adminapi.Gate) { g.URL = "https://x.example" }},
		"a webhook without an address":  {"$[0].url", func(g *adminapi.Gate) { g.Type = adminapi.GateWebhook }},
		"an approval with a policy":     {"$[0].policy", func(g *adminapi.Gate) { g.Policy = json.RawMessage(`{}`) }},
		"an attestation with approvers": {"$[0].approvers", func(g *adminapi.Gate) { g.Type = adminapi.GateAttestation }},
		"an attestation without a policy": {"$[0].policy", func(g *adminapi.Gate) {
			g.Type, g.Approvers, g.Required, g.Organizations = adminapi.GateAttestation, nil, 0, 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			gates := good()
			gates[0].Approvers = slices.Clone(gates[0].Approvers)
			c.change(&gates[0])
			var refused *odrl.Error
			if err := gate.Check(gates); !errors.As(err, &refused) || refused.Path != c.path {
				t.Errorf("got %v, want it refused at %s", err, c.path)
			}
		})
	}
	if err := gate.Check(append(good(), good()...)); err == nil || !strings.Contains(err.Error(), "$[1].name") {
		t.Errorf("two gates of one name: %v", err)
	}
}

func TestTheHashOfAnOfferIsOfAllThatIsDecidedAbout(t *testing.T) {
	parse := func(s string) *odrl.Policy {
		p, err := odrl.Parse(json.RawMessage(s))
		must(t, err)
		return p
	}
	base := gate.Terms{OfferID: "o", AssetID: "a", Consumer: "did:web:c", Policy: parse(`{"@type":"Offer","permission":[{"action":"use"}]}`)}
	seen := map[string]bool{base.Hash(): true}
	for _, change := range []func(*gate.Terms){
		func(x *gate.Terms) { x.OfferID = "p" }, func(x *gate.Terms) { x.AssetID = "b" }, func(x *gate.Terms) { x.Consumer = "did:web:d" },
		func(x *gate.Terms) { x.Policy = parse(`{"@type":"Offer","permission":[{"action":"read"}]}`) },
	} {
		other := base
		change(&other)
		if seen[other.Hash()] {
			t.Errorf("%+v has the hash of another", other)
		}
		seen[other.Hash()] = true
	}
}
