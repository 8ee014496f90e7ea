// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
)

const natsMonitor = 8222

// natsConfig is a server in operator mode: accounts are pushed to its resolver, so that a new cell needs no restart.
//
// The WebSocket listener is for agents outside the cluster; who may use it is in the users' JWTs (natsauth.Permissions). TLS ends at the ingress
// controller, and it comes in without: an Ingress has no word for TLS to its backend, controllers differ in theirs, and where they have one most
// take any certificate. Credentials sign a nonce and are not sent; a NetworkPolicy keeps other pods away.
//
// The pings make the server forget a connection that broke without a word, before calls to that cell are lost in it.
// max_pending and the connections of an account bound what one cell may take of the memory.
func natsConfig(s natsauth.Server) string {
	return fmt.Sprintf(`server_name: nats-0
listen: "0.0.0.0:4222"
http: "0.0.0.0:%d"
max_payload: 4MB
max_pending: 8MB
ping_interval: "15s"
ping_max: 2
tls {
  cert_file: "/etc/nats-tls/tls.crt"
  key_file: "/etc/nats-tls/tls.key"
  min_version: "1.2"
}
websocket {
  listen: "0.0.0.0:%d"
  no_tls: true
}
jetstream {
  store_dir: "/var/lib/kaphera/nats/data"
  max_memory_store: 16MB
}
operator: %q
system_account: %q
resolver {
  type: full
  dir: "/var/lib/kaphera/nats/accounts"
  allow_delete: true
  interval: "2m"
}
resolver_preload: {
  %s: %q
}
`, natsMonitor, parts.PortWebSocket, s.OperatorJWT, s.SystemAccount, s.SystemAccount, s.SystemJWT)
}

func natsWorkload(p *cloud.Platform, image, digest string) workload {
	return workload{
		name: parts.NATS, namespace: p.Namespace, image: image, pullSecrets: p.Spec.ImagePullSecrets, command: []string{"nats-server"}, args: []string{"--config", "/etc/nats/nats.conf"},
		ports: map[string]int32{"nats": parts.PortNATS, "http": parts.PortWebSocket},
		ready: httpProbe(corev1.URISchemeHTTP, natsMonitor, "/healthz?js-enabled-only=true"),
		live:  tcpProbe(natsMonitor), startSeconds: 120, grace: 30,
		mounts: []corev1.VolumeMount{mount("tls", "/etc/nats-tls"), mount("config", "/etc/nats")},
		volumes: []corev1.Volume{
			secretVolume("tls", parts.TLSSecret(parts.NATS), corev1.TLSCertKey, corev1.TLSPrivateKeyKey), secretVolume("config", natsConfigSecret),
		},
		requests: requests("20m", "32Mi"), memoryLimit: "256Mi", digest: digest,
	}
}

// natsConfigSecret holds the configuration: the JWTs in it are no secrets by design, but nobody needs to read them either.
const natsConfigSecret = "nats-config" // #nosec G101 -- a name

// systemPermissions of the operator's own user in the system account: push, list and remove accounts, and let the server read its certificate again.
var systemPermissions = natsauth.Permissions{Publish: []string{"$SYS.REQ.CLAIMS.>", "$SYS.REQ.ACCOUNT.>", "$SYS.REQ.SERVER.*.RELOAD"}, Subscribe: []string{"_INBOX.>"}}

// maxPayload that a message server must allow, in bytes: a snapshot is one message.
const maxPayload = 4_000_000

