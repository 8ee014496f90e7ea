// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/controller/platform"
	"github.com/kaphera/kaphera/test/keycloak"
)

type object = map[string]any

// realm is one that a company has, with people, a group and an application, and a client for the platform whose service account may do nothing yet.
type realm struct {
	*keycloak.Server
	t *testing.T
}

const realmName = "industry"

func (o *outside) realm(t *testing.T) *realm {
	t.Helper()
	r := &realm{keycloak.Start(t, o.ca.Cert, o.cert.Cert, o.cert.Key), t}
	r.Call(t, http.MethodPost, "", object{"realm": realmName, "enabled": true, "accessTokenLifespan": 3600}, nil)
	for _, name := range []string{"olga", "rita"} {
		r.post("/users", object{"username": name, "enabled": true, "email": name + "@oem.example", "firstName": name, "lastName": "Example"})
	}
	r.post("/groups", object{"name": "auditors"})
	r.post("/clients", object{"clientId": "company-app", "publicClient": true, "redirectUris": []string{"https://app.oem.example/*"}})
	r.post("/clients", object{"clientId": "kaphera", "publicClient": false, "serviceAccountsEnabled": true, "standardFlowEnabled": false, "secret": "of the platform"})
	r.may("olga", "realm-admin") // an administrator of the realm, who uses the console
	return r
}

func (r *realm) post(path string, in any) {
	r.t.Helper()
	r.Call(r.t, http.MethodPost, "/"+realmName+path, in, nil)
}

func (r *realm) get(path string, out any) {
	r.t.Helper()
	r.Call(r.t, http.MethodGet, "/"+realmName+path, nil, out)
}

// id of a client, user or group; empty when there is none.
func (r *realm) id(kind, query, name string) string {
	r.t.Helper()
	var found []struct {
		ID string `json:"id"`
	}
	r.get("/"+kind+"?exact=true&"+query+"="+url.QueryEscape(name), &found)
	if len(found) == 0 {
		return ""
	}
	return found[0].ID
}

func (r *realm) user(name string) string   { r.t.Helper(); return r.id("users", "username", name) }
func (r *realm) client(name string) string { r.t.Helper(); return r.id("clients", "clientId", name) }

// assign gives a user or group a role of a client, or takes it away.
func (r *realm) assign(whom, client, role string, method ...string) {
	r.t.Helper()
	var rep object
	r.get("/clients/"+r.client(client)+"/roles/"+role, &rep)
	r.Call(r.t, append(method, http.MethodPost)[0], "/"+realmName+whom+"/role-mappings/clients/"+r.client(client), []object{rep}, nil)
}

func (r *realm) may(user, role string) {
	r.t.Helper()
	r.assign("/users/"+r.user(user), "realm-management", role)
}

// direct are the roles of a client that a user has not by a group.
func (r *realm) direct(user, client string) []string {
	r.t.Helper()
	var roles []struct {
		Name string `json:"name"`
	}
	r.get("/users/"+r.user(user)+"/role-mappings/clients/"+r.client(client), &roles)
	var out []string
	for _, x := range roles {
		out = append(out, x.Name)
	}
	slices.Sort(out)
	return out
}

// theirs is everything in the realm that is not the platform's.
func (r *realm) theirs() object {
	r.t.Helper()
	out := object{}
	for _, path := range []string{"", "/users/profile", "/roles?briefRepresentation=false", "/groups?briefRepresentation=false", "/users?briefRepresentation=false", "/clients", "/client-scopes", "/default-default-client-scopes", "/default-optional-client-scopes"} {
		var have any
		r.get(path, &have)
		if list, ok := have.([]any); ok {
			list = slices.DeleteFunc(list, func(x any) bool {
				attributes, _ := x.(object)["attributes"].(object)
				return attributes["kaphera.platform"] == "external.example"
			})
			have = list
		}
		out[path] = sorted(have)
	}
	return out
}

// sorted puts the elements of all lists in v in one order: the server's is that of sets.
func sorted(v any) any {
	switch v := v.(type) {
	case object:
		for k, x := range v {
			v[k] = sorted(x)
		}
	case []any:
		for i, x := range v {
			v[i] = sorted(x)
		}
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return v
}

// claims of the access token that a client would get for a user.
func (r *realm) claims(client, user string) object {
	r.t.Helper()
	var out object
	r.get("/clients/"+r.client(client)+"/evaluate-scopes/generate-example-access-token?scope=openid&userId="+r.user(user), &out)
	return out
}

func number(v any) float64 { n, _ := v.(float64); return n }

func texts(v any) []string {
	var out []string
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
	case string:
		out = []string{v}
	}
	slices.Sort(out)
	return out
}

