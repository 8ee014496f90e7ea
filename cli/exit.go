// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/kaphera/kaphera/client"
)

// Exit codes, as "kaphera help exit-codes" lists them.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitRefused     = 3
	ExitUnreachable = 4
	ExitLogin       = 5
	ExitNotFound    = 6
	ExitInterrupted = 130
)

const exitCodesHelp = `Exit codes of every command:
  0    done
  1    failed
  2    wrong usage: an unknown command or flag, a missing argument
  3    denied by a policy: one's own or the counterparty's
  4    unreachable: the Cloud API, the identity provider or a cell does not answer
  5    not logged in, or not allowed
  6    there is no such thing
  130  interrupted
`

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// failure is an error with what to do next, and the exit code that it means.
type failure struct {
	message, next string
	code          int
}

func (f *failure) Error() string { return f.message }

func fail(code int, next, format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), next, code}
}

// exitCode of an error.
func exitCode(err error) int {
	var f *failure
	var u usageError
	e := client.AsError(err)
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.As(err, &u):
		return ExitUsage
	case errors.As(err, &f):
		return f.code
	case e == nil:
		return ExitFailed
	case e.Code == "policy-denied", e.Code == "purpose-not-offered":
		return ExitRefused
	case e.Code == client.CodeUnreachable, e.Code == "cell-not-connected", e.Code == "not-ready", e.Code == "counterparty-unreachable",
		e.Status == http.StatusBadGateway, e.Status == http.StatusServiceUnavailable:
		return ExitUnreachable
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return ExitLogin
	case e.Status == http.StatusNotFound:
		return ExitNotFound
	}
	return ExitFailed
}

// report prints an error: what was wrong, the trace if a policy said no, what to do next. command is the one that was called.
func (a *app) report(err error, command string) {
	if errors.Is(err, context.Canceled) {
		fprintln(a.err, "interrupted")
		return
	}
	next := advice(err)
	var u usageError
	if errors.As(err, &u) {
		next = "see: " + command + " --help"
	}
	e := client.AsError(err)
	fprintln(a.err, a.style(a.err).bad("error: ")+strings.TrimSpace(err.Error()))
	if e != nil && e.Trace.Phase+e.Trace.By != "" {
		a.printTrace(a.err, e.Trace)
	}
	if next != "" {
		fprintln(a.err, a.style(a.err).faint("next:  ")+next)
	}
}

// advice is what to do about an error; empty when it does not say.
func advice(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.next
	}
	if e := client.AsError(err); e != nil {
		return e.Next
	}
	return ""
}
