// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	revisions "github.com/kaphera/kaphera/cloudoperator/revision"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

// Revision is what a use case demands, or demanded.
type Revision struct {
	UseCase     string      `json:"useCase"`
	Number      int         `json:"number"`
	Hash        string      `json:"hash" doc:"SHA-256 of content, hex"`
	Content     string      `json:"content" doc:"JSON, to the byte: what is signed"`
	Explanation Explanation `json:"explanation" doc:"The content in plain words"`
	MadeBy      string      `json:"madeBy,omitempty" doc:"Who made the change; empty when it was made past the Cloud API"`
	MadeAt      time.Time   `json:"madeAt"`
	InForce     bool        `json:"inForce" doc:"New offers and negotiations are under it"`
	SignOff     *SignOff    `json:"signOff,omitempty"`
	WaitsFor    string      `json:"waitsFor,omitempty" doc:"Who may sign it off, in words, while it waits for that"`
	WaitsForDE  string      `json:"waitsForDE,omitempty" doc:"The same in German"`
	Yours       bool        `json:"yours,omitempty" doc:"It waits for the caller among others, who needs a registered key"`
	NextSigners []Signer    `json:"nextSigners,omitempty" doc:"Who could sign the next revision with a key registered now: what a sign-off of this one lists"`
}

// Explanation is in two languages, one sentence a line.
type Explanation struct {
	EN []string `json:"en"`
	DE []string `json:"de"`
}

// SignOff says who brought a revision into force, when, and what was read.
type SignOff struct {
	Subject  string    `json:"subject"`
	Name     string    `json:"name"`
	At       time.Time `json:"at"`
	Language string    `json:"language" doc:"Of the explanation that was shown"`
	Read     string    `json:"read" doc:"SHA-256 of the explanation that was shown, its sentences joined by line feeds"`
	Signers  []string  `json:"signers" doc:"Thumbprints of the keys that may sign the next revision"`
	Signed   string    `json:"signed" doc:"The JWS, for whoever verifies it again"`
}

// Signer is a person with the thumbprints of the keys registered.
type Signer struct {
	Subject      string   `json:"subject"`
	Name         string   `json:"name"`
	Organization string   `json:"organization"`
	Keys         []string `json:"keys" doc:"Thumbprints (RFC 7638, SHA-256)"`
}

// SignedOff is a sign-off that is handed in.
type SignedOff struct {
	Signed string `json:"signed" doc:"JWS (typ kaphera-revision+jwt) of who signs which revision, what was read and who may sign the next" maxLength:"8192"`
}

// signOffValid is how long after it was signed a sign-off is taken.
const signOffValid = 10 * time.Minute

// RevisionPath names a revision.
type RevisionPath struct {
	Name   string `path:"name" maxLength:"63"`
	Number int    `path:"number" minimum:"1"`
}

func registerRevisions(api huma.API, s *Service) {
	huma.Register(api, operation(authz.OpListRevisions, http.MethodGet, "/use-cases/{name}/revisions", "List the revisions of a use case, the newest first"),
		func(ctx context.Context, in *getInput) (*output[List[Revision]], error) {
			l, err := s.Revisions(ctx, in.Name)
			return &output[List[Revision]]{l}, err
		})
	huma.Register(api, operation(authz.OpGetRevision, http.MethodGet, "/use-cases/{name}/revisions/{number}", "Read a revision of a use case"),
		func(ctx context.Context, in *RevisionPath) (*output[Revision], error) {
			r, err := s.Revision(ctx, in.Name, in.Number)
			return &output[Revision]{r}, err
		})
	type signInput struct {
		RevisionPath
		Body SignedOff
	}
	huma.Register(api, operation(authz.OpSignOff, http.MethodPost, "/use-cases/{name}/revisions/{number}/sign-off",
		"Hand in a sign-off of the newest revision, by one of whom the revision in force names, who is the caller; it takes effect"),
		func(ctx context.Context, in *signInput) (*output[Revision], error) {
			r, err := s.SignOffRevision(ctx, in.Name, in.Number, in.Body.Signed)
			return &output[Revision]{r}, err
		})
}

