// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/go-logr/logr"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/usecase"
	"github.com/kaphera/kaphera/connector/adminapi"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/test/apiserver"
)

var kube ctrl.Client

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	if flag.Parse(); flag.Lookup("test.fuzz").Value.String() != "" { // fuzz targets need no API server, and each of their processes would start one
		os.Exit(m.Run())
	}
	env, err := apiserver.Start("../../cloudoperator/config/crd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scheme := runtime.NewScheme()
	if err = clientgoscheme.AddToScheme(scheme); err == nil {
		if err = cloudv1.AddToScheme(scheme); err == nil {
			kube, err = ctrl.New(env.Config, ctrl.Options{Scheme: scheme})
		}
	}
	code := 1
	if err == nil {
		code = m.Run()
	}
	if stopErr := env.Stop(); err != nil || stopErr != nil {
		fmt.Fprintln(os.Stderr, err, stopErr)
	}
	os.Exit(code)
}

var namespaces atomic.Int64

// bundle is an API of its own: namespace, identity provider, connector.
type bundle struct {
	*testing.T
	service   *Service
	oidc      *OIDC
	issuer    *cloudtest.Issuer
	connector *cloudtest.Connector
	server    *httptest.Server
	namespace string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{T: t, issuer: cloudtest.NewIssuer(t), connector: cloudtest.NewConnector(t), namespace: fmt.Sprintf("test-%d", namespaces.Add(1))}
	if err := kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}); err != nil {
		t.Fatal(err)
	}
	b.oidc = NewOIDC(b.issuer.URL, cloudtest.Audience, b.issuer.TLS.Client(), time.Now)
	if err := b.oidc.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.service = New(Service{
		Client: kube, Namespace: b.namespace, Cells: b.connector, PollInterval: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Info: Info{Issuer: b.issuer.URL, Audience: cloudtest.Audience, CLIClientID: "kaphera-cli", ConsoleURL: "https://console.example", Version: "test"},
	})
	b.server = httptest.NewServer(Handler(b.service, b.oidc))
	t.Cleanup(b.server.Close)
	return b
}

// People of the tests.
var (
	operator  = cloudtest.Claims("olga", "", "platform-operator")
	authority = cloudtest.Claims("gerd", "", "governance-authority")
	both      = cloudtest.Claims("terraform", "", "platform-operator", "governance-authority")
	brandt    = cloudtest.Claims("berta", "brandt-guss", "organization-admin")
	viewer    = cloudtest.Claims("viktor", "brandt-guss", "viewer")
)

// answer is what the API said.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	problem Problem
}

