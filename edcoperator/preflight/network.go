// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/edcoperator/reach"
)

// maxSkew is by how much clocks may differ: what the connector grants the times in tokens (verifier.maxClockSkew).
const maxSkew = 5 * time.Second

func (p *preflight) hostname(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	host := p.Runtime.Exposure.Hostname
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return warning("add it to the DNS that all participants use, with the address of the ingress controller: every DID of this runtime contains it",
			"spec.exposure.hostname %s is not resolved: %v", host, err).retry()
	}
	return passed("%s is %s", host, strings.Join(addresses, ", "))
}

// sample notes a clock.
func (p *preflight) sample(s sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.samples = append(p.samples, s)
}

// timed makes a call and notes the clock of who answers.
func (p *preflight) timed(whose string, c *http.Client, req *http.Request) (*http.Response, error) {
	from := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		p.sample(sample{whose: whose, from: from, to: time.Now(), at: at, within: time.Second})
	}
	return resp, nil
}

// clock compares the clocks that the other checks have read with this machine's.
func (p *preflight) clock(context.Context) finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.samples) == 0 {
		return skipped("no other clock was seen: nothing answered")
	}
	seen, wrong := map[string]bool{}, []string{}
	var whose []string
	for _, s := range p.samples {
		var skew time.Duration
		switch {
		case s.at.After(s.to):
			skew = s.at.Sub(s.to)
		case s.at.Add(s.within).Before(s.from):
			skew = s.at.Add(s.within).Sub(s.from)
		}
		if seen[s.whose] {
			continue
		}
		seen[s.whose] = true
		whose = append(whose, s.whose)
		if skew.Abs() > maxSkew {
			wrong = append(wrong, fmt.Sprintf("%s is %s %s", s.whose, skew.Abs().Round(time.Second), map[bool]string{true: "ahead", false: "behind"}[skew > 0]))
		}
	}
	if len(wrong) > 0 {
		return failed("let all of them keep the time by NTP; tokens are refused when clocks differ by more than "+maxSkew.String(), "compared with this machine's clock (%s): %s", time.Now().UTC().Format(time.RFC3339), sentences(wrong))
	}
	return passed("within %s of this machine's: %s", maxSkew, strings.Join(whose, ", "))
}

// peers is the client with which the runtime calls addresses that other participants name.
func (p *preflight) peers() (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if pem := p.Runtime.Trust.CABundle; pem != "" && !roots.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("spec.trust.caBundle holds no PEM certificate")
	}
	return dcp.NewHTTPClient(dcp.HTTPConfig{Roots: roots, Timeout: p.timeout, Networks: netguard.Guard{AllowPrivate: p.Runtime.Trust.AllowPrivateNetworks, AllowLoopback: p.loopback}}), nil
}

// toCounterparts does something for each counterpart; what is wrong with any of them fails the check.
func (p *preflight) toCounterparts(good string, do func(c *http.Client, did string) finding) finding {
	if len(p.Counterparts) == 0 {
		return skipped("no counterpart is given")
	}
	c, err := p.peers()
	if err != nil {
		return failed("put the PEM of the authorities into it", "%v", err)
	}
	defer c.CloseIdleConnections()
	var sum finding
	var wrong []string
	for _, did := range p.Counterparts {
		if f := do(c, did); f.result != Passed {
			wrong = append(wrong, did+": "+f.detail)
			sum.remedy, sum.again = f.remedy, sum.again || f.again
		}
	}
	if len(wrong) == 0 {
		return passed(good, strings.Join(p.Counterparts, ", "))
	}
	sum.result, sum.detail = Failed, sentences(wrong)
	return sum
}

