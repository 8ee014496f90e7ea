// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
)

// TestCatalogsThatWithholdSomethingAreOnRecordOnce polls a catalog that is refused, then filtered, then whole.
func TestCatalogsThatWithholdSomethingAreOnRecordOnce(t *testing.T) {
	who, provider, _ := world(t)
	provider.offer("open", openPolicy)
	provider.offer("attested", attestedPolicy)
	const third = "did:web:third.example"
	poll := func(want int) {
		t.Helper()
		for range 3 {
			if status, body := provider.send(http.MethodPost, "/catalog/request", provider.as(third), `{`+head+`,"@type":"CatalogRequestMessage"}`); status != want {
				t.Fatalf("%d %v", status, body)
			}
		}
	}
	poll(http.StatusForbidden) // it is no member
	who.give(third, "MembershipCredential", map[string]any{"bpn": "BPN-3"})
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": time.Now().AddDate(-2, 0, 0).UTC().Format(time.RFC3339)})
	poll(http.StatusOK) // the own attestation is too old
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": time.Now().UTC().Format(time.RFC3339)})
	poll(http.StatusOK)

	h, err := provider.store.AuditHead(t.Context(), provider.ctx)
	if err != nil {
		t.Fatal(err)
	}
	records, err := provider.store.AuditRecords(t.Context(), h, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		if r.Type != audit.Policy {
			continue
		}
		var v struct {
			Phase        string `json:"phase"`
			Counterparty string `json:"counterparty"`
			Reason       string `json:"reason"`
			Allowed      bool   `json:"allowed"`
			Withheld     []struct {
				Definition string `json:"definition"`
				Policy     string `json:"policy"`
				Reason     string `json:"reason"`
			} `json:"withheld"`
		}
		if err := json.Unmarshal(r.Body, &v); err != nil {
			t.Fatal(err)
		}
		if v.Phase != "catalog" || v.Counterparty != third || r.Actor != third {
			t.Errorf("%s", r.Body)
		}
		switch {
		case !v.Allowed && v.Reason != "":
			got = append(got, "refused")
		case len(v.Withheld) == 1 && v.Withheld[0].Definition == "attested" && len(v.Withheld[0].Policy) == 64 && v.Withheld[0].Reason != "":
			got = append(got, "filtered")
		case len(v.Withheld) == 0:
			got = append(got, "whole")
		}
	}
	if strings.Join(got, " ") != "refused filtered whole" {
		t.Errorf("on record: %q", got)
	}
}
