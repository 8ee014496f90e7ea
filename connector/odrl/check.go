// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/profile"
)

// Check judges a contract policy when it is written: an undeclared left operand, an operator that it does not support, a right operand of the
// wrong type, an action or duty that nothing evaluates, and constraints that no phase would evaluate are refused, all at once
// (errors.Join of *Error with the JSON path); and, when nothing else is wrong, constraints that nobody can satisfy together.
func (e *Evaluator) Check(p *Policy) error {
	return e.check(p, contractPhases, []string{"use"}, func(o *operand) error {
		if len(o.Phases) == 1 && o.Phases[0] == profile.PhaseCatalog && o.Subject == profile.SubjectConsumer {
			return errors.New("no phase evaluates it here: what a contract policy asks of the consumer is evaluated from the negotiation on, and the operand is declared for the catalog only; put it into the access policy")
		}
		return nil
	})
}

// CheckAccess is Check for an access policy, which decides who sees an offer: it is evaluated on the consumer in the phase catalog, and only there.
func (e *Evaluator) CheckAccess(p *Policy) error {
	return e.check(p, accessPhases, []string{"use", "access", accessAction}, func(o *operand) error {
		switch {
		case o.Subject != profile.SubjectConsumer:
			return errors.New("no phase evaluates it here: an access policy is about the consumer, and the operand is about the provider; put it into the contract policy")
		case !slices.Contains(o.Phases, profile.PhaseCatalog):
			return fmt.Errorf("no phase evaluates it here: an access policy is evaluated in the catalog, and the operand is declared for %s; put it into the contract policy", phaseSet(o))
		}
		return nil
	})
}

// When and on whom a contract policy and an access policy are evaluated.
var (
	contractPhases = []judged{{profile.PhaseCatalog, profile.SubjectProvider}, {phase: profile.PhaseNegotiation}, {phase: profile.PhaseTransfer}, {phase: profile.PhaseAccess}}
	accessPhases   = []judged{{profile.PhaseCatalog, profile.SubjectConsumer}}
)

func (e *Evaluator) check(p *Policy, at []judged, actions []string, evaluated func(*operand) error) error {
	var errs []error
	add := func(path, format string, args ...any) { errs = append(errs, errorf(path, format, args...)) }
	if len(p.Permissions) == 0 {
		add("$.permission", "the policy permits nothing: add a permission to use")
	}
	for _, rules := range [][]Rule{p.Permissions, p.Prohibitions} {
		for _, r := range rules {
			if !usable(r) || slices.ContainsFunc(r.Actions, func(a string) bool { return !slices.Contains(actions, a) }) {
				add(r.Path+".action", "the action %s can't be evaluated here: write use", join(r.Actions))
			}
		}
	}
	p.leaves(func(c Constraint) {
		if err := e.checkAtomic(c); err != nil {
			errs = append(errs, err)
		} else if err := evaluated(e.lookup(c.Left)); err != nil {
			add(c.Path, "%s: %s", c.Left, err)
		} else if c.Right.Bare {
			add(c.Path+".rightOperand", "the dataspace protocol knows no bare numbers and booleans here: write %q", c.Right.Values[0])
		}
	})
	duties := slices.Clone(p.Obligations)
	for _, r := range p.Permissions {
		duties = append(duties, r.Duties...)
		errs = append(errs, e.checkAlternatives(r.Constraints)...)
	}
	for _, d := range duties {
		if len(d.Constraints) == 0 && e.fulfilled(d) == nil {
			add(d.Path, "nothing fulfils the duty %s: state it as a constraint on a declared operand, or use a duty that the profile declares (%s)", join(d.Actions), e.declaredDuties())
		}
		errs = append(errs, e.checkAlternatives(d.Constraints)...)
	}
	if p.Assignee != "" && p.Kind != "Agreement" {
		add("$.assignee", "that the policy is for %s alone is not evaluated: state it as a constraint on a declared operand", p.Assignee)
	}
	if len(p.Permissions) > 1 {
		for _, r := range p.Permissions {
			if len(r.Constraints)+len(r.Duties) == 0 {
				add(r.Path, "it permits use without a condition, so that the conditions of the other permissions mean nothing: take one of them away, or put all conditions into one permission")
			}
		}
		errs = append(errs, e.samePhases("$.permission", p.Permissions, nil)...)
	}
	for _, r := range p.Prohibitions {
		errs = append(errs, e.samePhases(r.Path, nil, r.Constraints)...)
	}
	if len(errs) == 0 {
		return e.checkSatisfiable(p, at)
	}
	return errors.Join(errs...)
}

// checkAtomic tells what is wrong with an atomic constraint in itself.
func (e *Evaluator) checkAtomic(c Constraint) error {
	o := e.lookup(c.Left)
	if o == nil {
		return errorf(c.Path+".leftOperand", "%q is not declared in the dataspace profile %s; declared are %s", c.Left, e.profile.Name, e.declared())
	}
	ops := make([]string, len(o.Operators))
	for i, op := range o.Operators {
		ops[i] = operator(op)
	}
	if !slices.Contains(ops, c.Operator) {
		return errorf(c.Path+".operator", "%s does not support the operator %q; it supports %s", o.Name, c.Operator, strings.Join(ops, ", "))
	}
	if err := checkRight(o.ValueType, c.Operator, c.Right); err != nil {
		return errorf(c.Path+".rightOperand", "%s", err)
	}
	return nil
}

func (e *Evaluator) declared() string {
	if len(e.profile.Operands) == 0 {
		return "none"
	}
	names := make([]string, len(e.profile.Operands))
	for i, o := range e.profile.Operands {
		names[i] = o.Name
	}
	return strings.Join(names, ", ")
}

func (e *Evaluator) declaredDuties() string {
	if len(e.profile.Duties) == 0 {
		return "none"
	}
	names := make([]string, len(e.profile.Duties))
	for i, d := range e.profile.Duties {
		names[i] = d.Name
	}
	return strings.Join(names, ", ")
}

func (e *Evaluator) checkAlternatives(cs []Constraint) (errs []error) {
	for _, c := range cs {
		if c.Logical == "or" || c.Logical == "xone" {
			errs = append(errs, e.samePhases(c.Path+"."+c.Logical, nil, c.Of)...)
			continue
		}
		errs = append(errs, e.checkAlternatives(c.Of)...)
	}
	return errs
}

// samePhases refuses alternatives that no phase evaluates together.
func (e *Evaluator) samePhases(path string, rules []Rule, cs []Constraint) []error {
	var first *operand
	var out []error
	compare := func(c Constraint) {
		o := e.lookup(c.Left)
		if o == nil || out != nil {
			return
		}
		if first == nil {
			first = o
		}
		if phaseSet(o) != phaseSet(first) {
			out = []error{errorf(path, "what stands here is judged together, but not evaluated in the same phases: %s is evaluated in %s, %s in %s; combine operands of the same phases",
				first.Name, phaseSet(first), o.Name, phaseSet(o))}
		}
	}
	leaves(rules, compare)
	constraintLeaves(cs, compare)
	return out
}

func phaseSet(o *operand) string {
	var out []string
	for _, ph := range phases {
		if slices.Contains(o.Phases, ph) {
			out = append(out, string(ph))
		}
	}
	return strings.Join(out, ", ")
}