func (p *preflight) counterpartDID(ctx context.Context) finding {
	return p.toCounterparts("the DID documents of %s are published", func(c *http.Client, did string) finding {
		at, err := dcp.WebURL(did, false)
		if err != nil {
			return failed("give the DID of a participant, such as did:web:partner.example:acme", "%v", err)
		}
		raw, f := p.get(ctx, c, did, at)
		if f.result != "" {
			return f
		}
		doc, err := dcp.ParseDocument(raw, did)
		if err != nil {
			return failed("ask the counterpart to publish the DID document of this DID there", "%s: %v", at, err)
		}
		p.documents[did] = doc
		return passed("%s", at)
	})
}

func (p *preflight) counterpartDSP(ctx context.Context) finding {
	const ask = "ask the counterpart which address its connector has, and that it speaks DSP " + wire.Version
	return p.toCounterparts("the connectors of %s speak DSP "+wire.Version, func(c *http.Client, did string) finding {
		address, err := p.documents[did].ServiceEndpoint(dcp.DataService)
		if err != nil {
			return failed(ask, "%v", err)
		}
		if !strings.HasSuffix(address, versionEndpoint) {
			address += versionEndpoint
		}
		raw, f := p.get(ctx, c, did, address)
		if f.result != "" {
			return f
		}
		var versions struct {
			ProtocolVersions []struct {
				Version string `json:"version"`
			} `json:"protocolVersions"`
		}
		if err := json.Unmarshal(raw, &versions); err != nil {
			return failed(ask, "%s is not understood: %v", address, err)
		}
		var listed []string
		for _, v := range versions.ProtocolVersions {
			if v.Version == wire.Version {
				return passed("%s", address)
			}
			listed = append(listed, v.Version)
		}
		return failed(ask, "%s lists the versions %q, and not %s", address, listed, wire.Version)
	})
}

// versionEndpoint ends the address of a version endpoint (DSP 2025-1 §5.1).
const versionEndpoint = "/.well-known/dspace-version"

// get fetches what a counterpart publishes.
func (p *preflight) get(ctx context.Context, c *http.Client, whose, address string) ([]byte, finding) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, failed("ask the counterpart for its address", "%s: %v", address, err)
	}
	resp, err := p.timed(whose, c, req)
	if err != nil {
		var refused *netguard.RefusedError
		if errors.As(err, &refused) {
			return nil, failed("set spec.trust.allowPrivateNetworks if participants meet on an internal network, or correct the DNS", "%s: %v", address, refused)
		}
		if f, ok := untrusted(err, "spec.trust.caBundle"); ok {
			f.detail = address + ": " + f.detail
			return nil, f
		}
		return nil, p.unreachable(err, address, "the counterpart's address")
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, failed("try again", "%s: the answer breaks off: %v", address, err).retry()
	case resp.StatusCode != http.StatusOK:
		return nil, failed("ask the counterpart whether it serves this address", "%s answers %s", address, resp.Status)
	}
	return raw, finding{}
}

