// SPDX-License-Identifier: FSL-1.1-ALv2

package cloudoperator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kaphera/kaphera/cloudoperator/agent"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const patience = 2 * time.Minute

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// gate is an HTTP proxy that lets CONNECT through to one host and port.
type gate struct {
	allow, to string // what may be asked for, and where that is: nobody else resolves the name
	login     string // user:password that it wants
	schemes   string // of log-ins that it offers
	answers   int    // in place of connecting
	silent    bool
	listener  net.Listener

	mu        sync.Mutex
	let, kept int
	open      []net.Conn
}

func (g *gate) serve(t *testing.T, wrap func(net.Listener) net.Listener) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.listener = wrap(l)
	t.Cleanup(func() { _ = l.Close(); g.cut() })
	go func() {
		for {
			c, err := g.listener.Accept()
			if err != nil {
				return
			}
			g.keep(c)
			go g.handle(c)
		}
	}()
	return l.Addr().String()
}

func (g *gate) keep(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = append(g.open, c)
}

// cut closes every connection through it.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.open {
		_ = c.Close()
	}
	g.open = nil
}

func (g *gate) counts() (let, kept int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.let, g.kept
}

func (g *gate) count(n *int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*n++
}

func (g *gate) handle(c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		_ = c.Close()
		return
	}
	if g.silent {
		return
	}
	basic := http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}
	user, password, _ := basic.BasicAuth()
	status := g.answers
	switch {
	case req.Method != http.MethodConnect || req.RequestURI != g.allow:
		status = http.StatusForbidden
	case g.login != "" && user+":"+password != g.login:
		status = http.StatusProxyAuthRequired
	}
	answer := func(status int) {
		resp := http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}
		if status == http.StatusProxyAuthRequired {
			resp.Header.Set("Proxy-Authenticate", g.schemes)
		}
		_ = resp.Write(c)
	}
	if status != 0 {
		g.count(&g.kept)
		answer(status)
		_ = c.Close()
		return
	}
	back, err := net.Dial("tcp", g.to)
	if err != nil {
		answer(http.StatusBadGateway)
		_ = c.Close()
		return
	}
	g.keep(back)
	g.count(&g.let)
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(back, r); _ = back.Close() }()
	_, _ = io.Copy(c, back)
	_ = c.Close()
}

func plain(l net.Listener) net.Listener { return l }

// messages is a message server with the account of a cell, and what an agent of it is given.
type messages struct {
	*natstest.Server
	seed    []byte
	options AgentOptions
	log     *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// patient bounds what has no bound, and what JetStream would bound by 5 s.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newMessages(t *testing.T) *messages {
	t.Helper()
	s := must[*natstest.Server](t)(natstest.Start(t.TempDir()))
	t.Cleanup(s.Stop)
	c := &messages{Server: s, seed: must[[]byte](t)(s.Cell(patient(t), "a")), log: &lockedBuffer{}}
	creds := must[[]byte](t)(natsauth.Credentials(c.seed, "agent", celllink.AgentPermissions))
	c.options = AgentOptions{
		Cell: "a", NATSURL: s.WebSocketURL(), CAFile: file(t, s.CA), CredentialsFile: file(t, creds), Log: slog.New(slog.NewTextHandler(c.log, nil)),
	}
	return c
}

func (c *messages) connect(t *testing.T) *nats.Conn {
	t.Helper()
	nc := must[*nats.Conn](t)(connect(t.Context(), c.options))
	t.Cleanup(nc.Close)
	return nc
}

// works publishes a snapshot in an account and waits until the agent's connection gives that one.
func works(t *testing.T, c *messages, nc *nats.Conn, account []byte, cell string) []byte {
	t.Helper()
	inCloud := must[*nats.Conn](t)(c.Connect(account, celllink.CloudPermissions))
	defer inCloud.Close()
	object := &unstructured.Unstructured{Object: map[string]any{"kind": "Connector"}}
	if _, _, err := celllink.Publish(patient(t), inCloud, cell, 0, []*unstructured.Unstructured{object}); err != nil {
		t.Fatal(err)
	}
	var data []byte
	eventually(t, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // what a connection that breaks took with it is not answered
		defer cancel()
		data, _, err = celllink.Last(ctx, nc, celllink.StreamDesired, celllink.SubjectSnapshot)
		return err
	})
	return data
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.After(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *messages) logged(t *testing.T, text ...string) {
	t.Helper()
	eventually(t, func() error {
		log := c.log.String()
		for _, s := range text {
			if !strings.Contains(log, s) {
				return errors.New("the log has no " + s + ":\n" + log)
			}
		}
		return nil
	})
}

