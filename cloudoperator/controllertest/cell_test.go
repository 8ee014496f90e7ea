// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator"
	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/test/freeport"
)

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: system, Name: name} }

func create(t *testing.T, o client.Object) {
	t.Helper()
	if err := admin.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// TestPlatformCellParticipant follows one platform from nothing to a participant that takes part, and back to nothing.
func TestPlatformCellParticipant(t *testing.T) {
	p := &cloud.Platform{ObjectMeta: named("kaphera"), Spec: cloud.PlatformSpec{
		Domain: "demo.example", CABundle: "", DataPolicy: "Delete", Ingress: cloud.PlatformIngress{ControllerNamespace: "ingress"},
	}}
	cell := &cloud.Cell{ObjectMeta: named("shared"), Spec: cloud.CellSpec{Type: "shared", Hostname: "shared.demo.example", OperatingParty: "Kaphera"}}
	create(t, cell)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonMissing)
	})
	create(t, p)
	for _, c := range []struct{ part, condition string }{
		{parts.PostgreSQL, cloud.ConditionPostgreSQLReady}, {parts.NATS, cloud.ConditionNATSReady}, {parts.OpenBao, cloud.ConditionVaultReady},
	} {
		if err := node.start(t.Context(), c.part); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error { return condition(ctx, p, c.condition, metav1.ConditionTrue, "") })
	}
	t.Run("the parts run restricted", restricted)
	t.Run("the Cloud API runs as often as the Platform says", replicated)
	t.Run("a lost password is made anew", lostPassword)

	world(t)
	health := freeAddress(t)
	stop := agentUp(t, "shared", health)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionApplied, metav1.ConditionTrue, "")
	})
	profile := &cloud.DataspaceProfile{ObjectMeta: named("auto")}
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, profile, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonWaiting)
	})
	supplier := &cloud.Participant{ObjectMeta: named("supplier")}
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, supplier, cloud.ConditionOnboarded, metav1.ConditionFalse, cloud.ReasonChecks)
	})
	t.Run("an inactive participant is not active in the cell", func(t *testing.T) {
		if pc := participantContext(t); pc.Spec.Active || len(pc.Spec.Credentials) != 1 || pc.Spec.Credentials[0].Issuer != "did:web:authority.demo.example:issuer" {
			t.Errorf("context is %+v", pc.Spec)
		}
	})
	connectorUp(t)
	didDocs.publish("shared.demo.example", "supplier")
	report(t, "ParticipantContext", "supplier", `{"credentials":[{"type":"MembershipCredential","issuer":"did:web:authority.demo.example:issuer","state":"Valid"}]}`)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, supplier, cloud.ConditionOnboarded, metav1.ConditionTrue, cloud.ReasonPassed)
	})
	eventually(t, func(ctx context.Context) error {
		pc := participantContext(t)
		if !pc.Spec.Active {
			return errors.New("the cell does not make it active")
		}
		return ctx.Err()
	})
	for _, k := range []struct{ kind, name string }{{"Connector", "connector"}, {"CredentialIssuer", "authority"}} {
		report(t, k.kind, k.name, `{"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"ok","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`)
	}
	report(t, "ParticipantContext", "supplier", `{"credentials":[{"type":"MembershipCredential","issuer":"did:web:authority.demo.example:issuer","state":"Valid"}],
		"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"ok","lastTransitionTime":"2026-01-01T00:00:00Z"},
		{"type":"Active","status":"True","reason":"Active","message":"active","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`)
	for _, o := range []client.Object{cell, profile, supplier} {
		eventually(t, func(ctx context.Context) error {
			return condition(ctx, o, cloud.ConditionReady, metav1.ConditionTrue, "")
		})
	}
	t.Run("events tell what has come about", told)
	t.Run("every port is closed to those who have no business there", closed)
	t.Run("a call reaches the connector", callsConnector)
	t.Run("credentials are replaced while the cell is called", rotates)
	t.Run("the internal authority is replaced while all is connected", replacesAuthority)
	t.Run("metrics tell of cells, certificates and the agent", func(t *testing.T) { measured(t, health) })
	t.Run("a participant that takes another's context is refused", taken)
	takesOver(t, stop)
	t.Run("a call reaches the connector through the other agent", callsConnector)
	t.Run("one more participant", oneMore)
	t.Run("nodes pull with the Platform's secrets", pulls)
	t.Run("nothing changes without a reason", steady)
	t.Run("rights end where they should", rights)
	t.Run("roles log in to the Vault with a token for it", vaultRoles)
	t.Run("roles reach their own database only", func(t *testing.T) { databaseRoles(t, "shared") })
	t.Run("a dedicated cell is its organization's alone", dedicated)
	t.Run("an on-premise cell runs in the company's cluster", onPremise)
	t.Run("what is in use is not deleted", inUse)
	t.Run("everything goes", func(t *testing.T) { gone(t, p) })
}

