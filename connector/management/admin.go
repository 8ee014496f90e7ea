// SPDX-License-Identifier: Apache-2.0

package management

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func (s *server) adminRoutes(mux *http.ServeMux) {
	mux.Handle("PUT /admin/v1/profiles/{name}", s.handle(http.StatusOK, s.putProfile))
	mux.Handle("GET /admin/v1/profiles/{name}", s.handle(http.StatusOK, func(r *http.Request) (any, error) {
		p, err := s.Store.Profile(r.Context(), r.PathValue("name"))
		return p, describe(err, "profile", r.PathValue("name"))
	}))
	mux.Handle("DELETE /admin/v1/profiles/{name}", s.handle(http.StatusOK, func(r *http.Request) (any, error) {
		return nil, describe(s.Store.DeleteProfile(r.Context(), r.PathValue("name")), "profile", r.PathValue("name"))
	}))
	mux.Handle("GET /admin/v1/audit/heads", s.handle(http.StatusOK, s.auditHeads))
	mux.Handle("PUT /admin/v1/participants/{ctx}", s.handle(http.StatusOK, s.putParticipant))
	mux.Handle("GET /admin/v1/participants/{ctx}", s.handle(http.StatusOK, s.getParticipant))
	mux.Handle("DELETE /admin/v1/participants/{ctx}", s.handle(http.StatusOK, s.deleteParticipant))
}

func (s *server) putProfile(r *http.Request) (any, error) {
	p, err := decode[adminapi.Profile](r)
	if err != nil {
		return nil, err
	}
	if p.Name != r.PathValue("name") {
		return nil, invalid("$.name: is %q, the address says %q", p.Name, r.PathValue("name"))
	}
	if _, err := odrl.NewEvaluator(p); err != nil {
		return nil, invalid("%s", err)
	}
	return p, s.Store.PutProfile(r.Context(), p)
}

var contextName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (s *server) putParticipant(r *http.Request) (any, error) {
	name := r.PathValue("ctx")
	p, err := decode[adminapi.Participant](r)
	switch {
	case err != nil:
		return nil, err
	case !contextName.MatchString(name):
		return nil, invalid("participant context %q: 1 to 63 lower-case letters, digits and hyphens", name)
	case !strings.HasPrefix(p.DID, "did:"):
		return nil, invalid("$.did: %q is not a DID", p.DID)
	case p.Profile == "":
		return nil, invalid("$.profile: missing")
	case slices.Contains(p.FurtherProfiles, p.Profile) || len(slices.Compact(slices.Sorted(slices.Values(p.FurtherProfiles)))) < len(p.FurtherProfiles):
		return nil, invalid("$.furtherProfiles: %q: name each profile once, and not the default one, %q", p.FurtherProfiles, p.Profile)
	case p.SelfCheck != "" && p.SelfCheck != adminapi.SelfCheckEnforce && p.SelfCheck != adminapi.SelfCheckOff:
		return nil, invalid("$.selfCheck: %q must be %s or %s", p.SelfCheck, adminapi.SelfCheckEnforce, adminapi.SelfCheckOff)
	}
	return p, s.Store.PutParticipant(r.Context(), name, p)
}

// deleteParticipant removes a participant with all that is its: nothing of it is left for a later one of the same name. The participant goes
// first, so that nothing is added meanwhile; the rest is looked for even when it is gone, since an earlier attempt may have ended there.
func (s *server) deleteParticipant(r *http.Request) (any, error) {
	name := r.PathValue("ctx")
	if !contextName.MatchString(name) {
		return nil, describe(store.ErrNotFound, "participant context", name)
	}
	deleted := s.Store.DeleteParticipant(r.Context(), name)
	if deleted != nil && !errors.Is(deleted, store.ErrNotFound) {
		return nil, deleted
	}
	s.Engine.Forget(name)
	if err := errors.Join(s.Secrets.DeleteSecrets(r.Context(), name), s.DataPlane.Forget(r.Context(), name)); err != nil {
		return nil, err
	}
	return nil, describe(deleted, "participant context", name)
}

func (s *server) getParticipant(r *http.Request) (any, error) {
	p, err := s.participant(r)
	if err != nil {
		return nil, err
	}
	out := adminapi.Participant{DID: p.DID, BPN: p.BPN, Profile: p.ProfileName, Active: p.Active, SelfCheck: p.SelfCheck}
	for _, f := range p.Profiles[1:] {
		out.FurtherProfiles = append(out.FurtherProfiles, f.Name)
	}
	return out, nil
}