func (b *bundle) call(who map[string]any, method, path string, body any, headers ...string) answer {
	b.Helper()
	var raw []byte
	switch v := body.(type) {
	case nil:
	case string:
		raw = []byte(v)
	default:
		var err error
		if raw, err = json.Marshal(v); err != nil {
			b.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(b.Context(), method, b.server.URL+"/api/v1"+path, bytes.NewReader(raw))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if who != nil {
		r.Header.Set("Authorization", "Bearer "+b.issuer.Token(b.T, who))
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		b.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: buf.Bytes()}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(a.body, &a.problem); err != nil {
			b.Fatal(err)
		}
	}
	return a
}

// want fails unless the status is the one given.
func (b *bundle) want(status int, a answer) answer {
	b.Helper()
	if a.status != status {
		b.Fatalf("got %d %s, want %d", a.status, a.body, status)
	}
	return a
}

func decodeTo[T any](t *testing.T, a answer) (out T) {
	t.Helper()
	if err := json.Unmarshal(a.body, &out); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return out
}

// has says whether the problem names the field with the words.
func (a answer) has(location, words string) bool {
	for _, e := range a.problem.Errors {
		if strings.HasPrefix(e.Location, location) && strings.Contains(e.Message, words) {
			return true
		}
	}
	return false
}

// client makes a generated client of the API.
func (b *bundle) client(who map[string]any) *client.API {
	b.Helper()
	c, err := client.New(client.Config{
		API: b.server.URL, Manager: "cli", Wait: func(int) time.Duration { return 0 },
		Token: func(context.Context) (string, error) { return b.issuer.Token(b.T, who), nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// The pilot's objects.
const contractPolicy = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://w3id.org/kaphera/policy/AttestationAge","operator":"lt","rightOperand":"P12M"}]}]}`

const profileSpec = `{
  "issuers": [{"name": "auditor", "cell": "shared", "hostname": "auditor.example", "credentialTypes": [{"type": "MembershipCredential"}, {"type": "AttestationCredential"}]}],
  "requiredCredentials": ["MembershipCredential"],
  "operands": [{"name": "https://w3id.org/kaphera/policy/AttestationAge", "subject": "provider", "credential": "AttestationCredential",
    "expression": "timestamp(credential.subject.completedAt)", "valueType": "age", "operators": ["lt"], "phases": ["catalog", "negotiation"],
    "sentence": {"en": "The attestation is younger than {right}."}}]}`

// wrap makes a body of a spec.
func wrap(spec string) string { return `{"spec":` + spec + `}` }

func useCaseSpec(policy string) string {
	return `{"profile":"automotive","title":"Carbon footprint","assetType":"https://w3id.org/catenax/taxonomy#PcfExchange","contractPolicy":` + policy + `}`
}

func participantSpec(organization, context string) string {
	return fmt.Sprintf(`{"organization":%q,"cell":"shared","profile":"automotive","identity":{"context":%q,"businessPartnerNumber":"BPNL0000000CAST1"},
	  "credentials":[{"type":"MembershipCredential","claims":{"memberOf":"pilot"}}]}`, organization, context)
}

// pilot applies a cell, a profile, a use case, two organizations with a participant each, as Terraform would.
func (b *bundle) pilot() {
	b.Helper()
	for _, o := range [][2]string{
		{"/cells/shared", `{"type":"shared","hostname":"shared.example","operatingParty":"Kaphera Cloud"}`},
		{"/dataspace-profiles/automotive", profileSpec},
		{"/use-cases/carbon-footprint", useCaseSpec(contractPolicy)},
		{"/organizations/brandt-guss", `{"displayName":"Brandt Guss GmbH","contactEmail":"d@brandt.example"}`},
		{"/organizations/rheintal-motoren", `{"displayName":"Rheintal Motoren AG"}`},
		{"/participants/supplier", participantSpec("brandt-guss", "brandt")},
		{"/participants/oem", participantSpec("rheintal-motoren", "rheintal")},
	} {
		b.want(http.StatusCreated, b.call(both, "PUT", o[0], wrap(o[1]), "X-Kaphera-Manager", "terraform"))
	}
	b.operate("carbon-footprint")
	for name, did := range map[string]string{"supplier": "did:web:shared.example:brandt", "oem": "did:web:shared.example:rheintal"} {
		b.report(name, func(s *cloudv1.ParticipantStatus) {
			s.DID = did
			s.Contracts = &edc.ContractStatus{Active: 1}
			s.Credentials = []edc.CredentialStatus{{Type: "MembershipCredential", Issuer: "did:web:auditor.example:issuer", State: "Valid"}}
			s.Conditions = []metav1.Condition{{Type: cloudv1.ConditionActive, Status: metav1.ConditionTrue, Reason: "Active", LastTransitionTime: metav1.Now()}}
		})
	}
}

// operate does what the cloud operator does with a use case, and has the connectors take its revisions.
func (b *bundle) operate(useCase string) {
	b.Helper()
	r := usecase.Reconciler{Client: kube, Reader: kube, Now: time.Now}
	if _, err := r.Reconcile(b.Context(), reconcile.Request{NamespacedName: ctrl.ObjectKey{Namespace: b.namespace, Name: useCase}}); err != nil {
		b.Fatal(err)
	}
	for _, context := range []string{"brandt", "rheintal"} {
		b.connector.Answer("PUT "+context+"/use-cases/"+useCase, http.StatusOK, adminapi.UseCaseRevision{})
	}
}

// report writes what the cloud operator would have observed.
func (b *bundle) report(participant string, change func(*cloudv1.ParticipantStatus)) {
	b.Helper()
	var p cloudv1.Participant
	if err := kube.Get(b.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: participant}, &p); err != nil {
		b.Fatal(err)
	}
	change(&p.Status)
	if err := kube.Status().Update(b.Context(), &p); err != nil {
		b.Fatal(err)
	}
}

// heard makes a cell report now.
func (b *bundle) heard(cell string, at time.Time) {
	b.Helper()
	var c cloudv1.Cell
	if err := kube.Get(b.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: cell}, &c); err != nil {
		b.Fatal(err)
	}
	heard := metav1.NewTime(at)
	c.Status.LastHeard = &heard
	if err := kube.Status().Update(b.Context(), &c); err != nil {
		b.Fatal(err)
	}
}