func world(t *testing.T) {
	t.Helper()
	create(t, &cloud.Organization{ObjectMeta: named("supplier"), Spec: cloud.OrganizationSpec{DisplayName: "Supplier", ContactEmail: "data@supplier.example"}})
	create(t, &cloud.DataspaceProfile{ObjectMeta: named("auto"), Spec: cloud.DataspaceProfileSpec{
		Issuers:             []cloud.Issuer{{Name: "authority", Cell: "shared", Hostname: "authority.demo.example", CredentialTypes: []edc.CredentialType{{Type: "MembershipCredential"}}}},
		RequiredCredentials: []string{"MembershipCredential"}, OnboardingChecks: []string{"DIDReachable", "CredentialsHeld", "ContactNamed"},
	}})
	create(t, &cloud.Participant{ObjectMeta: named("supplier"), Spec: cloud.ParticipantSpec{
		Organization: "supplier", Identity: cloud.Identity{Context: "supplier", BusinessPartnerNumber: "BPNL000000000001"}, Cell: "shared", Profile: "auto",
		Credentials: []edc.HolderCredential{{Type: "MembershipCredential", Claims: &apiextensionsv1.JSON{Raw: []byte(`{"memberOf":"auto"}`)}}},
	}})
}

// agentUp runs the agent as its Deployment says: with the rights of its account and the credentials that the operator made.
func agentUp(t *testing.T, cell string, health ...string) (stop func()) {
	t.Helper()
	key := types.NamespacedName{Namespace: snapshot.Namespace(cell), Name: "kaphera-cell-agent"}
	var agent appsv1.Deployment
	eventually(t, func(ctx context.Context) error { return admin.Get(ctx, key, &agent) })
	podWithin(t, agent.Spec.Template)
	var creds corev1.Secret
	var ca corev1.ConfigMap
	if err := errors.Join(admin.Get(t.Context(), types.NamespacedName{Namespace: key.Namespace, Name: "cell-agent-nats"}, &creds), admin.Get(t.Context(), key, &ca)); err != nil {
		t.Fatal(err)
	}
	url := "tls://" + node.addresses()[parts.NATS]
	for _, arg := range agent.Spec.Template.Spec.Containers[0].Args {
		if at, ok := strings.CutPrefix(arg, "--nats-url="); ok && !strings.Contains(at, parts.Host(parts.NATS, system)) {
			url = at
		}
	}
	file, caFile := mountedFile(t, creds.Data["agent.creds"]), mountedFile(t, []byte(ca.Data["ca.crt"]))
	following, end := context.WithCancel(context.WithoutCancel(t.Context()))
	var kubelet sync.WaitGroup
	kubelet.Go(func() { mounted(following, client.ObjectKeyFromObject(&creds), key, file, caFile) })
	t.Cleanup(func() { end(); kubelet.Wait() })
	return runAgent(t, as("system:serviceaccount:"+key.Namespace+":kaphera-cell-agent"), cell, url, file, caFile, health...)
}

