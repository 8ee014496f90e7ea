// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
)

// KeyRegistration is the public half of a key with which the caller signs decisions.
type KeyRegistration struct {
	PublicKey json.RawMessage `json:"publicKey" doc:"JWK, P-256 or Ed25519; the private half stays with the person"`
}

// Approval is what waits for the caller's decision.
type Approval struct {
	adminapi.Approval
	Participant string `json:"participant" doc:"The provider, whose connector takes the decision"`
}

// Approvals are those that wait for the caller; providers whose cell does not answer are named, since something may wait there.
type Approvals struct {
	Items       []Approval `json:"items"`
	Unreachable []string   `json:"unreachable,omitempty" doc:"Participants whose cell does not answer now"`
}

func registerApprovals(api huma.API, s *Service) {
	registerReads(api, s, approvalKeys)
	register := operation(authz.OpRegisterKey, http.MethodPost, "/approval-keys", "Register the public half of one's own key for decisions; offers made from now on know it")
	register.DefaultStatus = http.StatusCreated
	huma.Register(api, register, func(ctx context.Context, in *struct{ Body KeyRegistration }) (*output[ApprovalKey], error) {
		k, err := s.RegisterKey(ctx, in.Body.PublicKey)
		return &output[ApprovalKey]{k}, err
	})
	huma.Register(api, operation(authz.OpDeleteApprovalKey, http.MethodDelete, "/approval-keys/{name}", "Remove an approval key; offers that know it keep it until they are made again"),
		func(ctx context.Context, in *getInput) (*none, error) {
			return nil, approvalKeys.remove(ctx, s, in.Name, WriteOptions{})
		})
	huma.Register(api, operation(authz.OpListApprovals, http.MethodGet, "/approvals", "List what waits for the caller's decision, in every cell"),
		func(ctx context.Context, _ *noInput) (*output[Approvals], error) {
			a, err := s.Approvals(ctx)
			return &output[Approvals]{a}, err
		})
	huma.Register(api, operation(authz.OpDecide, http.MethodPost, ofP+"/negotiations/{id}/decisions",
		"Hand in a signed decision, which goes to the provider's connector as it is; that verifies it"),
		func(ctx context.Context, in *withIDAndBody[adminapi.SignedDecision]) (*none, error) {
			return nil, s.Decide(ctx, in.Participant, in.ID, in.Body)
		})
}

// RegisterKey registers a key as the caller's. The same key again is no error; another person's is.
func (s *Service) RegisterKey(ctx context.Context, raw json.RawMessage) (ApprovalKey, error) {
	who := authz.From(ctx).Principal
	thumbprint, _, err := gate.PublicKey(raw)
	if err != nil {
		return ApprovalKey{}, problem(http.StatusUnprocessableEntity, CodeInvalid, "publicKey: "+err.Error(), "make one with kaphera approvals key create")
	}
	if who.Client != "" || who.Username == "" {
		return ApprovalKey{}, problem(http.StatusForbidden, CodeForbidden, "the access token names no user, whose key it could be", "log in as the person who decides")
	}
	if raw, err = gate.Canonical(raw); err != nil {
		return ApprovalKey{}, internalError(err)
	}
	spec := specOf(who)
	spec.Thumbprint, spec.PublicKey = thumbprint, apiextensionsv1.JSON{Raw: raw}
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	k := &cloudv1.ApprovalKey{Spec: spec}
	k.Namespace, k.Name = s.Namespace, keyName(thumbprint)
	if err := s.roomForKey(ctx, k); err != nil {
		return ApprovalKey{}, err
	}
	err = s.Client.Create(ctx, k)
	if apierrors.IsAlreadyExists(err) {
		if err = s.Client.Get(ctx, ctrl.ObjectKeyFromObject(k), k); err == nil && k.Spec.Subject != who.Subject {
			return ApprovalKey{}, problem(http.StatusConflict, CodeExists, "the key is registered as somebody else's", "make another one")
		}
	}
	return approvalKeys.show(k), approvalKeys.problem(k.Name, err)
}

