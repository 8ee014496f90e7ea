// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/client"
)

func TestDestroyLeavesNothing(t *testing.T) {
	must(t, "vpn", workspace(t, "destroy", "-auto-approve", "-input=false", "-no-color")...)
	api := cloud(t)
	participants, err := api.ListParticipantsWithResponse(t.Context(), &client.ListParticipantsParams{})
	if err != nil {
		t.Fatal(err)
	}
	cells, err := api.ListCellsWithResponse(t.Context(), &client.ListCellsParams{})
	if err != nil {
		t.Fatal(err)
	}
	organizations, err := api.ListOrganizationsWithResponse(t.Context(), &client.ListOrganizationsParams{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(participants.JSON200.Items) + len(cells.JSON200.Items) + len(organizations.JSON200.Items); n != 0 {
		t.Errorf("%d objects are left:\n%s\n%s\n%s", n, participants.Body, cells.Body, organizations.Body)
	}
	_, cs := kube(t)
	eventually(t, "namespace "+cellNamespace+" gone", func(ctx context.Context) (bool, string) {
		ns, err := cs.CoreV1().Namespaces().Get(ctx, cellNamespace, metav1.GetOptions{})
		if errors.IsNotFound(err) {
			return true, ""
		}
		if err != nil {
			return false, err.Error()
		}
		return false, fmt.Sprintf("%s %+v", ns.Status.Phase, ns.Status.Conditions)
	})
}
