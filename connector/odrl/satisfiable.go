// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/profile"
)

// A policy is satisfiable at a phase if some value of each operand makes its formula true. Operands are taken to be independent of each other,
// and values that no credential ever has are allowed: what is found unsatisfiable is so, and a contradiction between different operands is not found.

// formula is a policy's logic at one phase over atomic constraints.
type formula struct {
	op   string // leaf, and, or, xone, not
	of   []formula
	leaf int    // index of the constraint
	path string // of what it comes from
}

func allOf(of []formula) formula { return formula{op: "and", of: of} }

// truth of a formula as far as the leaves that are known say; nil leaves are not known yet.
func (f formula) truth(leaves []*bool) *bool {
	known := func(b bool) *bool { return &b }
	if f.op == "leaf" {
		return leaves[f.leaf]
	}
	holds, open := 0, 0
	for _, g := range f.of {
		switch t := g.truth(leaves); {
		case t == nil:
			open++
		case *t:
			holds++
		}
	}
	all := len(f.of)
	switch f.op {
	case "and":
		if holds+open < all {
			return known(false)
		}
		if open == 0 {
			return known(true)
		}
	case "or":
		if holds > 0 {
			return known(true)
		}
		if open == 0 {
			return known(false)
		}
	case "xone":
		if holds > 1 {
			return known(false)
		}
		if open == 0 {
			return known(holds == 1)
		}
	case "not":
		if open == 0 {
			return known(holds == 0)
		}
	}
	return nil
}

// logic builds formulas of one phase.
type logic struct {
	e       *Evaluator
	phase   profile.Phase
	subject profile.Subject // of whom alone something is asked; empty: of both
	leaves  []Constraint
}

func (l *logic) in(c Constraint) bool { return slices.Contains(l.e.lookup(c.Left).Phases, l.phase) }

// constraint adds what a constraint demands in the phase; nothing when it is not evaluated then.
func (l *logic) constraint(c Constraint, alternative bool) (out []formula) {
	switch c.Logical {
	case "":
		if !l.in(c) || !alternative && l.subject != "" && l.e.lookup(c.Left).Subject != l.subject {
			return nil
		}
		l.leaves = append(l.leaves, c)
		return []formula{{op: "leaf", leaf: len(l.leaves) - 1, path: c.Path}}
	case "or", "xone":
		if !l.touches(c.Of) {
			return nil
		}
		f := formula{op: c.Logical, path: c.Path + "." + c.Logical}
		for _, o := range c.Of {
			f.of = append(f.of, allOf(l.constraint(o, true)))
		}
		return []formula{f}
	default:
		for _, o := range c.Of {
			out = append(out, l.constraint(o, alternative)...)
		}
		return out
	}
}

// touches tells whether an alternative is evaluated: something of it is for the phase and about a wanted party.
func (l *logic) touches(cs []Constraint) (yes bool) {
	constraintLeaves(cs, func(c Constraint) {
		yes = yes || l.in(c) && (l.subject == "" || l.e.lookup(c.Left).Subject == l.subject)
	})
	return yes
}

func (l *logic) constraints(cs []Constraint, alternative bool) (out []formula) {
	for _, c := range cs {
		out = append(out, l.constraint(c, alternative)...)
	}
	return out
}

// demands are what has to hold for one permission to allow use: its constraints and duties, the policy's obligations, and that no prohibition applies.
func (l *logic) demands(p *Policy, permission Rule, several bool) []formula {
	out := l.constraints(permission.Constraints, several)
	for _, d := range slices.Concat(permission.Duties, p.Obligations) {
		out = append(out, l.constraints(d.Constraints, several && slices.ContainsFunc(permission.Duties, func(o Rule) bool { return o.Path == d.Path }))...)
	}
	for _, r := range p.Prohibitions {
		if len(r.Constraints) == 0 {
			out = append(out, formula{op: "or", path: r.Path}) // holds never
		} else if l.touches(r.Constraints) {
			out = append(out, formula{op: "not", of: []formula{allOf(l.constraints(r.Constraints, true))}, path: r.Path})
		}
	}
	return out
}

