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
	"time"

	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/usecase"
)

// participant reads a participant that the caller may see.
func (s *Service) participant(ctx context.Context, name string) (*cloudv1.Participant, error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	o, err := participants.live(ctx, s, name)
	if err != nil {
		return nil, err
	}
	return o.(*cloudv1.Participant), nil //nolint:forcetypeassert // as the kind makes them
}

// call reaches a participant's view of its connector. Every answer that is no success is a *Problem.
func (s *Service) call(ctx context.Context, participant, method, path string, body any) (cellrpc.Response, error) {
	p, err := s.participant(ctx, participant)
	if err != nil {
		return cellrpc.Response{}, err
	}
	return s.reach(ctx, p, method, path, body)
}

// reach is call for a participant that the caller has been found to may reach.
func (s *Service) reach(ctx context.Context, p *cloudv1.Participant, method, path string, body any) (cellrpc.Response, error) {
	return s.reachAs(ctx, p, "", method, path, body)
}

// reachAs is reach in somebody's name; empty is the caller.
func (s *Service) reachAs(ctx context.Context, p *cloudv1.Participant, actor, method, path string, body any) (cellrpc.Response, error) {
	if err := s.holdsContext(ctx, p); err != nil {
		return cellrpc.Response{}, err
	}
	return s.send(ctx, connectorOf(p), cellrpc.Request{Participant: p.Spec.Identity.Context, Method: method, Path: path, Actor: actor}, body)
}

// callee is a connector or an issuer in a cell.
type callee struct {
	cell, words string // words for people, such as: connector of participant "supplier"
	look        string // command that shows how it is
}

func connectorOf(p *cloudv1.Participant) callee {
	return callee{p.RunsIn(), fmt.Sprintf("connector of participant %q", p.Name), "kaphera describe participant " + p.Name}
}

// send calls a cell in the caller's name. Every answer that is no success is a *Problem.
func (s *Service) send(ctx context.Context, to callee, r cellrpc.Request, body any) (cellrpc.Response, error) {
	var err error
	if actor := authz.From(ctx).Principal.Actor(); actor != "" {
		r.Actor = actor
	}
	if body != nil {
		if r.Body, err = json.Marshal(body); err != nil {
			return cellrpc.Response{}, internalError(err)
		}
	}
	resp, err := s.Cells.Call(ctx, to.cell, r)
	switch {
	case errors.Is(err, cellrpc.ErrNotConnected), errors.Is(err, context.DeadlineExceeded):
		out := s.notConnected(ctx, to, err)
		if r.Method != http.MethodGet {
			out.Detail += "; what was asked has expired: unless the cell had it before, it is not executed"
		}
		return resp, out
	case err != nil:
		return resp, internalError(fmt.Errorf("calling the %s in cell %s: %w", to.words, to.cell, err))
	case resp.Status < 200 || resp.Status > 299:
		return resp, connectorProblem(to, resp)
	}
	return resp, nil
}

// holdsContext refuses a participant that its cell does not run: one of an organization that the cell is not for, and one whose context is
// another's. Two written at the same moment pass each other's check; the cell runs one of them (snapshot.Taken), and only that one may
// reach it.
func (s *Service) holdsContext(ctx context.Context, p *cloudv1.Participant) error {
	var cell cloudv1.Cell
	if err := s.Cached.Get(ctx, ctrl.ObjectKey{Namespace: s.Namespace, Name: p.RunsIn()}, &cell); ctrl.IgnoreNotFound(err) != nil {
		return cells.problem(p.RunsIn(), err)
	}
	if !cell.Spec.Hosts(p.Spec.Organization) {
		why := fmt.Sprintf("there is no cell %q", p.RunsIn())
		if authz.From(ctx).Covers(cell.Spec.Organization) {
			why = fmt.Sprintf("cell %q is for participants of organization %q alone", cell.Name, cell.Spec.Organization)
		}
		return problem(http.StatusConflict, CodeConflict, fmt.Sprintf("participant %q has no connector: %s", p.Name, why), "place the participant in another cell")
	}
	var all cloudv1.ParticipantList
	if err := s.Cached.List(ctx, &all, ctrl.InNamespace(s.Namespace)); err != nil {
		return participants.problem("", err)
	}
	if snapshot.Taken(p, all.Items, &cell.Spec) != nil {
		return problem(http.StatusConflict, CodeConflict, fmt.Sprintf("participant %q has no connector: its context %q was taken before it was made", p.Name, p.Spec.Identity.Context),
			"remove the participant and make it again with another identity.context")
	}
	return nil
}

