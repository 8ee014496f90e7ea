// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// roundTrip writes a model's spec as JSON and reads it back into a fresh model.
func roundTrip[M any, P modelOf[M]](t *testing.T, m P, fresh P) {
	t.Helper()
	raw, err := json.Marshal(m.spec())
	if err != nil {
		t.Fatal(err)
	}
	if d := fresh.read(object{Name: m.objectName(), Spec: raw, Status: json.RawMessage(`{"did":"did:web:h:c","protocolURL":"https://h/c"}`)}); d.HasError() {
		t.Fatal(d)
	}
	if diff := cmp.Diff(m, fresh); diff != "" {
		t.Errorf("what was written is not what is read (-written +read):\n%s", diff)
	}
}

func TestModelsSurviveTheAPI(t *testing.T) {
	t.Parallel()
	s := types.StringValue
	roundTrip(t, &cellModel{Name: s("c"), Type: s("shared"), Hostname: s("h"), OperatingParty: s("o"), Replicas: types.Int64Value(2)}, &cellModel{})
	roundTrip(t, &cellModel{Name: s("c"), Type: s("shared"), Hostname: s("h"), OperatingParty: s("o"), Replicas: types.Int64Value(1),
		Audit: &auditModel{KeepBodies: s("8760h"), Leaving: []string{}}}, &cellModel{})
	dedicated := func() *cellModel {
		return &cellModel{
			Name: s("c"), Type: s("dedicated"), Hostname: s("h"), OperatingParty: s("o"), Replicas: types.Int64Value(1), Organization: s("t"),
			Quota: &cellQuotaModel{CPU: s("1"), Memory: s("2Gi"), ContainerMemory: s("512Mi"), Pods: types.Int64Value(20)},
		}
	}
	roundTrip(t, dedicated(), &cellModel{})
	people := dedicated()
	people.Access = &cellAccessModel{Operators: &cellSubjectsModel{Groups: []string{"g"}}}
	roundTrip(t, people, &cellModel{})
	own := &cellModel{
		Name: s("c"), Type: s("on-premise"), Hostname: s("h"), OperatingParty: s("o"), Replicas: types.Int64Value(2), Organization: s("t"),
		Database: &databaseModel{Host: s("p"), Port: types.Int64Value(5433), Name: s("d"), SSLMode: s("verify-ca"), CABundle: s("pem"), OwnerSecret: s("owner"),
			RoleSecrets: &runtimeRoleModel{ControlPlane: s("cp"), Wallet: s("w"), DataPlane: types.StringNull()}},
		Vault: &vaultModel{Address: s("https://v"), Namespace: s("n"), Mount: s("industrial/kv"), Prefix: s("x"), CABundle: s("pem"), Auth: vaultAuthModel{
			Method: s("AppRole"), MountPath: s("oem"), Audience: s("vault"), TokenSecret: s("t"),
			Roles: &runtimeRoleModel{ControlPlane: s("r"), Wallet: s("r"), DataPlane: s("r")}, AppRoleSecrets: &runtimeRoleModel{ControlPlane: s("a"), Wallet: s("b"), DataPlane: s("c")},
		}},
		Ingress: &ingressModel{ClassName: s("nginx"), Annotations: map[string]string{"a": "b"}, TLSSecretName: s("tls")},
		Trust:   &trustModel{CABundle: s("pem"), AllowPrivateNetworks: types.BoolValue(true)}, Images: &imagesModel{Agent: s("a"), Connector: s("c"), EDCOperator: s("e")},
		ImagePullSecrets: []string{"registry"}, Proxy: &proxyModel{URL: s("http://p:1"), CABundle: s("pem"), CredentialsSecret: s("login")},
		DataPlane:      &dataPlaneModel{AllowedNetworks: []string{"10.0.0.0/8"}, DeniedNetworks: []string{"10.1.0.0/16"}},
		PerParticipant: &perParticipantModel{Connections: types.Int64Value(2), Requests: types.Int64Value(3), Messages: types.Int64Value(4), Accesses: types.Int64Value(5)},
	}
	roundTrip(t, own, &cellModel{})
	bare := &cellModel{Name: s("c"), Type: s("on-premise"), Hostname: s("h"), OperatingParty: s("o"), Replicas: types.Int64Value(1), Organization: s("t"),
		Ingress: &ingressModel{Annotations: map[string]string{}}, Vault: &vaultModel{Address: s("https://v"), Mount: s("kv"), Prefix: s("x"),
			Auth: vaultAuthModel{Method: s("Kubernetes"), Audience: s("vault"), Roles: &runtimeRoleModel{}}}}
	roundTrip(t, bare, &cellModel{Ingress: &ingressModel{Annotations: map[string]string{}}, Vault: &vaultModel{Auth: vaultAuthModel{Roles: &runtimeRoleModel{}}}})
	nothing := func() *cellModel {
		return &cellModel{Trust: &trustModel{AllowPrivateNetworks: types.BoolValue(false)}, Images: &imagesModel{}, ImagePullSecrets: []string{},
			DataPlane: &dataPlaneModel{DeniedNetworks: []string{}}, PerParticipant: &perParticipantModel{}}
	}
	said := nothing()
	said.Name, said.Type, said.Hostname, said.OperatingParty, said.Replicas, said.Organization = s("c"), s("on-premise"), s("h"), s("o"), types.Int64Value(1), s("t")
	roundTrip(t, said, nothing())
	nobody := dedicated()
	nobody.Access = &cellAccessModel{Viewers: &cellSubjectsModel{Groups: []string{}}}
	roundTrip(t, nobody, &cellModel{Access: &cellAccessModel{Viewers: &cellSubjectsModel{Groups: []string{}}}})
	roundTrip(t, &organizationModel{Name: s("o"), DisplayName: s("O"), ContactEmail: types.StringNull()}, &organizationModel{})
	roundTrip(t, &organizationModel{Name: s("o"), DisplayName: s("O"), ContactEmail: s("a@b.example")}, &organizationModel{})
	p := &participantModel{
		Name: s("p"), Organization: s("o"), Identity: identityModel{Context: s("c"), BPN: s("BPNL000000000001")}, Cell: s("c"), Profile: s("f"),
		OperatingParty: types.StringNull(), SelfCheck: s("Enforce"), DID: s("did:web:h:c"), ProtocolURL: s("https://h/c"),
		Credentials: map[string]credentialModel{"A": {Claims: map[string]string{"x": "1"}}, "B": {}},
	}
	roundTrip(t, p, &participantModel{Credentials: map[string]credentialModel{"A": {}, "B": {}}})
	roundTrip(t, &profileModel{
		Name: s("f"), Protocol: s("dataspace-protocol-http:2025-1"),
		Issuers: []issuerModel{{Name: s("i"), Cell: s("c"), Hostname: s("h"), CredentialTypes: []credentialTypeModel{
			{Type: s("A"), Validity: s("P1Y"), RequiredClaims: []string{"x"}}, {Type: s("B"), Validity: s("P2Y")},
		}}},
		RequiredCredentials: []string{"A"}, OnboardingChecks: []string{"DIDReachable"},
		Operands: []operandModel{{
			Name: s("urn:x"), Aliases: []string{"x"}, Subject: s("provider"), Credential: types.StringNull(), Expression: s("true"), ValueType: s("bool"),
			Operators: []string{"eq"}, Phases: []string{"catalog"}, Purpose: types.BoolValue(false), Sentence: &translationModel{EN: s("e"), DE: types.StringNull()},
		}, {
			Name: s("urn:p"), Subject: s("consumer"), Credential: types.StringNull(), Expression: s("request.purpose"), ValueType: s("string"),
			Operators: []string{"isAnyOf"}, Phases: []string{"transfer", "access"}, Purpose: types.BoolValue(true), Sentence: &translationModel{EN: s("e"), DE: s("d")},
		}},
		Duties: []dutyModel{{Name: s("urn:d"), Aliases: []string{"d"}, Fulfilment: s("record-access"), Sentence: &translationModel{EN: s("e"), DE: s("d")}}},
	}, &profileModel{})
}