func TestAgentComesInFromOutside(t *testing.T) {
	t.Parallel()
	c := newMessages(t)
	nc := c.connect(t)
	works(t, c, nc, c.seed, "a")
	if err := c.Restart(); err != nil {
		t.Fatal(err)
	}
	works(t, c, nc, c.seed, "a")
	c.logged(t, "connected to the cloud")
}

// The proxy is asked for the name, and not for what that is here.
func TestAgentGoesThroughAProxy(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"http": false, "https": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newMessages(t)
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(c.WebSocketURL(), "wss://"))
			g := &gate{allow: "localhost:" + port, to: "127.0.0.1:" + port, login: "cell:s3cret:with-colon", schemes: `Basic realm="out"`}
			wrap := plain
			if secure {
				ca := must[pki.Pair](t)(pki.NewCA("proxy", time.Now()))
				pair := must[pki.Pair](t)(ca.Issue([]string{"127.0.0.1"}, time.Now()))
				cert := must[tls.Certificate](t)(tls.X509KeyPair(pair.Cert, pair.Key))
				wrap = func(l net.Listener) net.Listener {
					return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
				}
				c.options.ProxyCAFile = file(t, ca.Cert)
			}
			c.options.Proxy = name + "://" + g.serve(t, wrap)
			c.options.ProxyCredentialsFile = file(t, []byte(g.login+"\n"))
			nc := c.connect(t)
			works(t, c, nc, c.seed, "a")
			for what, broken := range map[string]func() error{"the server restarts": c.Restart, "the proxy drops it": func() error { g.cut(); return nil }} {
				before, _ := g.counts()
				if err := broken(); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() error {
					if let, _ := g.counts(); let == before {
						return errors.New(what + ": no connection through the proxy")
					}
					return nil
				})
				works(t, c, nc, c.seed, "a")
			}
			if _, kept := g.counts(); kept != 0 {
				t.Errorf("the proxy was asked for %d other things", kept)
			}
			if strings.Contains(c.log.String(), "s3cret") {
				t.Error("the password is in the log")
			}
		})
	}
}

