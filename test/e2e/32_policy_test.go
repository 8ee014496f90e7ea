// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A policy is really negotiated between two participants made for it, allowed and refused, and nothing of them stays.
func TestALivePolicyTest(t *testing.T) {
	write := func(name string, v any) string {
		t.Helper()
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	type object = map[string]any
	constraint := func(left, operator string, right any) object {
		return object{"leftOperand": left, "operator": operator, "rightOperand": right}
	}
	policy := write("policy.json", object{"@type": "Set", "permission": []any{object{"action": "use", "constraint": []any{
		constraint("Membership", "eq", "active"), constraint("DataQualityAttestationAge", "lt", "P12M"), constraint("UsagePurpose", "isAnyOf", []string{"cx.pcf.base:1"}),
	}}}})
	for _, c := range []struct {
		name string
		age  int // months
		code int
		says []string
	}{
		{"young", 3, 0, []string{"came about under this policy", "seen: cx.pcf.base:1", "is removed"}},
		{"old", 13, 3, []string{"which counted until", "is removed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			member := func(number string) object {
				return object{"type": "MembershipCredential", "claims": object{"holderIdentifier": number, "memberOf": "Automotive pilot"}}
			}
			attested := object{"type": attestation, "claims": object{"attestationId": "DQA-LIVE", "providerName": "Prüfhaus Nord GmbH", "completedAt": time.Now().UTC().AddDate(0, -c.age, 0).Format(time.RFC3339)}}
			parties := write("parties.json", object{"provider": object{"credentials": []any{member("BPNL00000000LIVE"), attested}}, "consumer": object{"credentials": []any{member("BPNL00000000LIVC")}}})
			_, all, code := command(t, "kaphera", "policy", "test", policy, "--profile", "automotive", "--credentials", parties, "--live", "--cell", "shared")
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(all, want) {
					t.Errorf("it does not say %q:\n%s", want, all)
				}
			}
			if left := must(t, "kaphera", "get", "participants"); strings.Contains(left, "policy-test-") {
				t.Errorf("something is left:\n%s", left)
			}
		})
	}
}
