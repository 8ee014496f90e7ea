// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	corev1 "k8s.io/api/core/v1"

	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
	"github.com/kaphera/kaphera/test/apiserver"
	"github.com/kaphera/kaphera/test/openbao"
)

// The servers of this package's tests: a real PostgreSQL that wants passwords, and a real API server.
var (
	pg      *pgtest.Server
	cluster *rest.Config
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := suite(m)
	if err != nil {
		log.Print(err)
		code = 1
	}
	os.Exit(code)
}

func suite(m *testing.M) (code int, err error) {
	if pg, err = pgtest.Start(); err != nil {
		return 1, err
	}
	defer pg.Stop()
	if err := wantPasswords(); err != nil {
		return 1, err
	}
	env, err := apiserver.Start("../config/crd")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	cluster = env.Config
	return m.Run(), nil
}

// wantPasswords lets the server's superuser alone in without a password.
func wantPasswords() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, pg.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var file string
	if err := conn.QueryRow(ctx, "SHOW hba_file").Scan(&file); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "COPY (VALUES ('host all postgres 127.0.0.1/32 trust'), ('host all all 127.0.0.1/32 scram-sha-256')) TO '"+file+"'"); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
	return err
}

// sql runs statements as the superuser, in a database.
func sql(t *testing.T, database string, statements ...string) {
	t.Helper()
	u, err := url.Parse(pg.URL(database))
	must(t, err)
	u.User = url.User("postgres")
	conn, err := pgx.Connect(t.Context(), u.String())
	must(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// server is a certificate for this machine.
func server(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }

// issue makes a server's certificate, valid for 90 days unless change says otherwise.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// listen serves connections until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// join passes on what either side says.
func join(a net.Conn, fromA io.Reader, target string) {
	b, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = b.Close() }()
	go func() {
		_, _ = io.Copy(b, fromA)
		_ = b.Close()
	}()
	_, _ = io.Copy(a, b)
}

// secure speaks TLS for a server that does not; postgresql first answers the request for it.
func secure(t *testing.T, cert tls.Certificate, target string, postgresql bool) string {
	t.Helper()
	return listen(t, func(conn net.Conn) {
		if postgresql {
			asked := make([]byte, len(sslRequest))
			if _, err := io.ReadFull(conn, asked); err != nil || !bytes.Equal(asked, sslRequest) {
				return
			}
			if _, err := conn.Write([]byte("S")); err != nil {
				return
			}
		}
		s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
		join(s, s, target)
	})
}

// tunnels is an HTTP proxy for CONNECT that lets in whom it knows, to where may says.
func tunnels(t *testing.T, user string, may func(target string) bool) string {
	t.Helper()
	return listen(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		req, err := http.ReadRequest(in)
		switch {
		case err != nil:
		case req.Method != http.MethodConnect || !may(req.Host):
			_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		case user != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(user)):
			_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\n\r\n")
		default:
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			join(conn, in, req.Host)
		}
	})
}

