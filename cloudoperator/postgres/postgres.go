// SPDX-License-Identifier: FSL-1.1-ALv2

// Package postgres makes databases and roles on a PostgreSQL server. It creates no tables: migrations belong to the programs.
package postgres

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/cloudoperator/fault"
)

// Server says how to reach a server as an account that may make roles and databases.
type Server struct {
	Address  string // host:port to dial
	Database string // empty is postgres
	User     string
	Password string
	TLS      *tls.Config // nil for none; verifies ServerName
	// Platform marks the databases that are made as this platform's; those of another one are left alone.
	Platform string
}

// MinVersion is the oldest major version that connectors are tested with.
const MinVersion = 15

// Codes of errors (PostgreSQL documentation, "Error Codes").
const (
	codePassword      = "28P01" // it is wrong
	codeAuthorization = "28000" // the role is not there, may not log in, or pg_hba.conf does not let it in
	codeNoDatabase    = "3D000"
	codePrivilege     = "42501"
)

// Refused says whether the server did not let the account in.
func Refused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == codePassword || pg.Code == codeAuthorization)
}

// Admin is a connection as such an account. What only a superuser may is left out by others: pg_authid is not read, and the server's own databases
// stay as they are.
type Admin struct {
	server    Server
	conn      *pgx.Conn
	superuser bool
}

// Connect opens a connection. The error wraps a *fault.Error when the account may not do what Ensure and Drop do.
func Connect(ctx context.Context, s Server) (*Admin, error) {
	conn, err := s.open(ctx, cmp.Or(s.Database, "postgres"))
	if err != nil {
		return nil, err
	}
	a := &Admin{server: s, conn: conn}
	if err := a.rights(ctx); err != nil {
		a.Close(ctx)
		return nil, fmt.Errorf("postgresql at %s: %w", s.Address, err)
	}
	return a, nil
}

func (a *Admin) rights(ctx context.Context) error {
	var version int
	var makesRoles, makesDatabases, inherits bool
	err := a.conn.QueryRow(ctx, "SELECT rolsuper, rolcreaterole, rolcreatedb, rolinherit, current_setting('server_version_num')::int / 10000 FROM pg_roles WHERE rolname = current_user").
		Scan(&a.superuser, &makesRoles, &makesDatabases, &inherits, &version)
	if err != nil {
		return fmt.Errorf("read the account's rights: %w", err)
	}
	if version < MinVersion {
		return fault.Right(fmt.Sprintf("use PostgreSQL %d or newer", MinVersion), "it is version %d", version)
	}
	for _, r := range []struct {
		has           bool
		what, keyword string
	}{
		{makesRoles, "may not make roles", "CREATEROLE"}, {makesDatabases, "may not make databases", "CREATEDB"},
		{inherits, "does not have the rights of the roles that it makes", "INHERIT"},
	} {
		if !r.has && !a.superuser {
			return fault.Right(fmt.Sprintf("ALTER ROLE %s %s", quote(a.server.User), r.keyword), "account %s %s", a.server.User, r.what)
		}
	}
	return nil
}

// Config is how the account connects to one of its databases.
func (s Server) Config(database string) (*pgx.ConnConfig, error) {
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
	return cfg, nil
}

func (s Server) open(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := s.Config(database)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == codeAuthorization && strings.Contains(refused.Message, "pg_hba.conf") { // in every language
		err = fault.Right(fmt.Sprintf("add the line hostssl %s %s ADDRESSES scram-sha-256 with the addresses of the cluster's pods or nodes, and reload", database, s.User),
			"pg_hba.conf does not let role %s in to database %s from here", s.User, database)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to postgresql at %s: %w", s.Address, err)
	}
	return conn, nil
}

// Close ends the connection.
func (a *Admin) Close(ctx context.Context) { _ = a.conn.Close(ctx) }

// Reload lets the server read its configuration again, and its certificate. Connections go on. Only a superuser may.
func (a *Admin) Reload(ctx context.Context) error {
	if err := a.exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return fmt.Errorf("reload postgresql: %w", err)
	}
	return nil
}

// Role is a role without any privilege of its own. Login, by which its Password opens it, is the role itself (also when empty) or its Second.
type Role struct{ Name, Login, Password string }

func (r Role) login() string { return cmp.Or(r.Login, r.Name) }

// Database is a database with its owner and further roles that may connect to it. What those may do inside is granted by the owner.
type Database struct {
	Name  string
	Owner Role
	Roles []Role
}

// privilegesLock is held by one connection to the server at a time; the number is this package's own.
const privilegesLock = "SELECT pg_advisory_xact_lock(7164520481); "

