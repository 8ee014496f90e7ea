// SPDX-License-Identifier: Apache-2.0

// Package management serves the control plane's internal port: the admin API (/admin/v1) for the EDC operator and the plain JSON view of
// each participant (/api/{ctx}/v1) for agents and portals; the EDC Management API beside them is connector/management/edc. It checks,
// translates and calls connector/dsp and connector/store; it decides nothing about the protocol.
package management

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/vault"
)

// Secrets writes a participant's secrets, such as a backend's API key.
type Secrets interface {
	PutSecret(ctx context.Context, owner, alias, value string) error
	DeleteSecrets(ctx context.Context, owner string) error
}

// DataPlane removes the data flows of a participant context.
type DataPlane interface {
	Forget(ctx context.Context, participantCtx string) error
}

// Deps is what the APIs need.
type Deps struct {
	Engine        *dsp.Engine
	Store         *store.Store
	Secrets       Secrets
	DataPlane     DataPlane
	InternalToken string // of /admin and /api
	// DataPlaneToken opens nothing but the question whether an access is allowed.
	DataPlaneToken string
	// Fetch fetches data from the providers' data planes; without overall time-out, since data may be long.
	Fetch *http.Client
	// Backends says where the data plane reads data from.
	Backends netguard.Guard
	// AuditLeaving are the types of audit records whose bodies may leave the cell; records of other types leave without them. Default audit.Leaving.
	AuditLeaving []string
	// Requests to the view of each participant at once; nil: not bounded. What the operator asks has no part in that.
	Requests *limits.Shares
	// Streams of it, which last, have a share of their own.
	Streams *limits.Shares
	Log     *slog.Logger
}

type server struct{ Deps }

const maxBody = 2 << 20 // bytes of a request

// New makes the handler of the internal port.
func New(d Deps) (http.Handler, error) {
	if d.Engine == nil || d.Store == nil || d.Secrets == nil || d.DataPlane == nil || d.Fetch == nil || d.Log == nil {
		return nil, errors.New("management: engine, store, secrets, data plane, HTTP client and log are all needed")
	}
	if d.InternalToken == "" || d.DataPlaneToken == "" {
		return nil, errors.New("management: an internal token is empty: set internal.tokenFile")
	}
	if d.AuditLeaving == nil {
		d.AuditLeaving = audit.Leaving
	}
	s := &server{d}
	internal := http.NewServeMux()
	s.adminRoutes(internal)
	s.offerRoutes(internal)
	s.processRoutes(internal)
	mux := http.NewServeMux()
	guarded := Bearer(d.InternalToken, internal)
	mux.Handle("/admin/v1/", guarded)
	mux.Handle("/api/", guarded)
	mux.Handle("/api/{ctx}/", Bearer(d.InternalToken, s.bounded(d.Requests, internal)))
	for _, stream := range []string{"negotiations/{id}/events", "transfers/{id}/data", "transfers/{id}/data/{path...}"} {
		mux.Handle("/api/{ctx}/v1/"+stream, Bearer(d.InternalToken, s.bounded(d.Streams, internal)))
	}
	mux.Handle("POST /internal/v1/{ctx}/transfers/{id}/access", Bearer(d.DataPlaneToken, s.handle(http.StatusOK, s.judgeAccess)))
	return mux, nil
}

// Bearer lets only requests with the given bearer token through. It compares digests, so that neither content nor length of the token shows
// in the time it takes.
func Bearer(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			writeJSON(w, http.StatusUnauthorized, adminapi.Error{Code: "unauthenticated", Message: "the token of this API is missing or wrong"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, acting(r))
	})
}

// bounded lets so many requests to a participant through as are its share.
func (s *server) bounded(share *limits.Shares, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, leave, err := share.Request(r, r.PathValue("ctx"))
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer leave()
		next.ServeHTTP(w, r)
	})
}