// history reads a use case that exists with its revisions, as they are now.
func (s *Service) history(ctx context.Context, useCase string) (*cloudv1.UseCase, revisions.History, error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	var u cloudv1.UseCase
	ok, err := s.exists(ctx, useCase, &u)
	switch {
	case err != nil:
		return nil, revisions.History{}, useCases.problem(useCase, err)
	case !ok:
		return nil, revisions.History{}, notFound("use case", useCase)
	}
	h, err := revisions.Read(ctx, s.Client, s.Namespace, useCase)
	if err != nil {
		err = useCases.problem(useCase, err)
	}
	return &u, h, err
}

// Revisions lists the revisions of a use case, the newest first.
func (s *Service) Revisions(ctx context.Context, useCase string) (List[Revision], error) {
	out := List[Revision]{Items: []Revision{}}
	_, h, err := s.history(ctx, useCase)
	if err != nil {
		return out, err
	}
	people, err := s.people(ctx)
	if err != nil {
		return out, err
	}
	for i := range slices.Backward(h.All) {
		r, err := show(authz.From(ctx).Principal, h, i, people)
		if err != nil {
			return out, err
		}
		out.Items = append(out.Items, r)
	}
	return out, nil
}

// Revision reads one.
func (s *Service) Revision(ctx context.Context, useCase string, number int) (Revision, error) {
	_, h, err := s.history(ctx, useCase)
	if err != nil {
		return Revision{}, err
	}
	people, err := s.people(ctx)
	if err != nil {
		return Revision{}, err
	}
	i := slices.IndexFunc(h.All, func(r cloudv1.UseCaseRevision) bool { return r.Spec.Number == number })
	if i < 0 {
		return Revision{}, notFound("revision of use case "+useCase, fmt.Sprint(number))
	}
	return show(authz.From(ctx).Principal, h, i, people)
}

func show(me authz.Principal, h revisions.History, i int, people []person) (Revision, error) {
	spec := h.All[i].Spec
	out := Revision{UseCase: spec.UseCase, Number: spec.Number, Hash: spec.Hash, Content: spec.Content, MadeBy: spec.MadeBy, MadeAt: spec.MadeAt.UTC(), InForce: i == h.At}
	c, err := usecase.Check(revisions.Wire(&h.All[i]))
	if err == nil {
		if out.Explanation.EN, err = usecase.Explain(c, "en"); err == nil {
			out.Explanation.DE, err = usecase.Explain(c, "de")
		}
	}
	if err != nil {
		return out, tampered(err)
	}
	out.NextSigners = signersAmong(people, c.Signers)
	if spec.SignOff != nil {
		signed, err := usecase.ParseSignOff(spec.SignOff.Signed)
		if err != nil {
			return out, tampered(err)
		}
		out.SignOff = &SignOff{Subject: signed.Claims.Signer, Name: spec.SignOff.By, At: time.Unix(signed.Claims.IssuedAt, 0).UTC(), Language: signed.Claims.Language, Read: signed.Claims.Read,
			Signers: append([]string{}, signed.Claims.Signers...), Signed: spec.SignOff.Signed}
	} else if i == len(h.All)-1 && !out.InForce && h.Err == nil {
		who, err := h.Signers()
		if err != nil {
			return out, internalError(err)
		}
		out.WaitsFor, out.WaitsForDE = usecase.People(who, "en"), usecase.People(who, "de")
		out.Yours = len(among([]person{of(me)}, who)) > 0
	}
	return out, nil
}

func tampered(err error) error {
	return problem(http.StatusConflict, CodeConflict, err.Error(), "sign nothing, and find out who changed it; agreements and offers keep what they have")
}

// among are those of people whom refs mean.
func among(people []person, refs []usecase.Person) (out []person) {
	for _, p := range people {
		if slices.ContainsFunc(refs, func(r usecase.Person) bool { return p.is(cloudv1.ApproverRef(r)) }) {
			out = append(out, p)
		}
	}
	return out
}

