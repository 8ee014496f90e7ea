// SPDX-License-Identifier: Apache-2.0

package management

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/odrl"
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
	mux.Handle("PUT /admin/v1/participants/{ctx}", s.handle(http.StatusOK, s.putParticipant))
	mux.Handle("GET /admin/v1/participants/{ctx}", s.handle(http.StatusOK, s.getParticipant))
	mux.Handle("DELETE /admin/v1/participants/{ctx}", s.handle(http.StatusOK, func(r *http.Request) (any, error) {
		return nil, describe(s.Store.DeleteParticipant(r.Context(), r.PathValue("ctx")), "participant context", r.PathValue("ctx"))
	}))
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
	case p.SelfCheck != "" && p.SelfCheck != adminapi.SelfCheckEnforce && p.SelfCheck != adminapi.SelfCheckOff:
		return nil, invalid("$.selfCheck: %q must be %s or %s", p.SelfCheck, adminapi.SelfCheckEnforce, adminapi.SelfCheckOff)
	}
	return p, s.Store.PutParticipant(r.Context(), name, p)
}

func (s *server) getParticipant(r *http.Request) (any, error) {
	p, err := s.participant(r)
	if err != nil {
		return nil, err
	}
	return adminapi.Participant{DID: p.DID, BPN: p.BPN, Profile: p.ProfileName, Active: p.Active, SelfCheck: p.SelfCheck}, nil
}