// keycloak has the platform in a realm of the company's: what keeps it out is said, what it makes is marked, and all else stays as it is. It returns that.
func (o *outside) keycloak(t *testing.T, whole *testing.T, p *cloud.Platform, r *realm) (before object) {
	const ready = cloud.ConditionKeycloakReady
	fault(t, p, ready, cloud.ReasonMissing, "Secret our-keycloak, which has no key client-id")
	s := given(whole, "our-keycloak", map[string]string{"client-id": "kaphera", "client-secret": "wrong"})
	fault(t, p, ready, cloud.ReasonUnreachable, "nobody listens there")
	change(t, p, func() { p.Spec.Keycloak.External.URL = o.vaultURL })
	fault(t, p, ready, cloud.ReasonUntrusted, "signed by an authority that $.spec.keycloak.external.caBundle does not hold")
	change(t, p, func() { p.Spec.Keycloak.External.CABundle = cloud.CABundle(o.ca.Cert) })
	fault(t, p, ready, cloud.ReasonInvalid, "no keycloak is at "+o.vaultURL, "correct $.spec.keycloak.external.url")
	change(t, p, func() { p.Spec.Keycloak.External.URL = r.URL })
	fault(t, p, ready, cloud.ReasonMissing, `has no realm "indystry"`, "correct $.spec.keycloak.external.realm")
	r.Call(t, http.MethodPut, "/"+realmName, object{"attributes": object{"frontendUrl": "https://sso.example"}}, nil)
	change(t, p, func() { p.Spec.Keycloak.External.Realm = realmName })
	fault(t, p, ready, cloud.ReasonInvalid, "calls itself https://sso.example/realms/industry")
	r.Call(t, http.MethodPut, "/"+realmName, object{"attributes": object{"frontendUrl": ""}}, nil)
	fault(t, p, ready, cloud.ReasonLogin, "Invalid client or Invalid client credentials", "correct the Secret")
	before = r.theirs()
	change(t, s, func() { s.Data["client-secret"] = []byte("of the platform") })
	fault(t, p, ready, cloud.ReasonRights, "role manage-clients of client realm-management")
	r.may("service-account-kaphera", "manage-clients")
	fault(t, p, ready, cloud.ReasonRights, "role manage-users of client realm-management")
	r.may("service-account-kaphera", "manage-users")
	fault(t, p, ready, cloud.ReasonMissing, "realm industry has no user paul", "make the user there")
	r.post("/users", object{"username": "paul", "enabled": true})
	fault(t, p, ready, cloud.ReasonReady, "external: localhost answers")
	notMade(t, parts.Keycloak)
	stays(t, p, "keycloak", func(s *cloud.PlatformSpec) { s.Keycloak.External = nil })
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.Keycloak}, &networkingv1.Ingress{}); !apierrors.IsNotFound(err) {
		t.Errorf("an Ingress for a Keycloak that does not run here: %v", err)
	}

	t.Run("tokens say who is what, and open nothing else", func(t *testing.T) { r.t = t; r.tokens(t) })
	t.Run("the Cloud API believes the realm", func(t *testing.T) {
		var c corev1.ConfigMap
		eventually(t, func(ctx context.Context) error {
			if err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: parts.Cloud}, &c); err != nil {
				return err
			}
			if !strings.Contains(c.Data["config.yaml"], "issuer: "+r.URL+"/realms/industry\n") || c.Data["gateway-ca.crt"] != string(o.ca.Cert) {
				return fmt.Errorf("its configuration is %v", c.Data)
			}
			return nil
		})
		if p.Status.IssuerURL != r.URL+"/realms/industry" {
			t.Errorf("the Platform's issuer is %s", p.Status.IssuerURL)
		}
	})
	t.Run("what somebody else made stays", func(t *testing.T) {
		r.t = t
		r.Call(t, http.MethodDelete, "/"+realmName+"/clients/"+r.client(platform.ClientCLI), nil, nil)
		r.post("/clients", object{"clientId": platform.ClientCLI, "publicClient": true, "name": "the company's own"})
		r.assign("/groups/"+r.id("groups", "search", "auditors"), platform.ClientRoles, "viewer")
		r.Call(t, http.MethodPut, "/"+realmName+"/users/"+r.user("rita")+"/groups/"+r.id("groups", "search", "auditors"), nil, nil)
		r.assign("/users/"+r.user("paul"), platform.ClientRoles, "viewer") // by hand, to one whom the platform knows
		change(t, p, func() { p.Spec.People = p.Spec.People[:1] })         // olga
		fault(t, p, ready, cloud.ReasonRights, "client kaphera-cli", "is not this platform's", "one realm is for one platform")
		r.Call(t, http.MethodDelete, "/"+realmName+"/clients/"+r.client(platform.ClientCLI), nil, nil)
		fault(t, p, ready, cloud.ReasonReady, "external: localhost answers")
		if got := r.direct("paul", platform.ClientRoles); len(got) != 0 {
			t.Errorf("who was taken out of the spec still is %v", got)
		}
		if got := texts(r.claims(platform.ClientConsole, "rita")["roles"]); !slices.Equal(got, []string{"viewer"}) {
			t.Errorf("whom the company's group makes a viewer is %v", got)
		}
	})
	t.Run("all else is as it was", func(t *testing.T) {
		r.t = t
		r.Call(t, http.MethodDelete, "/"+realmName+"/users/"+r.user("rita")+"/groups/"+r.id("groups", "search", "auditors"), nil, nil)
		r.Call(t, http.MethodDelete, "/"+realmName+"/users/"+r.user("paul"), nil, nil)
		r.assign("/groups/"+r.id("groups", "search", "auditors"), platform.ClientRoles, "viewer", http.MethodDelete)
		r.same(t, before)
	})
	return before
}

