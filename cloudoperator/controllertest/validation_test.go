// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/profile"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

func goodProfile(name string) *cloud.DataspaceProfile {
	return &cloud.DataspaceProfile{ObjectMeta: named(name), Spec: cloud.DataspaceProfileSpec{
		Issuers:             []cloud.Issuer{{Name: "authority-" + name, Cell: "nowhere", Hostname: name + ".example", CredentialTypes: []edc.CredentialType{{Type: "MembershipCredential"}}}},
		RequiredCredentials: []string{"MembershipCredential"},
		Operands: []profile.Operand{{
			Name: "https://example.org/member", Subject: profile.SubjectConsumer, Credential: "MembershipCredential", Expression: "credential.subject.memberOf",
			ValueType: profile.ValueString, Operators: []string{"eq"}, Phases: []profile.Phase{profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "The consumer is a member of {right}"},
		}},
	}}
}

func goodParticipant() *cloud.Participant {
	return &cloud.Participant{ObjectMeta: named("valid"), Spec: cloud.ParticipantSpec{
		Organization: "o", Cell: "c", Profile: "p", Identity: cloud.Identity{Context: "valid", BusinessPartnerNumber: "BPNL000000000001"},
	}}
}

func goodCell() *cloud.Cell {
	return &cloud.Cell{ObjectMeta: named("valid"), Spec: cloud.CellSpec{Type: "shared", Hostname: "valid.example", OperatingParty: "x"}}
}

