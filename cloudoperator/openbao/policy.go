// SPDX-License-Identifier: FSL-1.1-ALv2

package openbao

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/cloudoperator/fault"
)

// Namespaces of what the operator makes in a Vault: policies and roles, and paths below the mount, that start with these.
const (
	grants  = "cell-"
	secrets = "cells/"
)

type right struct{ path, capabilities string }

// rights are what the Cloud operator needs: administer policies and roles of cells, and remove secrets without reading them.
func (p Place) rights() []right {
	return []right{
		{"sys/mounts", "read"},
		{"sys/auth", "read"},
		{"sys/policies/acl/" + grants + "*", "create read update delete"},
		{"auth/" + p.AuthMount + "/role/" + grants + "*", "create read update delete"},
		{p.Mount + "/metadata/" + secrets + "*", "list delete"},
		{"sys/capabilities-self", "update"},
		{"auth/token/lookup-self", "read"},
		{"auth/token/renew-self", "update"},
		{"auth/token/revoke-self", "update"},
	}
}

func (r right) String() string {
	return fmt.Sprintf("path %q { capabilities = [\"%s\"] }", r.path, strings.ReplaceAll(r.capabilities, " ", `", "`))
}

// OperatorPolicy is the policy of the Cloud operator, in HCL.
func (p Place) OperatorPolicy() string {
	var b strings.Builder
	for _, r := range p.rights() {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// checkRights says which of them the login lacks.
func (c *Client) checkRights(ctx context.Context) error {
	var missing []string
	for _, r := range c.place.rights() {
		got, err := c.api.Sys().CapabilitiesSelfWithContext(ctx, strings.Replace(r.path, "*", "probe", 1))
		if err != nil {
			return fmt.Errorf("ask the vault what the operator may do: %w", plain(err))
		}
		if !slices.Contains(got, "root") && slices.ContainsFunc(strings.Fields(r.capabilities), func(want string) bool { return !slices.Contains(got, want) }) {
			missing = append(missing, r.String())
		}
	}
	if len(missing) > 0 {
		return fault.Right("give it "+strings.Join(missing, " "), "the operator's policy in the vault at %s lacks rights", c.place.Address)
	}
	return nil
}