// takesOver starts an agent beside the one that works, and ends that one. One at a time is connected.
func takesOver(t *testing.T, stop func()) {
	works := func(ctx context.Context, not string) (holder string, err error) {
		var lease coordinationv1.Lease
		if err := admin.Get(ctx, types.NamespacedName{Namespace: cellNamespace, Name: "kaphera-cell-agent"}, &lease); err != nil {
			return "", err
		}
		all, err := node.nats.Connz(&server.ConnzOptions{Limit: 1 << 10})
		if err != nil {
			return "", err
		}
		connected := 0
		for _, c := range all.Conns {
			if c.Name == "kaphera cell agent shared" {
				connected++
			}
		}
		if holder = ptr.Deref(lease.Spec.HolderIdentity, ""); holder == "" || holder == not || connected != 1 {
			return "", fmt.Errorf("%q has the lease, %d agents are connected", holder, connected)
		}
		return holder, nil
	}
	var first string
	eventually(t, func(ctx context.Context) (err error) { first, err = works(ctx, ""); return err })
	health := freeAddress(t)
	agentUp(t, "shared", health)
	eventually(t, func(ctx context.Context) error { return readyAt(ctx, health) })
	eventually(t, func(ctx context.Context) error { _, err := works(ctx, ""); return err })
	stop()
	eventually(t, func(ctx context.Context) error { _, err := works(ctx, first); return err })
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func readyAt(ctx context.Context, health string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// leasesLost counts agents that have lost their Lease.
var leasesLost atomic.Int64

// runAgent runs an agent until stop is called, at the latest at the end of the test; again, as a kubelet does, when it has lost its Lease on a busy machine.
func runAgent(t *testing.T, cfg *rest.Config, cell, url, credsFile, caFile string, health ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		err := cloudoperator.ErrLeaseLost
		for errors.Is(err, cloudoperator.ErrLeaseLost) && ctx.Err() == nil {
			err = cloudoperator.RunAgent(ctx, agentAsked.By(cfg), cloudoperator.AgentOptions{
				Cell: cell, Namespace: snapshot.Namespace(cell), NATSURL: url, CAFile: caFile, CredentialsFile: credsFile,
				HealthAddress: append(health, "127.0.0.1:0")[0], Replica: credsFile, Log: slog.New(slog.DiscardHandler),
			})
			if errors.Is(err, cloudoperator.ErrLeaseLost) {
				leasesLost.Add(1)
			}
		}
		done <- err
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func participantContext(t *testing.T) *edc.ParticipantContext {
	t.Helper()
	pc := &edc.ParticipantContext{}
	eventually(t, func(ctx context.Context) error {
		return admin.Get(ctx, types.NamespacedName{Namespace: "cell-shared", Name: "supplier"}, pc)
	})
	return pc
}

// report sets the status of an EDC object, as the EDC operator would.
func report(t *testing.T, kind, name, status string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(edc.GroupVersion.WithKind(kind))
		o.SetNamespace("cell-shared")
		o.SetName(name)
		return admin.Status().Patch(ctx, o, client.RawPatch(types.MergePatchType, []byte(`{"status":`+status+`}`)))
	})
}

// connectorUp plays a connector's internal API.
func connectorUp(t *testing.T) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-shared", Name: "connector-internal"}, StringData: map[string]string{"token": "internal"}})
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-shared", Name: "authority-internal"}, StringData: map[string]string{"token": "of the issuer"}})
	report(t, "CredentialIssuer", "authority", fmt.Sprintf(`{"internalURL":%q,"internalSecret":"authority-internal"}`, s.URL))
	report(t, "Connector", "connector", fmt.Sprintf(`{"internalURL":%q,"internalSecret":"connector-internal"}`, s.URL))
}

