// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/keycloak"
)

// Clients that have the roles of people, and a role for each organization, in a realm that somebody else runs: its own roles are not the platform's to make,
// and attributes are, in some realms, what people write themselves. None is called as the audience is: Keycloak adds a client of whose roles somebody has
// any to the audience of his tokens for every application.
const (
	ClientRoles         = "kaphera-roles"
	ClientOrganizations = "kaphera-organizations"
)

// guest is what the platform has in such a realm.
func guest(p *cloud.Platform, clients map[string][]byte, organizations []string) keycloak.Guest {
	own := realm(p, clients)
	g := keycloak.Guest{
		Realm: p.Spec.Keycloak.External.Realm, Mark: p.Spec.Domain, Clients: own.Clients,
		Roles: map[string]map[string]string{ClientRoles: own.Roles, ClientOrganizations: {}},
		Scope: keycloak.Rep{"name": own.Scope["name"], "description": own.Scope["description"], "protocol": own.Scope["protocol"], "attributes": own.Scope["attributes"], "protocolMappers": []any{
			clientRoles("roles", ClientRoles), clientRoles("organization", ClientOrganizations), audience(),
		}},
	}
	for i := range g.Clients {
		if roles := g.Clients[i].Roles; roles != nil {
			g.Clients[i].Roles, g.Clients[i].Grants = nil, keycloak.Grants{ClientRoles: roles}
		}
	}
	for _, o := range organizations {
		g.Roles[ClientOrganizations][o] = "Organization " + o
	}
	for _, person := range p.Spec.People {
		grants := keycloak.Grants{ClientRoles: person.Roles}
		if person.Organization != "" {
			g.Roles[ClientOrganizations][person.Organization] = "Organization " + person.Organization
			grants[ClientOrganizations] = []string{person.Organization}
		}
		g.People = append(g.People, keycloak.Grantee{Username: person.Username, Grants: grants})
	}
	return g
}

func clientRoles(claim, of string) keycloak.Rep {
	return mapper(claim, "oidc-usermodel-client-role-mapper", keycloak.Rep{"usermodel.clientRoleMapping.clientId": of, "claim.name": claim, "multivalued": "true", "jsonType.label": "String"})
}

// externalKeycloak makes what the platform has in the realm, and compares it again from time to time.
func (r *run) externalKeycloak(ctx context.Context, x *cloud.ExternalKeycloak) error {
	kc, err := r.access.OpenKeycloak(ctx, r.platform)
	if err != nil {
		return err
	}
	clients, err := r.oidcSecrets(ctx)
	if err != nil {
		return err
	}
	var list cloud.OrganizationList
	if err := r.client.List(ctx, &list, client.InNamespace(r.platform.Namespace)); err != nil {
		return fmt.Errorf("list the organizations: %w", err)
	}
	var organizations []string
	for _, o := range list.Items {
		organizations = append(organizations, o.Name)
	}
	want := guest(r.platform, clients, organizations)
	if want.Gone, err = r.granted(ctx); err != nil {
		return err
	}
	digest := kube.Digest(want, x)
	if memo := r.realms.get(r.key()); memo.digest == digest && r.Now().Sub(memo.at) < RealmEvery {
		return nil
	}
	ensured := kc.EnsureGuest(ctx, want)
	standing := func(ctx context.Context, person string) (keycloak.Standing, error) {
		held, err := kc.Held(ctx, x.Realm, person, ClientRoles, ClientOrganizations)
		s := keycloak.Standing{Roles: held[ClientRoles]}
		if of := held[ClientOrganizations]; len(of) == 1 { // of several the Cloud API takes none either
			s.Organization = of[0]
		}
		return s, err
	}
	// Whatever else is wrong in the realm, such as somebody whom the spec names still and the realm no more: who has left may approve nothing.
	if err := refreshKeys(ctx, r.access.Reader, r.client, r.platform.Namespace, standing); err != nil {
		return errors.Join(ensured, fmt.Errorf("approval keys: %w", err))
	}
	if ensured != nil {
		return ensured
	}
	if err := r.forget(ctx, want.Gone); err != nil {
		return err
	}
	r.realms.set(r.key(), memoEntry{digest, r.Now()})
	return nil
}

// granted remembers to whom the platform gives roles in the realm, and returns those whom the spec names no longer.
func (r *run) granted(ctx context.Context) (gone []string, err error) {
	wanted := map[string]kube.Make{}
	for _, p := range r.platform.Spec.People {
		wanted[p.Username] = kube.Text("the password is that of the external realm")
	}
	known, err := r.access.Ensure(ctx, parts.SecretPeople, wanted)
	for _, name := range kube.SortedKeys(known) {
		if wanted[name] == nil {
			gone = append(gone, name)
		}
	}
	return gone, err
}

// leave removes what the platform has in a realm that somebody else runs.
func (r *Reconciler) leave(ctx context.Context, p *cloud.Platform) error {
	kc, err := r.Access.OpenKeycloak(ctx, p)
	if err != nil {
		return err
	}
	return kc.RemoveGuest(ctx, guest(p, nil, nil))
}
