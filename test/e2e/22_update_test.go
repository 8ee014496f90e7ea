// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
)

// Every pod of a connector of two replicas is replaced while its participants negotiate. Each negotiation comes to its end, and whoever starts one
// is answered.
func TestAnUpdateLosesNoNegotiation(t *testing.T) {
	api := cloud(t)
	_, cs := kube(t)
	replicas(t, cs, 2)
	defer replicas(t, cs, 1)
	asset := client.Asset{ID: "updated", Properties: map[string]any{"name": "What is negotiated during an update"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.supplier-backend.svc:8080/documents/none"}}
	if _, err := api.PutAssetWithResponse(t.Context(), "supplier", asset.ID, asset); err != nil {
		t.Fatal(err)
	}
	conn := connectorOfCell(t, cs)
	base, token := internalAPI(t, cellNamespace, conn.Status.InternalURL, conn.Status.InternalSecret)
	admin(t, http.MethodPut, base+"/api/brandt-guss/v1/offers/offer-updated", token, // under no use case, so that it waits for nobody
		adminapi.Offer{ID: "offer-updated", Assets: []string{asset.ID}, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}, nil)
	first := becomes(t, "oem", startNegotiation(t, api, "oem", "supplier", asset.ID).ID, "FINALIZED")
	restart := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339))
	for _, d := range deployments(t, cs) {
		if _, err := cs.AppsV1().Deployments(d.Namespace).Patch(t.Context(), d.Name, types.StrategicMergePatchType, restart, metav1.PatchOptions{FieldManager: "kubectl-rollout"}); err != nil {
			t.Fatal(err)
		}
	}
	var started []string
	id := uuid.NewString()
	eventually(t, "every pod replaced, and a negotiation begun since", func(ctx context.Context) (bool, string) {
		replaced, seen := running(deployments(t, cs), 2)
		if len(started) < 20 || replaced {
			if _, err := api.StartNegotiationWithResponse(ctx, "oem", client.NegotiationStart{ID: id, Counterparty: "supplier", OfferID: first.OfferID}); err != nil {
				return false, err.Error()
			}
			started, id = append(started, id), uuid.NewString()
		}
		return replaced, seen
	})
	for _, id := range started {
		becomes(t, "oem", id, "FINALIZED")
	}
}

// replicas scales the shared cell and waits until its connector runs so.
func replicas(t *testing.T, cs *kubernetes.Clientset, n int32) {
	t.Helper()
	// With kubectl's means, so that Terraform goes on managing the cell.
	if err := cs.RESTClient().Patch(types.MergePatchType).AbsPath("/apis/cloud.kaphera.io/v1alpha1/namespaces/" + ownSystem + "/cells/shared").
		Body(fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("%d replicas of each role", n), func(context.Context) (bool, string) { return running(deployments(t, cs), n) })
}

// deployments are those of the shared cell's connector.
func deployments(t *testing.T, cs *kubernetes.Clientset) []appsv1.Deployment {
	t.Helper()
	l, err := cs.AppsV1().Deployments(cellNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=connector"})
	if err != nil || len(l.Items) != 3 {
		t.Fatalf("%d Deployments of the connector, %v", len(l.Items), err)
	}
	return l.Items
}

// running reports whether the newest pods of each Deployment run in full and no others, and what was seen.
func running(all []appsv1.Deployment, n int32) (bool, string) {
	for _, d := range all {
		if s := d.Status; s.ObservedGeneration < d.Generation || s.UpdatedReplicas != n || s.AvailableReplicas != n || s.Replicas != n || *d.Spec.Replicas != n {
			return false, fmt.Sprintf("%s: %+v", d.Name, s)
		}
	}
	return true, ""
}