// same compares what is not the platform's with what it was.
func (r *realm) same(t *testing.T, before object) {
	t.Helper()
	after := r.theirs()
	for path := range before {
		if diff := cmp.Diff(before[path], after[path]); diff != "" {
			t.Errorf("%s%s has changed: %s", realmName, path, diff)
		}
	}
}

func (r *realm) tokens(t *testing.T) {
	olga := r.claims(platform.ClientConsole, "olga")
	if !slices.Equal(texts(olga["roles"]), []string{"organization-admin", "viewer"}) || !slices.Equal(texts(olga["organization"]), []string{"oem"}) || !slices.Contains(texts(olga["aud"]), platform.Audience) {
		t.Errorf("the token of olga: %v", olga)
	}
	if life := number(olga["exp"]) - number(olga["iat"]); life != 300 {
		t.Errorf("the token of olga lives for %v s, and not for 300, in a realm whose tokens live for 3600", life)
	}
	if access, ok := olga["resource_access"].(object); ok && access["realm-management"] != nil {
		t.Errorf("with the token of olga the realm is administered: %v", access)
	}
	if rita := r.claims(platform.ClientCLI, "rita"); rita["roles"] != nil || rita["organization"] != nil {
		t.Errorf("whom the Platform does not name has roles: %v", rita)
	}
	if app := r.claims("company-app", "olga"); app["organization"] != nil || slices.Contains(texts(app["aud"]), platform.Audience) {
		t.Errorf("the company's application gets tokens for the Cloud API: %v", app)
	}
	var clients corev1.Secret
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.SecretClients}, &clients); err != nil {
		t.Fatal(err)
	}
	token, err := r.Token(t, realmName, url.Values{"grant_type": {"client_credentials"}, "client_id": {platform.ClientTerraform}, "client_secret": {string(clients.Data[platform.ClientTerraform])}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var program object
	if err := json.Unmarshal(raw, &program); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(texts(program["roles"]), []string{"governance-authority", "platform-operator"}) || program["iss"] != r.URL+"/realms/industry" || !slices.Contains(texts(program["aud"]), platform.Audience) {
		t.Errorf("the token of Terraform: %v", program)
	}
	key := &cloud.ApprovalKey{ObjectMeta: named("olgas-key"), Spec: cloud.ApprovalKeySpec{
		Subject: r.user("olga"), Person: "olga", Name: "Olga", Organization: "another", Roles: []string{"platform-operator"}, Thumbprint: "x", PublicKey: apiextensionsv1.JSON{Raw: []byte(`{}`)},
	}}
	create(t, key)
	clock.forward(2 * platform.RealmEvery)
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(key), key); err != nil {
			return err
		}
		if key.Spec.Organization != "oem" || !slices.Equal(key.Spec.Roles, []string{"organization-admin", "viewer"}) {
			return fmt.Errorf("olga's approval key is for %s, %v", key.Spec.Organization, key.Spec.Roles)
		}
		return nil
	})
}
