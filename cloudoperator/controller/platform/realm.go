// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/keycloak"
)

// Roles of people and clients.
const (
	RolePlatformOperator    = "platform-operator"
	RoleGovernanceAuthority = "governance-authority"
	RoleOrganizationAdmin   = "organization-admin"
	RoleViewer              = "viewer"
)

// realm is the content of the realm but for the people.
func realm(p *cloud.Platform, clients map[string][]byte) keycloak.Realm {
	return keycloak.Realm{
		Name: Realm,
		Settings: keycloak.Rep{ //nolint:gosec // rules for passwords, none itself
			"displayName": "Kaphera", "sslRequired": "external", "registrationAllowed": false, "resetPasswordAllowed": false,
			"rememberMe": false, "loginWithEmailAllowed": false, "duplicateEmailsAllowed": false, "editUsernameAllowed": false,
			"bruteForceProtected": true, "accessTokenLifespan": 300, "ssoSessionIdleTimeout": 3600, "ssoSessionMaxLifespan": 36000,
			"oauth2DeviceCodeLifespan": 600, "oauth2DevicePollingInterval": 2, "eventsEnabled": true, "eventsExpiration": 2592000, "adminEventsEnabled": true,
			"passwordPolicy": "length(12) and notUsername(undefined)",
			"attributes":     keycloak.Rep{"oauth2DeviceCodeLifespan": "600", "oauth2DevicePollingInterval": "2"},
		},
		Roles: map[string]string{
			RolePlatformOperator:    "Runs the platform and its cells",
			RoleGovernanceAuthority: "Sets the rules of the dataspace",
			RoleOrganizationAdmin:   "Acts for the participants of an organization",
			RoleViewer:              "Sees the participants of an organization",
		},
		Attributes: []keycloak.Rep{{
			"name": "organization", "displayName": "Organization", "multivalued": false,
			"permissions": keycloak.Rep{"view": []any{"admin", "user"}, "edit": []any{"admin"}},
		}},
		Scope: keycloak.Rep{
			"name": "kaphera", "description": "Roles, organization and audience of the Cloud API", "protocol": "openid-connect",
			"attributes": keycloak.Rep{"include.in.token.scope": "false", "display.on.consent.screen": "false"},
			"protocolMappers": []any{
				mapper("roles", "oidc-usermodel-realm-role-mapper", keycloak.Rep{"claim.name": "roles", "multivalued": "true", "jsonType.label": "String"}),
				mapper("organization", "oidc-usermodel-attribute-mapper", keycloak.Rep{"user.attribute": "organization", "claim.name": "organization", "jsonType.label": "String", "multivalued": "false"}),
				audience(),
			},
		},
		Clients: []keycloak.ClientSpec{
			{ID: ClientConsole, Secret: string(clients[ClientConsole]), Rep: keycloak.Rep{
				"name": "Kaphera console", "publicClient": false, "clientAuthenticatorType": "client-secret",
				"standardFlowEnabled": true, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false, "serviceAccountsEnabled": false,
				"redirectUris": []any{"https://" + consoleHost(p) + "/callback"}, "webOrigins": []any{"https://" + consoleHost(p)},
				"attributes": keycloak.Rep{"pkce.code.challenge.method": "S256", "post.logout.redirect.uris": "https://" + consoleHost(p) + "/"},
			}},
			{ID: ClientCLI, Rep: keycloak.Rep{
				"name": "Kaphera command line", "publicClient": true,
				"standardFlowEnabled": false, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false, "serviceAccountsEnabled": false,
				"attributes": keycloak.Rep{"oauth2.device.authorization.grant.enabled": "true", "pkce.code.challenge.method": "S256"},
			}},
			{ID: ClientTerraform, Secret: string(clients[ClientTerraform]), Roles: []string{RolePlatformOperator, RoleGovernanceAuthority}, Rep: keycloak.Rep{
				"name": "Kaphera Terraform provider", "publicClient": false, "clientAuthenticatorType": "client-secret",
				"standardFlowEnabled": false, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false, "serviceAccountsEnabled": true,
			}},
		},
	}
}

// audience puts the Cloud API into access tokens only: an ID token must open nothing.
func audience() keycloak.Rep {
	config := keycloak.Rep{"included.custom.audience": Audience}
	m := mapper("audience", "oidc-audience-mapper", config)
	config["id.token.claim"] = "false"
	return m
}

func mapper(name, kind string, config keycloak.Rep) keycloak.Rep {
	for _, where := range []string{"access.token.claim", "id.token.claim", "userinfo.token.claim", "introspection.token.claim"} {
		config[where] = "true"
	}
	return keycloak.Rep{"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config}
}
