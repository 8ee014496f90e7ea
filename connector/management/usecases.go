// SPDX-License-Identifier: Apache-2.0

package management

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/usecase"
)

func (s *server) listUseCases(r *http.Request, p *store.Participant) (any, error) {
	all, err := s.Store.UseCases(r.Context(), p.Ctx)
	out := make([]adminapi.UseCaseRevision, 0, len(all))
	for _, u := range all {
		out = append(out, u.Revision)
	}
	return out, err
}

// putUseCase brings a revision into force. That it is signed off by whom the revision before it names is proved here, whoever delivers it.
func (s *server) putUseCase(r *http.Request, p *store.Participant) (any, error) {
	u, err := decode[adminapi.UseCaseRevision](r)
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if u.UseCase != name {
		return nil, invalid("$.useCase: is %q, the address says %q", u.UseCase, name)
	}
	now, err := s.Store.UseCase(r.Context(), p.Ctx, name)
	switch {
	case err == nil && now.Revision.Hash == u.Hash:
		return now.Revision, nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	content, err := usecase.Check(u)
	if err != nil {
		return nil, err
	}
	if err := usecase.Timely(u, time.Now()); err != nil {
		return nil, err
	}
	if err := s.checkRevision(p, content, u); err != nil {
		return nil, err
	}
	terms := store.Terms{AccessPolicy: content.AccessPolicy, ContractPolicy: content.ContractPolicy, Gates: u.Gates,
		Applies: func(profiles []string) bool { return elsewhere(p, content.Profile, profiles) == "" }}
	var kept adminapi.UseCaseRevision
	err = s.Store.BringIntoForce(r.Context(), p.Ctx, name, terms, func(inForce *adminapi.UseCaseRevision) (adminapi.UseCaseRevision, error) {
		kept, _, err = usecase.Accept(inForce, u)
		return kept, err
	})
	return kept, err
}

// checkRevision refuses a revision that offers could not be made under.
func (s *server) checkRevision(p *store.Participant, content usecase.Content, u adminapi.UseCaseRevision) error {
	in, ok := p.In(content.Profile)
	if !ok || content.Profile == "" {
		return invalid("$.content: it belongs to dataspace profile %q, in which the participant does not take part", content.Profile)
	}
	ev, err := s.Engine.Evaluator(in)
	if err != nil {
		return err
	}
	changed, err := content.Changed(ev)
	if err != nil {
		return invalid("$.content: %s", err)
	}
	if len(changed) > 0 {
		return &dsp.RefusalError{Status: http.StatusConflict, Code: usecase.CodeChanged, Message: fmt.Sprintf("dataspace profile %s gives %s another meaning than revision %d of use case %s: make a revision of the profile as it is, and sign that off",
			content.Profile, strings.Join(changed, ", "), u.Number, u.UseCase)}
	}
	if err := content.CheckOffer(content.AccessPolicy, content.ContractPolicy, u.Gates); err != nil {
		return invalid("$.gates: %s", err)
	}
	contract, err := s.checkPolicy(in, "$.content.contractPolicy", content.ContractPolicy, (*odrl.Evaluator).Check)
	if err != nil {
		return err
	}
	if content.AccessPolicy != nil {
		if _, err := s.checkPolicy(in, "$.content.accessPolicy", content.AccessPolicy, (*odrl.Evaluator).CheckAccess); err != nil {
			return err
		}
	}
	return s.checkGates(in, u.Gates, contract)
}

// elsewhere is one of the profiles (none: the participant's default one) that is not the given one; empty when all are.
func elsewhere(p *store.Participant, profile string, profiles []string) string {
	if len(profiles) == 0 {
		profiles = []string{p.Profiles[0].Name}
	}
	for _, name := range profiles {
		if name != profile {
			return name
		}
	}
	return ""
}

// revisionOf finds the revision that an offer is under; nil when its use case has none here. An offer that is not what the revision says is refused.
func (s *server) revisionOf(ctx context.Context, p *store.Participant, o adminapi.Offer) (*adminapi.RevisionRef, error) {
	if o.UseCase == "" {
		return nil, nil
	}
	u, err := s.Store.UseCase(ctx, p.Ctx, o.UseCase)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	content, err := usecase.Read(u.Revision.Content)
	if err == nil {
		err = content.CheckOffer(o.AccessPolicy, o.ContractPolicy, o.Gates)
	}
	if other := elsewhere(p, content.Profile, o.Profiles); err == nil && other != "" {
		err = fmt.Errorf("it is made in dataspace profile %s, the use case is of %s", other, content.Profile)
	}
	if err != nil {
		return nil, &dsp.RefusalError{Status: http.StatusConflict, Code: dsp.CodeNotInForce, Message: "the offer is not under revision " + u.Ref().Hash + " of use case " + o.UseCase + ", which is in force: " + err.Error()}
	}
	return u.Ref(), nil
}