func TestAClaimChangedOutsideShows(t *testing.T) {
	t.Parallel()
	m := &participantModel{Credentials: map[string]credentialModel{"A": {Claims: map[string]string{"x": "1"}}}}
	if d := m.read(object{Spec: json.RawMessage(`{"credentials":[{"type":"A","claims":{"x":2,"y":["z"]}}]}`)}); d.HasError() {
		t.Fatal(d)
	}
	want := map[string]credentialModel{"A": {Claims: map[string]string{"x": "2", "y": `["z"]`}}}
	if diff := cmp.Diff(want, m.Credentials); diff != "" {
		t.Error(diff)
	}
}

func TestSettledNeedsConditionsOfThisGeneration(t *testing.T) {
	t.Parallel()
	status := func(state string, observed int) json.RawMessage {
		b, _ := json.Marshal(map[string]any{"conditions": []map[string]any{{"type": "Active", "status": state, "message": "because", "observedGeneration": observed}}})
		return b
	}
	for name, c := range map[string]struct {
		o    object
		done bool
		why  string
	}{
		"no status":         {object{Generation: 1}, false, "Active (not reported yet)"},
		"false":             {object{Generation: 1, Status: status("False", 1)}, false, "Active: because"},
		"true before":       {object{Generation: 2, Status: status("True", 1)}, false, "Active (not looked at since the change)"},
		"true":              {object{Generation: 2, Status: status("True", 2)}, true, ""},
		"unreadable status": {object{Status: json.RawMessage(`{"conditions":1}`)}, false, "readable status"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done, why := conditionsTrue(c.o, "Active")
			if done != c.done || !strings.Contains(why, c.why) {
				t.Errorf("got %v, %q; want %v, %q", done, why, c.done, c.why)
			}
		})
	}
}