// ask calls and decodes the answer into T.
func ask[T any](ctx context.Context, s *Service, participant, method, path string, body any) (out T, err error) {
	resp, err := s.call(ctx, participant, method, path, body)
	if err != nil || resp.Status == http.StatusNoContent {
		return out, err
	}
	if err := json.Unmarshal(resp.Body, &out); err != nil {
		return out, internalError(fmt.Errorf("answer of the connector of %s to %s %s: %w", participant, method, path, err))
	}
	return out, nil
}

func (s *Service) notConnected(ctx context.Context, to callee, cause error) *Problem {
	since := "it has never connected"
	var cell cloudv1.Cell
	if err := s.Cached.Get(context.WithoutCancel(ctx), ctrl.ObjectKey{Namespace: s.Namespace, Name: to.cell}, &cell); err == nil && cell.Status.LastHeard != nil {
		since = "it was last heard " + cell.Status.LastHeard.UTC().Format(time.RFC3339)
	}
	out := problem(http.StatusServiceUnavailable, CodeNotConnected, fmt.Sprintf("cell %q, where the %s runs, does not answer; %s", to.cell, to.words, since),
		"its connectors go on working; look at the cell's agent and its way out to the platform, then try again: kaphera describe cell "+to.cell)
	out.cause = cause
	return out
}

// connectorProblem passes on what a connector or an issuer says, with its trace.
func connectorProblem(from callee, resp cellrpc.Response) *Problem {
	var e adminapi.Error
	if json.Unmarshal(resp.Body, &e) != nil || e.Message == "" {
		e.Code, e.Message = CodeConnector, fmt.Sprintf("the connector answered %d", resp.Status)
	}
	e.Code = cmp.Or(e.Code, CodeConnector)
	detail := from.words + ": " + e.Message
	status := resp.Status
	var next string
	switch {
	case status < http.StatusBadRequest || status > 599: // no connector answers so
		status, e.Code, next = http.StatusBadGateway, CodeConnector, "look at the cell's agent and the connector's log: "+from.look
	case status == http.StatusUnauthorized: // the agent's credentials towards the connector, not the caller's
		status, e.Code, next = http.StatusBadGateway, CodeConnector, "the cell's agent and its connector disagree about their token: look at the agent's log"
	case status >= http.StatusInternalServerError && e.Code == CodeConnector:
		status, next = http.StatusBadGateway, "try again; when it stays, look at the connector's log: "+from.look
	case e.Code == CodePolicyDenied:
		next = "read the trace: it names the constraint, the value seen and the remedy"
	}
	out := problem(status, e.Code, detail, next)
	out.Trace = e.Trace
	if e.Path != "" {
		out.Errors = []FieldError{{e.Path, e.Message}}
	}
	return out
}

// resolve turns the name of a participant into its DID; a DID stays as it is.
func (s *Service) resolve(ctx context.Context, counterparty string) (string, error) {
	if strings.HasPrefix(counterparty, "did:") {
		return counterparty, nil
	}
	// Whoever may ask may know the DIDs of the others: they are public documents, and partners are found by name.
	var p cloudv1.Participant
	ok, err := s.exists(ctx, counterparty, &p)
	switch {
	case err != nil:
		return "", participants.problem(counterparty, err)
	case !ok:
		return "", problem(http.StatusUnprocessableEntity, CodeInvalid, fmt.Sprintf("counterparty %q is neither a DID nor a participant here", counterparty), "give the counterparty's DID")
	case p.Status.DID == "":
		return "", problem(http.StatusConflict, CodeNotReady, fmt.Sprintf("participant %q has no DID yet", counterparty), "wait until it is set up: kaphera status")
	}
	return p.Status.DID, nil
}