func signersAmong(people []person, refs []usecase.Person) (out []Signer) {
	for _, p := range among(people, refs) {
		s := Signer{Subject: p.ID, Name: p.Name, Organization: p.Organization}
		for _, raw := range p.Keys {
			if thumb, _, err := gate.PublicKey(raw); err == nil {
				s.Keys = append(s.Keys, thumb)
			}
		}
		out = append(out, s)
	}
	return out
}

// SignOffRevision takes the caller's sign-off of the newest revision. The participants' connectors verify it once more, by the keys that they know.
func (s *Service) SignOffRevision(ctx context.Context, useCase string, number int, signed string) (Revision, error) {
	_, h, err := s.history(ctx, useCase)
	if err != nil {
		return Revision{}, err
	}
	newest := h.Newest()
	refuse := func(status int, code, next, format string, args ...any) (Revision, error) {
		return Revision{}, problem(status, code, fmt.Sprintf("revision %d of use case %s: ", number, useCase)+fmt.Sprintf(format, args...), next)
	}
	again := fmt.Sprintf("kaphera usecase sign-off %s --revision %d", useCase, number)
	switch {
	case h.Err != nil:
		return Revision{}, tampered(h.Err)
	case newest == nil || newest.Spec.Number < number:
		return Revision{}, notFound("revision of use case "+useCase, fmt.Sprint(number))
	case newest.Spec.Number > number:
		return refuse(http.StatusConflict, CodeConflict, "read the newest one: kaphera usecase revisions "+useCase, "revision %d is the newest by now", newest.Spec.Number)
	case newest.Spec.SignOff != nil || h.InForce() == newest:
		return refuse(http.StatusConflict, CodeConflict, "", "it is in force already")
	}
	who, err := h.Signers()
	if err != nil {
		return Revision{}, internalError(err)
	}
	people, err := s.people(ctx)
	if err != nil {
		return Revision{}, err
	}
	me := authz.From(ctx).Principal
	allowed := among(people, who)
	at := slices.IndexFunc(allowed, func(p person) bool { return p.ID == me.Subject })
	if at < 0 {
		return refuse(http.StatusForbidden, CodeForbidden, "register a key with kaphera approvals key create, if you are one of them", "%s is not one of those with a registered key who may sign it off: %s", me.Name, usecase.People(who, "en"))
	}
	j, err := usecase.ParseSignOff(signed)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, CodeInvalid, again, "the sign-off: %s", err)
	}
	wire := revisions.Wire(newest)
	wire.SignOff = signed
	content, err := usecase.Check(wire)
	if err != nil {
		return refuse(http.StatusConflict, CodeConflict, again, "%s", err)
	}
	if _, ok := j.By([]adminapi.Approver{allowed[at].Approver}); !ok {
		return refuse(http.StatusForbidden, CodeForbidden, "sign with the key that is registered as yours: kaphera approvals key create", "the signature is not of a key of %s", me.Name)
	}
	read, err := usecase.Explain(content, j.Claims.Language)
	now, issued := s.Now(), time.Unix(j.Claims.IssuedAt, 0)
	switch {
	case err != nil:
		return Revision{}, internalError(err)
	case j.Claims.Read != usecase.ReadHash(read):
		return refuse(http.StatusConflict, CodeConflict, again, "what was read is not its explanation (language %q)", j.Claims.Language)
	case issued.Before(now.Add(-signOffValid)) || issued.After(now.Add(time.Minute)):
		return refuse(http.StatusConflict, CodeConflict, again, "it was signed at %s, and it is %s now", issued.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	newest.Spec.SignOff = &cloudv1.RevisionSignOff{Signed: signed, By: me.Name, At: metav1.NewTime(issued.UTC()), Signers: keysOf(allowed[at], among(people, content.Signers))}
	if err := s.mayFollow(h, newest); err != nil {
		return refuse(http.StatusConflict, CodeConflict, again, "%s", err)
	}
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	if err := s.Client.Update(ctx, newest); apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return refuse(http.StatusConflict, CodeConflict, "kaphera usecase revisions "+useCase, "somebody else has signed it off meanwhile")
	} else if err != nil {
		return Revision{}, useCases.problem(useCase, err)
	}
	s.Log.Info("revision signed off", "useCase", useCase, "revision", number, "by", me.Subject, "hash", newest.Spec.Hash)
	select {
	case s.signed <- struct{}{}:
	default: // it is going to look anyway
	}
	return s.Revision(ctx, useCase, number)
}

