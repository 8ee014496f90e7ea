// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/usecase"
)

// compile returns the evaluator of a profile, compiled once per version of it.
func (e *Engine) compile(p profile.Profile) (*odrl.Evaluator, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	e.evaluators.Lock()
	defer e.evaluators.Unlock()
	if c, ok := e.evaluators.byName[p.Name]; ok && c.source == string(raw) {
		return c.evaluator, nil
	}
	ev, err := odrl.NewEvaluator(p)
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", p.Name, err)
	}
	e.evaluators.byName[p.Name] = compiled{string(raw), ev}
	return ev, nil
}

// subjectOf is whose credentials a role's are.
func subjectOf(r state.Role) profile.Subject {
	if r == state.Provider {
		return profile.SubjectProvider
	}
	return profile.SubjectConsumer
}

// verify proves who sent a message, and that the profile's required credentials are held. Membership that is missing is a RefusalError with its
// trace, which a caller that keeps traces may use instead; one with status 503 where it cannot be found out now, so that the sender keeps its message.
func (e *Engine) verify(ctx context.Context, p *store.Participant, r *http.Request, ev *odrl.Evaluator, scopes []string) (identity.Agent, *RefusalError, error) {
	agent, err := e.authenticate(ctx, p, r, scopes)
	if err != nil {
		return identity.Agent{}, nil, err
	}
	if m := ev.Membership(agent); !m.Allowed {
		if unknown := e.unavailable(p, m, &agent); unknown != nil {
			return agent, unknown, nil
		}
		m.By = p.DID
		return agent, &RefusalError{Status: http.StatusForbidden, Code: "policy-denied", Message: odrl.Reason(m, ""), Trace: &m}, nil
	}
	return agent, nil, nil
}

// unavailable asks for the message again where a failed check of a denial is of a credential whose issuer is not reached: nothing ends over that.
func (e *Engine) unavailable(p *store.Participant, denial adminapi.Trace, parties ...*identity.Agent) *RefusalError {
	for _, check := range denial.Checks {
		for _, a := range parties {
			if check.Satisfied || a == nil || a.ID != check.Party {
				continue
			}
			if c := a.Unreachable(check.CredentialType); c != nil {
				e.opt.Log.Warn("a credential could not be verified now", "participant", p.Ctx, "party", a.ID, "type", c.Type, "issuer", c.Issuer, "error", c.Reason)
				return refuse(http.StatusServiceUnavailable, "identity-unavailable", "%s by %s could not be verified now; send the message again", c.Type, c.Issuer)
			}
		}
	}
	return nil
}

func (e *Engine) authenticate(ctx context.Context, p *store.Participant, r *http.Request, scopes []string) (identity.Agent, error) {
	authorization := r.Header.Get("Authorization")
	if authorization == "" {
		return identity.Agent{}, refuse(http.StatusUnauthorized, "unauthenticated", "the Authorization header is missing")
	}
	// Verifying takes as long as the sender's own servers make it. A sender that is not who it claims to be is found out before those are asked.
	leave, err := e.senders.Enter(ctx, identity.Claimed(authorization))
	if err != nil {
		return identity.Agent{}, refuse(http.StatusTooManyRequests, "busy", "%d messages of yours are being verified: send this one again once one of them is answered", e.opt.PerSender)
	}
	defer leave()
	agent, err := e.opt.Identity.Verify(ctx, p.Local(), authorization, scopes)
	switch {
	case errors.Is(err, identity.ErrUnauthenticated):
		return identity.Agent{}, refuse(http.StatusUnauthorized, "unauthenticated", "%s", err)
	case err != nil:
		e.opt.Log.Warn("identity could not be verified now", "participant", p.Ctx, "error", err)
		return identity.Agent{}, refuse(http.StatusServiceUnavailable, "identity-unavailable", "your identity could not be verified now; send the message again")
	}
	return agent, nil
}

// judgement is the outcome of evaluating a policy.
type judgement struct {
	trace  adminapi.Trace
	denial *adminapi.Reason // nil: allowed
}