// Ensure makes the database and its roles as described, and changes only what differs. Nobody else may connect to it and, where the account is a
// superuser, only superusers to the server's own databases, which PostgreSQL opens to every role.
func (a *Admin) Ensure(ctx context.Context, d Database) error {
	current, marked, err := a.owner(ctx, d.Name)
	if err != nil {
		return err
	}
	for _, r := range append([]Role{d.Owner}, d.Roles...) {
		if err := a.ensureRole(ctx, r, d.Name); err != nil {
			return fmt.Errorf("role %s: %w", r.Name, err)
		}
		if err := a.ensureSecond(ctx, r, r == d.Owner); err != nil {
			return fmt.Errorf("role %s: %w", r.login(), err)
		}
	}
	name, owner := quote(d.Name), quote(d.Owner.Name)
	switch current {
	case "":
		err = a.exec(ctx, "CREATE DATABASE "+name+" OWNER "+owner+" ENCODING 'UTF8' TEMPLATE template0")
	case d.Owner.Name:
	default:
		err = a.exec(ctx, "ALTER DATABASE "+name+" OWNER TO "+owner)
	}
	if err == nil && !marked {
		err = a.exec(ctx, "COMMENT ON DATABASE "+name+" IS '"+strings.ReplaceAll(mark+a.server.Platform, "'", "''")+"'")
	}
	if err != nil {
		return fmt.Errorf("database %s: %w", d.Name, err)
	}
	for _, r := range d.Roles {
		owner += ", " + quote(r.Name)
	}
	databases := name
	if a.superuser {
		databases += ", postgres, template1"
	}
	// The server gives up when two connections alter the privileges of one database at once ("tuple concurrently updated"), and every call
	// may alter those of postgres and template1. The statements of one message are one transaction, which the lock ends with.
	if err := a.exec(ctx, privilegesLock+"REVOKE ALL ON DATABASE "+databases+" FROM PUBLIC; GRANT CONNECT ON DATABASE "+name+" TO "+owner); err != nil {
		return fmt.Errorf("privileges on database %s: %w", d.Name, err)
	}
	return nil
}

// mark and the platform are the comment of a database.
const mark = "Kaphera platform "

// owner of a database, empty when there is none, and whether it has this platform's mark. The error is a *fault.Error when it has another one's.
func (a *Admin) owner(ctx context.Context, database string) (owner string, marked bool, err error) {
	var comment string
	err = a.conn.QueryRow(ctx, "SELECT pg_get_userbyid(datdba), coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1", database).Scan(&owner, &comment)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	other, marked := strings.CutPrefix(comment, mark)
	if err == nil && marked && other != a.server.Platform {
		return "", false, fault.Right("give each platform a server of its own", "database %s at %s is that of platform %s", database, a.server.Address, other)
	}
	return owner, marked, err
}

func (a *Admin) ensureRole(ctx context.Context, r Role, database string) error {
	if r.Password == "" {
		return errors.New("has no password")
	}
	if r.login() != r.Name {
		if err := a.ensureGroup(ctx, r.Name); err != nil {
			return err
		}
	}
	there, right, err := a.role(ctx, r, database)
	if err != nil {
		return err
	}
	if !right {
		// The server gets the verifier, never the password: statements may be logged.
		fresh, err := Verifier(r.Password)
		if err != nil {
			return err
		}
		verb, attributes := "CREATE ROLE ", " WITH LOGIN"+powerless
		if there {
			verb = "ALTER ROLE "
		}
		if there && !a.superuser { // who may name the others only as a superuser, and could not have given them
			attributes = " WITH LOGIN"
		}
		if err := a.exec(ctx, verb+quote(r.login())+attributes+" PASSWORD '"+fresh+"'"); err != nil {
			return err
		}
	}
	if a.superuser {
		return nil
	}
	if !right {
		if right, err = a.takes(ctx, r, database); err != nil {
			return err
		}
		if !right {
			return errors.New("the server does not take the password that was just set")
		}
	}
	return a.join(ctx, r.login())
}

const powerless = " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

// ensureGroup makes a role as which nobody logs in, if it is not there.
func (a *Admin) ensureGroup(ctx context.Context, role string) error {
	var there bool
	if err := a.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&there); err != nil {
		return err
	}
	if !there {
		if err := a.exec(ctx, "CREATE ROLE "+quote(role)+" WITH NOLOGIN"+powerless); err != nil {
			return err
		}
	}
	return a.join(ctx, role)
}

// join makes an account that is no superuser a member of a role: a database is given to, and taken from, only whose member one is, and so are the
// connections that end with it.
func (a *Admin) join(ctx context.Context, role string) error {
	var member bool
	if err := a.conn.QueryRow(ctx, "SELECT pg_has_role($1, 'USAGE')", role).Scan(&member); err != nil || member {
		return err
	}
	return a.exec(ctx, "GRANT "+quote(role)+" TO CURRENT_USER")
}

// role says whether the role is there, and has this password.
func (a *Admin) role(ctx context.Context, r Role, database string) (there, right bool, err error) {
	if !a.superuser {
		if err := a.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", r.login()).Scan(&there); err != nil || !there {
			return there, false, err
		}
		right, err = a.takes(ctx, r, database)
		return true, right, err
	}
	var verifier *string // none of one that was retired
	err = a.conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", r.login()).Scan(&verifier)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, false, nil
	}
	return true, verifier != nil && Matches(*verifier, r.Password), err
}

// takes says whether the server takes the role's password; the database need not be there.
func (a *Admin) takes(ctx context.Context, r Role, database string) (bool, error) {
	s := a.server
	s.User, s.Password = r.login(), r.Password
	conn, err := s.open(ctx, database)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return true, conn.Close(ctx)
	case !errors.As(err, &refused):
		return false, err
	}
	switch refused.Code { // who may connect to which database is looked at after the password
	case codeNoDatabase, codePrivilege:
		return true, nil
	case codePassword, codeAuthorization:
		return false, nil
	}
	return false, err
}

// Drop removes the database, ending its connections, and then the roles with their Seconds. What is not there, or another platform's, is no error.
func (a *Admin) Drop(ctx context.Context, database string, roles ...string) error {
	var other *fault.Error
	if _, _, err := a.owner(ctx, database); errors.As(err, &other) {
		return nil
	} else if err != nil {
		return err
	}
	if err := a.exec(ctx, "DROP DATABASE IF EXISTS "+quote(database)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", database, err)
	}
	for _, r := range roles {
		if err := a.exec(ctx, "DROP ROLE IF EXISTS "+quote(Second(r))+", "+quote(r)); err != nil {
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
