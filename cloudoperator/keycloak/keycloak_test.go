// SPDX-License-Identifier: FSL-1.1-ALv2

package keycloak_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kaphera/kaphera/cloudoperator/keycloak"
)

// server keeps the parts of a Keycloak that the client touches, by path, and counts writes.
type server struct {
	mu     sync.Mutex
	ids    int
	realm  keycloak.Rep
	lists  map[string][]keycloak.Rep // roles, client-scopes, clients, users, and users/<id>/role-mappings/realm
	extra  map[string]keycloak.Rep   // users/profile
	reset  []string
	writes []string
}

func start(t *testing.T) (*server, *keycloak.Client) {
	t.Helper()
	s := &server{lists: map[string][]keycloak.Rep{}, extra: map[string]keycloak.Rep{"users/profile": {"attributes": []any{}}}}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, keycloak.New(h.URL, keycloak.Master, "operator", "secret", nil)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/realms/master/protocol/openid-connect/token" {
		if r.FormValue("client_secret") != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`))
			return
		}
		_, _ = w.Write([]byte(`{"access_token":"t","expires_in":60}`))
		return
	}
	if r.Header.Get("Authorization") != "Bearer t" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet {
		s.writes = append(s.writes, r.Method+" "+r.URL.Path)
	}
	var body any
	_ = json.NewDecoder(r.Body).Decode(&body)
	answer := s.handle(r, strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/admin/realms"), "/kaphera"), body)
	if answer == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) handle(r *http.Request, path string, body any) any {
	rep, _ := body.(map[string]any)
	path = strings.TrimPrefix(path, "/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/admin/realms", path == "" && r.Method == http.MethodPut:
		s.realm = rep
		return rep
	case path == "":
		if s.realm == nil {
			return nil
		}
		return s.realm
	case path == "users/profile":
		if r.Method == http.MethodPut {
			s.extra[path] = rep
		}
		return s.extra[path]
	case strings.HasSuffix(path, "/service-account-user"):
		return keycloak.Rep{"id": "service-account"}
	case strings.Contains(path, "/default-client-scopes/"):
		return rep
	case strings.HasSuffix(path, "/reset-password"):
		s.reset = append(s.reset, fmt.Sprint(rep["value"]))
		return rep
	case strings.HasSuffix(path, "/credentials"):
		if len(s.reset) > 0 {
			return []keycloak.Rep{{"type": "password"}}
		}
		return []keycloak.Rep{}
	case strings.HasSuffix(path, "/role-mappings/realm/composite"):
		return append([]keycloak.Rep{}, s.lists[strings.TrimSuffix(path, "/composite")]...)
	case strings.HasSuffix(path, "/role-mappings/realm"):
		return s.mapping(r.Method, path, body)
	}
	return s.item(r, path, rep)
}

func (s *server) mapping(method, path string, body any) any {
	items, _ := body.([]any)
	for _, i := range items {
		m, _ := i.(map[string]any)
		s.lists[path] = slices.DeleteFunc(s.lists[path], func(o keycloak.Rep) bool { return o["name"] == m["name"] })
		if method == http.MethodPost {
			s.lists[path] = append(s.lists[path], m)
		}
	}
	return append([]keycloak.Rep{}, s.lists[path]...)
}

func (s *server) item(r *http.Request, path string, rep keycloak.Rep) any {
	kind, name, one := strings.Cut(path, "/")
	i := slices.IndexFunc(s.lists[kind], func(o keycloak.Rep) bool { return o["id"] == name || kind == "roles" && o["name"] == name })
	switch {
	case r.Method == http.MethodPost && !one:
		s.ids++
		rep["id"] = fmt.Sprint(s.ids)
		s.lists[kind] = append(s.lists[kind], rep)
		return rep
	case one && i < 0:
		return nil
	case r.Method == http.MethodPut:
		s.lists[kind][i] = rep
	case r.Method == http.MethodDelete:
		s.lists[kind] = slices.Delete(s.lists[kind], i, i+1)
		return keycloak.Rep{}
	case !one:
		out := []keycloak.Rep{}
		for _, o := range s.lists[kind] {
			q := r.URL.Query()
			if (q.Get("clientId") == "" || q.Get("clientId") == o["clientId"]) && (q.Get("username") == "" || q.Get("username") == o["username"]) {
				out = append(out, o)
			}
		}
		return out
	}
	return s.lists[kind][i]
}

func realm() keycloak.Realm {
	return keycloak.Realm{
		Name: "kaphera", Settings: keycloak.Rep{"displayName": "Kaphera", "attributes": keycloak.Rep{"a": "1"}},
		Roles:      map[string]string{"viewer": "sees", "admin": "does"},
		Attributes: []keycloak.Rep{{"name": "organization", "permissions": keycloak.Rep{"edit": []any{"admin"}}}},
		Scope:      keycloak.Rep{"name": "kaphera", "protocolMappers": []any{keycloak.Rep{"name": "roles", "config": keycloak.Rep{"claim.name": "roles"}}}},
		Clients: []keycloak.ClientSpec{
			{ID: "console", Secret: "s", Rep: keycloak.Rep{"redirectUris": []any{"https://console.example/*"}}},
			{ID: "terraform", Secret: "s", Roles: []string{"admin"}},
		},
		People: []keycloak.Person{{Username: "vera", Roles: []string{"viewer"}, Password: "first", Rep: keycloak.Rep{"attributes": keycloak.Rep{"organization": []any{"oem"}}}}},
	}
}

func TestEnsureMakesThenChangesNothing(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	if err := c.Ensure(t.Context(), realm()); err != nil {
		t.Fatal(err)
	}
	if len(s.lists["clients"]) != 2 || len(s.lists["users"]) != 1 || !slices.Equal(s.reset, []string{"first"}) {
		t.Fatalf("made %d clients, %d users, passwords %d", len(s.lists["clients"]), len(s.lists["users"]), len(s.reset))
	}
	s.writes = nil
	if err := c.Ensure(t.Context(), realm()); err != nil {
		t.Fatal(err)
	}
	// The scope's assignment is a write without effect when it is there.
	if w := slices.DeleteFunc(s.writes, func(w string) bool { return strings.Contains(w, "/default-client-scopes/") }); len(w) != 0 {
		t.Errorf("a second time writes %v", w)
	}
}

func TestEnsurePutsRightAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	if err := c.Ensure(t.Context(), realm()); err != nil {
		t.Fatal(err)
	}
	s.realm["displayName"], s.realm["theme"] = "Other", "dark"
	s.lists["clients"][0]["redirectUris"] = []any{"https://evil.example/*"}
	user := fmt.Sprint(s.lists["users"][0]["id"])
	roles := "users/" + user + "/role-mappings/realm"
	s.lists[roles] = append(s.lists[roles], keycloak.Rep{"name": "admin"}, keycloak.Rep{"name": "default-roles"})
	want := realm()
	want.People[0].Password, want.People[0].Reset = "second", true
	if err := c.Ensure(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if s.realm["displayName"] != "Kaphera" {
		t.Error("the realm's name is not put right")
	}
	if got := fmt.Sprint(s.lists["clients"][0]["redirectUris"]); !strings.Contains(got, "console.example") {
		t.Errorf("redirects are %s", got)
	}
	held := map[string]bool{}
	for _, r := range s.lists[roles] {
		held[fmt.Sprint(r["name"])] = true
	}
	if !maps.Equal(held, map[string]bool{"viewer": true, "default-roles": true}) {
		t.Errorf("roles are %v", held)
	}
	if !slices.Equal(s.reset, []string{"first", "second"}) {
		t.Errorf("%d passwords were set", len(s.reset))
	}
	for range 2 {
		if err := c.DeletePerson(t.Context(), "kaphera", "vera"); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.lists["users"]) != 0 {
		t.Error("the person is still there")
	}
}

func TestErrorsAreTold(t *testing.T) {
	t.Parallel()
	h := httptest.NewServer(&server{})
	defer h.Close()
	err := keycloak.New(h.URL, keycloak.Master, "operator", "wrong-secret", nil).Ensure(t.Context(), realm())
	if err == nil || !strings.Contains(err.Error(), "Invalid client credentials") || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("a wrong secret: %v", err)
	}
	h.Close()
	if err := keycloak.New(h.URL, keycloak.Master, "operator", "secret", nil).Ensure(t.Context(), realm()); err == nil {
		t.Error("a server that does not answer is no error")
	}
}

func TestStandingIsWhatThePersonHasNow(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	if err := c.Ensure(t.Context(), realm()); err != nil {
		t.Fatal(err)
	}
	user := fmt.Sprint(s.lists["users"][0]["id"])
	standing := func(want keycloak.Standing) {
		t.Helper()
		got, err := c.Standing(t.Context(), "kaphera", user)
		if err != nil || !slices.Equal(got.Roles, want.Roles) || got.Organization != want.Organization {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	standing(keycloak.Standing{Roles: []string{"viewer"}, Organization: "oem"})
	s.lists["users/"+user+"/role-mappings/realm"] = nil
	standing(keycloak.Standing{Organization: "oem"})
	s.lists["users"][0]["enabled"] = false
	standing(keycloak.Standing{})
	s.lists["users"] = nil
	standing(keycloak.Standing{})
	gone := keycloak.New("http://127.0.0.1:1", keycloak.Master, "operator", "secret", nil)
	if _, err := gone.Standing(t.Context(), "kaphera", user); err == nil {
		t.Error("a server that does not answer says that a person has no role")
	}
}
