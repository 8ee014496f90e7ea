// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

// Request is one evaluation.
type Request struct {
	Policy *Policy
	Phase  profile.Phase
	By     string // DID of the evaluating party
	// Subjects limits the evaluation to constraints on these parties; nil means both. A constraint that stands in an alternative
	// (or, xone, several permissions) with a constraint on a wanted party is evaluated all the same.
	Subjects []profile.Subject
	// Provider and Consumer are the proven parties; nil when not known, which denies every constraint on them.
	Provider, Consumer *identity.Agent
	Agreement          map[string]any    // id, assetId, createdAt (time.Time); empty before there is one
	Request            map[string]string // of a data access: method and path
	// Purposes are those of use that are stated; nil means those of the policy. The policy allows when it does for at least one.
	Purposes []string
	Now      time.Time // zero means the present
}

// verdict is a three-valued truth: what can't be evaluated is neither true nor false, and denies in either direction.
type verdict int

const (
	no verdict = iota
	undecided
	yes
)

// evaluation is the state of one Evaluate call.
type evaluation struct {
	*Evaluator
	Request
	lang   string // of what is said: "de", otherwise English
	trace  adminapi.Trace
	forced bool // inside an alternative: subjects are not filtered
}

// Evaluate judges a policy at one phase. A policy allows when no prohibition applies, every obligation is met, and at least one
// permission to use is met with its duties; a policy without a permission allows nothing. Constraints whose operand is not declared for
// the phase are left to the phases that it is declared for. Whatever can't be evaluated denies, with its reason in the trace.
func (e *Evaluator) Evaluate(ctx context.Context, req Request) adminapi.Trace {
	if req.Now.IsZero() {
		req.Now = e.now()
	}
	if req.Policy != nil && req.Purposes == nil {
		req.Purposes = e.Purposes(req.Policy)
	}
	if len(req.Purposes) == 0 {
		return inGerman(e.evaluate(ctx, req, ""), e.evaluate(ctx, req, "de"))
	}
	var out adminapi.Trace
	for i, purpose := range req.Purposes {
		one := req
		one.Request = maps.Clone(orEmpty(req.Request))
		one.Request["purpose"] = purpose
		t := inGerman(e.evaluate(ctx, one, ""), e.evaluate(ctx, one, "de"))
		if t.Allowed {
			t.Purposes = append(out.Purposes, purpose)
		}
		if i == 0 || t.Allowed { // one that is allowed says more than one that is not
			out = t
		}
	}
	return out
}

// inGerman adds the words of the same evaluation in German.
func inGerman(t, german adminapi.Trace) adminapi.Trace {
	for i := range min(len(t.Checks), len(german.Checks)) {
		if de := german.Checks[i]; de.Path == t.Checks[i].Path {
			t.Checks[i].DE = &adminapi.CheckWords{Sentence: de.Sentence, Reason: de.Reason, Remedy: de.Remedy}
		}
	}
	return t
}

func (e *Evaluator) evaluate(ctx context.Context, req Request, lang string) adminapi.Trace {
	ev := &evaluation{Evaluator: e, Request: req, lang: lang, trace: adminapi.Trace{Phase: req.Phase, At: req.Now.UTC(), By: req.By, Checks: []adminapi.Check{}}}
	if req.Policy == nil {
		ev.fail("$", "there is a policy", "es gibt eine Richtlinie", "no policy was given", "es wurde keine Richtlinie angegeben")
		return ev.trace
	}
	ev.trace.Policy = Hash(req.Policy)
	allowed := true
	for _, r := range req.Policy.Prohibitions {
		allowed = ev.prohibition(ctx, r) && allowed
	}
	for _, r := range req.Policy.Obligations {
		allowed = ev.duty(ctx, r) == yes && allowed
	}
	ev.trace.Allowed = ev.permissions(ctx) && allowed
	return ev.trace
}

func usable(r Rule) bool { return len(r.Actions) > 0 && !slices.ContainsFunc(r.Actions, unknownAction) }

// unknownAction: ODRL's "use" covers every kind of use; Catena-X's access policies permit "access".
func unknownAction(a string) bool { return a != "use" && a != "access" && a != accessAction }

const accessAction = "https://w3id.org/catenax/2025/9/policy/access"

