// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Where a container finds its files.
const (
	configDir = "/etc/kaphera"
	secretDir = "/var/run/kaphera" // #nosec G101 -- a path

	fileDatabasePassword = "database-password"
	fileManagementKey    = "management-key"
	fileVaultToken       = "vault-token"
	fileVaultRoleID      = "vault-role-id"
	fileVaultSecretID    = "vault-secret-id" // #nosec G101 -- a name

	keyTrustCA    = "trust-ca.pem"
	keyDatabaseCA = "database-ca.pem"
	keyVaultCA    = "vault-ca.pem"
)

// fileToken is the file with the token of a role's internal API.
func fileToken(role Role) string { return string(role) + "-token" }

// ConfigMap holds one configuration file per role, <role>.yaml, and the certificate authorities. No secret is in it.
func (r Runtime) ConfigMap() *corev1.ConfigMap {
	data := map[string]string{}
	for _, role := range append([]Role{Migrate, Backup, Restore}, r.Roles...) {
		data[string(role)+".yaml"] = r.configFile(role)
	}
	for key, pem := range map[string]string{keyTrustCA: r.Trust.CABundle, keyDatabaseCA: r.Database.CABundle, keyVaultCA: r.Vault.CABundle} {
		if pem != "" {
			data[key] = pem
		}
	}
	return &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: r.meta(r.ConfigName(), ""), Data: data,
	}
}

// Config is what a role reads at its start.
func (r Runtime) Config(role Role) config.Config {
	c := config.Config{
		PublicURL: PublicURL(r.Exposure),
		Database: config.Database{
			Host: r.Database.Host, Port: int(r.Database.Port), Name: r.Database.Name,
			User: r.account(role).User, PasswordFile: secretDir + "/" + fileDatabasePassword,
			SSLMode: r.Database.SSLMode, CAFile: fileOf(keyDatabaseCA, r.Database.CABundle),
		},
	}
	if role == Migrate {
		c.Database.Roles = r.grants()
		c.Audit.KeepBodies = config.Duration(duration(r.Audit.KeepBodies))
		return c
	}
	if !archives(role) {
		r.serving(role, &c)
	}
	c.Vault = config.Vault{
		Address: r.Vault.Address, Namespace: r.Vault.Namespace, Mount: r.Vault.Mount, Prefix: r.Vault.Prefix,
		CAFile: fileOf(keyVaultCA, r.Vault.CABundle),
		Auth:   config.VaultAuth{Method: strings.ToLower(r.Vault.Auth.Method), MountPath: r.Vault.Auth.MountPath},
	}
	switch r.Vault.Auth.Method {
	case v1alpha1.VaultMethodToken:
		c.Vault.Auth.TokenFile = secretDir + "/" + fileVaultToken
	case v1alpha1.VaultMethodAppRole:
		c.Vault.Auth.RoleIDFile, c.Vault.Auth.SecretIDFile = secretDir+"/"+fileVaultRoleID, secretDir+"/"+fileVaultSecretID
	default:
		c.Vault.Auth.Role, c.Vault.Auth.ServiceAccountTokenFile = r.vaultRole(role), secretDir+"/"+fileVaultToken
	}
	return c
}

// serving adds what a role that serves needs.
func (r Runtime) serving(role Role, c *config.Config) {
	share := r.PerParticipant
	c.PerParticipant = config.PerParticipant{Connections: int(share.Connections), Requests: int(share.Requests), Messages: int(share.Messages), Accesses: int(share.Accesses)}
	c.Trust = config.Trust{CAFile: fileOf(keyTrustCA, r.Trust.CABundle), AllowPrivateNetworks: r.Trust.AllowPrivateNetworks}
	c.Internal.TokenFile = secretDir + "/" + fileToken(role)
	if role != Issuer {
		c.Internal.WalletURL, c.Internal.DataPlaneURL, c.Internal.ControlPlaneURL = r.InternalURL(Wallet), r.InternalURL(DataPlane), r.InternalURL(ControlPlane)
	}
	if role == ControlPlane || role == DataPlane {
		c.DataPlane.AllowedNetworks, c.DataPlane.DeniedNetworks = networks(r.DataPlane.AllowedNetworks), networks(r.DataPlane.DeniedNetworks)
	}
	if role == ControlPlane {
		c.Internal.WalletTokenFile, c.Internal.DataPlaneTokenFile = secretDir+"/"+fileToken(Wallet), secretDir+"/"+fileToken(DataPlane)
		if r.exposesManagement(role) {
			c.Listen.Management = ":" + strconv.Itoa(ManagementPort)
		}
		c.Management.APIKeyFile = secretDir + "/" + fileManagementKey
		if o := r.Management.OAuth2; o != nil {
			c.Management.OAuth2 = config.OAuth2{Issuer: o.Issuer, Audience: o.Audience, JWKSURL: o.JWKSURL}
		}
		c.Audit.Leaving = r.Audit.Leaving
	}
}

// duration parses what the schema has let through; empty is zero.
func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil && s != "" {
		panic("a duration that the schema lets through: " + err.Error())
	}
	return d
}

// networks parses what the schema has let through.
func networks(cidrs []string) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range cidrs {
		out = append(out, netip.MustParsePrefix(c))
	}
	return out
}

func (r Runtime) vaultRole(role Role) string {
	named := map[Role]string{
		ControlPlane: r.Vault.Auth.Roles.ControlPlane, Wallet: r.Vault.Auth.Roles.Wallet,
		DataPlane: r.Vault.Auth.Roles.DataPlane, Issuer: r.Vault.Auth.Roles.Issuer, Backup: r.Vault.Auth.Roles.Backup, Restore: r.Vault.Auth.Roles.Restore,
	}[role]
	if named == "" {
		return r.ObjectName(role)
	}
	return named
}

// grants names the database roles that the migration grants each schema to; a role that connects as the owner needs none.
func (r Runtime) grants() config.Roles {
	user := func(role Role) string {
		if u := r.Accounts[role].User; u != r.Accounts[Migrate].User {
			return u
		}
		return ""
	}
	return config.Roles{ControlPlane: user(ControlPlane), Wallet: user(Wallet), DataPlane: user(DataPlane), Issuer: user(Issuer)}
}

func fileOf(key, pem string) string {
	if pem == "" {
		return ""
	}
	return configDir + "/" + key
}

// configFile is Config as YAML without what is empty, so that the defaults stay the runtime's own.
func (r Runtime) configFile(role Role) string {
	raw, err := json.Marshal(r.Config(role))
	if err != nil {
		panic("a configuration of plain fields: " + err.Error())
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		panic("JSON that was just written: " + err.Error())
	}
	out, err := yaml.Marshal(withoutEmpty(tree))
	if err != nil {
		panic("a tree of maps and strings: " + err.Error())
	}
	return string(out)
}

func withoutEmpty(m map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		switch t := v.(type) {
		case map[string]any:
			if sub := withoutEmpty(t); len(sub) > 0 {
				out[k] = sub
			}
		case string:
			if t != "" && t != "0s" {
				out[k] = t
			}
		case float64:
			if t != 0 {
				out[k] = t
			}
		case bool:
			if t {
				out[k] = t
			}
		case nil:
		default:
			out[k] = v
		}
	}
	return out
}
