// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// Problem is the body of every answer that is no success (RFC 9457, application/problem+json).
type Problem struct { //nolint:errname // its name in the API document
	Type   string       `json:"type,omitempty" doc:"urn:kaphera:problem: and the code"`
	Title  string       `json:"title" doc:"The HTTP status in words"`
	Status int          `json:"status" doc:"The HTTP status"`
	Code   string       `json:"code" doc:"Stable, for programs: not-found, invalid, conflict, managed-elsewhere, policy-denied, cell-not-connected, ..."`
	Detail string       `json:"detail" doc:"What was wrong, with which value"`
	Next   string       `json:"next,omitempty" doc:"What to do"`
	Errors []FieldError `json:"errors,omitempty" doc:"What is wrong with which field"`
	// ManagedBy is who manages the object that the call would have changed (code managed-elsewhere).
	ManagedBy string `json:"managedBy,omitempty" doc:"Who manages the object (code managed-elsewhere)"`
	// Trace is the policy evaluation that denied the call (code policy-denied).
	Trace *adminapi.Trace `json:"trace,omitempty" doc:"The policy evaluation that denied the call (code policy-denied)"`

	cause error // for the log only
}

// FieldError is what is wrong with one field.
type FieldError struct {
	Location string `json:"location" doc:"Path of the field, e.g. spec.identity.context"`
	Message  string `json:"message"`
}

// Problem codes.
const (
	CodeInvalid          = "invalid"
	CodeUnauthenticated  = "unauthenticated"
	CodeForbidden        = "forbidden"
	CodeNotFound         = "not-found"
	CodeConflict         = "conflict"
	CodeExists           = "already-exists"
	CodeManagedElsewhere = "managed-elsewhere"
	CodePolicyDenied     = "policy-denied"
	CodeNotReady         = "not-ready"
	CodeNotConnected     = "cell-not-connected"
	CodeConnector        = "connector-failed"
	CodeInternal         = "internal"
)

func problem(status int, code, detail, next string) *Problem {
	return &Problem{Type: "urn:kaphera:problem:" + code, Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Next: next}
}

// internalError hides the cause from the caller; it is logged.
func internalError(cause error) *Problem {
	p := problem(http.StatusInternalServerError, CodeInternal, "the Cloud API could not do this", "try again; when it stays, look at the log of the Cloud API")
	p.cause = cause
	return p
}

func (p *Problem) Error() string {
	out := p.Detail
	for _, e := range p.Errors {
		out += "; " + e.Location + ": " + e.Message
	}
	return out
}

// Unwrap returns the cause that the caller is not told.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus makes a Problem huma's error type.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is RFC 9457's.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// The errors that huma makes itself (a body that does not fit the schema, an unknown parameter) take the same form.
func init() {
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		p := problem(status, codeOf(status), msg, "")
		for _, err := range errs {
			var known *Problem
			if errors.As(err, &known) {
				return known
			}
			var d huma.ErrorDetailer
			switch {
			case errors.As(err, &d):
				p.Errors = append(p.Errors, fieldError(d.ErrorDetail()))
			case status < http.StatusInternalServerError && err != nil:
				p.Errors = append(p.Errors, FieldError{Message: err.Error()})
			default:
				p.cause = errors.Join(p.cause, err)
			}
		}
		if status == http.StatusInternalServerError {
			slog.Error("call failed", "error", p.cause, "detail", msg)
			p = internalError(p.cause)
		}
		if len(p.Errors) > 0 {
			p.Detail, p.Next = "the request is not valid", "correct the fields listed"
		}
		return p
	}
}

func fieldError(d *huma.ErrorDetail) FieldError {
	return FieldError{strings.TrimPrefix(strings.TrimPrefix(d.Location, "body."), "body"), d.Message}
}

func codeOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return CodeUnauthenticated
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return CodeConflict
	case http.StatusInternalServerError:
		return CodeInternal
	}
	return CodeInvalid
}

func notFound(noun, name string) *Problem {
	return problem(http.StatusNotFound, CodeNotFound, fmt.Sprintf("there is no %s %q that you may see", noun, name),
		fmt.Sprintf("list them: kaphera get %ss", strings.ReplaceAll(noun, " ", "-")))
}
