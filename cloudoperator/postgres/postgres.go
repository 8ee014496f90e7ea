// SPDX-License-Identifier: FSL-1.1-ALv2

// Package postgres makes databases and roles on a PostgreSQL server. It creates no tables: migrations belong to the programs.
package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server says how to reach a server as its superuser.
type Server struct {
	Address  string // host:port to dial
	User     string
	Password string
	TLS      *tls.Config // nil for none; verifies ServerName
}

// Admin is a connection as superuser.
type Admin struct {
	server Server
	conn   *pgx.Conn
}

// Connect opens a connection to the database postgres.
func Connect(ctx context.Context, s Server) (*Admin, error) {
	conn, err := s.open(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	return &Admin{server: s, conn: conn}, nil
}

func (s Server) open(ctx context.Context, database string) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return nil, fmt.Errorf("postgresql address %q: %w", s.Address, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("postgresql address %q: %w", s.Address, err)
	}
	cfg, err := pgx.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = host, uint16(number), database, s.User, s.Password
	cfg.TLSConfig, cfg.Fallbacks, cfg.ConnectTimeout = s.TLS, nil, 5*time.Second
	cfg.RuntimeParams = map[string]string{"application_name": "kaphera-cloud-operator"}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to postgresql at %s: %w", s.Address, err)
	}
	return conn, nil
}

// Close ends the connection.
func (a *Admin) Close(ctx context.Context) { _ = a.conn.Close(ctx) }

// Role is a log-in role without any privilege of its own.
type Role struct{ Name, Password string }

// Database is a database with its owner and further roles that may connect to it. What those may do inside is granted by the owner.
type Database struct {
	Name  string
	Owner Role
	Roles []Role
}

// privilegesLock is held by one connection to the server at a time; the number is this package's own.
const privilegesLock = "SELECT pg_advisory_xact_lock(7164520481); "

// Ensure makes the database and its roles as described, and changes only what differs. Nobody else may connect to it, and only superusers
// to the server's own databases, which PostgreSQL opens to every role.
func (a *Admin) Ensure(ctx context.Context, d Database) error {
	for _, r := range append([]Role{d.Owner}, d.Roles...) {
		if err := a.ensureRole(ctx, r); err != nil {
			return fmt.Errorf("role %s: %w", r.Name, err)
		}
	}
	name, owner := quote(d.Name), quote(d.Owner.Name)
	var current string
	err := a.conn.QueryRow(ctx, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", d.Name).Scan(&current)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = a.exec(ctx, "CREATE DATABASE "+name+" OWNER "+owner)
	case err == nil && current != d.Owner.Name:
		err = a.exec(ctx, "ALTER DATABASE "+name+" OWNER TO "+owner)
	}
	if err != nil {
		return fmt.Errorf("database %s: %w", d.Name, err)
	}
	for _, r := range d.Roles {
		owner += ", " + quote(r.Name)
	}
	// The server gives up when two connections alter the privileges of one database at once ("tuple concurrently updated"), and every call
	// alters those of postgres and template1. The statements of one message are one transaction, which the lock ends with.
	if err := a.exec(ctx, privilegesLock+"REVOKE ALL ON DATABASE "+name+", postgres, template1 FROM PUBLIC; GRANT CONNECT ON DATABASE "+name+" TO "+owner); err != nil {
		return fmt.Errorf("privileges on database %s: %w", d.Name, err)
	}
	return nil
}

func (a *Admin) ensureRole(ctx context.Context, r Role) error {
	if r.Password == "" {
		return errors.New("has no password")
	}
	var verifier *string
	err := a.conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", r.Name).Scan(&verifier)
	verb := "CREATE ROLE "
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return err
	case verifier != nil && Matches(*verifier, r.Password):
		return nil
	default:
		verb = "ALTER ROLE "
	}
	// The server gets the verifier, never the password: statements may be logged.
	fresh, err := Verifier(r.Password)
	if err != nil {
		return err
	}
	return a.exec(ctx, verb+quote(r.Name)+" WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '"+fresh+"'")
}

// Drop removes the database, ending its connections, and then the roles. What is not there is no error.
func (a *Admin) Drop(ctx context.Context, database string, roles ...string) error {
	if err := a.exec(ctx, "DROP DATABASE IF EXISTS "+quote(database)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", database, err)
	}
	for _, r := range roles {
		if err := a.exec(ctx, "DROP ROLE IF EXISTS "+quote(r)); err != nil {
			return fmt.Errorf("drop role %s: %w", r, err)
		}
	}
	return nil
}

// exec runs statements without parameters, which DDL does not take.
func (a *Admin) exec(ctx context.Context, sql string) error {
	_, err := a.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