// checkSatisfiable refuses a policy that nobody can satisfy at one of the phases; the policy must be right otherwise.
func (e *Evaluator) checkSatisfiable(p *Policy, at []judged) error {
	for _, ph := range at {
		var cores []string
		var first string
		for _, r := range p.Permissions {
			l := &logic{e: e, phase: ph.phase, subject: ph.subject}
			core := l.core(l.demands(p, r, len(p.Permissions) > 1))
			if core == nil {
				cores = nil
				break
			}
			if first == "" {
				first = core[len(core)-1]
			}
			cores = append(cores, strings.Join(core, " and "))
		}
		if len(cores) > 0 {
			return errorf(first, "nobody can satisfy this policy in the phase %s: %s exclude everything", ph.phase, strings.Join(slices.Compact(cores), ", and likewise "))
		}
	}
	return nil
}

// judged is a phase in which a policy is evaluated, and on whom: one party, or both when empty.
type judged struct {
	phase   profile.Phase
	subject profile.Subject
}

// core returns the paths of demands that can't hold together, none of which can be left out; nil when all can hold.
func (l *logic) core(demands []formula) []string {
	s := &search{logic: l, steps: maxSearch}
	if s.satisfiable(demands) {
		return nil
	}
	for i := 0; i < len(demands); {
		if rest := slices.Delete(slices.Clone(demands), i, i+1); !s.satisfiable(rest) {
			demands = rest
			continue
		}
		i++
	}
	var out []string
	for _, d := range demands {
		out = append(out, d.path)
	}
	return out
}

// maxSearch bounds the search; what is not decided by then counts as satisfiable.
const maxSearch = 20_000

type search struct {
	*logic
	steps int
}

// satisfiable tries the values of one operand after the other.
func (s *search) satisfiable(demands []formula) bool {
	used := map[int]bool{}
	var mark func(f formula)
	mark = func(f formula) {
		if f.op == "leaf" {
			used[f.leaf] = true
		}
		for _, g := range f.of {
			mark(g)
		}
	}
	whole := allOf(demands)
	mark(whole)
	var operands []*operand
	of := map[*operand][]int{}
	for i, c := range s.leaves {
		if !used[i] {
			continue
		}
		o := s.e.lookup(c.Left)
		if of[o] == nil {
			operands = append(operands, o)
		}
		of[o] = append(of[o], i)
	}
	values := make([][][]bool, len(operands))
	for i, o := range operands {
		var cs []Constraint
		for _, leaf := range of[o] {
			cs = append(cs, s.leaves[leaf])
		}
		if values[i] = truths(o.ValueType, cs); values[i] == nil {
			return true // too many to try
		}
	}
	leaves := make([]*bool, len(s.leaves))
	var try func(i int) bool
	try = func(i int) bool {
		if s.steps--; s.steps < 0 {
			return true
		}
		if t := whole.truth(leaves); t != nil {
			return *t
		}
		for _, v := range values[i] {
			for j, leaf := range of[operands[i]] {
				leaves[leaf] = &v[j]
			}
			if try(i + 1) {
				return true
			}
		}
		for _, leaf := range of[operands[i]] {
			leaves[leaf] = nil
		}
		return false
	}
	return try(0)
}

// Bounds of what is tried for one operand.
const (
	maxTruths      = 4096    // values
	maxComparisons = 200_000 // of values with what is written
)

// truths returns which of the constraints on one operand can hold together: one entry for each combination that some value brings about. nil
// when there are too many to tell.
func truths(t profile.ValueType, cs []Constraint) [][]bool {
	var out [][]bool
	add := func(v []bool) {
		if !slices.ContainsFunc(out, func(w []bool) bool { return slices.Equal(v, w) }) {
			out = append(out, v)
		}
	}
	if t == profile.ValueAge {
		for _, s := range ages(cs) {
			v := make([]bool, len(cs))
			for i, c := range cs {
				v[i] = ordered(c.Operator, s[i])
			}
			add(v)
		}
		return out
	}
	tried, written := samples(t, cs), 0
	for _, c := range cs {
		written += len(c.Right.Values)
	}
	if len(tried)*written > maxComparisons {
		return nil
	}
	for _, s := range tried {
		v := make([]bool, len(cs))
		for i, c := range cs {
			holds, err := compare(t, c.Operator, s, c.Right, time.Time{})
			v[i] = holds && err == nil
		}
		add(v)
	}
	return out
}