// proxy asks the proxy for a tunnel to the cloud.
func (p *preflight) proxy(ctx context.Context) finding {
	if p.Proxy == "" || p.Cloud == "" {
		return skipped("no proxy is given, or no address of the cloud to reach through it")
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	conn, f := p.tunnel(ctx)
	if conn != nil {
		_ = conn.Close()
	}
	return f
}

// tunnel is a connection to the cloud through the proxy (CONNECT, RFC 9110, section 9.3.6); nil where the finding says why there is none.
func (p *preflight) tunnel(ctx context.Context) (net.Conn, finding) {
	proxy, f := p.proxyURL(ctx)
	if f.result != "" {
		return nil, f
	}
	roots, err := reach.Pool(p.ProxyCA)
	if err != nil {
		return nil, failed("put the PEM of the authority into it", "the proxy's authorities: %v", err)
	}
	target, err := target(p.Cloud)
	if err != nil {
		return nil, failed("write it as https://api.example", "%v", err)
	}
	address := net.JoinHostPort(proxy.Hostname(), strconv.Itoa(int(netguard.Port(proxy))))
	conn, err := p.dial(ctx, address)
	if err != nil {
		return nil, p.unreachable(err, address, "the proxy's address")
	}
	_ = conn.SetDeadline(time.Now().Add(p.timeout)) // a connection that is open takes one
	refused := func(f finding) (net.Conn, finding) {
		_ = conn.Close()
		return nil, f
	}
	if proxy.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			if f, ok := untrusted(err, "the proxy's authorities (spec.proxy.caBundle, or else the system's)"); ok {
				f.detail = address + ": " + f.detail
				return refused(f)
			}
			return refused(p.unreachable(err, address, "the proxy's address"))
		}
		conn = secure
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{}}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return refused(p.unreachable(err, address, "the proxy's address"))
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req) // in TLS the client speaks first: nothing of the cloud is read along
	if err != nil {
		return refused(failed("check that this is the address of an HTTP proxy", "%s does not answer as a proxy: %v", address, err).retry())
	}
	_ = resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return refused(failed("put user and password into the proxy's address: http://user:password@host:port, or into the Secret spec.proxy.credentialsSecret", "%s wants a log-in (%s)", address, resp.Status))
	case resp.StatusCode/100 != 2:
		return refused(failed("let the proxy allow CONNECT to "+target, "%s refuses CONNECT to %s: %s", address, target, resp.Status))
	}
	return conn, passed("%s opens a tunnel to %s", address, target)
}

// proxyURL is the address of the proxy with its log-in. A finding with a result says why not.
func (p *preflight) proxyURL(ctx context.Context) (*url.URL, finding) {
	proxy, err := url.Parse(p.Proxy)
	if err != nil || proxy.Host == "" || (proxy.Scheme != "http" && proxy.Scheme != "https") {
		return nil, failed("write it as http://proxy.example:3128", "the address of the proxy is no http(s) address")
	}
	if p.ProxySecret == "" {
		return proxy, finding{}
	}
	const key = "credentials"
	data, f := p.secret(ctx, p.ProxySecret, key)
	if f.result != "" {
		return nil, f
	}
	user, password, ok := strings.Cut(strings.TrimRight(data[key], "\r\n"), ":") // as the agent reads it
	if !ok || user == "" {
		return nil, failed("write user:password into it", "Secret %s/%s: key %s is no user:password", p.Runtime.Namespace, p.ProxySecret, key)
	}
	proxy.User = url.UserPassword(user, password)
	return proxy, finding{}
}

// target is host and port of an https address.
func target(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" || u.User != nil {
		return "", errors.New("the address of the cloud is no https address")
	}
	return net.JoinHostPort(u.Hostname(), strconv.Itoa(int(netguard.Port(u)))), nil
}

// cloud makes a call to the cloud as the cell's agent would, through the proxy if there is one. Any answer will do.
func (p *preflight) cloud(ctx context.Context) finding {
	if p.Cloud == "" {
		return skipped("no address of the cloud is given")
	}
	if _, err := target(p.Cloud); err != nil {
		return failed("write it as https://api.example", "%v", err)
	}
	roots, err := reach.Pool(p.CloudCA)
	if err != nil {
		return failed("put the PEM of the authority into it", "the cloud's authorities: the file %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	through := "directly"
	if p.Proxy != "" {
		conn, f := p.tunnel(ctx)
		if conn == nil {
			return f
		}
		defer func() { _ = conn.Close() }()
		transport.DialContext, through = func(context.Context, string, string) (net.Conn, error) { return conn, nil }, "through the proxy"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Cloud, nil)
	if err != nil {
		return failed("write it as https://api.example", "%v", err)
	}
	resp, err := p.timed("the cloud", &http.Client{Transport: transport, Timeout: p.timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, req)
	if err != nil {
		if f, ok := untrusted(err, "the cloud's authorities (--ca-file)"); ok {
			f.detail = p.Cloud + ": " + f.detail
			return f
		}
		return p.unreachable(err, p.Cloud, "the cloud's address")
	}
	_ = resp.Body.Close()
	return passed("%s answers, %s", p.Cloud, through)
}
