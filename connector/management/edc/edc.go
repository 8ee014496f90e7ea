// SPDX-License-Identifier: Apache-2.0

// Package edc serves the EDC Management API, versions 3 and 4, for one participant context each at /management/{ctx}/{version}: paths, bodies
// and errors as Eclipse EDC's, so that its clients need another base URL and nothing else. It is the one place that processes JSON-LD
// (read, write). It checks, translates and calls connector/dsp and connector/store; it decides nothing about the protocol.
package edc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/limits"
	internalapi "github.com/kaphera/kaphera/connector/management"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/store"
)

// Secrets keeps the participants' secrets. None can be read here.
type Secrets interface {
	HasSecret(ctx context.Context, owner, alias string) (bool, error)
	CreateSecret(ctx context.Context, owner, alias, value string) error
	PutSecret(ctx context.Context, owner, alias, value string) error
	DeleteSecret(ctx context.Context, owner, alias string) error
}

// Deps is what the API needs.
type Deps struct {
	Engine  *dsp.Engine
	Store   *store.Store
	Secrets Secrets
	// HTTP calls the addresses that clients want to be called back at.
	HTTP *http.Client
	// PlainHTTP permits callbacks to http addresses: events carry tokens.
	PlainHTTP bool
	// Key opens everything to whoever sends it as X-Api-Key; empty: nobody.
	Key string
	// Tokens verifies bearer tokens; nil: none is accepted.
	Tokens Tokens
	// Backends says where the data plane reads data from.
	Backends netguard.Guard
	// DataPlane is the address of the data plane's signaling API, which the list of data planes shows.
	DataPlane string
	// Requests to the API of each participant at once; nil: not bounded.
	Requests *limits.Shares
	Log      *slog.Logger
}

// API is the EDC Management API.
type API struct {
	api
	mux *http.ServeMux
}

type api struct{ Deps }

// New makes the API. Run delivers its callbacks.
func New(d Deps) (*API, error) {
	switch {
	case d.Engine == nil || d.Store == nil || d.Secrets == nil || d.HTTP == nil || d.Log == nil:
		return nil, errors.New("edc: engine, store, secrets, HTTP client and log are all needed")
	case d.Key == "" && d.Tokens == nil:
		return nil, errors.New("edc: neither an API key nor a token verifier: the API would be open to nobody")
	}
	a := &API{api: api{d}, mux: http.NewServeMux()}
	for _, rt := range a.routes() {
		for _, v := range rt.versions() {
			a.mux.Handle(rt.method+" /management/{ctx}/"+string(v)+rt.path, a.handler(v, rt))
		}
	}
	a.mux.HandleFunc("GET /management/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.authenticate(r); err != nil {
			a.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document)
	})
	a.mux.HandleFunc("/management/", func(w http.ResponseWriter, r *http.Request) {
		_, err := a.authenticate(r)
		if err == nil {
			err = &apiError{Status: http.StatusNotFound, Type: typeNotFound, Message: "this API has no " + r.Method + " " + r.URL.Path}
		}
		a.fail(w, r, err)
	})
	return a, nil
}

// ServeHTTP serves the API.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// route is one row of the API: who may call what, and what goes in and out.
type route struct {
	method, path string
	area         string // of scopes
	write        bool
	summary      string
	body         string // type of the request's body; empty: none
	optional     bool   // the body may be absent
	answer       string // type of the answer; empty: 204
	list         bool   // the answer is a list of answer
	raw          bool   // the answer is written as it is, and not in the version's style
	only         Version
	do           func(*call) (any, error)
}

func (rt *route) versions() []Version {
	if rt.only != "" {
		return []Version{rt.only}
	}
	return []Version{V3, V4Beta, V4}
}

// call is one request.
type call struct {
	*http.Request
	version     Version
	participant *store.Participant
	id          string // in the path
	body        map[string]any
}

func (a *API) routes() []route {
	return concat(a.assets(), a.policies(), a.definitions(), a.catalogs(), a.negotiations(), a.agreements(), a.transfers(), a.references(),
		a.dataPlanes(), a.secrets())
}

func concat(parts ...[]route) (out []route) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func (a *API) handler(v Version, rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := a.serve(v, &rt, w, r) //nolint:contextcheck // it is the request's
		switch {
		case err != nil:
			a.fail(w, r, err)
		case out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			writeJSON(w, http.StatusOK, out)
		}
	})
}

func (a *API) serve(v Version, rt *route, w http.ResponseWriter, r *http.Request) (any, error) {
	who, err := a.authenticate(r)
	if err == nil {
		err = who.may(r.PathValue("ctx"), rt)
	}
	if err != nil {
		return nil, err
	}
	r, leave, err := a.Requests.Request(r, r.PathValue("ctx"))
	if err != nil {
		return nil, err
	}
	defer leave()
	c := &call{Request: r, version: v, id: r.PathValue("id")}
	if c.participant, err = a.Store.Participant(r.Context(), r.PathValue("ctx")); err != nil {
		return nil, describe(err, "participant context", r.PathValue("ctx"))
	}
	c.Request = r.WithContext(audit.WithActor(r.Context(), who.name))
	if rt.write {
		_, path, _ := strings.Cut(r.URL.EscapedPath(), "/"+r.PathValue("ctx"))
		if c.Request, err = internalapi.Recorded(w, c.Request, c.participant.Ctx, path, rt.area == "secrets" || rt.area == "assets"); err != nil { // an asset may come with a secret
			return nil, err
		}
		if r = c.Request; rt.area == "secrets" { // the Vault knows no transaction: what is not on record is not done
			if err := a.Store.Record(c.Context(), c.participant.Ctx); err != nil {
				return nil, err
			}
		}
	}
	if rt.body != "" {
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			return nil, err
		}
		if len(raw) > 0 || !rt.optional {
			if c.body, err = read(v, raw, rt.body); err != nil {
				return nil, err
			}
		}
	}
	out, err := rt.do(c)
	if err != nil || out == nil || rt.raw {
		return out, err
	}
	if list, ok := out.([]map[string]any); ok {
		return write(v, list...)
	}
	written, err := write(v, out.(map[string]any)) //nolint:forcetypeassert // what is not raw is a document
	if err != nil {
		return nil, err
	}
	return written[0], nil
}

