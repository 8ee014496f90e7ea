// SPDX-License-Identifier: Apache-2.0

package usecase_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/gate/gatetest"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/usecase"
)

const contract = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/age","operator":"lt","rightOperand":"P12M"}]}]}`

var vocabulary = profile.Profile{
	Name: "automotive", Protocol: "dataspace-protocol-http:2025-1", TrustedIssuers: []profile.TrustedIssuer{{DID: "did:web:issuer.example", Types: []string{"Attestation"}}},
	Operands: []profile.Operand{
		{Name: "https://example.org/unused", Subject: profile.SubjectConsumer, Expression: "request.purpose", ValueType: profile.ValueString, Operators: []string{"eq"},
			Phases: []profile.Phase{profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "It is for {right}.", DE: "Es ist für {right}."}},
		{Name: "https://example.org/age", Subject: profile.SubjectProvider, Credential: "Attestation", Expression: "credential.subject.completedAt", ValueType: profile.ValueAge,
			Operators: []string{"lt"}, Phases: []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation},
			Sentence: profile.Translation{EN: "The attestation is younger than {right}.", DE: "Die Bescheinigung ist jünger als {right}."}},
	},
}

type signer struct {
	adminapi.Approver
	key jwk.Key
}

func newSigner(t *testing.T, id string) signer {
	t.Helper()
	key, raw := gatetest.NewKey(t)
	return signer{adminapi.Approver{ID: id, Name: strings.ToUpper(id), Organization: "authority", Keys: []json.RawMessage{raw}}, key}
}

