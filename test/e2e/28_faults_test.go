// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
)

// What a person sees while a part is gone, that connectors go on as far as they do without it, and that everything heals by itself.
func TestFaults(t *testing.T) {
	_, cs := kube(t)
	f := newFaults(t, cs)
	f.negotiate(t)

	t.Run("the agent of a cell", func(t *testing.T) {
		doomed := f.participant(t, "fault-removed", "BPNL00000000FLT3")
		back := f.takeAway(t, cellNamespace, "app.kubernetes.io/name=kaphera-cell-agent")
		f.seen(t, "cell", "shared", "not heard from since")
		made := f.outage(t) // connectors need no agent
		_, all, code := command(t, "kaphera", "negotiate", f.consumer, "--with", f.provider, "--offer", f.offer)
		if code == 0 || !strings.Contains(all, `cell "shared"`) || !strings.Contains(all, "it was last heard") || !strings.Contains(all, "next:") {
			t.Errorf("a negotiation that is asked of a cell without an agent (exit code %d):\n%s", code, all)
		}
		resp, err := cloud(t).Objects("participants").Delete(t.Context(), doomed, client.Write{})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		f.seen(t, "participant", doomed, "not heard from since")
		back()
		f.well(t, "cell", "shared")
		eventually(t, "what was removed meanwhile is removed", func(ctx context.Context) (bool, string) {
			_, err := cloud(t).GetParticipantWithResponse(ctx, doomed)
			return client.IsNotFound(err), fmt.Sprint(err)
		})
		f.caughtUp(t, made)
	})

	t.Run("the message server", func(t *testing.T) {
		back := f.takeAway(t, ownSystem, "app.kubernetes.io/name=nats")
		f.platformSays(t, "NATSReady", metav1.ConditionFalse)
		f.seen(t, "cell", "shared", "not heard from since")
		made := f.outage(t)
		back()
		f.platformSays(t, "NATSReady", metav1.ConditionTrue)
		f.well(t, "cell", "shared")
		f.caughtUp(t, made)
	})

	t.Run("the database", func(t *testing.T) {
		// Begun before, so that it is under way: it comes to its end once.
		begun := f.begin(t)
		back := f.takeAway(t, ownSystem, "app.kubernetes.io/name=postgresql")
		f.platformSays(t, "PostgreSQLReady", metav1.ConditionFalse)
		eventually(t, "who logs in is told that it is the platform's fault", func(context.Context) (bool, string) {
			_, all, code := command(t, "kaphera", "status")
			return code != 0 && strings.Contains(all, "the platform's identity provider answered 5") && strings.Contains(all, "try again"), all
		})
		back()
		f.platformSays(t, "PostgreSQLReady", metav1.ConditionTrue)
		becomes(t, f.consumer, begun, "FINALIZED")
		f.well(t, "cell", "shared")
		f.negotiate(t)
	})

	t.Run("the Kubernetes API", func(t *testing.T) {
		hang := func(signal string) {
			must(t, sandbox, "signal", os.Getenv("KAPHERA_CLUSTER"), "kube-apiserver", signal)
		}
		t.Cleanup(func() {
			_ = exec.Command(sandbox, "signal", os.Getenv("KAPHERA_CLUSTER"), "kube-apiserver", "cont").Run()
		})
		hang("stop")
		// What changes anything waits for it; what shows something, and connectors, do not.
		if out := must(t, "kaphera", "status"); !strings.Contains(out, f.provider) {
			t.Errorf("the status without the Kubernetes API:\n%s", out)
		}
		h, err := client.HTTPClient(client.Config{CAFile: caFile()})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the provider's DID document is served", func(ctx context.Context) (bool, string) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://shared."+domain()+"/"+f.provider+"/did.json", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := h.Do(req)
			if err != nil {
				return false, err.Error()
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK, resp.Status
		})
		hang("cont")
		f.negotiate(t)
		f.participant(t, "fault-afterwards", "BPNL00000000FLT4") // and what is desired comes about again
	})

	t.Run("the Vault", func(t *testing.T) {
		f.platformSays(t, "VaultReady", metav1.ConditionTrue)
		tidy := f.seal(t)
		f.platformSays(t, "VaultReady", metav1.ConditionFalse)
		f.platformSays(t, "VaultReady", metav1.ConditionTrue)
		tidy()
		f.negotiate(t)
	})
}

// faults is two participants of the shared cell that negotiate while parts of the platform are gone.
type faults struct {
	cs                        *kubernetes.Clientset
	consumer, provider, offer string
}

