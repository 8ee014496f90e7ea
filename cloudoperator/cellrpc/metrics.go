// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// newCounter makes a counter of calls. A nil registerer registers nothing.
func newCounter(r prometheus.Registerer, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	if r != nil {
		r.MustRegister(c)
	}
	return c
}

// command says that the call may change something.
func (r Request) command() bool { return r.Method != http.MethodGet }

// kind is the label of a call.
func (r Request) kind() string {
	if r.command() {
		return "command"
	}
	return "query"
}

// outcome is what became of a call, for its caller.
func outcome(err error) string {
	switch {
	case err == nil:
		return "answered"
	case errors.Is(err, context.DeadlineExceeded):
		return "expired"
	case errors.Is(err, ErrNotConnected):
		return "not-connected"
	}
	return "failed"
}