func TestWhatAProxyRefusesIsNamed(t *testing.T) {
	t.Parallel()
	const address = "nats.elsewhere.example:443"
	secret := file(t, []byte("cell:s3cret"))
	for name, c := range map[string]struct {
		gate        *gate
		credentials string
		want        []string
	}{
		"a login is wanted":           {&gate{login: "a:b", schemes: "Basic"}, "", []string{"407", "--nats-proxy-credentials"}},
		"another login is wanted":     {&gate{login: "a:b", schemes: "Basic"}, secret, []string{"407", "refuses the login in " + secret}},
		"a login of another kind":     {&gate{login: "a:b", schemes: "Negotiate"}, secret, []string{"407", "Negotiate", "Basic only"}},
		"the address is not allowed":  {&gate{allow: "another:443"}, "", []string{"403", "allow CONNECT to " + address}},
		"the address is not reached":  {&gate{to: "127.0.0.1:1"}, "", []string{"502", "does not reach " + address}},
		"it can't just now":           {&gate{answers: 503}, "", []string{"503", "does not reach " + address}},
		"it takes no CONNECT":         {&gate{answers: 405}, "", []string{"405", "is it a proxy"}},
		"it says nothing":             {&gate{silent: true}, "", []string{"does not answer within", "may connect to " + address}},
		"no file of credentials":      {&gate{}, filepath.Join(t.TempDir(), "none"), []string{"--nats-proxy-credentials", "none"}},
		"a file without credentials":  {&gate{}, file(t, []byte("s3cret")), []string{"user:password"}},
		"a file that is a password's": {&gate{}, file(t, []byte(":s3cret")), []string{"user:password"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := c.gate
			if g.allow == "" {
				g.allow = address
			}
			at := "http://" + g.serve(t, plain)
			p := must[*proxy](t)(newProxy(at, "", c.credentials))
			if g.silent {
				p.timeout = time.Second
			} else {
				p.timeout = patience
			}
			conn, err := p.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			for _, want := range append(c.want, "proxy "+at, "--nats-proxy") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error has no %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
	closed := must[*proxy](t)(newProxy("http://127.0.0.1:1", "", ""))
	if _, err := closed.Dial("tcp", address); err == nil || !strings.Contains(err.Error(), "reach the proxy http://127.0.0.1:1") {
		t.Errorf("no proxy: %v", err)
	}
	ca := must[pki.Pair](t)(pki.NewCA("proxy", time.Now()))
	pair := must[pki.Pair](t)(ca.Issue([]string{"127.0.0.1"}, time.Now()))
	cert := must[tls.Certificate](t)(tls.X509KeyPair(pair.Cert, pair.Key))
	at := (&gate{}).serve(t, func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	})
	unknown := must[*proxy](t)(newProxy("https://"+at, "", ""))
	unknown.timeout = patience
	if _, err := unknown.Dial("tcp", address); err == nil || !strings.Contains(err.Error(), "--nats-proxy-ca") {
		t.Errorf("a proxy of an unknown authority: %v", err)
	}
}

// What keeps the agent out is in its log while it goes on trying, with the proxy's part.
func TestAgentSaysWhyItIsOut(t *testing.T) {
	t.Parallel()
	c := newMessages(t)
	g := &gate{allow: "nothing"}
	c.options.Proxy = "http://" + g.serve(t, plain)
	nc := c.connect(t)
	c.logged(t, "the cloud is not reached", "proxy "+c.options.Proxy, "403")
	if nc.IsConnected() {
		t.Error("connected past the proxy")
	}

	ca := must[pki.Pair](t)(pki.NewCA("another", time.Now()))
	c = newMessages(t)
	right := c.options.CAFile
	c.options.CAFile = file(t, ca.Cert)
	nc = c.connect(t)
	c.logged(t, "the cloud is not reached", "certificate signed by unknown authority")
	content := must[[]byte](t)(os.ReadFile(right))
	if err := os.WriteFile(c.options.CAFile, content, 0o600); err != nil { // it is read again
		t.Fatal(err)
	}
	works(t, c, nc, c.seed, "a")
}

// The credentials of another cell open that one's account and nothing of this; those of a cell that is gone open nothing.
func TestCredentialsOfAnotherCell(t *testing.T) {
	t.Parallel()
	c := newMessages(t)
	other := must[[]byte](t)(c.Cell(patient(t), "b"))
	c.options.CredentialsFile = file(t, must[[]byte](t)(natsauth.Credentials(other, "agent", celllink.AgentPermissions)))
	nc := c.connect(t)
	data := works(t, c, nc, other, "b")
	if _, _, err := celllink.DecodeSnapshot(data, "a"); err == nil || !strings.Contains(err.Error(), `for cell "b", this is "a"`) {
		t.Errorf("the snapshot of another cell: %v", err)
	}
	system := must[*nats.Conn](t)(c.System())
	defer system.Close()
	if err := c.Operator.Delete(system, other); err != nil {
		t.Fatal(err)
	}
	c.logged(t, "authorization violation", "refuses the credentials in "+c.options.CredentialsFile)
	eventually(t, func() error {
		if nc.IsConnected() {
			return errors.New("still connected")
		}
		return nil
	})
}

// TestAgentWaitsForItsCredentials, also when it works already: a file may be away for a moment while it is replaced.
func TestAgentWaitsForItsCredentials(t *testing.T) {
	t.Parallel()
	c := newMessages(t)
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), edc.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	a := agent.New(agent.Options{Cell: "a", Namespace: "cell-a", Client: kubefake.NewClientBuilder().WithScheme(scheme).Build(), Log: c.options.Log, Now: time.Now})
	creds := must[[]byte](t)(c.options.creds())
	if err := os.Remove(c.options.CredentialsFile); err != nil {
		t.Fatal(err)
	}
	h := newHealth(prometheus.NewRegistry(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- work(ctx, c.options, a, h) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c.logged(t, "read again", "--nats-credentials")
	if err := os.WriteFile(c.options.CredentialsFile, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if nc := h.link.Load(); nc == nil || !nc.IsConnected() {
			return errors.New("not connected")
		}
		return nil
	})
}

func TestAddressesThatAreRefused(t *testing.T) {
	t.Parallel()
	c := newMessages(t)
	for _, u := range []string{"nats://h:4222", "ws://h", "http://h", "h:4222", "wss://", "tls://u:s3cret@h:4222", "wss://h/%zz"} {
		o := c.options
		o.NATSURL = u
		if err := o.check(); err == nil || !strings.Contains(err.Error(), "--nats-url: write wss://host") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", u, err)
		}
	}
	for _, p := range []string{"h:3128", "socks5://h:1080", "http://h", "http://h:1/path", "http://u:s3cret@h:3128", "http://u:s3cret@h:%zz"} {
		o := c.options
		o.Proxy = p
		if err := o.check(); err == nil || !strings.Contains(err.Error(), "--nats-proxy") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("proxy %s: %v", p, err)
		}
	}
	o := c.options
	o.CAFile = file(t, []byte("nothing"))
	if err := o.check(); err == nil || !strings.Contains(err.Error(), "--nats-ca") {
		t.Errorf("a file without a certificate: %v", err)
	}
}