func newFaults(t *testing.T, cs *kubernetes.Clientset) *faults {
	t.Helper()
	f := &faults{cs: cs}
	f.consumer, f.provider = f.participant(t, "fault-consumer", "BPNL00000000FLT1"), f.participant(t, "fault-provider", "BPNL00000000FLT2")
	asset := client.Asset{ID: "fault", Properties: map[string]any{"name": "What is negotiated while parts are gone"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.supplier-backend.svc:8080/documents/none"}}
	if _, err := cloud(t).PutAssetWithResponse(t.Context(), f.provider, asset.ID, asset); err != nil {
		t.Fatal(err)
	}
	base, token := f.inside(t)
	admin(t, http.MethodPut, base+"/api/"+f.provider+"/v1/offers/offer-fault", token, // under no use case, so that it waits for nobody
		adminapi.Offer{ID: "offer-fault", Assets: []string{asset.ID}, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}, nil)
	f.offer = becomes(t, f.consumer, startNegotiation(t, cloud(t), f.consumer, f.provider, asset.ID).ID, "FINALIZED").OfferID
	return f
}

// participant makes one in the shared cell, whose context is its name, and waits until it takes part.
func (f *faults) participant(t *testing.T, name, number string) string {
	t.Helper()
	api := cloud(t)
	like, err := api.GetParticipantWithResponse(t.Context(), "supplier")
	if err != nil {
		t.Fatal(err)
	}
	spec := like.JSON200.Spec
	spec.Identity = client.Identity{Context: name, BusinessPartnerNumber: number}
	t.Cleanup(func() { remove(t, "participant", name) })
	must(t, "kaphera", "apply", "-f", file(t, map[string]any{"kind": "participant", "name": name, "spec": spec}))
	f.well(t, "participant", name)
	return name
}

// well waits until a thing is ready.
func (f *faults) well(t *testing.T, kind, name string) {
	t.Helper()
	eventually(t, kind+" "+name+" is ready", func(context.Context) (bool, string) {
		stdout, all, code := command(t, "kaphera", "get", kind, name, "-o", "json")
		var thing struct {
			Status struct {
				Conditions []client.Condition `json:"conditions"`
			} `json:"status"`
		}
		if code != 0 || json.Unmarshal([]byte(stdout), &thing) != nil {
			return false, all
		}
		return ready(thing.Status.Conditions)
	})
}

// seen waits until the CLI tells of a thing.
func (f *faults) seen(t *testing.T, kind, name, words string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q is said of %s %s", words, kind, name), func(context.Context) (bool, string) {
		_, all, _ := command(t, "kaphera", "describe", kind, name) // may fail while parts are gone
		return strings.Contains(all, words), all
	})
}

// platformSays waits for a condition of the Platform.
func (f *faults) platformSays(t *testing.T, condition string, want metav1.ConditionStatus) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s of the Platform is %s", condition, want), func(ctx context.Context) (bool, string) {
		var list struct {
			Items []struct {
				Status struct {
					Conditions []metav1.Condition `json:"conditions"`
				} `json:"status"`
			} `json:"items"`
		}
		raw, err := f.cs.RESTClient().Get().AbsPath("/apis/cloud.kaphera.io/v1alpha1/namespaces/" + ownSystem + "/platforms").DoRaw(ctx)
		if err != nil {
			return false, err.Error()
		}
		if err := json.Unmarshal(raw, &list); err != nil || len(list.Items) != 1 {
			t.Fatalf("%d Platforms: %v", len(list.Items), err)
		}
		for _, c := range list.Items[0].Status.Conditions {
			if c.Type == condition {
				return c.Status == want, c.Message
			}
		}
		return false, "it has no such condition"
	})
}

// takeAway removes pods and lets nothing be placed until back is called: what is gone stays gone, as when its node has died.
func (f *faults) takeAway(t *testing.T, namespace, selector string) (back func()) {
	t.Helper()
	place := func(ctx context.Context, may bool) {
		t.Helper()
		nodes, err := f.cs.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes.Items {
			if _, err := f.cs.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, !may), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		place(ctx, true)
	})
	place(t.Context(), false)
	pods, err := f.cs.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("%d pods %s in %s, %v", len(pods.Items), selector, namespace, err)
	}
	for _, p := range pods.Items {
		err := f.cs.CoreV1().Pods(namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	eventually(t, "no pod "+selector+" runs", func(ctx context.Context) (bool, string) {
		pods, err := f.cs.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, err.Error()
		}
		for _, p := range pods.Items {
			if p.Status.Phase != corev1.PodPending {
				return false, p.Name + " is " + string(p.Status.Phase)
			}
		}
		return true, ""
	})
	return func() { place(t.Context(), true) }
}

// inside is the internal API of the cell's control plane.
func (f *faults) inside(t *testing.T) (base, token string) {
	t.Helper()
	conn := connectorOfCell(t, f.cs)
	return internalAPI(t, cellNamespace, conn.Status.InternalURL, conn.Status.InternalSecret)
}

// begin starts a negotiation through the cloud.
func (f *faults) begin(t *testing.T) string {
	t.Helper()
	id := uuid.NewString()
	eventually(t, "a negotiation is begun", func(ctx context.Context) (bool, string) {
		_, err := cloud(t).StartNegotiationWithResponse(ctx, f.consumer, client.NegotiationStart{ID: id, Counterparty: f.provider, OfferID: f.offer})
		return err == nil, fmt.Sprint(err)
	})
	return id
}

