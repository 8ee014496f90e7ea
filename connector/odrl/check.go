// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"errors"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/profile"
)

// Check judges a policy when it is written: an undeclared left operand, an operator that it does not support, a right operand of the
// wrong type, an action or duty that nothing evaluates, and constraints that no phase would evaluate are refused, all at once
// (errors.Join of *Error with the JSON path).
func (e *Evaluator) Check(p *Policy) error {
	var errs []error
	add := func(path, format string, args ...any) { errs = append(errs, errorf(path, format, args...)) }
	if len(p.Permissions) == 0 {
		add("$.permission", "the policy permits nothing: add a permission to use")
	}
	for _, rules := range [][]Rule{p.Permissions, p.Prohibitions} {
		for _, r := range rules {
			if !usable(r) {
				add(r.Path+".action", "the action %s can't be evaluated: write use", join(r.Actions))
			}
		}
	}
	p.leaves(func(c Constraint) {
		if err := e.checkAtomic(c); err != nil {
			errs = append(errs, err)
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
		if len(d.Constraints) == 0 {
			add(d.Path, "nothing fulfils the duty %s: state it as a constraint on a declared operand", join(d.Actions))
		}
		errs = append(errs, e.checkAlternatives(d.Constraints)...)
	}
	if len(p.Permissions) > 1 {
		errs = append(errs, e.samePhases("$.permission", p.Permissions, nil)...)
	}
	for _, r := range p.Prohibitions {
		errs = append(errs, e.samePhases(r.Path, nil, r.Constraints)...)
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
	if !slices.ContainsFunc(o.Phases, func(ph profile.Phase) bool { return slices.Contains(evaluated, ph) }) {
		return errorf(c.Path, "%s is declared for %s only, which is not evaluated by this connector; it evaluates %s", o.Name, phaseSet(o), join(evaluated))
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
