// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/client/install"
	edcconfig "github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/test/apiserver"
)

const cellNamespace = "cell-oem"

// installCloud answers as the Cloud API does for cell oem; that of the platform is tested beside it, and end to end.
type installCloud struct {
	*testing.T
	account nkeys.KeyPair

	mu       sync.Mutex
	key      string
	image    string // of the EDC operator
	released bool   // nobody is admitted any more
}

func (c *installCloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !strings.HasPrefix(r.URL.Path, "/api/v1/cells/oem"):
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"title":"Not Found","status":404,"code":"not-found","detail":"there is no such cell"}`))
		return
	case r.URL.Path == "/api/v1/cells/oem":
		_, _ = w.Write([]byte(`{"name":"oem","spec":{"type":"on-premise","hostname":"oem.example","operatingParty":"OEM","organization":"oem",
			"database":{"host":"127.0.0.1","port":1,"name":"d","ownerSecret":{"name":"owner"}},"vault":{"address":"http://127.0.0.1:1","prefix":"p","auth":{"method":"Kubernetes"}}},
			"status":{"conditions":[{"type":"Connected","status":"True","reason":"Ready","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`))
		return
	case r.Method == http.MethodDelete:
		c.key, c.released = "", true
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method == http.MethodPost:
		var in client.CellInstall
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			c.Error(err)
		}
		c.key = in.AgentKey
	}
	out := client.CellInstallation{Cell: "oem", Namespace: cellNamespace, AgentKey: c.key}
	if c.key != "" {
		var err error
		if out.AgentJWT, err = jwt.NewUserClaims(c.key).Encode(c.account); err != nil {
			c.Error(err)
		}
	}
	objects, err := edcconfig.InNamespace(cellNamespace, c.image, "connector:1")
	if err != nil {
		c.Error(err)
	}
	add := func(raw string) { out.Objects = append(out.Objects, json.RawMessage(raw)) }
	add(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"cell-oem","labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
	for _, o := range objects {
		raw, err := o.MarshalJSON()
		if err != nil {
			c.Error(err)
		}
		add(string(raw))
	}
	add(fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"agent","namespace":"cell-oem"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"},"annotations":{"key":%q}},"spec":{"containers":[{"name":"agent","image":"agent:1","args":["--nats-url=wss://127.0.0.1:1"]}]}}}}`, c.key))
	if err := json.NewEncoder(w).Encode(out); err != nil {
		c.Error(err)
	}
}

// oem is a resource with its state, a company's API server, and the cloud.
type oem struct {
	*testing.T
	r      *cellInstallation
	cloud  *installCloud
	schema resource.SchemaResponse
	state  tfsdk.State
	kube   *kubernetes.Clientset
}

func newOEM(t *testing.T) *oem {
	t.Helper()
	env, err := apiserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	o := &oem{T: t, cloud: &installCloud{T: t, image: "edc-operator:1"}}
	if o.cloud.account, err = nkeys.CreateAccount(); err != nil {
		t.Fatal(err)
	}
	a := connected(t, o.cloud.ServeHTTP)
	a.cluster = env.Config
	o.r = &cellInstallation{api: a}
	o.r.Schema(t.Context(), resource.SchemaRequest{}, &o.schema)
	o.state = tfsdk.State{Schema: o.schema.Schema, Raw: tftypes.NewValue(o.schema.Schema.Type().TerraformType(t.Context()), nil)}
	if o.kube, err = kubernetes.NewForConfig(env.Config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			o.run(ctx)
		}
	}()
	return o
}

// run has every Deployment's pods run, which no kubelet does here.
func (o *oem) run(ctx context.Context) {
	all, err := o.kube.AppsV1().Deployments(cellNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return // it is tried again
	}
	for _, d := range all.Items {
		n := *d.Spec.Replicas
		want := appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
		if d.Status.ObservedGeneration != want.ObservedGeneration || d.Status.AvailableReplicas != n {
			d.Status = want
			_, _ = o.kube.AppsV1().Deployments(cellNamespace).UpdateStatus(ctx, &d, metav1.UpdateOptions{})
		}
	}
}

// plan is what Terraform plans for a configuration: computed values that something may change are unknown.
func (o *oem) plan(generation *int64, p *preflightModel) (tfsdk.Plan, resource.ModifyPlanResponse) {
	o.Helper()
	m := cellInstallationModel{Cell: types.StringValue("oem"), KeyGeneration: types.Int64PointerValue(generation), Preflight: p,
		Namespace: types.StringUnknown(), AgentKey: types.StringUnknown(), Objects: types.MapUnknown(types.StringType)}
	if was, ok := o.read(); ok && was.KeyGeneration.Equal(m.KeyGeneration) {
		m.Namespace, m.AgentKey, m.Objects = was.Namespace, was.AgentKey, was.Objects
	}
	plan := tfsdk.Plan{Schema: o.schema.Schema, Raw: tftypes.NewValue(o.schema.Schema.Type().TerraformType(o.Context()), nil)}
	if d := plan.Set(o.Context(), &m); d.HasError() {
		o.Fatal(d)
	}
	resp := resource.ModifyPlanResponse{Plan: plan}
	o.r.ModifyPlan(o.Context(), resource.ModifyPlanRequest{Plan: plan, State: o.state, Config: tfsdk.Config(plan)}, &resp)
	return resp.Plan, resp
}

// apply plans and applies; it does nothing where the plan has nothing to do.
func (o *oem) apply(generation *int64) cellInstallationModel {
	o.Helper()
	plan, planned := o.plan(generation, nil)
	if planned.Diagnostics.HasError() {
		o.Fatal(planned.Diagnostics)
	}
	if !o.state.Raw.IsNull() {
		if !plan.Raw.Equal(o.state.Raw) {
			resp := resource.UpdateResponse{State: o.state}
			o.r.Update(o.Context(), resource.UpdateRequest{Plan: plan, State: o.state}, &resp)
			if resp.Diagnostics.HasError() {
				o.Fatal(resp.Diagnostics)
			}
			o.state = resp.State
		}
	} else {
		resp := resource.CreateResponse{State: o.state}
		o.r.Create(o.Context(), resource.CreateRequest{Plan: plan}, &resp)
		if resp.Diagnostics.HasError() {
			o.Fatal(resp.Diagnostics)
		}
		o.state = resp.State
	}
	m, ok := o.read()
	if !ok {
		o.Fatal("no state")
	}
	return m
}

func (o *oem) read() (m cellInstallationModel, ok bool) {
	o.Helper()
	if o.state.Raw.IsNull() {
		return m, false
	}
	if d := o.state.Get(o.Context(), &m); d.HasError() {
		o.Fatal(d)
	}
	return m, true
}

// refresh reads the state anew.
func (o *oem) refresh() {
	o.Helper()
	resp := resource.ReadResponse{State: o.state}
	o.r.Read(o.Context(), resource.ReadRequest{State: o.state}, &resp)
	if resp.Diagnostics.HasError() {
		o.Fatal(resp.Diagnostics)
	}
	o.state = resp.State
}

// planned says whether a plan after a refresh has something to do, and which objects are not in place before it.
func (o *oem) planned() (changes bool, outside map[string]string) {
	o.Helper()
	o.refresh()
	m, _ := o.read()
	objects := map[string]string{}
	if d := m.Objects.ElementsAs(o.Context(), &objects, false); d.HasError() {
		o.Fatal(d)
	}
	for id, state := range objects {
		if state == install.InPlace {
			delete(objects, id)
		}
	}
	plan, resp := o.plan(m.KeyGeneration.ValueInt64Pointer(), nil)
	if resp.Diagnostics.HasError() {
		o.Fatal(resp.Diagnostics)
	}
	return !plan.Raw.Equal(o.state.Raw), objects
}

func TestAnInstallationIsAppliedComparedAndRemoved(t *testing.T) {
	o := newOEM(t)
	first := o.apply(nil)
	if changes, outside := o.planned(); changes || len(outside) > 0 {
		t.Errorf("after it was applied, a plan has something to do: %v", outside)
	}
	s, err := o.kube.CoreV1().Secrets(cellNamespace).Get(t.Context(), install.CredentialsSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseDecoratedUserNKey(s.Data[install.CredentialsKey])
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, _ := key.PublicKey(); first.AgentKey.ValueString() != public || strings.Contains(o.state.Raw.String(), string(seed)) {
		t.Errorf("agent_key %s, the Secret's %s; or the private key is in the state", first.AgentKey, public)
	}

	d, err := o.kube.AppsV1().Deployments(cellNamespace).Get(t.Context(), "edc-operator", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Template.Spec.Containers[0].Image = "another:1"
	if _, err := o.kube.AppsV1().Deployments(cellNamespace).Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := o.kube.CoreV1().Secrets(cellNamespace).Delete(t.Context(), install.CredentialsSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"Deployment cell-oem/edc-operator": "changed: spec.template.spec.containers[0].image", "Secret cell-oem/cell-agent-nats": "missing"}
	if changes, outside := o.planned(); !changes || fmt.Sprint(outside) != fmt.Sprint(want) {
		t.Errorf("changed outside: plan %v, %v", changes, outside)
	}
	second := o.apply(nil)
	if changes, outside := o.planned(); changes || len(outside) > 0 || second.AgentKey.Equal(first.AgentKey) {
		t.Errorf("put back: plan %v, %v, key %s", changes, outside, second.AgentKey)
	}
	o.cloud.mu.Lock()
	o.cloud.image = "edc-operator:2"
	o.cloud.mu.Unlock()
	if changes, outside := o.planned(); !changes || len(outside) != 1 {
		t.Errorf("another release: plan %v, %v", changes, outside)
	}
	generation := int64(2)
	if third := o.apply(&generation); third.AgentKey.Equal(second.AgentKey) {
		t.Error("another key_generation leaves the key")
	}
	if changes, outside := o.planned(); changes {
		t.Errorf("a new key: plan has something to do: %v", outside)
	}

	resp := resource.DeleteResponse{State: o.state}
	o.r.Delete(t.Context(), resource.DeleteRequest{State: o.state}, &resp)
	if resp.Diagnostics.HasError() || !o.cloud.released {
		t.Errorf("removed: %v, the cloud knows: %v", resp.Diagnostics, o.cloud.released)
	}
	if left, err := o.kube.AppsV1().Deployments(cellNamespace).List(t.Context(), metav1.ListOptions{}); err != nil || len(left.Items) > 0 {
		t.Errorf("%d Deployments are left (%v)", len(left.Items), err)
	}
}

func TestAnInstallationIsCheckedAtPlanTime(t *testing.T) {
	o := newOEM(t)
	if _, resp := o.plan(nil, nil); resp.Diagnostics.HasError() {
		t.Errorf("without preflight: %v", resp.Diagnostics)
	}
	_, resp := o.plan(nil, &preflightModel{})
	var said []string
	for _, d := range resp.Diagnostics.Errors() {
		said = append(said, d.Summary())
		if !strings.Contains(d.Detail(), "Next: ") {
			t.Errorf("%s says not what to do: %s", d.Summary(), d.Detail())
		}
	}
	for _, check := range []string{"vault-address", "postgresql-address", "cloud"} {
		if !strings.Contains(strings.Join(said, "\n"), "Preflight: "+check+" failed") {
			t.Errorf("nothing about %s in %q", check, said)
		}
	}
	plan, _ := o.plan(nil, nil)
	if d := plan.Set(t.Context(), &cellInstallationModel{Cell: types.StringValue("oem"), Preflight: &preflightModel{}, Namespace: types.StringUnknown(), AgentKey: types.StringUnknown(), Objects: types.MapUnknown(types.StringType)}); d.HasError() {
		t.Fatal(d)
	}
	made := resource.CreateResponse{State: o.state}
	o.r.Create(t.Context(), resource.CreateRequest{Plan: plan}, &made)
	if !made.Diagnostics.HasError() || !made.State.Raw.IsNull() {
		t.Errorf("applied although the preflight fails: %v", made.Diagnostics)
	}
	if left, err := o.kube.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + cellNamespace}); err != nil || len(left.Items) > 0 {
		t.Errorf("something was deployed: %v (%v)", left.Items, err)
	}
	o.cloud.mu.Lock()
	defer o.cloud.mu.Unlock()
	if o.cloud.key != "" {
		t.Error("an agent was admitted")
	}
}

func TestAClusterIsNamedOnce(t *testing.T) {
	t.Parallel()
	s := types.StringValue
	for name, m := range map[string]*kubernetesModel{
		"neither":  {},
		"both":     {ConfigPath: s("/nonexistent"), Host: s("https://k")},
		"no https": {Host: s("http://k"), Token: s("not-a-secret")},
		"no file":  {ConfigPath: s("/nonexistent")},
	} {
		if cfg, err := m.config(); err == nil || strings.Contains(err.Error(), "not-a-secret") {
			t.Errorf("%s: %v, %v", name, cfg, err)
		}
	}
	cfg, err := (&kubernetesModel{Host: s("https://k"), Token: s("t"), ClusterCACertificate: s("pem")}).config()
	if err != nil || cfg.BearerToken != "t" || string(cfg.CAData) != "pem" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