// Assets lists a participant's assets.
func (s *Service) Assets(ctx context.Context, participant string) (List[adminapi.Asset], error) {
	return list[adminapi.Asset](ctx, s, participant, "/assets")
}

// Offers lists what a participant offers.
func (s *Service) Offers(ctx context.Context, participant string) (List[adminapi.Offer], error) {
	return list[adminapi.Offer](ctx, s, participant, "/offers")
}

func list[T any](ctx context.Context, s *Service, participant, path string) (List[T], error) {
	items, err := ask[[]T](ctx, s, participant, http.MethodGet, path, nil)
	if items == nil {
		items = []T{}
	}
	return List[T]{Items: items}, err
}

// CreateOffer offers an asset under a use case's policies.
func (s *Service) CreateOffer(ctx context.Context, participant string, o OfferCreate) (adminapi.Offer, error) {
	p, err := s.participant(ctx, participant)
	if err != nil {
		return adminapi.Offer{}, err
	}
	var u cloudv1.UseCase
	ok, err := s.exists(ctx, o.UseCase, &u)
	switch {
	case err != nil:
		return adminapi.Offer{}, useCases.problem(o.UseCase, err)
	case !ok:
		return adminapi.Offer{}, notFound("use case", o.UseCase)
	case !slices.Contains(p.Spec.Profiles(), u.Spec.Profile):
		return adminapi.Offer{}, problem(http.StatusUnprocessableEntity, CodeInvalid, fmt.Sprintf("use case %q belongs to profile %q, participant %q to profile %q",
			u.Name, u.Spec.Profile, p.Name, strings.Join(p.Spec.Profiles(), ", ")), "choose a use case of the participant's profile")
	}
	r, content, err := s.underRevision(ctx, u.Name)
	if err != nil {
		return adminapi.Offer{}, err
	}
	if _, err := s.reach(ctx, p, http.MethodPut, "/use-cases/"+u.Name, r); err != nil {
		return adminapi.Offer{}, err
	}
	offer := adminapi.Offer{ID: nonEmpty(o.ID, o.Asset+"--"+u.Name), Assets: []string{o.Asset}, UseCase: u.Name, AccessPolicy: content.AccessPolicy, ContractPolicy: content.ContractPolicy, Gates: r.Gates}
	if content.Profile != p.Spec.Profile {
		offer.Profiles = []string{content.Profile}
	}
	return ask[adminapi.Offer](ctx, s, participant, http.MethodPut, "/offers/"+url.PathEscape(offer.ID), offer)
}

// SendOffer makes an offer to one consumer, or answers the negotiation with the same id.
func (s *Service) SendOffer(ctx context.Context, participant, offer string, o OfferSend) (adminapi.Negotiation, error) {
	did, err := s.resolve(ctx, o.Counterparty)
	if err != nil {
		return adminapi.Negotiation{}, err
	}
	return ask[adminapi.Negotiation](ctx, s, participant, http.MethodPost, "/offers/"+url.PathEscape(offer)+"/negotiations",
		adminapi.OfferRequest{ID: o.ID, Counterparty: did, Asset: o.Asset, Policy: o.Policy, Profile: o.Profile})
}

// AcceptNegotiation accepts the counterparty's terms.
func (s *Service) AcceptNegotiation(ctx context.Context, participant, id string, a adminapi.Acceptance) (adminapi.Negotiation, error) {
	return ask[adminapi.Negotiation](ctx, s, participant, http.MethodPost, "/negotiations/"+url.PathEscape(id)+"/accept", a)
}

// CounterNegotiation answers the counterparty's terms with others.
func (s *Service) CounterNegotiation(ctx context.Context, participant, id string, o adminapi.CounterOffer) (adminapi.Negotiation, error) {
	return ask[adminapi.Negotiation](ctx, s, participant, http.MethodPost, "/negotiations/"+url.PathEscape(id)+"/counter", o)
}

// TerminateNegotiation ends one.
func (s *Service) TerminateNegotiation(ctx context.Context, participant, id string, reason TerminationReason) error {
	_, err := s.call(ctx, participant, http.MethodPost, "/negotiations/"+url.PathEscape(id)+"/terminate", reason)
	return err
}

