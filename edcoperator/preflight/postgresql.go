// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/edcoperator/reach"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// minPostgreSQL is the oldest major version that the connector is tested with.
const minPostgreSQL = 15

// account is what was seen of a database user.
type account struct {
	roles   []string // of the runtime
	unbound bool     // a superuser, or BYPASSRLS
	// Connections that may still be opened: by the account, to the database, to the server. -1 is without a limit.
	free, database, server int
	encoding               string
	number                 int // server_version_num: 150004
	version                string
}

// serves are the roles that work with the account, unless it only migrates.
func (a account) serves() []string {
	return slices.DeleteFunc(slices.Clone(a.roles), func(r string) bool { return r == string(workload.Migrate) })
}

func (p *preflight) postgresqlServer() string {
	return net.JoinHostPort(p.Runtime.Database.Host, strconv.Itoa(int(p.Runtime.Database.Port)))
}

func (p *preflight) postgresqlAddress(ctx context.Context) finding {
	return p.reach(ctx, p.postgresqlServer(), "spec.database.host")
}

// connConfig is what the runtime itself connects with.
func (p *preflight) connConfig(c workload.Credentials) (*pgx.ConnConfig, error) {
	d := p.Runtime.Database
	cfg := config.Database{Host: d.Host, Port: int(d.Port), Name: d.Name, User: c.User, SSLMode: d.SSLMode}
	if d.CABundle != "" {
		if _, err := reach.Pool(d.CABundle); err != nil {
			return nil, fmt.Errorf("spec.database.caBundle %w", err)
		}
		file, err := os.CreateTemp("", "kaphera-database-ca-*.pem")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.Remove(file.Name()) }()
		_, err = file.WriteString(d.CABundle)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
		cfg.CAFile = file.Name()
	}
	cc, err := cfg.ConnConfig()
	if err != nil {
		return nil, fmt.Errorf("spec.database: %w", err)
	}
	cc.Password = c.Password
	return cc, nil
}

// sslRequest asks a PostgreSQL server whether it speaks TLS; it answers S or N (PostgreSQL documentation, "Message Formats", SSLRequest).
var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

func (p *preflight) postgresqlTLS(ctx context.Context) finding {
	address := p.postgresqlServer()
	cc, err := p.connConfig(workload.Credentials{User: "preflight"})
	if err != nil {
		return failed("correct the manifest", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	conn, err := p.dial(ctx, address)
	if err != nil {
		return p.unreachable(err, address, "spec.database.host")
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(p.timeout)) // a connection that is open takes one
	answer := make([]byte, 1)
	_, err = conn.Write(sslRequest)
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	switch {
	case err != nil:
		return failed("check spec.database.host and port: that is no PostgreSQL server, or something on the way that ends its connections", "%s does not answer as PostgreSQL: %v", address, err).retry()
	case p.Runtime.Database.SSLMode == "disable":
		return warning("use sslMode: verify-full with caBundle, unless nobody else is on the way", "spec.database.sslMode is disable: data and passwords travel unencrypted")
	case answer[0] != 'S':
		return failed("turn TLS on in the server (ssl = on), or say sslMode: disable if nobody else is on the way", "%s does not speak TLS", address)
	}
	secure := tls.Client(conn, cc.TLSConfig)
	if err := secure.HandshakeContext(ctx); err != nil {
		if f, ok := untrusted(err, "spec.database.caBundle"); ok {
			f.detail = address + ": " + f.detail
			return f
		}
		return failed("see the log of the server", "%s: TLS handshake: %v", address, err).retry()
	}
	f := certificate(secure.ConnectionState(), address)
	if m := p.Runtime.Database.SSLMode; m != "verify-full" && f.result == Passed {
		return warning("use sslMode: verify-full with caBundle", "%s; sslMode %s does not prove that it is the right server", f.detail, m)
	}
	return f
}

// postgresqlCredentials gathers the accounts of the migration and of each role.
func (p *preflight) postgresqlCredentials(ctx context.Context) finding {
	p.accounts = map[workload.Role]workload.Credentials{}
	var from []string
	for _, role := range append([]workload.Role{workload.Migrate}, p.Runtime.Roles...) {
		name := p.Runtime.DatabaseSecret(role)
		data, f := p.secret(ctx, name, workload.KeyUsername, workload.KeyPassword)
		if f.result != "" {
			return f
		}
		p.accounts[role] = workload.Credentials{User: data[workload.KeyUsername], Password: data[workload.KeyPassword]}
		if s := "Secret " + name; !slices.Contains(from, s) {
			from = append(from, s)
		}
	}
	return passed("%s", strings.Join(from, ", "))
}

// postgresqlLogin logs in with each account, keeps the owner's connection and notes what the others' may do.
func (p *preflight) postgresqlLogin(ctx context.Context) finding {
	var users, wrong []string
	var remedy string
	again := false
	p.facts = map[string]account{}
	p.close(ctx)
	for _, role := range append([]workload.Role{workload.Migrate}, p.Runtime.Roles...) {
		c := p.accounts[role]
		if a, seen := p.facts[c.User]; seen {
			a.roles = append(a.roles, string(role))
			p.facts[c.User] = a
			continue
		}
		a, err := p.logIn(ctx, role, c)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s (Secret %s): %v", c.User, p.Runtime.DatabaseSecret(role), err))
			var retry bool
			remedy, retry = loginRemedy(err)
			again = again || retry
			continue
		}
		a.roles = []string{string(role)}
		p.facts[c.User] = a
		users = append(users, c.User)
	}
	if len(wrong) > 0 {
		f := failed(remedy, "%s", sentences(wrong))
		f.again = again
		return f
	}
	return passed("logged in to database %s as %s", p.Runtime.Database.Name, strings.Join(users, ", "))
}

// loginRemedy says what to do about a login that failed, and whether to try again (PostgreSQL documentation, "Error Codes").
func loginRemedy(err error) (remedy string, again bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "see the log of the server", true
	}
	switch pg.Code {
	case "28P01":
		return "correct the password in the Secret, or set it: ALTER ROLE … PASSWORD …", false
	case "28000":
		return "make the role (CREATE ROLE … LOGIN) and let it in by pg_hba.conf from here, with TLS as spec.database.sslMode says", false
	case "3D000":
		return "correct spec.database.name, or make it: CREATE DATABASE … OWNER …", false
	case "42501":
		return "let the role in: GRANT CONNECT ON DATABASE … TO …", false
	case "53300":
		return "raise max_connections, or the CONNECTION LIMIT of the role or the database", true
	}
	return "see the log of the server", true
}

