// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"strings"
)

// Access is what a role of a connector does in the vault. Its policy has to allow that, and nothing else.
type Access string

// What roles do: a wallet and an issuer use keys, a control plane stores secrets that it is given and cannot read them, a data plane
// reads them. What goes into an archive is read, and what comes out of one is written (connector/archive): no role may do either. Where a participant is
// brought in by a move, what it has there is replaced.
const (
	UseKeys      Access = "keys"
	StoreSecrets Access = "store-secrets"
	ReadSecrets  Access = "read-secrets"
	Backup       Access = "backup"
	Restore      Access = "restore"
	Replace      Access = "replace"
)

// need is capabilities on everything of a kind, whoever its owner.
type need struct{ tree, kind, capabilities string }

var needs = map[Access][]need{
	UseKeys:      {{"data", "keys", "create read update"}, {"metadata", "keys", "list delete"}},
	StoreSecrets: {{"data", "secrets", "create update"}, {"metadata", "secrets", "list delete"}},
	ReadSecrets:  {{"data", "secrets", "read"}},
	Backup:       {{"data", "keys", "read"}, {"metadata", "keys", "list"}, {"data", "secrets", "read"}, {"metadata", "secrets", "list"}},
	Restore:      {{"data", "keys", "create read"}, {"data", "secrets", "create read"}},
	Replace: {
		{"data", "keys", "create read update"}, {"metadata", "keys", "list delete"}, {"data", "secrets", "create read update"}, {"metadata", "secrets", "list delete"},
	},
}

// Policy is the policy, in HCL, of a role that does these below prefix of mount.
func Policy(mount, prefix string, does ...Access) string {
	return PolicyOf(mount, prefix, "+", does...)
}

// PolicyOf is that of one who does these to what a single owner has there.
func PolicyOf(mount, prefix, owner string, does ...Access) string {
	var b strings.Builder
	for _, a := range does {
		for _, n := range needs[a] {
			capabilities := `"` + strings.ReplaceAll(n.capabilities, " ", `", "`) + `"`
			fmt.Fprintf(&b, "path %q { capabilities = [%s] }\n", strings.Join([]string{mount, n.tree, prefix, owner, n.kind, "*"}, "/"), capabilities)
		}
	}
	return b.String() + "path \"sys/capabilities-self\" { capabilities = [\"update\"] }\n"
}
