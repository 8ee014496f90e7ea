// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/client"
)

func TestCredentialsAreToldApart(t *testing.T) {
	b := setup(t)
	const call = "GET /api/v1/participants/supplier/credentials"
	states := []string{"Valid", "Expiring", "Expired", "Revoked", "WrongIssuer", "NeverDelivered", "RenewalStuck", "Suspended", ""}
	b.on(call, func(w http.ResponseWriter, _ *http.Request) {
		out := client.Credentials{Unreachable: []string{"did:web:authority.example:issuer"}}
		for _, s := range states {
			out.Items = append(out.Items, client.Credential{ID: "urn:" + s, Type: s + "Credential", Issuer: "did:web:auditor.example:issuer", State: s, IssuerState: "Issued", ExpiresAt: noon.Add(time.Hour)})
		}
		out.Items[5] = client.Credential{Type: "NeverDeliveredCredential", Issuer: "did:web:auditor.example:issuer", State: "NeverDelivered", Detail: "nothing has come", Remedy: "See whether the issuer answers."}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
	b.golden("credential-list", b.run("credential", "list", "supplier"))
	r := b.run("credential", "list", "supplier", "-o", "json")
	var got client.Credentials
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got.Items) != len(states) || got.Items[6].State != "RenewalStuck" {
		t.Errorf("as JSON: %v %s%s", err, r.out, r.err)
	}
}

func TestCredentialsAreChangedAtTheirIssuer(t *testing.T) {
	for verb, state := range map[string]string{"revoke": "Revoked", "suspend": "Suspended", "resume": "Issued", "redeliver": "Issued"} {
		b := setup(t)
		call := "POST /api/v1/participants/supplier/credentials/urn:uuid:1/" + verb
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(client.Issued{ID: "urn:uuid:1", Type: attestation, Holder: supplierDID, State: state})
		})
		args := []string{"credential", verb, "supplier", "urn:uuid:1"}
		if verb == "revoke" {
			if r := b.run(args...); r.code != ExitUsage || !strings.Contains(r.err, "--yes") || len(b.called(call)) != 0 {
				t.Errorf("without a terminal: %d %s", r.code, r.err)
			}
			b.asks, b.input = true, "n\n"
			if r := b.run(args...); r.code != ExitFailed || !strings.Contains(r.err, "cannot be undone") || len(b.called(call)) != 0 {
				t.Errorf("after a no: %d %s", r.code, r.err)
			}
			b.input = "y\n"
			if r := b.run(args...); r.code != ExitOK || len(b.called(call)) != 1 {
				t.Errorf("after a yes: %d %s", r.code, r.err)
			}
			args = append(args, "--yes")
			b.asks = false
		}
		if r := b.run(args...); r.code != ExitOK || !strings.Contains(r.out, strings.ToLower(state)+" at its issuer") {
			t.Errorf("%s: %d %s%s", verb, r.code, r.out, r.err)
		}
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusForbidden, "forbidden", "it needs the role governance-authority")
		})
		if r := b.run(args...); r.code == ExitOK || !strings.Contains(r.err, "governance-authority") {
			t.Errorf("%s by somebody else: %d %s", verb, r.code, r.err)
		}
	}
}
