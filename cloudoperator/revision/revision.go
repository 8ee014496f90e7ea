// SPDX-License-Identifier: FSL-1.1-ALv2

// Package revision reads the revisions of use cases from their custom resources. What a revision is and which one is in force says connector/usecase.
package revision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/usecase"
)

// Name of a revision's custom resource.
func Name(useCase string, number int) string { return fmt.Sprintf("%s.%d", useCase, number) }

// Demands is what a use case demands now; number and predecessor are not set.
func Demands(u *cloud.UseCase, p profile.Profile) (usecase.Content, error) {
	c := usecase.Content{UseCase: u.Name, AssetType: u.Spec.AssetType, ContractPolicy: u.Spec.ContractPolicy.Raw}
	if u.Spec.AccessPolicy != nil {
		c.AccessPolicy = u.Spec.AccessPolicy.Raw
	}
	for _, part := range []struct{ from, to any }{{u.Spec.Gates, &c.Gates}, {u.Spec.Signers, &c.Signers}} { // the same members
		raw, err := json.Marshal(part.from)
		if err == nil {
			err = json.Unmarshal(raw, part.to)
		}
		if err != nil {
			return c, fmt.Errorf("use case %s: %w", u.Name, err)
		}
	}
	return usecase.Make(c, p)
}

// Wire is a revision as connectors take it, without gates.
func Wire(r *cloud.UseCaseRevision) adminapi.UseCaseRevision {
	out := adminapi.UseCaseRevision{UseCase: r.Spec.UseCase, Number: r.Spec.Number, Hash: r.Spec.Hash, Content: r.Spec.Content}
	if s := r.Spec.SignOff; s != nil {
		out.SignOff = s.Signed
		for _, p := range s.Signers {
			a := adminapi.Approver{ID: p.ID, Name: p.Name, Organization: p.Organization}
			for _, k := range p.Keys {
				a.Keys = append(a.Keys, json.RawMessage(k))
			}
			out.Signers = append(out.Signers, a)
		}
	}
	return out
}

// History is all revisions of a use case.
type History struct {
	All []cloud.UseCaseRevision // in order
	// At is the index of the one in force; -1 when there is none.
	At int
	// Err says which one was tampered with; none is in force then.
	Err error
}

// Read reads the history of a use case.
func Read(ctx context.Context, r client.Reader, namespace, useCase string) (History, error) {
	var list cloud.UseCaseRevisionList
	if err := r.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return History{}, fmt.Errorf("list revisions of use case %s: %w", useCase, err)
	}
	return Of(list.Items, useCase), nil
}

// Of makes the history of a use case from the revisions of all.
func Of(all []cloud.UseCaseRevision, useCase string) History {
	h := History{}
	var wire []adminapi.UseCaseRevision
	for i := range all {
		if all[i].Spec.UseCase == useCase && all[i].DeletionTimestamp.IsZero() {
			h.All = append(h.All, all[i])
		}
	}
	slices.SortFunc(h.All, func(a, b cloud.UseCaseRevision) int { return cmp.Compare(a.Spec.Number, b.Spec.Number) })
	for i := range h.All {
		wire = append(wire, Wire(&h.All[i]))
	}
	h.At, h.Err = usecase.InForce(wire)
	return h
}

// Newest is the last one; nil when there is none.
func (h History) Newest() *cloud.UseCaseRevision {
	if len(h.All) == 0 {
		return nil
	}
	return &h.All[len(h.All)-1]
}

// InForce is the one in force; nil when there is none.
func (h History) InForce() *cloud.UseCaseRevision {
	if h.At < 0 {
		return nil
	}
	return &h.All[h.At]
}

// Signers are those one of whom signs the newest revision off.
func (h History) Signers() ([]usecase.Person, error) {
	newest := h.Newest()
	if newest == nil {
		return nil, errors.New("there is no revision")
	}
	next, err := usecase.Read(newest.Spec.Content)
	if err != nil {
		return nil, fmt.Errorf("revision %s: %w", newest.Name, err)
	}
	var before usecase.Content
	if in := h.InForce(); in != nil && in.Name != newest.Name {
		if before, err = usecase.Read(in.Spec.Content); err != nil {
			return nil, fmt.Errorf("revision %s: %w", in.Name, err)
		}
	}
	return usecase.SignersOf(before, next), nil
}
