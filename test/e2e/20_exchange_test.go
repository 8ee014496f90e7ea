// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

// The demonstration, judged from outside: what it prints must be what both connectors know.
func TestExchange(t *testing.T) {
	out := must(t, "kaphera", "demo", "run", "carbon-footprint")
	made := regexp.MustCompile(`([0-9]+\.[0-9]{6}) kg CO2e`).FindAllStringSubmatch(out, -1)
	if len(made) < 2 || made[0][1] != made[len(made)-1][1] {
		t.Fatalf("the value made in the supplier's backend did not arrive:\n%s", out)
	}
	agreement := regexp.MustCompile(`Agreement\s+([0-9a-f-]{36})`).FindStringSubmatch(out)
	if agreement == nil {
		t.Fatalf("no agreement is named:\n%s", out)
	}
	api := cloud(t)
	for _, participant := range []string{"oem", "supplier"} {
		a, err := api.GetAgreementWithResponse(t.Context(), participant, agreement[1])
		if err != nil {
			t.Fatalf("%s does not know the agreement: %v", participant, err)
		}
		if a.JSON200.Consumer == a.JSON200.Provider || !strings.HasSuffix(a.JSON200.Provider, ":brandt-guss") {
			t.Errorf("%s: parties of the agreement: %+v", participant, a.JSON200)
		}
	}
	// A second fetch under the same agreement brings the same value, through the CLI's own command.
	fetched := must(t, "kaphera", "transfer", "oem", "--agreement", agreement[1], "--fetch")
	if !strings.Contains(fetched, strings.TrimRight(made[0][1], "0")) {
		t.Errorf("fetched again, the value %s is not in it:\n%s", made[0][1], fetched)
	}
	for _, scene := range []string{"does not offer what it may not offer", "refused (401", "value seen:", "what to do:"} {
		if !strings.Contains(out, scene) {
			t.Errorf("the demonstration does not show %q:\n%s", scene, out)
		}
	}
}

// The other demonstrations end well; each of them compares what it claims.
func TestShowings(t *testing.T) {
	for name, words := range map[string]string{"quality-recall": "1 of 2 approvals are given", "revision": "Kept.", "policy-test": "came about under this policy"} {
		if out := must(t, "kaphera", "demo", "run", name); !strings.Contains(out, words) {
			t.Errorf("%s does not show %q:\n%s", name, words, out)
		}
	}
}

// Nobody gets at the backend but the data plane: not without a key, not with a token of the data plane.
func TestDirectAccessToTheBackendIsRefused(t *testing.T) {
	base := forward(t, "supplier-backend", "pcf-backend", 8080)
	for name, token := range map[string]string{"no key": "", "a made-up key": "c29tZXRoaW5n"} {
		if status, body := call(t, http.MethodGet, base+"/documents/pcf-gearbox-housing-gh-4711", token, nil); status != http.StatusUnauthorized && status != http.StatusForbidden {
			t.Errorf("%s: answered %d: %s", name, status, body)
		}
	}
}

// A data address is worth nothing without the token of its agreement.
func TestTheDataPlaneNeedsTheAgreementsToken(t *testing.T) {
	api := cloud(t)
	transfers, err := api.ListTransfersWithResponse(t.Context(), "oem")
	if err != nil {
		t.Fatal(err)
	}
	var endpoint string
	for _, tr := range transfers.JSON200.Items {
		if tr.Endpoint != "" {
			endpoint = tr.Endpoint
		}
	}
	if endpoint == "" {
		t.Fatalf("no transfer has an endpoint: %s", transfers.Body)
	}
	h, err := client.HTTPClient(client.Config{CAFile: caFile()})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", token)
		resp, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			t.Errorf("token %q: the data plane answered %s", token, resp.Status)
		}
	}
}

func TestStatusIsOneTable(t *testing.T) {
	eventually(t, "both participants healthy, each on its cell", func(context.Context) (bool, string) {
		out := must(t, "kaphera", "status")
		for p, cell := range map[string]string{"oem": companyCell + ` \(on-premise\)`, "supplier": "shared"} {
			// Participant, organization, cell, who operates it, connector, credentials, contracts.
			if !regexp.MustCompile(`(?m)^` + p + ` {2,}\S+ {2,}` + cell + ` {2,}\S.*? {2,}Healthy {2,}Healthy {2,}\S`).MatchString(out) {
				return false, out
			}
		}
		return true, ""
	})
}
