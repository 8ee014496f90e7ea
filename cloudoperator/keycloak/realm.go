// SPDX-License-Identifier: FSL-1.1-ALv2

package keycloak

import (
	"context"
	"fmt"
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
		if err := e.client(ctx, cl, scope); err != nil {
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
	var have []Rep
	if err := e.c.call(ctx, http.MethodGet, e.realm+"/roles?briefRepresentation=false", nil, &have); err != nil {
		return err
	}
	e.known = byName(have)
	for name, description := range roles {
		e.ours = append(e.ours, name)
		want := Rep{"name": name, "description": description}
		var err error
		switch h := e.known[name]; {
		case h == nil:
			err = e.c.call(ctx, http.MethodPost, e.realm+"/roles", want, nil)
		case !covers(h, want):
			err = e.c.call(ctx, http.MethodPut, e.realm+"/roles/"+url.PathEscape(name), merge(h, want), nil)
		default:
			continue
		}
		if err != nil {
			return err
		}
		var made Rep
		if err := e.c.call(ctx, http.MethodGet, e.realm+"/roles/"+url.PathEscape(name), nil, &made); err != nil {
			return err
		}
		e.known[name] = made
	}
	return nil
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
	find := func() (Rep, error) {
		var have []Rep
		err := e.c.call(ctx, http.MethodGet, e.realm+"/client-scopes", nil, &have)
		return byName(have)[text(want, "name")], err
	}
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

func (e *ensurer) client(ctx context.Context, cl ClientSpec, scope string) error {
	want := merge(cl.Rep, Rep{"clientId": cl.ID, "enabled": true, "protocol": "openid-connect"})
	if cl.Secret != "" {
		want["secret"] = cl.Secret
	}
	find := func() (Rep, error) {
		var have []Rep
		err := e.c.call(ctx, http.MethodGet, e.realm+"/clients?clientId="+url.QueryEscape(cl.ID), nil, &have)
		if err != nil || len(have) == 0 {
			return nil, err
		}
		return have[0], nil
	}
	have, err := find()
	if err != nil {
		return err
	}
	if have == nil {
		if err := e.c.call(ctx, http.MethodPost, e.realm+"/clients", want, nil); err != nil {
			return err
		}
		if have, err = find(); err != nil || have == nil {
			return fmt.Errorf("was made and is not there: %w", err)
		}
	} else if !covers(have, want) {
		if err := e.c.call(ctx, http.MethodPut, e.realm+"/clients/"+id(have), merge(have, want), nil); err != nil {
			return err
		}
	}
	if err := e.c.call(ctx, http.MethodPut, e.realm+"/clients/"+id(have)+"/default-client-scopes/"+scope, nil, nil); err != nil {
		return err
	}
	if len(cl.Roles) == 0 {
		return nil
	}
	var account Rep
	if err := e.c.call(ctx, http.MethodGet, e.realm+"/clients/"+id(have)+"/service-account-user", nil, &account); err != nil {
		return err
	}
	return e.grant(ctx, id(account), cl.Roles)
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
