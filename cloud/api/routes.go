// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaphera/kaphera/cloud/authz"
	"github.com/kaphera/kaphera/cloud/status"
)

const prefix = "/api/v1"

type output[T any] struct{ Body T }

type noInput struct{}

type none struct{}

func operation(id, method, path, summary string) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: prefix + path, Summary: summary,
		Tags: []string{strings.SplitN(strings.Trim(path, "/"), "/", 2)[0]}, Errors: []int{}, MaxBodyBytes: 512 << 10,
	}
	if strings.HasPrefix(path, "/participants/{participant}/") {
		op.Tags = []string{"connector"}
	}
	if id != authz.OpInfo {
		op.Security = []map[string][]string{{"oidc": {}}}
	}
	return op
}

// register adds every route of the service.
func register(api huma.API, s *Service) {
	huma.Register(api, operation(authz.OpInfo, http.MethodGet, "/info", "How to log in"),
		func(context.Context, *noInput) (*output[Info], error) { return &output[Info]{s.Info}, nil })
	huma.Register(api, operation(authz.OpStatus, http.MethodGet, "/status", "Every participant: where it runs, connector, credential and contract health"),
		func(ctx context.Context, _ *noInput) (*output[status.Report], error) {
			r, err := s.Status(ctx)
			return &output[status.Report]{r}, err
		})
	registerReads(api, s, platforms)
	registerKind(api, s, cells)
	registerInstall(api, s)
	registerRotation(api, s)
	registerKind(api, s, dataspaceProfiles)
	registerKind(api, s, useCases)
	registerKind(api, s, organizations)
	registerKind(api, s, participants)
	registerCredentials(api, s)
	registerConnector(api, s)
	registerApprovals(api, s)
	registerRevisions(api, s)
}

type listInput struct {
	After string `query:"after" doc:"Name after which the page starts"`
	Limit int    `query:"limit" minimum:"0" maximum:"500" doc:"0 takes 100"`
}

type getInput struct {
	Name string `path:"name" maxLength:"63"`
}

type putInput[S, T any] struct {
	Name        string `path:"name" maxLength:"63" pattern:"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`
	IfMatch     string `header:"If-Match" doc:"Write only while this revision is the newest; the same as revision in the body"`
	IfNoneMatch string `header:"If-None-Match" pattern:"^\\*$" doc:"* creates only: refused when the object exists"`
	Manager     string `header:"X-Kaphera-Manager" pattern:"^(terraform|cli|console|api)$" doc:"Who writes"`
	DryRun      bool   `query:"dryRun" doc:"Judge the write, policies included, and change nothing"`
	Force       bool   `query:"force" doc:"Change what somebody else manages"`
	Body        Object[S, T]
}

type deleteInput struct {
	Name    string `path:"name" maxLength:"63"`
	IfMatch string `header:"If-Match" doc:"Remove only while this revision is the newest"`
	Manager string `header:"X-Kaphera-Manager" pattern:"^(terraform|cli|console|api)$" doc:"Who removes"`
	DryRun  bool   `query:"dryRun" doc:"Judge, and change nothing"`
	Force   bool   `query:"force" doc:"Remove what somebody else manages"`
}

type objectOutput[S, T any] struct {
	Status int
	ETag   string `header:"ETag"`
	Body   Object[S, T]
}

// problemResponse describes the answer to what fails, for operations that describe their success themselves.
func problemResponse(api huma.API) *huma.Response {
	schema := api.OpenAPI().Components.Schemas.Schema(typeOf[Problem](), true, "")
	return &huma.Response{Description: "Problem", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema}}}
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func singular(path string) string { return strings.TrimSuffix(path, "s") }

func article(noun string) string {
	if strings.ContainsRune("aeio", rune(noun[0])) { // "a use case"
		return "an " + noun
	}
	return "a " + noun
}

func registerReads[S, T any](api huma.API, s *Service, k kind[S, T]) {
	huma.Register(api, operation("list-"+k.path, http.MethodGet, "/"+k.path, fmt.Sprintf("List %ss, ordered by name", k.noun)),
		func(ctx context.Context, in *listInput) (*output[List[Object[S, T]]], error) {
			page, err := k.page(ctx, s, PageOptions{in.After, orDefault(in.Limit, 100)})
			return &output[List[Object[S, T]]]{page}, err
		})
	huma.Register(api, operation("get-"+singular(k.path), http.MethodGet, "/"+k.path+"/{name}", "Read "+article(k.noun)),
		func(ctx context.Context, in *getInput) (*objectOutput[S, T], error) {
			o, err := k.get(ctx, s, in.Name)
			return &objectOutput[S, T]{http.StatusOK, etag(o.Revision), o}, err
		})
}

func registerKind[S, T any](api huma.API, s *Service, k kind[S, T]) {
	registerReads(api, s, k)
	put := operation("put-"+singular(k.path), http.MethodPut, "/"+k.path+"/{name}", "Create or replace "+article(k.noun))
	put.Responses = map[string]*huma.Response{"201": {Description: "Created", Content: map[string]*huma.MediaType{
		"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(typeOf[Object[S, T]](), true, "")},
	}}, "default": problemResponse(api)}
	huma.Register(api, put, func(ctx context.Context, in *putInput[S, T]) (*objectOutput[S, T], error) {
		o, created, err := k.put(ctx, s, in.Name, in.Body.Spec, WriteOptions{
			Manager: in.Manager, Revision: nonEmpty(strings.Trim(in.IfMatch, `"`), in.Body.Revision), Create: in.IfNoneMatch == "*", DryRun: in.DryRun, Force: in.Force,
		})
		code := http.StatusOK
		if created {
			code = http.StatusCreated
		}
		return &objectOutput[S, T]{code, etag(o.Revision), o}, err
	})
	huma.Register(api, operation("delete-"+singular(k.path), http.MethodDelete, "/"+k.path+"/{name}", "Remove "+article(k.noun)),
		func(ctx context.Context, in *deleteInput) (*none, error) {
			return nil, k.remove(ctx, s, in.Name, WriteOptions{Manager: in.Manager, Revision: strings.Trim(in.IfMatch, `"`), DryRun: in.DryRun, Force: in.Force})
		})
}

func etag(revision string) string { return `"` + revision + `"` }
