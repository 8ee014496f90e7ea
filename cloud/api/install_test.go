// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
)

const onPremiseSpec = `{"type":"on-premise","organization":"brandt-guss","hostname":"dataspace.brandt.example","operatingParty":"Brandt Guss",
  "database":{"host":"postgresql.brandt.example","name":"dataspace","ownerSecret":{"name":"owner"}},
  "vault":{"address":"https://vault.brandt.example","mount":"industrial/kv","prefix":"dataspace","auth":{"method":"Kubernetes","mountPath":"brandt"}}}`

// agentKey makes the public half of an agent's key.
func agentKey(t *testing.T) string {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// onPremise makes what an installation needs: a platform that says what it runs, and an on-premise cell.
func (b *bundle) onPremise() {
	b.Helper()
	p := &cloudv1.Platform{ObjectMeta: metav1.ObjectMeta{Name: "demo", Namespace: b.namespace}, Spec: cloudv1.PlatformSpec{Domain: "demo.example", CABundle: "the gateway's authority"}}
	if err := kube.Create(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	p.Status.Images = cloudv1.PlatformImages{Agent: "agent:1", EDCOperator: "edc-operator:2", Connector: "connector:3"}
	if err := kube.Status().Update(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	b.call(both, "PUT", "/organizations/brandt-guss", wrap(`{"displayName":"Brandt Guss GmbH"}`))
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/foundry", wrap(onPremiseSpec), "X-Kaphera-Manager", "terraform"))
}

// sign does what the operator does with the keys of the cell's agents, until the test ends.
func (b *bundle) sign(cell string) {
	b.Helper()
	seed, err := natsauth.NewAccountSeed()
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	b.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var c cloudv1.Cell
			if kube.Get(ctx, ctrl.ObjectKey{Namespace: b.namespace, Name: cell}, &c) != nil || c.Spec.AgentKey == "" || signed(&c) {
				continue
			}
			if c.Status.AgentJWT, err = natsauth.UserJWT(seed, "agent", c.Spec.AgentKey, natsauth.Permissions{}); err == nil {
				_ = kube.Status().Update(ctx, &c) // it is tried again
			}
		}
	}()
}

func TestACellIsInstalledByItsOrganization(t *testing.T) {
	b := setup(t)
	b.onPremise()
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/auditors", wrap(`{"type":"shared","hostname":"auditors.example","operatingParty":"Kaphera Cloud"}`)))
	b.sign("foundry")
	key := agentKey(t)
	body := map[string]string{"agentKey": key}
	got := decodeTo[CellInstallation](t, b.want(http.StatusOK, b.call(brandt, "POST", "/cells/foundry/install", body)))
	if got.Cell != "foundry" || got.Namespace != "cell-foundry" || got.AgentKey != key || got.AgentJWT == "" {
		t.Errorf("got %+v", got)
	}
	var kinds []string
	for _, raw := range got.Objects {
		var u unstructured.Unstructured
		if err := json.Unmarshal(raw, &u.Object); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, u.GetKind())
	}
	for _, kind := range []string{"Namespace", "CustomResourceDefinition", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Deployment"} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("no %s in %v", kind, kinds)
		}
	}
	all := fmt.Sprintf("%s", got.Objects)
	for _, part := range []string{"agent:1", "edc-operator:2", "connector:3", "--nats-url=wss://nats.demo.example", "the gateway's authority"} {
		if !strings.Contains(all, part) {
			t.Errorf("nothing says %q", part)
		}
	}
	if slices.Contains(kinds, "Secret") {
		t.Error("a Secret is handed out")
	}

	again := decodeTo[CellInstallation](t, b.want(http.StatusOK, b.call(brandt, "POST", "/cells/foundry/install", body)))
	read := decodeTo[CellInstallation](t, b.want(http.StatusOK, b.call(viewer, "GET", "/cells/foundry/install", nil)))
	if fmt.Sprint(again) != fmt.Sprint(got) || fmt.Sprint(read) != fmt.Sprint(got) {
		t.Error("the same key answers something else, or reading does")
	}
	cell := decodeTo[Cell](t, b.call(both, "GET", "/cells/foundry", nil))
	if cell.Generation != 2 || cell.ManagedBy != "terraform" {
		t.Errorf("generation %d, managed by %s", cell.Generation, cell.ManagedBy)
	}

	second := agentKey(t)
	rotated := decodeTo[CellInstallation](t, b.want(http.StatusOK, b.call(brandt, "POST", "/cells/foundry/install", map[string]string{"agentKey": second})))
	if rotated.AgentKey != second || rotated.AgentJWT == got.AgentJWT || fmt.Sprintf("%s", rotated.Objects) == all {
		t.Error("another key changes nothing: the agent would not restart")
	}
	placed := strings.Replace(participantSpec("brandt-guss", "brandt"), `"shared"`, `"foundry"`, 1)
	b.want(http.StatusCreated, b.call(both, "PUT", "/dataspace-profiles/automotive", wrap(`{"issuers":[{"name":"auditor","cell":"auditors","hostname":"auditor.example","credentialTypes":[{"type":"MembershipCredential"}]}],"requiredCredentials":["MembershipCredential"]}`)))
	b.want(http.StatusCreated, b.call(both, "PUT", "/participants/supplier", wrap(placed)))
	if a := b.call(brandt, "DELETE", "/cells/foundry/install", nil); a.status != http.StatusConflict || !strings.Contains(a.problem.Detail, "supplier") {
		t.Errorf("with a participant in it: %d %s", a.status, a.body)
	}
	b.want(http.StatusNoContent, b.call(both, "DELETE", "/participants/supplier", nil))
	b.want(http.StatusNoContent, b.call(brandt, "DELETE", "/cells/foundry/install", nil))
	if left := decodeTo[CellInstallation](t, b.call(brandt, "GET", "/cells/foundry/install", nil)); left.AgentKey+left.AgentJWT != "" {
		t.Errorf("after the removal: %+v", left)
	}
	b.want(http.StatusNoContent, b.call(brandt, "DELETE", "/cells/foundry/install", nil))
}