// handle makes a handler of a function that returns what to answer; a nil body is 204.
func (s *server) handle(status int, f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		switch {
		case err != nil:
			s.fail(w, r, err)
		case out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			writeJSON(w, status, out)
		}
	}
}

// inParticipant is handle for what belongs to a participant, which must exist.
func (s *server) inParticipant(status int, f func(r *http.Request, p *store.Participant) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.handle(status, func(r *http.Request) (any, error) {
			p, err := s.participant(r)
			if err != nil {
				return nil, err
			}
			if r.Method != http.MethodGet {
				if r, err = Recorded(w, r, p.Ctx, below(r), r.PathValue("alias") != ""); err != nil {
					return nil, invalid("the body is not understood: %s", err)
				}
			}
			out, err := f(r, p)
			return s.leaving(r, p, out), err
		})(w, r)
	}
}

func (s *server) participant(r *http.Request) (*store.Participant, error) {
	p, err := s.Store.Participant(r.Context(), r.PathValue("ctx"))
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound("participant context", r.PathValue("ctx"))
	}
	return p, err
}

func notFound(kind, id string) error {
	return &dsp.RefusalError{Status: http.StatusNotFound, Code: "not-found", Message: fmt.Sprintf("there is no %s %q", kind, id)}
}

func invalid(format string, args ...any) error {
	return &dsp.RefusalError{Status: http.StatusUnprocessableEntity, Code: "invalid", Message: fmt.Sprintf(format, args...)}
}

// describe turns ErrNotFound into words about what was looked for.
func describe(err error, kind, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return notFound(kind, id)
	}
	return err
}

// fail writes an error. What is not meant for the caller is logged and stays here.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, body := s.errorBody(r, err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, status, body)
}

func (s *server) errorBody(r *http.Request, err error) (int, adminapi.Error) {
	var refusal *dsp.RefusalError
	var policy *odrl.Error
	var unaccepted *gate.RefusedError
	var busy *limits.BusyError
	switch {
	case errors.As(err, &busy):
		return http.StatusServiceUnavailable, adminapi.Error{Code: "busy", Message: busy.Error()}
	case errors.As(err, &refusal):
		return refusal.Status, adminapi.Error{Code: refusal.Code, Message: refusal.Message, Trace: refusal.Trace}
	case errors.As(err, &unaccepted):
		return http.StatusConflict, adminapi.Error{Code: unaccepted.Code, Message: unaccepted.Message}
	case errors.As(err, &policy):
		return http.StatusUnprocessableEntity, adminapi.Error{Code: "invalid", Message: policy.Message, Path: policy.Path}
	case errors.Is(err, store.ErrNotFound), errors.Is(err, vault.ErrNotFound):
		return http.StatusNotFound, adminapi.Error{Code: "not-found", Message: "not found"}
	case errors.Is(err, store.ErrText):
		return http.StatusBadRequest, adminapi.Error{Code: "invalid", Message: err.Error()}
	case errors.Is(err, store.ErrConflict):
		return http.StatusConflict, adminapi.Error{Code: "conflict", Message: err.Error()}
	case errors.Is(err, context.Canceled):
		return 499, adminapi.Error{Code: "canceled", Message: "the caller has gone away"}
	}
	s.Log.ErrorContext(r.Context(), "a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return http.StatusInternalServerError, adminapi.Error{Code: "internal", Message: "the connector failed to answer; its log says why"}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the caller may be gone
}

// decode reads a JSON body strictly: a member that is not known is refused by name.
func decode[T any](r *http.Request) (T, error) {
	var v T
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, invalid("the body is not understood: %s", err)
	}
	return v, nil
}

// optional is decode for a body that may be absent.
func optional[T any](r *http.Request) (T, error) {
	if r.ContentLength == 0 {
		var v T
		return v, nil
	}
	return decode[T](r)
}

// waitFor is how long a long poll waits.
const waitFor = 20 * time.Second

// recheck is how often a long poll looks for changes that another process of the connector made.
const recheck = 500 * time.Millisecond
