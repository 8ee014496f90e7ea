// SPDX-License-Identifier: Apache-2.0

// Package pgtest starts a real PostgreSQL server for the tests of one package: own temporary directory, free loopback port,
// unprivileged user, gone at the end. It belongs to tests only and knows nothing of any schema.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//	func TestX(t *testing.T)    { dsn := pgtest.NewDatabase(t) ... }
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/process"
)

const startTimeout = 60 * time.Second

// Server is a running PostgreSQL server; its superuser is "postgres". Connections from loopback need neither TLS nor a password, unless Secure has been called.
type Server struct {
	Port int
	dir  string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done <-chan struct{} // closed when the process has ended
}

var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Main runs the tests of a package and then stops the server that NewDatabase started. It does not return.
func Main(m *testing.M) {
	code := m.Run()
	shared.Lock()
	if shared.server != nil {
		shared.server.Stop()
	}
	shared.Unlock()
	os.Exit(code)
}

// NewDatabase makes an empty database on the package's server, owned by a role of its name that may do nothing else, and returns its URL; both are
// dropped when the test ends. The server starts at the first call, so TestMain must be Main.
func NewDatabase(tb testing.TB) string {
	tb.Helper()
	shared.Lock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start()
	}
	server, err := shared.server, shared.err
	shared.Unlock()
	if err != nil {
		tb.Fatal(err)
	}
	name := "t" + strings.ToLower(rand.Text()[:16])
	if err := server.Create(name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := server.exec("DROP DATABASE "+name+" WITH (FORCE)", "DROP ROLE "+name); err != nil {
			tb.Error(err)
		}
	})
	return server.URL(name)
}

// Superuser is the URL of a database that NewDatabase made, for the server's superuser.
func Superuser(tb testing.TB, database string) string {
	tb.Helper()
	u, err := url.Parse(database)
	if err != nil {
		tb.Fatal(err)
	}
	u.User = url.User(superuser)
	return u.String()
}

const superuser = "postgres"

// Create makes an empty database and a role of its name that owns it.
func (s *Server) Create(name string) error {
	return s.exec("CREATE ROLE "+name+" LOGIN", "CREATE DATABASE "+name+" OWNER "+name)
}

// URL returns the connection URL of a database for the role of its name.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://%[2]s@127.0.0.1:%[1]d/%[2]s?sslmode=disable", s.Port, database)
}

func (s *Server) exec(statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(superuser))
	if err != nil {
		return fmt.Errorf("connect to the test's PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// Secure makes the server take everybody but the superuser only over TLS and with a password. certificate and key are PEM.
func (s *Server) Secure(certificate, key []byte) error {
	cred, err := credential()
	if err != nil {
		return err
	}
	const rules = "host all " + superuser + " 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
	for name, content := range map[string][]byte{"server.crt": certificate, "server.key": key, "pg_hba.conf": []byte(rules)} {
		path := filepath.Join(s.dir, "data", name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if cred != nil {
			if err := os.Chown(path, int(cred.Uid), int(cred.Gid)); err != nil {
				return err
			}
		}
	}
	if err := s.exec("ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for { // the server reads it when it gets to it
		speaks, err := s.speaksTLS(ctx)
		if err != nil || speaks {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not speak TLS %s after it was told to: %s", startTimeout, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// speaksTLS sends an SSLRequest (PostgreSQL documentation, "Message Formats"), which the server answers S or N.
func (s *Server) speaksTLS(ctx context.Context) (bool, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
	if err != nil {
		return false, err
	}
	answer := []byte{0}
	if _, err = conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	return answer[0] == 'S', errors.Join(err, conn.Close())
}

// Start starts a server. The caller stops it.
func Start() (*Server, error) {
	bin, err := binDir()
	if err != nil {
		return nil, err
	}
	cred, err := credential()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	s := &Server{dir: dir, log: &bytes.Buffer{}, done: make(chan struct{})}
	data := filepath.Join(dir, "data")
	// #nosec G204 -- programs of the PostgreSQL that was found
	initdb := exec.CommandContext(context.Background(), filepath.Join(bin, "initdb"), "-D", data, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: cred}
	if out, err := initdb.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("initdb in %s: %w: %s", dir, err, out)
	}
	// A port found free may be taken before the server binds it, so a few are tried.
	for range 5 {
		if err = s.start(bin, data, cred); err == nil {
			return s, nil
		}
	}
	_ = os.RemoveAll(dir)
	return nil, err
}

func (s *Server) start(bin, data string, cred *syscall.Credential) error {
	var err error
	if s.Port, err = freeport.Pick(); err != nil {
		return err
	}
	s.log.Reset()
	// #nosec G204 -- as above
	s.cmd = exec.CommandContext(context.Background(), filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB")
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if s.done, err = process.Start(s.cmd, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL(superuser))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.done:
			return fmt.Errorf("PostgreSQL ended while starting: %s", s.log)
		case <-ctx.Done():
			_ = s.cmd.Process.Signal(syscall.SIGQUIT)
			<-s.done
			return fmt.Errorf("PostgreSQL did not answer within %s: %w: %s", startTimeout, err, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server and removes its directory.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	<-s.done
	_ = os.RemoveAll(s.dir)
}

func binDir() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL server found on PATH or in /usr/lib/postgresql/*/bin: install it (apt-get install postgresql) and run again")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	sort.Slice(found, func(i, j int) bool { return version(found[i]) > version(found[j]) })
	return filepath.Dir(found[0]), nil
}

// credential is the user to run the server as; nil when this process is not root, which PostgreSQL refuses to run as.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root and there is neither a user postgres nor nobody: add one")
}