// negotiate does so through the cloud, to the end.
func (f *faults) negotiate(t *testing.T) {
	t.Helper()
	becomes(t, f.consumer, f.begin(t), "FINALIZED")
}

// outage negotiates without the cloud for as long as the message server or the agent stays away: make soak sets how long, in make test it is as
// short as can be.
func (f *faults) outage(t *testing.T) (made []string) {
	t.Helper()
	length, err := time.ParseDuration(cmp.Or(os.Getenv("KAPHERA_OUTAGE"), "0s"))
	if err != nil {
		t.Fatalf("KAPHERA_OUTAGE: %v", err)
	}
	base, token := f.inside(t)
	var provider adminapi.Participant
	admin(t, http.MethodGet, base+"/admin/v1/participants/"+f.provider, token, nil, &provider)
	at := base + "/api/" + f.consumer + "/v1/negotiations"
	for begin := time.Now(); len(made) < 3 || time.Since(begin) < length; {
		var n adminapi.Negotiation
		admin(t, http.MethodPost, at, token, adminapi.NegotiationRequest{Counterparty: provider.DID, OfferID: f.offer}, &n)
		eventually(t, "a negotiation without the cloud", func(context.Context) (bool, string) {
			admin(t, http.MethodGet, at+"/"+n.ID, token, nil, &n)
			return n.State == "FINALIZED", n.State
		})
		made = append(made, n.ID)
	}
	return made
}

// caughtUp looks at what was made without the cloud: it knows each once, and the whole audit trails beneath, of which it has the newest heads.
func (f *faults) caughtUp(t *testing.T, made []string) {
	t.Helper()
	f.negotiate(t)
	for _, id := range made {
		becomes(t, f.consumer, id, "FINALIZED")
	}
	agreed := map[string]int{}
	for _, participant := range []string{f.consumer, f.provider} {
		trail := filepath.Join(t.TempDir(), participant+".jsonl")
		eventually(t, "the audit trail of "+participant+" is whole", func(context.Context) (bool, string) { // a head may come in between the two
			must(t, "kaphera", "audit", "export", participant, "--to", trail)
			_, all, code := command(t, "kaphera", "audit", "verify", trail, "--participant", participant)
			return code == 0, all
		})
		raw, err := os.ReadFile(trail)
		if err != nil {
			t.Fatal(err)
		}
		agreements := map[string]int{}
		for line := range strings.Lines(string(raw)) {
			var r struct {
				Type string `json:"type"`
				Body struct {
					Negotiation string `json:"negotiation"`
				} `json:"body"`
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if r.Type == "agreement" {
				agreements[r.Body.Negotiation]++
			}
		}
		for id, n := range agreements {
			if n != 1 {
				t.Errorf("%s has %d agreements of negotiation %s on record", participant, n, id)
			}
		}
		agreed[participant] = len(agreements)
		if participant == f.provider { // whose negotiations have ids of their own
			continue
		}
		for _, id := range made {
			if agreements[id] == 0 {
				t.Errorf("%s has no agreement of negotiation %s on record", participant, id)
			}
		}
	}
	if agreed[f.consumer] != agreed[f.provider] {
		t.Errorf("agreements on record: %v", agreed)
	}
}

// seal does what only somebody who administers the Vault can: the Cloud operator may, by a policy that it gives to somebody else.
func (f *faults) seal(t *testing.T) (tidy func()) {
	t.Helper()
	const name, operator = "cell-e2e-seal", "cloud-operator" // it may make what is called like a cell's
	v := connectorOfCell(t, f.cs).Spec.Vault
	login := func(ask func(method, path, token string, body, into any), account, role string) string {
		issued, err := f.cs.CoreV1().ServiceAccounts(ownSystem).CreateToken(t.Context(), account, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{Audiences: []string{v.Auth.Audience}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Auth struct {
				ClientToken string `json:"client_token"`
			}
		}
		ask(http.MethodPost, "auth/kubernetes/login", "", map[string]string{"role": role, "jwt": issued.Status.Token}, &answer)
		return answer.Auth.ClientToken
	}
	ask := vaultAPI(t, v)
	own := login(ask, operator, operator)
	ask(http.MethodPut, "sys/policies/acl/"+name, own, map[string]string{"policy": `path "sys/seal" { capabilities = ["update", "sudo"] }`}, nil)
	ask(http.MethodPut, "auth/kubernetes/role/"+name, own, map[string]any{"bound_service_account_names": operator, "bound_service_account_namespaces": ownSystem, "audience": v.Auth.Audience, "token_policies": []string{name}}, nil)
	token := login(ask, operator, name)
	ask(http.MethodPut, "sys/seal", token, nil, nil)
	return func() {
		ask := vaultAPI(t, v) // another pod may be the Vault's by now
		own := login(ask, operator, operator)
		ask(http.MethodDelete, "auth/kubernetes/role/"+name, own, nil, nil)
		ask(http.MethodDelete, "sys/policies/acl/"+name, own, nil, nil)
	}
}
