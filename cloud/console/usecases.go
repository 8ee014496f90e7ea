// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/kaphera/kaphera/cloud/api"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

func (s *console) useCasesPage(w http.ResponseWriter, r *http.Request, v view) error {
	all, err := s.Service.UseCases(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, useCasesPage(v, all.Items))
}

func (s *console) useCasePage(w http.ResponseWriter, r *http.Request, v view) error {
	name := r.PathValue("useCase")
	all, err := s.Service.Revisions(r.Context(), name)
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, useCasePage(v, name, all.Items))
}

// signOff passes on what the browser signed.
func (s *console) signOff(w http.ResponseWriter, r *http.Request, v view) error {
	number, err := strconv.Atoi(r.PathValue("number"))
	if err != nil {
		return &api.Problem{Title: http.StatusText(http.StatusNotFound), Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: v.t("no such page")}
	}
	in, err := readJSON[api.SignedOff](w, r)
	if err != nil {
		return err
	}
	if _, err := s.Service.SignOffRevision(r.Context(), r.PathValue("useCase"), number, in.Signed); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// useCaseState says whether what a use case demands is in force.
func useCaseState(u api.UseCase) string {
	switch {
	case u.Status.Revision == nil:
		return "No revision"
	case u.Status.InForce == nil || u.Status.InForce.Number != u.Status.Revision.Number:
		return "Waits"
	}
	return "In force"
}

func number(r *cloudv1.RevisionStatus) string {
	if r == nil {
		return "–"
	}
	return strconv.Itoa(r.Number)
}

func revisionState(r api.Revision) string {
	switch {
	case r.InForce:
		return "In force"
	case r.WaitsFor != "":
		return "Waits"
	case r.SignOff != nil:
		return "Earlier"
	}
	return "Not signed off"
}

// inForce is the revision in force among all; nil: none.
func inForce(all []api.Revision) *api.Revision {
	if i := slices.IndexFunc(all, func(r api.Revision) bool { return r.InForce }); i >= 0 {
		return &all[i]
	}
	return nil
}

// compared is the revision that another is compared with: the one in force while it waits, else the one before it; nil: none. all has the newest first.
func compared(all []api.Revision, i int) *api.Revision {
	switch {
	case all[i].WaitsFor != "":
		return inForce(all)
	case i+1 < len(all):
		return &all[i+1]
	}
	return nil
}

// listed are the keys one of which signs the next revision; none: any registered one.
func listed(all []api.Revision) []string {
	if r := inForce(all); r != nil && r.SignOff != nil {
		return r.SignOff.Signers
	}
	return nil
}

// demands is a revision in plain words, in the page's language.
func demands(v view, r api.Revision) []string {
	if v.lang == "de" {
		return r.Explanation.DE
	}
	return r.Explanation.EN
}

func signers(v view, r api.Revision) string {
	if v.lang == "de" {
		return r.WaitsForDE
	}
	return r.WaitsFor
}