// cloudCaller calls cells with the rights of the Cloud API.
func cloudCaller(t *testing.T) *cellrpc.NATSCaller {
	t.Helper()
	var ca corev1.ConfigMap
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &ca); err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := pki.ClientTLS([]byte(ca.Data["ca.crt"]), "")
	if err != nil {
		t.Fatal(err)
	}
	// The Cloud API's own rights suffice for the credentials.
	cloudAPI, err := client.New(as("system:serviceaccount:kaphera-system:kaphera-cloud"), client.Options{Scheme: admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return cellrpc.NewCaller("tls://"+node.addresses()[parts.NATS], tlsConfig, cellrpc.SecretCredentials(cloudAPI, system), nil)
}

func callsConnector(t *testing.T) {
	caller := cloudCaller(t)
	defer caller.Close()
	eventually(t, func(ctx context.Context) error {
		resp, err := caller.Call(ctx, "shared", cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/assets"})
		if err == nil && string(resp.Body) != "GET /api/supplier/v1/assets Bearer internal" {
			err = fmt.Errorf("%d %s", resp.Status, resp.Body)
		}
		return err
	})
	eventually(t, func(ctx context.Context) error {
		resp, err := caller.Call(ctx, "shared", cellrpc.Request{Issuer: "authority", Method: "GET", Path: "/credentials"})
		if err == nil && string(resp.Body) != "GET /admin/v1/issuers/issuer/credentials Bearer of the issuer" {
			err = fmt.Errorf("%d %s", resp.Status, resp.Body)
		}
		return err
	})
	resp, err := caller.Call(t.Context(), "shared", cellrpc.Request{Issuer: "stranger", Method: "GET", Path: "/credentials"})
	if err != nil || resp.Status != http.StatusNotFound {
		t.Errorf("an issuer of no snapshot: %d %s, %v", resp.Status, resp.Body, err)
	}
	resp, err = caller.Call(t.Context(), "shared", cellrpc.Request{Participant: "stranger", Method: "GET", Path: "/assets"})
	if err != nil || resp.Status != http.StatusNotFound {
		t.Errorf("a participant of no snapshot: %d %s, %v", resp.Status, resp.Body, err)
	}
}

func taken(t *testing.T) {
	other := &cloud.Participant{ObjectMeta: named("zz-usurper"), Spec: cloud.ParticipantSpec{
		Organization: "supplier", Identity: cloud.Identity{Context: "supplier", BusinessPartnerNumber: "BPNL000000000002"}, Cell: "shared", Profile: "auto",
	}}
	create(t, other)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, other, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonTaken)
	})
	if err := admin.Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return absent(ctx, other) })
	participantContext(t)
	// Whoever waits for a context gets it when the one that has it goes.
	waiting := func(name string, number int) *cloud.Participant {
		p := &cloud.Participant{ObjectMeta: named(name), Spec: cloud.ParticipantSpec{Organization: "supplier", Identity: cloud.Identity{Context: "wanted", BusinessPartnerNumber: fmt.Sprintf("BPNL%012d", number)}, Cell: "shared", Profile: "auto"}}
		create(t, p)
		return p
	}
	first := waiting("first-come", 3)
	second := waiting("second-come", 4)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, second, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonTaken)
	})
	if err := admin.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, second, cloud.ConditionOnboarded, metav1.ConditionFalse, cloud.ReasonChecks)
	})
	if err := admin.Delete(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return absent(ctx, second) })
}

