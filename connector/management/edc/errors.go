// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/vault"
)

// Types of errors, as EDC names them.
const (
	typeInvalid         = "ValidationFailure"
	typeRequest         = "InvalidRequest"
	typeNotFound        = "ObjectNotFound"
	typeConflict        = "ObjectConflict"
	typeUnauthenticated = "AuthenticationFailed"
	typeForbidden       = "NotAuthorized"
	typeGateway         = "BadGateway"
	typeUnavailable     = "ServiceUnavailable"
	typeInternal        = "InternalServerError"
)

// apiError is one entry of an error body; Path is a JSON path.
type apiError struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
	Type    string `json:"type"`
	Path    string `json:"path"`
	Value   any    `json:"invalidValue"`
}

func (e *apiError) Error() string { return e.Path + ": " + e.Message }

// body writes an empty path as null, as EDC does.
func (e *apiError) body() map[string]any {
	out := map[string]any{"message": e.Message, "type": e.Type, "path": nil, "invalidValue": e.Value}
	if e.Path != "" {
		out["path"] = e.Path
	}
	return out
}

func invalid(path, message string) error {
	return &apiError{Status: http.StatusBadRequest, Type: typeInvalid, Path: path, Message: message}
}

func invalidValue(path string, value any, format string, args ...any) error {
	return &apiError{Status: http.StatusBadRequest, Type: typeInvalid, Path: path, Message: fmt.Sprintf(format, args...), Value: value}
}

func missing(path string) error { return invalid(path, "mandatory value is missing") }

func notFound(kind, id string) error {
	return &apiError{Status: http.StatusNotFound, Type: typeNotFound, Message: fmt.Sprintf("there is no %s %q", kind, id)}
}

// describe says about which object of which kind the store could not do something.
func describe(err error, kind, id string) error {
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, vault.ErrNotFound):
		return notFound(kind, id)
	case errors.Is(err, store.ErrConflict), errors.Is(err, vault.ErrExists):
		return &apiError{Status: http.StatusConflict, Type: typeConflict, Message: fmt.Sprintf("%s %q: %s", kind, id, err)}
	}
	return err
}

// types of errors by the status of an answer.
var types = map[int]string{http.StatusBadRequest: typeRequest, http.StatusUnauthorized: typeUnauthenticated, http.StatusForbidden: typeForbidden,
	http.StatusNotFound: typeNotFound, http.StatusConflict: typeConflict, http.StatusBadGateway: typeGateway, http.StatusServiceUnavailable: typeUnavailable}

// explain turns any error into what the caller reads: one entry for each fault. What is not meant for the caller is logged and stays here.
func (a *api) explain(r *http.Request, err error) (int, []*apiError) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*apiError
		status := 0
		for _, e := range joined.Unwrap() {
			s, one := a.explain(r, e)
			status = max(status, s)
			out = append(out, one...)
		}
		return status, out
	}
	var own *apiError
	var refusal *dsp.RefusalError
	var policy *odrl.Error
	var query *store.QueryError
	var large *http.MaxBytesError
	var busy *limits.BusyError
	switch {
	case errors.As(err, &busy):
		own = &apiError{Status: http.StatusServiceUnavailable, Type: typeUnavailable, Message: busy.Error()}
	case errors.As(err, &own):
	case errors.As(err, &refusal):
		own = &apiError{Status: refusal.Status, Message: refusal.Message}
		if own.Status == http.StatusUnprocessableEntity {
			own.Status = http.StatusBadRequest
		}
		if own.Type = types[own.Status]; own.Type == "" {
			own.Type = typeInternal
		}
	case errors.As(err, &policy):
		own = &apiError{Status: http.StatusBadRequest, Type: typeInvalid, Path: policy.Path, Message: policy.Message}
	case errors.As(err, &query):
		own = &apiError{Status: http.StatusBadRequest, Type: typeInvalid, Path: "$." + query.Path, Message: query.Message}
	case errors.As(err, &large):
		own = &apiError{Status: http.StatusRequestEntityTooLarge, Type: typeRequest, Message: fmt.Sprintf("the body is longer than %d bytes", large.Limit)}
	case errors.Is(err, store.ErrText):
		own = &apiError{Status: http.StatusBadRequest, Type: typeInvalid, Message: err.Error()}
	case errors.Is(err, vault.ErrName):
		own = &apiError{Status: http.StatusBadRequest, Type: typeInvalid, Path: "$.@id", Message: err.Error()}
	case errors.Is(err, store.ErrConflict):
		own = &apiError{Status: http.StatusConflict, Type: typeConflict, Message: err.Error()}
	case errors.Is(err, context.Canceled):
		own = &apiError{Status: 499, Type: typeRequest, Message: "the caller has gone away"}
	default:
		a.Log.ErrorContext(r.Context(), "a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		own = &apiError{Status: http.StatusInternalServerError, Type: typeInternal, Message: "the connector failed to answer; its log says why"}
	}
	return own.Status, []*apiError{own}
}
