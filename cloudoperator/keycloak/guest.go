// SPDX-License-Identifier: FSL-1.1-ALv2

package keycloak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/fault"
)

// markAttribute of a client or client scope names the platform that made it.
const markAttribute = "kaphera.platform"

// Guest is what a platform has in a realm that somebody else runs: a client scope and clients that bear its mark, and roles of these clients. The realm's
// settings, roles, groups and people stay as they are; a client or client scope of the same name without the mark is refused.
type Guest struct {
	Realm, Mark string
	Scope       Rep // with protocolMappers; each of Clients has it by default
	// Roles are those of clients that are there for nothing else: descriptions by client and role.
	Roles   map[string]map[string]string
	Clients []ClientSpec // Grants count, not Roles
	People  []Grantee
	Gone    []string // usernames whose Grants are taken away
}

// Grants are names of roles by client.
type Grants map[string][]string

// Grantee is a user of the realm, who has exactly these of Guest.Roles by himself. What he has by groups is the realm's business.
type Grantee struct {
	Username string
	Grants   Grants
}

// Enter proves that the realm of the client is there, calls itself what the server's address says, and lets the client in.
func (c *Client) Enter(ctx context.Context) error {
	where := c.base + "/realms/" + url.PathEscape(c.realm)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where+"/.well-known/openid-configuration", http.NoBody)
	if err != nil {
		return fmt.Errorf("keycloak: %w", err)
	}
	var realm struct {
		Issuer string `json:"issuer"`
	}
	err = c.send(req, &realm)
	var answer *Error
	switch {
	case isStatus(err, http.StatusNotFound) && strings.Contains(err.Error(), "Realm does not exist"):
		return &fault.Error{Reason: cloud.ReasonMissing, Detail: fmt.Sprintf("keycloak at %s has no realm %q", c.base, c.realm), Remedy: "correct $.spec.keycloak.external.realm, or make the realm"}
	case errors.As(err, &answer) && answer.Status >= http.StatusInternalServerError:
		return &fault.Error{Reason: cloud.ReasonUnreachable, Detail: err.Error(), Remedy: "see the server's log, and the proxy's before it"}
	case answer != nil || err == nil && realm.Issuer == "":
		detail := "it names no issuer"
		if answer != nil {
			detail = fmt.Sprintf("it answered %d to %s", answer.Status, answer.Path)
		}
		return &fault.Error{Reason: cloud.ReasonInvalid, Detail: "no keycloak is at " + c.base + ": " + detail, Remedy: "correct $.spec.keycloak.external.url; a server that is not at the root needs its path there, such as /auth"}
	case err != nil:
		return err
	case realm.Issuer != where:
		return &fault.Error{
			Reason: cloud.ReasonInvalid, Detail: fmt.Sprintf("the realm at %s calls itself %s, which is what tokens will say", where, realm.Issuer),
			Remedy: "put the address by which people reach the server into $.spec.keycloak.external.url, as far as it stands before /realms/, and the server's hostname setting to the same",
		}
	}
	err = c.Login(ctx)
	if isStatus(err, http.StatusUnauthorized) || isStatus(err, http.StatusBadRequest) {
		return fault.Login("correct the Secret that $.spec.keycloak.external.credentialsSecret names; the client must be of this realm, confidential, enabled, and have a service account", "%v", err)
	}
	return err
}

// EnsureGuest makes it as described.
func (c *Client) EnsureGuest(ctx context.Context, g Guest) error {
	return c.lacking(c.ensureGuest(ctx, g))
}