// TestSchemaRefuses creates each object with one mistake, without keeping it; the message names the field or says what to do.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	profileWith := func(change func(*cloud.DataspaceProfile)) client.Object {
		p := goodProfile("valid")
		change(p)
		return p
	}
	participantWith := func(change func(*cloud.Participant)) client.Object {
		p := goodParticipant()
		change(p)
		return p
	}
	cellWith := func(change func(*cloud.Cell)) client.Object {
		c := goodCell()
		change(c)
		return c
	}
	dedicatedWith := func(change func(*cloud.CellSpec)) client.Object {
		c := dedicatedCell("valid", "o")
		change(&c.Spec)
		return c
	}
	onPremiseWith := func(change func(*cloud.CellSpec)) client.Object {
		c := onPremiseCell("valid", "o")
		change(&c.Spec)
		return c
	}
	for _, o := range []client.Object{goodProfile("valid"), goodParticipant(), goodCell(), dedicatedCell("valid", "o"), onPremiseCell("valid", "o")} {
		if err := admin.Create(t.Context(), o, client.DryRunAll); err != nil {
			t.Fatalf("a good %T: %v", o, err)
		}
	}
	for name, c := range map[string]struct {
		o  client.Object
		in string
	}{
		"a required credential that nobody issues": {profileWith(func(p *cloud.DataspaceProfile) { p.Spec.RequiredCredentials = []string{"Other"} }), "must be issued by one of issuers"},
		"a profile without an issuer":              {profileWith(func(p *cloud.DataspaceProfile) { p.Spec.Issuers, p.Spec.RequiredCredentials = nil, []string{} }), "spec.issuers"},
		"an issuer named as the connector":         {profileWith(func(p *cloud.DataspaceProfile) { p.Spec.Issuers[0].Name = "connector" }), "cannot start with connector"},
		"an unknown onboarding check":              {profileWith(func(p *cloud.DataspaceProfile) { p.Spec.OnboardingChecks = []string{"Vibes"} }), "onboardingChecks"},
		"a partner number of another kind":         {participantWith(func(p *cloud.Participant) { p.Spec.Identity.BusinessPartnerNumber = "BPNS1" }), "businessPartnerNumber"},
		"a context that is no path segment":        {participantWith(func(p *cloud.Participant) { p.Spec.Identity.Context = "a/b" }), "context"},
		"its profile among the further ones":       {participantWith(func(p *cloud.Participant) { p.Spec.FurtherProfiles = []string{p.Spec.Profile} }), "furtherProfiles has the default profile"},
		"an unknown cell type":                     {cellWith(func(c *cloud.Cell) { c.Spec.Type = "on-mars" }), "spec.type"},
		"an on-premise cell of nobody":             {onPremiseWith(func(c *cloud.CellSpec) { c.Organization = "" }), "names the organization"},
		"an on-premise cell without a database":    {onPremiseWith(func(c *cloud.CellSpec) { c.Database = nil }), "own PostgreSQL in database"},
		"an on-premise cell without a Vault":       {onPremiseWith(func(c *cloud.CellSpec) { c.Vault = nil }), "own Vault in vault"},
		"an on-premise cell with a quota":          {onPremiseWith(func(c *cloud.CellSpec) { c.Quota = &cloud.CellQuota{CPU: "1", Memory: "1Gi"} }), "nor has an on-premise cell"},
		"an on-premise cell with access":           {onPremiseWith(func(c *cloud.CellSpec) { c.Access = &cloud.CellAccess{} }), "a company gives rights itself"},
		"a role without a login to the Vault":      {onPremiseWith(func(c *cloud.CellSpec) { c.Vault.Auth.AppRoleSecrets.Wallet = "" }), "controlPlane, wallet and dataPlane"},
		"an agent's key that is none":              {onPremiseWith(func(c *cloud.CellSpec) { c.AgentKey = "SUAM" }), "spec.agentKey"},
		"a dedicated cell with a database":         {dedicatedWith(func(c *cloud.CellSpec) { c.Database = onPremiseCell("x", "o").Spec.Database }), "the others use the platform's"},
		"a shared cell with a Vault":               {cellWith(func(c *cloud.Cell) { c.Spec.Vault = onPremiseCell("x", "o").Spec.Vault }), "the others use the platform's"},
		"a shared cell with an ingress":            {cellWith(func(c *cloud.Cell) { c.Spec.Ingress = &cloud.CellIngress{} }), "ingress is for on-premise cells"},
		"a shared cell with an agent's key":        {cellWith(func(c *cloud.Cell) { c.Spec.AgentKey = "U" + strings.Repeat("A", 55) }), "agentKey is for on-premise cells"},
		"a retention that is none":                 {cellWith(func(c *cloud.Cell) { c.Spec.Audit.KeepBodies = "P1Y" }), "keepBodies must be a duration"},
		"a dedicated cell of nobody":               {dedicatedWith(func(c *cloud.CellSpec) { c.Organization = "" }), "names the organization"},
		"a shared cell of an organization":         {cellWith(func(c *cloud.Cell) { c.Spec.Organization = "o" }), "a shared cell none"},
		"a dedicated cell without bounds":          {dedicatedWith(func(c *cloud.CellSpec) { c.Quota = nil }), "has a quota"},
		"a quota that is none":                     {dedicatedWith(func(c *cloud.CellSpec) { c.Quota.Memory = "much" }), "memory is no quantity"},
		"a container larger than the cell":         {dedicatedWith(func(c *cloud.CellSpec) { c.Quota.ContainerMemory = "3Gi" }), "containerMemory is more than memory"},
		"access to a shared cell":                  {cellWith(func(c *cloud.Cell) { c.Spec.Access = &cloud.CellAccess{} }), "access is for dedicated cells"},
		"access for everybody":                     {dedicatedWith(func(c *cloud.CellSpec) { c.Access.Viewers.Groups = []string{"system:authenticated"} }), "Kubernetes' own"},
		"access for a program":                     {dedicatedWith(func(c *cloud.CellSpec) { c.Access.Operators.Users = []string{"system:serviceaccount:x:y"} }), "Kubernetes' own"},
		"a cell with a long name":                  {cellWith(func(c *cloud.Cell) { c.Name = strings.Repeat("c", 33) }), "at most 32"},
		"an external Vault without TLS":            {externalVault(func(x *cloud.ExternalVault) { x.Address = "http://vault.example" }), "must be an https URL"},
		"an external Vault, no token":              {externalVault(func(x *cloud.ExternalVault) { x.Auth.CredentialsSecret = nil }), "take a role"},
		"an external Vault, a role by a token":     {externalVault(func(x *cloud.ExternalVault) { x.Auth.Role = "kaphera" }), "take a role"},
		"an authority that is no certificate":      {externalVault(func(x *cloud.ExternalVault) { x.CABundle = "ca.crt" }), "must be certificates in PEM"},
		"a platform's part with an odd role": {&cloud.Platform{ObjectMeta: named("x"), Spec: cloud.PlatformSpec{
			Domain: "x.example", People: []cloud.Person{{Username: "a", Roles: []string{"root"}}},
		}}, "people"},
	} {
		if err := admin.Create(t.Context(), c.o, client.DryRunAll); err == nil || !strings.Contains(err.Error(), c.in) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIdentityCannotChange(t *testing.T) {
	t.Parallel()
	p := goodParticipant()
	p.Name = "constant"
	create(t, p)
	for name, c := range map[string]struct {
		change func(*cloud.Participant)
		in     string
	}{
		"context":      {func(p *cloud.Participant) { p.Spec.Identity.Context = "another" }, "context cannot change"},
		"BPN":          {func(p *cloud.Participant) { p.Spec.Identity.BusinessPartnerNumber = "BPNL000000000009" }, "businessPartnerNumber cannot change"},
		"organization": {func(p *cloud.Participant) { p.Spec.Organization = "another" }, "organization cannot change"},
	} {
		before := p.DeepCopy()
		changed := p.DeepCopy()
		c.change(changed)
		if err := admin.Patch(t.Context(), changed, client.MergeFrom(before), client.DryRunAll); err == nil || !strings.Contains(err.Error(), c.in) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A participant that an operator before this release has made may have a DID and no status.cell: which cell to take it from, nobody would know.
	for cell, refused := range map[string]bool{"": true, "somewhere": false} {
		before := p.DeepCopy()
		p.Status.DID, p.Status.Cell = "did:web:somewhere.example:constant", cell
		if err := admin.Status().Patch(t.Context(), p, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
		changed := p.DeepCopy()
		changed.Spec.Cell = "another"
		if err := admin.Patch(t.Context(), changed, client.MergeFrom(p), client.DryRunAll); (err != nil && strings.Contains(err.Error(), "cell cannot change yet")) != refused {
			t.Errorf("with status.cell %q: %v", cell, err)
		}
	}
	before := p.DeepCopy()
	p.Status.Hostname = "somewhere.example"
	if err := admin.Status().Patch(t.Context(), p, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	for host, good := range map[string]bool{"somewhere.example": true, "another.example": false} {
		changed := p.DeepCopy()
		changed.Spec.Identity.Hostname = host
		if err := admin.Patch(t.Context(), changed, client.MergeFrom(p), client.DryRunAll); good != (err == nil) || !good && !strings.Contains(err.Error(), "identity.hostname must be as status.hostname") {
			t.Errorf("with the host name %s: %v", host, err)
		}
	}
	if err := admin.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
}

func TestUseCaseIsJudgedByItsProfile(t *testing.T) {
	t.Parallel()
	policy := func(operand string) apiextensionsv1.JSON {
		return apiextensionsv1.JSON{Raw: []byte(`{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"` + operand + `","operator":"eq","rightOperand":"auto"}]}]}`)}
	}
	good := &cloud.UseCase{ObjectMeta: named("good"), Spec: cloud.UseCaseSpec{Profile: "judged", Title: "t", AssetType: "a", ContractPolicy: policy("https://example.org/member")}}
	bad := &cloud.UseCase{ObjectMeta: named("bad"), Spec: cloud.UseCaseSpec{Profile: "judged", Title: "t", AssetType: "a", ContractPolicy: policy("https://example.org/colour")}}
	create(t, good)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, good, cloud.ConditionPolicyValid, metav1.ConditionFalse, cloud.ReasonMissing)
	})
	create(t, goodProfile("judged"))
	create(t, bad)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, good, cloud.ConditionPolicyValid, metav1.ConditionTrue, "")
	})
	if good.Status.PolicyHash == "" || len(good.Status.Sentences) == 0 || !strings.Contains(strings.Join(good.Status.Sentences, " "), "member of auto") {
		t.Errorf("hash %q, sentences %q", good.Status.PolicyHash, good.Status.Sentences)
	}
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, bad, cloud.ConditionPolicyValid, metav1.ConditionFalse, cloud.ReasonInvalid)
	})
	for _, c := range bad.Status.Conditions {
		if c.Type != cloud.ConditionSignedOff && (!strings.Contains(c.Message, "$.spec.contractPolicy.permission[0].constraint[0]") || !strings.Contains(c.Message, "colour")) {
			t.Errorf("%s does not name the place and the operand: %s", c.Type, c.Message)
		}
	}
	p := goodProfile("judged")
	change(t, p, func() { p.Spec.Operands[0].Expression = "nonsense(" })
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, p, cloud.ConditionPolicyValid, metav1.ConditionFalse, cloud.ReasonInvalid)
	})
	for _, o := range []client.Object{good, bad, p} {
		if err := admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
	}
}

func TestReferencesThatAreMissingAreNamed(t *testing.T) {
	t.Parallel()
	p := goodParticipant()
	p.Name, p.Spec.Organization = "orphan", "nobody"
	create(t, p)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, p, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonMissing)
	})
	for _, c := range p.Status.Conditions {
		if c.Type == cloud.ConditionReady && c.Message != `$.spec.organization: there is no organization "nobody"` {
			t.Errorf("message is %q", c.Message)
		}
	}
	if err := admin.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
}

func externalVault(mistake func(*cloud.ExternalVault)) *cloud.Platform {
	x := &cloud.ExternalVault{Address: "https://vault.example", Mount: "kv", Auth: cloud.ExternalVaultAuth{Method: "Token", CredentialsSecret: &cloud.SecretName{Name: "x"}}, Connectors: cloud.ConnectorsVaultAuth{Method: "JWT"}}
	mistake(x)
	return &cloud.Platform{ObjectMeta: named("x"), Spec: cloud.PlatformSpec{Domain: "x.example", Vault: cloud.VaultPart{External: x}}}
}