func (ev *evaluation) permissions(ctx context.Context) bool {
	var rules []Rule
	for _, r := range ev.Policy.Permissions {
		if usable(r) {
			rules = append(rules, r)
		}
	}
	// Permission to see an offer is none to use what it offers, where the policy has both.
	if use := slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return !slices.Contains(r.Actions, "use") }); len(use) > 0 {
		rules = use
	}
	switch len(rules) {
	case 0:
		ev.fail("$.permission", "the policy permits use", "die Richtlinie erlaubt die Nutzung",
			"no permission to use stands in it", "sie enthält keine Erlaubnis zur Nutzung")
		return false
	case 1:
		return ev.permission(ctx, rules[0]) == yes
	}
	return ev.alternative("$.permission", rules, nil, func() verdict {
		v := no
		for _, r := range rules {
			v = max(v, ev.permission(ctx, r))
		}
		return v
	}) == yes
}

func (ev *evaluation) permission(ctx context.Context, r Rule) verdict {
	v := ev.all(ctx, r.Constraints)
	for _, d := range r.Duties {
		v = min(v, ev.duty(ctx, d))
	}
	return v
}

// duty holds when its constraints hold. One without constraints is a promise, which holds if the profile says how connectors keep it.
func (ev *evaluation) duty(ctx context.Context, r Rule) verdict {
	if d := ev.fulfilled(r); d != nil && len(r.Constraints) == 0 {
		ev.trace.Checks = append(ev.trace.Checks, adminapi.Check{Path: r.Path, LeftOperand: d.Name, Satisfied: true, Sentence: translated(d.Sentence, ev.lang)})
		return yes
	}
	if len(r.Constraints) == 0 {
		ev.fail(r.Path, "the duty "+join(r.Actions)+" is met", "die Pflicht "+join(r.Actions)+" ist erfüllt",
			"this connector has nothing that fulfils it", "dieser Konnektor hat nichts, was sie erfüllt")
		return undecided
	}
	return ev.all(ctx, r.Constraints)
}

// prohibition reports whether use stays allowed.
func (ev *evaluation) prohibition(ctx context.Context, r Rule) bool {
	if !usable(r) {
		ev.fail(r.Path, "the prohibition of "+join(r.Actions)+" can be judged", "das Verbot von "+join(r.Actions)+" ist prüfbar",
			"only prohibitions of use can be judged here", "nur Verbote der Nutzung sind hier prüfbar")
		return false
	}
	if len(r.Constraints) == 0 {
		ev.fail(r.Path, "use is not prohibited", "die Nutzung ist nicht verboten", "the policy prohibits it without condition", "die Richtlinie verbietet sie ohne Bedingung")
		return false
	}
	start := len(ev.trace.Checks)
	v := ev.alternative(r.Path, nil, r.Constraints, func() verdict { return ev.all(ctx, r.Constraints) })
	if len(ev.trace.Checks) == start { // nothing of it is evaluated in this phase
		return true
	}
	for i := range ev.trace.Checks[start:] {
		c := &ev.trace.Checks[start+i]
		c.Sentence = ev.say("prohibited when: ", "verboten, wenn: ") + c.Sentence
		if v == no {
			c.Satisfied, c.Reason, c.Remedy = true, "", ""
		} else if c.Satisfied {
			c.Satisfied, c.Reason = false, ev.sayf("the prohibition applies: seen %s", "das Verbot greift: gesehen %s", c.Value)
		}
	}
	return v == no
}

func (ev *evaluation) all(ctx context.Context, cs []Constraint) verdict {
	v := yes
	for _, c := range cs {
		v = min(v, ev.constraint(ctx, c))
	}
	return v
}

func (ev *evaluation) constraint(ctx context.Context, c Constraint) verdict {
	switch c.Logical {
	case "":
		if !ev.applies(c) {
			return yes
		}
		return ev.atomic(ctx, c)
	case "or":
		return ev.alternative(c.Path, nil, c.Of, func() verdict {
			v := no
			for _, o := range c.Of {
				v = max(v, ev.constraint(ctx, o))
			}
			return v
		})
	case "xone":
		return ev.alternative(c.Path, nil, c.Of, func() verdict { return ev.exactlyOne(ctx, c) })
	default: // and, andSequence
		return ev.all(ctx, c.Of)
	}
}

func (ev *evaluation) exactlyOne(ctx context.Context, c Constraint) verdict {
	var count [yes + 1]int
	for _, o := range c.Of {
		count[ev.constraint(ctx, o)]++
	}
	switch {
	case count[yes] > 1:
		ev.fail(c.Path, "exactly one of the alternatives holds", "genau eine der Alternativen trifft zu",
			"more than one holds", "mehr als eine trifft zu")
		return no
	case count[undecided] > 0:
		return undecided
	case count[yes] == 1:
		return yes
	}
	return no
}