// evaluation is what judge evaluates.
type evaluation struct {
	participant *store.Participant
	role        state.Role // own
	policy      *odrl.Policy
	phase       profile.Phase
	peer        *identity.Agent
	agreement   *store.Agreement
	// peerOnly leaves the own side out: SelfCheck Off.
	peerOnly bool
	request  map[string]string // of a data access
	purposes []string          // nil: those of the policy
}

// judge evaluates a policy on both parties, the own one with the own credentials as a counterparty would see them. What can't be
// evaluated denies.
func (e *Engine) judge(ctx context.Context, in evaluation) (judgement, error) {
	ev, err := e.Evaluator(in.participant)
	if err != nil {
		return judgement{}, err
	}
	req := odrl.Request{Policy: in.policy, Phase: in.phase, By: in.participant.DID, Now: e.opt.Now(), Request: in.request, Purposes: in.purposes}
	var self *identity.Agent
	if in.peerOnly || (in.role == state.Provider && in.participant.SelfCheck == adminapi.SelfCheckOff) {
		req.Subjects = []profile.Subject{subjectOf(in.role.Other())}
	} else {
		scopes := ev.Scopes(in.policy, subjectOf(in.role))
		if in.phase == profile.PhaseAccess { // only what is read then: the wallet is asked each time
			_, types := ev.Access(in.policy)
			scopes = nil
			for _, t := range types[subjectOf(in.role)] {
				scopes = append(scopes, identity.TypeScope(t))
			}
		}
		agent, err := e.opt.Identity.Self(ctx, in.participant.Local(), scopes)
		if err != nil {
			return judgement{}, fmt.Errorf("own credentials: %w", err)
		}
		self = &agent
	}
	req.Provider, req.Consumer = self, in.peer
	if in.role == state.Consumer {
		req.Provider, req.Consumer = in.peer, self
	}
	if a := in.agreement; a != nil {
		req.Agreement = map[string]any{"id": a.ID, "assetId": a.AssetID, "createdAt": a.SignedAt}
	}
	out := judgement{trace: ev.Evaluate(ctx, req)}
	if !out.trace.Allowed {
		// A catalog leaves out what it cannot show now, and an access without an answer is none: what is under way waits.
		if in.phase != profile.PhaseCatalog && in.phase != profile.PhaseAccess {
			if unknown := e.unavailable(in.participant, out.trace, in.peer, self); unknown != nil {
				return judgement{}, unknown
			}
		}
		out.denial = denied(odrl.Reason(out.trace, ""))
	}
	return out, nil
}

func denied(message string) *adminapi.Reason {
	return &adminapi.Reason{Code: "policy-denied", Message: message, By: "own"}
}

// offered is an offer of ours as it stands now.
type offered struct {
	definition *store.Definition
	asset      *store.Asset
	policy     *odrl.Policy // contract policy
	access     *odrl.Policy // nil: everybody
	id         string
}

// parseDefinition reads the two policies of a contract definition.
func parseDefinition(d *store.Definition) (contract, access *odrl.Policy, err error) {
	if contract, err = odrl.Parse(d.ContractPolicy); err != nil {
		return nil, nil, fmt.Errorf("contract policy of %s: %w", d.ID, err)
	}
	if d.AccessPolicy != nil {
		if access, err = odrl.Parse(d.AccessPolicy); err != nil {
			return nil, nil, fmt.Errorf("access policy of %s: %w", d.ID, err)
		}
	}
	return contract, access, nil
}

