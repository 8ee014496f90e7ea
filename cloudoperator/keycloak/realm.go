// SPDX-License-Identifier: FSL-1.1-ALv2

package keycloak

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// Realm is the wanted content of a realm. What it does not name stays.
type Realm struct {
	Name       string
	Settings   Rep
	Roles      map[string]string // name: description
	Attributes []Rep             // user profile attributes, by name
	Scope      Rep               // a client scope with protocolMappers that every client gets by default
	Clients    []ClientSpec
	People     []Person
}

// ClientSpec is an OIDC client.
type ClientSpec struct {
	ID string
	// Secret of a confidential client.
	Secret string
	Rep    Rep
	// Roles of its service account.
	Roles []string
	// Grants of its service account, in a Guest.
	Grants Grants
}

// Person is a user.
type Person struct {
	Username string
	Rep      Rep
	Roles    []string
	// Password is set when the user is made, and with Reset also later.
	Password string
	Reset    bool
}

// Ensure makes the realm as described.
func (c *Client) Ensure(ctx context.Context, r Realm) error {
	e := ensurer{c: c, realm: "/" + url.PathEscape(r.Name)}
	if err := e.settings(ctx, r); err != nil {
		return fmt.Errorf("realm %s: %w", r.Name, err)
	}
	if err := e.roles(ctx, r.Roles); err != nil {
		return fmt.Errorf("roles: %w", err)
	}
	if err := e.profile(ctx, r.Attributes); err != nil {
		return fmt.Errorf("user profile: %w", err)
	}
	scope, err := e.scope(ctx, r.Scope)
	if err != nil {
		return fmt.Errorf("client scope: %w", err)
	}
	for _, cl := range r.Clients {
		if _, err := e.client(ctx, cl, scope); err != nil {
			return fmt.Errorf("client %s: %w", cl.ID, err)
		}
	}
	for _, p := range r.People {
		if err := e.person(ctx, p); err != nil {
			return fmt.Errorf("person %s: %w", p.Username, err)
		}
	}
	return nil
}

// DeletePerson removes a user; a missing one is no error.
func (c *Client) DeletePerson(ctx context.Context, realm, username string) error {
	e := ensurer{c: c, realm: "/" + url.PathEscape(realm)}
	user, err := e.user(ctx, username)
	if err != nil || user == nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, e.realm+"/users/"+id(user), nil, nil)
}

// Standing is what the realm says of a person.
type Standing struct {
	Roles        []string // of the realm, those of groups and of other roles included
	Organization string
}

// Standing reads a user by id. Who is not there, or may not log in, has no role.
func (c *Client) Standing(ctx context.Context, realm, user string) (Standing, error) {
	path := "/" + url.PathEscape(realm) + "/users/" + url.PathEscape(user)
	var have struct {
		Enabled    bool `json:"enabled"`
		Attributes struct {
			Organization []string `json:"organization"`
		} `json:"attributes"`
	}
	err := c.call(ctx, http.MethodGet, path, nil, &have)
	if isStatus(err, http.StatusNotFound) || err == nil && !have.Enabled {
		return Standing{}, nil
	}
	if err != nil {
		return Standing{}, err
	}
	var roles []Rep
	if err := c.call(ctx, http.MethodGet, path+"/role-mappings/realm/composite", nil, &roles); err != nil {
		return Standing{}, err
	}
	var out Standing
	for _, r := range roles {
		out.Roles = append(out.Roles, text(r, "name"))
	}
	if len(have.Attributes.Organization) > 0 {
		out.Organization = have.Attributes.Organization[0]
	}
	return out, nil
}

type ensurer struct {
	c     *Client
	realm string
	known map[string]Rep // roles by name
	ours  []string
	mark  string // of a Guest
}

func (e *ensurer) settings(ctx context.Context, r Realm) error {
	want := merge(r.Settings, Rep{"realm": r.Name, "enabled": true})
	var have Rep
	err := e.c.call(ctx, http.MethodGet, e.realm, nil, &have)
	if isStatus(err, http.StatusNotFound) {
		return e.c.call(ctx, http.MethodPost, "", want, nil)
	}
	if err != nil || covers(have, want) {
		return err
	}
	return e.c.call(ctx, http.MethodPut, e.realm, want, nil)
}

