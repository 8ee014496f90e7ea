// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

func TestBadObjectsAreRefused(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	connector := func(change func(*v1alpha1.Connector)) client.Object {
		o := c.connector()
		change(o)
		return o
	}
	participant := func(change func(*v1alpha1.ParticipantContext)) client.Object {
		o := c.participant("bad", "bad")
		change(o)
		return o
	}
	issuer := func(change func(*v1alpha1.CredentialIssuer)) client.Object {
		o := c.issuer()
		change(o)
		return o
	}
	for name, tc := range map[string]struct {
		object client.Object
		text   string
	}{
		"a business partner number that is none": {participant(func(p *v1alpha1.ParticipantContext) { p.Spec.BusinessPartnerNumber = "BPNX1" }), "spec.businessPartnerNumber"},
		"a context that is no path segment":      {participant(func(p *v1alpha1.ParticipantContext) { p.Spec.Context = "a/b" }), "spec.context"},
		"a participant of no connector":          {participant(func(p *v1alpha1.ParticipantContext) { p.Spec.ConnectorRef.Name = "" }), "connectorRef.name is required"},
		"an issuer that is no did:web": {participant(func(p *v1alpha1.ParticipantContext) {
			p.Spec.Credentials = []v1alpha1.RequestedCredential{{Type: "MembershipCredential", Issuer: "did:key:z6Mk"}}
		}), "spec.credentials[0].issuer"},
		"a token method without a token":    {connector(func(o *v1alpha1.Connector) { o.Spec.Vault.Auth.Method = v1alpha1.VaultMethodToken }), "auth.tokenSecret is required when auth.method is Token"},
		"an AppRole method without secrets": {connector(func(o *v1alpha1.Connector) { o.Spec.Vault.Auth.Method = v1alpha1.VaultMethodAppRole }), "auth.appRoleSecrets is required when auth.method is AppRole"},
		"a role without an AppRole": {connector(func(o *v1alpha1.Connector) {
			o.Spec.Vault.Auth = v1alpha1.VaultAuth{Method: v1alpha1.VaultMethodAppRole, AppRoleSecrets: &v1alpha1.RoleSecrets{ControlPlane: "c", DataPlane: "d"}}
		}), "must name a Secret for controlPlane, wallet and dataPlane"},
		"an issuer without an AppRole": {issuer(func(o *v1alpha1.CredentialIssuer) {
			o.Spec.Vault.Auth = v1alpha1.VaultAuth{Method: v1alpha1.VaultMethodAppRole, AppRoleSecrets: &v1alpha1.RoleSecrets{ControlPlane: "c"}}
		}), "must name a Secret for issuer"},
		"a method that is none":           {connector(func(o *v1alpha1.Connector) { o.Spec.Vault.Auth.Method = "Password" }), "spec.vault.auth.method"},
		"a name too long for a Service":   {connector(func(o *v1alpha1.Connector) { o.Name = strings.Repeat("a", 41) }), "at most 40 characters"},
		"a name that no Service may have": {connector(func(o *v1alpha1.Connector) { o.Name = "1st" }), "must start with a letter"},
		"a host name with a scheme":       {connector(func(o *v1alpha1.Connector) { o.Spec.Exposure.Hostname = "https://shared.example" }), "spec.exposure.hostname"},
		"no way to encrypt that is known": {connector(func(o *v1alpha1.Connector) { o.Spec.Database.SSLMode = "prefer" }), "spec.database.sslMode"},
		"a denied network that is none":   {connector(func(o *v1alpha1.Connector) { o.Spec.DataPlane.DeniedNetworks = []string{"10.96.0.0/12", "10.0.0.1"} }), "deniedNetworks must be networks in CIDR notation"},
		"an allowed network that is none": {connector(func(o *v1alpha1.Connector) { o.Spec.DataPlane.AllowedNetworks = []string{"backend.example"} }), "allowedNetworks must be networks in CIDR notation"},
		"a retention that is none":        {connector(func(o *v1alpha1.Connector) { o.Spec.Audit.KeepBodies = "1 year" }), "keepBodies must be a duration"},
		"a retention of nothing":          {connector(func(o *v1alpha1.Connector) { o.Spec.Audit.KeepBodies = "0h" }), "keepBodies must be a duration"},
		"a record type that is none":      {connector(func(o *v1alpha1.Connector) { o.Spec.Audit.Leaving = []string{"policies"} }), "spec.audit.leaving[0]"},
		"a share of more than there is":   {connector(func(o *v1alpha1.Connector) { o.Spec.PerParticipant.Connections = 11 }), "spec.perParticipant.connections"},
		"no type to issue":                {issuer(func(o *v1alpha1.CredentialIssuer) { o.Spec.CredentialTypes = []v1alpha1.CredentialType{} }), "spec.credentialTypes"},
		"a validity that is no duration":  {issuer(func(o *v1alpha1.CredentialIssuer) { o.Spec.CredentialTypes[0].Validity = "1 year" }), "spec.credentialTypes[0].validity"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := admin.Create(t.Context(), tc.object)
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("want a refusal that says %q, got %v", tc.text, err)
			}
		})
	}
}

func TestWhatADIDContainsCannotChange(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn, p, i := c.connector(), c.participant("supplier", "brandt-guss"), c.issuer()
	for _, o := range []client.Object{conn, p, i} {
		create(t, o)
	}
	refused := func(o client.Object, text string, change func()) {
		t.Helper()
		must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(o), o))
		before, ok := o.DeepCopyObject().(client.Object)
		if !ok {
			t.Fatal("no object")
		}
		change()
		if err := admin.Patch(t.Context(), o, client.MergeFrom(before)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("want a refusal that says %q, got %v", text, err)
		}
	}
	refused(conn, "hostname cannot change", func() { conn.Spec.Exposure.Hostname = "other.example" })
	refused(conn, "management.hostname must be another than exposure.hostname", func() { conn.Spec.Management.Hostname = conn.Spec.Exposure.Hostname })
	refused(conn, "tlsSecretName is for hostname", func() { conn.Spec.Management = v1alpha1.Management{TLSSecretName: "x"} })
	refused(p, "context cannot change", func() { p.Spec.Context = "other" })
	refused(p, "connectorRef cannot change", func() { p.Spec.ConnectorRef.Name = "other" })
	refused(i, "context cannot change", func() { i.Spec.Context = "other" })
}