// specOf is who the caller is, without a key.
func specOf(who authz.Principal) cloudv1.ApprovalKeySpec {
	spec := cloudv1.ApprovalKeySpec{Subject: who.Subject, Person: who.Username, Name: who.Name, Organization: who.Organization}
	for _, r := range authz.Roles {
		if who.Has(r) {
			spec.Roles = append(spec.Roles, string(r))
		}
	}
	return spec
}

// roomForKey refuses one key more than a person may have.
func (s *Service) roomForKey(ctx context.Context, k *cloudv1.ApprovalKey) error {
	var list cloudv1.ApprovalKeyList
	if err := s.Client.List(ctx, &list, ctrl.InNamespace(s.Namespace)); err != nil {
		return approvalKeys.problem("", err)
	}
	theirs := slices.DeleteFunc(list.Items, func(o cloudv1.ApprovalKey) bool { return o.Spec.Subject != k.Spec.Subject })
	if len(theirs) < gate.MaxKeys || slices.ContainsFunc(theirs, func(o cloudv1.ApprovalKey) bool { return o.Name == k.Name }) {
		return nil
	}
	slices.SortFunc(theirs, oldest)
	return problem(http.StatusConflict, CodeConflict, fmt.Sprintf("%s has %d keys, and may have %d", k.Spec.Person, len(theirs), gate.MaxKeys),
		"remove the oldest first: kaphera approvals key delete "+theirs[0].Name)
}

func oldest(a, b cloudv1.ApprovalKey) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}

// keyName makes a thumbprint (base64url) an object's name: in hexadecimal, since names have no upper case.
func keyName(thumbprint string) string { return fmt.Sprintf("key-%x", thumbprint)[:63] }

// resolveGates resolves the gates of a use case to people and the keys that they have registered now.
func resolveGates(useCase string, gates []cloudv1.UseCaseGate, people []person) ([]adminapi.Gate, error) {
	f := &findings{}
	var out []adminapi.Gate
	for i, g := range gates {
		location := fmt.Sprintf("spec.gates[%d]", i)
		one := adminapi.Gate{Name: g.Name, Type: adminapi.GateType(strings.ToLower(g.Type)), Before: g.Before, Deadline: g.Deadline, Required: g.Required, Organizations: g.Organizations,
			Approvers: f.resolve(people, location+".approvers", g.Approvers), TriggeredBy: f.resolve(people, location+".triggeredBy", g.TriggeredBy)}
		if g.Policy != nil {
			one.Policy = g.Policy.Raw
		}
		if w := g.Webhook; w != nil {
			one.URL, one.Required = w.URL, 1
			one.Approvers = []adminapi.Approver{{ID: w.System, Name: w.System, Organization: w.Organization, Keys: []json.RawMessage{w.PublicKey.Raw}}}
		}
		out = append(out, one)
	}
	if len(f.errors) == 0 {
		f.policy("spec.gates", gate.Check(out))
	}
	if _, err := f.result("use case", useCase); err != nil {
		return nil, err
	}
	return out, nil
}

// resolve names the people that refs mean.
func (f *findings) resolve(people []person, location string, refs []cloudv1.ApproverRef) []adminapi.Approver {
	var out []adminapi.Approver
	for i, ref := range refs {
		found := false
		for _, p := range people {
			if !p.is(ref) {
				continue
			}
			found = true
			if !slices.ContainsFunc(out, func(a adminapi.Approver) bool { return a.ID == p.ID }) {
				a := p.Approver
				a.Role = cmp.Or(ref.Role, a.Role)
				out = append(out, a)
			}
		}
		if !found {
			f.wrong(fmt.Sprintf("%s[%d]", location, i), "%s has registered no key: whoever it is runs kaphera approvals key create, or opens the console's page Approvals", describeRef(ref))
		}
	}
	return out
}

func describeRef(r cloudv1.ApproverRef) string {
	switch {
	case r.Person != "":
		return fmt.Sprintf("person %q", r.Person)
	case r.Organization != "":
		return fmt.Sprintf("nobody with the role %s in organization %q", r.Role, r.Organization)
	}
	return "nobody with the role " + r.Role
}

