// SPDX-License-Identifier: FSL-1.1-ALv2

// Package natstest runs a real NATS server in operator mode inside the test's process. It belongs to tests only.
package natstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/test/freeport"
)

// patience is for a machine with more to do than it can.
const patience = 2 * time.Minute

// Server is a running server. Its WebSocket listener has a certificate of CA, PEM.
type Server struct {
	Operator  natsauth.Operator
	CA        []byte
	dir       string
	server    *server.Server
	port      int
	webSocket int // port
}

// Start starts a server that keeps its data in dir.
func Start(dir string) (*Server, error) {
	op, err := natsauth.NewOperator()
	if err != nil {
		return nil, err
	}
	ca, err := pki.NewCA("natstest", time.Now())
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue([]string{"localhost"}, time.Now())
	if err != nil {
		return nil, err
	}
	s := &Server{Operator: op, CA: ca.Cert, dir: dir}
	for _, port := range []*int{&s.port, &s.webSocket} {
		if *port, err = freeport.Pick(); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(os.WriteFile(s.file("tls.crt"), cert.Cert, 0o600), os.WriteFile(s.file("tls.key"), cert.Key, 0o600)); err != nil {
		return nil, err
	}
	return s, s.Restart()
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// URL of the server; the same after a restart.
func (s *Server) URL() string { return s.server.ClientURL() }

// WebSocketURL is where agents outside a cluster come in; the same after a restart.
func (s *Server) WebSocketURL() string { return fmt.Sprintf("wss://localhost:%d", s.webSocket) }

// Restart stops the server, when it runs, and starts it again on the same ports with the same data.
func (s *Server) Restart() error {
	s.Stop()
	auth, err := s.Operator.Server()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\nwebsocket { listen: \"127.0.0.1:%d\", tls { cert_file: %q, key_file: %q } }\njetstream { store_dir: %q }\noperator: %q\nsystem_account: %q\nresolver { type: full, dir: %q, allow_delete: true }\nresolver_preload: { %s: %q }\n",
		s.port, s.webSocket, s.file("tls.crt"), s.file("tls.key"), s.file("js"), auth.OperatorJWT, auth.SystemAccount, s.file("accounts"), auth.SystemAccount, auth.SystemJWT)
	if err := os.WriteFile(s.file("nats.conf"), []byte(text), 0o600); err != nil {
		return err
	}
	s.server, err = Run(s.file("nats.conf"))
	return err
}

// Run runs a server from a configuration file.
func Run(file string) (*server.Server, error) {
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		return nil, fmt.Errorf("nats configuration: %w", err)
	}
	opts.NoLog, opts.NoSigs = true, true
	opts.AuthTimeout, opts.TLSTimeout = patience.Seconds(), patience.Seconds() // of connections that begin
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(patience) {
		return nil, errors.New("the nats server did not start")
	}
	return srv, nil
}

// Stop stops the server.
func (s *Server) Stop() {
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
}

// Connect connects as a new user of an account.
func (s *Server) Connect(seed []byte, p natsauth.Permissions) (*nats.Conn, error) {
	creds, err := natsauth.Credentials(seed, "test", p)
	if err != nil {
		return nil, err
	}
	return cellrpc.Connect(s.URL(), "test", nil, func() ([]byte, error) { return creds, nil }, nats.Timeout(patience))
}

// System connects to the system account.
func (s *Server) System() (*nats.Conn, error) {
	return s.Connect(s.Operator.SystemSeed, natsauth.Permissions{})
}

// Cell makes the account of a cell with its streams and returns its seed.
func (s *Server) Cell(ctx context.Context, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seed, err := natsauth.NewAccountSeed()
	if err != nil {
		return nil, err
	}
	token, err := s.Operator.AccountJWT(natsauth.Account{Name: name, Seed: seed, Storage: celllink.Storage})
	if err != nil {
		return nil, err
	}
	nc, err := s.System()
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if err := natsauth.Push(nc, token); err != nil {
		return nil, err
	}
	cloud, err := s.Connect(seed, celllink.CloudPermissions)
	if err != nil {
		return nil, err
	}
	defer cloud.Close()
	return seed, celllink.EnsureStreams(ctx, cloud)
}