// mayFollow asks what every connector will: whether the sign-off brings the revision into force after the one that is.
func (s *Service) mayFollow(h revisions.History, next *cloudv1.UseCaseRevision) error {
	var inForce *adminapi.UseCaseRevision
	if in := h.InForce(); in != nil {
		wire := revisions.Wire(in)
		accepted, _, err := usecase.Accept(nil, wire) // of its keys, those that its sign-off lists
		if err != nil {
			accepted = wire
		}
		inForce = &accepted
	}
	_, _, err := usecase.Accept(inForce, revisions.Wire(next))
	return err
}

// keysOf is the signer and those who may sign the next revision, each once.
func keysOf(signer person, next []person) (out []cloudv1.RevisionSigner) {
	if !slices.ContainsFunc(next, func(p person) bool { return p.ID == signer.ID }) {
		next = append([]person{signer}, next...)
	}
	for _, p := range next {
		one := cloudv1.RevisionSigner{ID: p.ID, Name: p.Name, Organization: p.Organization}
		for _, k := range p.Keys {
			one.Keys = append(one.Keys, string(k))
		}
		out = append(out, one)
	}
	return out
}

// settling is how long is waited until a change of a use case has become a revision.
const settling = 10 * time.Second

// underRevision is the revision in force of a use case, with its gates' people as they are now.
func (s *Service) underRevision(ctx context.Context, useCase string) (adminapi.UseCaseRevision, usecase.Content, error) {
	waiting, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	u, h, err := s.history(ctx, useCase)
	for err == nil && u.Status.ObservedGeneration != u.Generation && waiting.Err() == nil {
		select {
		case <-waiting.Done():
		case <-time.After(s.PollInterval):
		}
		u, h, err = s.history(ctx, useCase)
	}
	if err != nil {
		return adminapi.UseCaseRevision{}, usecase.Content{}, err
	}
	in := h.InForce()
	if in == nil {
		return adminapi.UseCaseRevision{}, usecase.Content{}, notInForce(u, h)
	}
	people, err := s.people(ctx)
	if err != nil {
		return adminapi.UseCaseRevision{}, usecase.Content{}, err
	}
	return deliverable(in, people)
}

func notInForce(u *cloudv1.UseCase, h revisions.History) error {
	if h.Err != nil {
		return tampered(h.Err)
	}
	p := problem(http.StatusConflict, CodeNotReady, fmt.Sprintf("use case %q has no revision in force, so nothing can be offered under it", u.Name), "look at its conditions: kaphera describe use-case "+u.Name)
	if newest := h.Newest(); newest != nil {
		if who, err := h.Signers(); err == nil {
			p.Detail += fmt.Sprintf(": revision %d waits for the sign-off of %s", newest.Spec.Number, usecase.People(who, "en"))
			p.Next = fmt.Sprintf("have it signed off: kaphera usecase sign-off %s --revision %d", u.Name, newest.Spec.Number)
		}
	}
	return p
}

// deliverable is a revision as connectors take it.
func deliverable(r *cloudv1.UseCaseRevision, people []person) (adminapi.UseCaseRevision, usecase.Content, error) {
	wire := revisions.Wire(r)
	content, err := usecase.Check(wire)
	if err != nil {
		return wire, content, tampered(err)
	}
	var gates []cloudv1.UseCaseGate
	raw, err := json.Marshal(content.Gates) // the same members
	if err == nil {
		err = json.Unmarshal(raw, &gates)
	}
	if err != nil {
		return wire, content, internalError(err)
	}
	wire.Gates, err = resolveGates(r.Spec.UseCase, gates, people)
	return wire, content, err
}