// alternative evaluates constraints of which some may fail. All of them have to be evaluated in the same phase: an alternative that a
// phase leaves out would make the others worthless.
func (ev *evaluation) alternative(path string, rules []Rule, cs []Constraint, f func() verdict) verdict {
	in, out, wanted := 0, 0, false
	count := func(c Constraint) {
		if !ev.inPhase(c) {
			out++
			return
		}
		in++
		wanted = wanted || ev.applies(c)
	}
	leaves(rules, count)
	constraintLeaves(cs, count)
	switch {
	case in > 0 && out > 0:
		ev.fail(path, "the alternatives are evaluated together", "die Alternativen werden gemeinsam geprüft",
			fmt.Sprintf("%d of them are not evaluated in the phase %s", out, ev.Phase), fmt.Sprintf("%d davon werden in der Phase %s nicht geprüft", out, ev.Phase))
		return undecided
	case in > 0 && !wanted || in == 0 && out > 0:
		return yes
	}
	before, start := ev.forced, len(ev.trace.Checks)
	ev.forced = true
	v := f()
	ev.forced = before
	if v == yes { // what fails in an alternative that holds needs no action
		for i := range ev.trace.Checks[start:] {
			ev.trace.Checks[start+i].Reason, ev.trace.Checks[start+i].Remedy = "", ""
		}
	}
	return v
}

// inPhase tells whether a constraint is evaluated now. What is wrong in itself denies in every phase.
func (ev *evaluation) inPhase(c Constraint) bool {
	o := ev.lookup(c.Left)
	return o == nil || slices.Contains(o.Phases, ev.Phase) || ev.checkAtomic(c) != nil
}

func (ev *evaluation) applies(c Constraint) bool {
	o := ev.lookup(c.Left)
	return ev.inPhase(c) && (ev.forced || o == nil || ev.Subjects == nil || slices.Contains(ev.Subjects, o.Subject) || ev.checkAtomic(c) != nil)
}

// fail records a denial that no single constraint explains.
func (ev *evaluation) fail(path, sentence, satz, reason, grund string) {
	ev.trace.Checks = append(ev.trace.Checks, adminapi.Check{Path: path, Sentence: ev.say(sentence, satz), Reason: ev.say(reason, grund)})
}

func (ev *evaluation) atomic(ctx context.Context, c Constraint) verdict {
	check := adminapi.Check{Path: c.Path, LeftOperand: c.Left, Operator: c.Operator, RightOperand: c.Right.Raw}
	o := ev.lookup(c.Left)
	v := undecided
	if err := ev.checkAtomic(c); err != nil {
		check.Sentence = c.Left + " " + c.Operator + " " + join(c.Right.Values)
		check.Reason = ev.sayError("the constraint can't be evaluated", "die Bedingung ist nicht prüfbar", err)
	} else {
		v = ev.judge(ctx, c, o, &check)
	}
	if o != nil {
		check.Subject, check.CredentialType = o.Subject, o.Credential
		check.Sentence = sentence(o.Operand, c, check.Value, ev.lang)
	}
	if check.Satisfied = v == yes; !check.Satisfied && o != nil && check.Remedy == "" {
		check.Remedy = fill(translated(o.Remedy, ev.lang), c, check.Value, o.ValueType, ev.lang)
	}
	ev.trace.Checks = append(ev.trace.Checks, check)
	return v
}