// facts of an account, in one row: whether row security binds it, how many connections it may still open by its own limit, the database's and
// the server's, this one included. Of others' backends the type is hidden; those without a user or a database are no clients.
const accountFacts = `WITH clients AS (SELECT datid, usesysid FROM pg_stat_activity
		WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid())
	SELECT r.rolsuper OR r.rolbypassrls,
	CASE WHEN r.rolconnlimit < 0 THEN -1 ELSE greatest(0, r.rolconnlimit - (SELECT count(*) FROM clients WHERE usesysid = r.oid)) END,
	CASE WHEN d.datconnlimit < 0 THEN -1 ELSE greatest(0, d.datconnlimit - (SELECT count(*) FROM clients WHERE datid = d.oid)) END,
	greatest(0, current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - coalesce(current_setting('reserved_connections', true)::int, 0)
		- (SELECT count(*) FROM clients)),
	pg_encoding_to_char(d.encoding), current_setting('server_version_num')::int, current_setting('server_version'), clock_timestamp()
	FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()`

func (p *preflight) logIn(ctx context.Context, role workload.Role, c workload.Credentials) (account, error) {
	cc, err := p.connConfig(c)
	if err != nil {
		return account{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) {
			return account{}, pg
		}
		return account{}, err
	}
	var a account
	var at time.Time
	from := time.Now()
	err = conn.QueryRow(ctx, accountFacts).Scan(&a.unbound, &a.free, &a.database, &a.server, &a.encoding, &a.number, &a.version, &at)
	p.sample(sample{whose: "PostgreSQL", from: from, to: time.Now(), at: at})
	if err == nil && role == workload.Migrate {
		p.owner = conn
		return a, nil
	}
	return a, errors.Join(err, conn.Close(ctx))
}

func (p *preflight) ownerAccount() account { return p.facts[p.accounts[workload.Migrate].User] }

func (p *preflight) postgresqlVersion(context.Context) finding {
	a := p.ownerAccount()
	switch {
	case a.number/10000 < minPostgreSQL:
		return failed(fmt.Sprintf("upgrade it to PostgreSQL %d or newer", minPostgreSQL), "PostgreSQL %s is older than %d", a.version, minPostgreSQL)
	case a.encoding != "UTF8":
		return failed("make the database anew: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", "the encoding of database %s is %s, in which not every text can be kept", p.Runtime.Database.Name, a.encoding)
	}
	return passed("PostgreSQL %s, encoding UTF8", a.version)
}

