// SPDX-License-Identifier: FSL-1.1-ALv2

package cloudoperator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/cloudoperator/pki"
)

// proxyTimeout bounds reaching the proxy and its answer, which includes its own connection to the message server.
const proxyTimeout = 10 * time.Second

// proxy is a nats.CustomDialer through an HTTP proxy's CONNECT (RFC 9110, section 9.3.6). TLS with the message server runs inside.
type proxy struct {
	url                 *url.URL // without a login, so that it may be logged
	caFile, credentials string
	timeout             time.Duration
}

// newProxy takes http(s)://host:port, the file of the authority of an https proxy (empty: the system's), and a file with user:password (empty:
// no login). The files are read at each connection.
func newProxy(address, caFile, credentials string) (*proxy, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil: // it quotes the value, which may hold a password
		return nil, errors.New("it is no URL; write http://host:port or https://host:port")
	case u.User != nil:
		return nil, errors.New("it holds a login, which would be in the pod's description; write user:password into a file and name that with --nats-proxy-credentials")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("%s: write http://host:port or https://host:port", u)
	}
	return &proxy{url: u, caFile: caFile, credentials: credentials, timeout: proxyTimeout}, nil
}

// Dial implements nats.CustomDialer. The proxy resolves the name.
func (p *proxy) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	conn, err := p.reach(ctx, network)
	if err != nil {
		return nil, fmt.Errorf("reach the proxy %s (--nats-proxy): %w", p.url, err)
	}
	through, err := p.connect(ctx, conn, address)
	if err != nil {
		_ = conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("it does not answer within %s; ask who runs it whether it may connect to %s, or whether it is a proxy at all", p.timeout, address)
		}
		return nil, fmt.Errorf("proxy %s (--nats-proxy), CONNECT %s: %w", p.url, address, err)
	}
	return through, nil
}

func (p *proxy) reach(ctx context.Context, network string) (net.Conn, error) {
	if p.url.Scheme == "http" {
		return (&net.Dialer{}).DialContext(ctx, network, p.url.Host)
	}
	pool, err := poolOf(p.caFile)
	if err != nil {
		return nil, fmt.Errorf("--nats-proxy-ca: %w", err)
	}
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}).DialContext(ctx, network, p.url.Host)
	if unknown := (*tls.CertificateVerificationError)(nil); errors.As(err, &unknown) {
		return nil, fmt.Errorf("%w; name the file of its authority with --nats-proxy-ca", err)
	}
	return conn, err
}

// poolOf reads a file of authorities; no file, or an empty one, is the system's.
func poolOf(file string) (pool *x509.CertPool, err error) {
	var bundle []byte
	if file != "" {
		if bundle, err = os.ReadFile(file); err != nil { // #nosec G304 -- the operator's own setting
			return nil, err
		}
	}
	if pool, err = pki.Pool(bundle); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return pool, nil
}

func (p *proxy) connect(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if err := p.login(req.Header); err != nil {
		return nil, err
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(io.LimitReader(conn, 16<<10))
	resp, err := http.ReadResponse(r, req) //nolint:bodyclose // a success has no body, whatever its headers say, and a refusal ends the connection
	if err != nil {
		return nil, fmt.Errorf("it does not answer as an HTTP proxy does: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, p.refused(resp, address)
	}
	early := make([]byte, r.Buffered()) // without WebSocket a NATS server speaks first
	if _, err := io.ReadFull(r, early); err != nil {
		return nil, err
	}
	return &tunnel{Conn: conn, r: io.MultiReader(bytes.NewReader(early), conn)}, conn.SetDeadline(time.Time{})
}

// login adds the credentials. What is in the file is never in an error.
func (p *proxy) login(h http.Header) error {
	if p.credentials == "" {
		return nil
	}
	raw, err := os.ReadFile(p.credentials)
	if err != nil {
		return fmt.Errorf("--nats-proxy-credentials: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(raw), "\r\n"), ":")
	if !ok || user == "" {
		return fmt.Errorf("--nats-proxy-credentials %s: it must hold user:password", p.credentials)
	}
	basic := http.Request{Header: http.Header{}}
	basic.SetBasicAuth(user, password)
	h.Set("Proxy-Authorization", basic.Header.Get("Authorization"))
	return nil
}

// refused says what the proxy's answer means and who can change it.
func (p *proxy) refused(resp *http.Response, address string) error {
	next := "is it a proxy that takes CONNECT?"
	switch resp.StatusCode {
	case http.StatusProxyAuthRequired:
		schemes := resp.Header.Values("Proxy-Authenticate")
		basic := func(s string) bool { return len(s) >= 5 && strings.EqualFold(s[:5], "basic") }
		switch {
		case len(schemes) > 0 && !slices.ContainsFunc(schemes, basic):
			next = fmt.Sprintf("it wants a login by %q and the agent has Basic only; ask who runs it for that, or to let this cell through without", schemes)
		case p.credentials == "":
			next = "it wants a login; write user:password into a file and name that with --nats-proxy-credentials"
		default:
			next = "it refuses the login in " + p.credentials
		}
	case http.StatusForbidden:
		next = "ask who runs it to allow CONNECT to " + address
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		next = fmt.Sprintf("it does not reach %s; ask who runs it whether it resolves that name and may connect there", address)
	}
	return fmt.Errorf("it answers %d %s; %s", resp.StatusCode, http.StatusText(resp.StatusCode), next)
}

// tunnel reads first what came together with the proxy's answer.
type tunnel struct {
	net.Conn
	r io.Reader
}

// Read implements net.Conn.
func (t *tunnel) Read(b []byte) (int, error) { return t.r.Read(b) }
