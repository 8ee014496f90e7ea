// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
)

const databaseKeycloak = "keycloak"

// postgresStart finds the server's programs, makes the database on the first start and sets the superuser's password to the
// Secret's on every start, without the network. A first start that was cut off begins again.
const postgresStart = `set -eu
for d in /usr/lib/postgresql/*/bin /usr/local/pgsql/bin; do [ -d "$d" ] && PATH="$d:$PATH"; done
export PATH
umask 077
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --pwfile=/etc/postgresql-admin/password \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --data-checksums
  rm -rf "$PGDATA"
  mv "$PGDATA.new" "$PGDATA"
else
  rm -f "$PGDATA/postmaster.pid"
  printf "SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD '%s'\n" "$(cat /etc/postgresql-admin/password)" |
    postgres --single -D "$PGDATA" -c log_min_error_statement=panic postgres >/dev/null
fi
exec postgres -D "$PGDATA" "$@"
`

const postgresHBA = `# Only over TLS, only with a password.
hostssl all all all scram-sha-256
`

// passwd names the user for images that do not know it; initdb refuses to run without a name. It holds no password.
//
//nolint:gosec // see above
const passwd = `root:x:0:0:root:/root:/sbin/nologin
kaphera:x:10001:10001:kaphera:/tmp:/sbin/nologin
`

func postgresWorkload(p *cloud.Platform, image, digest string) workload {
	settings := []string{
		"listen_addresses=*", "port=5432", "unix_socket_directories=/run", "hba_file=/etc/postgresql/pg_hba.conf",
		"ssl=on", "ssl_cert_file=/etc/postgresql-tls/tls.crt", "ssl_key_file=/etc/postgresql-tls/tls.key", "ssl_min_protocol_version=TLSv1.2",
		"password_encryption=scram-sha-256", "max_connections=200", "shared_buffers=64MB", "wal_compression=on", "max_wal_size=256MB",
		"log_min_error_statement=panic", // a statement may hold what must not be in a log
	}
	args := []string{"-c", postgresStart, "postgresql"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	alive := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{
		"sh", "-c", `PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)"; exec pg_isready -q -h /run -p 5432 -U postgres`,
	}}}
	return workload{
		name: parts.PostgreSQL, namespace: p.Namespace, image: image, pullSecrets: p.Spec.ImagePullSecrets, command: []string{"/bin/sh"}, args: args,
		env:   []corev1.EnvVar{{Name: "PGDATA", Value: "/var/lib/kaphera/postgresql/data"}},
		ports: map[string]int32{"postgresql": parts.PortPostgreSQL}, ready: alive, live: tcpProbe(parts.PortPostgreSQL), startSeconds: 180, grace: 60,
		mounts: []corev1.VolumeMount{
			mount("tls", "/etc/postgresql-tls"), mount("admin", "/etc/postgresql-admin"), mount("config", "/etc/postgresql"),
			{Name: "config", MountPath: "/etc/passwd", SubPath: "passwd", ReadOnly: true},
		},
		volumes: []corev1.Volume{
			secretVolume("tls", parts.TLSSecret(parts.PostgreSQL), corev1.TLSCertKey, corev1.TLSPrivateKeyKey),
			secretVolume("admin", parts.SecretPostgreSQL, parts.KeyPassword), configVolume("config", parts.PostgreSQL),
		},
		requests: requests("50m", "96Mi"), memoryLimit: "512Mi", digest: digest,
	}
}

func (r *run) postgresql(ctx context.Context) error {
	_, external := parts.External(r.platform, parts.PostgreSQL)
	if !external {
		if err := r.managedPostgreSQL(ctx); err != nil {
			return err
		}
	}
	db, err := r.access.OpenPostgres(ctx)
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	if !external {
		if err := r.reload(ctx, parts.PostgreSQL, db.Reload); err != nil {
			return err
		}
	}
	if r.platform.Spec.Keycloak.External != nil {
		return nil
	}
	s, err := r.keycloakLogin(ctx)
	if err != nil {
		return err
	}
	owner := postgres.Role{Name: string(s[parts.KeyUsername]), Password: string(s[parts.KeyPassword])}
	return db.Ensure(ctx, postgres.Database{Name: databaseKeycloak, Owner: owner})
}

func (r *run) managedPostgreSQL(ctx context.Context) error {
	admin, err := r.access.Ensure(ctx, parts.SecretPostgreSQL, map[string]kube.Make{parts.KeyPassword: kube.Password})
	if err != nil {
		return err
	}
	restart, err := r.reloadable(ctx, parts.PostgreSQL)
	if err != nil {
		return err
	}
	config := r.configMap(parts.PostgreSQL, map[string]string{"pg_hba.conf": postgresHBA, "passwd": passwd})
	w := postgresWorkload(r.platform, r.images.PostgreSQL, kube.Digest(config.Data, restart, admin))
	if err := r.stateful(ctx, w, volume{r.platform.Spec.PostgreSQL.StorageSize, r.platform.Spec.PostgreSQL.StorageClassName}, "/var/lib/kaphera/postgresql", config); err != nil {
		return err
	}
	return r.running(ctx, w.name, true)
}