func (s signer) thumbprint(t testing.TB) string {
	t.Helper()
	thumb, _, err := gate.PublicKey(s.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return thumb
}

func content(t testing.TB, change func(*usecase.Content)) usecase.Content {
	t.Helper()
	c, err := usecase.Make(usecase.Content{UseCase: "footprint", Number: 1, AssetType: "urn:pcf", ContractPolicy: json.RawMessage(contract),
		Signers: []usecase.Person{{Role: "governance-authority"}}}, vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	return c
}

func revision(t testing.TB, c usecase.Content) adminapi.UseCaseRevision {
	t.Helper()
	text, hash, err := usecase.Write(c)
	if err != nil {
		t.Fatal(err)
	}
	return adminapi.UseCaseRevision{UseCase: c.UseCase, Number: c.Number, Hash: hash, Content: text}
}

// sign signs a revision off at a second, and lets next sign the one after it.
func sign(t testing.TB, r adminapi.UseCaseRevision, by signer, at int64, next ...signer) adminapi.UseCaseRevision {
	t.Helper()
	claims := adminapi.SignOffClaims{Signer: by.ID, UseCase: r.UseCase, Number: r.Number, Hash: r.Hash, Read: "00", Language: "en", IssuedAt: at}
	r.Signers = []adminapi.Approver{by.Approver}
	for _, n := range next {
		claims.Signers = append(claims.Signers, n.thumbprint(t))
		if n.ID != by.ID {
			r.Signers = append(r.Signers, n.Approver)
		}
	}
	var err error
	if r.SignOff, err = gate.SignJWS(by.key, usecase.Type, claims); err != nil {
		t.Fatal(err)
	}
	return r
}

func code(err error) string {
	var refused *gate.RefusedError
	if errors.As(err, &refused) {
		return refused.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestTheSameDemandsHaveTheSameTextAndOnlyWhatIsUsedIsInIt(t *testing.T) {
	spelled := content(t, func(c *usecase.Content) {
		c.ContractPolicy = json.RawMessage(`{"permission": [ {"constraint":[{"rightOperand":"P12M","operator":"lt","leftOperand":"https://example.org/age"}],"action":"use"}],"@type":"Set"}`)
	})
	a, b := revision(t, content(t, nil)), revision(t, spelled)
	if a.Content != b.Content || a.Hash != b.Hash || !usecase.Same(content(t, nil), spelled) {
		t.Errorf("two spellings:\n%s\n%s", a.Content, b.Content)
	}
	if strings.Contains(a.Content, "unused") || !strings.Contains(a.Content, "completedAt") {
		t.Errorf("the vocabulary in it: %s", a.Content)
	}
	for name, change := range map[string]func(*usecase.Content){
		"the policy": func(c *usecase.Content) {
			c.ContractPolicy = json.RawMessage(strings.Replace(contract, "P12M", "P6M", 1))
		},
		"what an operand's value is":   func(c *usecase.Content) { c.Operands[0].Expression = "now" },
		"a gate":                       func(c *usecase.Content) { c.Gates = []usecase.Gate{{Name: "g", Type: "Approval"}} },
		"who signs":                    func(c *usecase.Content) { c.Signers = nil },
		"who sees the offer":           func(c *usecase.Content) { c.AccessPolicy = json.RawMessage(contract) },
		"what kind of asset it is for": func(c *usecase.Content) { c.AssetType = "urn:other" },
	} {
		if usecase.Same(content(t, nil), content(t, change)) {
			t.Errorf("%s has changed, and the content is the same", name)
		}
	}
	if other := content(t, func(c *usecase.Content) { c.Number, c.Previous = 7, "ab" }); !usecase.Same(content(t, nil), other) || revision(t, other).Hash == a.Hash {
		t.Error("number and predecessor are no demand, but part of the hash")
	}
}

func TestAnExplanationSaysAllThatIsSigned(t *testing.T) {
	erp := newSigner(t, "erp")
	c := content(t, func(c *usecase.Content) {
		c.Gates = []usecase.Gate{
			{Name: "two-parties", Type: "Approval", Before: "AGREED", Deadline: "P1D", Required: 2, Organizations: 2, Approvers: []usecase.Person{{Role: "organization-admin", Organization: "oem"}, {Person: "anna"}}},
			{Name: "fresh", Type: "Attestation", Before: "FINALIZED", Deadline: "P2D", Policy: json.RawMessage(contract), TriggeredBy: []usecase.Person{{Role: "governance-authority"}}},
			{Name: "asked", Type: "Webhook", Before: "AGREED", Deadline: "P3D", Webhook: &usecase.Webhook{URL: "https://erp.example/", System: "erp", Organization: "oem", PublicKey: erp.Keys[0]}},
		}
	})
	for lang, want := range map[string][]string{
		"en": {"Revision 1", "urn:pcf", "Everybody", "The attestation is younger than 12 months", "2 of these approve: everybody with the role organization-admin in oem, anna, from at least 2", "P1D",
			"Gate \"fresh\" holds until: The attestation", "by hand", "https://erp.example/, with key " + erp.thumbprint(t), "credential.subject.completedAt", "signed off by one of: everybody with the role governance-authority"},
		"de": {"Revision 1", "Alle", "Die Bescheinigung ist jünger als 12 Monate", "mindestens 2", "von Hand", "mit Schlüssel " + erp.thumbprint(t), "alle mit der Rolle governance-authority"},
	} {
		got, err := usecase.Explain(c, lang)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(strings.Join(got, "\n"), w) {
				t.Errorf("%s: %q is not in\n%s", lang, w, strings.Join(got, "\n"))
			}
		}
	}
	before, err := usecase.Explain(content(t, nil), "en")
	if err != nil {
		t.Fatal(err)
	}
	after, err := usecase.Explain(content(t, func(c *usecase.Content) {
		c.Number, c.ContractPolicy = 2, json.RawMessage(strings.Replace(contract, "P12M", "P6M", 1))
	}), "en")
	if err != nil {
		t.Fatal(err)
	}
	gone, come := usecase.Diff(before, after)
	if len(gone) != 1 || len(come) != 1 || !strings.Contains(gone[0], "12 months") || !strings.Contains(come[0], "6 months") {
		t.Errorf("the difference is -%q +%q", gone, come)
	}
}

func TestASignOffIsNotOfTheFuture(t *testing.T) {
	ada, now := newSigner(t, "ada"), time.Now()
	r := revision(t, content(t, nil))
	for name, c := range map[string]struct {
		r    adminapi.UseCaseRevision
		code string
	}{
		"none":                          {r, ""},
		"of now":                        {sign(t, r, ada, now.Unix(), ada), ""},
		"by a clock that is a bit fast": {sign(t, r, ada, now.Add(30*time.Second).Unix(), ada), ""},
		"of tomorrow":                   {sign(t, r, ada, now.AddDate(0, 0, 1).Unix(), ada), usecase.CodeForged},
		"not a sign-off":                {adminapi.UseCaseRevision{SignOff: "x"}, usecase.CodeMalformed},
	} {
		if err := usecase.Timely(c.r, now); code(err) != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
	}
}

func TestWhatAProfileHasChangedIsNamed(t *testing.T) {
	const age = "https://example.org/age"
	for name, c := range map[string]struct {
		content func(*usecase.Content)
		profile func(*profile.Profile)
		want    []string
	}{
		"nothing":                     {nil, nil, nil},
		"an operand that is not used": {nil, func(p *profile.Profile) { p.Operands[0].Expression = "request.method" }, nil},
		"the order":                   {nil, func(p *profile.Profile) { slices.Reverse(p.Operands) }, nil},
		"what the value is":           {nil, func(p *profile.Profile) { p.Operands[1].Expression = "credential.subject.other" }, []string{age}},
		"when it is checked":          {nil, func(p *profile.Profile) { p.Operands[1].Phases = p.Operands[1].Phases[1:] }, []string{age}},
		"which credential it is of": {nil, func(p *profile.Profile) {
			p.Operands[1].Credential = "Other"
			p.TrustedIssuers[0].Types = []string{"Other"}
		}, []string{age}},
		"the profile has it no more":     {nil, func(p *profile.Profile) { p.Operands = p.Operands[:1] }, []string{age}},
		"the content lacks it":           {func(c *usecase.Content) { c.Operands = nil }, nil, []string{age}},
		"the content has more":           {func(c *usecase.Content) { c.Operands = vocabulary.Operands }, nil, []string{"https://example.org/unused"}},
		"the content has another":        {func(c *usecase.Content) { c.Operands[0].Sentence.EN = "It is harmless." }, nil, []string{age}},
		"a duty that is declared here":   {func(c *usecase.Content) { c.Duties = []profile.Duty{{Name: "https://example.org/log"}} }, nil, []string{"https://example.org/log"}},
		"what is trusted is not of it":   {nil, func(p *profile.Profile) { p.TrustedIssuers[0].DID = "did:web:other.example" }, nil},
		"the same policy in other words": {func(c *usecase.Content) { c.ContractPolicy = json.RawMessage(" " + contract) }, nil, nil},
	} {
		p := vocabulary
		p.Operands, p.TrustedIssuers = slices.Clone(p.Operands), slices.Clone(p.TrustedIssuers)
		if c.profile != nil {
			c.profile(&p)
		}
		ev, err := odrl.NewEvaluator(p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		made := content(t, c.content)
		if got, err := made.Changed(ev); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestOnlyWhomTheRevisionInForceNamesBringsTheNextIntoForce(t *testing.T) {
	ada, bob, eve := newSigner(t, "ada"), newSigner(t, "bob"), newSigner(t, "eve")
	now := time.Now().Unix()
	first := revision(t, content(t, nil))
	second := revision(t, content(t, func(c *usecase.Content) { c.Number, c.Previous = 2, first.Hash }))
	unsigned := revision(t, content(t, func(c *usecase.Content) { c.Signers = nil }))
	kept := func(r adminapi.UseCaseRevision) *adminapi.UseCaseRevision {
		t.Helper()
		out, _, err := usecase.Accept(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		return &out
	}
	inForce := kept(sign(t, first, ada, now, ada))
	decision, err := gate.Sign(ada.key, adminapi.DecisionClaims{Approver: "ada", Verdict: adminapi.Approve, IssuedAt: now, Expires: now + 60, ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	changed := func(r adminapi.UseCaseRevision, f func(*adminapi.UseCaseRevision)) adminapi.UseCaseRevision {
		f(&r)
		return r
	}
	for name, c := range map[string]struct {
		inForce *adminapi.UseCaseRevision
		next    adminapi.UseCaseRevision
		code    string
	}{
		"the first, signed":                      {nil, sign(t, first, ada, now, ada), ""},
		"the first, not signed":                  {nil, first, usecase.CodeUnsigned},
		"the first that names nobody":            {nil, unsigned, ""},
		"one after none that named anybody":      {&unsigned, sign(t, second, eve, now, eve), ""},
		"the next by the one who may":            {inForce, sign(t, second, ada, now+1, ada), ""},
		"the next hands over":                    {inForce, sign(t, second, ada, now+1, bob), ""},
		"the next by somebody who names himself": {inForce, sign(t, second, eve, now+1, eve), usecase.CodeForged},
		"the next, not signed":                   {inForce, second, usecase.CodeUnsigned},
		"nobody is to sign any more, not signed": {inForce, unsigned, usecase.CodeUnsigned},
		"nobody is to sign any more, signed":     {inForce, sign(t, unsigned, ada, now+1), ""},
		"after a hand-over the former one":       {kept(sign(t, first, ada, now, bob)), sign(t, second, ada, now+1, ada), usecase.CodeForged},
		"after a hand-over the new one":          {kept(sign(t, first, ada, now, bob)), sign(t, second, bob, now+1, bob), ""},
		"an older one again":                     {kept(sign(t, second, ada, now+1, ada)), sign(t, first, ada, now, ada), usecase.CodeOlder},
		"an older one, signed anew":              {kept(sign(t, second, ada, now, ada)), sign(t, first, ada, now+1, ada), ""},
		"the content changed":                    {inForce, changed(sign(t, second, ada, now+1, ada), func(r *adminapi.UseCaseRevision) { r.Content = strings.Replace(r.Content, "P12M", "P99M", 1) }), usecase.CodeChanged},
		"content and hash changed": {inForce, changed(sign(t, second, ada, now+1, ada), func(r *adminapi.UseCaseRevision) {
			r.Content = strings.Replace(r.Content, "P12M", "P99M", 1)
			r.Hash = usecase.Hash(r.Content)
		}), usecase.CodeForged},
		"another use case's":                       {inForce, changed(sign(t, second, ada, now+1, ada), func(r *adminapi.UseCaseRevision) { r.UseCase = "other" }), usecase.CodeChanged},
		"a decision at a gate instead":             {inForce, changed(second, func(r *adminapi.UseCaseRevision) { r.SignOff = decision }), usecase.CodeMalformed},
		"a key listed that nobody has":             {inForce, changed(sign(t, second, ada, now+1, bob), func(r *adminapi.UseCaseRevision) { r.Signers = r.Signers[:1] }), usecase.CodeMalformed},
		"nobody listed though somebody is to sign": {inForce, sign(t, second, ada, now+1), usecase.CodeMalformed},
		"content with a member that is not known": {inForce, changed(second, func(r *adminapi.UseCaseRevision) {
			r.Content = `{"more":1,` + r.Content[1:]
			r.Hash = usecase.Hash(r.Content)
		}), usecase.CodeMalformed},
		"in another's name with the signer's key":  {inForce, sign(t, second, signer{Approver: adminapi.Approver{ID: "bob", Keys: ada.Keys}, key: ada.key}, now+1, ada), usecase.CodeForged},
		"in the signer's name with another's key":  {inForce, sign(t, second, signer{Approver: adminapi.Approver{ID: "ada", Keys: eve.Keys}, key: eve.key}, now+1, ada), usecase.CodeForged},
		"one that was signed in the same second":   {inForce, sign(t, second, ada, now, ada), ""},
		"an earlier one signed in the same second": {kept(sign(t, second, ada, now, ada)), sign(t, first, ada, now, ada), usecase.CodeOlder},
		"a sign-off of the other revision":         {inForce, changed(second, func(r *adminapi.UseCaseRevision) { r.SignOff = inForce.SignOff }), usecase.CodeForged},
	} {
		out, _, err := usecase.Accept(c.inForce, c.next)
		if code(err) != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
		if name == "the next hands over" && (len(out.Signers) != 1 || out.Signers[0].ID != "bob") {
			t.Errorf("%s: the next is signed by %v", name, out.Signers)
		}
	}
	// A decision needs a decision's typ, too.
	if _, err := gate.ParseJWS(gate.Type, inForce.SignOff); err == nil {
		t.Error("a sign-off passes for a decision")
	}
}

func TestTheNewestSignedRevisionIsInForce(t *testing.T) {
	ada := newSigner(t, "ada")
	history := func(signers bool, numbers ...int) (out []adminapi.UseCaseRevision) {
		previous := ""
		for n := 1; n <= 4; n++ {
			r := revision(t, content(t, func(c *usecase.Content) {
				c.Number, c.Previous = n, previous
				if !signers {
					c.Signers = nil
				}
			}))
			previous = r.Hash
			if slices.Contains(numbers, n) {
				r = sign(t, r, ada, int64(n), ada)
			}
			out = append(out, r)
		}
		return out
	}
	for name, c := range map[string]struct {
		all  []adminapi.UseCaseRevision
		want int
		code string
	}{
		"none signed":             {history(true), -1, ""},
		"the first":               {history(true, 1), 0, ""},
		"the first and the third": {history(true, 1, 3), 2, ""},
		"nobody is to sign":       {history(false), 3, ""},
		"one is missing":          {slices.Delete(history(true, 1, 3), 1, 2), -1, usecase.CodeChanged},
		"one was changed": {func() []adminapi.UseCaseRevision {
			all := history(true, 1, 3)
			all[1].Content = strings.Replace(all[1].Content, "P12M", "P1M", 1)
			return all
		}(), -1, usecase.CodeChanged},
		"one was changed with its hash": {func() []adminapi.UseCaseRevision {
			all := history(true, 1, 3)
			all[1].Content = strings.Replace(all[1].Content, "P12M", "P1M", 1)
			all[1].Hash = usecase.Hash(all[1].Content)
			return all
		}(), -1, usecase.CodeChanged},
		"the signer was exchanged": {func() []adminapi.UseCaseRevision {
			all := history(true, 1, 3)
			all[2].Signers = []adminapi.Approver{newSigner(t, "ada").Approver}
			return all
		}(), -1, usecase.CodeForged},
	} {
		got, err := usecase.InForce(c.all)
		if got != c.want || code(err) != c.code {
			t.Errorf("%s: %d, %v; want %d, %q", name, got, err, c.want, c.code)
		}
	}
}

func TestAnOfferHasThePoliciesAndGatesOfItsRevision(t *testing.T) {
	ada := newSigner(t, "ada")
	c := content(t, func(c *usecase.Content) {
		c.Gates = []usecase.Gate{{Name: "two-parties", Type: "Approval", Before: "AGREED", Deadline: "P1D", Required: 1, Approvers: []usecase.Person{{Person: "ada"}}}}
	})
	good := adminapi.Gate{Name: "two-parties", Type: adminapi.GateApproval, Before: "AGREED", Deadline: "P1D", Required: 1, Approvers: []adminapi.Approver{ada.Approver}}
	if err := c.CheckOffer(nil, json.RawMessage(contract), []adminapi.Gate{good}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(access, policy *json.RawMessage, g *adminapi.Gate){
		"another policy":         func(_, p *json.RawMessage, _ *adminapi.Gate) { *p = json.RawMessage(`{}`) },
		"an access policy":       func(a, _ *json.RawMessage, _ *adminapi.Gate) { *a = json.RawMessage(contract) },
		"fewer approvals":        func(_, _ *json.RawMessage, g *adminapi.Gate) { g.Required = 0 },
		"a longer deadline":      func(_, _ *json.RawMessage, g *adminapi.Gate) { g.Deadline = "P2D" },
		"before another state":   func(_, _ *json.RawMessage, g *adminapi.Gate) { g.Before = "FINALIZED" },
		"a webhook's address":    func(_, _ *json.RawMessage, g *adminapi.Gate) { g.URL = "https://other.example/" },
		"somebody who triggers":  func(_, _ *json.RawMessage, g *adminapi.Gate) { g.TriggeredBy = g.Approvers },
		"an attestation's rules": func(_, _ *json.RawMessage, g *adminapi.Gate) { g.Policy = json.RawMessage(contract) },
	} {
		access, policy, g := json.RawMessage(nil), json.RawMessage(contract), good
		change(&access, &policy, &g)
		if c.CheckOffer(access, policy, []adminapi.Gate{g}) == nil {
			t.Errorf("%s passes", name)
		}
	}
	if c.CheckOffer(nil, json.RawMessage(contract), nil) == nil {
		t.Error("an offer without the gate passes")
	}
}