// judge evaluates a constraint that is right in itself, and fills in what was seen.
func (ev *evaluation) judge(ctx context.Context, c Constraint, o *operand, check *adminapi.Check) verdict {
	agent := ev.Provider
	if o.Subject == profile.SubjectConsumer {
		agent = ev.Consumer
	}
	if agent == nil {
		check.Reason = ev.sayf("the %s is not known here, so nothing about it can be checked", "der Beteiligte „%s“ ist hier nicht bekannt, nichts über ihn ist prüfbar", o.Subject)
		return undecided
	}
	check.Party = agent.ID
	good, refused := ev.counting(*agent)
	vars := map[string]any{"credential": map[string]any{}, "credentials": credentialMaps(good), "party": map[string]string{"id": agent.ID},
		"agreement": orEmpty(ev.Agreement), "request": orEmpty(ev.Request.Request), "now": ev.Now}
	if o.Credential != "" {
		cred := newest(good, o.Credential)
		if cred == nil {
			check.Reason = ev.missing(o.Credential, agent.ID, refused)
			if o.Remedy.EN == "" {
				check.Remedy = ev.obtain(o.Credential)
			}
			return undecided
		}
		check.Credential = cred.ID
		vars["credential"] = credentialMap(*cred)
	}
	val, err := o.see(ctx, vars)
	if err != nil {
		check.Reason = ev.unseen(err, o.Credential)
		return undecided
	}
	s, err := convert(o.ValueType, val)
	if err != nil {
		check.Reason = ev.sayError("no usable value was seen", "kein brauchbarer Wert", err)
		return undecided
	}
	check.Value = s.text
	ok, err := compare(o.ValueType, c.Operator, s, c.Right, ev.Now)
	switch {
	case err != nil:
		check.Reason = ev.sayError("the value seen can't be compared", "der gesehene Wert ist nicht vergleichbar", err)
		return undecided
	case !ok:
		check.Reason = ev.mismatch(o.ValueType, c, s)
		return no
	}
	return yes
}

// counting sorts out what does not count at this moment, on top of what the identity service refused.
func (ev *evaluation) counting(a identity.Agent) (good []identity.Credential, refused []identity.Refusal) {
	return ev.Evaluator.counting(a, ev.Now)
}

func (e *Evaluator) counting(a identity.Agent, now time.Time) (good []identity.Credential, refused []identity.Refusal) {
	refused = slices.Clone(a.Refused)
	for _, c := range a.Credentials {
		code := ""
		switch {
		case !slices.ContainsFunc(e.profile.TrustedIssuers, func(t profile.TrustedIssuer) bool { return t.DID == c.Issuer && slices.Contains(t.Types, c.Type) }):
			code = codeWrongIssuer
		case c.ValidFrom.After(now.Add(5 * time.Minute)): // clocks differ
			code = "not-yet-valid"
		case !c.ValidUntil.IsZero() && !c.ValidUntil.After(now):
			code = "expired"
		}
		if code == "" {
			good = append(good, c)
			continue
		}
		refused = append(refused, identity.Refusal{ID: c.ID, Type: c.Type, Issuer: c.Issuer, Code: code})
	}
	return good, refused
}

// newest returns the credential of a type that became valid last.
func newest(cs []identity.Credential, credentialType string) *identity.Credential {
	var out *identity.Credential
	for i, c := range cs {
		if c.Type == credentialType && (out == nil || c.ValidFrom.After(out.ValidFrom) || c.ValidFrom.Equal(out.ValidFrom) && c.ID > out.ID) {
			out = &cs[i]
		}
	}
	return out
}

func credentialMap(c identity.Credential) map[string]any {
	m := map[string]any{"id": c.ID, "type": c.Type, "issuer": c.Issuer, "subject": orEmpty(c.Subject), "validFrom": c.ValidFrom}
	if !c.ValidUntil.IsZero() {
		m["validUntil"] = c.ValidUntil
	}
	return m
}

func credentialMaps(cs []identity.Credential) []map[string]any {
	out := make([]map[string]any, 0, len(cs))
	for _, c := range cs {
		out = append(out, credentialMap(c))
	}
	return out
}

func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}

// Membership tells whether a party holds the credentials that the profile requires of everybody. Each is one check of the trace.
func (e *Evaluator) Membership(agent identity.Agent) adminapi.Trace {
	now := e.now()
	return inGerman(e.membership(agent, now, ""), e.membership(agent, now, "de"))
}

func (e *Evaluator) membership(agent identity.Agent, now time.Time, lang string) adminapi.Trace {
	ev := &evaluation{Evaluator: e, Request: Request{Now: now}, lang: lang}
	good, refused := e.counting(agent, now)
	t := adminapi.Trace{At: now.UTC(), Allowed: true, Checks: []adminapi.Check{}}
	for i, ct := range e.profile.RequiredCredentials {
		c := adminapi.Check{Path: fmt.Sprintf("$.requiredCredentials[%d]", i), LeftOperand: ct, CredentialType: ct, Party: agent.ID, Sentence: ev.sayf("holds a valid %s", "hat einen gültigen Nachweis %s", ct)}
		if cred := newest(good, ct); cred != nil {
			c.Satisfied, c.Credential, c.Value = true, cred.ID, cred.ID
		} else {
			c.Reason, c.Remedy, t.Allowed = ev.missing(ct, agent.ID, refused), ev.obtain(ct), false
		}
		t.Checks = append(t.Checks, c)
	}
	return t
}
