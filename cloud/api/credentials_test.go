// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/adminapi"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const issuedTo = "GET issuer-auditor/credentials"

// credentials lets the issuer have issued a membership, an attestation that the wallet does not have, and to somebody else a third.
func credentials(b *bundle) {
	b.pilot()
	b.report("supplier", func(s *cloudv1.ParticipantStatus) {
		s.Credentials = []edc.CredentialStatus{{ID: "urn:m", Type: "MembershipCredential", Issuer: "did:web:auditor.example:issuer", State: "Valid"},
			{Type: "AttestationCredential", Issuer: "did:web:auditor.example:issuer", State: "NeverDelivered", Detail: "nothing came", Remedy: "ask"}}
	})
	at := time.Now().UTC()
	b.connector.On(issuedTo, func(r *http.Request) (int, any) {
		if r.URL.Query().Get("holder") != "did:web:shared.example:brandt" {
			return http.StatusOK, []adminapi.Issued{}
		}
		return http.StatusOK, []adminapi.Issued{{ID: "urn:m", Type: "MembershipCredential", State: "Issued", IssuedAt: at.Add(-time.Hour), ExpiresAt: at}, {ID: "urn:former", Type: "MembershipCredential", State: "Issued", IssuedAt: at.Add(-time.Hour), ExpiresAt: at}, {ID: "urn:a", Type: "AttestationCredential", State: "Suspended", IssuedAt: at, ExpiresAt: at}}
	})
}

func TestCredentialsAsWalletAndIssuerSeeThem(t *testing.T) {
	b := setup(t)
	credentials(b)
	got := decodeTo[Credentials](t, b.want(http.StatusOK, b.call(viewer, "GET", "/participants/supplier/credentials", nil)))
	if len(got.Items) != 3 || len(got.Unreachable) != 0 {
		t.Fatalf("got %+v", got)
	}
	for i, want := range []Credential{{ID: "urn:m", State: "Valid", IssuerState: "Issued"}, {State: "NeverDelivered", Remedy: "ask"}, {ID: "urn:a", IssuerState: "Suspended"}} {
		if c := got.Items[i]; c.ID != want.ID || c.State != want.State || c.IssuerState != want.IssuerState || c.Remedy != want.Remedy || c.Issuer != "did:web:auditor.example:issuer" {
			t.Errorf("item %d is %+v, want %+v", i, c, want)
		}
	}
	if a := b.call(viewer, "GET", "/participants/oem/credentials", nil); a.status != http.StatusNotFound {
		t.Errorf("another organization's: %d", a.status)
	}
	b.connector.Fail(context.DeadlineExceeded)
	got = decodeTo[Credentials](t, b.want(http.StatusOK, b.call(viewer, "GET", "/participants/supplier/credentials", nil)))
	if len(got.Items) != 2 || len(got.Unreachable) != 1 || got.Unreachable[0] != "did:web:auditor.example:issuer" {
		t.Errorf("while the issuer does not answer: %+v", got)
	}
	if a := b.call(authority, "POST", "/participants/supplier/credentials/urn:m/revoke", nil); a.status != http.StatusServiceUnavailable || a.problem.Code != CodeNotConnected || !strings.Contains(a.problem.Detail, `issuer "auditor"`) {
		t.Errorf("revoking meanwhile: %d %s", a.status, a.body)
	}
}

func TestCredentialsAreChangedByTheAuthorityOnly(t *testing.T) {
	b := setup(t)
	credentials(b)
	for verb, action := range map[string]string{"revoke": "revoke", "suspend": "suspend", "resume": "resume", "redeliver": "deliver"} {
		call := "POST issuer-auditor/credentials/urn:a/" + action
		b.connector.Answer(call, http.StatusOK, adminapi.Issued{ID: "urn:a", Type: "AttestationCredential", State: "Issued"})
		for name, c := range map[string]struct {
			who    map[string]any
			status int
		}{
			"the authority": {authority, http.StatusOK}, "the operator": {operator, http.StatusForbidden}, "the holder's organization": {brandt, http.StatusForbidden},
			"a viewer": {viewer, http.StatusForbidden}, "another organization": {cloudtest.Claims("renate", "rheintal-motoren", "organization-admin"), http.StatusForbidden}, "nobody": {nil, http.StatusUnauthorized},
		} {
			before := len(b.connector.Requests())
			a := b.call(c.who, "POST", "/participants/supplier/credentials/urn:a/"+verb, nil)
			if a.status != c.status || c.status != http.StatusOK && len(b.connector.Requests()) != before {
				t.Errorf("%s by %s: %d %s, want %d", verb, name, a.status, a.body, c.status)
			}
		}
		if got := b.connector.Requests(); !strings.Contains(strings.Join(got, "\n"), call) {
			t.Errorf("%s: the issuer got %s", verb, got)
		}
		if a := b.call(authority, "POST", "/participants/oem/credentials/urn:a/"+verb, nil); a.status != http.StatusNotFound || !strings.Contains(a.problem.Detail, `"urn:a" to participant "oem"`) {
			t.Errorf("%s of another participant's: %d %s", verb, a.status, a.body)
		}
	}
	b.connector.Answer("POST issuer-auditor/credentials/urn:a/resume", http.StatusConflict, adminapi.Error{Code: "conflict", Message: "credential urn:a is revoked, which is final"})
	if a := b.call(authority, "POST", "/participants/supplier/credentials/urn:former/redeliver", nil); a.status != http.StatusNotFound {
		t.Errorf("one of a former participant with the same DID: %d %s", a.status, a.body)
	}
	_, err := b.client(authority).ResumeCredentialWithResponse(t.Context(), "supplier", "urn:a")
	if e := client.AsError(err); e == nil || e.Code != CodeConflict || !strings.Contains(e.Error(), "is final") {
		t.Errorf("resuming what is revoked: %v", err)
	}
}

// TestCredentialsOfAnotherWithTheSameContext: who took a context that was another's, past the checks, reads and changes nothing under its DID.
func TestCredentialsOfAnotherWithTheSameContext(t *testing.T) {
	b := setup(t)
	credentials(b)
	second := &cloudv1.Participant{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "zz-second"}, Spec: cloudv1.ParticipantSpec{
		Organization: "rheintal-motoren", Cell: "shared", Profile: "automotive", Identity: cloudv1.Identity{Context: "brandt", BusinessPartnerNumber: "BPNL00000000TST9"},
	}}
	if err := kube.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	b.report("zz-second", func(s *cloudv1.ParticipantStatus) { s.DID = "did:web:shared.example:brandt" })
	for path, method := range map[string]string{"": "GET", "/urn:a/revoke": "POST"} {
		if a := b.call(authority, method, "/participants/zz-second/credentials"+path, nil); a.status != http.StatusConflict || !strings.Contains(a.problem.Detail, `context "brandt" was taken`) {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	if got := b.connector.Requests(); len(got) > 0 {
		t.Errorf("the issuer was asked: %v", got)
	}
}
