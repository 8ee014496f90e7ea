// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"slices"

	"github.com/kaphera/kaphera/connector/profile"
)

// Explanation says a policy in plain words.
type Explanation struct {
	// Sentences is the policy as a whole, one for each thing that has to hold.
	Sentences []string `json:"sentences"`
	// Phases are the same by when and on whom they are checked, in order; phases in which nothing is checked are left out.
	Phases []PhaseDemands `json:"phases"`
	// Purposes of use that are limited to; empty when none are.
	Purposes []string `json:"purposes,omitempty"`
	// Credentials are the types that each party has to present.
	Credentials map[profile.Subject][]string `json:"credentials,omitempty"`
}

// PhaseDemands is what is checked at one phase.
type PhaseDemands struct {
	Phase    profile.Phase `json:"phase"`
	Provider []string      `json:"provider,omitempty"`
	Consumer []string      `json:"consumer,omitempty"`
}

// Explain says a contract policy in plain words; lang is "en" or "de".
func (e *Evaluator) Explain(p *Policy, lang string) Explanation {
	return e.explain(p, contractPhases, lang)
}

// ExplainAccess is Explain for an access policy.
func (e *Evaluator) ExplainAccess(p *Policy, lang string) Explanation {
	return e.explain(p, accessPhases, lang)
}

func (e *Evaluator) explain(p *Policy, at []judged, lang string) Explanation {
	out := Explanation{Sentences: e.Sentences(p, lang), Phases: []PhaseDemands{}, Purposes: e.Purposes(p), Credentials: map[profile.Subject][]string{}}
	p.leaves(func(c Constraint) {
		if o := e.lookup(c.Left); o != nil && o.Credential != "" && !slices.Contains(out.Credentials[o.Subject], o.Credential) {
			out.Credentials[o.Subject] = append(out.Credentials[o.Subject], o.Credential)
		}
	})
	for _, j := range at {
		d := PhaseDemands{Phase: j.phase}
		if j.subject != profile.SubjectConsumer {
			d.Provider = e.demands(p, j.phase, profile.SubjectProvider, lang)
		}
		if j.subject != profile.SubjectProvider {
			d.Consumer = e.demands(p, j.phase, profile.SubjectConsumer, lang)
		}
		if len(d.Provider)+len(d.Consumer) > 0 {
			out.Phases = append(out.Phases, d)
		}
	}
	return out
}

// demands says what a policy demands of one party at one phase. An alternative is said whole when any of it is about the party.
func (e *Evaluator) demands(p *Policy, phase profile.Phase, subject profile.Subject, lang string) []string {
	var narrow func(rules []Rule) []Rule
	narrow = func(rules []Rule) (out []Rule) {
		for _, r := range rules {
			kept := e.fulfilled(r) != nil && phase == profile.PhaseAccess && subject == profile.SubjectProvider
			r.Constraints = e.about(r.Constraints, phase, subject)
			r.Duties = narrow(r.Duties)
			if kept || len(r.Constraints)+len(r.Duties) > 0 {
				out = append(out, r)
			}
		}
		return out
	}
	only := &Policy{Permissions: narrow(p.Permissions), Prohibitions: narrow(p.Prohibitions), Obligations: narrow(p.Obligations)}
	ev := &evaluation{Evaluator: e, lang: lang}
	return append(append(ev.permitted(only.Permissions), ev.prohibited(only.Prohibitions)...), ev.duties(only.Obligations)...)
}

// about leaves of constraints those that concern a party at a phase.
func (e *Evaluator) about(cs []Constraint, phase profile.Phase, subject profile.Subject) (out []Constraint) {
	for _, c := range cs {
		if c.Logical == "and" || c.Logical == "andSequence" {
			out = append(out, e.about(c.Of, phase, subject)...)
			continue
		}
		concerns := false
		constraintLeaves([]Constraint{c}, func(leaf Constraint) {
			o := e.lookup(leaf.Left)
			concerns = concerns || o != nil && o.Subject == subject && slices.Contains(o.Phases, phase)
		})
		if concerns {
			out = append(out, c)
		}
	}
	return out
}