func (c *Client) ensureGuest(ctx context.Context, g Guest) error {
	e := ensurer{c: c, realm: "/" + url.PathEscape(g.Realm), mark: g.Mark}
	scope, err := e.scope(ctx, merge(g.Scope, e.marked()))
	if err != nil {
		return fmt.Errorf("client scope %s: %w", text(g.Scope, "name"), err)
	}
	holders := map[string]holder{}
	for _, name := range slices.Sorted(maps.Keys(g.Roles)) {
		if holders[name], err = e.holder(ctx, name, g.Roles[name]); err != nil {
			return fmt.Errorf("client %s: %w", name, err)
		}
	}
	for _, cl := range g.Clients {
		if err := e.guestClient(ctx, cl, scope, holders); err != nil {
			return fmt.Errorf("client %s: %w", cl.ID, err)
		}
	}
	var missing []string
	for _, p := range g.People {
		user, err := e.user(ctx, p.Username)
		if err == nil && user == nil {
			missing = append(missing, p.Username)
			continue
		}
		if err == nil {
			err = e.grantOf(ctx, id(user), holders, p.Grants)
		}
		if err != nil {
			return fmt.Errorf("person %s: %w", p.Username, err)
		}
	}
	for _, name := range g.Gone {
		user, err := e.user(ctx, name)
		if err == nil && user != nil {
			err = e.grantOf(ctx, id(user), holders, nil)
		}
		if err != nil {
			return fmt.Errorf("person %s: %w", name, err)
		}
	}
	if len(missing) > 0 {
		return &fault.Error{
			Reason: cloud.ReasonMissing, Detail: fmt.Sprintf("realm %s has no user %s, whom $.spec.people names", g.Realm, strings.Join(missing, ", ")),
			Remedy: "make the user there, whose passwords are the realm's business, or correct $.spec.people",
		}
	}
	return nil
}

// RemoveGuest deletes the clients and the client scope, as far as they bear the mark.
func (c *Client) RemoveGuest(ctx context.Context, g Guest) error {
	e := ensurer{c: c, realm: "/" + url.PathEscape(g.Realm), mark: g.Mark}
	names := slices.Collect(maps.Keys(g.Roles))
	for _, cl := range g.Clients {
		names = append(names, cl.ID)
	}
	for _, name := range names {
		have, err := e.find(ctx, name)
		if err == nil && have != nil && e.own(have) == nil {
			err = c.call(ctx, http.MethodDelete, e.realm+"/clients/"+id(have), nil, nil)
		}
		if err != nil {
			return c.lacking(fmt.Errorf("client %s: %w", name, err))
		}
	}
	have, err := e.findScope(ctx, text(g.Scope, "name"))
	if err == nil && have != nil && e.own(have) == nil {
		err = c.call(ctx, http.MethodDelete, e.realm+"/client-scopes/"+id(have), nil, nil)
	}
	return c.lacking(err)
}

