// SPDX-License-Identifier: FSL-1.1-ALv2

package parts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/cloudoperator/pki"
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
	if x := p.Spec.Vault.External; part == OpenBao && x != nil {
		return at(x.Address, 443, x.CABundle, "$.spec.vault.external"), true
	}
	if x := p.Spec.NATS.External; part == NATS && x != nil {
		return at(x.URL, PortNATS, x.CABundle, "$.spec.nats.external"), true
	}
	if x := p.Spec.Keycloak.External; part == Keycloak && x != nil {
		return at(x.URL, 443, x.CABundle, "$.spec.keycloak.external"), true
	}
	return Endpoint{}, false
}

// at is the endpoint of a URL that the API server has looked at.
func at(address string, port int32, ca cloud.CABundle, field string) Endpoint {
	e := Endpoint{URL: strings.TrimSuffix(address, "/"), Port: port, CA: []byte(ca), External: true, field: field}
	if u, err := url.Parse(address); err == nil {
		e.Host = u.Hostname()
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			e.Port = int32(n)
		}
	}
	return e
}

// Reach is the endpoint as this operator reaches it, with TLS that expects the endpoint's name.
func (a Access) Reach(ctx context.Context, p *cloud.Platform, part string) (Endpoint, *tls.Config, error) {
	e, err := a.Endpoint(ctx, p, part)
	if err != nil {
		return e, nil, err
	}
	t, err := pki.ClientTLS(e.CA, e.Host)
	if err != nil {
		return e, nil, &fault.Error{Reason: cloud.ReasonInvalid, Detail: fmt.Sprintf("%s.caBundle: %v", e.field, err), Remedy: "put certificates in PEM into it"}
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

// Serves returns the certificate that a part shows. A *tls.CertificateVerificationError is wrapped when it is not to be trusted.
func (a Access) Serves(ctx context.Context, p *cloud.Platform, part string) (*x509.Certificate, error) {
	e, t, err := a.Reach(ctx, p, part)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.Address())
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", part, err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	switch part { // what comes before TLS
	case PostgreSQL:
		_, err = conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}) // SSLRequest
		if answer := make([]byte, 1); err == nil {
			_, err = conn.Read(answer)
		}
	case NATS:
		for b := make([]byte, 1); err == nil && b[0] != '\n'; { // INFO
			_, err = conn.Read(b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", part, err)
	}
	secured := tls.Client(conn, t)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS of %s: %w", part, err)
	}
	return secured.ConnectionState().PeerCertificates[0], nil
}

// given reads a key of the Secret with which the operator logs in at an external part.
func (a Access) given(ctx context.Context, e Endpoint, secret cloud.SecretName, key string) (string, error) {
	v, err := a.key(ctx, secret.Name, key)
	if errors.Is(err, ErrNotSetUp) {
		return "", &fault.Error{
			Reason: cloud.ReasonMissing, Detail: fmt.Sprintf("%s names Secret %s, which has no key %s", e.field, secret.Name, key),
			Remedy: fmt.Sprintf("kubectl -n %s create secret generic %s --from-literal=%s=…", a.Namespace, secret.Name, key),
		}
	}
	return string(v), err
}

// explain says of an external part why it cannot be used; an error of a managed one stays as it is.
func (e Endpoint) explain(err error) error {
	if !e.External {
		return err
	}
	return fault.Connection(err, e.Address(), e.field)
}