// samples are values of which one behaves like any value whatsoever.
func samples(t profile.ValueType, cs []Constraint) (out []seen) {
	var mentioned []string
	for _, c := range cs {
		mentioned = append(mentioned, c.Right.Values...)
	}
	slices.Sort(mentioned)
	mentioned = slices.Compact(mentioned)
	other := strings.Join(mentioned, " ") + " and anything else" // longer than all that are mentioned
	switch t {
	case profile.ValueBool:
		return []seen{{text: "true"}, {text: "false"}}
	case profile.ValueString:
		for _, m := range append(mentioned, other) {
			out = append(out, seen{text: m, strings: []string{m}})
		}
	case profile.ValueStrings:
		if all := append(mentioned, other); 1<<len(all) <= maxTruths {
			for set := range 1 << len(all) {
				var s seen
				for i, m := range all {
					if set&(1<<i) != 0 {
						s.strings = append(s.strings, m)
					}
				}
				out = append(out, s)
			}
		}
	case profile.ValueNumber:
		var at []*big.Rat
		for _, m := range mentioned {
			if n, err := parseNumber(m); err == nil {
				at = append(at, n)
			}
		}
		slices.SortFunc(at, (*big.Rat).Cmp)
		one := big.NewRat(1, 1)
		for i, n := range at {
			below := new(big.Rat).Sub(n, one)
			if i > 0 {
				below.Add(at[i-1], n).Quo(below, big.NewRat(2, 1))
			}
			out = append(out, seen{number: below}, seen{number: n})
		}
		out = append(out, seen{number: new(big.Rat).Add(at[len(at)-1], one)})
	case profile.ValueTimestamp:
		var at []time.Time
		for _, m := range mentioned {
			if n, err := parseTime(m); err == nil {
				at = append(at, n)
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		for _, n := range at {
			out = append(out, seen{time: n.Add(-1)}, seen{time: n}, seen{time: n.Add(1)})
		}
	case profile.ValueAge: // by signs
	}
	return out
}

// ages returns how an age can compare with each of the durations at once: signs of (age - duration). Calendar durations are not always
// comparable, as a month and thirty days are not; then every combination counts as possible. nil when there are too many.
func ages(cs []Constraint) [][]int {
	var ds []Duration
	index := make([]int, len(cs))
	for i, c := range cs {
		d, err := ParseDuration(c.Right.Values[0])
		if err != nil {
			return nil
		}
		d.Months, d.Years = d.Months+12*d.Years, 0
		if index[i] = slices.Index(ds, d); index[i] < 0 {
			index[i] = len(ds)
			ds = append(ds, d)
		}
	}
	combinations := 1
	for range ds {
		if combinations *= 3; combinations > maxTruths {
			return nil
		}
	}
	var out [][]int
	for n := range combinations {
		signs := make([]int, len(ds))
		for i, rest := 0, n; i < len(ds); i, rest = i+1, rest/3 {
			signs[i] = rest%3 - 1
		}
		possible := true
		for i, a := range ds {
			for j, b := range ds {
				// An age that has not passed the shorter one has not reached the longer one.
				possible = possible && (!shorter(a, b) || signs[i] > 0 || signs[j] < 0)
			}
		}
		if !possible {
			continue
		}
		all := make([]int, len(cs))
		for i := range cs {
			all[i] = signs[index[i]]
		}
		out = append(out, all)
	}
	return out
}

// shorter tells whether a ends before b does, whenever both begin. Years are months here.
func shorter(a, b Duration) bool {
	if a != b && a.Months <= b.Months && a.Days <= b.Days && a.Clock <= b.Clock {
		return true
	}
	const day = 24 * time.Hour
	longest := func(d Duration) time.Duration {
		return time.Duration(366*(d.Months/12)+31*(d.Months%12)+d.Days)*day + d.Clock
	}
	shortest := func(d Duration) time.Duration {
		return time.Duration(365*(d.Months/12)+28*(d.Months%12)+d.Days)*day + d.Clock
	}
	const representable = 100_000 // days, and more than anybody writes
	if 31*max(a.Months, b.Months)+max(a.Days, b.Days) > representable {
		return false
	}
	return longest(a) < shortest(b)
}