func (e *ensurer) roles(ctx context.Context, roles map[string]string) error {
	var err error
	e.known, err = e.rolesAt(ctx, e.realm+"/roles", roles)
	e.ours = slices.Collect(maps.Keys(roles))
	return err
}

// rolesAt makes roles, with their descriptions, and returns all that are there, by name.
func (e *ensurer) rolesAt(ctx context.Context, path string, roles map[string]string) (map[string]Rep, error) {
	var have []Rep
	if err := e.c.call(ctx, http.MethodGet, path+"?briefRepresentation=false", nil, &have); err != nil {
		return nil, err
	}
	known := byName(have)
	for name, description := range roles {
		want := Rep{"name": name, "description": description}
		var err error
		switch h := known[name]; {
		case h == nil:
			err = e.c.call(ctx, http.MethodPost, path, want, nil)
		case !covers(h, want):
			err = e.c.call(ctx, http.MethodPut, path+"/"+url.PathEscape(name), merge(h, want), nil)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		var made Rep
		if err := e.c.call(ctx, http.MethodGet, path+"/"+url.PathEscape(name), nil, &made); err != nil {
			return nil, err
		}
		known[name] = made
	}
	return known, nil
}

func (e *ensurer) profile(ctx context.Context, attributes []Rep) error {
	var have Rep
	if err := e.c.call(ctx, http.MethodGet, e.realm+"/users/profile", nil, &have); err != nil {
		return err
	}
	list, _ := have["attributes"].([]any)
	changed := false
	for _, want := range attributes {
		i := slices.IndexFunc(list, func(a any) bool { m, _ := a.(map[string]any); return m["name"] == want["name"] })
		switch {
		case i < 0:
			list = append(list, want)
		case !covers(list[i], want):
			list[i] = want
		default:
			continue
		}
		changed = true
	}
	if !changed {
		return nil
	}
	have["attributes"] = list
	return e.c.call(ctx, http.MethodPut, e.realm+"/users/profile", have, nil)
}

// scope makes the client scope with its mappers and returns its id.
func (e *ensurer) scope(ctx context.Context, want Rep) (string, error) {
	find := func() (Rep, error) { return e.findScope(ctx, text(want, "name")) }
	have, err := find()
	if err != nil {
		return "", err
	}
	if have == nil {
		if err := e.c.call(ctx, http.MethodPost, e.realm+"/client-scopes", want, nil); err != nil {
			return "", err
		}
		have, err = find()
		if err == nil && have == nil {
			err = fmt.Errorf("%q was made and is not there", text(want, "name"))
		}
		return id(have), err
	}
	if err := e.own(have); err != nil {
		return "", err
	}
	mappers := byName(list(have["protocolMappers"]))
	for _, m := range list(want["protocolMappers"]) {
		path := e.realm + "/client-scopes/" + id(have) + "/protocol-mappers/models"
		switch h := mappers[text(m, "name")]; {
		case h == nil:
			err = e.c.call(ctx, http.MethodPost, path, m, nil)
		case !covers(h, m):
			err = e.c.call(ctx, http.MethodPut, path+"/"+id(h), merge(h, m), nil)
		}
		if err != nil {
			return "", err
		}
	}
	return id(have), nil
}

func (e *ensurer) findScope(ctx context.Context, name string) (Rep, error) {
	var have []Rep
	err := e.c.call(ctx, http.MethodGet, e.realm+"/client-scopes", nil, &have)
	return byName(have)[name], err
}

func (e *ensurer) find(ctx context.Context, clientID string) (Rep, error) {
	var have []Rep
	err := e.c.call(ctx, http.MethodGet, e.realm+"/clients?clientId="+url.QueryEscape(clientID), nil, &have)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	return have[0], nil
}

// client makes it with the client scope, if there is one, and returns its id.
func (e *ensurer) client(ctx context.Context, cl ClientSpec, scope string) (string, error) {
	want := merge(cl.Rep, Rep{"clientId": cl.ID, "enabled": true, "protocol": "openid-connect"})
	if cl.Secret != "" {
		want["secret"] = cl.Secret
	}
	have, err := e.find(ctx, cl.ID)
	if err != nil {
		return "", err
	}
	if have == nil {
		if err := e.c.call(ctx, http.MethodPost, e.realm+"/clients", want, nil); err != nil {
			return "", err
		}
		if have, err = e.find(ctx, cl.ID); err != nil || have == nil {
			return "", fmt.Errorf("was made and is not there: %w", err)
		}
	} else if err := e.own(have); err != nil {
		return "", err
	} else if !covers(have, want) {
		if err := e.c.call(ctx, http.MethodPut, e.realm+"/clients/"+id(have), merge(have, want), nil); err != nil {
			return "", err
		}
	}
	if scope != "" {
		if err := e.c.call(ctx, http.MethodPut, e.realm+"/clients/"+id(have)+"/default-client-scopes/"+scope, nil, nil); err != nil {
			return "", err
		}
	}
	if len(cl.Roles) == 0 {
		return id(have), nil
	}
	account, err := e.account(ctx, id(have))
	if err != nil {
		return "", err
	}
	return id(have), e.grant(ctx, account, cl.Roles)
}

// account is the id of a client's service account.
func (e *ensurer) account(ctx context.Context, client string) (string, error) {
	var account Rep
	err := e.c.call(ctx, http.MethodGet, e.realm+"/clients/"+client+"/service-account-user", nil, &account)
	return id(account), err
}

func (e *ensurer) user(ctx context.Context, username string) (Rep, error) {
	var have []Rep
	err := e.c.call(ctx, http.MethodGet, e.realm+"/users?exact=true&username="+url.QueryEscape(username), nil, &have)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	return have[0], nil
}

func (e *ensurer) person(ctx context.Context, p Person) error {
	want := merge(p.Rep, Rep{"username": p.Username, "enabled": true})
	have, err := e.user(ctx, p.Username)
	if err != nil {
		return err
	}
	reset := p.Reset || have == nil
	if have == nil {
		if err := e.c.call(ctx, http.MethodPost, e.realm+"/users", want, nil); err != nil {
			return err
		}
		if have, err = e.user(ctx, p.Username); err != nil || have == nil {
			return fmt.Errorf("was made and is not there: %w", err)
		}
	} else if !covers(have, want) {
		if err := e.c.call(ctx, http.MethodPut, e.realm+"/users/"+id(have), merge(have, want), nil); err != nil {
			return err
		}
	}
	if !reset {
		// A crash between making the user and setting the password leaves one without.
		var creds []Rep
		if err := e.c.call(ctx, http.MethodGet, e.realm+"/users/"+id(have)+"/credentials", nil, &creds); err != nil {
			return err
		}
		reset = !slices.ContainsFunc(creds, func(r Rep) bool { return r["type"] == "password" })
	}
	if reset {
		password := Rep{"type": "password", "value": p.Password, "temporary": false}
		if err := e.c.call(ctx, http.MethodPut, e.realm+"/users/"+id(have)+"/reset-password", password, nil); err != nil {
			return err
		}
	}
	return e.grant(ctx, id(have), p.Roles)
}

// grant gives the user exactly these of the realm's own roles; roles that Ensure was not told of stay.
func (e *ensurer) grant(ctx context.Context, user string, roles []string) error {
	path := e.realm + "/users/" + user + "/role-mappings/realm"
	var have []Rep
	if err := e.c.call(ctx, http.MethodGet, path, nil, &have); err != nil {
		return err
	}
	held := byName(have)
	var add, remove []Rep
	for _, r := range roles {
		if e.known[r] == nil {
			return fmt.Errorf("there is no role %q", r)
		}
		if held[r] == nil {
			add = append(add, e.known[r])
		}
	}
	for _, r := range e.ours {
		if held[r] != nil && !slices.Contains(roles, r) {
			remove = append(remove, held[r])
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

func byName(reps []Rep) map[string]Rep {
	out := map[string]Rep{}
	for _, r := range reps {
		out[text(r, "name")] = r
	}
	return out
}

func id(r Rep) string { return text(r, "id") }

func text(r Rep, key string) string {
	s, _ := r[key].(string)
	return s
}

func list(v any) []Rep {
	items, _ := normal(v).([]any)
	out := make([]Rep, 0, len(items))
	for _, i := range items {
		if m, ok := i.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