// Held are the roles, by client, that a user has, those by groups and by other roles included. Who is not there, or may not log in, has none.
func (c *Client) Held(ctx context.Context, realm, user string, clients ...string) (Grants, error) {
	e := ensurer{c: c, realm: "/" + url.PathEscape(realm)}
	path := e.realm + "/users/" + url.PathEscape(user)
	var have struct {
		Enabled bool `json:"enabled"`
	}
	err := c.call(ctx, http.MethodGet, path, nil, &have)
	if isStatus(err, http.StatusNotFound) || err == nil && !have.Enabled {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := Grants{}
	for _, name := range clients {
		client, err := e.find(ctx, name)
		if err != nil || client == nil {
			return nil, err
		}
		var roles []Rep
		if err := c.call(ctx, http.MethodGet, path+"/role-mappings/clients/"+id(client)+"/composite", nil, &roles); err != nil {
			return nil, err
		}
		out[name] = slices.Sorted(maps.Keys(byName(roles)))
	}
	return out, nil
}

// lacking says of a refusal which right the client lacks.
func (c *Client) lacking(err error) error {
	var answer *Error
	if !errors.As(err, &answer) || answer.Status != http.StatusForbidden {
		return err
	}
	role := "manage-clients"
	if strings.Contains(answer.Path, "/users") {
		role = "manage-users"
	}
	return fault.Right(fmt.Sprintf("give the service account of client %s the role %s of client realm-management", c.clientID, role), "%v", err)
}

func (e *ensurer) marked() Rep { return Rep{"attributes": Rep{markAttribute: e.mark}} }

// own says whether a client or client scope is the platform's.
func (e *ensurer) own(have Rep) error {
	attributes, _ := have["attributes"].(map[string]any)
	if e.mark == "" || attributes[markAttribute] == e.mark {
		return nil
	}
	detail := "is there, and is not this platform's: it has no attribute " + markAttribute
	if other, ok := attributes[markAttribute]; ok {
		detail = fmt.Sprintf("is that of platform %v", other)
	}
	return fault.Right("choose another realm, since one realm is for one platform, or rename what is there", "%s", detail)
}

// holder is a client that only has roles.
type holder struct {
	id    string
	roles map[string]Rep
}

func (e *ensurer) holder(ctx context.Context, name string, roles map[string]string) (holder, error) {
	rep := merge(e.marked(), Rep{
		"publicClient": false, "standardFlowEnabled": false, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false, "serviceAccountsEnabled": false, "fullScopeAllowed": false,
	})
	made, err := e.client(ctx, ClientSpec{ID: name, Rep: rep}, "")
	if err != nil {
		return holder{}, err
	}
	path := e.realm + "/clients/" + made + "/roles"
	have, err := e.rolesAt(ctx, path, roles)
	if err != nil {
		return holder{}, err
	}
	for name := range have {
		if _, ok := roles[name]; ok {
			continue
		}
		if err := e.c.call(ctx, http.MethodDelete, path+"/"+url.PathEscape(name), nil, nil); err != nil {
			return holder{}, err
		}
		delete(have, name)
	}
	return holder{made, have}, nil
}

// guestClient is limited to the holders' roles: with the full scope, which is the default, its tokens would carry, and open, whatever else their person may
// do in the realm. They live for five minutes, however long the realm's do: for so long a log-out is remembered, and a role that was lost counts.
func (e *ensurer) guestClient(ctx context.Context, cl ClientSpec, scope string, holders map[string]holder) error {
	cl.Rep = merge(merge(cl.Rep, e.marked()), Rep{"fullScopeAllowed": false, "attributes": Rep{"access.token.lifespan": "300"}})
	made, err := e.client(ctx, cl, scope)
	if err != nil {
		return err
	}
	for _, h := range holders {
		if err := e.exactly(ctx, e.realm+"/clients/"+made+"/scope-mappings/clients/"+h.id, h, slices.Collect(maps.Keys(h.roles))); err != nil {
			return err
		}
	}
	if cl.Grants == nil {
		return nil
	}
	account, err := e.account(ctx, made)
	if err != nil {
		return err
	}
	return e.grantOf(ctx, account, holders, cl.Grants)
}

func (e *ensurer) grantOf(ctx context.Context, user string, holders map[string]holder, grants Grants) error {
	for name, h := range holders {
		if err := e.exactly(ctx, e.realm+"/users/"+user+"/role-mappings/clients/"+h.id, h, grants[name]); err != nil {
			return err
		}
	}
	return nil
}

// exactly makes the list at path that of these roles of a holder.
func (e *ensurer) exactly(ctx context.Context, path string, h holder, roles []string) error {
	var have []Rep
	if err := e.c.call(ctx, http.MethodGet, path, nil, &have); err != nil {
		return err
	}
	held := byName(have)
	var add, remove []Rep
	for _, r := range roles {
		if held[r] != nil {
			continue
		}
		if h.roles[r] == nil {
			return fmt.Errorf("there is no role %q", r)
		}
		add = append(add, h.roles[r])
	}
	for name, r := range held {
		if !slices.Contains(roles, name) {
			remove = append(remove, r)
		}
	}
	if len(add) > 0 {
		if err := e.c.call(ctx, http.MethodPost, path, add, nil); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		return e.c.call(ctx, http.MethodDelete, path, remove, nil)
	}
	return nil
}
