// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"slices"
	"strings"

	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	"github.com/kaphera/kaphera/cloud/status"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// Status is the status table of the participants that the caller may see.
func (s *Service) Status(ctx context.Context) (status.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	var all cloudv1.ParticipantList
	if err := s.Cached.List(ctx, &all, ctrl.InNamespace(s.Namespace)); err != nil {
		return status.Report{}, participants.problem("", err)
	}
	var where cloudv1.CellList
	if err := s.Cached.List(ctx, &where, ctrl.InNamespace(s.Namespace)); err != nil {
		return status.Report{}, cells.problem("", err)
	}
	access := authz.From(ctx)
	var seen []cloudv1.Participant
	for i := range all.Items {
		if access.Covers(all.Items[i].Spec.Organization) {
			seen = append(seen, all.Items[i])
		}
	}
	return status.Assemble(seen, where.Items, s.Now()), nil
}

// Partners lists the participants of a participant's dataspace that have an identity, itself included, by name. Names, companies and DIDs
// are no secret among them.
func (s *Service) Partners(ctx context.Context, participant string) ([]Partner, error) {
	p, err := s.participant(ctx, participant)
	if err != nil {
		return nil, err
	}
	var all cloudv1.ParticipantList
	if err := s.Cached.List(ctx, &all, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, participants.problem("", err)
	}
	var companies cloudv1.OrganizationList
	if err := s.Cached.List(ctx, &companies, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, organizations.problem("", err)
	}
	displayName := map[string]string{}
	for i := range companies.Items {
		displayName[companies.Items[i].Name] = companies.Items[i].Spec.DisplayName
	}
	out := []Partner{}
	for i := range all.Items {
		o := &all.Items[i]
		shared := slices.ContainsFunc(o.Spec.Profiles(), func(name string) bool { return slices.Contains(p.Spec.Profiles(), name) })
		if shared && o.Status.DID != "" {
			out = append(out, Partner{o.Name, nonEmpty(displayName[o.Spec.Organization], o.Spec.Organization), o.Status.DID})
		}
	}
	slices.SortFunc(out, func(a, b Partner) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Participant reads one.
func (s *Service) Participant(ctx context.Context, name string) (Participant, error) {
	return participants.get(ctx, s, name)
}

// UseCases lists all use cases.
func (s *Service) UseCases(ctx context.Context) (List[UseCase], error) {
	return useCases.page(ctx, s, PageOptions{})
}