// Catalog asks the counterparty (a participant's name or a DID) for its offers in one of the participant's dataspace profiles; empty is that of the
// use case, else the first that both take part in. useCase keeps those of one use case.
func (s *Service) Catalog(ctx context.Context, participant, counterparty, useCase, profile string) (List[CatalogItem], error) {
	did, err := s.resolve(ctx, counterparty)
	if err != nil {
		return List[CatalogItem]{}, err
	}
	if profile == "" {
		if profile, err = s.profileFor(ctx, participant, did, useCase); err != nil {
			return List[CatalogItem]{}, err
		}
	}
	q := url.Values{"counterparty": {did}}
	if profile != "" {
		q.Set("profile", profile)
	}
	entries, err := ask[[]adminapi.CatalogEntry](ctx, s, participant, http.MethodGet, "/catalog?"+q.Encode(), nil)
	if err != nil {
		return List[CatalogItem]{}, err
	}
	known, err := s.policyHashes(ctx)
	if err != nil {
		return List[CatalogItem]{}, err
	}
	out := List[CatalogItem]{Items: []CatalogItem{}}
	for _, e := range entries {
		item := CatalogItem{CatalogEntry: e}
		if policy, err := odrl.Parse(e.Policy); err == nil {
			item.UseCase, item.Revision = known[odrl.Hash(policy)].useCase, known[odrl.Hash(policy)].number
		}
		if useCase == "" || item.UseCase == useCase {
			out.Items = append(out.Items, item)
		}
	}
	return out, nil
}

// profileFor is the participant's dataspace profile in which to meet a counterparty about a use case, or about anything; empty is the default one,
// also where none is known.
func (s *Service) profileFor(ctx context.Context, participant, counterparty, useCase string) (string, error) {
	p, err := s.participant(ctx, participant)
	if err != nil || len(p.Spec.FurtherProfiles) == 0 {
		return "", err
	}
	var theirs []string
	if useCase != "" {
		var u cloudv1.UseCase
		if _, err := s.exists(ctx, useCase, &u); err != nil {
			return "", useCases.problem(useCase, err)
		}
		theirs = []string{u.Spec.Profile}
	} else {
		var all cloudv1.ParticipantList
		if err := s.Cached.List(ctx, &all, ctrl.InNamespace(s.Namespace)); err != nil {
			return "", participants.problem("", err)
		}
		for i := range all.Items {
			if all.Items[i].Status.DID == counterparty {
				theirs = all.Items[i].Spec.Profiles()
			}
		}
	}
	shared := slices.IndexFunc(p.Spec.Profiles(), func(name string) bool { return slices.Contains(theirs, name) })
	if shared < 0 {
		return "", nil
	}
	return p.Spec.Profiles()[shared], nil
}

// madeUnder is the newest revision of a use case with a contract policy.
type madeUnder struct {
	useCase string
	number  int
}

// policyHashes maps the hash of each contract policy to its use case.
func (s *Service) policyHashes(ctx context.Context) (map[string]madeUnder, error) {
	var list cloudv1.UseCaseRevisionList
	if err := s.Cached.List(ctx, &list, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, useCases.problem("", err)
	}
	slices.SortFunc(list.Items, func(a, b cloudv1.UseCaseRevision) int { return cmp.Compare(a.Spec.Number, b.Spec.Number) })
	out := map[string]madeUnder{}
	for _, r := range list.Items {
		content, err := usecase.Read(r.Spec.Content)
		if err != nil {
			continue
		}
		if policy, err := odrl.Parse(content.ContractPolicy); err == nil {
			out[odrl.Hash(policy)] = madeUnder{r.Spec.UseCase, r.Spec.Number}
		}
	}
	return out, nil
}

// Negotiations lists a participant's negotiations, newest first.
func (s *Service) Negotiations(ctx context.Context, participant, state string, limit int, before string) (List[adminapi.Negotiation], error) {
	q := url.Values{"limit": {fmt.Sprint(limit)}}
	if state != "" {
		q.Set("state", state)
	}
	if before != "" {
		q.Set("before", before)
	}
	out, err := list[adminapi.Negotiation](ctx, s, participant, "/negotiations?"+q.Encode())
	if len(out.Items) == limit {
		out.Next = out.Items[limit-1].ID
	}
	return out, err
}

