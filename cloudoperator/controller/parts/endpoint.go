// SPDX-License-Identifier: FSL-1.1-ALv2

package parts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/edcoperator/reach"
)

// Endpoint is where programs in the cluster reach a part.
type Endpoint struct {
	Host string
	Port int32
	// URL of a part that is reached by one; empty for PostgreSQL.
	URL string
	// CA is PEM of the authorities that are trusted for it; empty trusts the system's.
	CA []byte
	// External says that somebody else runs it, as field of the Platform says.
	External bool
	field    string // $.spec.postgresql.external
}

// Address is host:port.
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

var managed = map[string]struct {
	scheme string
	port   int32
}{
	PostgreSQL: {port: PortPostgreSQL}, OpenBao: {"https", PortOpenBao}, NATS: {"tls", PortNATS}, Keycloak: {"https", PortKeycloak},
}

// Platform is the one of the namespace; an empty one when there is none.
func (a Access) Platform(ctx context.Context) (*cloud.Platform, error) {
	var list cloud.PlatformList
	if err := a.Client.List(ctx, &list, client.InNamespace(a.Namespace)); err != nil {
		return nil, fmt.Errorf("list the platforms in %s: %w", a.Namespace, err)
	}
	if len(list.Items) == 0 {
		return &cloud.Platform{}, nil
	}
	return &list.Items[0], nil
}

// Endpoint of a part of the Platform, managed or external.
func (a Access) Endpoint(ctx context.Context, p *cloud.Platform, part string) (Endpoint, error) {
	if e, ok := external(p, part); ok {
		return e, nil
	}
	ca, err := a.CA(ctx)
	if err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{Host: Host(part, a.Namespace), Port: managed[part].port, CA: ca}
	if scheme := managed[part].scheme; scheme != "" {
		e.URL = (&url.URL{Scheme: scheme, Host: e.Address()}).String()
	}
	return e, nil
}

// External says whether somebody else runs the part, and at which host.
func External(p *cloud.Platform, part string) (host string, ok bool) {
	e, ok := external(p, part)
	return e.Host, ok
}

func external(p *cloud.Platform, part string) (Endpoint, bool) {
	if x := p.Spec.PostgreSQL.External; part == PostgreSQL && x != nil {
		return Endpoint{Host: x.Host, Port: x.Port, CA: []byte(x.CABundle), External: true, field: "$.spec.postgresql.external"}, true
	}
	return Endpoint{}, false
}

// reached is the endpoint as this operator reaches it, with TLS that expects the endpoint's name.
func (a Access) reached(ctx context.Context, p *cloud.Platform, part string) (Endpoint, *tls.Config, error) {
	e, err := a.Endpoint(ctx, p, part)
	if err != nil {
		return e, nil, err
	}
	t, err := pki.ClientTLS(e.CA, e.Host)
	if err != nil {
		return e, nil, &FaultError{cloud.ReasonInvalid, fmt.Sprintf("%s.caBundle: %v", e.field, err)}
	}
	d := a.Dial[part]
	if d == "" || e.External {
		return e, t, nil
	}
	host, port, err := net.SplitHostPort(d)
	if err != nil {
		return e, nil, fmt.Errorf("dial %s: %w", part, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return e, nil, fmt.Errorf("dial %s: %w", part, err)
	}
	e.Host, e.Port = host, int32(number)
	if scheme := managed[part].scheme; scheme != "" {
		e.URL = (&url.URL{Scheme: scheme, Host: d}).String()
	}
	return e, t, nil
}

// given reads a key of the Secret with which the operator logs in at an external part.
func (a Access) given(ctx context.Context, e Endpoint, secret cloud.SecretName, key string) (string, error) {
	v, err := a.key(ctx, secret.Name, key)
	if errors.Is(err, ErrNotSetUp) {
		return "", &FaultError{cloud.ReasonMissing, fmt.Sprintf("external: %s names Secret %s, which has no key %s: make it: kubectl -n %s create secret generic %[2]s --from-literal=%[3]s=…", e.field, secret.Name, key, a.Namespace)}
	}
	return string(v), err
}

// FaultError is why a part that somebody else runs cannot be used.
type FaultError struct {
	Reason  string // of a condition
	Message string // what is wrong, and what to do
}

func (f *FaultError) Error() string { return f.Message }

// fault tells apart why an external part cannot be used; an error of a managed one stays as it is. refused says that the part does not let the operator
// in with what is in secret.
func (e Endpoint) fault(err error, refused bool, secret cloud.SecretName) error {
	if err == nil || !e.External {
		return err
	}
	if refused {
		return &FaultError{cloud.ReasonLogin, fmt.Sprintf("external: %v: correct Secret %s, and see the log of the server", err, secret.Name)}
	}
	if p, ok := reach.Untrusted(err, e.field+".caBundle"); ok {
		return &FaultError{cloud.ReasonUntrusted, fmt.Sprintf("external: %s: %s: %s", e.Address(), p.Detail, p.Remedy)}
	}
	var op *net.OpError
	var dns *net.DNSError
	if errors.As(err, &op) || errors.As(err, &dns) || reach.TimedOut(err) {
		p := reach.Unreachable(err, e.Address(), e.field)
		return &FaultError{cloud.ReasonUnreachable, fmt.Sprintf("external: %s: %s: %s", e.Address(), p.Detail, p.Remedy)}
	}
	return fmt.Errorf("external: %w", err)
}