func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, faults := a.explain(r, err)
	body := make([]any, 0, len(faults))
	for _, f := range faults {
		body = append(body, f.body())
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the caller may be gone
}

// resource is a kind of object that clients make, change and remove.
type resource[T any] struct {
	kind, typ, path, area string
	onItem                bool // PUT is to the object's own path
	decode                func(*call, string) (*T, error)
	view                  func(*T) (map[string]any, error)
	get                   func(ctx context.Context, participant, id string) (*T, error)
	save                  func(context.Context, store.Mode, *T) error
	remove                func(ctx context.Context, participant, id string) error
	query                 func(context.Context, string, store.Query) ([]*T, error)
}

// routes are the same for every resource: POST makes (409 when it is there), PUT changes (404 when it is not), DELETE removes (409 when it
// is in use), and POST to request lists.
func (x resource[T]) routes() []route {
	item, put := x.path+"/{id}", x.path
	if x.onItem {
		put = item
	}
	return []route{
		{method: "POST", path: x.path, area: x.area, write: true, summary: "Make a " + x.kind, body: x.typ, answer: "IdResponse", do: func(c *call) (any, error) {
			id, err := c.text("@id")
			if err != nil {
				return nil, err
			}
			if id == "" {
				id = uuid.NewString()
			}
			if err := x.put(c, store.Create, id); err != nil {
				return nil, err
			}
			made, err := x.get(c.Context(), c.participant.Ctx, id)
			if err != nil {
				return nil, err
			}
			doc, err := x.view(made)
			if err != nil {
				return nil, err
			}
			return map[string]any{"@type": "IdResponse", "@id": id, "createdAt": doc["createdAt"]}, nil
		}},
		{method: "PUT", path: put, area: x.area, write: true, summary: "Change a " + x.kind, body: x.typ, do: func(c *call) (any, error) {
			id, err := c.text("@id")
			switch {
			case err != nil:
				return nil, err
			case c.id != "" && id != "" && id != c.id:
				return nil, invalidValue("$.@id", id, "the address names %q", c.id)
			case c.id != "":
				id = c.id
			case id == "":
				return nil, missing("$.@id")
			}
			return nil, x.put(c, store.Update, id)
		}},
		{method: "GET", path: item, area: x.area, summary: "Read a " + x.kind, answer: x.typ, do: func(c *call) (any, error) {
			o, err := x.get(c.Context(), c.participant.Ctx, c.id)
			if err != nil {
				return nil, describe(err, x.kind, c.id)
			}
			return x.view(o)
		}},
		{method: "DELETE", path: item, area: x.area, write: true, summary: "Remove a " + x.kind, do: func(c *call) (any, error) {
			return nil, describe(x.remove(c.Context(), c.participant.Ctx, c.id), x.kind, c.id)
		}},
		list(x.path, x.area, x.kind, x.typ, x.query, func(_ *call, all []*T) ([]map[string]any, error) { return each(all, x.view) }),
	}
}

func (x resource[T]) put(c *call, mode store.Mode, id string) error {
	o, err := x.decode(c, id)
	if err != nil {
		return err
	}
	return describe(x.save(c.Context(), mode, o), x.kind, id)
}

// list is the route that answers a query.
func list[T any](path, area, kind, typ string, query func(context.Context, string, store.Query) ([]*T, error), view func(*call, []*T) ([]map[string]any, error)) route {
	return route{method: "POST", path: path + "/request", area: area, summary: "List every " + kind + " that a query selects", body: "QuerySpec", optional: true,
		answer: typ, list: true, do: func(c *call) (any, error) {
			q, err := querySpec(c.body, "$")
			if err != nil {
				return nil, err
			}
			all, err := query(c.Context(), c.participant.Ctx, q)
			if err != nil {
				return nil, err
			}
			return view(c, all)
		}}
}

func each[T any](all []*T, view func(*T) (map[string]any, error)) ([]map[string]any, error) {
	out := make([]map[string]any, 0, len(all))
	for _, o := range all {
		doc, err := view(o)
		if err != nil {
			return nil, err
		}
		out = append(out, doc)
	}
	return out, nil
}

// item is the route that reads one object with get and shows it.
func item[T any](path, area, kind, typ, summary string, get func(ctx context.Context, participant, id string) (T, error), view func(*call, T) (map[string]any, error)) route {
	return route{method: "GET", path: path, area: area, summary: summary, answer: typ, do: func(c *call) (any, error) {
		o, err := get(c.Context(), c.participant.Ctx, c.id)
		if err != nil {
			return nil, describe(err, kind, c.id)
		}
		return view(c, o)
	}}
}

// text reads a member of the body that holds one string, number or reference; empty when it is absent.
func (c *call) text(name string) (string, error) { return text(c.body, "$", name) }

// required is text for a member that must be there.
func (c *call) required(name string) (string, error) {
	s, err := c.text(name)
	if err == nil && s == "" {
		err = missing("$." + name)
	}
	return s, err
}
