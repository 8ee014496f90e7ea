// SPDX-License-Identifier: FSL-1.1-ALv2

package snapshot_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/profile"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files")

var day = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func meta(name string, age int) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "kaphera-system", CreationTimestamp: metav1.NewTime(day.Add(-time.Duration(age) * time.Hour))}
}

func participant(name, cell, context string, age int, credentials ...string) cloud.Participant {
	p := cloud.Participant{ObjectMeta: meta(name, age), Spec: cloud.ParticipantSpec{
		Organization: "org", Cell: cell, Profile: "auto", SelfCheck: "Enforce",
		Identity: cloud.Identity{Context: context, BusinessPartnerNumber: "BPNL000000000001"},
	}}
	for _, c := range credentials {
		p.Spec.Credentials = append(p.Spec.Credentials, edc.HolderCredential{Type: c, Claims: &apiextensionsv1.JSON{Raw: []byte(`{"memberOf":"auto"}`)}})
	}
	return p
}

// world is two cells; the profile's issuers live in shared.
func world() snapshot.Input {
	active := participant("supplier", "shared", "supplier", 3, "MembershipCredential", "Attestation", "Unissued")
	active.Status.Conditions = []metav1.Condition{{Type: cloud.ConditionOnboarded, Status: metav1.ConditionTrue}}
	deleted := participant("former", "shared", "former", 9, "MembershipCredential")
	now := metav1.NewTime(day)
	deleted.DeletionTimestamp = &now
	lost := participant("lost", "shared", "lost", 1)
	lost.Spec.Profile = "nowhere"
	shared := cloud.Cell{ObjectMeta: meta("shared", 20), Spec: cloud.CellSpec{Type: "shared", Hostname: "shared.example", Replicas: ptr.To[int32](2)}}
	return snapshot.Input{
		Cell:  shared,
		Cells: []cloud.Cell{shared, {ObjectMeta: meta("other", 20), Spec: cloud.CellSpec{Type: "shared", Hostname: "other.example"}}},
		Profiles: []cloud.DataspaceProfile{
			{ObjectMeta: meta("auto", 15), Spec: cloud.DataspaceProfileSpec{
				Protocol: "dataspace-protocol-http:2025-1", RequiredCredentials: []string{"MembershipCredential"},
				Issuers: []cloud.Issuer{
					{Name: "auditor", Cell: "shared", Hostname: "auditor.example", CredentialTypes: []edc.CredentialType{{Type: "Attestation", Validity: "P2Y"}}},
					{Name: "authority", Cell: "shared", Hostname: "authority.example", CredentialTypes: []edc.CredentialType{{Type: "MembershipCredential", Validity: "P1Y"}}},
				},
				Operands: []profile.Operand{{
					Name: "https://example.org/member", Subject: profile.SubjectConsumer, Credential: "MembershipCredential", Expression: "credential.subject.memberOf",
					ValueType: profile.ValueString, Operators: []string{"eq"}, Phases: []profile.Phase{profile.PhaseNegotiation}, Sentence: profile.Translation{EN: "member of {right}"},
				}},
			}},
			{ObjectMeta: meta("unused", 14), Spec: cloud.DataspaceProfileSpec{Issuers: []cloud.Issuer{{Name: "authority", Cell: "shared", Hostname: "later.example"}}}},
		},
		Participants: []cloud.Participant{
			participant("usurper", "shared", "supplier", 1, "MembershipCredential"), active, deleted, lost, participant("oem", "other", "oem", 2, "MembershipCredential"),
		},
		Facts: snapshot.Facts{
			DatabaseHost: "postgresql.kaphera-system.svc", DatabasePort: 5432, DatabaseCA: "internal", VaultAddress: "https://openbao.kaphera-system.svc:8200",
			VaultCA: "internal", VaultMount: "kv", VaultMethod: edc.VaultMethodKubernetes, VaultAuth: "kubernetes", VaultAudience: "vault", Image: "connector:1", Trust: edc.Trust{CABundle: "gateway", AllowPrivateNetworks: true},
			Ingress: cloud.PlatformIngress{ClassName: "nginx", TLSSecretName: "wildcard"},
		},
	}
}