// steady restarts nothing and publishes nothing when the same is wanted: a reconcile that finds everything right writes nothing.
func steady(t *testing.T) {
	var before, after cloud.Cell
	key := types.NamespacedName{Namespace: system, Name: "shared"}
	if err := admin.Get(t.Context(), key, &before); err != nil {
		t.Fatal(err)
	}
	versions := func() map[string]string {
		out := map[string]string{}
		for _, l := range []client.ObjectList{&corev1.SecretList{}, &corev1.ConfigMapList{}, &appsv1.StatefulSetList{}, &appsv1.DeploymentList{}} {
			for _, ns := range []string{system, "cell-shared"} {
				if err := admin.List(t.Context(), l, client.InNamespace(ns)); err != nil {
					t.Fatal(err)
				}
				raw, err := json.Marshal(l)
				if err != nil {
					t.Fatal(err)
				}
				var items struct {
					Items []metav1.PartialObjectMetadata `json:"items"`
				}
				if err := json.Unmarshal(raw, &items); err != nil {
					t.Fatal(err)
				}
				for _, i := range items.Items {
					out[fmt.Sprintf("%T %s/%s", l, i.Namespace, i.Name)] = i.ResourceVersion
				}
			}
		}
		return out
	}
	was := versions()
	// An annotation makes the platform and the cell reconciled.
	for _, o := range []client.Object{&cloud.Platform{ObjectMeta: named("kaphera")}, &cloud.Cell{ObjectMeta: named("shared")}, &cloud.Organization{ObjectMeta: named("supplier")}} {
		if err := admin.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"test/touched":"1"}}}`))); err != nil {
			t.Fatal(err)
		}
	}
	// The agent's next report comes after the reconcile that the annotation caused.
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, key, &after); err != nil {
			return err
		}
		if after.Status.LastHeard == nil || before.Status.LastHeard == nil || !after.Status.LastHeard.After(before.Status.LastHeard.Time) {
			return errors.New("no later report is kept")
		}
		return nil
	})
	if after.Status.Revision != before.Status.Revision {
		t.Errorf("revision went from %d to %d", before.Status.Revision, after.Status.Revision)
	}
	for name, v := range versions() {
		if was[name] != v {
			t.Errorf("%s was written", name)
		}
	}
}

func absent(ctx context.Context, o client.Object) error {
	err := admin.Get(ctx, client.ObjectKeyFromObject(o), o)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%T %s is still there: %w", o, o.GetName(), err)
}

func inUse(t *testing.T) {
	for _, o := range []client.Object{&cloud.Organization{ObjectMeta: named("supplier")}, &cloud.DataspaceProfile{ObjectMeta: named("auto")}, &cloud.Cell{ObjectMeta: named("shared")}, &cloud.Platform{ObjectMeta: named("kaphera")}} {
		if err := admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error {
			return condition(ctx, o, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonInUse)
		})
	}
	cell := &cloud.Cell{ObjectMeta: named("shared")}
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(cell), cell); err != nil {
			return err
		}
		if m := message(cell, cloud.ConditionReady); !strings.Contains(m, "participant supplier") || !strings.Contains(m, "issuer authority") {
			return fmt.Errorf("the cell does not say what it waits for: %s", m)
		}
		return nil
	})
	// A cell can be taken down only while the platform works.
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "postgresql"}}
	if err := admin.Delete(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return admin.Get(ctx, client.ObjectKeyFromObject(config), config) })
}

// gone deletes the participant; everything else, deleted before, follows by itself.
func gone(t *testing.T, p *cloud.Platform) {
	if err := admin.Delete(t.Context(), &cloud.Participant{ObjectMeta: named("supplier")}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{&cloud.Participant{ObjectMeta: named("supplier")}, &cloud.Organization{ObjectMeta: named("supplier")}, &cloud.DataspaceProfile{ObjectMeta: named("auto")}} {
		eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
	}
	cellGone(t, "shared")
	eventually(t, func(ctx context.Context) error { return absent(ctx, p) })
	var secrets corev1.SecretList
	if err := admin.List(t.Context(), &secrets, client.InNamespace(system)); err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets.Items {
		t.Errorf("secret %s is left", s.Name)
	}
}

// finishCell ends the deletion of a cell's namespace, for which the operator has asked: there is no namespace controller here.
func finishCell(t *testing.T, cell string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: snapshot.Namespace(cell)}}
	eventually(t, func(ctx context.Context) error { // the operator writes it too
		if err := admin.Get(ctx, client.ObjectKeyFromObject(ns), ns); err != nil {
			return client.IgnoreNotFound(err)
		}
		if ns.DeletionTimestamp.IsZero() {
			return errors.New("the cell's namespace is not deleted")
		}
		ns.Spec.Finalizers = nil
		return admin.SubResource("finalize").Update(ctx, ns)
	})
	eventually(t, func(ctx context.Context) error { return absent(ctx, &cloud.Cell{ObjectMeta: named(cell)}) })
}

// cellGone waits until a cell that is being deleted has gone, with its databases.
func cellGone(t *testing.T, cell string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: snapshot.Namespace(cell)}}
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(ns), ns); err != nil {
			return err
		}
		if ns.DeletionTimestamp.IsZero() {
			return errors.New("the cell's namespace is not deleted")
		}
		return nil
	})
	names := databases(t)
	finishCell(t, cell)
	for _, n := range names {
		if strings.HasPrefix(n, "cell_"+cell) {
			t.Errorf("%s is left in PostgreSQL", n)
		}
	}
}

func superuser(t *testing.T) postgres.Server {
	t.Helper()
	var s corev1.Secret
	var ca corev1.ConfigMap
	err := errors.Join(admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.SecretPostgreSQL}, &s),
		admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &ca))
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := pki.ClientTLS([]byte(ca.Data["ca.crt"]), parts.Host(parts.PostgreSQL, system))
	if err != nil {
		t.Fatal(err)
	}
	return postgres.Server{Address: node.addresses()[parts.PostgreSQL], User: parts.Superuser, Password: string(s.Data[parts.KeyPassword]), TLS: tlsConfig}
}