// Negotiation reads one.
func (s *Service) Negotiation(ctx context.Context, participant, id string) (adminapi.Negotiation, error) {
	return ask[adminapi.Negotiation](ctx, s, participant, http.MethodGet, "/negotiations/"+url.PathEscape(id), nil)
}

// StartNegotiation starts one, or answers the one with the same id.
func (s *Service) StartNegotiation(ctx context.Context, participant string, n NegotiationStart) (adminapi.Negotiation, error) {
	did, err := s.resolve(ctx, n.Counterparty)
	if err != nil {
		return adminapi.Negotiation{}, err
	}
	if n.Profile == "" {
		if n.Profile, err = s.profileFor(ctx, participant, did, ""); err != nil {
			return adminapi.Negotiation{}, err
		}
	}
	return ask[adminapi.Negotiation](ctx, s, participant, http.MethodPost, "/negotiations", adminapi.NegotiationRequest{ID: n.ID, Counterparty: did, OfferID: n.OfferID, Profile: n.Profile, Purpose: n.Purpose})
}

// Ended says whether a negotiation moves no more.
func Ended(n adminapi.Negotiation) bool { return n.State == "FINALIZED" || n.State == "TERMINATED" }

// WatchNegotiation calls each for the negotiation as it is and after every change, until it has ended, each fails, or MaxWatch is over.
func (s *Service) WatchNegotiation(ctx context.Context, participant, id string, each func(adminapi.Negotiation) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.MaxWatch)
	defer cancel()
	tick := time.NewTicker(s.PollInterval)
	defer tick.Stop()
	var last []byte
	for {
		n, err := s.Negotiation(ctx, participant, id)
		if err != nil {
			return err
		}
		if now, err := json.Marshal(n); err == nil && string(now) != string(last) {
			last = now
			if err := each(n); err != nil {
				return err
			}
		}
		if Ended(n) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// StartTransfer starts one, or answers the one with the same id.
func (s *Service) StartTransfer(ctx context.Context, participant string, t TransferStart) (adminapi.Transfer, error) {
	return ask[adminapi.Transfer](ctx, s, participant, http.MethodPost, "/transfers", adminapi.TransferRequest{ID: t.ID, AgreementID: t.AgreementID, Format: t.Format})
}

// TransferData fetches through the provider's data plane. pathAndQuery is empty or starts with "/" or "?".
func (s *Service) TransferData(ctx context.Context, participant, id, pathAndQuery string) (cellrpc.Response, error) {
	return s.call(ctx, participant, http.MethodGet, "/transfers/"+url.PathEscape(id)+"/data"+pathAndQuery, nil)
}

// Audit reads a part of a participant's audit trail, as lines of an export: up to limit records after a number, or the last ones, and the head.
func (s *Service) Audit(ctx context.Context, participant string, after, last, limit int64) (cellrpc.Response, error) {
	return s.call(ctx, participant, http.MethodGet, fmt.Sprintf("/audit?after=%d&last=%d&limit=%d", after, last, limit), nil)
}

// AuditHeads reads the heads of a participant's audit chains that its cell reported, the oldest first.
func (s *Service) AuditHeads(ctx context.Context, participant string) (List[audit.Head], error) {
	p, err := s.participant(ctx, participant)
	if err != nil {
		return List[audit.Head]{}, err
	}
	if err := s.holdsContext(ctx, p); err != nil {
		return List[audit.Head]{}, err
	}
	heads, err := s.Cells.Heads(ctx, p.RunsIn(), p.Spec.Identity.Context)
	switch {
	case errors.Is(err, cellrpc.ErrNotConnected), errors.Is(err, context.DeadlineExceeded):
		return List[audit.Head]{}, s.notConnected(ctx, connectorOf(p), err)
	case err != nil:
		return List[audit.Head]{}, internalError(err)
	}
	return List[audit.Head]{Items: append([]audit.Head{}, heads...)}, nil
}
