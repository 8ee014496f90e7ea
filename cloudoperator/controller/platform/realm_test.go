// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"slices"
	"testing"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/keycloak"
)

func TestTheCloudAPIsAudienceIsInAccessTokensOnly(t *testing.T) {
	r := realm(&cloud.Platform{}, nil)
	mappers := r.Scope["protocolMappers"].([]any)
	i := slices.IndexFunc(mappers, func(m any) bool { return m.(keycloak.Rep)["name"] == "audience" })
	if i < 0 {
		t.Fatal("no mapper puts the audience into tokens")
	}
	config := mappers[i].(keycloak.Rep)["config"].(keycloak.Rep)
	if config["included.custom.audience"] != Audience || config["access.token.claim"] != "true" || config["id.token.claim"] != "false" {
		t.Errorf("the mapper is %v", config)
	}
}

func TestLogInsEndAtTheConsolesOwnAddresses(t *testing.T) {
	p := &cloud.Platform{}
	p.Spec.Domain = "demo.example"
	for _, c := range realm(p, nil).Clients {
		if c.ID != ClientConsole {
			if c.Rep["redirectUris"] != nil || c.Rep["standardFlowEnabled"] != false {
				t.Errorf("client %s takes part in browser log-ins", c.ID)
			}
			continue
		}
		if uris := c.Rep["redirectUris"].([]any); len(uris) != 1 || uris[0] != "https://console.demo.example/callback" {
			t.Errorf("the console's log-ins end at %v", uris)
		}
		if uri := c.Rep["attributes"].(keycloak.Rep)["post.logout.redirect.uris"]; uri != "https://console.demo.example/" {
			t.Errorf("the console's log-outs end at %v", uri)
		}
	}
}
