// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
)

// unsealKey is the key of the 32 random bytes in Secret openbao-unseal. Whoever reads that Secret and the volume reads the Vault: that
// is the price of a Vault that comes back by itself after a restart. Where that is too high, run the Vault outside the cluster.
const unsealKey = "key"

// openbaoConfig lets OpenBao unseal itself and, on its first start, set itself up: KV engine, Kubernetes auth, and the Cloud
// operator's own role. OpenBao makes the root token for that itself and revokes it at the end; nobody ever holds it.
func openbaoConfig(namespace, operatorServiceAccount string) string {
	host := parts.Host(parts.OpenBao, namespace)
	policy := openbao.Managed("https://"+host+":8200", "").OperatorPolicy()
	return fmt.Sprintf(`ui = false
api_addr = "https://%[1]s:8200"
cluster_addr = "https://%[1]s:8201"
log_level = "warn"

listener "tcp" {
  address = "[::]:8200"
  cluster_address = "[::]:8201"
  tls_cert_file = "/etc/openbao-tls/tls.crt"
  tls_key_file = "/etc/openbao-tls/tls.key"
  tls_min_version = "tls12"
}

storage "raft" {
  path = "/var/lib/kaphera/openbao/data"
  node_id = "openbao-0"
}

seal "static" {
  current_key_id = "1"
  current_key = "file:///etc/openbao-unseal/key"
}

initialize "kaphera" {
  request "kv" {
    operation = "update"
    path = "sys/mounts/%[2]s"
    data = { type = "kv", options = { version = "2" } }
  }
  request "auth" {
    operation = "update"
    path = "sys/auth/%[3]s"
    data = { type = "kubernetes" }
  }
  request "auth-config" {
    operation = "update"
    path = "auth/%[3]s/config"
    data = { kubernetes_host = "https://kubernetes.default.svc" }
  }
  request "operator-policy" {
    operation = "update"
    path = "sys/policies/acl/%[4]s"
    data = { policy = <<EOT
%[5]s
EOT
    }
  }
  request "operator-role" {
    operation = "update"
    path = "auth/%[3]s/role/%[4]s"
    data = {
      bound_service_account_names = ["%[6]s"]
      bound_service_account_namespaces = ["%[7]s"]
      audience = "%[8]s"
      token_policies = ["%[4]s"]
      token_type = "batch"
      token_ttl = "10m"
    }
  }
}
`, host, openbao.Mount, openbao.AuthMount, openbao.OperatorRole, policy, operatorServiceAccount, namespace, openbao.Audience)
}

func openbaoWorkload(p *cloud.Platform, image, digest string) workload {
	return workload{
		name: parts.OpenBao, namespace: p.Namespace, image: image, pullSecrets: p.Spec.ImagePullSecrets, serviceAccount: parts.OpenBao,
		command: []string{"bao"}, args: []string{"server", "-config=/etc/openbao/config.hcl"},
		env:   []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}, {Name: "SKIP_SETCAP", Value: "true"}},
		ports: map[string]int32{"https": parts.PortOpenBao},
		ready: httpProbe(corev1.URISchemeHTTPS, parts.PortOpenBao, "/v1/sys/health?standbyok=true"),
		// One that somebody has sealed unseals itself when it is started again.
		live: httpProbe(corev1.URISchemeHTTPS, parts.PortOpenBao, "/v1/sys/health?standbyok=true&uninitcode=200"), startSeconds: 180, grace: 30,
		mounts: []corev1.VolumeMount{mount("tls", "/etc/openbao-tls"), mount("unseal", "/etc/openbao-unseal"), mount("config", "/etc/openbao")},
		volumes: []corev1.Volume{
			secretVolume("tls", parts.TLSSecret(parts.OpenBao), corev1.TLSCertKey, corev1.TLSPrivateKeyKey),
			secretVolume("unseal", parts.SecretUnseal, unsealKey), configVolume("config", parts.OpenBao),
		},
		requests: requests("20m", "128Mi"), memoryLimit: "512Mi", digest: digest,
	}
}

func (r *run) vault(ctx context.Context) error {
	if _, external := parts.External(r.platform, parts.OpenBao); !external {
		if err := r.managedVault(ctx); err != nil {
			return err
		}
	}
	v, err := r.access.OpenVault(ctx)
	if err != nil {
		return err
	}
	defer v.Close(ctx)
	return v.Check(ctx)
}

func (r *run) managedVault(ctx context.Context) error {
	if _, err := r.access.Ensure(ctx, parts.SecretUnseal, map[string]kube.Make{unsealKey: func() ([]byte, error) { return kube.Random(32) }}); err != nil {
		return err
	}
	cert, err := r.certificate(ctx, parts.OpenBao)
	if err != nil {
		return err
	}
	config := r.configMap(parts.OpenBao, map[string]string{"config.hcl": openbaoConfig(r.platform.Namespace, r.serviceAccount)})
	w := openbaoWorkload(r.platform, r.images.OpenBao, kube.Digest(config.Data, cert.Cert))
	if err := r.stateful(ctx, w, volume{r.platform.Spec.Vault.StorageSize, r.platform.Spec.Vault.StorageClassName}, "/var/lib/kaphera/openbao", config); err != nil {
		return err
	}
	return r.running(ctx, w.name, true)
}
