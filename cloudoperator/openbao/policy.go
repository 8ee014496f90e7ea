// SPDX-License-Identifier: FSL-1.1-ALv2

package openbao

import "fmt"

// OperatorPolicy is what the Cloud operator may do: administer policies and roles, and remove secrets without reading them.
const OperatorPolicy = `path "sys/policies/acl/*" { capabilities = ["create", "read", "update", "delete"] }
path "sys/policies/acl" { capabilities = ["list"] }
path "sys/policy" { capabilities = ["read", "list"] }
path "sys/policy/*" { capabilities = ["create", "read", "update", "delete"] }
path "sys/mounts" { capabilities = ["read"] }
path "sys/auth" { capabilities = ["read"] }
path "auth/kubernetes/role/*" { capabilities = ["create", "read", "update", "delete"] }
path "auth/kubernetes/role" { capabilities = ["list"] }
path "kv/metadata/*" { capabilities = ["list", "delete"] }
`

// Paths below a runtime's prefix are <owner>/keys/<kid> and <owner>/secrets/<alias>. Each role of a runtime gets what it needs:
// the wallet and the issuer their keys, the control plane and the data plane the participants' secrets.

// KeysPolicy lets a wallet or an issuer make, use and remove keys of every owner below prefix.
func KeysPolicy(prefix string) string { return policy(prefix, "keys", true) }

// SecretsPolicy lets the control plane store, read and remove participants' secrets below prefix.
func SecretsPolicy(prefix string) string { return policy(prefix, "secrets", true) }

// SecretsReadPolicy lets the data plane read participants' secrets below prefix.
func SecretsReadPolicy(prefix string) string { return policy(prefix, "secrets", false) }

func policy(prefix, kind string, write bool) string {
	data, metadata := `["read"]`, `["read", "list"]`
	if write {
		data, metadata = `["create", "read", "update"]`, `["read", "list", "delete"]`
	}
	// Every role of the runtime probes its access with one path that holds nothing.
	return fmt.Sprintf(`path "%[1]s/data/%[2]s/probe/keys/probe" { capabilities = ["create", "read", "update"] }
path "%[1]s/data/%[2]s/+/%[3]s/*" { capabilities = %[4]s }
path "%[1]s/metadata/%[2]s/+/%[3]s/*" { capabilities = %[5]s }
path "sys/internal/ui/mounts" { capabilities = ["read"] }
path "sys/capabilities-self" { capabilities = ["update"] }
`, Mount, prefix, kind, data, metadata)
}