// postgresqlRights does in a transaction what migrations do, and rolls it back.
func (p *preflight) postgresqlRights(ctx context.Context) finding {
	name := p.Runtime.Database.Name
	owner := p.accounts[workload.Migrate].User
	for _, user := range sortedUsers(p.facts) {
		a := p.facts[user]
		if serves := a.serves(); a.unbound && len(serves) > 0 {
			return failed("use a role that is neither: CREATE ROLE … LOGIN NOSUPERUSER NOBYPASSRLS", "%s, with which %s works, is a superuser or has BYPASSRLS, so that row security would not keep participants apart", user, strings.Join(serves, ", "))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.tryMigration(ctx); err != nil {
		return failed(fmt.Sprintf("let it own the database: ALTER DATABASE %s OWNER TO %s (or GRANT CREATE ON DATABASE %[1]s TO %[2]s)", pgx.Identifier{name}.Sanitize(), pgx.Identifier{owner}.Sanitize()),
			"%s cannot do what the migration does: %v", owner, err).retry()
	}
	var others []string
	err := p.owner.QueryRow(ctx, `SELECT coalesce(array_agg(nspname::text ORDER BY nspname), '{}') FROM pg_namespace WHERE nspname = ANY($1) AND NOT pg_has_role(nspowner, 'USAGE')`,
		[]string{store.SchemaControlPlane, store.SchemaWallet, store.SchemaDataPlane, store.SchemaIssuer, store.SchemaAudit}).Scan(&others)
	switch {
	case err != nil:
		return failed("see the log of the server", "reading the schemas: %v", err).retry()
	case len(others) > 0:
		return failed(fmt.Sprintf("let it own them: ALTER SCHEMA … OWNER TO %s, with the tables in them; or give the Secret of the account that does", pgx.Identifier{owner}.Sanitize()), "the schemas %s belong to another role than %s", strings.Join(others, ", "), owner)
	case p.facts[owner].unbound:
		return warning("let an account that is no superuser own the database and migrate", "%s, which migrates, is a superuser or has BYPASSRLS: it reaches beyond the database", owner)
	}
	return passed("%s may make schemas, tables, functions and triggers; no account is a superuser", owner)
}

// tryMigration makes one of each thing that migrations make, and takes all back.
func (p *preflight) tryMigration(ctx context.Context) error {
	tx, err := p.owner.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	schema := "kaphera_preflight_" + strings.ToLower(rand.Text()[:12])
	for _, sql := range []string{
		"CREATE SCHEMA @", "CREATE TABLE @.probe (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), ctx text)", "ALTER TABLE @.probe ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY own ON @.probe USING (ctx = current_setting('kaphera.ctx', true))",
		"CREATE FUNCTION @.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
		"CREATE TRIGGER keep BEFORE INSERT ON @.probe FOR EACH ROW EXECUTE FUNCTION @.keep()",
	} {
		if _, err := tx.Exec(ctx, strings.ReplaceAll(sql, "@", schema)); err != nil {
			var pg *pgconn.PgError
			if errors.As(err, &pg) {
				return fmt.Errorf("%s: %s", strings.Join(strings.Fields(sql)[:2], " "), pg.Message)
			}
			return err
		}
	}
	return nil
}

// processes of a role there are at most: an update starts a new one before an old one ends.
func (p *preflight) processes() int { return int(ptr.Deref(p.Runtime.Replicas, 1)) + 1 }

// postgresqlConnections compares what may still be opened with what the roles' pools open.
func (p *preflight) postgresqlConnections(context.Context) finding {
	remedy := "raise max_connections, or the CONNECTION LIMIT of the role or the database, or close what others keep open"
	var low []string
	processes := 0
	for _, user := range sortedUsers(p.facts) {
		a := p.facts[user]
		serves := len(a.serves()) * p.processes()
		processes += serves
		need := serves * config.DefaultMaxConns
		if slices.Contains(a.roles, string(workload.Migrate)) {
			need++
		}
		switch {
		case a.free >= 0 && a.free < max(serves, 1):
			return failed(remedy, "role %s may open %d more connections, and each of its %d processes needs one at least", user, a.free, serves)
		case a.free >= 0 && a.free < need:
			low = append(low, fmt.Sprintf("role %s may open %d more connections of the %d that its processes may want", user, a.free, need))
		}
	}
	owner := p.ownerAccount()
	need := processes*config.DefaultMaxConns + 1
	for _, limit := range []struct {
		whose string
		free  int
	}{{"database " + p.Runtime.Database.Name, owner.database}, {"the server", owner.server}} {
		switch {
		case limit.free >= 0 && limit.free < processes+1:
			return failed(remedy, "%s takes %d more connections, and %d processes and the migration need one each", limit.whose, limit.free, processes)
		case limit.free >= 0 && limit.free < need:
			low = append(low, fmt.Sprintf("%s takes %d more connections of the %d that all processes may want", limit.whose, limit.free, need))
		}
	}
	if len(low) > 0 {
		return warning(remedy, "%s", sentences(low))
	}
	return passed("%d more connections are free, %d may be wanted (%d processes of %d each, and the migration)", owner.server, need, processes, config.DefaultMaxConns)
}

func sortedUsers(m map[string]account) []string {
	users := make([]string, 0, len(m))
	for u := range m {
		users = append(users, u)
	}
	slices.Sort(users)
	return users
}