func TestWhatCannotBeInstalledIsSaid(t *testing.T) {
	b := setup(t)
	b.pilot()
	key := map[string]string{"agentKey": agentKey(t)}
	b.onPremise()
	stranger := cloudtest.Claims("ruth", "rheintal-motoren", "organization-admin")
	for name, c := range map[string]struct {
		who    map[string]any
		method string
		cell   string
		body   any
		status int
		says   string
	}{
		"no cell":                      {operator, "POST", "nowhere", key, http.StatusNotFound, "nowhere"},
		"another organization's":       {stranger, "POST", "foundry", key, http.StatusNotFound, "foundry"},
		"another organization's, read": {stranger, "GET", "foundry", nil, http.StatusNotFound, "foundry"},
		"a viewer":                     {viewer, "POST", "foundry", key, http.StatusForbidden, "install-cell"},
		"a shared cell":                {operator, "POST", "shared", key, http.StatusConflict, "cloud's cluster"},
		"a shared cell, removed":       {operator, "DELETE", "shared", nil, http.StatusConflict, "cloud's cluster"},
		"no key":                       {operator, "POST", "foundry", map[string]string{}, http.StatusUnprocessableEntity, "agentKey"},
		"not a key":                    {operator, "POST", "foundry", map[string]string{"agentKey": "U" + strings.Repeat("A", 55)}, http.StatusUnprocessableEntity, "public key"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.call(c.who, c.method, "/cells/"+c.cell+"/install", c.body)
			if a.status != c.status || !strings.Contains(string(a.body), c.says) {
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
	t.Run("it cannot be signed", func(t *testing.T) {
		b.judge("foundry", 2, cloudv1.ReasonTaken, "host name is that of cell other")
		a := b.want(http.StatusConflict, b.call(brandt, "POST", "/cells/foundry/install", key))
		if !strings.Contains(a.problem.Detail, "cell other") {
			t.Errorf("problem %+v", a.problem)
		}
		b.judge("foundry", 1, cloudv1.ReasonTaken, "host name was that of cell other")
	})
	t.Run("another key comes in between", func(t *testing.T) {
		answered := make(chan answer, 1)
		go func() { answered <- b.call(brandt, "POST", "/cells/foundry/install", key) }()
		other := agentKey(t)
		for { // the cell names the first key, since only then is there anything to wait for
			var c cloudv1.Cell
			if err := kube.Get(t.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: "foundry"}, &c); err != nil {
				t.Fatal(err)
			}
			if c.Spec.AgentKey == key["agentKey"] {
				c.Spec.AgentKey = other
				if err := kube.Update(t.Context(), &c); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		if a := <-answered; a.status != http.StatusConflict || !strings.Contains(a.problem.Detail, "another key") {
			t.Errorf("got %d %s", a.status, a.body)
		}
	})
	t.Run("nobody signs", func(t *testing.T) {
		b.service.MaxWatch = 20 * time.Millisecond
		a := b.want(http.StatusServiceUnavailable, b.call(brandt, "POST", "/cells/foundry/install", key))
		if a.problem.Code != CodeNotReady || !strings.Contains(a.problem.Detail, "not signed yet") || a.problem.Next == "" {
			t.Errorf("problem %+v", a.problem)
		}
	})
}

// judge makes the operator's judgement of a cell at a generation.
func (b *bundle) judge(cell string, generation int64, reason, message string) {
	b.Helper()
	var c cloudv1.Cell
	if err := kube.Get(b.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: cell}, &c); err != nil {
		b.Fatal(err)
	}
	c.Status.Conditions = []metav1.Condition{{
		Type: cloudv1.ConditionReady, Status: metav1.ConditionFalse, ObservedGeneration: generation, Reason: reason, Message: message, LastTransitionTime: metav1.Now(),
	}}
	if err := kube.Status().Update(b.Context(), &c); err != nil {
		b.Fatal(err)
	}
}