// ownCluster is the cell "other" of the world in its organization's own cluster.
func ownCluster() snapshot.Input {
	in := world()
	in.Cells[1].Spec = cloud.CellSpec{
		Type: cloud.OnPremise, Organization: "org", Hostname: "dataspace.oem.example", Ingress: &cloud.CellIngress{ClassName: "oem", TLSSecretName: "oem-tls"},
		Database: &edc.Database{Host: "postgresql.oem.example", Port: 5433, Name: "dataspace", SSLMode: "verify-full", CABundle: "of the OEM", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault: &edc.Vault{Address: "https://vault.oem.example", Mount: "industrial/kv", Prefix: "dataspace", Auth: edc.VaultAuth{
			Method: edc.VaultMethodKubernetes, MountPath: "oem", Audience: "vault",
		}},
	}
	in.Cell = in.Cells[1]
	return in
}

func render(t *testing.T, in snapshot.Input) []byte {
	t.Helper()
	objects, err := snapshot.Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, o := range objects {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	return out.Bytes()
}

func TestCompile(t *testing.T) {
	t.Parallel()
	elsewhere := world()
	elsewhere.Cell = elsewhere.Cells[1]
	empty := world()
	empty.Participants, empty.Profiles = nil, nil
	for name, in := range map[string]snapshot.Input{"shared": world(), "other": elsewhere, "empty": empty, "onpremise": ownCluster()} {
		got, file := render(t, in), filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not as in %s (go test -update writes it):\n%s", name, file, got)
		}
	}
}

func TestWhatACellSaysOfAuditRecordsReachesItsConnector(t *testing.T) {
	t.Parallel()
	in := world()
	in.Cell.Spec.Audit = edc.Audit{KeepBodies: "8760h", Leaving: []string{}}
	if got := string(render(t, in)); !strings.Contains(got, "audit:\n    keepBodies: 8760h\n    leaving: []\n") {
		t.Error(got)
	}
}

func TestWhatACellLeavesEachParticipantReachesItsConnector(t *testing.T) {
	t.Parallel()
	in := world()
	in.Cell.Spec.PerParticipant = edc.PerParticipant{Messages: 4}
	if got := string(render(t, in)); !strings.Contains(got, "perParticipant:\n    messages: 4\n") {
		t.Error(got)
	}
}

// What a company says of its own goes before what the Platform says.
func TestSettingsOfACompanysCellReachItsConnector(t *testing.T) {
	t.Parallel()
	in := ownCluster()
	in.Facts.Image, in.Facts.Trust = "of the Platform", edc.Trust{CABundle: "of the Platform", AllowPrivateNetworks: true}
	if got := string(render(t, in)); !strings.Contains(got, "image: of the Platform\n") || !strings.Contains(got, "trust:\n    allowPrivateNetworks: true\n    caBundle: of the Platform\n") {
		t.Error(got)
	}
	s := &in.Cell.Spec
	s.Trust, s.Images = &edc.Trust{CABundle: "of the company"}, cloud.CellImages{Connector: "of the company"}
	s.ImagePullSecrets, s.DataPlane = []corev1.LocalObjectReference{{Name: "registry"}}, edc.DataPlane{AllowedNetworks: []string{"10.0.0.0/8"}}
	got := string(render(t, in))
	for _, want := range []string{"image: of the company\n", "trust:\n    caBundle: of the company\n", "imagePullSecrets:\n  - name: registry\n", "dataPlane:\n    allowedNetworks:\n    - 10.0.0.0/8\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestCompileDoesNotDependOnTheOrder(t *testing.T) {
	t.Parallel()
	in := world()
	want := render(t, in)
	slices.Reverse(in.Participants)
	slices.Reverse(in.Profiles)
	slices.Reverse(in.Cells)
	if got := render(t, in); !bytes.Equal(got, want) {
		t.Error("another order of the same objects gives another snapshot")
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*snapshot.Input)
		in     string
	}{
		"an invalid operand": {func(in *snapshot.Input) { in.Profiles[0].Spec.Operands[0].Expression = "nonsense(" }, "dataspace profile auto"},
		"an issuer at the host of the connector": {func(in *snapshot.Input) {
			in.Profiles[0].Spec.Issuers[0].Hostname = "shared.example"
		}, "issuer auditor"},
		"two issuers at one host": {func(in *snapshot.Input) { in.Profiles[0].Spec.Issuers[0].Hostname = "authority.example" }, "authority.example"},
	} {
		in := world()
		c.change(&in)
		if _, err := snapshot.Compile(in); err == nil || !strings.Contains(err.Error(), c.in) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestADedicatedCellRunsItsOrganizationOnly: no participant of another one, not even under an own one's context, and no issuer; and no issuer
// elsewhere vouches for who is not let in.
func TestADedicatedCellRunsItsOrganizationOnly(t *testing.T) {
	t.Parallel()
	in := world()
	in.Cells[1].Spec.Type, in.Cells[1].Spec.Organization = "dedicated", "tier1"
	foreign, own := participant("foreign", "other", "parts", 5, "MembershipCredential"), participant("own", "other", "parts", 1, "MembershipCredential")
	own.Spec.Organization = "tier1"
	in.Participants = append(in.Participants, foreign, own)
	in.Profiles[0].Spec.Issuers = append(in.Profiles[0].Spec.Issuers, cloud.Issuer{
		Name: "guest", Cell: "other", Hostname: "guest.example", CredentialTypes: []edc.CredentialType{{Type: "MembershipCredential"}},
	})
	if shared := string(render(t, in)); strings.Contains(shared, "did:web:other.example:oem") || !strings.Contains(shared, "did:web:other.example:parts") {
		t.Errorf("issuers of the shared cell vouch for the wrong participants of the dedicated one:\n%s", shared)
	}
	in.Cell = in.Cells[1]
	objects, err := snapshot.Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.GetKind()+" "+o.GetName()+" "+o.GetLabels()[snapshot.ParticipantLabel])
	}
	if want := []string{"Connector connector ", "ParticipantContext parts own"}; !slices.Equal(got, want) {
		t.Errorf("the cell runs %q, want %q", got, want)
	}
}

func TestResourceNamesFitPostgreSQL(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("c", 32)
	a, b := snapshot.IssuerResources(long, strings.Repeat("i", 31)+"a"), snapshot.IssuerResources(long, strings.Repeat("i", 31)+"b")
	for _, name := range []string{a.Owner, a.Database, a.Roles[snapshot.IssuerRole], snapshot.ConnectorResources(long).Owner} {
		if len(name) > 63 {
			t.Errorf("%s has %d bytes", name, len(name))
		}
	}
	if a.Database == b.Database {
		t.Error("two issuers share a database")
	}
}

// TestSeveralProfiles: the connector gets every profile that a participant takes part in, the participant its credentials from the issuers of
// each, and these issuers it as a holder. A profile that there is not is left out.
func TestSeveralProfiles(t *testing.T) {
	t.Parallel()
	in := world()
	in.Profiles = append(in.Profiles, cloud.DataspaceProfile{ObjectMeta: meta("air", 13), Spec: cloud.DataspaceProfileSpec{
		Issuers: []cloud.Issuer{{Name: "airport", Cell: "shared", Hostname: "airport.example", CredentialTypes: []edc.CredentialType{{Type: "MembershipCredential", Validity: "P1Y"}}}},
	}})
	in.Participants[1].Spec.FurtherProfiles = []string{"nowhere", "air"}
	in.Participants[1].Spec.Key = edc.Key{Algorithm: "EdDSA", Generation: 2}
	objects, err := snapshot.Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	read := func(kind, name string, into any) {
		t.Helper()
		for _, o := range objects {
			if o.GetKind() == kind && o.GetName() == name {
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
		t.Fatalf("there is no %s %s", kind, name)
	}
	var connector edc.Connector
	var context edc.ParticipantContext
	var airport edc.CredentialIssuer
	read("Connector", snapshot.ConnectorName, &connector)
	read("ParticipantContext", "supplier", &context)
	read("CredentialIssuer", "airport", &airport)
	if p := connector.Spec.Profiles; len(p) != 2 || p[0].Name != "air" || p[1].Name != "auto" {
		t.Errorf("the connector speaks %+v", p)
	}
	if context.Spec.Key != in.Participants[1].Spec.Key {
		t.Errorf("the key is to be %+v", context.Spec.Key)
	}
	if s := context.Spec; s.Profile != "auto" || !slices.Equal(s.FurtherProfiles, []string{"air"}) {
		t.Errorf("the participant takes part in %s and %v", s.Profile, s.FurtherProfiles)
	}
	want := []edc.RequestedCredential{{Type: "Attestation", Issuer: "did:web:auditor.example:issuer"}, {Type: "MembershipCredential", Issuer: "did:web:authority.example:issuer"},
		{Type: "MembershipCredential", Issuer: "did:web:airport.example:issuer"}}
	if !slices.Equal(context.Spec.Credentials, want) {
		t.Errorf("requests %+v, want %+v", context.Spec.Credentials, want)
	}
	if h := airport.Spec.Holders; len(h) != 1 || h[0].DID != "did:web:shared.example:supplier" {
		t.Errorf("the further profile's issuer has the holders %+v", h)
	}
}

// TestWhoMovedKeepsItsHostName: the cell serves it there, its issuers know it by its DID, and the cell that it left has nothing of it.
func TestWhoMovedKeepsItsHostName(t *testing.T) {
	in := world()
	moved := &in.Participants[4]
	for what, says := range map[string]func(){
		"its status":               func() { moved.Status.Cell, moved.Status.Hostname = "shared", "other.example" },
		"its spec, made anew":      func() { moved.Spec.Cell, moved.Spec.Identity.Hostname = "shared", "other.example" },
		"its status over the spec": func() { moved.Status.Cell, moved.Status.Hostname, moved.Spec.Cell = "shared", "other.example", "third" },
	} {
		moved.Spec.Cell, moved.Spec.Identity.Hostname, moved.Status = "other", "", cloud.ParticipantStatus{}
		says()
		here := string(render(t, in))
		for _, want := range []string{"hostname: other.example", "furtherHosts:", "did: did:web:other.example:oem"} {
			if !strings.Contains(here, want) {
				t.Errorf("%s: the cell has no %q", what, want)
			}
		}
		elsewhere := in
		elsewhere.Cell = in.Cells[1]
		if there := string(render(t, elsewhere)); strings.Contains(there, "oem") {
			t.Errorf("%s: the cell that it left has:\n%s", what, there)
		}
	}
}

func TestWhoTakesAContext(t *testing.T) {
	cell := &cloud.CellSpec{Type: cloud.Shared, Hostname: "shared.example"}
	for what, c := range map[string]struct {
		change func(p, o *cloud.Participant)
		taken  bool
	}{
		"an older one in the same cell":  {func(_, _ *cloud.Participant) {}, true},
		"a younger one in the same cell": {func(p, _ *cloud.Participant) { p.CreationTimestamp = metav1.NewTime(day.Add(-99 * time.Hour)) }, false},
		"one with another context":       {func(_, o *cloud.Participant) { o.Spec.Identity.Context = "another" }, false},
		"one in another cell": {func(_, o *cloud.Participant) {
			o.Spec.Cell, o.Status.Cell, o.Status.Hostname = "other", "other", "other.example"
		}, false},
		"one that was made here and has moved away": {func(_, o *cloud.Participant) {
			o.Spec.Cell, o.Status.Cell, o.Status.Hostname = "other", "other", "shared.example"
		}, true},
		"one that is on its way here": {func(_, o *cloud.Participant) {
			o.Status.Cell, o.Status.Hostname = "other", "other.example"
			o.Status.Move = &cloud.ParticipantMove{From: "other", To: "shared"}
		}, true},
		"one that wishes to come":                        {func(_, o *cloud.Participant) { o.Status.Cell, o.Status.Hostname = "other", "other.example" }, false},
		"an older one that comes when somebody is there": {func(p, _ *cloud.Participant) { p.Status.Cell, p.Status.Hostname = "shared", "shared.example" }, false},
		"an older one, both have it": {func(p, o *cloud.Participant) {
			for _, each := range []*cloud.Participant{p, o} {
				each.Status.Cell, each.Status.Hostname = "shared", "shared.example"
			}
		}, true},
		"an older one elsewhere with the same DID": {func(p, o *cloud.Participant) {
			p.Status.Cell, p.Status.Hostname, o.Status.Cell, o.Status.Hostname = "shared", "shared.example", "other", "shared.example"
		}, true},
	} {
		p, o := participant("p", "shared", "c", 1), participant("o", "shared", "c", 2)
		c.change(&p, &o)
		if got := snapshot.Taken(&p, []cloud.Participant{p, o}, cell); (got != nil) != c.taken {
			t.Errorf("%s: %v", what, got)
		}
	}
}