// person is somebody who has registered a key.
type person struct {
	adminapi.Approver
	username string
	roles    []string
}

// of is the caller, without keys.
func of(who authz.Principal) person {
	spec := specOf(who)
	return person{Approver: adminapi.Approver{ID: spec.Subject, Name: spec.Name, Organization: spec.Organization}, username: spec.Person, roles: spec.Roles}
}

func (p person) is(r cloudv1.ApproverRef) bool {
	if r.Person != "" {
		return p.username == r.Person
	}
	return slices.Contains(p.roles, r.Role) && (r.Organization == "" || r.Organization == p.Organization)
}

func personOf(spec cloudv1.ApprovalKeySpec) person {
	p := person{Approver: adminapi.Approver{ID: spec.Subject, Name: spec.Name, Organization: spec.Organization}, username: spec.Person, roles: spec.Roles}
	if p.Organization == "" && len(p.roles) > 0 { // people of the platform and of the authority belong to no company
		p.Organization = p.roles[0]
	}
	return p
}

// people are all who have registered a key, by name; who a person is, is what the newest key says.
func (s *Service) people(ctx context.Context) ([]person, error) {
	var list cloudv1.ApprovalKeyList
	if err := s.Client.List(ctx, &list, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, approvalKeys.problem("", err)
	}
	slices.SortFunc(list.Items, func(a, b cloudv1.ApprovalKey) int { return oldest(b, a) })
	var out []person
	for _, k := range list.Items {
		if len(k.Spec.Roles) == 0 { // the Cloud operator found the person gone, or with nothing to do here
			continue
		}
		i := slices.IndexFunc(out, func(p person) bool { return p.ID == k.Spec.Subject })
		if i < 0 {
			i = len(out)
			out = append(out, personOf(k.Spec))
		}
		if len(out[i].Keys) < gate.MaxKeys { // two registered at the same moment pass each other's check
			out[i].Keys = append(out[i].Keys, json.RawMessage(k.Spec.PublicKey.Raw))
		}
	}
	slices.SortFunc(out, func(a, b person) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
	return out, nil
}

// maxAsked bounds how many connectors are asked at once.
const maxAsked = 8

// Approvals asks all connectors what waits for the caller: gates may hold negotiations of a use case that has none any more.
func (s *Service) Approvals(ctx context.Context) (Approvals, error) {
	out := Approvals{Items: []Approval{}}
	var all cloudv1.ParticipantList
	if err := s.Cached.List(ctx, &all, ctrl.InNamespace(s.Namespace)); err != nil {
		return out, participants.problem("", err)
	}
	me := authz.From(ctx).Principal.Subject
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i := range all.Items {
		p := &all.Items[i]
		if p.Status.DID == "" {
			continue
		}
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			found, err := s.waiting(ctx, p, me)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.Log.Info("approvals could not be asked for", "participant", p.Name, "error", err)
				out.Unreachable = append(out.Unreachable, p.Name)
			}
			for _, a := range found {
				out.Items = append(out.Items, Approval{a, p.Name})
			}
		})
	}
	asking.Wait()
	slices.Sort(out.Unreachable)
	slices.SortFunc(out.Items, soonest)
	return out, ctx.Err()
}

// soonest orders what waits by its deadline.
func soonest(a, b Approval) int {
	return cmp.Or(a.Gate.Deadline.Compare(*b.Gate.Deadline), strings.Compare(a.Negotiation, b.Negotiation), strings.Compare(a.Gate.Name, b.Gate.Name))
}

// waiting asks one connector what waits for a person (subject).
func (s *Service) waiting(ctx context.Context, p *cloudv1.Participant, person string) ([]adminapi.Approval, error) {
	resp, err := s.reach(ctx, p, http.MethodGet, "/approvals", nil)
	if err != nil {
		return nil, err
	}
	return waitingFor(person, resp.Body)
}

// waitingFor reads what a connector answered. A cell is not trusted: what has no deadline is no open gate, and would be in everybody's way.
func waitingFor(person string, answer []byte) (out []adminapi.Approval, err error) {
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(a adminapi.Approval) bool {
		return a.Gate.Deadline == nil || !slices.ContainsFunc(a.Gate.WaitsFor, func(w adminapi.Approver) bool { return w.ID == person })
	}), nil
}

