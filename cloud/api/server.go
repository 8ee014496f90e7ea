// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/kaphera/kaphera/cloud/authz"
)

// Authenticator turns a bearer token into a principal. Its errors are *Problem.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (authz.Principal, error)
}

// Version of the API document.
const Version = "v1"

func config(issuer string) huma.Config {
	c := huma.DefaultConfig("Kaphera Cloud API", Version)
	c.Info.Description = "Participants, use cases and cells as desired state, and what their connectors do: offers, negotiations, agreements, transfers."
	c.Components.Schemas = newRegistry()
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"oidc": {Type: "openIdConnect", OpenIDConnectURL: strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"},
	}
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = prefix+"/openapi", "", "", nil
	c.RejectUnknownQueryParameters = true
	return c
}

// Handler serves the API under /api/v1, its OpenAPI document and a page about it.
func Handler(s *Service, auth Authenticator) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, config(s.Info.Issuer))
	api.UseMiddleware(s.guard(api, auth))
	register(api, s)
	mux.Handle("GET "+prefix+"/docs", docs(api.OpenAPI()))
	mux.HandleFunc(prefix+"/", func(w http.ResponseWriter, r *http.Request) {
		p := problem(http.StatusNotFound, CodeNotFound, "the Cloud API has no "+r.Method+" "+r.URL.Path, "see "+prefix+"/docs")
		writeProblem(w, p)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !utf8.ValidString(r.URL.Path) || strings.ContainsRune(r.URL.Path, 0) {
			writeProblem(w, problem(http.StatusBadRequest, CodeInvalid, "the address holds the character U+0000 or bytes that are no UTF-8", "use the names and ids as the lists give them"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// OpenAPI returns the document of the API. The issuer in it is an example.
func OpenAPI() *huma.OpenAPI {
	api := humago.New(http.NewServeMux(), config("https://id.example.com/realms/kaphera"))
	register(api, New(Service{}))
	return api.OpenAPI()
}

// guard authenticates and authorizes every call, and logs it.
func (s *Service) guard(api huma.API, auth Authenticator) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		op, began := hc.Operation().OperationID, s.Now()
		if op == authz.OpInfo {
			next(hc)
			return
		}
		token, ok := strings.CutPrefix(hc.Header("Authorization"), "Bearer ")
		if !ok || token == "" {
			hc.SetHeader("WWW-Authenticate", `Bearer realm="kaphera"`)
			refuse(api, hc, problem(http.StatusUnauthorized, CodeUnauthenticated, "the call carries no bearer token", "log in: kaphera login"))
			return
		}
		principal, err := auth.Authenticate(hc.Context(), token)
		if err != nil {
			p := asProblem(err)
			if p.Status == http.StatusUnauthorized {
				hc.SetHeader("WWW-Authenticate", `Bearer realm="kaphera", error="invalid_token"`)
			}
			refuse(api, hc, p)
			return
		}
		ctx, err := authz.Authorize(hc.Context(), principal, op)
		if err != nil {
			s.Log.Info("denied", "operation", op, "subject", principal.Subject, "roles", principal.Roles)
			refuse(api, hc, Denied(err))
			return
		}
		next(huma.WithContext(hc, ctx))
		s.Log.Info("call", "operation", op, "path", hc.URL().Path, "status", hc.Status(), "subject", principal.Subject,
			"name", principal.Name, "took", s.Now().Sub(began).Round(time.Millisecond))
	}
}

// Denied is the problem of an authorization that was denied.
func Denied(err error) *Problem {
	var d *authz.DeniedError
	next := ""
	if errors.As(err, &d) && len(d.Needs) > 0 {
		next = "ask the platform's operator for the role, or log in as somebody who has it"
	}
	return problem(http.StatusForbidden, CodeForbidden, err.Error(), next)
}

func asProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return internalError(err)
}

func refuse(api huma.API, hc huma.Context, p *Problem) {
	hc.SetHeader("Content-Type", p.ContentType(""))
	hc.SetStatus(p.Status)
	_ = api.Marshal(hc.BodyWriter(), "application/json", p) // the caller has gone, then
}
