// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/client"
)

// moves moves a participant from the shared cell to a dedicated one and back, while a counterparty in another company's cell negotiates with it. It stays
// who it is, what was agreed and under way goes on, once, and its audit trail fits every head that was kept of it.
func moves(t *testing.T, mover, dedicated string) {
	const asset = "e2e-moves"
	api := cloud(t)
	shown := func() client.Participant {
		t.Helper()
		r, err := api.GetParticipantWithResponse(t.Context(), mover)
		if err != nil {
			t.Fatal(err)
		}
		return *r.JSON200
	}
	eventually(t, "it takes part from the shared cell", func(ctx context.Context) (bool, string) {
		r, err := api.GetParticipantWithResponse(ctx, mover)
		if err != nil {
			return false, err.Error()
		}
		return ready(r.JSON200.Status.Conditions)
	})
	before := shown()
	if before.Status.Cell != "shared" {
		t.Fatalf("it runs in cell %q", before.Status.Cell)
	}
	document := func() string {
		t.Helper()
		address := strings.ReplaceAll(strings.TrimPrefix(before.Status.DID, "did:web:"), ":", "/")
		status, body := publicGet(t, readFile(t, caFile()), "https://"+address+"/did.json")
		if status != http.StatusOK {
			t.Fatalf("its DID document: %d %s", status, body)
		}
		return string(body)
	}
	identity := document()
	offerPassport(t, api, mover, asset, "http://pcf-backend.supplier-backend.svc/readyz")
	agreed := negotiate(t, api, "oem", mover, asset)
	if agreed.State != "FINALIZED" {
		t.Fatalf("the negotiation ended %s: %+v", agreed.State, agreed.Reason)
	}
	started, err := api.StartTransferWithResponse(t.Context(), "oem", client.TransferStart{AgreementID: agreed.AgreementID})
	if err != nil {
		t.Fatal(err)
	}
	transfer := started.JSON201.ID
	fetches := func(when string) {
		t.Helper()
		eventually(t, "data by the transfer of before, "+when, func(ctx context.Context) (bool, string) {
			body, _, err := api.Data(ctx, "oem", transfer, "")
			return err == nil && strings.TrimSpace(string(body)) == "ok", fmt.Sprintf("%q %v", body, err)
		})
	}
	fetches("before it moves")

	letIn(t, "supplier-backend", "cell-"+dedicated)
	all := []string{agreed.ID}
	for _, cell := range []string{dedicated, "shared"} {
		id, under := uuid.NewString(), 0
		begin := func(ctx context.Context) {
			if _, err := api.StartNegotiationWithResponse(ctx, "oem", client.NegotiationStart{ID: id, Counterparty: mover, OfferID: agreed.OfferID}); err == nil {
				all, id, under = append(all, id), uuid.NewString(), under+1
			}
		}
		begin(t.Context()) // at least one is under way
		type end struct {
			said string
			code int
		}
		ended := make(chan end, 1)
		go func() {
			_, said, code := command(t, "kaphera", "participant", "move", mover, "--to", cell, "--wait")
			ended <- end{said, code}
		}()
		eventually(t, "it has moved to "+cell+", while others negotiate with it", func(ctx context.Context) (bool, string) {
			if under < 10 {
				begin(ctx)
			}
			select {
			case e := <-ended:
				if e.code != 0 || !strings.Contains(e.said, "runs in cell "+cell) {
					t.Fatalf("exit code %d\n%s", e.code, e.said)
				}
				return true, ""
			default:
				return false, fmt.Sprintf("%d negotiations begun", under)
			}
		})
		eventually(t, "the one that was begun last, perhaps without an answer", func(ctx context.Context) (bool, string) {
			n := under
			begin(ctx)
			return under > n, id
		})
		for _, id := range all {
			becomes(t, "oem", id, "FINALIZED")
		}
		if now := shown(); now.Status.Cell != cell || now.Status.DID != before.Status.DID || now.Status.ProtocolURL != before.Status.ProtocolURL {
			t.Errorf("in %s: %+v", cell, now.Status)
		}
		if now := document(); now != identity {
			t.Errorf("in %s: its DID document is\n%s\nand was\n%s", cell, now, identity)
		}
		fetches("in " + cell)
		once(t, api, mover, all)
		trail := filepath.Join(t.TempDir(), "trail.jsonl")
		eventually(t, "an export that fits the heads that the cloud keeps", func(context.Context) (bool, string) {
			must(t, "kaphera", "audit", "export", mover, "--to", trail)
			_, said, code := command(t, "kaphera", "audit", "verify", trail, "--participant", mover)
			return code == 0 && strings.Contains(said, "heads from elsewhere"), said
		})
		raw := readFile(t, trail)
		if n := bytes.Count(raw, []byte(`"participant.restored"`)); n != map[string]int{dedicated: 1, "shared": 2}[cell] || bytes.Contains(raw, []byte(`"participant.deleted"`)) {
			t.Errorf("in %s: the trail has %d records of being brought in", cell, n)
		}
	}
	for _, cell := range []string{dedicated, "shared"} {
		c, err := api.GetCellWithResponse(t.Context(), cell)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(c.JSON200.Status.Conditions, func(c client.Condition) bool { return c.Type == "AuditIntact" }); i < 0 || c.JSON200.Status.Conditions[i].Status != "True" {
			t.Errorf("cell %s: %s", cell, c.Body)
		}
	}
}

// once looks that a provider has each negotiation of a consumer's, and its agreement, a single time.
func once(t *testing.T, api *client.API, provider string, consumers []string) {
	t.Helper()
	negotiations, err := api.ListNegotiationsWithResponse(t.Context(), provider, &client.ListNegotiationsParams{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, n := range negotiations.JSON200.Items {
		seen[n.CounterpartyPid]++
	}
	for _, id := range consumers {
		if seen[id] != 1 {
			t.Errorf("%s has the negotiation %s of its counterparty %d times", provider, id, seen[id])
		}
	}
	agreements, err := api.ListAgreementsWithResponse(t.Context(), provider)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(agreements.JSON200.Items); n != len(consumers) {
		t.Errorf("%s has %d agreements of %d negotiations", provider, n, len(consumers))
	}
}

// letIn lets a cell's data planes in to the backends of a namespace, as who runs them does before a participant moves there.
func letIn(t *testing.T, namespace, cell string) {
	t.Helper()
	_, cs := kube(t)
	policies := cs.NetworkingV1().NetworkPolicies(namespace)
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "of-" + cell}, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: cell}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/component": "data-plane"}},
		}}}},
	}}
	if _, err := policies.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := policies.Delete(context.WithoutCancel(t.Context()), p.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}
