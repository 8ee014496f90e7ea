// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

// Limits of one operand's expression.
const (
	costLimit      = 100_000 // CEL's cost units; a plain claim look-up costs about 5
	evaluationTime = 2 * time.Second
	maxExpression  = 4096 // bytes
)

// Evaluator judges policies by one dataspace profile. It is safe for concurrent use.
type Evaluator struct {
	profile  profile.Profile
	operands map[string]*operand      // by name and alias
	duties   map[string]*profile.Duty // by name and alias
	now      func() time.Time
}

type operand struct {
	profile.Operand
	program cel.Program
}

// NewEvaluator compiles the profile's operands. What is wrong with the profile is told by JSON path, all of it at once
// (errors.Join of *Error).
func NewEvaluator(p profile.Profile) (*Evaluator, error) {
	env, err := cel.NewEnv(
		cel.Variable("credential", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("credentials", cel.ListType(cel.MapType(cel.StringType, cel.DynType))),
		cel.Variable("party", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("agreement", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("request", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("now", cel.TimestampType),
		cel.DefaultUTCTimeZone(true), cel.CrossTypeNumericComparisons(true), ext.Strings(), cel.OptionalTypes(),
	)
	if err != nil {
		return nil, fmt.Errorf("expression language: %w", err)
	}
	e := &Evaluator{profile: p, operands: map[string]*operand{}, duties: map[string]*profile.Duty{}, now: time.Now}
	errs := append(checkAnchors(p), e.declareDuties()...)
	for i, o := range p.Operands {
		path := fmt.Sprintf("$.operands[%d]", i)
		errs = append(errs, checkOperand(p, path, o)...)
		c := &operand{Operand: o}
		if c.program, err = compile(env, o); err != nil {
			errs = append(errs, errorf(path+".expression", "%v", err))
		}
		errs = append(errs, declare(e.operands, path, o.Name, o.Aliases, expand, c)...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return e, nil
}

// declare enters what a name and its aliases mean; normal brings a name into the form that policies are read in.
func declare[T any](into map[string]T, path, name string, aliases []string, normal func(string) string, meaning T) (errs []error) {
	for i, n := range append([]string{name}, aliases...) {
		at := path + ".name"
		if i > 0 {
			at = fmt.Sprintf("%s.aliases[%d]", path, i-1)
		}
		n = normal(n)
		if _, dup := into[n]; dup {
			errs = append(errs, errorf(at, "%q is declared twice", n))
		}
		into[n] = meaning
	}
	return errs
}

func (e *Evaluator) declareDuties() (errs []error) {
	for i, d := range e.profile.Duties {
		path := fmt.Sprintf("$.duties[%d]", i)
		if !strings.Contains(d.Name, ":") {
			errs = append(errs, errorf(path+".name", "%q is not a full IRI", d.Name))
		}
		if d.Fulfilment != profile.FulfilRecordAccess {
			errs = append(errs, errorf(path+".fulfilment", "%q is not a way to fulfil a duty: use %s", d.Fulfilment, profile.FulfilRecordAccess))
		}
		if d.Sentence.EN == "" {
			errs = append(errs, errorf(path+".sentence.en", "the duty needs a sentence for people"))
		}
		errs = append(errs, declare(e.duties, path, d.Name, d.Aliases, term, &e.profile.Duties[i])...)
	}
	return errs
}

func checkAnchors(p profile.Profile) (errs []error) {
	if p.Name == "" {
		errs = append(errs, errorf("$.name", "the profile has no name"))
	}
	for i, t := range p.TrustedIssuers {
		if !strings.HasPrefix(t.DID, "did:") {
			errs = append(errs, errorf(fmt.Sprintf("$.trustedIssuers[%d].did", i), "%q is not a DID", t.DID))
		}
		if len(t.Types) == 0 {
			errs = append(errs, errorf(fmt.Sprintf("$.trustedIssuers[%d].types", i), "no credential type: name the types that %s is trusted for", t.DID))
		}
	}
	for i, t := range p.RequiredCredentials {
		if !issuedByAnybody(p, t) {
			errs = append(errs, errorf(fmt.Sprintf("$.requiredCredentials[%d]", i), "no issuer is trusted for %s: add one under trustedIssuers", t))
		}
	}
	return errs
}

func issuedByAnybody(p profile.Profile, credentialType string) bool {
	return slices.ContainsFunc(p.TrustedIssuers, func(t profile.TrustedIssuer) bool { return slices.Contains(t.Types, credentialType) })
}

var phases = []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation, profile.PhaseTransfer, profile.PhaseAccess}

func checkOperand(p profile.Profile, path string, o profile.Operand) (errs []error) {
	add := func(member, format string, args ...any) {
		errs = append(errs, errorf(path+"."+member, format, args...))
	}
	if !strings.Contains(expand(o.Name), ":") {
		add("name", "%q is not a full IRI", o.Name)
	}
	if o.Subject != profile.SubjectProvider && o.Subject != profile.SubjectConsumer {
		add("subject", "%q is neither provider nor consumer", o.Subject)
	}
	if o.Credential != "" && !issuedByAnybody(p, o.Credential) {
		add("credential", "no issuer is trusted for %s: add one under trustedIssuers", o.Credential)
	}
	supported, known := operatorsOf[o.ValueType]
	if !known {
		add("valueType", "%q is not a value type: use %s", o.ValueType, strings.Join(valueTypes(), ", "))
	}
	if len(o.Operators) == 0 {
		add("operators", "no operator is declared")
	}
	for i, op := range o.Operators {
		if known && !slices.Contains(supported, operator(op)) {
			add(fmt.Sprintf("operators[%d]", i), "%q can't compare a %s: use %s", op, o.ValueType, strings.Join(supported, ", "))
		}
	}
	if len(o.Phases) == 0 {
		add("phases", "the operand is evaluated in no phase: name at least one of %s", join(phases))
	}
	for i, ph := range o.Phases {
		if !slices.Contains(phases, ph) {
			add(fmt.Sprintf("phases[%d]", i), "%q is not a phase: use %s", ph, join(phases))
		}
	}
	if o.Sentence.EN == "" {
		add("sentence.en", "the operand needs a sentence for people")
	}
	if o.Purpose && (o.Subject != profile.SubjectConsumer || o.ValueType != profile.ValueString || !slices.Contains(o.Phases, profile.PhaseTransfer)) {
		add("purpose", "a purpose of use is the consumer's, a string, and evaluated in the transfer, whose token it is bound to")
	}
	return errs
}

var celTypes = map[profile.ValueType][]*cel.Type{
	profile.ValueString: {cel.StringType}, profile.ValueNumber: {cel.IntType, cel.UintType, cel.DoubleType}, profile.ValueBool: {cel.BoolType},
	profile.ValueTimestamp: {cel.TimestampType, cel.StringType}, profile.ValueAge: {cel.TimestampType, cel.StringType},
	profile.ValueStrings: {cel.ListType(cel.StringType), cel.ListType(cel.DynType)},
}

func compile(env *cel.Env, o profile.Operand) (cel.Program, error) {
	if o.Expression == "" || len(o.Expression) > maxExpression {
		return nil, fmt.Errorf("the expression must have between 1 and %d bytes, not %d", maxExpression, len(o.Expression))
	}
	ast, issues := env.Compile(o.Expression)
	if issues.Err() != nil {
		return nil, fmt.Errorf("not a valid CEL expression: %w; variables are credential, credentials, party, agreement, request, now", issues.Err())
	}
	if want := celTypes[o.ValueType]; want != nil && !slices.ContainsFunc(want, ast.OutputType().IsEquivalentType) && !ast.OutputType().IsEquivalentType(cel.DynType) {
		return nil, fmt.Errorf("the expression yields %s, which is not a %s", ast.OutputType(), o.ValueType)
	}
	for _, r := range ast.NativeRep().ReferenceMap() {
		if r.Name == "credential" && o.Credential == "" {
			return nil, errors.New("the expression reads credential, but the operand declares no credential type")
		}
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit), cel.InterruptCheckFrequency(64))
	if err != nil {
		return nil, fmt.Errorf("not a valid CEL expression: %w", err)
	}
	return program, nil
}

// see evaluates the operand's expression: the value seen.
func (o *operand) see(ctx context.Context, vars map[string]any) (ref.Val, error) {
	ctx, cancel := context.WithTimeout(ctx, evaluationTime)
	defer cancel()
	val, _, err := o.program.ContextEval(ctx, vars)
	if err != nil {
		return nil, err
	}
	if types.IsUnknownOrError(val) {
		return nil, fmt.Errorf("no value: %v", val)
	}
	if opt, ok := val.(*types.Optional); ok {
		if !opt.HasValue() {
			return nil, errors.New("no such key: the optional value is absent")
		}
		val = opt.GetValue()
	}
	return val, nil
}

// lookup finds the operand that a constraint's left operand means.
func (e *Evaluator) lookup(left string) *operand { return e.operands[left] }

// Scopes returns the DCP scopes with which subject's credentials have to be queried for the policy (nil: none), the profile's required
// credentials included; sorted, without repeats.
func (e *Evaluator) Scopes(p *Policy, subject profile.Subject) []string {
	var out []string
	for _, t := range e.profile.RequiredCredentials {
		out = append(out, identity.TypeScope(t))
	}
	if p != nil {
		p.leaves(func(c Constraint) {
			if o := e.lookup(c.Left); o != nil && o.Credential != "" && o.Subject == subject {
				out = append(out, identity.TypeScope(o.Credential))
			}
		})
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Access tells what each access under the policy needs: whether it has to be judged, and of which types credentials of either party are read
// then; sorted, without repeats.
func (e *Evaluator) Access(p *Policy) (judged bool, types map[profile.Subject][]string) {
	types = map[profile.Subject][]string{}
	p.leaves(func(c Constraint) {
		if o := e.lookup(c.Left); o == nil || slices.Contains(o.Phases, profile.PhaseAccess) {
			judged = true
			if o != nil && o.Credential != "" && !slices.Contains(types[o.Subject], o.Credential) {
				types[o.Subject] = append(types[o.Subject], o.Credential)
			}
		}
	})
	for _, t := range types {
		slices.Sort(t)
	}
	return judged, types
}

// Recorded tells whether the policy obliges to record every access.
func (e *Evaluator) Recorded(p *Policy) bool {
	duties := slices.Clone(p.Obligations)
	for _, r := range p.Permissions {
		duties = append(duties, r.Duties...)
	}
	return slices.ContainsFunc(duties, func(d Rule) bool {
		declared := e.fulfilled(d)
		return declared != nil && declared.Fulfilment == profile.FulfilRecordAccess
	})
}

// fulfilled finds the declaration of a duty that connectors fulfil themselves; nil when it is none.
func (e *Evaluator) fulfilled(d Rule) *profile.Duty {
	if len(d.Actions) != 1 {
		return nil
	}
	return e.duties[d.Actions[0]]
}

// Vocabulary returns those of the profile's operands and duties that the policies use, in the order in which they are declared.
func (e *Evaluator) Vocabulary(policies ...*Policy) (operands []profile.Operand, duties []profile.Duty) {
	used, fulfilled := map[string]bool{}, map[string]bool{}
	var obliged func(rules []Rule)
	obliged = func(rules []Rule) {
		for _, r := range rules {
			if d := e.fulfilled(r); d != nil {
				fulfilled[d.Name] = true
			}
			obliged(r.Duties)
		}
	}
	for _, p := range policies {
		p.leaves(func(c Constraint) {
			if o := e.lookup(c.Left); o != nil {
				used[o.Name] = true
			}
		})
		obliged(p.Permissions)
		obliged(p.Obligations)
	}
	for _, o := range e.profile.Operands {
		if used[o.Name] {
			operands = append(operands, o)
		}
	}
	for _, d := range e.profile.Duties {
		if fulfilled[d.Name] {
			duties = append(duties, d)
		}
	}
	return operands, duties
}

// Purposes returns the purposes of use that whoever asks for the policy's use states by it, in the order in which they stand there.
func (e *Evaluator) Purposes(p *Policy) []string {
	var out []string
	leaves(p.Permissions, func(c Constraint) {
		if o := e.lookup(c.Left); o == nil || !o.Purpose || c.Operator == "neq" || c.Operator == "isNoneOf" {
			return
		}
		for _, v := range c.Right.Values {
			if !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	})
	return out
}

func join[S ~string](s []S) string {
	out := make([]string, len(s))
	for i, v := range s {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}
