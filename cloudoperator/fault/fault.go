// SPDX-License-Identifier: FSL-1.1-ALv2

// Package fault says why a part of the platform, such as one that somebody else runs, cannot be used.
package fault

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/reach"
)

// Error is what is wrong, and what to do about it.
type Error struct {
	Reason         string // of a condition
	Detail, Remedy string
}

func (e *Error) Error() string { return e.Detail + ": " + e.Remedy }

// Right is that the part, or the operator's account there, lacks something.
func Right(remedy, format string, args ...any) *Error {
	return &Error{Reason: cloud.ReasonRights, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Login is that the part does not let the operator in.
func Login(remedy, format string, args ...any) *Error {
	return &Error{Reason: cloud.ReasonLogin, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Connection tells apart why the part at address is not reached, as far as err is about that; field of the Platform says where it is, and its caBundle
// whom it is trusted for. Another error stays as it is.
func Connection(err error, address, field string) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	if p, ok := reach.Untrusted(err, field+".caBundle"); ok {
		return &Error{cloud.ReasonUntrusted, address + ": " + p.Detail, p.Remedy}
	}
	var op *net.OpError
	var dns *net.DNSError
	var u *url.Error
	if errors.As(err, &op) || errors.As(err, &dns) || errors.As(err, &u) || reach.TimedOut(err) {
		p := reach.Unreachable(err, address, field)
		return &Error{cloud.ReasonUnreachable, address + ": " + p.Detail, p.Remedy}
	}
	return err
}