func (r *run) nats(ctx context.Context) error {
	_, external := parts.External(r.platform, parts.NATS)
	if !external {
		if err := r.managedNATS(ctx); err != nil {
			return err
		}
	}
	nc, err := r.access.OpenNATSSystem(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	if !external {
		reload := func(context.Context) error { return natsauth.Reload(nc) }
		return errors.Join(natsauth.Ping(nc), r.reload(ctx, parts.NATS, reload))
	}
	op, err := r.access.Operator(ctx)
	if err != nil {
		return err
	}
	if err := natsauth.Ping(nc); err != nil {
		return fault.Right("let the user of system.creds publish $SYS.REQ.CLAIMS.> and subscribe _INBOX.> in the system account, and configure the server's resolver with type: full", "%v", err)
	}
	if err := op.MayRemove(nc); err != nil {
		return fault.Right("put the seed of this server's operator, or of a signing key in its JWT, into operator.seed, and configure the server's resolver with allow_delete: true", "the message server does not take what the operator signs: %v", err)
	}
	storage, err := natsauth.Storage(nc, celllink.Storage)
	switch {
	case err != nil:
		return fault.Right("let the user of system.creds publish $SYS.REQ.SERVER.PING.JSZ", "%v", err)
	case storage == 0:
		return fault.Right("configure it with jetstream { store_dir: … }", "the message server runs without JetStream")
	case storage < celllink.Storage:
		return fault.Right(fmt.Sprintf("let it have %d for each cell: jetstream { max_file_store: … }", celllink.Storage), "JetStream of the message server may keep %d bytes on disk", storage)
	}
	if nc.MaxPayload() < maxPayload {
		return fault.Right("configure the server with max_payload: 4MB", "the message server takes messages of at most %d bytes", nc.MaxPayload())
	}
	return nil
}

func (r *run) managedNATS(ctx context.Context) error {
	keys, err := r.natsKeys(ctx)
	if err != nil {
		return err
	}
	server := natsauth.Server{OperatorJWT: string(keys[parts.KeyOperatorJWT]), SystemJWT: string(keys[parts.KeySystemJWT])}
	if server.SystemAccount, err = natsauth.PublicKey(keys[parts.KeySystemSeed]); err != nil {
		return fmt.Errorf("secret %s: %w", parts.SecretNATS, err)
	}
	restart, err := r.reloadable(ctx, parts.NATS)
	if err != nil {
		return err
	}
	config := r.access.Secret(natsConfigSecret)
	config.Data = map[string][]byte{"nats.conf": []byte(natsConfig(server))}
	w := natsWorkload(r.platform, r.images.NATS, kube.Digest(config.Data, restart))
	if err := r.stateful(ctx, w, volume{r.platform.Spec.NATS.StorageSize, r.platform.Spec.NATS.StorageClassName}, "/var/lib/kaphera/nats", config); err != nil {
		return err
	}
	if err := r.apply(ctx, r.ingress("kaphera-nats", w.name, parts.NATSHost(r.platform), "/")); err != nil {
		return err
	}
	return r.running(ctx, w.name, true)
}

// natsKeys returns the Secret of the server's keys. The JWTs and the system user's credentials are derived from the seeds: when a seed
// was lost and made anew, so are they.
func (r *run) natsKeys(ctx context.Context) (map[string][]byte, error) {
	fresh, err := natsauth.NewOperator()
	if err != nil {
		return nil, err
	}
	seeds := map[string]kube.Make{
		parts.KeyOperatorSeed: func() ([]byte, error) { return fresh.Seed, nil },
		parts.KeySystemSeed:   func() ([]byte, error) { return fresh.SystemSeed, nil },
	}
	data, err := r.access.Ensure(ctx, parts.SecretNATS, seeds)
	if err != nil {
		return nil, err
	}
	op := natsauth.Operator{Seed: data[parts.KeyOperatorSeed], SystemSeed: data[parts.KeySystemSeed]}
	if op.Of(string(data[parts.KeyOperatorJWT])) && natsauth.Belongs(data[parts.KeySystemCredentials], op.SystemSeed, systemPermissions) {
		return data, nil
	}
	s, err := op.Server()
	if err != nil {
		return nil, err
	}
	creds, err := natsauth.Credentials(op.SystemSeed, "cloud-operator", systemPermissions)
	if err != nil {
		return nil, err
	}
	secret := r.access.Secret(parts.SecretNATS)
	secret.Data = map[string][]byte{
		parts.KeyOperatorSeed: op.Seed, parts.KeySystemSeed: op.SystemSeed,
		parts.KeyOperatorJWT: []byte(s.OperatorJWT), parts.KeySystemJWT: []byte(s.SystemJWT), parts.KeySystemCredentials: creds,
	}
	return secret.Data, kube.Apply(ctx, r.client, nil, secret)
}
