// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/limits"
)

// MaxMessage bounds the bodies that the wallet and the issuer read, in bytes.
const MaxMessage = 2 << 20

// AnswerError is an answer that is not 2xx. Its message goes to the caller, so it says nothing that the caller should not know.
type AnswerError struct {
	Status  int
	Code    string
	Message string
}

// Error implements error.
func (e *AnswerError) Error() string { return e.Message }

// Failuref makes an AnswerError.
func Failuref(status int, code, format string, args ...any) error {
	return &AnswerError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Handler answers with what f returns as JSON; nil is 200 with an empty body. Errors: an AnswerError as it says, identity.ErrUnauthenticated as
// 401, a counterparty that cannot be reached as 503, anything else is logged and answered 500 without its text. Requests to the participant or issuer
// {ctx} of the path take a place of its share.
func Handler(log *slog.Logger, requests *limits.Shares, f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxMessage)
		r, leave, err := requests.Request(r, r.PathValue("ctx"))
		if err != nil {
			writeFailure(w, r, log, err)
			return
		}
		defer leave()
		out, err := f(r)
		if err != nil {
			writeFailure(w, r, log, err)
			return
		}
		if created, ok := out.(Created); ok {
			w.Header().Set("Location", created.Location)
			w.WriteHeader(http.StatusCreated)
			return
		}
		if raw, ok := out.(Raw); ok {
			w.Header().Set("Content-Type", raw.ContentType)
			w.Header().Set("Vary", "Accept")
			_, _ = w.Write(raw.Body)
			return
		}
		if out != nil {
			writeJSON(w, http.StatusOK, out)
		}
	})
}

// Created is an answer 201 with a Location and no body.
type Created struct{ Location string }

// Raw is an answer 200 with a body of its own kind.
type Raw struct {
	ContentType string
	Body        []byte
}

func writeFailure(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	var failure *AnswerError
	var tooLong *http.MaxBytesError
	var busy *limits.BusyError
	switch {
	case errors.As(err, &failure):
	case errors.As(err, &busy):
		w.Header().Set("Retry-After", "5")
		failure = &AnswerError{Status: http.StatusServiceUnavailable, Code: "busy", Message: busy.Error()}
	case errors.As(err, &tooLong):
		failure = &AnswerError{Status: http.StatusRequestEntityTooLarge, Code: "too-long", Message: fmt.Sprintf("the body is longer than %d bytes", tooLong.Limit)}
	case errors.Is(err, identity.ErrUnauthenticated):
		failure = &AnswerError{Status: http.StatusUnauthorized, Code: "unauthenticated", Message: err.Error()}
	case temporary(err):
		log.WarnContext(r.Context(), "request not handled for now", "method", r.Method, "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", "5")
		failure = &AnswerError{Status: http.StatusServiceUnavailable, Code: "counterparty-unreachable", Message: "what this needs from another party could not be reached; send it again later"}
	default:
		log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		failure = &AnswerError{Status: http.StatusInternalServerError, Code: "internal", Message: "something failed here; the log of this connector says what"}
	}
	writeJSON(w, failure.Status, adminapi.Error{Code: failure.Code, Message: failure.Message})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil { // a type of ours that cannot be written
		http.Error(w, "the answer could not be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // the caller has gone
}

// ReadBody reads a request's body; its size is bounded by Handler.
func ReadBody(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	var tooLong *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLong) {
		return nil, Failuref(http.StatusBadRequest, "invalid", "the body could not be read: %v", err)
	}
	return raw, err
}

// ReadMessage reads a DCP message of a type; what is wrong with it is answered 400.
func ReadMessage(r *http.Request, messageType string, into any) error {
	raw, err := ReadBody(r)
	if err != nil {
		return err
	}
	if err := DecodeMessage(raw, messageType, into); err != nil {
		return Failuref(http.StatusBadRequest, "invalid", "%v", err)
	}
	return nil
}

// ReadJSON reads a body of the internal API; unknown members are refused.
func ReadJSON(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	var tooLong *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLong) {
		return Failuref(http.StatusBadRequest, "invalid", "the body is not valid: %v", err)
	}
	return err
}
