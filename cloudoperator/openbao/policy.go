// SPDX-License-Identifier: FSL-1.1-ALv2

package openbao

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