// stillMay refuses a decision of somebody who has no longer what an open gate's offer was made with: the role, or the organization. Offers pin people as they
// were then. Whether the decision is theirs, and counts, is the connector's to say.
func (s *Service) stillMay(ctx context.Context, p *cloudv1.Participant, signed string) error {
	var c adminapi.DecisionClaims
	j, err := gate.ParseJWS(gate.Type, signed)
	if err != nil || json.Unmarshal(j.Payload, &c) != nil {
		return nil //nolint:nilerr // the connector says what is wrong with it
	}
	resp, err := s.reach(ctx, p, http.MethodGet, "/approvals", nil)
	if err != nil {
		return err
	}
	var open []adminapi.Approval
	if err := json.Unmarshal(resp.Body, &open); err != nil {
		return internalError(err)
	}
	i := slices.IndexFunc(open, func(a adminapi.Approval) bool { return a.Negotiation == c.Negotiation && a.Gate.Name == c.Gate })
	if i < 0 || open[i].Gate.Type == adminapi.GateWebhook { // what decides there is no person
		return nil
	}
	known := open[i].Gate.WaitsFor
	for _, d := range open[i].Gate.Decided {
		known = append(known, d.By)
	}
	pinned := slices.IndexFunc(known, func(a adminapi.Approver) bool { return a.ID == c.Approver })
	if pinned < 0 {
		return nil
	}
	then := known[pinned]
	now, err := s.standing(ctx, c.Approver)
	switch {
	case err != nil:
		return err
	case then.Role != "" && !slices.Contains(now.roles, then.Role):
		return problem(http.StatusForbidden, CodeForbidden, fmt.Sprintf("%s may decide at gate %q with the role %s, and does not have it now", then.Name, c.Gate, then.Role),
			"let somebody decide who has it")
	case then.Organization != now.Organization:
		return problem(http.StatusForbidden, CodeForbidden, fmt.Sprintf("%s may decide at gate %q as somebody of %s, and is not now", then.Name, c.Gate, then.Organization),
			"let somebody of "+then.Organization+" decide")
	}
	return nil
}

// standing is who a person is now: the caller, by the access token, or somebody else, by the registered keys.
func (s *Service) standing(ctx context.Context, subject string) (person, error) {
	if who := authz.From(ctx).Principal; who.Subject == subject {
		return personOf(specOf(who)), nil
	}
	people, err := s.people(ctx)
	i := slices.IndexFunc(people, func(p person) bool { return p.ID == subject })
	if err != nil || i < 0 {
		return person{}, err
	}
	return people[i], nil
}

// Decide passes a signed decision on. Whoever it is of, only the connector can tell, by the keys that the gate knows. Who may not read the participant's
// negotiations learns what is said of the decision, and nothing else: not whether there is such a participant.
func (s *Service) Decide(ctx context.Context, participant, id string, d adminapi.SignedDecision) error {
	var p cloudv1.Participant
	ok, err := s.exists(ctx, participant, &p)
	switch {
	case err != nil:
		return participants.problem(participant, err)
	case !ok:
		err = notFound("participant", participant)
	default:
		if err = s.stillMay(ctx, &p, d.Decision); err == nil {
			_, err = s.reach(ctx, &p, http.MethodPost, "/negotiations/"+url.PathEscape(id)+"/decisions", d)
		}
	}
	var said *Problem
	ofDecision := errors.As(err, &said) && (said.Code == CodeForbidden || slices.Contains(gate.Codes, said.Code))
	reader, denied := authz.Authorize(ctx, authz.From(ctx).Principal, authz.OpGetNegotiation)
	if err == nil || ofDecision || denied == nil && authz.From(reader).Covers(p.Spec.Organization) {
		return err
	}
	out := problem(http.StatusNotFound, CodeNotFound, fmt.Sprintf("no decision of yours is waited for at negotiation %q of participant %q, or its connector does not answer now", id, participant),
		"see what waits for you: kaphera approvals list")
	out.cause = err
	return out
}