// offer finds the current offer of a participant's profile that an offer id names, whatever its policy was then. ErrNotFound when there is none.
func (e *Engine) offer(ctx context.Context, p *store.Participant, id string) (*offered, error) {
	definition, asset, err := wire.SplitOfferID(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	out := &offered{}
	if out.definition, err = e.opt.Store.Definition(ctx, p.Ctx, definition); err != nil {
		return nil, err
	}
	if out.asset, err = e.opt.Store.Asset(ctx, p.Ctx, asset); err != nil {
		return nil, err
	}
	if !out.definition.OfferedIn(p) || !out.definition.Selects(out.asset) {
		return nil, store.ErrNotFound
	}
	if out.policy, out.access, err = parseDefinition(out.definition); err != nil {
		return nil, err
	}
	out.id = wire.OfferID(definition, asset, out.policy)
	return out, nil
}

// CodeNotInForce is the reason of what a use case's signed revision does not cover.
const CodeNotInForce = "not-in-force"

// outdated is why terms of ours are no longer what a revision that is in force was signed off for: the profile has given operands another meaning since. It
// is empty when they are, and for terms that nobody signed, or of an older revision, whose successor was signed under the profile as it is.
func (e *Engine) outdated(ctx context.Context, p *store.Participant, useCase string, under *adminapi.RevisionRef) (string, error) {
	if under == nil {
		return "", nil
	}
	u, err := e.opt.Store.UseCase(ctx, p.Ctx, useCase)
	if errors.Is(err, store.ErrNotFound) || err == nil && (u.Revision.SignOff == "" || *u.Ref() != *under) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	content, err := usecase.Read(u.Revision.Content)
	if err != nil {
		return "", fmt.Errorf("revision %d of use case %s: %w", under.Number, useCase, err)
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return "", err
	}
	changed, err := content.Changed(ev)
	if err != nil || len(changed) == 0 {
		return "", err
	}
	return fmt.Sprintf("dataspace profile %s has given %s another meaning since revision %d of use case %s was signed off: nothing new is agreed until a revision of the profile as it is has been signed off",
		content.Profile, strings.Join(changed, ", "), under.Number, useCase), nil
}

// mayAccess evaluates an access policy on the consumer.
func (e *Engine) mayAccess(ctx context.Context, p *store.Participant, access *odrl.Policy, consumer *identity.Agent) (bool, error) {
	j, err := e.judgeSight(ctx, p, access, consumer)
	if err == nil && j.denial != nil {
		if unknown := e.unavailable(p, j.trace, consumer); unknown != nil {
			return false, unknown
		}
	}
	return err == nil && j.denial == nil, err
}

// judgeSight is mayAccess with the trace.
func (e *Engine) judgeSight(ctx context.Context, p *store.Participant, access *odrl.Policy, consumer *identity.Agent) (judgement, error) {
	if access == nil {
		return judgement{}, nil
	}
	return e.judge(ctx, evaluation{participant: p, role: state.Provider, policy: access, phase: profile.PhaseCatalog, peer: consumer, peerOnly: true})
}

// SelfCheck evaluates the constraints that a contract policy puts on its provider, as the catalog does before it offers; nil when that is switched off.
func (e *Engine) SelfCheck(ctx context.Context, p *store.Participant, contract *odrl.Policy) (*adminapi.Trace, error) {
	if p.SelfCheck == adminapi.SelfCheckOff {
		return nil, nil
	}
	ev, err := e.Evaluator(p)
	if err != nil {
		return nil, err
	}
	self, err := e.opt.Identity.Self(ctx, p.Local(), ev.Scopes(contract, profile.SubjectProvider))
	if err != nil {
		e.opt.Log.WarnContext(ctx, "own credentials could not be read", "participant", p.Ctx, "error", err)
		return nil, refuse(http.StatusServiceUnavailable, "identity-unavailable", "the participant's own credentials could not be verified now, so nothing can be offered: %s", err)
	}
	t := e.selfCheck(ctx, ev, p, contract, &self)
	return &t, nil
}

func (e *Engine) selfCheck(ctx context.Context, ev *odrl.Evaluator, p *store.Participant, contract *odrl.Policy, self *identity.Agent) (t adminapi.Trace) {
	for _, phase := range []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation} {
		t = ev.Evaluate(ctx, odrl.Request{Policy: contract, Phase: phase, By: p.DID, Provider: self,
			Subjects: []profile.Subject{profile.SubjectProvider}, Now: e.opt.Now()})
		if !t.Allowed {
			break
		}
	}
	return t
}

// union joins scopes without repeats.
func union(lists ...[]string) []string {
	out := slices.Concat(lists...)
	slices.Sort(out)
	return slices.Compact(out)
}