// errUnknownHere says that a participant needs no revision: it has offered nothing under the use case.
var errUnknownHere = errors.New("the participant does not know the use case")

// deliver brings a revision into force at a participant. One that nobody had to sign off goes to those only who know the use case: it comes to others with
// their first offer.
func (s *Service) deliver(ctx context.Context, p *cloudv1.Participant, r adminapi.UseCaseRevision) error {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	actor := ""
	if signed, err := usecase.ParseSignOff(r.SignOff); err == nil {
		actor = "user:" + signed.Claims.Signer
	} else {
		resp, err := s.reachAs(ctx, p, actor, http.MethodGet, "/use-cases", nil)
		if err != nil {
			return err
		}
		var known []adminapi.UseCaseRevision
		if err := json.Unmarshal(resp.Body, &known); err != nil {
			return internalError(err)
		}
		if !slices.ContainsFunc(known, func(k adminapi.UseCaseRevision) bool { return k.UseCase == r.UseCase }) {
			return errUnknownHere
		}
	}
	_, err := s.reachAs(ctx, p, actor, http.MethodPut, "/use-cases/"+r.UseCase, r)
	return err
}

const deliveryTimeout = 15 * time.Second

// followEvery is how often it is looked for participants that have not got the revision in force.
const followEvery = 15 * time.Second

// FollowRevisions brings the revision in force of each use case to the participants of its profile, those too that were not reachable when it was signed
// off, until ctx ends.
func (s *Service) FollowRevisions(ctx context.Context) {
	f := follower{Service: s, done: map[[2]string]string{}, said: map[[2]string]string{}}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := f.round(ctx); err != nil && ctx.Err() == nil {
			s.Log.Info("revisions could not be delivered", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.signed:
		}
	}
}

// follower remembers by participant and use case what was delivered (a hash), and what was said about why not.
type follower struct {
	*Service
	done, said map[[2]string]string
}

func (f *follower) round(ctx context.Context) error {
	var all cloudv1.UseCaseList
	var kept cloudv1.UseCaseRevisionList
	var participants cloudv1.ParticipantList
	in := ctrl.InNamespace(f.Namespace)
	// From the API server: a revision that was just signed off is not in the cache yet.
	if err := errors.Join(f.Cached.List(ctx, &all, in), f.Client.List(ctx, &kept, in), f.Cached.List(ctx, &participants, in)); err != nil {
		return err
	}
	people, err := f.people(ctx)
	if err != nil {
		return err
	}
	silent := map[string]bool{} // cells that do not answer: nobody else waits for them in this round
	for i := range all.Items {
		u := &all.Items[i]
		r := revisions.Of(kept.Items, u.Name).InForce()
		if r == nil || !u.DeletionTimestamp.IsZero() {
			continue
		}
		wire, content, err := deliverable(r, people)
		for k := range participants.Items {
			p, key := &participants.Items[k], [2]string{participants.Items[k].Name, u.Name}
			if p.Status.DID == "" || !p.DeletionTimestamp.IsZero() || silent[p.RunsIn()] || !slices.Contains(p.Spec.Profiles(), content.Profile) || f.done[key] == string(p.UID)+wire.Hash {
				continue
			}
			failed := err
			if failed == nil {
				failed = f.deliver(ctx, p, wire)
			}
			var refused *Problem
			silent[p.RunsIn()] = errors.As(failed, &refused) && refused.Code == CodeNotConnected
			switch {
			case failed == nil:
				f.done[key] = string(p.UID) + wire.Hash
				f.Log.Info("revision in force", "participant", p.Name, "useCase", u.Name, "revision", wire.Number)
			case !errors.Is(failed, errUnknownHere) && f.said[key] != failed.Error():
				f.said[key] = failed.Error()
				f.Log.Info("revision not delivered yet", "participant", p.Name, "useCase", u.Name, "revision", wire.Number, "error", failed)
			}
		}
	}
	return nil
}