func TestAParticipantIsNotSettledBeforeWhatItIsGrantedHasArrived(t *testing.T) {
	t.Parallel()
	r, ok := newParticipant().(*objectResource[participantModel, *participantModel])
	if !ok {
		t.Fatal("not an object resource")
	}
	for held, want := range map[string]bool{"False": false, "True": true} {
		status := `{"conditions":[{"type":"Onboarded","status":"True"},{"type":"Active","status":"True"},{"type":"CredentialsHeld","status":"` + held + `"}]}`
		if done, why := r.settled(object{Generation: 1, Status: json.RawMessage(status)}); done != want {
			t.Errorf("CredentialsHeld %s: settled %v (%s)", held, done, why)
		}
	}
}

// cloudDouble answers as the Cloud API does where the provider's own behaviour is tested; the real one is used end to end.
func cloudDouble(t *testing.T, h http.HandlerFunc) settings {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return settings{API: srv.URL, ClientID: "terraform", ClientSecret: "not-a-secret"}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s    settings
		want string
	}{
		"no https":   {settings{API: "http://elsewhere.example"}, "not an https URL"},
		"no CA file": {settings{API: "https://127.0.0.1:1", CAFile: "/nonexistent/ca.crt"}, "KAPHERA_CA_FILE"},
		"not a cloud": {cloudDouble(t, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "hello", http.StatusTeapot)
		}), "418"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := connect(t.Context(), c.s)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to mention %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "not-a-secret") {
				t.Errorf("the error shows the client secret: %v", err)
			}
		})
	}
}

func TestSchemasAreValid(t *testing.T) {
	t.Parallel()
	p := New("test")()
	var ps provider.SchemaResponse
	p.Schema(t.Context(), provider.SchemaRequest{}, &ps)
	if d := ps.Schema.ValidateImplementation(t.Context()); d.HasError() {
		t.Error(d)
	}
	for _, f := range p.Resources(context.Background()) {
		r := f()
		var meta resource.MetadataResponse
		r.Metadata(t.Context(), resource.MetadataRequest{ProviderTypeName: "kaphera"}, &meta)
		var rs resource.SchemaResponse
		r.Schema(t.Context(), resource.SchemaRequest{}, &rs)
		if d := rs.Schema.ValidateImplementation(t.Context()); d.HasError() {
			t.Errorf("%s: %v", meta.TypeName, d)
		}
		for name, a := range rs.Schema.Attributes {
			if a.GetMarkdownDescription() == "" {
				t.Errorf("%s.%s has no description", meta.TypeName, name)
			}
		}
	}
}

// connected is the provider's way to a double that logs in whoever asks and has h answer for its objects.
func connected(t *testing.T, h http.HandlerFunc) *api {
	t.Helper()
	a, err := connect(t.Context(), cloudDouble(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/info"):
			_, _ = w.Write([]byte(`{"issuer":"http://` + r.Host + `","audience":"kaphera-api"}`))
		case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
			_, _ = w.Write([]byte(`{"issuer":"http://` + r.Host + `","token_endpoint":"http://` + r.Host + `/token"}`))
		case strings.HasSuffix(r.URL.Path, "/token"):
			_, _ = w.Write([]byte(`{"access_token":"t","token_type":"Bearer","expires_in":60}`))
		case strings.HasSuffix(r.URL.Path, "/status"):
			_, _ = w.Write([]byte(`{"participants":[]}`))
		default:
			h(w, r)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRemoveWaitsUntilItIsGone(t *testing.T) {
	t.Parallel()
	var looks atomic.Int32
	a := connected(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case looks.Add(1) < 2:
			_, _ = w.Write([]byte(`{"name":"x","deleting":true,"spec":{}}`))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"title":"Not Found","status":404,"code":"not-found","detail":"there is no organization \"x\""}`))
		}
	})
	if err := a.remove(t.Context(), "organizations", "x", settleTimeout); err != nil {
		t.Fatal(err)
	}
	if looks.Load() < 2 {
		t.Error("it did not wait for the object to be gone")
	}
}

// A participant that is on its way is in the cell that it has yet to leave: a move that did not end in time is planned again.
func TestAMoveIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newParticipant().(*objectResource[participantModel, *participantModel])
	const conditions = `"conditions":[{"type":"Onboarded","status":"True"},{"type":"Active","status":"True"},{"type":"CredentialsHeld","status":"True"},{"type":"Moving","status":"%s","message":"Stopping"}]`
	for cell, want := range map[string]bool{"shared": false, "tier1": true} {
		o := object{Name: "p", Spec: json.RawMessage(`{"organization":"o","identity":{"context":"c","businessPartnerNumber":"b"},"cell":"tier1","profile":"x"}`),
			Status: json.RawMessage(fmt.Sprintf(`{"cell":%q,`+conditions+`}`, cell, map[bool]string{true: "False", false: "True"}[want]))}
		done, why := r.settled(o)
		if done != want || !want && why != "Moving: Stopping" {
			t.Errorf("in cell %s: settled %v, %q", cell, done, why)
		}
		var m participantModel
		if d := m.read(o); d.HasError() || m.Cell.ValueString() != cell {
			t.Errorf("in cell %s it is read as in %s: %v", cell, m.Cell, d)
		}
	}
	if p := participantSchema().Attributes["cell"].(schema.StringAttribute); len(p.PlanModifiers) != 0 {
		t.Error("another cell makes another participant")
	}
}