// web is an HTTPS server with a certificate for this machine.
func (w *world) web(t *testing.T, cert tls.Certificate, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// partner serves the DID document and the versions of a counterpart.
func (w *world) partner(t *testing.T, version string, change func(http.Header)) (did string) {
	t.Helper()
	var s *httptest.Server
	s = w.web(t, w.ca.issue(t, server), func(out http.ResponseWriter, r *http.Request) {
		change(out.Header())
		switch r.URL.Path {
		case "/partner/did.json":
			_, _ = fmt.Fprintf(out, `{"id": %q, "verificationMethod": [], "service": [{"id": "dsp", "type": "DataService", "serviceEndpoint": "%s/partner/.well-known/dspace-version"}]}`, didOf(s), s.URL)
		case "/partner/.well-known/dspace-version":
			_, _ = fmt.Fprintf(out, `{"protocolVersions": [{"version": %q, "path": "/dsp/2025-1", "binding": "HTTPS"}]}`, version)
		default:
			http.NotFound(out, r)
		}
	})
	return didOf(s)
}

func didOf(s *httptest.Server) string {
	return "did:web:" + strings.Replace(s.Listener.Addr().String(), ":", "%3A", 1) + ":partner"
}

// world is all that a connector stands on, in good order.
type world struct {
	ca   *authority
	bao  *openbao.Server
	name string // of the database, its owner, and the beginning of its roles' names
	undo []func()
	Options
}

const prefix = "connectors/acme"

const password = "s3cret-of-a-role"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ca: newAuthority(t), bao: openbao.Start(t), name: "p" + strings.ToLower(rand.Text()[:12])}
	vaultAt := secure(t, w.ca.issue(t, server), strings.TrimPrefix(w.bao.Address, "http://"), false)
	must(t, pg.Create(w.name))
	roles := map[workload.Role]string{workload.ControlPlane: "_control_plane", workload.Wallet: "_wallet", workload.DataPlane: "_data_plane"}
	sql(t, "postgres", "ALTER ROLE "+w.name+" PASSWORD '"+password+"'")
	w.Secrets = map[string]map[string]string{"owner": {"username": w.name, "password": password}}
	w.call(t, http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"})
	for role, suffix := range roles {
		sql(t, "postgres", "CREATE ROLE "+w.name+suffix+" LOGIN PASSWORD '"+password+"'")
		w.Secrets["db-"+string(role)] = map[string]string{"username": w.name + suffix, "password": password}
		w.policy(t, role, vault.Policy("secret", prefix, does[role]))
		w.call(t, http.MethodPost, "auth/approle/role/"+string(role), map[string]any{"token_policies": []string{string(role)}, "token_ttl": "1h"})
		id := w.call(t, http.MethodGet, "auth/approle/role/"+string(role)+"/role-id", nil)["role_id"].(string)
		secret := w.call(t, http.MethodPost, "auth/approle/role/"+string(role)+"/secret-id", nil)["secret_id"].(string)
		w.Secrets["vault-"+string(role)] = map[string]string{"role-id": id, "secret-id": secret}
	}
	dbHost, dbPort := split(t, secure(t, w.ca.issue(t, server), net.JoinHostPort("127.0.0.1", strconv.Itoa(pg.Port)), true))
	cloud := w.web(t, w.ca.issue(t, server), func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(http.StatusNotFound) })
	w.Options.Runtime = workload.Runtime{
		Name: "acme", Namespace: "default", Roles: []workload.Role{workload.ControlPlane, workload.Wallet, workload.DataPlane},
		Exposure: v1alpha1.Exposure{Hostname: "localhost"}, Trust: v1alpha1.Trust{CABundle: w.ca.pem, AllowPrivateNetworks: true},
		Database: v1alpha1.Database{Host: dbHost, Port: dbPort, Name: w.name, SSLMode: "verify-full", CABundle: w.ca.pem, OwnerSecret: corev1.LocalObjectReference{Name: "owner"},
			RoleSecrets: v1alpha1.RoleSecrets{ControlPlane: "db-control-plane", Wallet: "db-wallet", DataPlane: "db-data-plane"}},
		Vault: v1alpha1.Vault{Address: "https://" + vaultAt, Mount: "secret", Prefix: prefix, CABundle: w.ca.pem, Auth: v1alpha1.VaultAuth{Method: "AppRole", Audience: "vault",
			AppRoleSecrets: &v1alpha1.RoleSecrets{ControlPlane: "vault-control-plane", Wallet: "vault-wallet", DataPlane: "vault-data-plane"}}},
	}
	w.Cluster, w.Cloud, w.CloudCA = cluster, cloud.URL, w.ca.pem
	w.Proxy = "http://kaphera:" + password + "@" + tunnels(t, "kaphera:"+password, func(string) bool { return true })
	w.Counterparts = []string{w.partner(t, "2025-1", func(http.Header) {})}
	w.loopback, w.timeout = true, time.Minute
	return w
}

// policy writes a policy of the Vault.
func (w *world) policy(t *testing.T, role workload.Role, text string) {
	t.Helper()
	w.call(t, http.MethodPut, "sys/policies/acl/"+string(role), map[string]any{"policy": text})
}

func (w *world) call(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	data, _ := w.bao.Call(t, method, path, body)["data"].(map[string]any)
	return data
}

func split(t *testing.T, address string) (string, int32) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	n, err := strconv.ParseInt(port, 10, 32)
	must(t, err)
	return host, int32(n)
}

// eventually waits until check has nothing to say.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		problem := check()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(problem)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
