// SPDX-License-Identifier: FSL-1.1-ALv2

// Package authz decides who may call which operation of the Cloud API. One table (table.go) has a row for every operation;
// what has no row is denied. It knows roles, operations and organizations, and neither HTTP nor tokens.
package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Role is a realm role of the identity provider.
type Role string

// Roles.
const (
	PlatformOperator    Role = "platform-operator"    // runs the platform, and connectors on behalf of their participants
	GovernanceAuthority Role = "governance-authority" // sets the rules of a dataspace and vouches for participants
	OrganizationAdmin   Role = "organization-admin"   // acts for one organization
	Viewer              Role = "viewer"               // reads what concerns one organization
)

// Roles lists every role, the mightiest first.
var Roles = []Role{PlatformOperator, GovernanceAuthority, OrganizationAdmin, Viewer}

// Scope says on whose objects a role may call an operation.
type Scope int

// Scopes, each wider than the one before.
const (
	None Scope = iota
	Own        // objects of the caller's organization
	All        // every object
)

func (s Scope) String() string { return [...]string{"none", "own organization", "all"}[s] }

// Principal is an authenticated person or program.
type Principal struct {
	Subject      string `json:"sub"`
	Name         string `json:"name"` // to greet and to log
	Username     string `json:"username,omitempty"`
	Client       string `json:"client,omitempty"` // of a program that logged in as itself: its client id; empty for people
	Roles        []Role `json:"roles"`
	Organization string `json:"org,omitempty"`
}

// Has says whether the principal has the role.
func (p Principal) Has(r Role) bool { return slices.Contains(p.Roles, r) }

// Actor is who acts, as audit trails name it.
func (p Principal) Actor() string {
	switch {
	case p.Client != "":
		return "client:" + p.Client
	case p.Subject != "":
		return "user:" + p.Subject
	}
	return ""
}

// Access is a granted call: who, and how far the grant reaches.
type Access struct {
	Principal Principal
	Scope     Scope
}

// Covers says whether the access reaches objects of the organization. Objects that belong to no organization are reached by All only.
func (a Access) Covers(organization string) bool {
	return a.Scope == All || a.Scope == Own && organization != "" && organization == a.Principal.Organization
}

// DeniedError says which operation was denied to whom.
type DeniedError struct {
	Operation string
	Principal Principal
	Needs     []Role
}

func (e *DeniedError) Error() string {
	if len(e.Needs) == 0 {
		return fmt.Sprintf("nobody may call %s", e.Operation)
	}
	return fmt.Sprintf("%s may not call %s: it needs the role %s", e.Principal.Name, e.Operation, joinRoles(e.Needs, " or "))
}

// Authorize decides whether the principal may call the operation, and stores the access granted in the context, where From finds it.
// The error is a *DeniedError.
func Authorize(ctx context.Context, p Principal, operation string) (context.Context, error) {
	scope := None
	for role, s := range table[operation] {
		if p.Has(role) {
			scope = max(scope, s)
		}
	}
	if scope == Own && p.Organization == "" {
		scope = None
	}
	if scope == None {
		return ctx, &DeniedError{operation, p, needs(operation)}
	}
	return context.WithValue(ctx, accessKey{}, Access{p, scope}), nil
}

type accessKey struct{}

// From returns the access that Authorize granted; without one it reaches nothing.
func From(ctx context.Context) Access {
	a, _ := ctx.Value(accessKey{}).(Access)
	return a
}

func needs(operation string) (out []Role) {
	for _, r := range Roles {
		if table[operation][r] != None {
			out = append(out, r)
		}
	}
	return out
}

func joinRoles(roles []Role, sep string) string {
	out := make([]string, len(roles))
	for i, r := range roles {
		out[i] = string(r)
	}
	return strings.Join(out, sep)
}
