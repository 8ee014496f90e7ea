// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/kaphera/kaphera/edcoperator/reach"
)

// renewBefore is how long before its end a certificate is complained about.
const renewBefore = 14 * 24 * time.Hour

// dial connects to address (host:port).
func (p *preflight) dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: p.timeout}).DialContext(ctx, "tcp", address)
}

// reach says whether somebody listens at address, which field of the manifest names.
func (p *preflight) reach(ctx context.Context, address, field string) finding {
	conn, err := p.dial(ctx, address)
	if err != nil {
		return p.unreachable(err, address, field)
	}
	defer func() { _ = conn.Close() }()
	return passed("%s (%s) accepts connections", address, conn.RemoteAddr())
}

// unreachable says why there is no connection to address, which field names.
func (p *preflight) unreachable(err error, address, field string) finding {
	problem := reach.Unreachable(err, address, field)
	return failed(problem.Remedy, "%s: %s", address, problem.Detail).retry()
}

// untrusted says why a certificate is not believed; trust names the field with the authorities. ok is false when err is about something else.
func untrusted(err error, trust string) (f finding, ok bool) {
	problem, ok := reach.Untrusted(err, trust)
	return failed(problem.Remedy, "%s", problem.Detail), ok
}

// certificate says until when the server's certificate is valid, and complains when that is soon.
func certificate(state tls.ConnectionState, what string) finding {
	leaf := state.PeerCertificates[0]
	detail := fmt.Sprintf("%s: %s, certificate valid until %s", what, tls.VersionName(state.Version), leaf.NotAfter.UTC().Format(time.RFC3339))
	if time.Until(leaf.NotAfter) < renewBefore {
		return warning("renew the server's certificate", "%s", detail)
	}
	return passed("%s", detail)
}
